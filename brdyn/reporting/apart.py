"""What is different from untrained twins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from brdyn.measures.dynamics import Dynamics
from brdyn.measures.null import BesideTwins
from brdyn.reporting.finding import ALPHA, MANY, UNCLEAR, YES, Finding


def beside(results: Sequence[BesideTwins]) -> Iterator[tuple[str, float, np.ndarray]]:
    """Each headline of the results: its words, its value, and those of the twins."""
    for result in results:
        for name, (value, twins) in result.beside().items():
            if np.isfinite(value) and np.isfinite(twins).all():
                yield name, value, twins


def of_twins(results: Sequence[BesideTwins]) -> Finding | None:
    """Whether a model lies outside all its twins in more numbers than any of them does outside all others."""
    rows = list(beside(results))
    if not rows:
        return None
    twins = len(rows[0][2])
    apart = sorted(
        ((_apart(value, of), name, value, of) for name, value, of in rows),
        key=lambda row: -row[0],
    )
    outside = [row for row in apart if row[0] > 0]
    own, *others = _extremes(np.array([[value, *of] for _, value, of in rows]))
    p = (1 + sum(other >= own for other in others)) / (twins + 1)
    if twins == 1:
        said = f"{len(outside)} of {len(rows)} numbers differ from the one twin's"
    else:
        said = (
            f"{len(outside)} of {len(rows)} numbers lie outside all {twins} twins, and {max(others)} at most of a twin "
            f"outside all other networks: p = {p:.2g}"
        )
    if outside:
        said += "; farthest: " + "; ".join(
            f"{name} {value:.3g}, untrained {of.mean():.3g}" for _, name, value, of in outside[:2]
        )
    if twins == 1:
        said += " (one twin shows no spread)"
    answer = YES if p <= ALPHA else UNCLEAR
    change = "more twins" + (f": {MANY} are the fewest for p = .05" if twins < MANY else "")
    short = "beside one twin" if twins == 1 else f"{len(outside)} of {len(rows)} outside"
    return Finding("twins", answer, short, said, change)


def _extremes(values: np.ndarray) -> np.ndarray:
    """In how many rows each column is alone the largest or the smallest, which is outside all others.

    Networks that are drawn alike can trade places, however their numbers depend on each other: the count of one of them
    is above those of all others by a chance of one in as many as there are.

    Parameters
    ----------
    values : ndarray, shape (numbers, networks)

    Returns
    -------
    ndarray, shape (networks,)
    """
    alone = np.zeros(values.shape, bool)
    for ends in (values.max(1, keepdims=True), values.min(1, keepdims=True)):
        there = values == ends
        alone |= there & (there.sum(1, keepdims=True) == 1)
    return alone.sum(0)


def _apart(value: float, twins: np.ndarray) -> float:
    """How far a number lies outside the twins, over their range or size; 0 among them."""
    gap = max(value - twins.max(), twins.min() - value, 0.0)
    return gap / max(float(np.ptp(twins)), float(np.abs(twins).mean()), 1e-12)


def of_one_twin(dynamics: Dynamics, twin: Dynamics | None) -> Finding | None:
    """Beside one untrained network of the report."""
    if twin is None:
        return None
    own, other = (one.headlines(one.compared()) for one in (dynamics, twin))
    rows = [(name, value, other[name]) for name, value in own.items() if np.isfinite(other.get(name, np.nan))]
    rows = sorted(rows, key=lambda row: -abs(row[1] - row[2]) / max(abs(row[2]), 1e-12))[:3]
    said = "beside one untrained twin: " + "; ".join(
        f"{name} {value:.3g}, untrained {of:.3g}" for name, value, of in rows
    )
    return Finding("twins", UNCLEAR, "beside one twin", said + " (one twin shows no spread)", "`null=19`: more twins")
