"""Ship the best network of the stochastic-depth study with the package: float16 weights, config and model card.

The best by its held-out images, at its best epoch. Its accuracy is measured as shipped.

    python -m analyses.package_small_vit --test cifar10/test.parquet
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

import torch

from analyses.recording import provenance
from analyses.stochastic_depth_cells import SIZES, STUDY, Recorded, read_study
from brdyn.classifiers import packaged
from brdyn.classifiers.evaluation import accuracy_and_f1, class_scores
from brdyn.classifiers.pixels import PixelSet, load_pixels
from brdyn.classifiers.recipe import BEST
from brdyn.classifiers.saved import Classifier, read_config
from brdyn.errors import BrdynError, UsageError
from brdyn.store import to_json, write_atomically
from brdyn.store.pretrained import CONFIG, WEIGHTS

LARGEST = 12e6  # bytes


def best_run(study: Recorded) -> str:
    """The run with the highest accuracy on held-out images, as `p0.4_seed0`."""
    watched = {run: max(row["accuracy"] for row in rows) for run, rows in study.validation.items()}
    return max(watched, key=lambda run: watched[run])


def ship(run: Path, home: Path, test: PixelSet, command: dict[str, Any]) -> dict[str, Any]:
    """Write the packaged model and its card; what was measured.

    Raises
    ------
    BrdynError
        If it would be too large.
    """
    classifier = Classifier.from_pretrained(run / BEST)
    trained = read_config(run / BEST)
    halves = classifier.in_float16()
    size = sum(value.nbytes for value in halves.values())
    if size > LARGEST:
        raise BrdynError(f"{size / 1e6:.1f} MB of weights are more than {LARGEST / 1e6:.0f}")
    classifier.save_pretrained(home, halves, trained=trained["trained"], at=trained["at"])
    shipped = Classifier.from_pretrained(home)
    before, after = (class_scores(one, test) for one in (classifier, shipped))
    found = {
        **accuracy_and_f1(after.argmax(1), test.labels),
        "change_of_scores_by_float16": float((before - after).abs().max()),
        "same_answers": float((before.argmax(1) == after.argmax(1)).double().mean()),
        "bytes": (home / WEIGHTS).stat().st_size,
        "parameters": shipped.parameters,
        "test_images": len(test),
    }
    config = read_config(home)
    write_atomically(home / CONFIG, to_json({**config, "measured": found, "provenance": command}))
    write_atomically(home / "README.md", card(config, found, command).encode())
    return found


def card(config: dict[str, Any], found: dict[str, Any], origin: dict[str, Any]) -> str:
    """The model card."""
    trained, recipe, built = config["trained"], config["trained"]["recipe"], config["trained"]["built"]
    images, side = trained["data"]["images"] - trained["held_out"], config["image_size"]
    facts = {
        "Network": f"{built['depth']} layers, width {built['width']}, {built['heads']} heads, MLP of {built['hidden']} "
        f"units, patch {built['patch']}, one cls token, {found['parameters'] / 1e6:.2f} M parameters, images of "
        f"{side} x {side} pixels; classes: {', '.join(config['classes'])}.",
        "Training": f"{images:,} images of CIFAR-10 (Krizhevsky 2009; JPEG-recompressed), {recipe['epochs']:g} epochs, "
        f"the best one (epoch {config['at']['epoch']:.1f}) chosen on {trained['held_out']} held-out images; uniform "
        f"drop-path {built['drop_path']:g}, AdamW {recipe['lr']:g}, batch {recipe['batch_size']}, random crop and "
        f"flip, seed {recipe['seed']}. `config.json` has every option.",
        "Accuracy": f"{found['accuracy']:.1%} [{found['low']:.1%}, {found['high']:.1%}] of the "
        f"{found['test_images']:,} test images, as shipped (float16 weights, run in float32). Rounding to float16 "
        f"leaves {found['same_answers']:.2%} of the answers as they were.",
        "Limits": f"it knows ten classes at {side} pixels and is often wrong. What holds for it need not hold for "
        "networks that were trained for long on many images.",
        "Made by": f"`{origin['command']}`, {origin['date'][:10]}, on {origin['device']}. CIFAR-10 itself is not part "
        "of this package.",
    }
    bullets = "\n".join(
        textwrap.fill(
            f"- **{name}**: {text}",
            100,
            subsequent_indent="  ",
            break_on_hyphens=False,
            break_long_words=False,
        )
        for name, text in facts.items()
    )
    return f"{HEAD}\n{bullets}\n"


HEAD = f"""---
license: mit
tags: [image-classification, vision-transformer, stochastic-depth]
---

# {packaged.NAME}

A small Vision Transformer with its classification head, trained from scratch on CIFAR-10 by brdyn, so that
layer swaps, deletions, Raptors and probes have an accuracy to read out without any download. It is a
specimen to study, not a good classifier.
"""


def main() -> None:
    """Choose, write and measure."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--test", required=True, help="test images of CIFAR-10")
    options.add_argument("--size", choices=SIZES, help="of the study (default: the largest recorded)")
    options.add_argument("--study", type=Path, default=STUDY, help="folder of the results")
    options.add_argument("--out", type=Path, default=packaged.HOME, help="where the model goes")
    choice = options.parse_args()
    try:
        study = read_study(choice.size, choice.study)
        run = choice.study / study.config.name / "runs" / best_run(study)
        if not run.is_dir():
            raise UsageError(f"{str(run)!r} is not here: trained networks stay where they were trained")
        test = load_pixels(choice.test, study.config.image_size, train=False, workers=0)
        with torch.no_grad():
            found = ship(run, choice.out, test, provenance("package_small_vit", "cpu"))
    except BrdynError as error:
        options.error(str(error))
    print(
        f"{choice.out}: {run.name}, {found['accuracy']:.2%} of {found['test_images']} test images, "
        f"{found['bytes'] / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
