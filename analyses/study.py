"""A study of many cells: each is asked for by what decides it, skipped where it was recorded as asked, and written down
with where its numbers come from; one that fails is written down too, does not stop the rest, and is tried again."""

from __future__ import annotations

import argparse
import hashlib
import time
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import filter as matching
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import torch
import yaml

from analyses.recording import Choice, command, parser
from brdyn import BrdynError, UsageError
from brdyn.classifiers.recipe import VITRM
from brdyn.provenance import run_provenance
from brdyn.store import read_json, to_json, write_atomically

C = TypeVar("C")
HEADLINE = ("accuracy", "teacher_accuracy", "fit_seconds", "seconds")
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


class Cells(NamedTuple):
    """What is recorded of a study: results and failures by name, and where the newest comes from."""

    done: dict[str, dict[str, Any]]
    failed: dict[str, str]
    provenance: dict[str, Any]


def read_all(
    folder: Path, names: Iterable[str], *needed: str,
    wanted: Callable[[str, dict[str, Any]], bool] = lambda name, content: True,
) -> Cells:  # fmt: skip
    """The cells whose files are there, by name, and which are wanted by what they contain."""
    cells = Cells({}, {}, {})
    for name in names:
        if not (path := folder / f"{name}.json").is_file():
            continue
        content = read_json(path, "a cell of a study", ("provenance", *needed))
        if not wanted(name, content):
            continue
        if content["provenance"].get("date", "") > cells.provenance.get("date", ""):
            cells.provenance.update(content["provenance"])
        if "failed" in content:
            cells.failed[name] = content["failed"]
        else:
            cells.done[name] = content
    return cells


def recorded_size(folder: Path, sizes: Iterable[str], *patterns: str) -> str | None:
    """The first of several sizes whose folder has files of every pattern; None where none has."""
    there = (size for size in sizes if all(any((folder / size).glob(one)) for one in patterns))
    return next(there, None)


def attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` returns, or the error as `failed`: also where it cannot be written.

    To be out of time, or a usage error, is of the study and not of this cell: it is raised.
    """
    try:
        found = work()
        to_json(found)
        return found
    except (OutOfTime, UsageError):
        raise
    except Exception as error:  # whatever it is, the other cells are worth their time
        return {"failed": f"{type(error).__name__}: {error}"}


def share_of(text: str) -> tuple[int, int]:
    """`0/2` as two numbers. Raises UsageError if it is not one of so many shares."""
    first, _, every = text.partition("/")
    if not (first.isdigit() and every.isdigit() and int(first) < int(every)):
        raise UsageError(f"--share {text!r} is not i/n with i from 0 to n - 1")
    return int(first), int(every)


def packed(hits: np.ndarray) -> str:
    """Which images were named right, a bit each, as text."""
    return b64encode(np.packbits(hits).tobytes()).decode()


def unpacked(text: str, images: int) -> np.ndarray:
    """Back from :func:`packed`, of so many images."""
    return np.unpackbits(np.frombuffer(b64decode(text), np.uint8), count=images).astype(bool)


def chosen(only: str | None, cells: Iterable[C]) -> list[C]:
    """The cells that `--only` names, or all of them. Raises UsageError if there is none of a name."""
    every, found = {str(cell): cell for cell in cells}, list[str]()
    for pattern in only.split(",") if only else ["*"]:
        if not (some := matching(every, pattern)):
            raise UsageError(f"--only: {pattern!r} is not one of {', '.join(every)}")
        found += some
    return [every[name] for name in dict.fromkeys(found)]


def sizes_of(module: str) -> dict[str, SimpleNamespace]:
    """How large a study can be, by name, from `sizes.yaml`, where recipes say what is not as published."""
    found = yaml.safe_load(SIZES.read_text())[module]
    for row in found.values():
        row |= {"recipe": replace(VITRM, **row["recipe"])} if "recipe" in row else {}
    return {name: SimpleNamespace(**row) for name, row in found.items()}


class Study(ABC, Generic[C]):
    """Cells, whose names are their `str`, and how one is run.

    `asked_as` is the entry of a record that says what was asked for, `folder` where cells are recorded; of the options,
    `out`, `device`, `minutes`, `share`, `only` and `size` (of which some have one alone) are those of every study.
    Raises UsageError if there is no cell of a name that `only` has.
    """

    asked_as: ClassVar[str] = "asked"

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.folder: Path = choice.out
        self.device = torch.device(choice.device)
        self.until = time.monotonic() + 60 * choice.minutes
        self.wanted = self.cells()

    @classmethod
    @abstractmethod
    def planned(cls, size: str) -> list[C]:
        """All of a size, the most telling first."""

    @classmethod
    def network_of(cls, cell: C) -> C | None:
        """The cell that trains the network that this one is measured on, where there is one."""
        return None

    @classmethod
    def run_name(cls, network: C) -> str:
        """What the training of a network is called; one can be of several cells."""
        return str(network)

    def cells(self) -> list[C]:
        """Those that `--only` names."""
        return chosen(self.choice.only, self.planned(self.choice.size))

    @abstractmethod
    def asked(self, cell: C) -> Mapping[str, Any]:
        """Everything that decides its result."""

    @abstractmethod
    def run(self, cell: C, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What is recorded of it."""

    def said(self, content: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {content[name]:.4g}" for name in HEADLINE if name in content)

    def head(self, cell: C, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What stands in its file however it went."""
        return {"cell": str(cell), "digest": digest_of(asked), self.asked_as: asked}

    def path(self, cell: C) -> Path:
        return self.folder / f"{cell}.json"

    def recorded(self, cell: C, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """A cell's result, if it is there, was asked for alike and did not fail."""
        if not is_recorded(self.path(cell)):
            return None
        before = read_json(self.path(cell), "a cell of a study", (self.asked_as,))
        return before if digest_of(before[self.asked_as]) == digest_of(asked) else None

    def known(self, cell: C, asked: Mapping[str, Any]) -> bool:
        """Whether there is nothing to do."""
        return self.recorded(cell, asked) is not None

    def unfit(self, cell: C) -> str:
        """Why a cell cannot be run, in words; empty where it can."""
        return ""

    def check_time(self) -> None:
        """Raise :class:`OutOfTime` where it is over."""
        if time.monotonic() > self.until:
            raise OutOfTime("out of time")

    def provenance(self) -> dict[str, Any]:
        return run_provenance(self.choice.device)

    def record(self, cell: C) -> str:
        """Run a cell unless it is there; a word on how it went."""
        if why := self.unfit(cell):
            return why
        asked = self.asked(cell)
        if self.known(cell, asked):
            return "already recorded"
        self.check_time()
        content = attempt(lambda: self.run(cell, asked))
        whole = {"provenance": self.provenance(), **self.head(cell, asked), **content}
        self.path(cell).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path(cell), to_json(whole))
        return content.get("failed") or self.said(whole)

    def shared(self) -> list[C]:
        """Those of this process, of several side by side: a network and what is measured on it are of one."""
        runs = [self.run_name(self.network_of(cell) or cell) for cell in self.wanted]
        first, every = share_of(self.choice.share)
        own = set(list(dict.fromkeys(runs))[first::every])
        return [cell for cell, run in zip(self.wanted, runs, strict=True) if run in own]

    def work(self) -> None:
        for cell in self.shared():
            print(f"{cell}: {self.record(cell)}", flush=True)


def study_parser(
    description: str | None, out: Path, *, labelled: bool = True, sizes: Iterable[str] = ()
) -> argparse.ArgumentParser:
    """An argument parser with the options of every study."""
    options = parser(description)
    if labelled:
        options.add_argument("--train", required=True, help="labelled images to train, and fit probes, on")
        options.add_argument("--test", required=True, help="labelled images to test on")
    if sizes:
        options.add_argument("--size", choices=sorted(sizes), default="cpu")
    options.add_argument("--only", help="some cells alone, by names or patterns: maxcut_k3,ladder_*")
    options.add_argument("--share", default="0/1", help="i/n: every n-th from the i-th, for n runs side by side")
    options.add_argument(
        "--minutes", type=float, default=float("inf"),
        help="begin nothing after so long; training stops at a checkpoint, and a fit is finished",
    )  # fmt: skip
    options.set_defaults(out=out, size="")
    return options


def run_study(
    work_on: Callable[[Choice], Study[Any] | None], options: argparse.ArgumentParser, module: str
) -> Callable[[], None]:
    """A `main` that does what is left of a study, which is made, or worked on by a function."""

    def work(choice: Choice) -> None:
        try:
            if (study := work_on(choice)) is not None:
                study.work()
        except OutOfTime as over:
            print(f"{over}; run it again to go on")

    return command(work, options, module)
