"""Estimates with their intervals, for verdicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

RESAMPLES = 2000
ALPHA = 0.05
NORMAL = float(special.ndtri(0.975))  # standard errors in half of a 95 % interval
FEWEST = 5  # pairs for a bootstrap


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; of a test, its p-value."""

    value: float
    low: float = -np.inf
    high: float = np.inf
    p_value: float | None = None

    def say(self, form: str = "+.2f") -> str:
        interval = (
            f"[{self.low:{form}}, {self.high:{form}}]"
            if np.isfinite(self.high - self.low)
            else "(no interval)"
        )
        return f"{self.value:{form}} {interval}"

    def against(self, other: float) -> bool | None:
        """Whether the whole interval is above (True) or below (False) a number."""
        return True if self.low > other else False if self.high < other else None

    def p_above(self, other: float) -> float:
        """Two-sided p-value of being above a number: of its test, or as a normal estimate whose interval ends as this
        one does on that side. 1 where it is not above, or has no interval."""
        if not self.value > other:
            return 1.0
        if self.p_value is not None:
            return self.p_value
        half = self.value - self.low
        return float(2 * special.ndtr(-NORMAL * (self.value - other) / half)) if half else 0.0

    def less(self, other: Estimate) -> Estimate:
        """The difference of two that know nothing of each other: half the widths of their intervals add in square."""
        half = float(np.hypot((self.high - self.low) / 2, (other.high - other.low) / 2))
        value = self.value - other.value
        return Estimate(value, value - half, value + half)


def rank_correlation(
    first: ArrayLike, second: ArrayLike, within: ArrayLike | None = None, seed: int = 0
) -> Estimate:
    """Spearman's rho with a percentile bootstrap over the pairs; not a number where either does not vary.

    Of fewer than five pairs, the interval is all that rho can be. `within` has a group for each pair: ranks are
    compared less their group's mean, so that what differs between groups alone explains nothing. Pairs that are alone
    in their group then say nothing.
    """
    x, y = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    groups = np.zeros(len(x)) if within is None else np.asarray(within)
    value = float(_rho(x, y, groups))
    if np.isnan(value):
        return Estimate(np.nan, np.nan, np.nan)
    if len(x) < FEWEST:
        return Estimate(value, -1.0, 1.0)
    rows = np.random.default_rng(seed).integers(0, len(x), (RESAMPLES, len(x)))
    low, high = np.nanquantile(_rho(x[rows], y[rows], groups[rows]), [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def _rho(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Correlation of ranks, each less the mean of its group, over the last axis."""
    left = []
    for values in (x, y):
        ranks = stats.rankdata(values, axis=-1)
        for group in np.unique(groups):
            own = groups == group
            counted = np.maximum(own.sum(-1, keepdims=True), 1)
            ranks = ranks - own * (np.where(own, ranks, 0).sum(-1, keepdims=True) / counted)
        left.append(ranks)
    size = np.sqrt((left[0] ** 2).sum(-1) * (left[1] ** 2).sum(-1))
    return (left[0] * left[1]).sum(-1) / np.where(size > 0, size, np.nan)


def mean_difference(differences: ArrayLike) -> Estimate:
    """The mean of paired differences with its t interval, which is all numbers for fewer than two."""
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return Estimate(float(values.mean()) if len(values) else np.nan, -np.inf, np.inf)
    error = values.std(ddof=1) / len(values) ** 0.5
    half = float(stats.t.ppf(0.975, len(values) - 1) * error)
    mean = float(values.mean())
    return Estimate(mean, mean - half, mean + half)


def beyond_twins(value: float, twins: ArrayLike) -> float:
    """One-sided p-value of a network's number against those of its untrained twins: is it above them?

    Under the null the network is one more twin. With 19 twins or more the p-value is that of its rank among them, whose
    size is right whatever their distribution. Fewer cannot reach .05 by rank, so that there it is of the prediction
    interval of one more draw, (value - mean) / (sd sqrt(1 + 1/n)) by t with n - 1 degrees of freedom: right for normal
    numbers, and measured sizes at alpha .05 are .03 to .06 for uniform and heavy-tailed ones (t, 3 degrees), .06 to
    .08 for log-normal (sd .3) and .11 at most for exponential ones. From 19 on t would keep those errors
    where the rank has none. NaN for fewer than two twins, or where one has no number.
    """
    others = np.asarray(twins, dtype=float)
    count = len(others)
    if count < 2 or not np.isfinite([value, *others]).all():
        return float("nan")
    if 1 / (count + 1) <= ALPHA:
        return float(1 + (others >= value).sum()) / (count + 1)
    spread, lead = others.std(ddof=1) * (1 + 1 / count) ** 0.5, value - others.mean()
    if spread == 0:
        return 0.0 if lead > 0 else 1.0
    return float(special.stdtr(count - 1, -lead / spread))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's p-values of several tests: each holds at a level where all of them together do.

    The i-th smallest of m, times m - i + 1, but never less than that of a smaller one, and at most 1.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    adjusted = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted[np.argsort(order)]
