"""Phases of the models at hand, on the same photographs; the numbers behind figure 1.

Runs `brdyn phases` for the offline model under every similarity, for untrained twins of it, and for any
further models named, and keeps each `phases.json` under `analyses/results/phases/NAME/`. A model whose
weights are not at hand is reported and left out.

    python -m analyses.phases_of_models --images imagenet_samples.parquet
    python -m analyses.phases_of_models --images PHOTOS --models dinov2_vitb14_reg dinov2_vitg14
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from unittest.mock import patch

from analyses.recording import OFFLINE, RESULTS, parser
from brdyn.cli.commands import app
from brdyn.errors import BrdynError
from brdyn.results import read_json


def studies(models: list[str]) -> dict[str, list[str]]:
    """Name of each run and its own options."""
    runs = {
        OFFLINE: [],
        f"{OFFLINE}_token-cosine": ["--similarity", "token-cosine"],
        f"{OFFLINE}_cka": ["--similarity", "cka"],
        f"{OFFLINE}_procrustes": ["--similarity", "procrustes"],
    }
    runs = {name: ["--model", OFFLINE, *options] for name, options in runs.items()}
    for seed in range(3):
        runs[f"{OFFLINE}_random{seed}"] = ["--model", OFFLINE, "--init", "random", "--seed", str(seed)]
    return runs | {name.replace("/", "--"): ["--model", name] for name in models}


def main() -> None:
    """Run what has no result yet."""
    options = parser(__doc__)
    options.add_argument("--images", required=True, help="as in `brdyn phases`")
    options.add_argument("--models", nargs="*", default=[], help="further models")
    options.add_argument("--n", type=int, help="images to use (default: all)")
    options.set_defaults(out=RESULTS / "phases")
    choice = options.parse_args()
    for name, own in studies(choice.models).items():
        folder: Path = choice.out / name
        place = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        shared = ["--images", choice.images, "--device", choice.device, "--out", str(place)]
        subset = ["--n", str(choice.n)] if choice.n else []
        # The command that results record is this one, not the study's.
        command = ["brdyn", "phases", *own, *shared, *subset, "--overwrite"]
        if (folder / "phases.json").is_file():
            before = read_json(folder / "phases.json", "a result of brdyn phases")["provenance"]["command"]
            same = before.removesuffix(" --overwrite") == shlex.join(command[:-1])
            print(
                f"{name}: already recorded"
                if same
                else f"{name}: left alone, recorded by another command: {before}"
            )
            continue
        try:
            with patch.object(sys, "argv", command):
                app(prog_name="brdyn", standalone_mode=False)
        except BrdynError as error:
            print(f"{name}: left out, {error}")


if __name__ == "__main__":
    main()
