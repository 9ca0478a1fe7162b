"""Writing results: an output folder that loses nothing, atomic files, and where every number came from."""

from __future__ import annotations

import io
import json
import os
import platform
import shlex
import sys
import time
import weakref
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brdyn import checked_json, store
from brdyn.errors import UsageError
from brdyn.interruption import uninterrupted
from brdyn.store import write_atomically
from brdyn.training import unfinished
from brdyn.words import first_line, printable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from brdyn.data import ImageSet
    from brdyn.models import VisionTransformer
    from brdyn.runtime import Processes

PACKAGES = ("brdyn", "torch", "timm", "transformers", "torchmetrics", "numpy", "pillow")
FORMATS = ("png", "svg", "pdf")
# The shape of a mean over images in a JSON.
ROW = dict.fromkeys(("mean", "low", "high", "sd", "n_images"), (float, None))
WRITTEN = (
    *(f".{kind}" for kind in FORMATS),
    ".json",
    ".parquet",
    ".safetensors",
)  # all that results are made of


class OutputFolder:
    """The folder one run writes to, and no other run at the same time.

    Files are written beside their final name and moved into place, so that none is ever half there. Used as a
    context manager, a folder that it made is removed again when the run fails before writing anything.

    Parameters
    ----------
    path : path
    overwrite : bool
        Allow a folder that already holds files; only files of the same name, and those that the result replaced says
        are its own, go.
    go_on_with : sequence of str
        Allow a folder that holds one of these too: a run to be gone on with. What killed runs have left beside that
        is no hindrance, and is swept.

    Raises
    ------
    UsageError
        If the folder holds files and none of this allows it, another run writes to it, or it cannot be made.
    """

    def __init__(self, path: str | Path, overwrite: bool = False, go_on_with: Sequence[str] = ()) -> None:
        self.path = Path(path).expanduser()
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self._began = self._saved = False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot make the output folder {str(self.path)!r} ({error.strerror})"
            ) from error
        if not os.access(self.path, os.W_OK):
            raise UsageError(f"cannot write to the output folder {str(self.path)!r}; choose another --out")
        self._unlock = weakref.finalize(self, store.lock(self.path))
        try:
            if not (overwrite or any((self.path / name).exists() for name in go_on_with)):
                check_empty(self.path)
            unfinished.sweep(self.path)
        except BaseException:
            self._unlock()
            raise

    def __enter__(self) -> OutputFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        if error is not None and self._saved:
            error.add_note(f"the result in {str(self.path)!r} is whole")
        if kind is not None:
            unfinished.sweep(self.path, everything=self._began or bool(self._made))
            if self._began and not unfinished.has_checkpoints(self.path):
                self.end()
            for folder in self._made:  # innermost first
                with suppress(OSError):  # not empty
                    folder.rmdir()
        self._unlock()

    def begin(self, options: Mapping[str, Any], leaves: Sequence[str] = ()) -> None:
        """Note in the folder that a run is under way, until it has a result or fails.

        Parameters
        ----------
        options : mapping
            What the run was asked for.
        leaves : sequence of str
            Folders in it that the run may leave things in.
        """
        content = {"command": command(), "leaves": list(leaves), "options": options}
        self._began = True
        write_atomically(self.path / unfinished.MARKER, to_json(content))

    def end(self) -> None:
        """The run is over."""
        self._began = False
        (self.path / unfinished.MARKER).unlink(missing_ok=True)

    def save(
        self,
        name: str,
        content: Mapping[str, Any],
        figures: Mapping[str, Figure] | None = None,
        formats: tuple[str, ...] = ("png",),
        others: Mapping[str, bytes] | None = None,
    ) -> None:
        """Write the figures, other files and last the JSON file of a run, whose presence says that the run is whole.

        Everything is drawn and lies on the disk before the old result goes, so that a failure leaves it as it was. The
        JSON file names all of them in `files`; what the one that it replaces names so goes with that.
        """
        files = {
            f"{title}.{kind}": render(figure, kind)
            for title, figure in (figures or {}).items()
            for kind in formats
        }
        files |= others or {}
        files[name] = to_json({**content, "files": sorted({*files, name})})
        with uninterrupted():
            store.replace_together(self.path, files, self._own(name))
            self._saved = True

    def discard(self, name: str, others: Sequence[str] = ()) -> None:
        """Take an earlier result away: its JSON file first, then what that names, and others of its files."""
        path = self.path / name
        own = self._own(name)
        store.set_aside(path)
        store.sync(self.path)
        for file in sorted({*own, *others}, key=lambda file: not file.endswith(".json")):
            (self.path / file).unlink(missing_ok=True)
        store.aside(path).unlink(missing_ok=True)

    def _own(self, name: str) -> set[str]:
        """The files of an earlier result, by its JSON file, also by one that a killed run has set aside."""
        found: set[str] = set()
        for path in (self.path / name, store.aside(self.path / name)):
            with suppress(OSError, ValueError, RecursionError):
                content = json.loads(path.read_bytes())
                found |= {str(file) for file in content["files"]} if isinstance(content, dict) else set()
        return {
            file
            for file in found
            if Path(file).name == file and Path(file).suffix in WRITTEN and (self.path / file).is_file()
        }


def check_empty(folder: Path) -> None:
    """Refuse an output folder that holds anything but what killed runs have left."""
    if unfinished.only_leftovers(folder):
        return
    if unfinished.is_there(folder):
        raise UsageError(
            f"{str(folder)!r} holds an unfinished run; --resume goes on with it, --overwrite begins anew"
        )
    raise UsageError(
        f"the output folder {str(folder)!r} is not empty; choose another --out or pass --overwrite"
    )


def render(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a picture file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=200, bbox_inches="tight")
    return buffer.getvalue()


def check_formats(formats: str) -> tuple[str, ...]:
    """`png,svg` as a tuple; an unknown format is a `UsageError`."""
    names = tuple(name.strip().lower() for name in formats.split(",") if name.strip())
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise UsageError(
            f"unknown picture format {', '.join(unknown) or formats!r}; choose from {', '.join(FORMATS)}"
        )
    return names


def to_json(content: Mapping[str, Any]) -> bytes:
    """A mapping as JSON, indented, with lists of plain values on one line; names that are no UTF-8 are escaped.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    return (
        "".join(_json(json.loads(json.dumps(content, allow_nan=False, default=_plain)), 0)) + "\n"
    ).encode()


def records(table: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """The rows of a table for JSON, which has no word for a missing number but null."""
    return table.astype(object).where(table.notna(), None).to_dict(orient="records")


def listed(values: Iterable[float]) -> list[float | None]:
    """Numbers for JSON, null where there is none."""
    return [None if np.isnan(value) else float(value) for value in values]


def _json(value: Any, depth: int) -> Iterator[str]:
    nested = isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(entry, dict | list) for entry in value)
    )
    if not nested or not value:
        yield json.dumps(_printable(value))
        return
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    entries = value.items() if isinstance(value, dict) else ((None, entry) for entry in value)
    separator = opening
    for key, entry in entries:
        yield (
            separator
            + "\n"
            + "  " * (depth + 1)
            + (f"{json.dumps(printable(key))}: " if key is not None else "")
        )
        yield from _json(entry, depth + 1)
        separator = ","
    yield "\n" + "  " * depth + closing


def _printable(value: Any) -> Any:
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    return printable(value) if isinstance(value, str) else value


def read_json(path: str | Path, what: str, shape: Mapping[str, Any] | Sequence[str] = ()) -> dict[str, Any]:
    """Read a JSON file written earlier, by brdyn or by anybody.

    Parameters
    ----------
    path : path
    what : str
        What it should be, for the error: `a phases.json`.
    shape : mapping of str to shape, or sequence of str
        The keys it has, with what they hold as :mod:`brdyn.checked_json` has it, or whatever they hold.

    Raises
    ------
    UsageError
        If it is not there, not strict JSON, or not of that shape.
    """
    try:
        content = checked_json.read(checked_json.expanded(path))
    except checked_json.JsonError as error:
        raise UsageError(f"cannot read {str(path)!r} as {what} ({error})") from error
    with reading(path, what):
        checked_json.check(content, shape if isinstance(shape, Mapping) else dict.fromkeys(shape, object))
    return content


@contextmanager
def reading(path: str | Path, what: str) -> Iterator[None]:
    """While the content of a file is made into something: a `ValueError` about it becomes one that names the file.

    Raises
    ------
    UsageError
        `'x.json' is not a phases.json (…)`.
    """
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{str(path)!r} is not {what} ({first_line(error)})") from error


def read_table(path: str | Path, what: str, columns: Sequence[str]) -> pd.DataFrame:
    """Read a parquet file that brdyn wrote beside a JSON.

    Raises
    ------
    UsageError
        If it is not there, no parquet, or lacks one of the columns.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        if not Path(path).is_file():  # opening a pipe waits for ever
            raise OSError("no such file")
        table = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"cannot read {str(path)!r} as {what} ({first_line(error)})") from error
    lacking = [name for name in columns if name not in table]
    if lacking:
        raise UsageError(f"{str(path)!r} is not {what} (it has no column {lacking[0]!r})")
    return table


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


class Stopwatch:
    """Wall-clock seconds since it was made.

    Attributes
    ----------
    earlier : float
        Seconds to count besides: those of the sessions that a resumed run goes on from.
    """

    def __init__(self) -> None:
        self.earlier = 0.0
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self.earlier + time.perf_counter() - self._start


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree that was never installed
            found[package] = "unknown"
    return found


def device_name(kind: str) -> str:
    """The processor or GPU a run used, in words."""
    import torch

    if kind == "cuda":
        return torch.cuda.get_device_name()
    if kind == "mps":
        return f"{platform.processor() or platform.machine()} GPU (mps)"
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"


def command(program: Sequence[str] = ("brdyn",)) -> str:
    """`program` and what follows it in this process, as typed in a shell."""
    return " ".join(shlex.quote(part) for part in [*program, *sys.argv[1:]])


def run_provenance(device: str, program: Sequence[str] = ("brdyn",)) -> dict[str, Any]:
    """The command (`program` and what follows it in this process), the date, the versions and the device."""
    return {
        "command": command(program),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "device": device_name(device),
    }


def image_provenance(images: ImageSet) -> dict[str, Any]:
    """Which images were read."""
    return {
        "source": images.source.description,
        "in_source": len(images.source),
        "chosen": len(images),
        "read": images.report.count,
        "digest": f"{images.report.digest:064x}",
        "seed": images.seed,
        **images.source.chosen(),
    }


def provenance(
    model: VisionTransformer,
    images: ImageSet,
    processes: Processes,
    seconds: float,
    **settings: Any,
) -> dict[str, Any]:
    """Everything needed to repeat a run: versions, model, weights, data, seed, command, device, date."""
    return {
        **run_provenance(processes.device.type),
        "model": {
            **model.info.to_dict(),
            "token_groups": model.tokens.sizes(),
            "preprocessing": model.preprocessing.to_dict(),
        },
        "images": image_provenance(images),
        "dtype": model.precision,
        "processes": processes.world,
        "seconds": round(seconds, 3),
        **settings,
    }
