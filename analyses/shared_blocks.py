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

import time
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analyses.raptor_cells import least_skill
from analyses.recording import RESULTS
from analyses.study import packed, read_all, run_study, sizes_of, study_parser, unpacked
from analyses.training_runs import IMAGE_SIZE, TrainingStudy
from brdyn import (
    Phases,
    Stream,
    fit_raptor,
    layer_similarity,
    load_images,
    load_model,
    segment,
    token_dynamics,
)
from brdyn.classifiers import Classifier, ClassifierRun, PixelSet, class_scores
from brdyn.classifiers.saved import is_classifier, read_config
from brdyn.classifiers.tasks import AT_ONCE
from brdyn.measures.headlines import headlines
from brdyn.raptor import FitSettings, Raptor
from brdyn.raptor.fidelity import fidelity
from brdyn.raptor.partitions import MAXCUT, assign

RECORDED = RESULTS / "shared_blocks"
NETWORK = "vit-tiny12"
RAPTOR_K = 3
RAPTOR, WIDE, SHORT = f"raptor{RAPTOR_K}", "wide", "wide-short"
MEASURES = ("convergence", "speed", "turning")
RUNS = ("gpu", "cpu")
SIZES = sizes_of("shared_blocks")
COLUMNS = [
    "kind",
    "seed",
    "parameters",
    "flops",
    "accuracy",
    "train_seconds",
    "phases",
    "teacher",
    "r2",
    "skill",
]


def plain(size: SimpleNamespace) -> str:
    """The kind of network whose layers each have their own block."""
    return f"k{size.built['depth']}"


def cells(size: SimpleNamespace) -> dict[str, tuple[str, int]]:
    """Kind and seed of every cell, by name, the most telling first."""
    kinds = [plain(size), "k1", f"k{RAPTOR_K}", RAPTOR, *(f"k{k}" for k in size.others)]
    ordered = [(kind, seed) for seed in range(size.seeds) for kind in kinds]
    ordered += [(kind, seed) for kind in (SHORT, WIDE) for seed in range(size.seeds)]
    return {f"{kind}_seed{seed}": (kind, seed) for kind, seed in ordered}


def names(size: str) -> list[str]:
    return list(cells(SIZES[size]))


def twin_of(size: SimpleNamespace, cell: str) -> str:
    """The network that a Raptor is of."""
    return f"{plain(size)}_seed{cells(size)[cell][1]}"


def run_of(size: SimpleNamespace, kind: str, seed: int) -> ClassifierRun:
    """How a network of a kind is trained."""
    recipe = replace(size.recipe, seed=seed)
    if kind == SHORT:
        epochs = size.short_epochs
        recipe = replace(recipe, epochs=epochs, warmup_epochs=min(recipe.warmup_epochs, epochs / 10))
    wide = size.wide if kind in (WIDE, SHORT) else {}
    shared = 1 if wide else int(kind.removeprefix("k"))
    built = {**size.built, **wide, "shared_blocks": shared}
    return ClassifierRun(network=NETWORK, recipe=recipe, image_size=IMAGE_SIZE, built=built)


class SharedStudy(TrainingStudy):
    module, sizes, every = "shared_blocks", SIZES, staticmethod(names)
    asked_as = "asked"  # a training's own entry is `options`

    def kind(self, cell: str) -> tuple[str, int]:
        return cells(self.size)[cell]

    def twin(self, cell: str) -> str:
        return twin_of(self.size, cell)

    def run_of(self, name: str) -> ClassifierRun:
        return run_of(self.size, *self.kind(name))

    def asked(self, cell: str) -> Mapping[str, Any]:
        measured = {"motion": self.size.motion}
        if self.kind(cell)[0] != RAPTOR:
            return {**super().asked(cell), **measured}
        twin = self.recorded(self.twin(cell), self.asked(self.twin(cell)))
        assert twin is not None
        phases = Phases.from_dict(twin["phases"])
        return {
            "teacher": twin["digest"], "data": self.train.identity(), "test": self.test.identity(),
            "assignment": assign(MAXCUT, phases.with_k(RAPTOR_K).boundaries, phases.layers),
            "settings": FitSettings(**{**self.size.settings, "seed": self.kind(cell)[1]}).to_dict(), **measured,
        }  # fmt: skip

    def known(self, cell: str, asked: Mapping[str, Any]) -> bool:
        """Whether it is recorded, and its weights, where a Raptor of it is not recorded, are here: a network whose
        weights are gone is trained again for it. Raises UsageError if it is recorded with other options."""
        if not super().known(cell, asked):
            return False
        kind, seed = self.kind(cell)
        raptor = f"{RAPTOR}_seed{seed}"
        if kind != plain(self.size) or self.has_weights(cell):
            return True
        return super().known(raptor, self.asked(raptor))

    def has_weights(self, twin: str) -> bool:
        """Whether a recorded network's own weights are here."""
        place, record = self.place(twin), self.recorded(twin, self.asked(twin))
        return (
            record is not None and is_classifier(place) and read_config(place)["digest"] == record["digest"]
        )

    def unfit(self, cell: str) -> str:
        """Why a Raptor cannot be fitted: its network is not recorded, or its weights are elsewhere."""
        if self.kind(cell)[0] != RAPTOR:
            return ""
        twin = self.twin(cell)
        if self.recorded(twin, self.asked(twin)) is None:
            return f"its network, {twin}, is not recorded; run that first"
        if self.has_weights(twin) or self.known(cell, self.asked(cell)):
            return ""
        return f"the weights of its network, {twin}, are not here; run that too, and it is trained again"

    def run(self, cell: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        if self.kind(cell)[0] == RAPTOR:
            return self.fitted(self.twin(cell), asked)
        training = self.trained(cell, float16=self.size.float16)
        classifier = Classifier.from_pretrained(self.place(cell))
        classifier.network.to(self.device)
        right = class_scores(classifier, self.test).argmax(1) == self.test.labels.cpu()
        return {**training, "digest": classifier.digest, **answered(right), **self.motion(cell)}

    def motion(self, cell: str) -> dict[str, Any]:
        """Phases with their test, and a few numbers of how tokens move."""
        asked, stream = self.size.motion, Stream(workers=0)
        model = load_model(str(self.place(cell)), device=self.choice.device)
        images = load_images(self.choice.test, model, n=asked["images"], seed=1)
        phases = segment(layer_similarity(model, images, replicates=asked["replicates"], stream=stream))
        moved = token_dynamics(model, images, phases, measures=MEASURES, stream=stream)
        return {"phases": phases.to_dict(), "motion": headlines(moved.table), "n_images": images.report.count}

    def fitted(self, twin: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """A Raptor's fidelity, and which images its network's head names right from its last state."""
        started, classifier = time.perf_counter(), Classifier.from_pretrained(self.place(twin))
        teacher = load_model(str(self.place(twin)), device=self.choice.device)
        train = load_images(self.choice.train, teacher, n=self.size.train_images).decoded()
        test = load_images(self.choice.test, teacher, n=self.size.test_images)
        fit = fit_raptor(teacher, train, asked["assignment"], FitSettings(**asked["settings"]), workers=0)
        found = fidelity(fit.raptor, test, Stream(workers=0))
        skill = least_skill(found.table)
        return {
            **answered(named_right(fit.raptor, classifier, self.test)),
            "teacher_accuracy": found.teacher_accuracy,
            "r2": float(found.curve("r2").iloc[-1]),
            "skill": [skill.value, skill.low, skill.high],
            "parameters": fit.raptor.info.parameters,
            "fit_seconds": sum(history.seconds for history in fit.histories.values()),
            "seconds": time.perf_counter() - started,
        }


def named_right(raptor: Raptor, classifier: Classifier, images: PixelSet) -> Tensor:
    """Which images the head of its teacher, a classifier, names right from a Raptor's last state."""
    guesses = []
    with torch.no_grad():
        for pixels in images.pixels.split(AT_ONCE):
            scores = raptor.logits(raptor(classifier.normalised(pixels.to(raptor.device))))
            assert scores is not None
            guesses.append(scores.argmax(1).cpu())
    return torch.cat(guesses) == images.labels.cpu()


def answered(right: Tensor) -> dict[str, Any]:
    """Which of the test images are named right, so that networks can be compared image by image."""
    return {
        "accuracy": float(right.double().mean()),
        "test_images": len(right),
        "right": packed(right.numpy()),
    }


class Shared(NamedTuple):
    """A recorded study.

    `cells` has a row a cell, by name: `kind` (`k1`, …, `raptor3`, `wide`, `wide-short`) and `seed`; `phases` by the
    test; of a Raptor `teacher`, its network's accuracy, `r2` and `skill` at the last layer. `right`: of each, which
    test images are named right. `motion` has the numbers of motion; `size` and `name`: how large the study is, and what
    that is called; `provenance`: of the newest cell.
    """

    cells: pd.DataFrame
    right: dict[str, np.ndarray]
    motion: pd.DataFrame
    size: SimpleNamespace
    name: str
    failed: dict[str, str]
    provenance: dict[str, Any]

    def of(self, kind: str) -> dict[int, np.ndarray]:
        """Which test images are named right by networks of a kind, by seed."""
        rows = self.cells[self.cells["kind"] == kind]
        return {int(row["seed"]): self.right[str(name)] for name, row in rows.sort_values("seed").iterrows()}


def read_shared(name: str | None = None, folder: Any = RECORDED) -> Shared | None:
    """A recorded study: the one named, or the largest that has a network; None where there is none."""
    there = [one for one in RUNS if any((folder / one).glob("*.json"))]
    if name is None and not there:
        return None
    name = name or there[0]
    planned = cells(SIZES[name])
    done, failed, newest = read_all({cell: folder / name / f"{cell}.json" for cell in planned}, ("asked",))
    if not done:
        return None
    rows = [{"cell": cell, **_row(*planned[cell], content)} for cell, content in done.items()]
    moved = {cell: content["motion"] for cell, content in done.items() if "motion" in content}
    return Shared(
        pd.DataFrame(rows, columns=["cell", *COLUMNS]).set_index("cell"),
        {cell: unpacked(content["right"], content["test_images"]) for cell, content in done.items()},
        pd.DataFrame.from_dict(moved, orient="index"), SIZES[name], name, failed, newest,
    )  # fmt: skip


def _row(kind: str, seed: int, content: Mapping[str, Any]) -> dict[str, Any]:
    row = {"kind": kind, "seed": seed, **{name: content[name] for name in ("accuracy", "parameters")}}
    if kind == RAPTOR:
        return {
            **row, "teacher": content["teacher_accuracy"], "r2": content["r2"], "skill": content["skill"][0],
            "train_seconds": content["fit_seconds"],
        }  # fmt: skip
    evidence = Phases.from_dict(content["phases"]).evidence
    return {
        **row, "flops": content["flops"], "train_seconds": content["history"]["seconds"],
        "phases": None if evidence is None else evidence.k,
    }  # fmt: skip


main = run_study(SharedStudy, study_parser(__doc__, RECORDED, sizes=SIZES), __name__)
