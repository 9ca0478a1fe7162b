"""The jobs: their table, `jobs.yaml`, and how those that are cells of a study are sized, begun again and left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from analyses.recording import suffix_of
from analyses.study import chosen, is_recorded
from analyses.vitrm_on_cifar import SIZES
from brdyn.classifiers.recipe import VITRM_NAME
from brdyn.classifiers.saved import is_classifier
from brdyn.store import read_json, to_json, write_atomically
from brdyn.store.result_files import TRAIN_RESULT
from brdyn.store.unfinished import CHECKPOINTS
from brdyn.training import Checkpoints

if TYPE_CHECKING:
    from analyses.gpu.queue import Queue

Call = tuple[str, Sequence[object]]
EPOCHS, IMAGES = SIZES["gpu"].recipe.epochs, 50_000
CHOSEN = "epochs"  # a file that is no result
USED = 0.75  # of the time that is left, for training; the rest for loading, testing and what goes wrong


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job, as the table `jobs.yaml` has it, where it is said what its entries are and its place is its worth.

    One with a `place` is of cells of a study, the `STUDY` of its module; the result of any other is a single file of
    its name.
    """

    name: str
    shows: str
    study: str
    minutes: float
    least: float | None = None
    options: Sequence[str] = ()
    tiny: Sequence[str] | None = None
    files: dict[str, str] = field(default_factory=dict)
    more: dict[str, str] = field(default_factory=dict)
    offline: bool = False
    carries: str = "nothing but results"
    only_asked: bool = False
    place: str = ""
    within: str = ""
    patterns: Sequence[str] = ("*.json",)
    cells: Sequence[str] = ("*",)
    at_once: int = 1
    full: str = "gpu"
    whole: bool = False
    paced: bool = False
    spare: float = 0
    waits: Sequence[str] = ()

    @property
    def needs(self) -> list[str]:
        return [*self.waits, *self.files.values()]

    @property
    def of(self) -> Any:
        """The class of the study."""
        return import_module(f"analyses.{self.study}").STUDY

    def planned(self, queue: Queue) -> list[Any]:
        return chosen(",".join(self.cells), self.of.planned(queue.size(self.full)))

    def folder(self, queue: Queue) -> Path:
        return queue.home / self.place / queue.size(self.full)

    def result(self, queue: Queue, cell: Any) -> Path:
        return self.folder(queue) / self.within / f"{cell}.json"

    def results(self, queue: Queue) -> list[Path]:
        """Files in the home that it makes; it is over when all are there and none is a failure."""
        if not self.place:
            return [queue.home / f"{self.name}{suffix_of(queue.choice.device)}.json"]
        return [self.result(queue, cell) for cell in self.planned(queue)]

    def missing(self, queue: Queue) -> list[Any]:
        return [cell for cell in self.planned(queue) if not is_recorded(self.result(queue, cell))]

    def calls(self, queue: Queue) -> list[Call]:
        """Studies and their options, which run side by side."""
        if not self.place:
            return [(self.study, [*queue.given(self), "--out", queue.home])]
        minutes = queue.minutes if queue.tiny else max(0.0, queue.minutes - self.spare)
        given = [*queue.given(self), "--size", queue.size(self.full), "--minutes", minutes]
        given += ["--only", ",".join(self.cells), "--out", queue.home / Path(self.place).parts[0]]
        epochs = epochs_of(queue, self.folder(queue)) if self.paced else None
        given += ["--epochs", epochs] if epochs is not None else []
        processes = 1 if queue.tiny else self.at_once
        return [(self.study, [*given, "--share", f"{first}/{processes}"]) for first in range(processes)]

    def networks(self, queue: Queue) -> list[Path]:
        """Trained networks that cells which are not over are measured on."""
        networks = (self.of.network_of(cell) for cell in self.missing(queue))
        names = dict.fromkeys(self.of.run_name(one) for one in networks if one is not None)
        return [self.folder(queue) / "runs" / name for name in names]

    @property
    def processes(self) -> int:
        """How many it puts on the card: it begins them all, or its study does."""
        own = list(self.options)
        return int(own[own.index("--at-once") + 1]) if "--at-once" in own else self.at_once

    def ready(self, queue: Queue) -> bool:
        """Whether what it is made from is there."""
        return not self.waits or all(map(is_classifier, self.networks(queue)))

    def state(self, queue: Queue) -> list[Path]:
        """Files and folders in the home that it goes on from elsewhere, the most wanted first: of cells that are not
        over, the epochs that were chosen, the newest checkpoints, and their networks."""
        if self.whole or not self.place:
            return []
        runs = [self.folder(queue) / "runs" / str(cell) for cell in self.missing(queue)]
        epochs = [path] if (path := self.folder(queue) / CHOSEN).is_file() else []
        newest = [path for run in runs for path in Checkpoints(run / CHECKPOINTS, {}).paths()[-1:]]
        trained = [run for run in self.networks(queue) if (run / TRAIN_RESULT).is_file()]
        return [*epochs, *newest, *(path for run in trained for path in sorted(run.iterdir()))]

    def writes(self, size: str, suffix: str) -> list[str]:
        """Patterns of what it leaves, in `analyses/results`."""
        if not self.place:
            return [f"{self.name}{suffix}.json"]
        home = Path(self.place) / (size if size == "tiny" else self.full) / self.within
        return [str(home / pattern) for pattern in self.patterns]


def epochs_of(queue: Queue, folder: Path) -> float | None:
    """As many epochs as fit into what is left, and the same for all networks and runs; None for those of the size."""
    if queue.tiny or queue.choice.epochs is not None:
        return queue.choice.epochs
    for name in (VITRM_NAME, *SIZES["gpu"].networks):
        if is_recorded(path := folder / f"{name}.json"):
            return read_json(path, "a trained network", ("options",))["options"]["recipe"]["epochs"]
    if (there := folder / CHOSEN).is_file():
        return read_json(there, "a number of epochs", ("epochs",))["epochs"]
    bench = queue.home / f"bench_vitrm{suffix_of(queue.choice.device)}.json"
    if not bench.is_file():
        return None
    found = read_json(bench, "a benchmark", ("training",))["training"]
    speed = max(step["images_per_second"] for step in found)
    epochs = float(max(1, min(EPOCHS, int(USED * queue.minutes * 60 * speed / IMAGES))))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(there, to_json({"epochs": epochs}))  # for a run that goes on from a checkpoint
    return epochs


JOBS = tuple(Job(**row) for row in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text()))
