"""What perturbation repair finds: how angles to the clean states grow or shrink."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pandas as pd

from brdyn.measures.null import BesideTwins, Null, Tables
from brdyn.phases import Phases
from brdyn.store import ROW, records

STATISTICS = ("mean", "low", "high", "sd", "n_images")


class Run(NamedTuple):
    """One perturbed run: the state it starts from, the size of the noise, and the tokens that get it."""

    start: int
    eps: float
    target: str


GROWTH_COLUMNS = [*Run._fields, "group", *STATISTICS, "half_repair"]
START = {"start": int, "eps": float, "target": str, "group": str}
ANGLES, GROWTH = "perturb", "growth"  # tables
ANGLE_COLUMNS = (*Run._fields, "group", "perturbed", "layer", *STATISTICS)


@dataclass(frozen=True, eq=False, repr=False)
class Repair(BesideTwins):
    """How angles to the clean states grow or shrink.

    Attributes
    ----------
    angles : DataFrame
        One row per `start` (perturbed state, 0..L), `eps`, `target` (perturbed tokens), `group` (observed tokens),
        `perturbed` (whether the group is among the perturbed tokens) and `layer` (start..L): mean angle to the clean
        state in radians, its 95 % interval over images, `sd`, `n_images`.
    growth : DataFrame
        One row per start below L, eps, target and perturbed group: the finite-time growth rate
        `log(angle_L / angle_l) / (L - l)` per layer, mean over images with interval (where neither angle is 0); and
        `half_repair`, the number of layers after which the mean angle has fallen to half (NaN: it never does).
    phases : Phases
        Given, or found in the same pass.
    null : Null or None
        The same of untrained twins, where :func:`brdyn.with_null` measured them.

    Examples
    --------
    >>> repair = brdyn.perturbation_repair(model, images, eps=[0.2], starts=[0, 6])
    >>> repair.final("cls", "cls", eps=0.2).shape  # noise on cls at layers 0 and 6, seen on cls at the last layer
    (2,)
    >>> sorted(set(repair.growth["target"]))
    ['all', 'cls', 'patches']
    """

    FILE: ClassVar[str] = "perturb.json"
    SHAPE: ClassVar[Mapping[str, Any]] = {
        "angles": [{**START, "perturbed": bool, "layer": int, **ROW}],
        "growth": [{**START, **ROW, "half_repair": (float, None)}],
        "phases": dict,
        **BesideTwins.NULL_SHAPE,
    }

    angles: pd.DataFrame
    growth: pd.DataFrame
    phases: Phases

    def content(self) -> dict[str, Any]:
        """Both tables, and the phases."""
        return {
            "angles": records(self.angles),
            "growth": records(self.growth),
            "phases": self.phases.to_dict(),
            **self.null_content(),
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """Both tables, and those of twins."""
        return {"perturb.parquet": self.angles, "growth.parquet": self.growth, **self.null_tables()}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from a perturb.json."""
        growth = pd.DataFrame(content["growth"], columns=GROWTH_COLUMNS)
        return cls(
            pd.DataFrame(content["angles"], columns=list(cls.SHAPE["angles"][0])),
            growth.astype({"half_repair": float, **dict.fromkeys(STATISTICS[:-1], float)}),
            Phases.from_dict(content["phases"]),
            null=Null.read(content, folder, {ANGLES: ANGLE_COLUMNS, GROWTH: GROWTH_COLUMNS}),
        )

    def compared(self) -> dict[str, pd.DataFrame]:
        """Both tables."""
        return {ANGLES: self.angles, GROWTH: self.growth}

    def of_tables(self, tables: Tables) -> Self:
        """Both tables of a twin."""
        return replace(self, angles=tables[ANGLES], growth=tables[GROWTH], null=None)

    def headlines(self, tables: Tables) -> dict[str, float]:
        """Of the largest noise on each target, what is left on it of shallow and of deep noise, and their ratio."""
        return headlines(tables[ANGLES])

    def lines(self) -> list[str]:
        """Phases, and where each noise ends."""
        lines = [self.phases.describe()]
        for (eps, target), rows in self.angles.groupby(["eps", "target"], sort=False):
            lines += ["", f"noise of {eps:g} on {target}: angle at the last layer (radians)"]
            last = rows[rows["layer"] == rows["layer"].max()]
            for group, curve in last.groupby("group", sort=False):
                ordered = curve.sort_values("start")
                worst = ordered.loc[ordered["mean"].idxmax()]
                growth = self.growth.query("eps == @eps and target == @target and group == @group")["mean"]
                rate = f"; grows by {growth.mean():+.2f} per layer on average" if len(growth) else ""
                lines.append(
                    f"  {group}: {ordered['mean'].iloc[0]:.4f} from noise at layer {ordered['start'].iloc[0]}, "
                    f"{ordered['mean'].iloc[-1]:.4f} from layer {ordered['start'].iloc[-1]}, most "
                    f"({worst['mean']:.4f}) from layer {worst['start']}{rate}"
                )
        return [*lines, "", *self.null_lines()]

    def brief(self) -> str:
        """Which noise, on what."""
        sizes = ", ".join(f"{eps:g}" for eps in dict.fromkeys(self.angles["eps"]))
        return f"noise of {sizes} on {', '.join(dict.fromkeys(self.angles['target']))}; {self.phases.layers} layers"

    def final(self, target: str, group: str, eps: float) -> np.ndarray:
        """Mean angle at layer L for every start layer, in radians."""
        rows = self.angles.query("target == @target and group == @group and eps == @eps")
        return rows[rows["layer"] == self.angles["layer"].max()].sort_values("start")["mean"].to_numpy()


def shallow_and_deep(final: np.ndarray) -> tuple[float, float]:
    """Mean angles at the last layer after noise on the first third of the starts, and on the last third.

    Parameters
    ----------
    final : ndarray
        Of each start in order, without the last state, whose noise goes through no block.

    Examples
    --------
    >>> from brdyn.interventions.repair_result import shallow_and_deep
    >>> shallow_and_deep(np.array([1.0, 2.0, 4.0]))
    (1.0, 4.0)
    """
    third = max(1, len(final) // 3)
    return float(final[:third].mean()), float(final[-third:].mean())


def headlines(angles: pd.DataFrame) -> dict[str, float]:
    """Numbers to tell beside those of other networks, by what they are."""
    found = {}
    last, largest = angles["layer"].max(), angles["eps"].max()
    rows = angles[(angles["layer"] == last) & (angles["start"] < last) & (angles["eps"] == largest)]
    for (target, group), part in rows[rows["perturbed"]].groupby(["target", "group"], sort=False):
        shallow, deep = shallow_and_deep(part.sort_values("start")["mean"].to_numpy())
        what = f"{group}, noise of {largest:g} on {target}: angle at the last layer (radians)"
        found[f"{what} from shallow noise"], found[f"{what} from deep noise"] = shallow, deep
        if shallow > 0:
            found[f"{group}, noise of {largest:g} on {target}: deep over shallow"] = deep / shallow
    return found
