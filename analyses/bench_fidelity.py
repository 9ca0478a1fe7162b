"""Time to fidelity: images and seconds until a Raptor reaches fixed levels, by three recipes: the fast one, this with
its learning rates tried first, and the published one.

Fits of several lengths, each by its whole schedule, of all three by turns, on the same images and from the same seeds.
Between two lengths a level is placed by straight lines over the logarithm of images; seconds are those images by the
seconds an image took in the fits of that recipe. Images of trials are counted, and the seconds are those of all that a
fit does, with trials and the choice of layers to start from. R² and skill are those of the last layer on the Raptor's
own way, on test images; the share kept is of the accuracy of the teacher's own head, where it has one.

    python -m analyses.bench_fidelity --train cifar10/train.parquet --images cifar10/test.parquet
"""

from __future__ import annotations

import time
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from analyses import bench
from analyses.raptor_cells import came_to
from analyses.recording import SMALL_VIT, Choice
from brdyn import Stream, UsageError, fit_raptor, layer_similarity, load_images, segment
from brdyn.raptor import FitSettings
from brdyn.raptor.fidelity import fidelity
from brdyn.raptor.partitions import MAXCUT, assign
from brdyn.raptor.rates import trial
from brdyn.raptor.recipe import FAST, PUBLISHED, VALIDATION_IMAGES

LEVELS = {"r2": (0.5, 0.6, 0.7, 0.8, 0.9), "skill": (0.2, 0.4, 0.6), "kept": (0.8, 0.9, 0.95)}
BATCH = 32
TRIED = "tried"
RECIPES: dict[str, dict[str, Any]] = {
    FAST: {"recipe": FAST}, TRIED: {"recipe": FAST, "try_rates": True}, PUBLISHED: {"recipe": PUBLISHED},
}  # fmt: skip
RATIOS = {"ratios": FAST, "tried_ratios": TRIED}  # over the published recipe


def fits(choice: Choice) -> pd.DataFrame:
    """A row a fit: recipe, seed, images, seconds, and what the Raptor came to."""
    teacher = bench.chosen_model(choice)
    lengths = sorted(choice.lengths)
    train = load_images(choice.train, teacher, n=lengths[-1] + VALIDATION_IMAGES).decoded()
    tested = load_images(choice.images, teacher, n=choice.n).decoded()
    phases = segment(layer_similarity(teacher, tested, stream=Stream(workers=0)), choice.k)
    assignment = assign(MAXCUT, phases.boundaries, teacher.depth)
    rows = []
    for seed, images, recipe in product(range(choice.seeds), lengths, RECIPES):
        steps = max(1, images // (2 * BATCH))
        settings = FitSettings(
            **RECIPES[recipe], stage1_steps=steps, stage2_steps=steps, batch_size=BATCH, seed=seed,
            validation_images=VALIDATION_IMAGES, validate_every=2 * steps,
        )  # fmt: skip
        started = time.perf_counter()
        fit = fit_raptor(teacher, train, assignment, settings, workers=0)
        seconds = time.perf_counter() - started
        short = trial(settings, 1)
        of_trials = len(fit.tried) * (short.stage1_steps + short.stage2_steps) * BATCH
        found = fidelity(fit.raptor, tested, Stream(workers=0))
        if teacher.classes and found.teacher_accuracy is None:
            raise UsageError(f"--images: {choice.images!r} has no labels of the classes of {choice.model!r}")
        skill = float(found.curve("skill_affine").iloc[-1])
        row = {"recipe": recipe, "seed": seed, "images": fit.images_seen + of_trials, "seconds": seconds,
               **came_to(found), "skill": skill}  # fmt: skip
        print(row, flush=True)
        rows.append(row)
    return pd.DataFrame(rows)


def reached(images: np.ndarray, values: np.ndarray, level: float) -> float | None:
    """How many images it takes to a level, for the first time; None where it is not reached.

    Where the shortest fit is above it already, that many.
    """
    first = int(np.argmax(values >= level))
    if not values[first] >= level:
        return None
    if first == 0:
        return float(images[0])
    about = slice(first - 1, first + 1)
    return float(np.exp(np.interp(level, values[about], np.log(images[about]))))


def needed(fits: pd.DataFrame, what: str, level: float) -> dict[str, list[float]] | None:
    """Images and seconds to a level by one recipe, by seed; None where a seed does not reach it."""
    curves = [one.sort_values("images") for _, one in fits.groupby("seed")]
    images = [reached(one["images"].to_numpy(), one[what].to_numpy(float), level) for one in curves]
    rate = float((fits["seconds"] / fits["images"]).median())
    placed = [one for one in images if one is not None]
    whole = len(placed) == len(images)
    return {"images": placed, "seconds": [rate * one for one in placed]} if whole else None


def levels(found: pd.DataFrame) -> list[dict[str, Any]]:
    """For each level that a recipe reaches with every seed: images and seconds by recipe, and those of both fast ones
    over those of the published one."""
    rows = []
    for what, level in ((what, level) for what, several in LEVELS.items() for level in several):
        by = {str(recipe): needed(of, what, level) for recipe, of in found.groupby("recipe")}
        row: dict[str, Any] = {"of": what, "level": level, **dict.fromkeys(RECIPES), **by}
        for name, recipe in RATIOS.items():
            fast, published = row[recipe], row[PUBLISHED]
            row[name] = fast and published and {unit: np.divide(fast[unit], published[unit]).tolist() for unit in fast}
        if any(by.values()):
            rows.append(row)
    return rows


def run(choice: Choice) -> dict[str, Any]:
    found = fits(choice)
    return {
        "model": choice.model, "k": choice.k, "batch_size": BATCH, "tested": choice.n,
        "fits": found.to_dict("records"), "levels": levels(found),
    }  # fmt: skip


OPTIONS = bench.bench_parser(__doc__, images=True)
OPTIONS.set_defaults(model=SMALL_VIT, image_size=32, n=2000)
OPTIONS.add_argument("--train", required=True, help="images to fit Raptors on")
OPTIONS.add_argument("--k", type=int, default=3)
OPTIONS.add_argument("--seeds", type=int, default=3)
OPTIONS.add_argument("--lengths", type=bench.numbers, default="2560,5120,10240,20480", help="images that fits see")
main = bench.benchmark("bench_fidelity", run, OPTIONS, __name__)
