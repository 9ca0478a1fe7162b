"""Results: what every measurement gives back, what they are on disk, and what they say of themselves.

A result is a folder with one JSON file, which is written last and says that the rest is whole: the numbers, their
provenance, and the names of the other files (tables as parquet, weights, pictures).
"""

from __future__ import annotations

import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from brdyn.arguments import checked
from brdyn.checked_json import expanded, take
from brdyn.errors import BrdynError, UsageError, permitted
from brdyn.provenance import Provenance, RunProvenance, Stopwatch
from brdyn.store import OutputFolder, check_formats, read_json, reading, to_json
from brdyn.store.files import aside
from brdyn.store.result_files import KINDS, NEEDED, missing, named_in, read_plain
from brdyn.words import cell, table_lines

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

AGAIN = "copy it again, or run the command again"
TIME = re.compile(r"(^|_)(seconds|images_per_second|latency_ms)$")  # entries that are of the clock
READABLE = {name: kind.reader for name, kind in KINDS.items() if kind.reader is not None}


@dataclass(frozen=True, eq=False, repr=False)
class Result(ABC):
    """Numbers that were measured, and where they come from.

    Attributes
    ----------
    provenance : RunProvenance or None
        Of what was measured on a ViT a :class:`brdyn.provenance.Provenance`, which names it and the images. None where
        nothing was run: a similarity of somebody's own, a result that was put together by hand.

    Examples
    --------
    >>> similarity.save("runs/similarity")
    >>> again = brdyn.read("runs/similarity")
    >>> again == similarity
    True
    """

    FILE: ClassVar[str]
    SCHEMA: ClassVar[int] = 1
    SHAPE: ClassVar[Mapping[str, Any]] = {}
    TIMED: ClassVar[bool] = True
    RUN_ON: ClassVar[str] = ""  # which of its images the provenance is about, where there are others
    ORIGIN: ClassVar[type[RunProvenance]] = Provenance
    ROW_OF: ClassVar[tuple[str, ...]] = ()  # numbers that tell rows of the overview apart, beside its words

    _: KW_ONLY
    provenance: RunProvenance | None = None

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """The numbers in the JSON file."""

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Tables in files beside it, by name."""
        return {}

    def others(self) -> Mapping[str, bytes]:
        """Other files, by name."""
        return {}

    @classmethod
    @abstractmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from the content of the JSON file, which is of `SHAPE`, and the files beside it."""

    @abstractmethod
    def answer(self) -> str:
        """What the numbers say, in a sentence."""

    @abstractmethod
    def overview(self) -> list[dict[str, Any]]:
        """The few numbers to look at first: the rows of a small table."""

    def remarks(self) -> list[str]:
        """What else there is to say, line by line."""
        return []

    def numbers(self) -> dict[str, Any]:
        """The numbers to hold against those of other results of this kind, by what they are."""
        found: dict[str, Any] = {}
        for row in self.overview():
            told = {name: f"{name} {cell(value)}" for name, value in row.items() if name in self.ROW_OF}
            told |= {name: value for name, value in row.items() if isinstance(value, str)}
            of = ", ".join(filter(None, (told.get(name) for name in row)))
            found |= {f"{of}: {name}" if of else name: value for name, value in row.items() if name not in told}
        return found

    def alike(self) -> dict[str, Any]:
        """What has to be the same of results whose numbers are compared, by what it is called; None if unknown."""
        if not isinstance(self.provenance, Provenance):
            return {}
        details = self.provenance.details
        return {
            "images": details["images"].get("digest"), "image sizes": details["model"].get("image_size"),
            "precisions": details.get("dtype"),
        }  # fmt: skip

    @property
    def measured(self) -> str:
        """What is measured, where results of this kind may be of different things."""
        return ""

    @property
    def timed(self) -> bool:
        """Whether its seconds are those of going through the images once."""
        return self.TIMED

    def summary(self) -> str:
        """The answer in words, a small table, remarks, and what was run, to print."""
        origin = self.provenance
        parts = [
            [self.answer(), *([] if origin is None else origin.warnings())],
            table_lines(self.overview()),
            self.remarks(),
            [] if origin is None else origin.lines(self.timed, self.RUN_ON),
        ]
        return "\n\n".join("\n".join(part) for part in parts if part)

    @property
    def title(self) -> str:
        """Heading of pictures."""
        return "" if self.provenance is None else self.provenance.title

    @property
    def caption(self) -> str:
        """How many images of which size, below the heading of pictures."""
        return "" if self.provenance is None else self.provenance.caption

    def lasting(self, watch: Stopwatch) -> Self:
        """The same as the result of a run that began when the watch was started."""
        return self if self.provenance is None else replace(self, provenance=self.provenance.lasting(watch))

    @checked
    def save(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        figures: Mapping[str, Figure] | None = None,
        formats: tuple[str, ...] = ("png",),
    ) -> None:
        """Write the result to a folder of its own.

        Parameters
        ----------
        folder : path
        overwrite : bool
            Replace a result of the same kind that is there.
        figures : mapping of str to Figure, optional
            Pictures to write beside it, such as :func:`brdyn.plots.draw` makes.
        formats : tuple of str
            Of the pictures: some of `png`, `svg`, `pdf`.

        Raises
        ------
        UsageError
            If the folder holds something and is not to be overwritten, or something else than such a result, or a
            format is unknown.
        """
        formats = check_formats(",".join(formats))
        with OutputFolder(folder, overwrite, result=self.FILE) as out:
            self.write(out, figures, formats)

    def write(
        self,
        out: OutputFolder,
        figures: Mapping[str, Figure] | None = None,
        formats: tuple[str, ...] = ("png",),
    ) -> list[str]:
        """As :meth:`save`, to a folder that is open; returns the names of the files."""
        header = {} if self.provenance is None else self.provenance.header()
        origin = {} if self.provenance is None else {"provenance": self.provenance.details}
        content = {"schema": self.SCHEMA, **header, **self.content(), **origin}
        tables = {name: table.to_parquet(index=False) for name, table in self.tables().items()}
        return out.save(self.FILE, content, figures, formats, {**tables, **self.others()})

    @classmethod
    @permitted()
    def read(cls, folder: str | Path) -> Self:
        """Read what :meth:`save`, or the command, wrote to a folder.

        Parameters
        ----------
        folder : path
            The folder, or the JSON file in it.

        Raises
        ------
        UsageError
            If there is no such result there, it may not be looked at, or it is damaged, half removed, or of a newer
            version.
        """
        path = _file(expanded(folder), cls.FILE)
        what = f"a result of {KINDS[cls.FILE].writer}"
        with _again():
            content = read_json(path, what)
        _check_whole(path, content, cls.SCHEMA)
        with _again(), reading(path, what):
            content = take(content, cls.SHAPE)
            origin = cls.ORIGIN.from_content(content)
            return replace(cls.from_content(content, path.parent), provenance=origin)

    def __eq__(self, other: object) -> bool:
        """The same numbers, whenever they were measured."""
        if not isinstance(other, Result) or type(other) is not type(self):
            return NotImplemented
        mine, theirs = (to_json(_untimed(one.content())) for one in (self, other))
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """The kind, and what it is of in a few words."""
        return f"{type(self).__name__}({self.brief()})"

    @abstractmethod
    def brief(self) -> str:
        """What it is of, in a few words."""


def _untimed(content: Any) -> Any:
    """The same without how long it took, which no two runs have alike."""
    if isinstance(content, Mapping):
        return {name: _untimed(value) for name, value in content.items() if not TIME.search(str(name))}
    return list(map(_untimed, content)) if isinstance(content, list | tuple) else content


@checked
@permitted()
def read(folder: str | Path) -> Result:
    """Read any result back, whatever command or function wrote it.

    Parameters
    ----------
    folder : path
        The folder of a run, or the JSON file in it.

    Returns
    -------
    Result
        `Phases`, `Dynamics`, `Repair`, …: what the function gave that was run.

    Raises
    ------
    UsageError
        If there is no result, several, one that may not be looked at, or one that is damaged, half removed, or of a
        newer version.

    Examples
    --------
    >>> phases.save("runs/phases")
    >>> brdyn.read("runs/phases").boundaries == phases.boundaries
    True
    """
    path = expanded(folder)
    if path.name in READABLE and not path.is_dir():
        return result_class(path.name).read(path)
    found = _results_in(path)
    if not found:
        raise UsageError(f"{str(folder)!r} holds no result of brdyn{_instead(path)}")
    if len(found) > 1:
        raise UsageError(
            f"{str(folder)!r} holds several results ({', '.join(found)}); give the file of one: "
            f"{str(path / found[0])!r}"
        )
    return result_class(found[0]).read(path)


def result_class(file: str) -> type[Result]:
    """The class of a result file."""
    room, _, name = READABLE[file].partition(":")
    return getattr(import_module(room), name)


def _file(path: Path, name: str) -> Path:
    """The result file in a folder, or the file itself, where it is of this kind."""
    if path.is_dir():
        if (path / name).exists():
            return path / name
        found = _results_in(path)
        other = f" but one of {KINDS[found[0]].writer} ({found[0]})" if found else _instead(path)
        raise UsageError(f"{str(path)!r} holds no result of {KINDS[name].writer}{other}; {name} is expected")
    if path.name in KINDS and path.name != name:
        raise UsageError(
            f"{str(path)!r} is a result of {KINDS[path.name].writer}, and one of {KINDS[name].writer} is expected "
            f"({name})"
        )
    return path


def _results_in(folder: Path) -> list[str]:
    return [name for name in READABLE if (folder / name).is_file()]


def _instead(folder: Path) -> str:
    """Why there may be none, and how to have it back."""
    if not folder.exists():
        return " (there is no such folder)"
    if left := [name for name in READABLE if aside(folder / name).is_file()]:
        path = folder / left[0]
        said = f"a run that was killed has set {left[0]} aside, as {aside(path).name}"
        if any(name.endswith(NEEDED) for name in named_in(read_plain(aside(path)))):
            return f" ({said}, and may have replaced some of what it names: run the command again)"
        return f" ({said}; `mv {shlex.quote(str(aside(path)))} {shlex.quote(str(path))}` brings it back)"
    tables = sorted(path.name for path in folder.glob("*.parquet"))
    return f" ({tables[0]} is there, but not the JSON file that it belongs to)" if tables else ""


def is_newer(content: Mapping[str, Any], known: int) -> bool:
    """Whether a result's JSON is of a later schema than the one that is known; the first versions wrote none."""
    schema = content.get("schema", 0)
    return not isinstance(schema, int) or schema > known


def _check_whole(path: Path, content: Mapping[str, Any], known: int) -> None:
    if is_newer(content, known):
        raise UsageError(
            f"{str(path)!r} was written by a newer brdyn (schema {content['schema']}, and this one reads up to "
            f"{known}); upgrade brdyn to read it"
        )
    if lost := missing(path, content):
        writer = KINDS[path.name].writer if path.name in KINDS else "brdyn"
        raise UsageError(
            f"the result of {writer} in {str(path.parent)!r} is half "
            f"removed: {path.name} names {lost[0]}, which is not there; {AGAIN}"
        )


@contextmanager
def _again() -> Iterator[None]:
    """While files of a result are read: whatever is wrong with one is said with what to do."""
    try:
        yield
    except BrdynError as error:
        raise UsageError(f"{error}; {AGAIN}") from error
