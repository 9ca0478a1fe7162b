"""Why do phases appear? Small ViTs trained under stochastic depth, their phases, and Raptors of them.

For every drop-path rate p and seed a ViT is trained from scratch and measured (accuracy, similarity of layers, phases)
at its best epoch, in the middle of training, at the last epoch, and untrained. Raptors are fitted to it at its best,
with max-cut, random contiguous and randomly shuffled partitions, which the ViT's own head reads out; for p = 0 and the
most accurate other p also to the other moments.

Everything is recorded as it comes. A part is left alone if its result exists and was asked for alike; one that fails
is recorded and does not stop the rest, and a network whose weights are gone before all of its Raptors are fitted is
trained again. Several processes can share the work by `--share`: first all with
`--part networks`, then all with `--part fits`.

    python -m analyses.stochastic_depth --config analyses/stochastic_depth.yaml --device cuda --minutes 9 \\
        --train cifar10/train.parquet --test cifar10/test.parquet
    python -m analyses.stochastic_depth --config analyses/stochastic_depth_cpu.yaml --train … --test …
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from analyses.recording import RESULTS, Choice
from analyses.stochastic_depth_cells import LAST, Cell, Config, Network, place_of, without
from analyses.study import Study, chosen, run_study, share_of, study_parser
from analyses.training_runs import load_split, train_or_go_on
from brdyn import Phases, Stream, UsageError, fit_raptor, layer_similarity, load_images, load_model, segment
from brdyn.classifiers import Classifier, ClassifierRecipe, ClassifierRun, PixelSet
from brdyn.classifiers.evaluation import accuracy
from brdyn.classifiers.pixels import NAMED
from brdyn.classifiers.recipe import BEST
from brdyn.classifiers.saved import is_classifier, read_config
from brdyn.models import VisionTransformer
from brdyn.raptor import FitSettings
from brdyn.raptor.fidelity import MODES, POOLED, fidelity
from brdyn.raptor.partitions import assign
from brdyn.store import listed, to_json, write_atomically

STATISTICS = (*POOLED, "relative_error", "cosine")
TRAIN_ACCURACY_ON = 2000


class DepthStudy(Study[Network | Cell]):
    """The images, the networks and the Raptors.

    Where it is known which networks Raptors follow, a network and all of its Raptors come before the next network, so
    that little is to be kept of what is begun. Several processes share the networks, or without networks the Raptors.
    """

    module = "stochastic_depth"

    def __init__(self, choice: Choice) -> None:
        super().__init__(choice)
        self.config = config = Config.read(choice.config)
        self.folder = choice.out / config.name
        for path in (choice.train, choice.test):
            if path in NAMED:
                raise UsageError(
                    f"{path!r}: give the parquet file or folder of it, which Raptors are fitted on too"
                )
        every = {one.run: one for one in config.networks()}
        self.chosen = [every[name] for name in chosen(choice.only, every)]
        counts = config.train_images, config.test_images
        self.train, self.test = load_split(
            choice.train, choice.test, config.image_size, counts, choice.workers
        )

    def cells(self) -> Iterator[Network | Cell]:
        first, every = share_of(self.choice.share)
        networks, fits = (self.choice.part in (part, "all") for part in ("networks", "fits"))
        together = self.config.followed_rates is not None and networks and fits
        for one in self.chosen[first::every] if networks else ():
            yield from self.config.moments(one)
            yield from self.raptors([one]) if together else ()
        if fits and not together:
            yield from list(self.raptors(self.chosen))[first::every]

    def raptors(self, networks: Iterable[Network]) -> Iterator[Cell]:
        """Raptors of some networks; those of other moments not before it is known which networks are most accurate."""
        followed = self.followed()
        if followed is None:
            print("no Raptors of other moments yet: not all networks are recorded", flush=True)
        runs = {one.run for one in networks}
        return (cell for cell in self.config.cells(followed or []) if cell.teacher.run in runs)

    def followed(self) -> list[Network] | None:
        """The networks at other moments than their best that Raptors are fitted to; None where it is not known yet."""
        found = {one: self.of_network(one) for one in self.config.networks()}
        if self.config.followed_rates is None and not all(found.values()):
            return None
        return self.config.followed({one: was["accuracy"] for one, was in found.items() if was})

    def shared(self, cells: Iterable[Network | Cell]) -> Iterable[Network | Cell]:
        return cells

    def work(self) -> None:
        super().work()
        self.write_config()

    def name(self, cell: Network | Cell) -> str:
        return cell.path

    def asked(self, cell: Network | Cell) -> dict[str, Any]:
        config = self.config
        if isinstance(cell, Network):
            options = self.run_of(cell).options(self.train, self.test)
            stored = {"float16": True} if config.float16 else {}
            return {"run": options, "moment": cell.moment, "similarity": dict(config.similarity), **stored}
        one, teacher = cell.teacher, self.of_network(cell.teacher)
        assert teacher is not None
        phases = Phases.from_dict(teacher["phases"]).with_k(cell.k)
        sequence = [(each.p, each.seed) for each in config.networks()].index((one.p, one.seed))
        return {
            "teacher": teacher["digest_of_weights"],
            "train": self.train.identity(),
            "test": [self.test.identity(), config.raptor["test_images"]],
            "assignment": assign(cell.partition, phases.boundaries, phases.layers, cell.draw, sequence),
            "settings": FitSettings(**{**config.raptor["settings"], "seed": one.seed}).to_dict(),
        }

    def known(self, cell: Network | Cell, asked: Mapping[str, Any]) -> bool:
        """Whether it is recorded and its weights, where Raptors of it are not recorded, are here: a network whose
        weights are gone is trained again for them."""
        before = self.recorded(cell, asked)
        if before is None or isinstance(cell, Cell):
            return before is not None
        weights = self.weights(cell)
        return weights == before["digest_of_weights"] or (weights is None and not self.unfitted(cell))

    def unfitted(self, one: Network) -> bool:
        """Whether a Raptor of a recorded network is not recorded."""
        of_it = (cell for cell in self.config.cells(self.followed() or []) if cell.teacher == one)
        return any(self.recorded(cell, self.asked(cell)) is None for cell in of_it)

    def unfit(self, cell: Network | Cell) -> str:
        if isinstance(cell, Network):
            return ""
        teacher, weights = self.of_network(cell.teacher), self.weights(cell.teacher)
        if teacher is None:
            return "its network is not recorded; run `--part networks`, and this again"
        if weights is None:
            there = self.known(cell, self.asked(cell))
            return (
                ""
                if there
                else "the weights of its network are not here; without `--part` it is trained again"
            )
        if weights != teacher["digest_of_weights"]:
            return (
                "its network was trained again since it was recorded; run `--part networks`, and this again"
            )
        return ""

    def run(self, cell: Network | Cell, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Train a network and measure it, or fit a Raptor and measure it."""
        if isinstance(cell, Cell):
            return self.fitted(cell.teacher, asked["assignment"], FitSettings(**asked["settings"]))
        trained = train_or_go_on(
            self.run_of(cell), self.folder / "runs" / cell.run, self.train, self.test, until=self.until,
            device=self.device, float16=self.config.float16,
        )  # fmt: skip
        return self.measure(cell, trained)

    def head(self, cell: Network | Cell, asked: Mapping[str, Any]) -> dict[str, Any]:
        self.write_config()
        return {**super().head(cell, asked), "cell": asdict(cell)}

    def write_config(self) -> None:
        """What the results are of. Not before there is one: a refused run must not rename another's results."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "config.json", to_json(asdict(self.config)))

    def run_of(self, one: Network) -> ClassifierRun:
        config = self.config
        return ClassifierRun(
            network=config.network["model"], recipe=ClassifierRecipe(**{**config.training, "seed": one.seed}),
            image_size=config.image_size, built={**without(config.network, "model"), "drop_path": one.p},
            keep=("0", f"{config.middle:g}", BEST), held_out=config.held_out,
        )  # fmt: skip

    def place(self, one: Network) -> Path:
        """The folder of a network at a moment."""
        return place_of(self.folder / "runs", self.config, one)

    def of_network(self, one: Network) -> dict[str, Any] | None:
        return self.recorded(one, self.asked(one))

    def weights(self, one: Network) -> str | None:
        """Digest of the weights that a network has here; None where it is not."""
        place = self.place(one)
        return read_config(place)["digest"] if is_classifier(place) else None

    def load(self, one: Network) -> VisionTransformer:
        return load_model(str(self.place(one)), device=self.choice.device)

    def measure(self, one: Network, training: Mapping[str, Any]) -> dict[str, Any]:
        """Accuracy, similarity and phases of a network."""
        place, asked, workers = self.place(one), self.config.similarity, self.choice.workers
        classifier = Classifier.from_pretrained(place)
        classifier.network.to(self.device)
        model = self.load(one)
        images = load_images(self.choice.train, model, n=asked["images"], seed=1)
        similarity = layer_similarity(
            model, images, replicates=asked["replicates"], stream=Stream(workers=workers)
        )
        history, at_best = training["history"], one.moment == BEST
        moment = training["kept"][place.name] if one.moment != LAST else {
            "epoch": training["options"]["recipe"]["epochs"], "accuracy": training["accuracy"]
        }  # fmt: skip
        described = {"digest_of_weights": model.info.digest, "parameters": model.info.parameters}
        return {
            **described, "classes": len(classifier.names), **{key: moment[key] for key in ("epoch", "accuracy")},
            "train_accuracy": accuracy(classifier, self.seen(one).to(self.device)),
            "similarity": similarity.matrix.tolist(),
            "mean_similarity": float(similarity.matrix[np.triu_indices(model.depth, 1)].mean()),
            "phases": segment(similarity).to_dict(), "n_images": images.report.count,
            "train_seconds": history["seconds"], "images_per_second": history["images_per_second"],
            **{key: history[key] if at_best else None for key in ("validation", "losses")},
        }  # fmt: skip

    def seen(self, one: Network) -> PixelSet:
        """Some of the images that a network is trained on."""
        run = self.run_of(one)
        learning = self.train.split(run.held_out, run.recipe.seed)[0]
        return learning.split(min(TRAIN_ACCURACY_ON, len(learning) - 1), seed=1)[1]

    def fitted(self, one: Network, assignment: list[int], settings: FitSettings) -> dict[str, Any]:
        """A Raptor's fidelity, and what its teacher's head makes of it."""
        started, teacher, workers = time.perf_counter(), self.load(one), self.choice.workers
        train = load_images(self.choice.train, teacher, n=self.config.train_images)
        test = load_images(self.choice.test, teacher, n=self.config.raptor["test_images"])
        fit = fit_raptor(teacher, train, assignment, settings, workers=workers)
        found = fidelity(fit.raptor, test, Stream(workers=workers))
        groups = dict.fromkeys(found.table["group"])
        return {
            **{name: getattr(found, name) for name in ("accuracy", "teacher_accuracy", "agreement")},
            "curves": {
                mode: {
                    name: {group: listed(found.curve(name, group, mode)) for group in groups}
                    for name in STATISTICS
                }
                for mode in MODES
            },
            "parameters": fit.raptor.info.parameters,
            "n_images": test.report.count,
            "fit_seconds": sum(history.seconds for history in fit.histories.values()),
            "seconds": time.perf_counter() - started,
        }


OPTIONS = study_parser(__doc__, RESULTS / "stochastic_depth")
OPTIONS.add_argument("--config", type=Path, required=True, help="a study, as YAML")
OPTIONS.add_argument("--part", choices=("networks", "fits", "all"), default="all")
OPTIONS.add_argument("--workers", type=int, default=0, help="loader processes")
main = run_study(DepthStudy, OPTIONS, __name__)
