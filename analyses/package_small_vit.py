"""Ship a network that `brdyn vit-train --keep best` trained: float16 weights, config and model card.

At the epoch that was best on its held-out images. Its accuracy is measured as shipped; its card says the run's own
command. Without `--out` it becomes `cifar_vit12`.

    python -m analyses.package_small_vit --test cifar10/test.parquet --run runs/vit
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from textwrap import TextWrapper
from typing import Any

import torch

from analyses.recording import Choice, command, plain_parser
from analyses.render import page
from brdyn import BrdynError, UsageError
from brdyn.classifiers import Classifier, PixelSet, class_scores, load_pixels, packaged
from brdyn.classifiers.evaluation import accuracy_and_f1
from brdyn.classifiers.recipe import BEST
from brdyn.classifiers.saved import read_config
from brdyn.store import read_json, to_json, write_atomically
from brdyn.store.pretrained import CONFIG, WEIGHTS
from brdyn.store.result_files import TRAIN_RESULT
from brdyn.store.shared_tensors import each_once

LARGEST = 12e6  # bytes


def ship(run: Path, home: Path, test: PixelSet, origin: dict[str, Any]) -> dict[str, Any]:
    """Write the packaged model and its card; what was measured. Raises BrdynError if it would be too large."""
    classifier = Classifier.from_pretrained(run / BEST)
    trained = read_config(run / BEST)
    halved = replace(classifier, network=deepcopy(classifier.network).half())
    size = sum(value.nbytes for value in each_once(halved.network).values())
    if size > LARGEST:
        raise BrdynError(f"{size / 1e6:.1f} MB of weights are more than {LARGEST / 1e6:.0f}")
    halved.save_pretrained(home, trained=trained["trained"], at=trained["at"])
    shipped = Classifier.from_pretrained(home)
    before, after = (class_scores(one, test) for one in (classifier, shipped))
    found = {
        **accuracy_and_f1(after.argmax(1), test.labels),
        "change_of_scores_by_float16": float((before - after).abs().max()),
        "same_answers": float((before.argmax(1) == after.argmax(1)).double().mean()),
        "bytes": (home / WEIGHTS).stat().st_size,
        "parameters": shipped.parameters,
        "flops": shipped.flops(),
        "test_images": len(test),
    }
    config = read_config(home)
    write_atomically(home / CONFIG, to_json({**config, "measured": found, "provenance": origin}))
    write_atomically(home / "README.md", card(config, found, origin, home.name).encode())
    return found


def card(config: dict[str, Any], found: dict[str, Any], origin: dict[str, Any], name: str) -> str:
    """The model card, its bullets in lines of bounded length."""
    said = page("model_card.md.j2", name=name, config=config, found=found, origin=origin)
    fold = TextWrapper(100, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False).fill
    return "\n".join(fold(line) if line.startswith("- **") else line for line in said.splitlines()) + "\n"


def run(choice: Choice) -> None:
    run = choice.run
    if not run.is_dir():
        raise UsageError(f"{str(run)!r} is not here: trained networks stay where they were trained")
    origin = read_json(run / TRAIN_RESULT, "a training", ("provenance",))["provenance"]
    test = load_pixels(choice.test, read_config(run / BEST)["image_size"], train=False, workers=0)
    with torch.no_grad():
        found = ship(run, choice.out, test, origin)
    said = f"{found['accuracy']:.2%} of {found['test_images']} test images, {found['bytes'] / 1e6:.1f} MB"
    print(f"{choice.out}: {run.name}, {said}")


OPTIONS = plain_parser(__doc__)
OPTIONS.add_argument("--test", required=True, help="test images of CIFAR-10")
OPTIONS.add_argument("--run", type=Path, required=True, help="folder of `brdyn vit-train --keep best`")
OPTIONS.add_argument("--out", type=Path, default=packaged.HOME, help="where the model goes")
main = command(run, OPTIONS, __name__)
