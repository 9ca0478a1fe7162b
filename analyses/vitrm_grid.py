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

from analyses.recording import RESULTS, Choice
from analyses.study import read_all, recorded_size, run_study, sizes_of, study_parser
from analyses.training_runs import IMAGE_SIZE, TrainedNetworks
from brdyn.classifiers import ClassifierRun
from brdyn.classifiers.grid import cell_name, parse_grid, runs_of
from brdyn.classifiers.recipe import VITRM_NAME
from brdyn.provenance import images_of

GRID = RESULTS / "vitrm_grid"
CELL_COLUMNS = ["n", "n_sup", "accuracy", "parameters", "train_seconds", "images_per_second"]
BATCH_COLUMNS = ["batch_size", "accuracy", "images_per_second"]
REPEAT_COLUMNS = ["sees_image", "seed", "accuracy"]
RUNS = ("gpu", "quarter", "cpu")
LATENT_STEPS = 3
FIRST = cell_name({"n": LATENT_STEPS, "n_sup": 1})  # the published one
SIZES = sizes_of("vitrm_grid")


class GridStudy(TrainedNetworks[str]):
    asked_as = "options"

    def __init__(self, choice: Choice) -> None:
        super().__init__(choice, choice.size, SIZES[choice.size])

    @classmethod
    def planned(cls, size: str) -> list[str]:
        return list(cells(SIZES[size]))

    def run_of(self, cell: str) -> ClassifierRun:
        return cells(self.size)[cell]

    def run(self, cell: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        return self.trained(cell)


def cells(size: SimpleNamespace) -> dict[str, ClassifierRun]:
    """How each cell is trained, by name: the grid, the cheapest first; batch sizes; seeds; those that see once."""
    built = {**size.built, "latent_steps": LATENT_STEPS}
    base = ClassifierRun(network=VITRM_NAME, recipe=size.recipe, image_size=IMAGE_SIZE, built=built)

    def otherwise(**changes: Any) -> ClassifierRun:
        return replace(base, recipe=replace(size.recipe, **changes))

    grid = runs_of(base, parse_grid(size.grid)).items()
    found = dict(sorted(grid, key=lambda item: item[1].built["latent_steps"] * item[1].n_sup))
    for batch in size.batch_sizes:
        times = batch / size.recipe.batch_size if size.equal_steps else 1
        longer = {name: times * getattr(size.recipe, name) for name in ("epochs", "warmup_epochs")}
        found[f"batch{batch}"] = otherwise(batch_size=batch, **longer)
    for seed in range(size.seeds):
        own = otherwise(seed=seed)
        if seed:  # the first is in the grid
            found[f"seed{seed}"] = own
        found[f"once{seed}"] = replace(own, built={**built, "sees_image": False})
    return found


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
    if (name := name or recorded_size(folder, RUNS, f"{FIRST}.json")) is None:
        return None
    runs = cells(SIZES[name])
    done, failed, newest = read_all(folder / name, runs, "options")
    rows = {cell: _row(run, done[cell]) for cell, run in runs.items() if cell in done}
    columns = [*dict.fromkeys([*CELL_COLUMNS, *BATCH_COLUMNS, *REPEAT_COLUMNS])]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    grid, batches, repeats = (
        table.filter(regex=pattern, axis=0) for pattern in ("^n", "^batch", f"^({FIRST}$|seed|once)")
    )
    return Grid(
        grid[CELL_COLUMNS].reset_index(drop=True), batches[BATCH_COLUMNS], repeats[REPEAT_COLUMNS],
        max((one["test"]["images"] for one in done.values()), default=0), SIZES[name], name, failed, newest,
    )  # fmt: skip


def _row(run: ClassifierRun, content: Mapping[str, Any]) -> dict[str, Any]:
    history, recipe = content["history"], run.recipe
    return {
        "n": run.built["latent_steps"], "n_sup": run.n_sup, "batch_size": recipe.batch_size, "seed": recipe.seed,
        "sees_image": run.built.get("sees_image", True), "accuracy": content["accuracy"],
        "parameters": content["parameters"], "train_seconds": history["seconds"],
        "images_per_second": history["images_per_second"],
    }  # fmt: skip


STUDY = GridStudy
main = run_study(STUDY, study_parser(__doc__, GRID, sizes=SIZES), __name__)
