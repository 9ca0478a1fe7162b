"""ViTRM's published ablations at short epochs: n updates of the latent times N_sup supervised steps, batch sizes, and
whether updates of the latent see the image or it starts from it alone; with seeds, which say how far one network is
from the next.

Every cell is one training run from scratch, on the same images for as many epochs, the cheapest first. A cell goes on
from its last checkpoint when the script is run again; one that is recorded is left alone, one that fails does not stop
the rest. Sizes: `gpu` is the published network and grid, `cpu` a small network and a part of the grid (an hour on one
core), `tiny` a dry run.

    python -m analyses.vitrm_grid --train cifar10/train.parquet --test cifar10/test.parquet
    python -m analyses.vitrm_grid --size gpu --device cuda --minutes 9 …        # in pieces; run it again
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from analyses.cells import attempt, digest_of, recorded
from analyses.recording import RESULTS, parser, provenance
from analyses.training_runs import OutOfTime, load_split, train_or_go_on
from analyses.vitrm_on_cifar import IMAGE_SIZE, NARROW, QUIET
from brdyn.classifiers.grid import cell_name, parse_grid, rows_of, runs_of
from brdyn.classifiers.recipe import VITRM, VITRM_NAME, ClassifierRecipe
from brdyn.classifiers.training import ClassifierRun
from brdyn.classifiers.training_result import ClassifierTraining
from brdyn.errors import BrdynError
from brdyn.store import read_json, to_json, write_atomically

GRID = RESULTS / "vitrm_grid"
CELL_COLUMNS = ["n", "n_sup", "accuracy", "parameters", "train_seconds", "images_per_second"]
BATCH_COLUMNS = ["batch_size", "accuracy", "images_per_second"]
REPEAT_COLUMNS = ["sees_image", "seed", "accuracy"]
RUNS = ("gpu", "cpu")
LATENT_STEPS = 3
FIRST = cell_name({"n": LATENT_STEPS, "n_sup": 1})  # the published one
ONCE = 1_000_000  # steps: accuracy is measured at the end alone


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the study is.

    Attributes
    ----------
    built : mapping
        What ViTRM is built with beside its published sizes.
    grid : tuple of str
        As `brdyn vitrm-train --grid` takes it.
    batch_sizes : tuple of int
        At n = 3, N_sup = 1.
    train_images, test_images : int or None
        None for all.
    recipe : ClassifierRecipe
        Of all cells but for the batch size.
    seeds : int
        Networks with n = 3, N_sup = 1 that see the image in every update, and that see it once.
    """

    built: Mapping[str, Any]
    grid: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    train_images: int | None
    test_images: int | None
    recipe: ClassifierRecipe
    seeds: int = 3


SIZES = {
    "tiny": Size(
        built={"width": 16, "heads": 2, "hidden": 16, "depth": 1, "patch": 8},
        grid=("n=1,2", "n_sup=1"),
        batch_sizes=(10, 20),
        seeds=1,
        train_images=60,
        test_images=40,
        recipe=replace(VITRM, epochs=1, warmup_epochs=0, batch_size=20, **QUIET),
    ),
    "cpu": Size(
        built={**NARROW, "depth": 2, "hidden": 192},
        grid=("n=1,2,3", "n_sup=1,2,4"),
        batch_sizes=(32, 64, 128, 256),
        train_images=2000,
        test_images=5000,
        recipe=replace(
            VITRM,
            epochs=12,
            warmup_epochs=1,
            lr=1e-3,
            ema=0.99,
            batch_size=64,
            precision="bfloat16",
            validate_every=ONCE,
            **QUIET,
        ),
    ),
    "gpu": Size(
        built={"dropout": 0.1},
        grid=("n=1,2,3,6,12", "n_sup=1,2,4,8,16"),
        batch_sizes=(64, 128, 256, 512, 1024),
        train_images=10_000,
        test_images=None,
        recipe=replace(
            VITRM, epochs=10, warmup_epochs=1, precision="bfloat16", validate_every=ONCE, checkpoint_every=200
        ),
    ),
}


class Study:
    """Images, and the cells."""

    def __init__(self, choice: argparse.Namespace) -> None:
        self.choice, self.size = choice, SIZES[choice.size]
        self.folder: Path = choice.out / choice.size
        self.device = torch.device(choice.device)
        self.until = time.monotonic() + 60 * choice.minutes
        counts = self.size.train_images, self.size.test_images
        self.train, self.test = load_split(choice.train, choice.test, IMAGE_SIZE, counts)

    def record(self, name: str, run: ClassifierRun) -> str:
        """Train one cell unless it is recorded; a word on it."""
        path = self.folder / f"{name}.json"
        asked = run.options(self.train, self.test)
        if recorded(path, digest_of(asked)):
            return "already recorded"
        if time.monotonic() > self.until:
            raise OutOfTime("out of time")
        place = self.folder / "runs" / name
        content = attempt(
            lambda: train_or_go_on(run, place, self.train, self.test, until=self.until, device=self.device)
        )
        whole = {
            **content,
            "cell": name,
            "digest": digest_of(asked),
            "options": asked,
            "provenance": provenance("vitrm_grid", self.choice.device),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_json(whole))
        return content.get("failed") or (
            f"{content['accuracy']:.2%} of {len(self.test)} test images, {content['history']['seconds']:.0f} s"
        )


def cells(size: Size) -> dict[str, ClassifierRun]:
    """How each cell is trained, by name: the grid, the cheapest first; batch sizes; seeds; those that see once."""
    base = ClassifierRun(
        network=VITRM_NAME,
        recipe=size.recipe,
        image_size=IMAGE_SIZE,
        built={**size.built, "latent_steps": LATENT_STEPS},
    )
    grid = runs_of(base, parse_grid(size.grid))
    ordered = dict(sorted(grid.items(), key=lambda item: item[1].built["latent_steps"] * item[1].n_sup))
    sweep = {
        f"batch{batch}": replace(base, recipe=replace(size.recipe, batch_size=batch))
        for batch in size.batch_sizes
    }
    repeats = {}
    for seed in range(size.seeds):
        own = replace(base, recipe=replace(size.recipe, seed=seed))
        if seed:  # the first is in the grid
            repeats[f"seed{seed}"] = own
        repeats[f"once{seed}"] = replace(own, built={**own.built, "sees_image": False})
    return {**ordered, **sweep, **repeats}


class Grid(NamedTuple):
    """What is recorded.

    Attributes
    ----------
    cells : DataFrame
        `n`, `n_sup`, `accuracy`, `parameters`, `train_seconds`, `images_per_second`.
    batches : DataFrame
        `batch_size`, `accuracy`, `images_per_second`.
    repeats : DataFrame
        `sees_image`, `seed`, `accuracy`; n = 3, N_sup = 1.
    testing : int
        Test images.
    size : Size
    name : str
    failed : dict of str to str
    provenance : dict
        Of the newest cell.
    """

    cells: pd.DataFrame
    batches: pd.DataFrame
    repeats: pd.DataFrame
    testing: int
    size: Size
    name: str
    failed: dict[str, str]
    provenance: dict[str, Any]


def read_grid(name: str | None = None, folder: Path = GRID) -> Grid | None:
    """A recorded study: the one named, or the largest that has the published cell; None where there is none."""
    there = [one for one in RUNS if (folder / one / f"{FIRST}.json").is_file()]
    if name is None and not there:
        return None
    chosen = name or there[0]
    runs = cells(SIZES[chosen])
    done: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    newest: dict[str, Any] = {}
    for cell in runs:
        path = folder / chosen / f"{cell}.json"
        if not path.is_file():
            continue
        content = read_json(path, "a cell of ViTRM's grid", ("options", "provenance"))
        newest = max(newest, content["provenance"], key=lambda one: one.get("date", ""))
        if "failed" in content:
            failed[cell] = content["failed"]
        else:
            done[cell] = content
    grid = {cell: run for cell, run in runs.items() if cell.startswith("n")}
    batches = [
        {
            "batch_size": run.recipe.batch_size,
            "accuracy": done[cell]["accuracy"],
            "images_per_second": done[cell]["history"]["images_per_second"],
        }
        for cell, run in runs.items()
        if cell.startswith("batch") and cell in done
    ]
    repeats = [
        {
            "sees_image": run.built.get("sees_image", True),
            "seed": run.recipe.seed,
            "accuracy": done[cell]["accuracy"],
        }
        for cell, run in runs.items()
        if cell in done and (cell == FIRST or cell.startswith(("seed", "once")))
    ]
    testing = max((one["test"]["images"] for one in done.values()), default=0)
    return Grid(
        pd.DataFrame(
            rows_of(grid, {k: ClassifierTraining.from_content(v, Path()) for k, v in done.items()}),
            columns=CELL_COLUMNS,
        ),
        pd.DataFrame(batches, columns=BATCH_COLUMNS),
        pd.DataFrame(repeats, columns=REPEAT_COLUMNS),
        testing,
        SIZES[chosen],
        chosen,
        failed,
        newest,
    )


def main() -> None:
    """Train what is not trained yet."""
    options = parser(__doc__)
    options.add_argument("--train", required=True, help="labelled images to train on")
    options.add_argument("--test", required=True, help="labelled images to test on")
    options.add_argument("--size", choices=sorted(SIZES), default="cpu")
    options.add_argument("--only", default="", help="cells whose name begins so: n3, batch")
    options.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop at a checkpoint after so long"
    )
    options.set_defaults(out=GRID)
    choice = options.parse_args()
    try:
        study = Study(choice)
        for name, run in cells(study.size).items():
            if name.startswith(choice.only):
                print(f"{name}: {study.record(name, run)}", flush=True)
    except OutOfTime as over:
        print(f"{over}; run it again to go on")
    except BrdynError as error:
        options.error(str(error))


if __name__ == "__main__":
    main()
