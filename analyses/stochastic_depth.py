"""Why do phases appear? Small ViTs trained under stochastic depth, their phases, and Raptors of them.

For every drop-path rate p and seed a ViT is trained from scratch and measured (accuracy, similarity of layers, phases)
at its best epoch, in the middle of training, at the last epoch, and untrained. Raptors are fitted to it at its best,
with max-cut, random contiguous and randomly shuffled partitions, which the ViT's own head reads out; for p = 0 and the
most accurate other p also to the other moments.

Everything is recorded as it comes. A part is left alone if its result exists and was asked for alike; one that fails
is recorded and does not stop the rest. Several processes can share the work by `--share`: first all with
`--part networks`, then all with `--part fits`.

    python -m analyses.stochastic_depth --config analyses/stochastic_depth.yaml --device cuda --minutes 9 \\
        --train cifar10/train.parquet --test cifar10/test.parquet
    python -m analyses.stochastic_depth --config analyses/stochastic_depth_cpu.yaml --train … --test …
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analyses.cells import attempt, digest_of, recorded, share_of
from analyses.recording import RESULTS, parser, provenance
from analyses.stochastic_depth_plan import LAST, MIDDLE, UNTRAINED, Cell, Config, Network, without
from analyses.training_runs import OutOfTime, load_split, train_or_go_on
from brdyn import fit_raptor, layer_similarity, load_images, load_model, segment
from brdyn.classifiers.evaluation import accuracy
from brdyn.classifiers.kept import folder_name
from brdyn.classifiers.pixels import NAMED, PixelSet
from brdyn.classifiers.recipe import BEST, ClassifierRecipe
from brdyn.classifiers.saved import Classifier, is_classifier, read_config
from brdyn.classifiers.training import ClassifierRun
from brdyn.errors import BrdynError, UsageError
from brdyn.models import VisionTransformer
from brdyn.phases import Phases
from brdyn.raptor import FitSettings
from brdyn.raptor.fidelity import MODES, fidelity
from brdyn.raptor.partitions import assign
from brdyn.store import to_json, write_atomically

STATISTICS = ("r2", "relative_error", "cosine")
TRAIN_ACCURACY_ON = 2000


class Study:
    """The images, and where results are."""

    def __init__(self, choice: argparse.Namespace, config: Config) -> None:
        self.choice, self.config = choice, config
        self.folder: Path = choice.out / config.name
        self.device = torch.device(choice.device)
        self.until = time.monotonic() + 60 * choice.minutes
        for path in (choice.train, choice.test):
            if path in NAMED:
                raise UsageError(
                    f"{path!r}: give the parquet file or folder of it, which Raptors are fitted on too"
                )
        counts = config.train_images, config.test_images
        self.train, self.test = load_split(
            choice.train, choice.test, config.image_size, counts, choice.workers
        )
        self.folder.mkdir(parents=True, exist_ok=True)

    def followed(self) -> list[Network]:
        """Networks at other moments that Raptors are fitted to; none before it is known which are most accurate."""
        found = {one: self.recorded(one) for one in self.config.networks()}
        if self.config.followed_rates is None and not all(found.values()):
            return []
        return self.config.followed({one: content["accuracy"] for one, content in found.items() if content})

    def chosen(self) -> list[Network]:
        """The networks asked for.

        Raises
        ------
        UsageError
            If there is none of a name.
        """
        every = {one.run: one for one in self.config.networks()}
        names = self.choice.networks.split(",") if self.choice.networks else list(every)
        for name in names:
            if name not in every:
                raise UsageError(f"--networks: {name!r} is not one of {', '.join(every)}")
        return [every[name] for name in names]

    def run_of(self, one: Network) -> ClassifierRun:
        """How a network is trained."""
        config = self.config
        return ClassifierRun(
            network=config.network["model"],
            recipe=ClassifierRecipe(**{**config.training, "seed": one.seed}),
            image_size=config.image_size,
            built={**without(config.network, "model"), "drop_path": one.p},
            keep=("0", f"{config.middle:g}", BEST),
            held_out=config.held_out,
        )

    def place(self, one: Network) -> Path:
        """The folder of a network at a moment."""
        return place_of(self.folder / "runs", self.config, one)

    def asked(self, one: Network) -> dict[str, Any]:
        """Everything that decides what is recorded of a network."""
        options = self.run_of(one).options(self.train, self.test)
        stored = {"float16": True} if self.config.float16 else {}
        return {"run": options, "moment": one.moment, "similarity": dict(self.config.similarity), **stored}

    def result(self, one: Network) -> Path:
        """Where a network is recorded."""
        return self.folder / "networks" / f"{one.name}.json"

    def recorded(self, one: Network) -> dict[str, Any] | None:
        """What is recorded of a network."""
        return recorded(self.result(one), digest_of(self.asked(one)))

    def weights(self, one: Network) -> str | None:
        """Digest of the weights that a network has here; None where it is not."""
        place = self.place(one)
        return read_config(place)["digest"] if is_classifier(place) else None

    def record(self, one: Network) -> str:
        """Train a network and measure it, unless that is done; a word on it.

        Raises
        ------
        UsageError
            If its folder has a network that was trained with other options.
        """
        before = self.recorded(one)
        if before and self.weights(one) in (None, before["digest_of_weights"]):
            return "already recorded"
        place = self.folder / "runs" / one.run

        def work() -> dict[str, Any]:
            trained = train_or_go_on(
                self.run_of(one),
                place,
                self.train,
                self.test,
                until=self.until,
                device=self.device,
                float16=self.config.float16,
            )
            return self.measure(one, trained)

        content = attempt(work)
        self.write(self.result(one), {"cell": asdict(one), **content}, self.asked(one))
        if "failed" in content:
            return content["failed"]
        phases = Phases.from_dict(content["phases"])
        ends = "; ".join(f"k={k} {phases.with_k(k).boundaries}" for k in self.config.phases)
        return f"{content['accuracy']:.2%} of {len(self.test)} test images, phases end after {ends}"

    def measure(self, one: Network, training: Mapping[str, Any]) -> dict[str, Any]:
        """Accuracy, similarity and phases of a network."""
        place, asked = self.place(one), self.config.similarity
        classifier = Classifier.from_pretrained(place)
        classifier.network.to(self.device)
        model = self.load(one)
        images = load_images(self.choice.train, model, n=asked["images"], seed=1)
        similarity = layer_similarity(
            model, images, replicates=asked["replicates"], workers=self.choice.workers
        )
        phases = segment(similarity)
        history, at_best = training["history"], one.moment == BEST
        moment = training["kept"][place.name] if one.moment != LAST else {
            "epoch": training["options"]["recipe"]["epochs"], "accuracy": training["accuracy"]
        }  # fmt: skip
        return {
            "digest_of_weights": model.info.digest,
            "parameters": model.info.parameters,
            "classes": len(classifier.names),
            "epoch": moment["epoch"],
            "accuracy": moment["accuracy"],
            "train_accuracy": accuracy(classifier, self.seen(one).to(self.device)),
            "similarity": similarity.matrix.tolist(),
            "mean_similarity": float(similarity.matrix[np.triu_indices(model.depth, 1)].mean()),
            "phases": phases.to_dict(),
            "n_images": images.report.count,
            "train_seconds": history["seconds"],
            "images_per_second": history["images_per_second"],
            "validation": history["validation"] if at_best else None,
            "losses": history["losses"] if at_best else None,
        }

    def seen(self, one: Network) -> PixelSet:
        """Some of the images that a network is trained on."""
        run = self.run_of(one)
        learning = self.train.split(run.held_out, run.recipe.seed)[0]
        return learning.split(min(TRAIN_ACCURACY_ON, len(learning) - 1), seed=1)[1]

    def load(self, one: Network) -> VisionTransformer:
        """A network as a model."""
        return load_model(str(self.place(one)), device=self.choice.device)

    def fit(self, cell: Cell) -> str:
        """Fit a Raptor and measure it, unless that is done; a word on it."""
        one, config = cell.teacher, self.config.raptor
        teacher = self.recorded(one)
        if teacher is None:
            return "its network is not recorded; run `--part networks`, and this again"
        weights = self.weights(one)
        if weights is None:
            return f"its network is recorded, and not here any more ({str(self.place(one))!r})"
        if weights != teacher["digest_of_weights"]:
            return (
                "its network was trained again since it was recorded; run `--part networks`, and this again"
            )
        phases = Phases.from_dict(teacher["phases"]).with_k(cell.k)
        sequence = [(each.p, each.seed) for each in self.config.networks()].index((one.p, one.seed))
        assignment = assign(cell.partition, phases.boundaries, phases.layers, cell.draw, sequence)
        settings = FitSettings(**{**config["settings"], "seed": one.seed})
        asked = {
            "teacher": teacher["digest_of_weights"],
            "train": self.train.identity(),
            "test": [self.test.identity(), config["test_images"]],
            "assignment": assignment,
            "settings": settings.to_dict(),
        }
        path = self.folder / "fits" / one.name / f"{cell.name}.json"
        if recorded(path, digest_of(asked)):
            return "already recorded"
        content = attempt(lambda: self.fitted(one, assignment, settings))
        self.write(path, {"cell": asdict(cell), **content}, asked)
        return content.get("failed") or (
            f"accuracy {content['accuracy']:.2%} (teacher {content['teacher_accuracy']:.2%}), R2 of the last layer "
            f"{content['curves']['autoregressive']['r2']['all'][-1]:.3f}, {content['seconds']:.0f} s"
        )

    def fitted(self, one: Network, assignment: list[int], settings: FitSettings) -> dict[str, Any]:
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

    def check_time(self) -> None:
        """Raise :class:`OutOfTime` where it is over."""
        if time.monotonic() > self.until:
            raise OutOfTime("out of time")

    def write_config(self) -> None:
        """What the results are of. Not before there is one: a refused run must not rename another's results."""
        write_atomically(self.folder / "config.json", to_json(asdict(self.config)))

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
        self.write_config()


def place_of(runs: Path, config: Config, one: Network) -> Path:
    """The folder of a network at a moment, in that of all runs."""
    parts = {UNTRAINED: "0", MIDDLE: f"{config.middle:g}", BEST: BEST}
    return runs / one.run if one.moment == LAST else runs / one.run / folder_name(parts[one.moment])


def main() -> None:
    """Record what is not recorded yet."""
    options = parser(__doc__)
    options.add_argument("--config", type=Path, required=True, help="a study, as YAML")
    options.add_argument("--train", required=True, help="labelled images to train on")
    options.add_argument("--test", required=True, help="labelled images to test on")
    options.add_argument("--networks", help="some of them alone: p0_seed0,p0.6_seed1")
    options.add_argument("--part", choices=("networks", "fits", "all"), default="all")
    options.add_argument(
        "--share", default="0/1", help="i/n: every n-th part from the i-th, for n runs side by side"
    )
    options.add_argument("--workers", type=int, default=0, help="loader processes")
    options.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help="begin nothing after so long; training stops at a checkpoint, a fit is finished",
    )
    options.set_defaults(out=RESULTS / "stochastic_depth")
    choice = options.parse_args()
    try:
        config = Config.read(choice.config)
        study = Study(choice, config)
        first, every = share_of(choice.share)
        chosen = study.chosen()
        if choice.part != "fits":
            for one in islice(chosen, first, None, every):
                for moment in config.moments(one):
                    study.check_time()
                    print(f"{moment.name}: {study.record(moment)}", flush=True)
        if choice.part != "networks":
            followed = study.followed()
            if not followed:
                print("no Raptors of other moments yet: not all networks are recorded", flush=True)
            runs = {one.run for one in chosen}
            cells = (cell for cell in config.cells(followed) if cell.teacher.run in runs)
            for cell in islice(cells, first, None, every):
                study.check_time()
                print(f"{cell.teacher.name}, {cell.name}: {study.fit(cell)}", flush=True)
        study.write_config()
    except OutOfTime as over:
        print(f"{over}; run it again to go on")
    except BrdynError as error:
        options.error(str(error))


if __name__ == "__main__":
    main()
