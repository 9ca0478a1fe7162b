"""Is what training from scratch can share what distillation can share? ViTs whose layers use few blocks.

By seed: a ViT whose L layers use k = L, 1, 3, 2, 4 blocks, at equal width, steps and operations, and a Raptor of three
blocks of the one with k = L, by max-cut and with as many images. Then one block of the width that brings its parameters
nearest to those of k = L: for as many operations in training (`wide-short`, fewer epochs), and for as many steps
(`wide`). Of each: which test images it names right, phases with their test, a few numbers of its motion.

Every cell goes on from its last checkpoint when the script is run again (a Raptor's fit is finished or begun anew); one
that is recorded is left alone, one that fails does not stop the rest, and a network whose weights are gone before its
Raptor is fitted is trained again. Sizes: `gpu`; `cpu`, on one core ten minutes a cell of equal width, twenty a Raptor
and more than an hour a `wide` one, which come last: ten hours in all; `tiny` a dry run.

    python -m analyses.shared_blocks --train cifar10/train.parquet --test cifar10/test.parquet
    python -m analyses.shared_blocks --size gpu --device cuda --minutes 9 …        # in pieces; run it again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyses.raptor_cells import least_skill
from analyses.raptor_on_vits import head_is_right
from analyses.recording import RESULTS, Choice
from analyses.study import packed, read_all, recorded_size, run_study, sizes_of, study_parser, unpacked
from analyses.training_runs import IMAGE_SIZE, TrainedNetworks
from brdyn import Phases, Stream, layer_similarity, load_images, segment, token_dynamics
from brdyn.classifiers import ClassifierRun
from brdyn.measures.headlines import headlines
from brdyn.models import VisionTransformer
from brdyn.provenance import images_of
from brdyn.raptor import FitSettings
from brdyn.raptor.partitions import MAXCUT, assign

RECORDED = RESULTS / "shared_blocks"
NETWORK = "vit-tiny12"
RAPTOR_K = 3
RAPTOR, WIDE, SHORT = f"raptor{RAPTOR_K}", "wide", "wide-short"
MEASURES = ("convergence", "speed", "turning")
RUNS = ("gpu", "cpu")
SIZES = sizes_of("shared_blocks")
COLUMNS = ["kind", "seed", "parameters", "accuracy", "train_seconds"]
COLUMNS += ["flops", "phases", "teacher", "r2", "skill"]  # of networks, and of Raptors


def plain(size: SimpleNamespace) -> str:
    """The kind of network whose layers each have their own block."""
    return f"k{size.built['depth']}"


class Cell(NamedTuple):
    """A network, or a Raptor of the network of kind `of` and the same seed."""

    kind: str
    seed: int
    of: str = ""

    def __str__(self) -> str:
        return f"{self.kind}_seed{self.seed}"


def run_of(size: SimpleNamespace, kind: str, seed: int) -> ClassifierRun:
    """How a network of a kind is trained."""
    recipe = replace(size.recipe, seed=seed)
    if kind == SHORT:
        recipe = recipe.lasting(size.short_epochs)
    wide = size.wide if kind in (WIDE, SHORT) else {}
    shared = 1 if wide else int(kind.removeprefix("k"))
    built = {**size.built, **wide, "shared_blocks": shared}
    return ClassifierRun(network=NETWORK, recipe=recipe, image_size=IMAGE_SIZE, built=built)


class SharedStudy(TrainedNetworks[Cell]):
    weights_as = "digest"

    def __init__(self, choice: Choice) -> None:
        super().__init__(choice, choice.size, SIZES[choice.size])

    @classmethod
    def planned(cls, size: str) -> list[Cell]:
        study = SIZES[size]
        kinds = [plain(study), "k1", f"k{RAPTOR_K}", RAPTOR, *(f"k{k}" for k in study.others)]
        ordered = [(kind, seed) for seed in range(study.seeds) for kind in kinds]
        ordered += [(kind, seed) for kind in (SHORT, WIDE) for seed in range(study.seeds)]
        return [Cell(kind, seed, plain(study) if kind == RAPTOR else "") for kind, seed in ordered]

    @classmethod
    def network_of(cls, cell: Cell) -> Cell | None:
        return Cell(cell.of, cell.seed) if cell.of else None

    def run_of(self, cell: Cell) -> ClassifierRun:
        return run_of(self.size, cell.kind, cell.seed)

    def asked(self, cell: Cell) -> Mapping[str, Any]:
        measured = {"motion": self.size.motion}
        if (network := self.network_of(cell)) is None:
            return {**super().asked(cell), **measured}
        twin = self.record_of(network)
        assert twin is not None
        phases = Phases.from_dict(twin["phases"])
        return {
            "teacher": twin["digest"], "data": self.train.identity(), "test": self.test.identity(),
            "assignment": assign(MAXCUT, phases.with_k(RAPTOR_K).boundaries, phases.layers),
            "settings": FitSettings(**{**self.size.settings, "seed": cell.seed}).to_dict(), **measured,
        }  # fmt: skip

    def run(self, cell: Cell, asked: Mapping[str, Any]) -> dict[str, Any]:
        if (network := self.network_of(cell)) is not None:
            raptor, found, content = self.fitted(network, asked, self.size.test_images)
            skill = least_skill(found.table)
            measured = {"r2": float(found.curve("r2").iloc[-1]), "skill": [skill.value, skill.low, skill.high]}
            return {**content, **measured, **self.answers(raptor)}
        training, model = self.trained(cell, self.size.float16), self.load(cell)
        return {**training, "digest": model.info.digest, **self.answers(model), **self.motion(model)}

    def answers(self, model: VisionTransformer) -> dict[str, Any]:
        """Which test images the head of a network, or of a Raptor's network, names right, so that networks can be
        compared image by image."""
        right = head_is_right(model, load_images(self.choice.test, model, n=self.size.test_images)).numpy()
        return {"accuracy": float(right.mean()), "test_images": len(right), "right": packed(right)}

    def motion(self, model: VisionTransformer) -> dict[str, Any]:
        """Phases with their test, and a few numbers of how tokens move."""
        asked, stream = self.size.motion, Stream(workers=0)
        images = load_images(self.choice.test, model, n=asked["images"], seed=1)
        phases = segment(layer_similarity(model, images, replicates=asked["replicates"], stream=stream))
        moved = token_dynamics(model, images, phases, measures=MEASURES, stream=stream)
        return {"phases": phases.to_dict(), "motion": headlines(moved.table), "n_images": images.report.count}


class Shared(NamedTuple):
    """A recorded study.

    `cells` has a row a cell, by name: `kind` (`k1`, …, `raptor3`, `wide`, `wide-short`) and `seed`; `phases` by the
    test; of a Raptor `teacher`, its network's accuracy, `r2` and `skill` at the last layer. `right`: of each, which
    test images are named right. `motion` has the numbers of motion, `phases` what was found, both of networks alone;
    `size` and `name`: how large the study is, and what that is called; `provenance`: of the newest cell.
    """

    cells: pd.DataFrame
    right: dict[str, np.ndarray]
    motion: pd.DataFrame
    phases: dict[str, Phases]
    size: SimpleNamespace
    name: str
    failed: dict[str, str]
    provenance: dict[str, Any]

    def of(self, kind: str) -> dict[int, np.ndarray]:
        """Which test images are named right by networks of a kind, by seed."""
        rows = self.cells[self.cells["kind"] == kind]
        return {int(row["seed"]): self.right[str(name)] for name, row in rows.sort_values("seed").iterrows()}

    def heading(self, what: str, images: int) -> str:
        """Of a picture: what it shows of the networks, and on how many images that is measured."""
        built = self.size.built
        of = f"{NETWORK}, width {built['width']}, patch {built['patch']}"
        return f"{of}: {what}\n{images_of(images, (IMAGE_SIZE, IMAGE_SIZE))}"


def read_shared(name: str | None = None, folder: Any = RECORDED) -> Shared | None:
    """A recorded study: the one named, or the largest that has a network; None where there is none."""
    if (name := name or recorded_size(folder, RUNS, "*.json")) is None:
        return None
    planned = {str(cell): cell for cell in SharedStudy.planned(name)}
    done, failed, newest = read_all(folder / name, planned, "asked")
    if not done:
        return None
    rows = {cell: _row(planned[cell], content) for cell, content in done.items()}
    networks = {cell: content for cell, content in done.items() if "motion" in content}
    return Shared(
        pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS),
        {cell: unpacked(content["right"], content["test_images"]) for cell, content in done.items()},
        pd.DataFrame.from_dict({cell: content["motion"] for cell, content in networks.items()}, orient="index"),
        {cell: Phases.from_dict(content["phases"]) for cell, content in networks.items()},
        SIZES[name], name, failed, newest,
    )  # fmt: skip


def _row(cell: Cell, content: Mapping[str, Any]) -> dict[str, Any]:
    row = {"kind": cell.kind, "seed": cell.seed, **{name: content[name] for name in ("accuracy", "parameters")}}
    if cell.of:
        found = {"teacher": content["teacher_accuracy"], "r2": content["r2"], "skill": content["skill"][0]}
        return {**row, **found, "train_seconds": content["fit_seconds"]}
    evidence, seconds = Phases.from_dict(content["phases"]).evidence, content["history"]["seconds"]
    phases = evidence and evidence.k
    return {**row, "flops": content["flops"], "train_seconds": seconds, "phases": phases}


STUDY = SharedStudy
main = run_study(STUDY, study_parser(__doc__, RECORDED, sizes=SIZES), __name__)
