"""Whether one block does the work of a phase: a Raptor that follows the model, by a block for each of its phases."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from brdyn.phases import Phases
from brdyn.raptor import Evaluation
from brdyn.raptor.baselines import BASELINES
from brdyn.raptor.fidelity import MODES
from brdyn.raptor.model import spans
from brdyn.reporting.finding import FAITHFUL, UNCLEAR, YES, Finding, of_row
from brdyn.words import counted

AFFINE, MEAN_UPDATE = "affine", "mean_update"
LONGER = "a longer fit, which can only raise R²; random partitions that do as well speak against these phases"


def accepted(phases: Phases | None) -> tuple[int, ...]:
    """The boundaries that the test accepts; empty where it accepts none, or there was no test."""
    return () if phases is None or phases.evidence is None else phases.evidence.layers


def shown_instead(phases: Phases) -> int | None:
    """How many phases the test accepts, where these are others; None where it accepts these, or there was no test."""
    evidence = phases.evidence
    return None if evidence is None or evidence.layers == phases.boundaries else evidence.k


def of_blocks(found: Evaluation, phases: Phases | None) -> Finding:
    """Whether a Raptor follows the model better than a map could, with blocks that are those of its phases, if any."""
    curve = found.fidelity.curve("r2")
    least, layer = float(curve.min()), int(curve.idxmin())
    blocks = f"{counted(len(set(found.assignment)), 'block')} for {counted(len(found.assignment), 'layer')}"
    seen = f"{blocks} ({_named(found.assignment)}): R² {least:.2f} at least, at layer {layer}; {_over_a_map(found)}"
    doubt = _doubt(found, least, accepted(phases))
    if doubt is None:
        said = f"the Raptor goes its own way faithfully: {seen}"
        return Finding("block", YES, f"{blocks}, R² ≥ {least:.2f}", said, LONGER)
    short, said, change = doubt
    return Finding("block", UNCLEAR, short, f"{said}: {seen}", change)


def _doubt(found: Evaluation, least: float, ends: Sequence[int]) -> tuple[str, str, str] | None:
    """Why it is not shown: in a few words, in a sentence, and what would change it; None where it is."""
    skill = _skill(found, AFFINE)
    if least < FAITHFUL:
        return f"R² down to {least:.2f}", "this Raptor does not follow the model", LONGER
    if len(set(found.assignment)) == len(found.assignment):
        return (
            "a block for each layer",
            "that each layer has a block of its own proves nothing",
            "fewer blocks",
        )
    if skill is None:
        change = f"images and memory enough to fit {BASELINES[AFFINE]} for each layer"
        return "no map to compare with", "it is faithful, but a linear map may be too", change
    if skill["mean"] <= 0:
        return (
            "so can a linear map",
            "it is faithful, but one affine map is too, so that no block was needed",
            LONGER,
        )
    if skill["low"] <= 0:
        return (
            "not told from a linear map",
            "it is faithful, but perhaps no more than one affine map",
            "more images",
        )
    if ends and not _are_phases(found.assignment, ends):
        change = f"a Raptor of the phases: `brdyn raptor-fit` with `boundaries={','.join(map(str, ends))}`"
        return (
            "blocks of other layers",
            f"it is faithful, but with other blocks than the {len(ends) + 1} phases",
            change,
        )
    return None


def _are_phases(assignment: Sequence[int], ends: Sequence[int]) -> bool:
    """Whether each phase has a block of its own."""
    runs = spans(assignment)
    return [one.end for one in runs[:-1]] == list(ends) and len(set(assignment)) == len(runs)


def _named(assignment: Sequence[int]) -> str:
    """The layers of each block: `1-3, 7; 4-6`."""
    layers: dict[int, list[str]] = {}
    for one in spans(assignment):
        first = one.start + 1
        layers.setdefault(one.block, []).append(f"{first}-{one.end}" if one.end > first else f"{first}")
    return "; ".join(map(", ".join, layers.values()))


def _skill(found: Evaluation, over: str) -> pd.Series | None:
    """Of all tokens at the last layer; None where it is not known."""
    table = found.fidelity.table
    rows = table[
        (table["mode"] == MODES[0])
        & (table["statistic"] == f"skill_{over}")
        & (table["group"] == "all")
        & (table["layer"] == len(found.assignment))
    ].dropna(subset="mean")
    return rows.iloc[0] if len(rows) else None


def _over_a_map(found: Evaluation) -> str:
    """The skill over one affine map for each layer; or why there is none, and the skill over the mean update."""
    skill, mean_update = (_skill(found, over) for over in (AFFINE, MEAN_UPDATE))
    if skill is not None:
        return f"skill over one affine map for each layer {of_row(skill)} at the last"
    baselines = found.fidelity.baselines
    why = "no baseline was measured" if baselines is None else baselines.left_out or "too few images"
    over = "" if mean_update is None else f"; over the mean update {of_row(mean_update)} at the last"
    return f"skill over an affine map is not known ({why}){over}"
