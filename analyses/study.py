"""A study of many cells: each is asked for by what decides it, skipped where it was recorded as asked, and written down
with where its numbers come from; one that fails is written down too, does not stop the rest, and is tried again."""

from __future__ import annotations

import argparse
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
import yaml

from analyses.recording import parser, provenance
from brdyn.classification.recipe import VITRM
from brdyn.errors import BrdynError, UsageError
from brdyn.results import read_json, to_json
from brdyn.store import write_atomically

C = TypeVar("C")
T = TypeVar("T")
KNOWN = "already recorded"
SIZES = Path(__file__).with_name("sizes.yaml")


class OutOfTime(BrdynError):
    """The time given to a study is over."""


def digest_of(asked: Mapping[str, Any]) -> str:
    """SHA-256 of what a cell was asked for. Files that have a digest are the same where it is, wherever they lie."""
    return hashlib.sha256(to_json(_without_places(asked))).hexdigest()


def _without_places(asked: Any) -> Any:
    if isinstance(asked, Mapping):
        named = {"source"} if asked.get("digest") else set()
        return {key: _without_places(value) for key, value in asked.items() if key not in named}
    return [_without_places(one) for one in asked] if isinstance(asked, list | tuple) else asked


def is_recorded(path: Path) -> bool:
    """Whether a cell's result is there and is no failure."""
    return path.is_file() and "failed" not in read_json(path, "a cell of a study")


def recorded(path: Path, digest: str) -> dict[str, Any] | None:
    """A cell's result, if it is there, was asked for alike and did not fail."""
    if not path.is_file():
        return None
    before = read_json(path, "a cell of a study", ("digest",))
    return before if before["digest"] == digest and "failed" not in before else None


def attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` returns, or the error as `failed`: also where it cannot be written.

    To be out of time, or a usage error, is of the study and not of this cell: it is raised.
    """
    try:
        found = work()
        to_json(found)
        return found
    except (OutOfTime, UsageError):  # neither is of this cell alone
        raise
    except Exception as error:  # whatever it is, the other cells are worth their time
        return {"failed": f"{type(error).__name__}: {error}"}


def share_of(text: str) -> tuple[int, int]:
    """`0/2` as two numbers.

    Raises
    ------
    UsageError
        If it is not one of so many shares.
    """
    first, _, every = text.partition("/")
    if not (first.isdigit() and every.isdigit() and int(first) < int(every)):
        raise UsageError(f"--share {text!r} is not i/n with i from 0 to n - 1")
    return int(first), int(every)


def named(chosen: str | None, names: Iterable[str], option: str) -> list[str]:
    """The names that an option lists, or all of them.

    Raises
    ------
    UsageError
        If there is none of a name.
    """
    every = list(names)
    asked = chosen.split(",") if chosen else every
    for name in asked:
        if name not in every:
            raise UsageError(f"{option}: {name!r} is not one of {', '.join(every)}")
    return asked


def sizes_of(module: str, kind: type[T]) -> dict[str, T]:
    """How large a study can be, by name, from `sizes.yaml`."""
    found = {}
    for name, row in yaml.safe_load(SIZES.read_text())[module].items():
        entries: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in row.items()
        }
        if "recipe" in entries:
            entries["recipe"] = replace(VITRM, **entries["recipe"])
        found[name] = kind(**entries)
    return found


class Study(ABC, Generic[C]):
    """Cells, and how one is run.

    Attributes
    ----------
    module : str
        Of `analyses`, in the command that results name.
    choice : Namespace
        Options; `out`, `device`, `minutes` and `share` are those of every study.
    folder : Path
        Where cells are recorded.
    """

    module: ClassVar[str]
    folder: Path

    def __init__(self, choice: argparse.Namespace) -> None:
        self.choice = choice
        self.device = torch.device(choice.device)
        self.until = time.monotonic() + 60 * choice.minutes

    @abstractmethod
    def cells(self) -> Iterable[C]:
        """All that are wanted, the most telling first."""

    @abstractmethod
    def name(self, cell: C) -> str:
        """Of its result, in the folder."""

    @abstractmethod
    def asked(self, cell: C) -> Mapping[str, Any]:
        """Everything that decides its result."""

    @abstractmethod
    def run(self, cell: C, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What is recorded of it."""

    @abstractmethod
    def said(self, content: Mapping[str, Any]) -> str:
        """A word on it."""

    def head(self, cell: C, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What stands in its file however it went."""
        return {"cell": self.name(cell), "digest": digest_of(asked), "asked": asked}

    def path(self, cell: C) -> Path:
        """Its file."""
        return self.folder / f"{self.name(cell)}.json"

    def known(self, cell: C, asked: Mapping[str, Any]) -> bool:
        """Whether there is nothing to do."""
        return recorded(self.path(cell), digest_of(asked)) is not None

    def check_time(self) -> None:
        """Raise :class:`OutOfTime` where it is over."""
        if time.monotonic() > self.until:
            raise OutOfTime("out of time")

    def provenance(self) -> dict[str, Any]:
        """Where numbers come from."""
        return provenance(self.module, self.choice.device)

    def record(self, cell: C) -> str:
        """Run a cell unless it is there; a word on how it went."""
        asked = self.asked(cell)
        if self.known(cell, asked):
            return KNOWN
        self.check_time()
        content = attempt(lambda: self.run(cell, asked))
        path = self.path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {"provenance": self.provenance(), **self.head(cell, asked), **content}
        write_atomically(path, to_json(whole))
        return content.get("failed") or self.said(whole)

    def shared(self, cells: Iterable[T]) -> Iterable[T]:
        """Those of this process, of several side by side."""
        first, every = share_of(self.choice.share)
        return islice(cells, first, None, every)

    def work(self) -> None:
        """Record what is not recorded yet."""
        for cell in self.shared(self.cells()):
            print(f"{self.name(cell)}: {self.record(cell)}", flush=True)


def study_parser(description: str | None, out: Path, *, labelled: bool = True) -> argparse.ArgumentParser:
    """An argument parser with the options of every study."""
    options = parser(description)
    if labelled:
        options.add_argument("--train", required=True, help="labelled images to train, and fit probes, on")
        options.add_argument("--test", required=True, help="labelled images to test on")
    options.add_argument(
        "--share", default="0/1", help="i/n: every n-th from the i-th, for n runs side by side"
    )
    options.add_argument(
        "--minutes", type=float, default=float("inf"),
        help="begin nothing after so long; training stops at a checkpoint, and a fit is finished",
    )  # fmt: skip
    options.set_defaults(out=out)
    return options


def command(study: Callable[[argparse.Namespace], Study[Any]], options: argparse.ArgumentParser) -> None:
    """What the command of a study does."""
    choice = options.parse_args()
    try:
        study(choice).work()
    except OutOfTime as over:
        print(f"{over}; run it again to go on")
    except BrdynError as error:
        options.error(str(error))
