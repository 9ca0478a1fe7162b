"""What dynamic mode decomposition finds: errors ahead, spectra and operators of every phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brdyn.checked_json import take
from brdyn.compared import Compared
from brdyn.measures.contract import COLUMNS
from brdyn.store import ROW, from_records, read_table, records
from brdyn.words import counted

PREDICTORS = ("operator", "endpoint", "identity", "mean")
SPECTRUM = ("phase", "group", "index", "real", "imaginary", "modulus")
SHAPE: dict[str, Any] = {  # in dynamics.json, whose first versions were of states that were not centred
    "errors": [
        {"phase": int, "group": str, "steps": int, "predictor": str, "measure": str, **ROW},
    ],
    "ridge": float,
    "rank": (int, None),
    "n_fitted": int,
    "n_held_out": int,
    "centred?": bool,
    "rows?": {str: int},
    "directions?": (int, None),
}


@dataclass(frozen=True, eq=False, repr=False)
class Modes(Compared):
    """One linear operator for each phase and token group.

    Attributes
    ----------
    errors : DataFrame
        One row per phase (from 1), group, `steps` ahead, predictor (`operator`, `endpoint`, `identity`, `mean`) and
        measure, over held-out images, of states without the mean of the fitted ones: `relative_error`, the norm of
        the error over that of the state, and `cosine`, averaged over tokens (0 for the mean alone), each with its
        95 % interval, `sd`, `n_images`; `raw_cosine`, of states with their mean, likewise; `r2`, 1 minus the squared
        error over the squared norm, over all images (no interval).
    spectrum : DataFrame
        Eigenvalues of each operator, largest modulus first: `phase`, `group`, `index`, `real`, `imaginary`, `modulus`.
    operators : dict of (int, str) to ndarray
        `(D, D)` by phase and group.
    ridge : float
        Over the mean eigenvalue of the second moment.
    rank : int or None
    n_fitted, n_held_out : int
        Images.
    centred : bool
        False in results of earlier versions, whose errors and cosines are of states with their mean.
    fitted_rows : dict of str to int
        Tokens that were fitted in a state, by group.
    directions : int or None
        In which the maps may act: the rank, or the width.
    """

    errors: pd.DataFrame
    spectrum: pd.DataFrame
    operators: Mapping[tuple[int, str], np.ndarray]
    ridge: float
    rank: int | None
    n_fitted: int
    n_held_out: int
    centred: bool
    fitted_rows: Mapping[str, int]
    directions: int | None

    @property
    def underdetermined(self) -> dict[str, str]:
        """Groups of which fewer tokens were fitted than a map has directions, and how many."""
        return {
            group: f"underdetermined: {counted(rows, 'row')} for {self.directions} directions"
            for group, rows in self.fitted_rows.items()
            if self.directions is not None and rows < self.directions
        }

    @property
    def rows(self) -> pd.DataFrame:
        """For the table of all measures: none, errors are not by layer."""
        return pd.DataFrame(columns=COLUMNS)

    def to_dict(self) -> dict[str, Any]:
        """Errors, the largest eigenvalues, and what is not in the tables, ready for JSON."""
        return {
            "ridge": self.ridge,
            "rank": self.rank,
            "n_fitted": self.n_fitted,
            "n_held_out": self.n_held_out,
            "centred": self.centred,
            "rows": dict(self.fitted_rows),
            "directions": self.directions,
            "errors": records(self.errors),
            "largest_eigenvalues": records(self.spectrum.query("index < 10")),
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """Errors and eigenvalues."""
        return {"modes.parquet": self.errors, "spectrum.parquet": self.spectrum}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], table: pd.DataFrame, folder: Path) -> Modes:
        """Back from a result of `brdyn dynamics`, without the operators.

        Raises
        ------
        UsageError
            If the eigenvalues are not there.
        """
        del table
        take(content, SHAPE, "modes")
        return cls(
            errors=from_records(content["errors"], SHAPE["errors"][0]),
            spectrum=read_table(folder / "spectrum.parquet", "the spectrum of modes", SPECTRUM),
            operators={},
            **{name: content[name] for name in ("ridge", "rank", "n_fitted", "n_held_out")},
            centred=content.get("centred", False),
            fitted_rows=content.get("rows", {}),
            directions=content.get("directions"),
        )
