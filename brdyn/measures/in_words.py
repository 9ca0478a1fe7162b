"""What curves over depth say, in words and in a small table. States are 0 to L, updates 1 to L, as blocks are."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from brdyn.measures.intervals import told_apart
from brdyn.measures.readout import AGREEMENT, DIVERGENCE
from brdyn.measures.readout import GROUP as HEAD
from brdyn.words import counted

if TYPE_CHECKING:
    from brdyn.measures.basins import Basins
    from brdyn.measures.found_modes import Modes
    from brdyn.phases import Phases

ZERO_AT_ENDS = ("estimation_mean", "estimation_variance")  # of phases
WITHIN = 0.5  # cosine of 60 degrees


def curve(table: pd.DataFrame, statistic: str, group: str) -> np.ndarray:
    """Mean of a statistic over depth, from a tidy table."""
    rows = table[(table["statistic"] == statistic) & (table["group"] == group)]
    return rows.sort_values("layer")["mean"].to_numpy()


def place(layer: int, first: int, last: int, depth: int, made: str = "update") -> str:
    """A layer of the table in words, by where the curve it is of begins and ends, and what it is of past state 0.

    >>> from brdyn.measures.in_words import place
    >>> place(0, 0, 12, depth=12), place(1, 1, 12, depth=12), place(1, 1, 11, depth=12), place(1, 1, 12, 12, "block")
    ('state 0', 'update 1', 'updates 1 to 2', 'block 1')
    """
    if first == 0:
        return f"state {layer}"
    return f"{made} {layer}" if last == depth else f"{made}s {layer} to {layer + 1}"


def half_depth(blocks: int) -> int:
    """The state at half depth: after half of the blocks, of an odd number after the smaller half.

    >>> from brdyn.measures.in_words import half_depth
    >>> half_depth(12), half_depth(7)
    (6, 3)
    """
    return blocks // 2


def settled(convergence: np.ndarray) -> int:
    """The state from which on the direction stays within 60 degrees of its end.

    >>> from brdyn.measures.in_words import settled
    >>> settled(np.array([0.1, 0.6, 0.4, 0.9, 1.0]))
    3
    """
    return max((state for state, value in enumerate(convergence) if not value >= WITHIN), default=-1) + 1


def motion(table: pd.DataFrame) -> str:
    """When directions are settled, and which updates turn most, in a sentence; empty where neither was measured."""
    groups = list(dict.fromkeys(table["group"]))
    curves = {name: {group: curve(table, name, group) for group in groups} for name in ("convergence", "speed")}
    settling, turning = [], []
    for group in groups:
        if len(values := curves["convergence"][group]):
            last = len(values) - 1
            state = settled(values)
            of = f"only after the last of {last} blocks" if state == last else f"from state {state} of {last}"
            settling.append(f"{group} {of}")
        if len(values := curves["speed"][group]) and np.isfinite(values).any():
            most = int(np.nanargmax(values))
            turning.append(f"{group} at update {most + 1} ({values[most]:.2f} radians)")
    parts = []
    if settling:
        parts.append(f"within 60 degrees of the final direction: {', '.join(settling)}")
    if turning:
        parts.append(f"turning fastest: {', '.join(turning)}")
    return "; ".join(parts)


def ends(table: pd.DataFrame, depth: int, silent: Collection[str] = ()) -> list[dict[str, Any]]:
    """First and last known value of every curve, the extremes, and where they are; without what is 0 by definition."""
    rows = []
    for (statistic, group), part in table.groupby(["statistic", "group"], sort=False):
        known = part.dropna(subset="mean").sort_values("layer")
        if statistic in ZERO_AT_ENDS:
            known = known[known["mean"] != 0]
        if statistic in silent or not len(known):
            continue
        where = partial(
            place, first=int(part["layer"].min()), last=int(part["layer"].max()), depth=depth,
            made="block" if statistic in ZERO_AT_ENDS else "update",
        )  # fmt: skip
        first, last = known.iloc[0], known.iloc[-1]
        least, most = (known.loc[known["mean"].agg(which)] for which in ("idxmin", "idxmax"))
        rows.append(
            {
                "statistic": str(statistic).replace("_", " "),
                "tokens": str(group),
                "first": float(first["mean"]),
                "from": where(int(first["layer"])),
                "last": float(last["mean"]),
                "to": where(int(last["layer"])),
                "least": float(least["mean"]),
                "there": where(int(least["layer"])),
                "most": float(most["mean"]),
                "at": where(int(most["layer"])),
            }
        )
    return rows


def too_few(table: pd.DataFrame, silent: Collection[str] = ()) -> Iterator[str]:
    """The curves whose extremes their intervals do not tell apart, in a line."""
    found: dict[str, list[str]] = {}
    alone = False
    for (statistic, group), part in table.groupby(["statistic", "group"], sort=False):
        if statistic in silent or len(part) < 2:
            continue
        alone |= bool(part["low"].isna().all() and part["mean"].notna().any())
        known = part.dropna(subset=["low", "high"])
        if len(known) and known["mean"].nunique() > 1 and not told_apart(known["mean"], known["low"], known["high"]):
            found.setdefault(str(statistic).replace("_", " "), []).append(str(group))
    if found:
        said = "; ".join(f"{name} of {', '.join(groups)}" for name, groups in found.items())
        yield f"too few images to tell depths apart (intervals of the largest and the least value meet): {said}"
    if alone:
        yield "one image: nothing is known of intervals"


def decision(table: pd.DataFrame, phases: Phases, mean: float, low: float, high: float) -> str:
    """From which state on the head reads the final class, in a sentence."""
    half = half_depth(phases.layers)
    agreement, divergence = (curve(table, name, HEAD)[half] for name in (AGREEMENT, DIVERGENCE))
    between = "" if np.isnan(low) else f" [{low:.1f}, {high:.1f}]"
    return (
        f"the head reads the final class from state {mean:.1f}{between} of {phases.layers} on, in the mean; at "
        f"state {half} in {agreement:.0%} of images, KL {divergence:.2f} nats from the final answer"
    )


def basins_end(table: pd.DataFrame, basins: Basins) -> str:
    """How near the images of a class end, in a sentence."""
    group = basins.projected_group
    ratio, purity = (curve(table, name, group)[-1] for name in ("basin_ratio", "knn_purity"))
    if not np.isfinite(ratio):
        return f"basins of {group} at the end: all images have one direction, so there are neither ratio nor purity"
    return (
        f"basins of {group} at the end: angle within over between classes {ratio:.2f}, purity of "
        f"{counted(basins.neighbours, 'neighbour')} {purity:.2f} (chance {basins.chance:.2f})"
    )


def linearity(phases: Phases, modes: Modes) -> list[str]:
    """How well one linear operator does over the longest phase of each group, and what needs no operator."""
    longest = modes.errors.sort_values("steps", ascending=False).iloc[0]
    rows = modes.errors.query(f"phase == {longest['phase']} and steps == {longest['steps']}")
    first, last = phases.intervals[int(longest["phase"]) - 1]
    lines = []
    for group, part in rows.groupby("group", sort=False):
        values = part.pivot(index="measure", columns="predictor", values="mean")
        lines.append(
            f"modes, layers {first}-{last}, {group}: "
            + (_centred(values, longest["steps"]) if modes.centred else _raw(values, longest["steps"]))
            + (f" ({modes.underdetermined[str(group)]})" if group in modes.underdetermined else "")
        )
    return lines


def _centred(values: pd.DataFrame, steps: int) -> str:
    share, raw = values.loc["r2"], values.loc["raw_cosine"]
    return (
        f"R² of the centred end of the phase {share['operator']:.2f} by one operator applied {steps} times, "
        f"{share['endpoint']:.2f} by the best linear map, {share['identity']:.2f} by the identity, 0 by the mean state "
        f"(cosines not centred: {raw['operator']:.3f}, {raw['endpoint']:.3f}, {raw['identity']:.3f}, {raw['mean']:.3f})"
    )


def _raw(values: pd.DataFrame, steps: int) -> str:
    """Of an earlier version."""
    raw = values.loc["cosine"]
    return (
        f"cosine to the end of the phase, not centred, {raw['operator']:.2f} by one operator applied {steps} times, "
        f"{raw['endpoint']:.2f} by the best linear map, {raw['identity']:.2f} by the identity"
    )
