"""A recurrent model and ViTs as dynamical systems: do their steps converge, repair noise and lose rank alike?

The ViTRM trained by `analyses.vitrm_on_cifar`, unrolled for several recursion steps (trained for as many as its recipe
says), a ViT by the same recipe, and the pretrained offline ViT, on the same test images.

    python -m analyses.vitrm_dynamics --images cifar10/test.parquet
    python -m analyses.vitrm_dynamics --size gpu --device cuda --images …
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analyses.recording import OFFLINE, RESULTS
from analyses.study import Study, chosen, run_study, study_parser
from brdyn import Stream, load_images, load_model
from brdyn.interventions import perturbation_repair
from brdyn.measures.dynamics import token_dynamics
from brdyn.provenance import image_provenance
from brdyn.store import records

OFFLINE_SIZE = 56
MEASURES = ("convergence", "speed", "update")
STEPS = 4
EPS = 0.1


class MotionStudy(Study[str]):
    """The models."""

    module = "vitrm_dynamics"

    def __init__(self, choice: argparse.Namespace) -> None:
        super().__init__(choice)
        home = choice.out / choice.size
        self.folder, runs = home / "dynamics", Path(os.path.relpath(home / "runs"))
        trained = {"vitrm": f"{runs / 'vitrm'}@{choice.steps}", "vit-small": str(runs / "vit-small")}
        self.places = {**trained, OFFLINE: OFFLINE}

    def cells(self) -> Iterable[str]:
        return chosen(self.choice.only, self.places)

    def asked(self, cell: str) -> Mapping[str, Any]:
        choice = self.choice
        return {
            "place": self.places[cell],
            "images": choice.images,
            "n": choice.n,
            "n_repair": choice.n_repair,
        }

    def known(self, cell: str, asked: Mapping[str, Any]) -> bool:
        """Never: networks may have been trained again."""
        return False

    def run(self, cell: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        choice, offline = self.choice, cell == OFFLINE
        size, weights = (OFFLINE_SIZE, choice.weights) if offline else (None, None)
        model = load_model(self.places[cell], weights=weights, image_size=size, device=choice.device)
        images, fewer = (load_images(choice.images, model, n=count) for count in (choice.n, choice.n_repair))
        stream = Stream(workers=choice.workers)
        found = token_dynamics(model, images, measures=MEASURES, stream=stream)
        middle = model.depth // 2
        repair = perturbation_repair(
            model,
            fewer,
            eps=(EPS,),
            targets=("all",),
            starts=sorted({0, middle}),
            stream=Stream(workers=choice.workers),
        )
        return {
            "model": model.info.to_dict(), "token_groups": model.tokens.sizes(),
            "readouts": list(model.tokens.readouts), "images": image_provenance(images),
            "n_repair": fewer.report.count, "phases": found.phases.to_dict(), "table": records(found.table),
            "alignment": {group: asdict(test) if test else None for group, test in found.alignment.items()},
            "repair": {"eps": EPS, "starts": [0, middle], "angles": records(repair.angles)},
        }  # fmt: skip


def main() -> None:
    options = study_parser(__doc__, RESULTS / "vitrm", labelled=False)
    options.add_argument("--images", required=True, help="test images")
    options.add_argument("--size", default="cpu", help="of the study that trained the networks")
    options.add_argument("--steps", type=int, default=STEPS, help="T, recursion steps of ViTRM")
    options.add_argument("--n", type=int, default=500, help="images")
    options.add_argument("--n-repair", type=int, default=64, help="images that noise is added to")
    options.add_argument("--weights", type=Path, help=f"of {OFFLINE}, as in `brdyn phases`")
    options.add_argument("--workers", type=int, default=0, help="loader processes")
    run_study(MotionStudy, options)


if __name__ == "__main__":
    main()
