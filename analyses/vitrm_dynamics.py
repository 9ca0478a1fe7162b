"""A recurrent model and ViTs as dynamical systems: do their steps converge, repair noise and lose rank alike?

The ViTRM trained by `analyses.vitrm_on_cifar`, unrolled for several recursion steps (trained for as many as its recipe
says), a ViT by the same recipe, and the pretrained offline ViT, on the same test images.

    python -m analyses.vitrm_dynamics --images cifar10/test.parquet
    python -m analyses.vitrm_dynamics --size gpu --device cuda --images …
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from analyses.recording import OFFLINE, RESULTS, Choice
from analyses.study import Study, run_study, study_parser
from brdyn import Stream, load_images, load_model, perturbation_repair, token_dynamics, untrained_twins, with_null
from brdyn.classifiers.recipe import VITRM_NAME
from brdyn.measures.in_words import half_depth
from brdyn.provenance import image_provenance
from brdyn.store import records

VIT = "vit-small"
OFFLINE_SIZE = 56
MEASURES = ("convergence", "speed", "update")
STEPS = 4
EPS = 0.1


class MotionStudy(Study[str]):
    def __init__(self, choice: Choice) -> None:
        super().__init__(choice)
        home = choice.out / choice.size
        self.folder, runs = home / "dynamics", Path(os.path.relpath(home / "runs"))
        trained = {VITRM_NAME: f"{runs / VITRM_NAME}@{choice.steps}", VIT: str(runs / VIT)}
        self.places = {**trained, OFFLINE: OFFLINE}

    @classmethod
    def planned(cls, size: str) -> list[str]:
        return [VITRM_NAME, VIT, OFFLINE]

    @classmethod
    def network_of(cls, cell: str) -> str | None:
        return cell if cell != OFFLINE else None

    def asked(self, cell: str) -> Mapping[str, Any]:
        given = {name: getattr(self.choice, name) for name in ("images", "n", "n_repair", "null")}
        return {"place": self.places[cell], **given}

    def known(self, cell: str, asked: Mapping[str, Any]) -> bool:
        """Never: networks may have been trained again."""
        return False

    def run(self, cell: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        choice, offline = self.choice, cell == OFFLINE
        size, weights = (OFFLINE_SIZE, choice.weights) if offline else (None, None)
        model = load_model(self.places[cell], weights=weights, image_size=size, device=choice.device)
        images, fewer = (load_images(choice.images, model, n=count) for count in (choice.n, choice.n_repair))
        stream, twins = Stream(workers=choice.workers), untrained_twins(model, choice.null)
        found = with_null(token_dynamics, model, images, twins=twins, measures=MEASURES, stream=stream)
        starts = [0, half_depth(model.depth)]
        repair = with_null(
            perturbation_repair, model, fewer, found.phases, twins=twins, eps=(EPS,), targets=("all",),
            starts=sorted({*starts}), stream=stream,
        )  # fmt: skip

        def angles(table: pd.DataFrame) -> dict[str, Any]:
            return {"eps": EPS, "starts": starts, "angles": records(table)}

        content: dict[str, Any] = {
            "model": model.info.to_dict(), "token_groups": model.tokens.sizes(),
            "readouts": list(model.tokens.readouts), "images": image_provenance(images),
            "n_repair": fewer.report.count, "phases": found.phases.to_dict(), "table": records(found.table),
            "alignment": {group: asdict(test) if test else None for group, test in found.alignment.items()},
            "repair": angles(repair.angles),
        }  # fmt: skip
        if found.null is None or repair.null is None:
            return content
        pairs = zip(found.null.each(), repair.null.each(), strict=True)
        twins_of = [{"table": records(moved["dynamics"]), "repair": angles(noisy["perturb"])} for moved, noisy in pairs]
        return {**content, "null": {"weights": list(found.null.weights), "twins": twins_of}}


OPTIONS = study_parser(__doc__, RESULTS / "vitrm", labelled=False)
OPTIONS.add_argument("--images", required=True, help="test images")
OPTIONS.add_argument("--size", default="cpu", help="of the study that trained the networks")
OPTIONS.add_argument("--steps", type=int, default=STEPS, help="T, recursion steps of ViTRM")
OPTIONS.add_argument("--n", type=int, default=500, help="images")
OPTIONS.add_argument("--n-repair", type=int, default=64, help="images that noise is added to")
OPTIONS.add_argument("--null", type=int, default=0, help="untrained twins beside each network")
OPTIONS.add_argument("--weights", type=Path, help=f"of {OFFLINE}, as in `brdyn phases`")
OPTIONS.add_argument("--workers", type=int, default=0, help="loader processes")
STUDY = MotionStudy
main = run_study(STUDY, OPTIONS, __name__)
