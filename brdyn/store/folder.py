"""The folder that a run writes to: it loses nothing, and one run at a time is in it."""

from __future__ import annotations

import io
import os
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brdyn.checked_json import expanded
from brdyn.environment import command
from brdyn.errors import UsageError, permitted
from brdyn.interruption import uninterrupted
from brdyn.store import files, unfinished
from brdyn.store.json_files import to_json
from brdyn.store.result_files import PICTURES, check_own, files_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = PICTURES


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
        Allow a folder that holds one of these too: a run to be gone on with (`checkpoints` with a checkpoint in it).
        What killed runs have left beside that is no hindrance, and is swept.
    result : str, optional
        The JSON file that a run of a command will write: a folder that is another command's is then refused.

    Raises
    ------
    UsageError
        If the folder holds files and none of this allows it, it is another command's, another run writes to it, or it
        cannot be made or looked into.
    """

    @permitted()
    def __init__(
        self,
        path: str | Path,
        overwrite: bool = False,
        go_on_with: Sequence[str] = (),
        result: str | None = None,
    ) -> None:
        self.result = result
        self.path = expanded(path)
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self._began = self._saved = False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the output folder {str(self.path)!r} ({error.strerror})") from error
        if not os.access(self.path, os.W_OK):
            raise UsageError(f"cannot write to the output folder {str(self.path)!r}; choose another `out`")
        self._unlock = weakref.finalize(self, files.lock(self.path))
        try:
            if not (overwrite or unfinished.goes_on(self.path, go_on_with)):
                check_empty(self.path)
            if result is not None:
                check_own(self.path, result)
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
        content = {
            "command": command(), "result": self.result, "leaves": list(leaves), "options": options
        }  # fmt: skip
        self._began = True
        files.write_atomically(self.path / unfinished.MARKER, to_json(content))

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
    ) -> list[str]:
        """Write the figures, other files and last the JSON file of a run, whose presence says that the run is whole.

        Everything is drawn and lies on the disk before the old result goes, so that a failure leaves it as it was. The
        JSON file names all of them in `files`; what the one that it replaces names so goes with that. Returns their
        names, that file first.
        """
        whole = {
            f"{title}.{kind}": render(figure, kind) for title, figure in (figures or {}).items() for kind in formats
        }
        whole |= others or {}
        whole[name] = to_json({**content, "files": sorted({*whole, name})})
        with uninterrupted():
            files.replace_together(self.path, whole, files_of(self.path, name))
            self._saved = True
        return [name, *sorted({*whole} - {name})]

    def discard(self, name: str, others: Sequence[str] = ()) -> None:
        """Take an earlier result away: its JSON file first, then what that names, and others of its files."""
        path = self.path / name
        own = files_of(self.path, name)
        files.set_aside(path)
        files.sync(self.path)
        for file in sorted({*own, *others}, key=lambda file: not file.endswith(".json")):
            (self.path / file).unlink(missing_ok=True)
        files.aside(path).unlink(missing_ok=True)


def check_empty(folder: Path) -> None:
    """Refuse an output folder that holds anything but what killed runs have left."""
    if unfinished.only_leftovers(folder):
        return
    if unfinished.is_there(folder):
        raise UsageError(
            f"{str(folder)!r} holds an unfinished run; `resume` goes on with it, `overwrite=True` begins anew"
        )
    raise UsageError(f"the output folder {str(folder)!r} is not empty; choose another `out` or pass `overwrite=True`")


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
        raise UsageError(f"unknown picture format {', '.join(unknown) or formats!r}; choose from {', '.join(FORMATS)}")
    return names
