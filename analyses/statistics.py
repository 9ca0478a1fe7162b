"""Estimates with their intervals, for verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

RESAMPLES = 2000
FEWEST = 5  # pairs for a bootstrap


class Estimate(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def say(self, form: str = "+.2f") -> str:
        """In words."""
        value, low, high = self
        return f"{value:{form}} [{low:{form}}, {high:{form}}]"

    @property
    def positive(self) -> bool | None:
        """Whether it clearly is (None: cannot be told)."""
        return True if self.low > 0 else False if self.high < 0 else None


def together(verdicts: Iterable[bool | None]) -> bool | None:
    """True if all are, False if any is, None otherwise."""
    found = list(verdicts)
    return False if False in found else True if all(one is True for one in found) else None


def rank_correlation(first: ArrayLike, second: ArrayLike, seed: int = 0) -> Estimate:
    """Spearman's rho with a percentile bootstrap over the pairs; not a number where either does not vary.

    Of fewer than five pairs, the interval is all that rho can be.
    """
    x, y = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if not (np.ptp(x) and np.ptp(y)):
        return Estimate(np.nan, np.nan, np.nan)
    value = float(stats.spearmanr(x, y).statistic)
    if len(x) < FEWEST:
        return Estimate(value, -1.0, 1.0)
    rng = np.random.default_rng(seed)
    draws = [
        stats.spearmanr(x[rows], y[rows]).statistic
        for rows in rng.integers(0, len(x), (RESAMPLES, len(x)))
        if np.ptp(x[rows]) and np.ptp(y[rows])
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def ranks_without(values: ArrayLike, other: ArrayLike) -> np.ndarray:
    """What is left of the ranks of `values` after a line through those of `other`."""
    y, x = stats.rankdata(np.asarray(values)), stats.rankdata(np.asarray(other))
    return y - np.polyval(np.polyfit(x, y, 1), x)


def mean_difference(differences: ArrayLike) -> Estimate:
    """The mean of paired differences with its t interval, which is all numbers for fewer than two."""
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return Estimate(float(values.mean()) if len(values) else np.nan, -np.inf, np.inf)
    error = values.std(ddof=1) / len(values) ** 0.5
    half = float(stats.t.ppf(0.975, len(values) - 1) * error)
    mean = float(values.mean())
    return Estimate(mean, mean - half, mean + half)
