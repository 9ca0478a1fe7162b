"""What is different from untrained twins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from brdyn.measures.dynamics import Dynamics
from brdyn.measures.null import BesideTwins
from brdyn.reporting.finding import MANY, UNCLEAR, YES, Finding


def beside(results: Sequence[BesideTwins]) -> Iterator[tuple[str, float, np.ndarray]]:
    """Each headline of the results: its words, its value, and those of the twins."""
    for result in results:
        for name, (value, twins) in result.beside().items():
            if np.isfinite(value) and np.isfinite(twins).all():
                yield name, value, twins


def of_twins(results: Sequence[BesideTwins]) -> Finding | None:
    """What lies outside all the twins."""
    rows = list(beside(results))
    if not rows:
        return None
    count = len(rows[0][2])
    apart = sorted(
        ((_apart(value, twins), name, value, twins) for name, value, twins in rows),
        key=lambda row: -row[0],
    )
    outside = [row for row in apart if row[0] > 0]
    p = 1 / (count + 1)
    chance = 2 * p * len(rows)  # either side
    said = f"{len(outside)} of {len(rows)} numbers differ from the one twin's"
    if count > 1:
        said = f"{len(outside)} of {len(rows)} numbers lie outside all {count} twins"
        said += f" (about {min(chance, len(rows)):.0f} would by chance)"
    if outside:
        said += "; farthest: " + "; ".join(
            f"{name} {value:.3g}, untrained {twins.mean():.3g}" for _, name, value, twins in outside[:2]
        )
    if count == 1:
        said += " (one twin shows no spread)"
    many = count >= MANY
    answer = YES if many and len(outside) > chance else UNCLEAR
    change = "more twins: " + ("each narrows the chance" if many else f"{MANY} are the fewest for p = .05")
    short = "beside one twin" if count == 1 else f"{len(outside)} of {len(rows)} outside"
    return Finding("twins", answer, short, said, change)


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
    return Finding(
        "twins", UNCLEAR, "beside one twin", said + " (one twin shows no spread)", "`null=19`: more twins"
    )
