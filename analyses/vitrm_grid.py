"""ViTRM's published ablations at short epochs: n updates of the latent times N_sup supervised steps, batch sizes, and
whether updates of the latent see the image or it starts from it alone; with seeds, which say how far one network is
from the next.

Every cell is one training run from scratch, on the same images for as many epochs, the cheapest first. A cell goes on
from its last checkpoint when the script is run again; one that is recorded is left alone, one that fails does not stop
the rest. Sizes: `gpu` is the published network and grid, `quarter` one of a quarter of its width on all images, for
days of one core, `cpu` a small network and a part of the grid (an hour on one core), `tiny` a dry run. Batch sizes are
compared at equal epochs, or, of `quarter` and `tiny`, at equal steps.

    python -m analyses.vitrm_grid --train cifar10/train.parquet --test cifar10/test.parquet
    python -m analyses.vitrm_grid --size gpu --device cuda --minutes 9 …        # in pieces; run it again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pandas as pd

from analyses.recording import RESULTS
from analyses.study import read_all, run_study, sizes_of, study_parser
from analyses.training_runs import IMAGE_SIZE, TrainingStudy
from brdyn.classifiers import ClassifierRecipe, ClassifierRun
from brdyn.classifiers.grid import cell_name, parse_grid, rows_of, runs_of
from brdyn.classifiers.recipe import VITRM_NAME
from brdyn.classifiers.training_result import ClassifierTraining
from brdyn.provenance import images_of

GRID = RESULTS / "vitrm_grid"
CELL_COLUMNS = ["n", "n_sup", "accuracy", "parameters", "train_seconds", "images_per_second"]
BATCH_COLUMNS = ["batch_size", "accuracy", "images_per_second"]
REPEAT_COLUMNS = ["sees_image", "seed", "accuracy"]
RUNS = ("gpu", "quarter", "cpu")
LATENT_STEPS = 3
FIRST = cell_name({"n": LATENT_STEPS, "n_sup": 1})  # the published one
SIZES = sizes_of("vitrm_grid")


def names(size: str) -> list[str]:
    return list(cells(SIZES[size]))


class GridStudy(TrainingStudy):
    module, sizes, every = "vitrm_grid", SIZES, staticmethod(names)

    def run_of(self, name: str) -> ClassifierRun:
        return cells(self.size)[name]

    def run(self, cell: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        return self.trained(cell)


def cells(size: SimpleNamespace) -> dict[str, ClassifierRun]:
    """How each cell is trained, by name: the grid, the cheapest first; batch sizes; seeds; those that see once."""
    built = {**size.built, "latent_steps": LATENT_STEPS}
    base = ClassifierRun(network=VITRM_NAME, recipe=size.recipe, image_size=IMAGE_SIZE, built=built)
    grid = runs_of(base, parse_grid(size.grid))
    ordered = dict(sorted(grid.items(), key=lambda item: item[1].built["latent_steps"] * item[1].n_sup))
    usual = size.recipe.batch_size
    sweep = {
        f"batch{batch}": replace(
            base,
            recipe=replace(
                size.recipe,
                batch_size=batch,
                **(longer(size.recipe, batch / usual) if size.equal_steps else {}),
            ),
        )
        for batch in size.batch_sizes
    }
    repeats = {}
    for seed in range(size.seeds):
        own = replace(base, recipe=replace(size.recipe, seed=seed))
        if seed:  # the first is in the grid
            repeats[f"seed{seed}"] = own
        repeats[f"once{seed}"] = replace(own, built={**built, "sees_image": False})
    return {**ordered, **sweep, **repeats}


def longer(recipe: ClassifierRecipe, times: float) -> dict[str, float]:
    """Epochs that take so many times as many images."""
    return {name: times * getattr(recipe, name) for name in ("epochs", "warmup_epochs")}


class Grid(NamedTuple):
    """What is recorded: tables, the last two of n = 3, N_sup = 1; test images; how large it is and what that is called;
    and where the newest cell comes from."""

    cells: pd.DataFrame
    batches: pd.DataFrame
    repeats: pd.DataFrame
    testing: int
    size: SimpleNamespace
    name: str
    failed: dict[str, str]
    provenance: dict[str, Any]

    def heading(self) -> str:
        """Of its picture."""
        trained, epochs = self.size.train_images, self.size.recipe.epochs
        on = f"trained on {'all' if trained is None else f'{trained:,}'} images for {epochs:g} epochs"
        return f"ViTRM: accuracy (%)\n{on},\ntested on {images_of(self.testing, (IMAGE_SIZE, IMAGE_SIZE))}"


def read_grid(name: str | None = None, folder: Path = GRID) -> Grid | None:
    """A recorded study: the one named, or the largest that has the published cell; None where there is none."""
    there = [one for one in RUNS if (folder / one / f"{FIRST}.json").is_file()]
    if name is None and not there:
        return None
    name = name or there[0]
    runs = cells(SIZES[name])
    done, failed, newest = read_all({cell: folder / name / f"{cell}.json" for cell in runs}, ("options",))
    grid = {cell: run for cell, run in runs.items() if cell.startswith("n")}
    rows = pd.DataFrame(
        [
            {
                "cell": cell, "batch_size": run.recipe.batch_size, "seed": run.recipe.seed,
                "sees_image": run.built.get("sees_image", True), "accuracy": done[cell]["accuracy"],
                "images_per_second": done[cell]["history"]["images_per_second"],
            }
            for cell, run in runs.items() if cell in done
        ],
        columns=["cell", *dict.fromkeys([*BATCH_COLUMNS, *REPEAT_COLUMNS])],
    ).set_index("cell")  # fmt: skip
    batches, repeats = (
        rows.filter(regex="^batch", axis=0),
        rows.filter(regex=f"^({FIRST}$|seed|once)", axis=0),
    )
    trainings = {cell: ClassifierTraining.from_content(content, folder) for cell, content in done.items()}
    return Grid(
        pd.DataFrame(rows_of(grid, trainings), columns=CELL_COLUMNS), batches[BATCH_COLUMNS], repeats[REPEAT_COLUMNS],
        max((one["test"]["images"] for one in done.values()), default=0), SIZES[name], name, failed, newest,
    )  # fmt: skip


main = run_study(GridStudy, study_parser(__doc__, GRID, sizes=SIZES), __name__)
