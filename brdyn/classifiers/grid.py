"""The published ablation of ViTRM: one training run for each combination of n and N_sup."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from brdyn.arguments import checked
from brdyn.classifiers.config import ViTRMConfig
from brdyn.errors import BrdynError, UsageError
from brdyn.provenance import RunProvenance, images_of, one_set, run_provenance
from brdyn.result import Result
from brdyn.store import records
from brdyn.store.result_files import GRID_RESULT
from brdyn.words import counted

if TYPE_CHECKING:  # imported when it is needed: the command line reads a grid without torch
    import pandas as pd

    from brdyn.classifiers.pixels import PixelSet
    from brdyn.classifiers.training import ClassifierRun
    from brdyn.classifiers.training_result import ClassifierTraining
    from brdyn.training import Session

KEYS = ("n", "n_sup")
COLUMNS = {
    "n": int,
    "n_sup": int,
    "accuracy": (float, None),
    "parameters": int,
    "train_seconds": float,
    "images_per_second": float,
}
Cell = dict[str, int]


@dataclass(frozen=True, eq=False, repr=False)
class Grid(Result):
    """What is there of a grid of runs.

    Attributes
    ----------
    cells : DataFrame
        A row for each run that is done: `n`, `n_sup`, `accuracy` (NaN without test images), `parameters`,
        `train_seconds` and `images_per_second`.
    asked : tuple of str
        Names of all runs, by :func:`cell_name`.
    failed : mapping of str to str
        Those that failed, and why.
    test : mapping or None
        Which test images.

    Examples
    --------
    >>> import pandas as pd
    >>> from brdyn.classifiers import Grid
    >>> cells = pd.DataFrame({"n": [1, 3], "n_sup": [2, 2], "accuracy": [0.5, 0.75]})
    >>> grid = Grid(cells, asked=("n1_n_sup2", "n3_n_sup2", "n6_n_sup2"))
    >>> print(grid.summary())
    2 of 3 runs; the best accuracy is 75.00%, with n=3 and N_sup=2
    <BLANKLINE>
    n  n sup  accuracy
    1      2       0.5
    3      2      0.75
    """

    FILE: ClassVar[str] = GRID_RESULT
    SHAPE: ClassVar[Mapping[str, Any]] = {
        "cells": [COLUMNS],
        "asked": [str],
        "failed": {str: str},
        "test": ({"images?": int}, None),
    }
    ORIGIN: ClassVar[type[RunProvenance]] = RunProvenance
    ROW_OF: ClassVar[tuple[str, ...]] = ("n", "n sup")

    cells: pd.DataFrame
    asked: Sequence[str]
    failed: Mapping[str, str] = field(default_factory=dict)
    test: Mapping[str, Any] | None = None

    def content(self) -> dict[str, Any]:
        """Rows of the cells, and which runs were asked for and failed."""
        return {
            "cells": records(self.cells),
            "asked": list(self.asked),
            "failed": dict(self.failed),
            "test": self.test,
        }

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from a grid.json."""
        del folder
        return cls(_table(content["cells"]), tuple(content["asked"]), content["failed"], content["test"])

    @property
    def caption(self) -> str:
        """How many test images."""
        return f"tested on {images_of(self.test['images'], None)}" if self.test and "images" in self.test else ""

    def answer(self) -> str:
        """How many runs there are, and the best of them."""
        known = self.cells.dropna(subset="accuracy")
        if not len(known):
            return self.brief()
        row = known.loc[known["accuracy"].idxmax()]
        of = f"n={row['n']:g} and N_sup={row['n_sup']:g}"
        return f"{self.brief()}; the best accuracy is {row['accuracy']:.2%}, with {of}"

    def alike(self) -> dict[str, Any]:
        """The images that were tested on."""
        return {"test images": one_set(self.test)}

    def overview(self) -> list[dict[str, Any]]:
        """Every run that is done."""
        names = [name for name in ("n", "n_sup", "accuracy", "train_seconds") if name in self.cells]
        return [
            {name.replace("_", " "): value for name, value in row.items()}
            for row in self.cells[names].to_dict(orient="records")
        ]

    def remarks(self) -> list[str]:
        """Those that failed."""
        return [f"{name} failed: {why}" for name, why in self.failed.items()]

    def brief(self) -> str:
        """Runs done, of those asked for."""
        return f"{len(self.cells)} of {counted(len(self.asked), 'run')}"


@checked
def train_grid(
    run: ClassifierRun,
    cells: Sequence[Cell],
    images: PixelSet,
    test: PixelSet | None = None,
    *,
    done: Mapping[str, ClassifierTraining] | None = None,
    train: Callable[[str, ClassifierRun], ClassifierTraining | None] | None = None,
    visit: Callable[[str, Grid, ClassifierTraining | None], None] | None = None,
    session: Session | None = None,
) -> Grid:
    """Train every cell of a grid. One that fails does not stop the rest.

    Parameters
    ----------
    run : ClassifierRun
        Of a ViTRM; cells are as it but for their n and N_sup.
    cells : sequence of dict
        As :func:`parse_grid` gives.
    images, test : PixelSet
        As :meth:`ClassifierRun.train` takes.
    done : mapping of str to ClassifierTraining, optional
        Cells that are trained already, by :func:`cell_name`.
    train : callable, optional
        Trains a cell by its name and run, such as to keep it in a folder; by default :meth:`ClassifierRun.train` does.
    visit : callable, optional
        Called after each cell with its name, what is there so far, and the cell's own result, None where it failed or
        in a process other than the main one.
    session : Session, optional
        Device, tracker and progress bar of all runs. Checkpoints are of one run alone: `train` gives each its own.

    Returns
    -------
    Grid
        In processes other than the main one without the cells trained now.

    Raises
    ------
    UsageError
        If a cell cannot be asked for so.

    Examples
    --------
    >>> from brdyn.classifiers import ClassifierRecipe, ClassifierRun, load_pixels, train_grid
    >>> images = load_pixels("photos", image_size=8)
    >>> built = {"width": 12, "heads": 2, "hidden": 16}
    >>> run = ClassifierRun(network="vitrm", recipe=ClassifierRecipe(epochs=1), image_size=8, built=built)
    >>> train_grid(run, [{"n": 1}, {"n": 2}], images).cells["n"].tolist()
    [1, 2]
    """
    from brdyn.training import Session

    session = session or Session()
    accelerator = session.on()
    each = replace(session, accelerator=accelerator)
    runs, found, failed = runs_of(run, cells), dict(done or {}), dict[str, str]()
    train = train or (lambda _, one: one.train(images, test, session=each))
    identity = None if test is None else test.identity()
    origin = RunProvenance(details=run_provenance(accelerator.device.type))

    def so_far() -> Grid:
        rows = _table(rows_of(runs, found))
        return Grid(rows, tuple(runs), dict(failed), identity, provenance=origin)

    for name, one in runs.items():
        training = found.get(name)
        try:
            training = training or train(name, one)
        except UsageError:
            raise
        except BrdynError as error:
            failed[name] = str(error)
        if training is not None:
            found[name] = training
        if visit is not None:
            visit(name, so_far(), training)
    return so_far()


@checked
def parse_grid(words: Sequence[str]) -> list[Cell]:
    """Combinations of values from `n=1,2,3`, `n_sup=1,2`, N_sup varying fastest.

    Parameters
    ----------
    words : sequence of str
        A key and its values each: `n` (updates of the latent in a recursion step), `n_sup` (supervised steps of a
        batch). T, the steps for an answer, needs no training: `brdyn vitrm-eval` measures every one.

    Raises
    ------
    UsageError
        If a key is unknown or named twice, or a value is not a positive number.

    Examples
    --------
    >>> from brdyn.classifiers import parse_grid
    >>> parse_grid(["n=1,3", "n_sup=2"])
    [{'n': 1, 'n_sup': 2}, {'n': 3, 'n_sup': 2}]
    """
    axes: dict[str, list[int]] = {}
    for word in words:
        key, equals, values = word.partition("=")
        numbers = values.split(",")
        if key not in KEYS or not equals:
            raise UsageError(f"`grid={word!r}` is not one of {', '.join(f'{name}=1,2,…' for name in KEYS)}")
        if key in axes:
            raise UsageError(f"`grid` names {key} twice")
        if not all(re.fullmatch("[0-9]{1,9}", number) and int(number) for number in numbers):
            raise UsageError(f"`grid={word!r}`: values are positive whole numbers, as in {key}=1,2,3")
        axes[key] = list(dict.fromkeys(map(int, numbers)))
    ordered = {key: axes[key] for key in KEYS if key in axes}
    return [dict(zip(ordered, chosen, strict=True)) for chosen in product(*ordered.values())]


def runs_of(run: ClassifierRun, cells: Sequence[Cell]) -> dict[str, ClassifierRun]:
    """How each cell is trained, by :func:`cell_name`: as `run` but for its n and N_sup."""
    return {
        cell_name(cell): replace(
            run,
            built={
                **run.built,
                "latent_steps": cell.get("n", run.built.get("latent_steps", ViTRMConfig.latent_steps)),
            },
            n_sup=cell.get("n_sup", run.n_sup),
        )
        for cell in cells
    }


def rows_of(runs: Mapping[str, ClassifierRun], done: Mapping[str, ClassifierTraining]) -> list[dict[str, Any]]:
    """A row of :attr:`Grid.cells` for each cell that is done, by :func:`cell_name`."""
    return [
        {
            "n": one.built["latent_steps"],
            "n_sup": one.n_sup,
            "accuracy": done[name].accuracy,
            "parameters": done[name].parameters,
            "train_seconds": done[name].history.seconds,
            "images_per_second": done[name].history.images_per_second,
        }
        for name, one in runs.items()
        if name in done
    ]


def _table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table, which has all columns even where there is none."""
    import pandas as pd

    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"accuracy": float})


def cell_name(cell: Cell) -> str:
    """`n3_n_sup1`, the folder of a cell."""
    return "_".join(f"{key}{value}" for key, value in cell.items())


def is_cell(name: Any) -> bool:
    """Whether :func:`cell_name` gives such names.

    >>> from brdyn.classifiers.grid import is_cell
    >>> is_cell("n3_n_sup1"), is_cell("n3/../n1")
    (True, False)
    """
    return isinstance(name, str) and re.fullmatch("n[0-9]+(_n_sup[0-9]+)?|n_sup[0-9]+", name) is not None
