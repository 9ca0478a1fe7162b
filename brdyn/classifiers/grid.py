"""The published ablation of ViTRM: one training run for each combination of n and N_sup."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from brdyn.errors import UsageError

if TYPE_CHECKING:
    from brdyn.classifiers.training import ClassifierRun

KEYS = ("n", "n_sup")
Cell = dict[str, int]


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
            built={**run.built, "latent_steps": cell.get("n", run.built["latent_steps"])},
            n_sup=cell.get("n_sup", run.n_sup),
        )
        for cell in cells
    }


def rows_of(runs: Mapping[str, ClassifierRun], done: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is known of the cells that are done: of `train.json`, by :func:`cell_name`."""
    return [
        {
            "n": one.built["latent_steps"],
            "n_sup": one.n_sup,
            "accuracy": done[name]["accuracy"],
            "parameters": done[name]["parameters"],
            "train_seconds": done[name]["history"]["seconds"],
            "images_per_second": done[name]["history"]["images_per_second"],
        }
        for name, one in runs.items()
        if name in done
    ]


def cell_name(cell: Cell) -> str:
    """`n3_n_sup1`, the folder of a cell."""
    return "_".join(f"{key}{value}" for key, value in cell.items())
