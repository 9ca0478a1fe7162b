"""What products with the Jacobians of blocks find: Lyapunov exponents, growth by block, singular values, coupling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brdyn.checked_json import take
from brdyn.compared import Compared
from brdyn.measures.contract import COLUMNS
from brdyn.measures.coupling import PlacementTest
from brdyn.store import ROW, from_records, read_table, records, rows_of
from brdyn.words import counted, with_interval

MEANS = tuple(ROW)
EXPONENT, OF_PHASE = "exponent", "growth over the phase"
SIDES = (
    "entering",
    "leaving",
)  # right and left singular vectors: what a block answers to, and where it moves
GROWTH, RESTRICTED, SINGULAR, NORM = (
    "growth",
    "restricted singular value",
    "singular value",
    "growth of the norm",
)
SETTLED = "settled"
TOTALS = ("quantity", "index", "phase", *MEANS)
BLOCKS = ("quantity", "index", "block", *MEANS)
PAIRS = ("side", "block", "other", *MEANS)
TABLE = [{"quantity": str, "index": int, "phase": int, **ROW}]
SHAPE: dict[str, Any] = {  # in dynamics.json
    "tangents": int,
    "krylov_steps": int,
    "directions": int,
    "depth": int,
    "totals": TABLE,
    "tests": {str: (PlacementTest, None)},
}


def overall(side: str) -> str:
    """The quantity of a side that says how much layers are coupled, whatever their phases."""
    return f"coupling of {side} directions, all pairs of layers"


def within(side: str) -> str:
    """The quantity of a side that says whether layers of a phase are coupled more."""
    return f"coupling of {side} directions, within phases less across"


@dataclass(frozen=True, eq=False, repr=False)
class Spectra(Compared):
    """How the blocks stretch what enters them, along depth; see :mod:`brdyn.measures.spectra`.

    Attributes
    ----------
    totals : DataFrame
        Over depth, one row per quantity with its 95 % interval over images: `exponent`, the finite-time Lyapunov
        exponents by `index` from 1 (nats per block); `growth over the phase`, the sum of the growth over the blocks of
        `phase` (nats); and of each side the mean coupling of all pairs of layers, and that within phases less that
        across, at the same distance.
    blocks : DataFrame
        By `block` from 1: `growth`, log R_ii of each `index`; `restricted singular value`, of J_l on the transported
        vectors alone, at most the true ones; `growth of the norm` of the tokens (nats); and with Krylov steps the
        leading `singular value` of J_l, and `settled`, the mean squared cosine between the leading subspaces of all
        steps and of one step fewer.
    pairs : DataFrame
        Coupling of `block` and `other` by `side`, with Krylov steps.
    tests : dict of str to PlacementTest or None
        By side, whether other boundaries give as much.
    tangents, krylov_steps : int
        m, and the steps for singular values; 0 for none.
    directions : int
        N (D - 1), of which m are followed.
    depth : int
        L.
    """

    totals: pd.DataFrame
    blocks: pd.DataFrame
    pairs: pd.DataFrame
    tests: Mapping[str, PlacementTest | None]
    tangents: int
    krylov_steps: int
    directions: int
    depth: int

    @property
    def exponents(self) -> np.ndarray:
        """Finite-time Lyapunov exponents, mean over images, `(m,)`."""
        return self.totals.loc[self.totals["quantity"] == EXPONENT, "mean"].to_numpy(dtype=float)

    def by_block(self, quantity: str) -> np.ndarray:
        """Mean of a quantity of `blocks`, `(indices, L)`. Raises UsageError if there is no such quantity."""
        rows = rows_of(self.blocks, quantity=quantity)
        return rows.pivot(index="index", columns="block", values="mean").to_numpy(dtype=float)

    def coupling(self, side: str) -> np.ndarray:
        """Mean coupling of all pairs of layers, `(L, L)`, 1 on the diagonal. Raises UsageError if there is no such side
        (there is none without Krylov steps)."""
        matrix = np.eye(self.depth)
        rows = rows_of(self.pairs, side=side)
        first, second = rows["block"].to_numpy(int) - 1, rows["other"].to_numpy(int) - 1
        matrix[first, second] = matrix[second, first] = rows["mean"].to_numpy(float)
        return matrix

    @property
    def chance(self) -> float:
        """Coupling of subspaces that know nothing of each other."""
        return self.tangents / self.directions

    @property
    def rows(self) -> pd.DataFrame:
        """For the table of all measures: the leading growth, and what to hold it against."""
        leading = {
            GROWTH: ("leading_growth", "log growth of the leading direction (nats)"),
            NORM: ("norm_growth", "log growth of the tokens' norm (nats)"),
            SINGULAR: ("leading_singular_value", "largest singular value of the Jacobian"),
        }
        first = self.blocks[(self.blocks["index"] == 1) & self.blocks["quantity"].isin(leading)]
        named = pd.DataFrame.from_dict(leading, orient="index", columns=["statistic", "unit"])
        rows = first.join(named, on="quantity").assign(group="all", layer=first["block"])
        return rows[list(COLUMNS)].reset_index(drop=True)

    def to_dict(self) -> dict[str, Any]:
        """What is not in the tables of their own, ready for JSON."""
        return {
            "tangents": self.tangents,
            "krylov_steps": self.krylov_steps,
            "directions": self.directions,
            "depth": self.depth,
            "totals": records(self.totals),
            "tests": {side: None if test is None else asdict(test) for side, test in self.tests.items()},
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """By block, and by pairs of blocks."""
        coupling = {"coupling.parquet": self.pairs} if len(self.pairs) else {}
        return {"spectra.parquet": self.blocks, **coupling}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], table: pd.DataFrame, folder: Path) -> Spectra:
        """Back from a result of `brdyn dynamics`.

        Raises
        ------
        UsageError
            If a table is not there.
        """
        del table
        content = take(content, SHAPE, "spectra")
        coupled = bool(content["krylov_steps"]) and content["depth"] > 1
        return cls(
            totals=from_records(content["totals"], TOTALS),
            blocks=read_table(folder / "spectra.parquet", "the spectra of blocks", BLOCKS),
            pairs=read_table(folder / "coupling.parquet", "the coupling of blocks", PAIRS)
            if coupled
            else pd.DataFrame(columns=list(PAIRS)),
            tests=content["tests"],
            **{name: content[name] for name in ("tangents", "krylov_steps", "directions", "depth")},
        )

    def describe(self) -> list[str]:
        """The exponents, and whether layers of a phase act alike, in words."""
        exponents = self.exponents
        norm = float(self.by_block(NORM).mean())
        lines = [
            f"spectra: finite-time Lyapunov exponents {exponents.min():.3g} to {exponents.max():.3g} nats per block, "
            f"that of index 1 {exponents[0]:.3g} ({self.tangents} of {self.directions} directions); the tokens' norm "
            f"grows by {norm:.3g}, and what grows less turns towards it"
        ]
        for side, test in self.tests.items():
            found = [self.totals[self.totals["quantity"] == quantity] for quantity in (overall(side), within(side))]
            every, inside = (_said(rows.iloc[0]) if len(rows) else "" for rows in found)
            parts = [f"{every} over all pairs of layers (chance {self.chance:.2g})"] if every else []
            if inside and test is not None:
                parts.append(
                    f"{inside} more within phases than across at the same distance (boundaries elsewhere: p = "
                    f"{test.p_value:.3f})"
                )
            if parts:
                lines.append(f"coupling of {side} directions: {'; '.join(parts)}")
        return [*lines, self.settling] if self.krylov_steps else lines

    @property
    def settling(self) -> str:
        """How near singular vectors are to those of one Krylov step fewer, in words."""
        settled = self.by_block(SETTLED)[0]
        worst = int(np.argmin(settled))
        return (
            f"singular vectors after {counted(self.krylov_steps, 'Krylov step')}: squared cosine to those of one step "
            f"fewer {settled[worst]:.2f} or more (least at block {worst + 1}; 1 is settled)"
        )


def _said(row: pd.Series) -> str:
    return with_interval(row["mean"], row["low"], row["high"], ".3f")
