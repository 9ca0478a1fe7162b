"""Estimates with their intervals, for verdicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

RESAMPLES = 2000
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
