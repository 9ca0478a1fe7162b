"""Why do phases appear? Small ViTs trained under stochastic depth, their phases, and Raptors of them.

For every drop-path rate p and seed a ViT is trained from scratch; its best epoch is measured (accuracy, similarity of
layers, phases), and Raptors are fitted to it with max-cut, random contiguous and random shuffled partitions, which the
ViT's own head reads out. For p = 0 and the most accurate p the untrained, a middle and the last epoch are measured too.

Everything is recorded as it comes. A part is left alone if its result exists and was asked for alike; one that fails is
recorded and does not stop the rest. Several processes can share the work by `--share`: first all with `--part models`,
then all with `--part fits`.

    python -m analyses.stochastic_depth --config analyses/stochastic_depth.yaml --device cuda --minutes 9 \\
        --train cifar10/train.parquet --test cifar10/test.parquet
    python -m analyses.stochastic_depth --config analyses/stochastic_depth_cpu.yaml --train … --test …
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from analyses.cells import attempt, digest_of, recorded, share_of
from analyses.recording import RESULTS, parser, provenance
from brdyn import fit_raptor, layer_similarity, load_images, load_model, segment
from brdyn.classification.evaluation import accuracy
from brdyn.classification.kept import BEST, folder_name
from brdyn.classification.pixels import PixelSet, load_pixels
from brdyn.classification.recipe import ClassifierRecipe
from brdyn.classification.run import ClassifierRun, OutOfTime, TimedCheckpoints, finished
from brdyn.classification.saved import Classifier
from brdyn.errors import BrdynError, UsageError
from brdyn.models import VisionTransformer
from brdyn.phases import Phases
from brdyn.raptor import FitSettings
from brdyn.raptor.fidelity import MODES, fidelity
from brdyn.raptor.partitions import contiguous, random_contiguous, random_shuffle
from brdyn.results import OutputFolder, to_json, write_atomically
from brdyn.training.loop import make_accelerator
from brdyn.training.settings import CHECKPOINTS

UNTRAINED, MIDDLE, LAST = "untrained", "middle", "last"
STAGES = (UNTRAINED, MIDDLE, BEST, LAST)
STATISTICS = ("r2", "relative_error", "cosine")
TRAIN_ACCURACY_ON = 2000


@dataclass(frozen=True, kw_only=True)
class Config:
    """A study, as its YAML file says.

    Attributes
    ----------
    name : str
        Results go to a folder of this name.
    network : mapping
        `model`, a name of :mod:`brdyn.classification.architectures`, and what else it is built with.
    image_size : int
    train_images, test_images : int or None
        None for all.
    held_out : int
        Of the training images, to choose the best epoch by.
    drop_path : list of float
        Rates p.
    seeds : int
        Networks for each.
    training : mapping
        Of :class:`ClassifierRecipe`.
    middle : float
        The epoch that stands for the middle of training.
    similarity : mapping
        `images` and bootstrap `replicates`.
    phases : list of int
        Numbers of phases that are described.
    raptor : mapping
        `k`, `partitioned` (the k at which random partitions are drawn), `draws` of each, `stages_k` (the k of the
        untrained, middle and last networks), `test_images`, and `settings` of :class:`FitSettings`.
    """

    name: str
    network: Mapping[str, Any]
    image_size: int
    train_images: int | None
    test_images: int | None
    held_out: int
    drop_path: list[float]
    seeds: int
    training: Mapping[str, Any]
    middle: float
    similarity: Mapping[str, int]
    phases: list[int]
    raptor: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Config:
        """From a YAML file.

        Raises
        ------
        UsageError
            If it cannot be read, or an entry is missing or unknown.
        """
        try:
            found = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(f"cannot read {str(path)!r} ({' '.join(str(error).split())})") from error
        known = {entry.name for entry in fields(cls)}
        if not isinstance(found, dict) or set(found) != known:
            wrong = sorted(known ^ set(found if isinstance(found, dict) else ()))
            raise UsageError(
                f"{str(path)!r}: entries that are missing or unknown: {', '.join(map(str, wrong))}"
            )
        return cls(**found)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network of the study, at some moment of its training."""

    p: float
    seed: int
    stage: str = BEST

    @property
    def run(self) -> str:
        """The folder of its training."""
        return f"p{self.p:g}_seed{self.seed}"

    @property
    def name(self) -> str:
        """Of its results."""
        return f"{self.run}_{self.stage}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A Raptor to fit."""

    teacher: Trained
    k: int
    partition: str = "maxcut"
    draw: int = 0

    @property
    def name(self) -> str:
        """Of its result."""
        return f"{self.partition}_k{self.k}" + ("" if self.partition == "maxcut" else f"_draw{self.draw}")

    def assignment(self, phases: Phases) -> list[int]:
        """The block of each layer."""
        places = phases.with_k(self.k).boundaries
        if self.partition == "random-contiguous":
            return random_contiguous(self.k, phases.layers, self.draw, other_than=places)
        if self.partition == "random-shuffle":
            return random_shuffle(places, phases.layers, self.draw)
        return contiguous(places, phases.layers)


class Study:
    """The images, and where results are."""

    def __init__(self, choice: argparse.Namespace, config: Config) -> None:
        self.choice, self.config = choice, config
        self.folder: Path = choice.out / config.name
        self.device = torch.device(choice.device)
        self.until = time.monotonic() + 60 * choice.minutes
        size = config.image_size
        self.train = load_pixels(choice.train, size, n=config.train_images, workers=choice.workers)
        self.test = load_pixels(choice.test, size, train=False, n=config.test_images, workers=choice.workers)
        if self.train.names != self.test.names:
            raise UsageError(f"{choice.train} and {choice.test} are of other classes")
        self.folder.mkdir(parents=True, exist_ok=True)

    def networks(self) -> list[Trained]:
        """Every network at its best epoch."""
        config = self.config
        return [Trained(p=p, seed=seed) for seed in range(config.seeds) for p in config.drop_path]

    def stages(self) -> list[Trained]:
        """The other moments of networks with p = 0 and with the most accurate p; none before all are recorded."""
        found = [self.recorded(one) for one in self.networks()]
        if not all(found):
            return []
        right: dict[float, list[float]] = {}
        for one, content in zip(self.networks(), found, strict=True):
            assert content is not None
            right.setdefault(one.p, []).append(content["accuracy"])
        best = max(right, key=lambda p: float(np.mean(right[p])))
        return [
            Trained(p=p, seed=seed, stage=stage)
            for seed in range(self.config.seeds)
            for p in dict.fromkeys((min(right), best))
            for stage in STAGES
            if stage != BEST
        ]

    def cells(self) -> Iterator[Cell]:
        """Every Raptor, the most telling first."""
        raptor = self.config.raptor
        for k in sorted(raptor["k"], key=lambda k: (k not in raptor["partitioned"], k)):
            for one in self.networks():
                yield Cell(teacher=one, k=k)
        for draw in range(raptor["draws"]):
            for k in raptor["partitioned"]:
                for one in self.networks():
                    for partition in ("random-contiguous", "random-shuffle"):
                        yield Cell(teacher=one, k=k, partition=partition, draw=draw)
            if draw == 0:
                for one in self.stages():
                    for k in raptor["stages_k"]:
                        yield Cell(teacher=one, k=k)

    def run_of(self, one: Trained) -> ClassifierRun:
        """How a network is trained."""
        config = self.config
        network = dict(config.network)
        return ClassifierRun(
            network=network.pop("model"),
            recipe=ClassifierRecipe(**{**config.training, "seed": one.seed}),
            image_size=config.image_size,
            built={**network, "drop_path": one.p},
            keep=("0", f"{config.middle:g}", BEST),
            held_out=config.held_out,
        )

    def place(self, one: Trained) -> Path:
        """The folder of a network at a moment."""
        home = self.folder / "runs" / one.run
        parts = {UNTRAINED: "0", MIDDLE: f"{self.config.middle:g}", BEST: BEST}
        return home if one.stage == LAST else home / folder_name(parts[one.stage])

    def trained(self, one: Trained) -> dict[str, Any]:
        """What `train.json` of a network says: there already, or after training as far as time goes.

        Raises
        ------
        OutOfTime
            If a checkpoint has the rest.
        """
        run, place = self.run_of(one), self.folder / "runs" / one.run
        learning = len(self.train) - run.held_out
        options = run.options(self.train, self.test)
        checkpoints = TimedCheckpoints(place / CHECKPOINTS, options, self.until, run.recipe.steps(learning))
        try:
            content, saved = finished(place, checkpoints), checkpoints.latest()
        except BrdynError:  # damaged, or of other settings
            shutil.rmtree(place)
            content = saved = None
        if content is None:
            with OutputFolder(place, overwrite=True) as folder:
                content = run.train(
                    self.train, folder, checkpoints, test=self.test, resume=saved,
                    accelerator=make_accelerator(self.device), progress=True,
                )  # fmt: skip
        assert content is not None  # this process writes
        return content

    def asked(self, one: Trained) -> dict[str, Any]:
        """Everything that decides what is recorded of a network."""
        run = self.run_of(one)
        return {
            "run": run.options(self.train, self.test),
            "stage": one.stage,
            "similarity": dict(self.config.similarity),
        }

    def result(self, one: Trained) -> Path:
        """Where a network is recorded."""
        return self.folder / "models" / f"{one.name}.json"

    def recorded(self, one: Trained) -> dict[str, Any] | None:
        """What is recorded of a network."""
        return recorded(self.result(one), digest_of(self.asked(one)))

    def record(self, one: Trained) -> str:
        """Train a network and measure it, unless that is done; a word on it."""
        if self.recorded(one):
            return "already recorded"
        content = attempt(lambda: self.measure(one))
        self.write(self.result(one), {"cell": asdict(one), **content}, self.asked(one))
        if "failed" in content:
            return content["failed"]
        chosen = Phases.from_dict(content["phases"])
        ends = "; ".join(f"k={k} {chosen.with_k(k).boundaries}" for k in self.config.phases)
        return f"{content['accuracy']:.2%} of {len(self.test)} test images, phases end after {ends}"

    def measure(self, one: Trained) -> dict[str, Any]:
        """Accuracy, similarity and phases of a network."""
        training = self.trained(one)
        classifier = Classifier.from_pretrained(self.place(one))
        classifier.network.to(self.device)
        model = self.load(one)
        images = load_images(self.choice.train, model, n=self.config.similarity["images"], seed=1)
        similarity = layer_similarity(
            model, images, replicates=self.config.similarity["replicates"], workers=self.choice.workers
        )
        phases = segment(similarity)
        layers = np.triu_indices(model.depth, 1)
        seen = self.seen().to(self.device)
        history = training["history"]
        return {
            "digest_of_weights": model.info.digest,
            "parameters": model.info.parameters,
            "epoch": training["kept"][self.place(one).name]["epoch"]
            if one.stage != LAST
            else training["options"]["recipe"]["epochs"],
            "accuracy": accuracy(classifier, self.test),
            "train_accuracy": accuracy(classifier, seen),
            "similarity": similarity.matrix.tolist(),
            "mean_similarity": float(similarity.matrix[layers].mean()),
            "phases": phases.to_dict(),
            "evenness": {str(k): phases.with_k(k).evenness for k in self.config.phases},
            "n_images": images.report.count,
            "train_seconds": history["seconds"],
            "images_per_second": history["images_per_second"],
            "validation": history["validation"] if one.stage == BEST else None,
            "losses": history["losses"] if one.stage == BEST else None,
        }

    def seen(self) -> PixelSet:
        """Some of the training images."""
        return self.train.split(min(TRAIN_ACCURACY_ON, len(self.train) - 1), seed=1)[1]

    def load(self, one: Trained) -> VisionTransformer:
        """A network as a model."""
        return load_model(str(self.place(one)), device=self.choice.device)

    def fit(self, cell: Cell) -> str:
        """Fit a Raptor and measure it, unless that is done; a word on it."""
        teacher = self.recorded(cell.teacher)
        if teacher is None and cell.teacher.stage != BEST:
            self.record(cell.teacher)
            teacher = self.recorded(cell.teacher)
        if teacher is None:
            return "its network is not recorded yet; run `--part models`, and this again"
        config = self.config.raptor
        assignment = cell.assignment(Phases.from_dict(teacher["phases"]))
        settings = FitSettings(**{**config["settings"], "seed": cell.teacher.seed})
        asked = {
            "teacher": teacher["digest_of_weights"],
            "train": self.train.identity(),
            "test": [self.test.identity(), config["test_images"]],
            "assignment": assignment,
            "settings": settings.to_dict(),
        }
        path = self.folder / "fits" / cell.teacher.name / f"{cell.name}.json"
        if recorded(path, digest_of(asked)):
            return "already recorded"
        content = attempt(lambda: self.fitted(cell.teacher, assignment, settings))
        self.write(path, {"cell": asdict(cell), **content}, asked)
        return content.get("failed") or (
            f"accuracy {content['accuracy']:.2%} (teacher {content['teacher_accuracy']:.2%}), R2 of the last layer "
            f"{content['curves']['autoregressive']['r2']['all'][-1]:.3f}, {content['seconds']:.0f} s"
        )

    def fitted(self, one: Trained, assignment: list[int], settings: FitSettings) -> dict[str, Any]:
        """A Raptor's fidelity, and what its teacher's head makes of it."""
        started = time.perf_counter()
        teacher = self.load(one)
        workers = self.choice.workers
        train = load_images(self.choice.train, teacher, n=self.config.train_images)
        test = load_images(self.choice.test, teacher, n=self.config.raptor["test_images"])
        fit = fit_raptor(teacher, train, assignment, settings, workers=workers)
        found = fidelity(fit.raptor, test, workers=workers)
        groups = dict.fromkeys(found.table["group"])
        return {
            "accuracy": found.accuracy,
            "teacher_accuracy": found.teacher_accuracy,
            "agreement": found.agreement,
            "curves": {
                mode: {
                    name: {group: found.curve(name, group, mode).tolist() for group in groups}
                    for name in STATISTICS
                }
                for mode in MODES
            },
            "parameters": fit.raptor.info.parameters,
            "n_images": test.report.count,
            "fit_seconds": sum(history.seconds for history in fit.histories.values()),
            "seconds": time.perf_counter() - started,
        }

    def write(self, path: Path, content: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        """One result file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {
            **content,
            "digest": digest_of(asked),
            "asked": asked,
            "provenance": provenance("stochastic_depth", self.choice.device),
        }
        write_atomically(path, to_json(whole))


def main() -> None:
    """Record what is not recorded yet."""
    options = parser(__doc__)
    options.add_argument("--config", type=Path, required=True, help="a study, as YAML")
    options.add_argument("--train", required=True, help="labelled images to train on")
    options.add_argument("--test", required=True, help="labelled images to test on")
    options.add_argument("--part", choices=("models", "fits", "all"), default="all")
    options.add_argument(
        "--share", default="0/1", help="i/n: every n-th part from the i-th, for n runs side by side"
    )
    options.add_argument("--workers", type=int, default=0, help="loader processes")
    options.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after so long, training at a checkpoint"
    )
    options.set_defaults(out=RESULTS / "stochastic_depth")
    choice = options.parse_args()
    try:
        config = Config.read(choice.config)
        study = Study(choice, config)
        write_atomically(study.folder / "config.json", to_json(asdict(config)))
        first, every = share_of(choice.share)
        if choice.part != "fits":
            for one in islice(study.networks(), first, None, every):
                print(f"{one.name}: {study.record(one)}", flush=True)
        if choice.part != "models":
            for cell in islice(study.cells(), first, None, every):
                if time.monotonic() > study.until:
                    raise OutOfTime("out of time")
                print(f"{cell.teacher.name}, {cell.name}: {study.fit(cell)}", flush=True)
    except OutOfTime as over:
        print(f"{over}; run it again to go on")
    except BrdynError as error:
        options.error(str(error))


if __name__ == "__main__":
    main()
