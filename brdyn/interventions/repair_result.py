"""What perturbation repair finds: how angles to the clean states grow or shrink."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pandas as pd

from brdyn.measures.null import BesideTwins, Null, Tables
from brdyn.phases import Phases
from brdyn.store import ROW, from_records, records, rows_of

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
        `half_repair`, the number of layers after which the mean angle has fallen to half (NaN: it never does). In half
        precision all NaN where the angle at the last layer is less than three times what rounding leaves there.
    phases : Phases
        Given, or found in the same pass.
    rounding : mapping of str to float
        In half precision, by group, the largest mean angle that noise of one rounding step leaves at the last layer.
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
        "rounding?": {str: float},
        **BesideTwins.NULL_SHAPE,
    }

    angles: pd.DataFrame
    growth: pd.DataFrame
    phases: Phases
    rounding: Mapping[str, float] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """Both tables, and the phases."""
        return {
            "angles": records(self.angles),
            "growth": records(self.growth),
            "phases": self.phases.to_dict(),
            **({"rounding": dict(self.rounding)} if self.rounding else {}),
            **self.null_content(),
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """Both tables, and those of twins."""
        return {"perturb.parquet": self.angles, "growth.parquet": self.growth, **self.null_tables()}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from a perturb.json."""
        growth = from_records(content["growth"], GROWTH_COLUMNS)
        return cls(
            from_records(content["angles"], cls.SHAPE["angles"][0]),
            growth.astype({"half_repair": float}),
            Phases.from_dict(content["phases"]),
            content.get("rounding", {}),
            null=Null.read(content, folder, {ANGLES: ANGLE_COLUMNS, GROWTH: GROWTH_COLUMNS}),
        )

    def compared(self) -> dict[str, pd.DataFrame]:
        """Both tables."""
        return {ANGLES: self.angles, GROWTH: self.growth}

    def of_tables(self, tables: Tables) -> Self:
        """Both tables of a twin."""
        return replace(self, angles=tables[ANGLES], growth=tables[GROWTH], rounding={}, null=None)

    def headlines(self, tables: Tables) -> dict[str, float]:
        """Of the largest noise on each target, what is left on it of shallow and of deep noise, and their ratio."""
        return headlines(tables[ANGLES])

    def answer(self) -> str:
        """Whether the largest noise shrinks on its way to the last state, from how many states."""
        rows = self._met()
        if not len(rows):
            return "no noise goes through a block: there is nothing to repair"
        largest = rows[rows["eps"] == rows["eps"].max()]
        own = largest[largest["target"] == largest["group"]]
        told = own if len(own) else largest
        said = [_told(str(group), part) for group, part in told.groupby("group", sort=False)]
        of = "" if len(own) else f" on {', '.join(dict.fromkeys(told['target']))}"
        return f"noise of {largest['eps'].iloc[0]:g}{of} (relative to the token): {'; '.join(said)}"

    def overview(self) -> list[dict[str, Any]]:
        """What is left of noise on shallow and on deep states, and how it grows; without what is trivially 0."""
        found = []
        for (eps, target, group), rows in self._met().groupby(["eps", "target", "group"], sort=False):
            starts = rows.sort_values("start")
            left = self.final(str(target), str(group), float(eps))[: len(starts)]
            shallow, deep = shallow_and_deep(left)
            found.append(
                {
                    "noise": float(eps),
                    "on": str(target),
                    "seen on": str(group),
                    "left of shallow (radians)": shallow,
                    "of deep": deep,
                    "growth a block": float(starts["mean"].mean()),
                    "half gone after blocks": _most(starts.dropna(subset="mean")["half_repair"]),
                }
            )
        return found

    def remarks(self) -> list[str]:
        """How noise crosses to other tokens, what rounding hides, what images are too few for, phases, twins."""
        hidden = [*self._rounded(), *self._too_few()]
        return [*self._crossing(), *hidden, self.phases.describe(), *self.null_lines()]

    def _met(self) -> pd.DataFrame:
        """Growth of noise that is some, and has blocks to go through."""
        return self.growth[self.growth["eps"] > 0]

    def _crossing(self) -> Iterator[str]:
        """Where noise on one kind of tokens moves another most."""
        last, largest = self.angles["layer"].max(), self.angles["eps"].max()
        rows = self.angles[(self.angles["layer"] == last) & (self.angles["eps"] == largest)]
        rows = rows[~rows["perturbed"].astype(bool) & (rows["start"] < last) & (rows["mean"] > 0)]
        for (target, group), part in rows.groupby(["target", "group"], sort=False):
            most = part.loc[part["mean"].idxmax()]
            yield (
                f"noise of {largest:g} on {target} moves {group} by at most {most['mean']:.3g} radians at the end "
                f"(from state {most['start']})"
            )

    def _rounded(self) -> Iterator[str]:
        """What half precision cannot tell."""
        if self.rounding:
            rows = self._met()
            left = ", ".join(f"{angle:.2g} radians on {group}" for group, angle in self.rounding.items())
            yield (
                f"rounding alone leaves up to {left}: growth that ends below three times that is not told "
                f"({int(rows['mean'].isna().sum())} of {len(rows)} cases; `dtype=float32` tells it)"
            )

    def _too_few(self) -> Iterator[str]:
        rows = self._met().dropna(subset="mean")
        open_ = rows[~((rows["high"] < 0) | (rows["low"] > 0))]
        if len(open_):
            yield (
                f"too few images to tell growth from repair in {len(open_)} of {len(rows)} cases: the 95 % interval of "
                "the growth holds 0, or there is none"
            )

    def brief(self) -> str:
        """Which noise, on what."""
        sizes = ", ".join(f"{eps:g}" for eps in dict.fromkeys(self.angles["eps"]))
        return f"noise of {sizes} on {', '.join(dict.fromkeys(self.angles['target']))}; {self.phases.layers} layers"

    def final(self, target: str, group: str, eps: float) -> np.ndarray:
        """Mean angle at layer L for every start layer, in radians. Raises UsageError if there are no such runs."""
        rows = rows_of(self.angles, target=target, group=group, eps=eps)
        return rows[rows["layer"] == self.angles["layer"].max()].sort_values("start")["mean"].to_numpy()


def _told(group: str, growth: pd.DataFrame) -> str:
    """From how many states the angle shrinks or grows, by its interval, and how fast."""
    shrinks, grows = int((growth["high"] < 0).sum()), int((growth["low"] > 0).sum())
    number, rate = len(growth), float(np.expm1(growth["mean"].mean()))
    if np.isnan(rate):
        return f"{group} neither grows nor shrinks by what is known"
    if shrinks == number:
        verdict = "repaired from every state"
    elif grows == number:
        verdict = "amplified from every state"
    elif not shrinks and not grows:
        verdict = "neither growth nor repair can be told"
    else:
        counts = {
            "repaired from": shrinks,
            "amplified from": grows,
            "undecided from": number - shrinks - grows,
        }
        verdict = ", ".join(f"{what} {of} of {number} states" for what, of in counts.items() if of)
    return f"{group} {verdict} ({rate:+.0%} a block)"


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


def _most(half_repair: pd.Series) -> float:
    """After how many blocks half is gone from one state in two; NaN where it never is from most."""
    found = float(half_repair.fillna(np.inf).median())
    return found if np.isfinite(found) else np.nan
