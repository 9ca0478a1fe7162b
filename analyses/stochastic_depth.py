"""Why do phases appear? Small ViTs trained under stochastic depth, their phases, and Raptors of them.

For every drop-path rate p and seed a ViT is trained from scratch and measured (accuracy, similarity of layers, phases)
at its best epoch, in the middle of training, at the last epoch, and untrained. Raptors are fitted to it at its best,
with max-cut, random contiguous and randomly shuffled partitions, which the ViT's own head reads out; for some p, such
as 0 and that of the most accurate networks, also to the other moments.

A network and all of its Raptors come before the next network, so that little is to be kept of what is begun.
Everything is recorded as it comes. A part is left alone if its result exists and was asked for alike; one that fails
is recorded and does not stop the rest, and a network whose weights are gone before all of its Raptors are fitted is
trained again. Several processes can share the networks by `--share`; `--part` does networks or Raptors alone.

    python -m analyses.stochastic_depth --config analyses/stochastic_depth.yaml --device cuda --minutes 9 \\
        --train cifar10/train.parquet --test cifar10/test.parquet
    python -m analyses.stochastic_depth --size cpu --train … --test …        # analyses/stochastic_depth_cpu.yaml
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from analyses.recording import RESULTS, Choice
from analyses.stochastic_depth_cells import CONFIGS, FITS, LAST, NETWORKS, Cell, Config, Network, place_of, without
from analyses.study import chosen, run_study, study_parser
from analyses.training_runs import TrainedNetworks
from brdyn import Phases, Stream, UsageError, layer_similarity, load_images, segment
from brdyn.classifiers import Classifier, ClassifierRecipe, ClassifierRun, PixelSet
from brdyn.classifiers.evaluation import accuracy
from brdyn.classifiers.pixels import NAMED
from brdyn.classifiers.recipe import BEST
from brdyn.raptor import FitSettings
from brdyn.raptor.fidelity import MODES, POOLED
from brdyn.raptor.partitions import assign
from brdyn.store import listed, to_json, write_atomically

STATISTICS = (*POOLED, "relative_error", "cosine")
TRAIN_ACCURACY_ON = 2000


class DepthStudy(TrainedNetworks[Network | Cell]):
    weights_as = "digest_of_weights"

    def __init__(self, choice: Choice) -> None:
        self.config = config = Config.read(choice.config or CONFIGS[choice.size])
        for path in (choice.train, choice.test):
            if path in NAMED:
                raise UsageError(f"{path!r}: give the parquet file or folder of it, which Raptors are fitted on too")
        self.stream, self.runs = Stream(workers=choice.workers), {one.run: one for one in config.networks()}
        super().__init__(choice, config.name, config, config.image_size, choice.workers)

    @classmethod
    def planned(cls, size: str) -> list[Network | Cell]:
        return Config.read(CONFIGS[size]).cells()

    def cells(self) -> list[Network | Cell]:
        """Those of the runs that `--only` names."""
        part = "" if self.choice.part == "all" else self.choice.part
        planned = (self.config.cells_of(self.runs[run]) for run in chosen(self.choice.only, self.runs))
        return [cell for cells in planned for cell in cells if str(cell).startswith(part)]

    def work(self) -> None:
        super().work()
        self.write_config()

    @classmethod
    def network_of(cls, cell: Network | Cell) -> Network | None:
        return cell.teacher if isinstance(cell, Cell) else None

    @classmethod
    def run_name(cls, network: Network | Cell) -> str:
        assert isinstance(network, Network)
        return network.run

    def raptors_of(self, network: Network | Cell) -> Iterator[Cell]:
        assert isinstance(network, Network)
        return (cell for cell in self.config.raptors(self.runs[network.run]) if cell.teacher == network)

    def asked(self, cell: Network | Cell) -> dict[str, Any]:
        config = self.config
        if isinstance(cell, Network):
            stored = {"float16": True} if config.float16 else {}
            similarity = dict(config.similarity)
            return {"run": super().asked(cell), "moment": cell.moment, "similarity": similarity, **stored}
        one, teacher = cell.teacher, self.record_of(cell.teacher)
        assert teacher is not None
        phases = Phases.from_dict(teacher["phases"]).with_k(cell.k)
        sequence = list(self.runs).index(one.run)
        return {
            "teacher": teacher["digest_of_weights"],
            "train": self.train.identity(),
            "test": [self.test.identity(), config.raptor["test_images"]],
            "assignment": assign(cell.partition, phases.boundaries, phases.layers, cell.draw, sequence),
            "settings": FitSettings(**{**config.raptor["settings"], "seed": one.seed}).to_dict(),
        }

    def head(self, cell: Network | Cell, asked: Mapping[str, Any]) -> dict[str, Any]:
        self.write_config()
        return {**super().head(cell, asked), "cell": asdict(cell)}

    def write_config(self) -> None:
        """What the results are of. Not before there is one: a refused run must not rename another's results."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "config.json", to_json(asdict(self.config)))

    def run_of(self, cell: Network | Cell) -> ClassifierRun:
        assert isinstance(cell, Network)
        config = self.config
        return ClassifierRun(
            network=config.network["model"], recipe=ClassifierRecipe(**{**config.training, "seed": cell.seed}),
            image_size=config.image_size, built={**without(config.network, "model"), "drop_path": cell.p},
            keep=("0", f"{config.middle:g}", BEST), held_out=config.held_out,
        )  # fmt: skip

    def place(self, cell: Network | Cell) -> Path:
        """The folder of a network at a moment."""
        assert isinstance(cell, Network)
        return place_of(self.folder / "runs", self.config, cell)

    def run(self, cell: Network | Cell, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Train a network and measure it, or fit a Raptor and measure it."""
        if isinstance(cell, Network):
            return self.measure(cell, self.trained(cell, self.config.float16))
        tested = self.config.raptor["test_images"]
        _, found, content = self.fitted(cell.teacher, asked, tested, self.choice.workers)
        groups = dict.fromkeys(found.table["group"])
        curves = {
            mode: {name: {group: listed(found.curve(name, group, mode)) for group in groups} for name in STATISTICS}
            for mode in MODES
        }
        return {**content, **found.head(), "curves": curves}

    def measure(self, one: Network, training: Mapping[str, Any]) -> dict[str, Any]:
        """Accuracy, similarity and phases of a network."""
        place, asked = self.place(one), self.config.similarity
        classifier = Classifier.from_pretrained(place)
        classifier.network.to(self.device)
        model = self.load(one)
        images = load_images(self.choice.train, model, n=asked["images"], seed=1)
        similarity = layer_similarity(model, images, replicates=asked["replicates"], stream=self.stream)
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


OPTIONS = study_parser(__doc__, RESULTS / "stochastic_depth", sizes=CONFIGS)
OPTIONS.add_argument("--config", type=Path, help="another study, as YAML")
OPTIONS.add_argument("--part", choices=(NETWORKS, FITS, "all"), default="all")
OPTIONS.add_argument("--workers", type=int, default=0, help="loader processes")
STUDY = DepthStudy
main = run_study(STUDY, OPTIONS, __name__)
