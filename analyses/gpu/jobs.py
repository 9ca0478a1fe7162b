"""The jobs: their table, `jobs.yaml`, and how those that are cells of a study are sized, begun again and left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import yaml

from analyses import shared_blocks
from analyses.gpu.queue import TEST, TRAIN, Call, Job, Queue
from analyses.recording import OFFLINE, ROOT, suffix_of
from analyses.stochastic_depth_cells import Cell, Config, Network
from analyses.study import chosen, is_recorded
from analyses.vitrm_on_cifar import SIZES
from brdyn.classifiers import packaged
from brdyn.classifiers.recipe import BEST, VITRM_NAME
from brdyn.classifiers.saved import is_classifier
from brdyn.store import read_json, to_json, write_atomically
from brdyn.store.result_files import TRAIN_RESULT
from brdyn.store.unfinished import CHECKPOINTS
from brdyn.training import Checkpoints

PHOTOS = "photos.parquet"
SETS = {TRAIN: "--train", TEST: "--test"}
FIT_MINUTES = 2.7  # of a fit and its evaluation, beside eleven others
EPOCHS, IMAGES = SIZES["gpu"].recipe.epochs, 50_000
CHOSEN = "epochs"  # a file that is no result
USED = 0.75  # of the time that is left, for training; the rest for loading, testing and what goes wrong
CONFIG, TINY_CONFIG = (ROOT / "analyses" / f"stochastic_depth{name}.yaml" for name in ("", "_tiny"))


@dataclass(frozen=True, kw_only=True)
class StudyJob(Job):
    """Cells of a study, chosen by names or patterns and shared by `at_once` processes on one card."""

    cells: Sequence[str] = ("*",)
    at_once: int = 1
    full: str = "gpu"
    whole: bool = False
    place: ClassVar[str]
    patterns: ClassVar[tuple[str, ...]] = ("*.json",)

    @property
    def needs(self) -> list[str]:
        return [TRAIN, TEST]

    def every(self, queue: Queue) -> Iterable[str]:
        return import_module(f"analyses.{self.study}").names(queue.size(self.full))

    def names(self, queue: Queue) -> list[str]:
        return chosen(",".join(self.cells), self.every(queue))

    def folder(self, queue: Queue) -> Path:
        return queue.home / self.place / queue.size(self.full)

    def results(self, queue: Queue) -> list[Path]:
        return [self.folder(queue) / f"{name}.json" for name in self.names(queue)]

    def missing(self, queue: Queue) -> list[str]:
        return [name for name in self.names(queue) if not is_recorded(self.folder(queue) / f"{name}.json")]

    def shares(self, queue: Queue) -> int:
        """How many processes there are now."""
        return 1 if queue.tiny else self.at_once

    def own(self, queue: Queue) -> list[object]:
        return ["--size", queue.size(self.full), "--minutes", queue.minutes]

    def calls(self, queue: Queue) -> list[Call]:
        sets = [part for name in self.needs for part in (SETS[name], queue.data(name))]
        shared = [*sets, *queue.given(self), *self.own(queue)]
        shared += ["--out", queue.home / Path(self.place).parts[0]]
        missing, count = self.missing(queue), self.shares(queue)
        parts = [part for first in range(count) if (part := missing[first::count])]
        return [(self.study, [*shared, "--only", ",".join(part)]) for part in parts]

    def state(self, queue: Queue) -> list[Path]:
        """The newest checkpoint of each cell that is not over."""
        runs = self.folder(queue) / "runs"
        names = [] if self.whole else self.names(queue)
        return [path for name in names for path in Checkpoints(runs / name / CHECKPOINTS, {}).paths()[-1:]]

    def writes(self, size: str, suffix: str) -> list[str]:
        folder = size if size == "tiny" else self.full
        return [f"{self.place}/{folder}/{pattern}" for pattern in self.patterns]


class Fits(StudyJob):
    """Raptors of the offline model: every cell is a fit and its evaluation."""

    place, patterns = f"raptor/{OFFLINE}", ("*.json", "*.parquet")

    def shares(self, queue: Queue) -> int:
        """One, which has its processes itself."""
        return 1

    def own(self, queue: Queue) -> list[object]:
        minutes = queue.minutes if queue.tiny else max(0.0, queue.minutes - FIT_MINUTES)
        sized = ["--size", queue.size(self.full), "--minutes", minutes, "--at-once", super().shares(queue)]
        return [*sized, *queue.option("--photos", PHOTOS)]


class SmallFits(Fits):
    """Those of the packaged network, at the size whose fits its own head reads, too."""

    place = f"raptor/{packaged.NAME}"

    def own(self, queue: Queue) -> list[object]:
        return [*super().own(queue), "--model", packaged.NAME]


class Search(StudyJob):
    """What takes a short fit of the offline model further, on training images alone."""

    place = f"raptor_search/{OFFLINE}"

    @property
    def needs(self) -> list[str]:
        return [TRAIN]

    def own(self, queue: Queue) -> list[object]:
        return [*super().own(queue), "--model", OFFLINE]


class Networks(StudyJob):
    """ViTRM, and what is trained beside it, for as many epochs as there is time for."""

    place = "vitrm"

    def own(self, queue: Queue) -> list[object]:
        sized = self.full == "gpu" and not queue.tiny
        epochs = epochs_of(queue, self.folder(queue)) if sized else queue.choice.epochs
        return [*super().own(queue), *(["--epochs", epochs] if epochs is not None else [])]

    def state(self, queue: Queue) -> list[Path]:
        there = self.folder(queue) / CHOSEN
        return [*([there] if there.is_file() and not self.whole else []), *super().state(queue)]


def epochs_of(queue: Queue, folder: Path) -> float | None:
    """As many epochs as fit into what is left, and the same for all networks and runs; None for those of the size."""
    if queue.choice.epochs is not None:
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


class Motion(StudyJob):
    """How tokens of trained networks move, where both are trained."""

    place, patterns = "vitrm", ("dynamics/*.json",)

    def results(self, queue: Queue) -> list[Path]:
        names = (VITRM_NAME, "vit-small", OFFLINE)
        return [self.folder(queue) / "dynamics" / f"{name}.json" for name in names]

    def runs(self, queue: Queue) -> list[Path]:
        return [self.folder(queue) / "runs" / name for name in (VITRM_NAME, "vit-small")]

    def ready(self, queue: Queue) -> bool:
        return all(map(is_classifier, self.runs(queue)))

    def calls(self, queue: Queue) -> list[Call]:
        images = queue.data(PHOTOS) or queue.data(TEST)
        out = [
            "--out",
            queue.home / self.place,
            "--size",
            queue.size(),
            *queue.given(self),
            *self.own_options(queue),
        ]
        return [(self.study, ["--images", images, *out])]

    def state(self, queue: Queue) -> list[Path]:
        files = ("config.json", "model.safetensors", "train.json")
        return [path for run in self.runs(queue) for file in files if (path := run / file).is_file()]


class GridCells(StudyJob):
    """Ablations of ViTRM, one cell after another."""

    place = "vitrm_grid"


class SharedBlocks(StudyJob):
    """Networks whose layers share blocks, and Raptors of those whose layers do not."""

    place = "shared_blocks"

    def state(self, queue: Queue) -> list[Path]:
        """The networks, too, whose Raptors are still to be fitted."""
        size, home = shared_blocks.SIZES[queue.size(self.full)], self.folder(queue) / "runs"
        missing = [name for name in self.missing(queue) if name.startswith(shared_blocks.RAPTOR)]
        twins = [home / shared_blocks.twin_of(size, name) for name in missing]
        files = ("config.json", "model.safetensors", TRAIN_RESULT)
        return [*super().state(queue), *(run / file for run in twins if is_classifier(run) for file in files)]


class Depth(StudyJob):
    """Networks trained under stochastic depth, each with its Raptors before the next."""

    place, patterns = "stochastic_depth", ("config.json", "networks/*.json", "fits/*/*.json")

    def config(self, queue: Queue) -> Config:
        return read_config(TINY_CONFIG if queue.tiny else CONFIG)

    def fits(self, config: Config, one: Network) -> list[Cell]:
        followed = [moment for moment in config.followed({}) if moment.run == one.run]
        return [cell for cell in config.cells(followed) if cell.teacher.run == one.run]

    def every(self, queue: Queue) -> Iterable[str]:
        config = self.config(queue)
        planned: list[Network | Cell] = []
        for one in config.networks():
            planned += [*config.moments(one), *self.fits(config, one)]
        return [cell.path for cell in planned]

    def calls(self, queue: Queue) -> list[Call]:
        count, config = self.shares(queue), TINY_CONFIG if queue.tiny else CONFIG
        files = ["--config", config, "--train", queue.data(TRAIN), "--test", queue.data(TEST)]
        out = ["--out", queue.home / self.place, "--minutes", queue.minutes, *self.own_options(queue)]
        return [(self.study, [*files, *out, "--share", f"{first}/{count}"]) for first in range(count)]

    def state(self, queue: Queue) -> list[Path]:
        """The best network so far, and those that are trained and have Raptors still to be fitted to them."""
        config, runs, missing = self.config(queue), self.folder(queue) / "runs", set(self.missing(queue))
        found = self.champion(queue, config)
        for one in config.networks():
            run = runs / one.run
            fits = {fit.path for fit in self.fits(config, one)}
            if (run / TRAIN_RESULT).is_file() and missing & fits:
                kept = [place for place in sorted(run.iterdir()) if is_classifier(place)]
                found += [*kept, *(run / name for name in ("config.json", "model.safetensors", TRAIN_RESULT))]
        return list(dict.fromkeys(found))

    def champion(self, queue: Queue, config: Config) -> list[Path]:
        """The network with the highest accuracy on held-out images, if any."""
        watched: dict[str, float] = {}
        for one in config.networks():
            if (path := self.folder(queue) / f"{one.path}.json").is_file():
                rows = read_json(path, "a network").get("validation") or []
                watched[one.run] = max([0.0, *(row["accuracy"] for row in rows)])
        best = sorted(watched, key=lambda run: -watched[run])[:1]
        return [place for run in best if (place := self.folder(queue) / "runs" / run / BEST).is_dir()]


read_config = cache(Config.read)
KINDS: dict[str, type[Job]] = {
    "raptor_on_vits": Fits, "vitrm_on_cifar": Networks, "vitrm_grid": GridCells, "vitrm_dynamics": Motion,
    "stochastic_depth": Depth, "shared_blocks": SharedBlocks, "raptor_small": SmallFits, "raptor_search": Search,
}  # fmt: skip
ROWS: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
JOBS: tuple[Job, ...] = tuple(KINDS.get(row.pop("kind", row["study"]), Job)(**row) for row in ROWS)
