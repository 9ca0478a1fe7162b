"""A recurrent model and ViTs as dynamical systems: do their steps converge, repair noise and lose rank alike?

The ViTRM trained by `analyses.vitrm_on_cifar`, unrolled for several recursion steps (trained for as many as its recipe
says), a ViT by the same recipe, and the pretrained offline ViT, on the same test images.

    python -m analyses.vitrm_dynamics --images cifar10/test.parquet
    python -m analyses.vitrm_dynamics --size gpu --device cuda --images …
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analyses.recording import OFFLINE, RESULTS, parser, provenance
from brdyn import load_images, load_model
from brdyn.errors import BrdynError
from brdyn.interventions import perturbation_repair
from brdyn.measures.dynamics import token_dynamics
from brdyn.models import VisionTransformer
from brdyn.phases import Phases
from brdyn.results import image_provenance, records, to_json
from brdyn.store import write_atomically

OFFLINE_SIZE = 56
MEASURES = ("convergence", "speed", "update")
STEPS = 4
EPS = 0.1


def names(runs: Path, steps: int) -> dict[str, tuple[str, int | None]]:
    """What to load under which name, and the image size where the model does not fix it."""
    return {
        "vitrm": (f"{runs / 'vitrm'}@{steps}", None),
        "vit-small": (str(runs / "vit-small"), None),
        OFFLINE: (OFFLINE, OFFLINE_SIZE),
    }


def study(model: VisionTransformer, path: str, n: int, n_repair: int, **options: Any) -> dict[str, Any]:
    """Everything about one model, ready for JSON."""
    images, fewer = (load_images(path, model, n=count) for count in (n, n_repair))
    found = token_dynamics(model, images, measures=MEASURES, **options)
    middle = model.depth // 2
    repair = perturbation_repair(
        model, fewer, eps=(EPS,), targets=("all",), starts=sorted({0, middle}), **options
    )
    return {
        "model": model.info.to_dict(),
        "token_groups": model.tokens.sizes(),
        "readouts": list(model.tokens.readouts),
        "images": image_provenance(images),
        "n_repair": fewer.report.count,
        "phases": found.phases.to_dict(),
        "table": records(found.table),
        "alignment": {group: asdict(test) if test else None for group, test in found.alignment.items()},
        "repair": {"eps": EPS, "starts": [0, middle], "angles": records(repair.angles)},
    }


def main() -> None:
    """Run and record."""
    options = parser(__doc__)
    options.add_argument("--images", required=True, help="test images")
    options.add_argument("--size", default="cpu", help="of the study that trained the networks")
    options.add_argument("--steps", type=int, default=STEPS, help="T, recursion steps of ViTRM")
    options.add_argument("--n", type=int, default=500, help="images")
    options.add_argument("--n-repair", type=int, default=64, help="images that noise is added to")
    options.add_argument("--weights", type=Path, help=f"of {OFFLINE}, as in `brdyn phases`")
    options.add_argument("--workers", type=int, default=0, help="loader processes")
    options.set_defaults(out=RESULTS / "vitrm")
    choice = options.parse_args()
    home = choice.out / choice.size
    try:
        for name, (source, size) in names(Path(os.path.relpath(home / "runs")), choice.steps).items():
            weights = choice.weights if name == OFFLINE else None
            model = load_model(source, weights=weights, image_size=size, device=choice.device)
            content = study(model, choice.images, choice.n, choice.n_repair, workers=choice.workers)
            folder = home / "dynamics"
            folder.mkdir(parents=True, exist_ok=True)
            whole = {**content, "provenance": provenance("vitrm_dynamics", choice.device)}
            write_atomically(folder / f"{name}.json", to_json(whole))
            places = Phases.from_dict(content["phases"]).boundaries
            print(f"{name}: {model.depth} layers, phases end after {places}", flush=True)
    except BrdynError as error:
        options.error(str(error))


if __name__ == "__main__":
    main()
