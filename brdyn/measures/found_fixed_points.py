"""What maps come to that are applied past their phases, and which of them contract, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from brdyn.compared import Compared
from brdyn.measures.fixed_points import ALL, ENDS, MOVES, RADIUS, FixedPointMetric
from brdyn.store import ROW, from_records, records, rows_of
from brdyn.words import with_interval

TOLD = {
    "limit": "come to a limit",
    "neither": "come to neither a limit nor a cycle",
    "ran_away": "run beyond all numbers",
}
CONTRACTS, EXPANDS, UNCERTAIN = "contracts", "expands", "is not shown to contract or to expand"
SHAPE: dict[str, Any] = {
    "factor": int,
    "phases": [{"name": str, "length": int}],
    "table": [{"phase": str, "statistic": str, "unit": str, "group": str, "application": int, **ROW}],
}


@dataclass(frozen=True, eq=False, repr=False)
class FixedPoints(Compared):
    """Maps that were applied `factor` times as often as their phases are long.

    Attributes
    ----------
    factor : int
    lengths : dict of str to int
        Applications in its phase, by the name of what was applied.
    table : DataFrame
        One row per `phase`, `statistic`, `unit`, token `group` (and `all`) and `application`, from 1: `mean` over
        images, its 95 % interval `low` to `high`, `sd`, `n_images`. `step`, how far an application moves a state over
        its norm; `turn`, the mean angle by which it turns a token; `distance` to the state that it ends at, over its
        norm (of a cycle, to the nearest of its states); what is read, such as `accuracy`; and once: `radius`, the
        spectral radius of the Jacobian at the end, and the shares of images that come to a `limit`, a cycle
        (`cycle_2`, …), `neither`, or that `ran_away`.

    Examples
    --------
    >>> import pandas as pd
    >>> from brdyn.measures.found_fixed_points import FixedPoints
    >>> row = {"phase": "block 1", "unit": "", "group": "all", "application": 1, "sd": 0.1, "n_images": 8}
    >>> radius = {"statistic": "radius", "mean": 0.8, "low": 0.7, "high": 0.9}
    >>> found = FixedPoints(8, {"block 1": 4}, pd.DataFrame([{**row, **radius}]))
    >>> found.verdict("block 1")
    'contracts'
    """

    factor: int
    lengths: Mapping[str, int]
    table: pd.DataFrame

    @classmethod
    def of(cls, factor: int, metrics: Mapping[str, FixedPointMetric]) -> FixedPoints:
        """What metrics found, by the names of what they follow."""
        tables = [metric.table().assign(phase=name) for name, metric in metrics.items()]
        table = pd.concat(tables, ignore_index=True)
        lengths = {name: metric.applications // factor for name, metric in metrics.items()}
        return cls(factor, lengths, table[list(SHAPE["table"][0])])

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        phases = [{"name": name, "length": length} for name, length in self.lengths.items()]
        return {"factor": self.factor, "phases": phases, "table": records(self.table)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> FixedPoints:
        """Back from :meth:`to_dict`."""
        lengths = {phase["name"]: phase["length"] for phase in content["phases"]}
        return cls(content["factor"], lengths, from_records(content["table"], SHAPE["table"][0]))

    def without(self, statistic: str) -> FixedPoints:
        """The same, but for one statistic."""
        return replace(self, table=self.table[self.table["statistic"] != statistic].reset_index(drop=True))

    @property
    def readings(self) -> tuple[str, ...]:
        """What was read after applications."""
        known = {*MOVES, *ENDS, RADIUS.name}
        return tuple(name for name in dict.fromkeys(self.table["statistic"]) if name not in known)

    def curve(self, phase: str, statistic: str, group: str = ALL) -> pd.DataFrame:
        """Rows of one statistic by the number of applications. Raises UsageError if there is no such phase or other
        name."""
        known = {"statistic": (*MOVES, *ENDS, RADIUS.name, *self.readings), "group": (ALL,)}
        return rows_of(self.table, known, phase=phase, statistic=statistic, group=group).set_index("application")

    def verdict(self, phase: str) -> str:
        """Whether it contracts where it ends: whether the interval of the spectral radius lies below 1."""
        radius = self.curve(phase, RADIUS.name)
        if radius.empty:
            return UNCERTAIN
        row = radius.iloc[0]
        return CONTRACTS if row["high"] < 1 else EXPANDS if row["low"] > 1 else UNCERTAIN

    def shares(self, phase: str) -> dict[str, float]:
        """Share of images by what they come to, in words, of what any comes to."""
        found = {}
        for name, period in ENDS.items():
            row = self.curve(phase, name)
            if len(row) and row["mean"].iloc[0] > 0:
                found[TOLD.get(name, f"come to a cycle of {period}")] = float(row["mean"].iloc[0])
        return found

    def overview(self) -> list[dict[str, Any]]:
        """A row for each phase: where it stands at its length, and at last."""
        rows = []
        for name, length in self.lengths.items():
            row: dict[str, Any] = {"applied": name, "times": self.factor * length}
            radius = self.curve(name, RADIUS.name)
            row |= {RADIUS.unit: float(radius["mean"].iloc[0]) if len(radius) else None}
            for statistic in ("step", *self.readings):
                values = self.curve(name, statistic)["mean"]
                row[f"{statistic} at {length}" if len(self.lengths) == 1 else f"{statistic} in its phase"] = (
                    float(values[length]) if length in values.index else None
                )
                row[f"{statistic} at last"] = float(values.iloc[-1]) if len(values) else None
            rows.append(row)
        return rows

    def remarks(self) -> list[str]:
        """Which contract, a line for each."""
        return [self._said(name) for name in self.lengths]

    def _said(self, name: str) -> str:
        ends = ", ".join(f"{share:.0%} of the images {words}" for words, share in self.shares(name).items())
        said = f"{name}, applied {self.factor * self.lengths[name]} times, {self.verdict(name)} where it ends"
        radius = self.curve(name, RADIUS.name)
        if len(radius):
            row = radius.iloc[0]
            said += f": spectral radius {with_interval(row['mean'], row['low'], row['high'], '.3f')}"
        steps = self.curve(name, "step")["mean"]
        if len(steps):
            inside, last = steps.get(self.lengths[name], float("nan")), steps.iloc[-1]
            said += f"; a step moves {inside:.2g} of the state's norm at the end of its phase, {last:.2g} at last"
        return f"{said}; {ends}" if ends else said
