"""Are there phases beyond a smooth drift, and how many? A test on the steps between layers (method notes, section 9).

Layers are the units: a network has L of them, however many images are averaged. The null is a drift whose steps change
smoothly through depth, with a residual stream that grows. A boundary is a step that is too large for that trend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from brdyn.arguments import checked
from brdyn.compared import Compared
from brdyn.errors import UsageError
from brdyn.phases.matrices import differ, of_layers
from brdyn.words import are

ALPHA = 0.05
FEWEST_LAYERS = 7  # six leave one degree of freedom to the trend of the other steps
BEYOND_NOISE = 2  # times the most negative step
NEIGHBOURS = (1, 2)
FLOOR_OF_MEAN, FLOOR_OF_MEDIAN = 1e-3, 0.05
LEAST_SPREAD = 0.1
LEAST_RATIO = 1.5
COEFFICIENTS = 3
DRAWS, DRAWN_BY = 20_000, 0
CALIBRATION, SIMULATED = CALIBRATIONS = ("bonferroni", "simulated")


class Boundary(NamedTuple):
    """A step between two layers, held against the trend of the others.

    Attributes
    ----------
    layer : int
        The layer (from 1) that ends a phase: the step is the one from it to the next.
    t : float
        Externally studentised residual of the log step.
    p : float
        Corrected for having looked at every step.
    ratio : float
        The step over its trend.

    Examples
    --------
    >>> from brdyn.phases import Boundary
    >>> Boundary(layer=6, t=9.3, p=0.001, ratio=10.0).layer
    6
    """

    layer: int
    t: float
    p: float
    ratio: float


@dataclass(frozen=True, eq=False, repr=False)
class Evidence(Compared):
    """What the layers say of phases.

    Attributes
    ----------
    alpha : float
        Level of the test.
    calibration : {"bonferroni", "simulated"}
    boundaries : tuple of Boundary
        Those accepted, in order of depth; empty where a smooth drift explains all steps.
    largest : Boundary or None
        The step that stands out most, accepted or not; None where there was no test.
    steps, trend, limit : ndarray, shape (L - 1,)
        Step after each layer, what the others make one expect, and from where on it would be a boundary (no boundary
        lies below it and no other step above); empty where there was no test.
    untested : str
        Why there was no test; empty where there was one.

    Examples
    --------
    >>> from brdyn.phases import phase_evidence
    >>> depth = np.array([0, 1, 2, 3, 4, 5, 15, 16, 17, 18, 19, 20])
    >>> evidence = phase_evidence(1 - np.exp(-abs(depth[:, None] - depth) / 20))
    >>> evidence.sentence().split(":")[0], evidence.largest.layer
    ('2 phases', 6)
    """

    alpha: float
    calibration: str
    boundaries: tuple[Boundary, ...]
    largest: Boundary | None
    steps: np.ndarray
    trend: np.ndarray
    limit: np.ndarray
    untested: str = ""

    @property
    def k(self) -> int:
        """The number of phases that the data support; 1 where there is no evidence of any."""
        return len(self.boundaries) + 1

    @property
    def layers(self) -> tuple[int, ...]:
        """The last layer of every phase but the last."""
        return tuple(boundary.layer for boundary in self.boundaries)

    def sentence(self) -> str:
        """The verdict in words."""
        if self.untested:
            return f"whether there are phases cannot be tested: {self.untested}"
        assert self.largest is not None
        if not self.boundaries:
            step = self.largest
            said = f"t = {step.t:.1f}, p = {_p(step.p)}"
            if step.p <= self.alpha:  # which is not why it is none
                said += f", but {step.ratio:.2f} x its trend, where {LEAST_RATIO:g} x is asked"
            return f"no phases beyond a smooth drift (largest step after layer {step.layer}, {said})"
        places = ", ".join(f"{one.layer} ({one.ratio:.1f} x its trend, p = {_p(one.p)})" for one in self.boundaries)
        return f"{self.k} phases: more than a smooth drift, with boundaries after layer {places}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "k": self.k,
            "alpha": self.alpha,
            "calibration": self.calibration,
            "boundaries": [boundary._asdict() for boundary in self.boundaries],
            "largest": self.largest._asdict() if self.largest is not None else None,
            "steps": self.steps.tolist(),
            "trend": self.trend.tolist(),
            "limit": self.limit.tolist(),
            "untested": self.untested,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evidence:
        """Read what :meth:`to_dict` wrote."""
        largest = values["largest"]
        return cls(
            alpha=values["alpha"],
            calibration=values["calibration"],
            boundaries=tuple(Boundary(**one) for one in values["boundaries"]),
            largest=Boundary(**largest) if largest is not None else None,
            steps=np.array(values["steps"]),
            trend=np.array(values["trend"]),
            limit=np.array(values["limit"]),
            untested=values["untested"],
        )


@checked
def phase_evidence(dissimilarity: np.ndarray, alpha: float = ALPHA, calibration: str = CALIBRATION) -> Evidence:
    """Test whether a network's layers fall into phases, and into how many.

    The step that exceeds its trend most is set aside, the trend fitted again, and so on for at most a third of the
    steps; all set aside up to the last one that passes are boundaries (generalised extreme studentised deviates).
    One passes where its residual exceeds the one-sided quantile and the step is at least 1.5 times its trend.

    Parameters
    ----------
    dissimilarity : ndarray, shape (L, L)
        D = 1 - S.
    alpha : float
    calibration : {"bonferroni", "simulated"}
        `bonferroni` corrects each round for the number of steps looked at (method notes, section 9). `simulated` takes
        the quantiles from drifts with rough, log-normal steps, over all rounds together: at most `alpha` of such
        drifts are then called phases, at a little less power.

    Returns
    -------
    Evidence

    Raises
    ------
    UsageError
        If alpha is not between 0 and 1, or there is no such calibration.

    Examples
    --------
    >>> from brdyn.phases import phase_evidence
    >>> depth = np.array([0, 1, 2, 3, 4, 5, 15, 16, 17, 18, 19, 20])
    >>> evidence = phase_evidence(1 - np.exp(-abs(depth[:, None] - depth) / 20))
    >>> evidence.k, evidence.layers
    (2, (6,))
    """
    check_test(alpha, calibration)
    dissimilarity = of_layers(dissimilarity, "dissimilarity")
    layers = len(dissimilarity)
    untested = ""
    if layers < FEWEST_LAYERS:
        untested = f"{are(layers, 'layer')} too few (at least {FEWEST_LAYERS} are needed)"
    elif not differ(dissimilarity):
        untested = "the layers do not differ"
    if untested:
        nothing = np.empty(0)
        return Evidence(alpha, calibration, (), None, nothing, nothing, nothing, untested)
    steps = layer_steps(dissimilarity)
    rounds = _set_aside(np.log(steps))
    p = _bonferroni(rounds, layers) if calibration == CALIBRATION else _simulated(rounds, layers)
    passes = (p <= alpha) & (np.array([one.ratio for one in rounds]) >= LEAST_RATIO)
    accepted = int(np.flatnonzero(passes).max(initial=-1)) + 1
    # Whatever is set aside before a step that passes is a boundary too: its p is at most that step's.
    lowest = np.minimum(p, np.minimum.accumulate(np.where(passes, p, 1)[::-1])[::-1])
    found = zip(rounds, lowest, strict=True)
    candidates = [Boundary(one.gap + 1, one.t, float(value), one.ratio) for one, value in found]
    kept = np.setdiff1d(np.arange(layers - 1), [one.gap for one in rounds[:accepted]])
    quantile = _bonferroni_quantile if calibration == CALIBRATION else _simulated_quantile
    trend, limit = _trend_and_limit(steps, kept, quantile(alpha, len(kept), layers))
    return Evidence(alpha, calibration, tuple(sorted(candidates[:accepted])), candidates[0], steps, trend, limit)


def check_test(alpha: float, calibration: str) -> None:
    """Refuse a test that cannot be made.

    Raises
    ------
    UsageError
        If alpha is not between 0 and 1, or there is no such calibration.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha {alpha} is not between 0 and 1, as the level of a test must be")
    if calibration not in CALIBRATIONS:
        raise UsageError(f"unknown calibration {calibration!r}; choose one of {', '.join(CALIBRATIONS)}")


@checked
def layer_steps(dissimilarity: np.ndarray) -> np.ndarray:
    """The step from each layer to the next as its neighbours see it, `(L, L)` to `(L - 1,)`.

    How much farther layer l + 1 is than l from the one and two layers before, and l than l + 1 from those after: what
    is private to one layer cancels. Floored, since their logarithms are taken. Along a path no step is negative: where
    one is, steps are that large by noise alone, and none below twice that counts for more.

    >>> from brdyn.phases import layer_steps
    >>> depth = np.array([0, 1, 2, 5, 6, 7])
    >>> layer_steps(abs(depth[:, None] - depth)).tolist()
    [1.0, 1.0, 3.0, 1.0, 1.0]
    """
    dissimilarity = of_layers(dissimilarity, "dissimilarity")
    layers = len(dissimilarity)
    steps = np.empty(layers - 1)
    for gap in range(layers - 1):
        seen = [
            dissimilarity[other, far] - dissimilarity[other, near]
            for width in NEIGHBOURS
            for other, near, far in ((gap - width, gap, gap + 1), (gap + 1 + width, gap + 1, gap))
            if 0 <= other < layers
        ]
        steps[gap] = np.mean(seen)
    return np.maximum(steps, max(_floor(dissimilarity), -BEYOND_NOISE * steps.min()))


def _floor(dissimilarity: np.ndarray) -> float:
    pairs = dissimilarity[np.triu_indices(len(dissimilarity), k=1)]
    return float(max(FLOOR_OF_MEAN * pairs.mean(), FLOOR_OF_MEDIAN * np.median(np.diagonal(dissimilarity, offset=1))))


class _Round(NamedTuple):
    """The step that stands out most among those that are left."""

    gap: int
    t: float
    ratio: float


def _design(gaps: int) -> np.ndarray:
    """Trend of the log steps: constant, linear, and the growth of the residual stream; shape (gaps, 3)."""
    place = np.arange(1.0, gaps + 1)
    return np.stack([np.ones(gaps), place, np.log(place)], axis=1)


def _rounds(gaps: int) -> int:
    """How many steps are set aside: a third, as long as a degree of freedom is left."""
    return min(gaps // 3, gaps - COEFFICIENTS - 1)


def _set_aside(log_steps: np.ndarray) -> list[_Round]:
    gaps = len(log_steps)
    left = np.ones((1, gaps), dtype=bool)
    found = []
    for _ in range(_rounds(gaps)):
        t, deleted = _residuals(log_steps[None], left, LEAST_SPREAD)
        gap = int(t[0].argmax())
        found.append(_Round(gap, float(t[0, gap]), float(np.exp(deleted[0, gap]))))
        left[0, gap] = False
    return found


def _residuals(log_steps: np.ndarray, left: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Externally studentised residuals, and residuals from a fit without the step itself, `(R, gaps)` each.

    Steps that are not `left` are not fitted; their studentised residual is -inf.
    """
    design, weight = _design(log_steps.shape[1]), left.astype(float)
    inverse = np.linalg.inv(np.einsum("rn,np,nq->rpq", weight, design, design))
    fitted = np.einsum("rpq,rq->rp", inverse, (weight * log_steps) @ design) @ design.T
    residual = (log_steps - fitted) * weight
    leverage = np.einsum("np,rpq,nq->rn", design, inverse, design)
    free = np.where(left, np.maximum(1 - leverage, 1e-12), 1.0)
    rest = (residual**2).sum(1, keepdims=True) - residual**2 / free
    freedom = left.sum(1, keepdims=True) - COEFFICIENTS - 1
    spread = np.maximum(np.sqrt(np.maximum(rest, 0) / freedom), least)
    studentised = np.where(left, residual / (spread * np.sqrt(free)), -np.inf)
    return studentised, residual / free


def _bonferroni(rounds: list[_Round], layers: int) -> np.ndarray:
    """One-sided p of each round, times the number of steps that were left in it."""
    from scipy import stats

    left = layers - 1 - np.arange(len(rounds))
    t = np.array([one.t for one in rounds])
    return np.minimum(1.0, left * stats.t.sf(t, left - COEFFICIENTS - 1))


def _simulated(rounds: list[_Round], layers: int) -> np.ndarray:
    """p of each round under rough drifts, corrected for there being several rounds."""
    by_round, smallest = _rough_drifts(layers - 1)
    alone = np.array([_share_above(by_round[:, number], one.t) for number, one in enumerate(rounds)])
    return (np.searchsorted(smallest, alone, side="right") + 1) / (len(smallest) + 1)  # of draws and itself


def _bonferroni_quantile(alpha: float, left: int, _: int) -> float:
    """The residual beyond which the largest of the steps that are left passes."""
    from scipy import stats

    return float(stats.t.isf(alpha / left, left - COEFFICIENTS))


def _simulated_quantile(alpha: float, left: int, layers: int) -> float:
    """The same by :func:`_simulated`."""
    by_round, smallest = _rough_drifts(layers - 1)
    alone = smallest[max(0, int(alpha * (len(smallest) + 1)) - 1)]
    ordered = by_round[:, min(layers - 1 - left, by_round.shape[1] - 1)]
    return float(ordered[min(int((1 - alone) * len(ordered)), len(ordered) - 1)])


@lru_cache(maxsize=16)
def _rough_drifts(gaps: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted largest residuals of every round, `(R, rounds)`, and the sorted smallest p over rounds, `(R,)`."""
    draws = np.random.default_rng(DRAWN_BY).normal(size=(DRAWS, gaps))
    left = np.ones(draws.shape, dtype=bool)
    largest = np.empty((DRAWS, _rounds(gaps)))
    for number in range(largest.shape[1]):
        t, _ = _residuals(draws, left, 0.0)
        places = t.argmax(1)
        largest[:, number] = t[np.arange(DRAWS), places]
        left[np.arange(DRAWS), places] = False
    ordered = np.sort(largest, axis=0)
    alone = np.stack([_share_above(*both) for both in zip(ordered.T, largest.T, strict=True)])
    return ordered, np.sort(alone.min(0))


def _share_above(ordered: np.ndarray, values: np.ndarray | float) -> np.ndarray:
    """Share of the sorted draws that are at least as large."""
    return 1 - np.searchsorted(ordered, values, side="left") / len(ordered)


def _trend_and_limit(steps: np.ndarray, kept: np.ndarray, quantile: float) -> tuple[np.ndarray, np.ndarray]:
    """The trend through the steps that are no boundaries, and the step that would pass the test at each gap.

    A boundary may be one by a later step alone, and a step none by its ratio alone: the limit is moved to such steps.
    """
    design, log_steps = _design(len(steps)), np.log(steps)
    fitted = design[kept]
    inverse = np.linalg.inv(fitted.T @ fitted)
    trend = design @ (inverse @ fitted.T @ log_steps[kept])
    freedom = len(kept) - COEFFICIENTS
    spread = max(float(np.sqrt(((log_steps - trend)[kept] ** 2).sum() / freedom)), LEAST_SPREAD)
    reach = quantile * spread * np.sqrt(1 + np.einsum("np,pq,nq->n", design, inverse, design))
    limit = np.exp(trend) * np.maximum(LEAST_RATIO, np.exp(reach))
    none = np.isin(np.arange(len(steps)), kept)
    return np.exp(trend), np.where(none, np.maximum(limit, steps), np.minimum(limit, steps))


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 0.001 else "under .001"
