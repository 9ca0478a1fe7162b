"""The numbers of a report's charts, row by row: curves over depth of every model, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from brdyn.interventions import Repair, Surgery
from brdyn.measures.dynamics import Dynamics
from brdyn.probes import LayerProbe
from brdyn.raptor import Evaluation
from brdyn.reporting.found import Found
from brdyn.reporting.reading import linear_rows

Rows = list[dict[str, Any]]


def motion_rows(found: Sequence[Found], statistic: str, section: str = "dynamics") -> Rows:
    """A curve of dynamics of each model.

    Parameters
    ----------
    found : sequence of Found
    statistic : str
    section : {"dynamics", "spectra"}
    """
    rows: Rows = []
    for one in found:
        dynamics = one.results.get(section)
        if isinstance(dynamics, Dynamics):
            table = dynamics.table[dynamics.table["statistic"] == statistic]
            rows += _rows(one.label, table, lambda row: int(row["layer"]), dynamics.phases.layers)
    return rows


def growth_rows(found: Sequence[Found]) -> Rows:
    """By how much noise grows a layer, against the state that gets it, on the tokens that get it."""
    rows: Rows = []
    for one in found:
        repair = one.results.get("perturb")
        if isinstance(repair, Repair) and len(repair.growth):
            growth = repair.growth
            own = growth[(growth["eps"] == growth["eps"].max()) & (growth["target"] == growth["group"])]
            rows += _rows(one.label, own, lambda row: int(row["start"]), repair.phases.layers)
    return rows


def deletion_rows(found: Sequence[Found]) -> Rows:
    """What leaving each block out does to the representation."""
    rows: Rows = []
    for one in found:
        surgery = one.results.get("interventions")
        if isinstance(surgery, Surgery):
            table = surgery.table.query("kind == 'delete' and measure == 'relative_error'")
            table = table.assign(group=table["readout"])
            rows += _rows(one.label, table, lambda row: row["layers"][0], surgery.layers)
    return rows


def reading_rows(found: Sequence[Found]) -> Rows:
    """How many classes a linear probe reads right from each layer."""
    probes = {one.label: one.results.get("probe") for one in found}
    return [row for label, probe in probes.items() if isinstance(probe, LayerProbe) for row in probe_rows(label, probe)]


def probe_rows(label: str, probe: LayerProbe) -> Rows:
    """The main score of a linear head on each layer."""
    table = linear_rows(probe)
    alone = table[table["place"].str.isdecimal()].assign(group="linear probe")
    alone = alone.rename(columns={"value": "mean"})
    return _rows(label, alone, lambda row: int(row["place"]), probe.depth)


def fidelity_rows(found: Sequence[Found]) -> Rows:
    """R² of the Raptors at every layer, going their own way and step by step."""
    rows: Rows = []
    for one in found:
        evaluation = one.results.get("raptor-eval")
        if isinstance(evaluation, Evaluation):
            table = evaluation.fidelity.table.query("statistic == 'r2' and group == 'all'")
            table = table.assign(group=table["mode"])
            rows += _rows(one.label, table, lambda row: int(row["layer"]), len(evaluation.assignment))
    return rows


def stretch_rows(found: Sequence[Found]) -> Rows:
    """By how much each block stretches a small change, and the tokens themselves."""
    curves = {"leading_growth": "a small change", "norm_growth": "norm of tokens"}
    return [
        {**row, "group": words}
        for statistic, words in curves.items()
        for row in motion_rows(found, statistic, "spectra")
    ]


def beyond_rows(found: Sequence[Found]) -> Rows:
    """How far a Raptor's block moves a state, in its phase and past it, for a logarithmic axis.

    Places are lengths of the phase.
    """
    rows: Rows = []
    for one in found:
        evaluation = one.results.get("raptor-eval")
        past = evaluation.beyond if isinstance(evaluation, Evaluation) else None
        if past is None:
            continue
        short = [name.partition(",")[0] for name in past.lengths]
        for name, group, length in zip(past.lengths, short, past.lengths.values(), strict=True):
            words = name if short.count(group) > 1 else group  # a block of several spans
            steps = past.curve(name, "step").reset_index().assign(group=words)
            steps = steps[steps["mean"] > 0].assign(low=lambda table: table["low"].where(table["low"] > 0))
            placed = _rows(one.label, steps, lambda row: int(row["application"]), 0)
            rows += [{**row, "depth": round(row["layer"] / length, 4)} for row in placed]
    return rows


def _rows(label: str, table: pd.DataFrame, place: Any, layers: int) -> Rows:
    """Rows of :func:`curve_chart`, without those that have no mean; `depth` is relative where models differ."""
    rows = []
    for _, row in table.iterrows():
        if np.isfinite(row["mean"]):
            values = {name: number(row[name]) for name in ("mean", "low", "high")}
            layer = place(row)
            rows.append(
                {
                    "model": label,
                    "group": row["group"],
                    "layer": layer,
                    "depth": layer,
                    "of": layers,
                    **values,
                }
            )
    return rows


def on_one_depth(rows: Rows) -> tuple[Rows, str]:
    """Rows of models of different depth over relative depth, in percent; and what to call the axis."""
    if len({row["of"] for row in rows}) < 2:
        return rows, ""
    return [{**row, "depth": round(100 * row["layer"] / row["of"], 2)} for row in rows], "depth (% of its blocks)"


def number(value: float) -> float | None:
    """Short enough for a page; None where there is none."""
    return float(f"{value:.5g}") if np.isfinite(value) else None
