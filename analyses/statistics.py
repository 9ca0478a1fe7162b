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
        interval = f"[{low:{form}}, {high:{form}}]" if np.isfinite(high - low) else "(no interval)"
        return f"{value:{form}} {interval}"

    @property
    def positive(self) -> bool | None:
        """Whether it clearly is (None: cannot be told)."""
        return True if self.low > 0 else False if self.high < 0 else None


def together(verdicts: Iterable[bool | None]) -> bool | None:
    """True if all are, False if any is, None otherwise."""
    found = list(verdicts)
    return False if False in found else True if all(one is True for one in found) else None


def rank_correlation(
    first: ArrayLike, second: ArrayLike, within: ArrayLike | None = None, seed: int = 0
) -> Estimate:
    """Spearman's rho with a percentile bootstrap over the pairs; not a number where either does not vary.

    Of fewer than five pairs, the interval is all that rho can be.

    Parameters
    ----------
    first, second : array_like, shape (n,)
    within : array_like, shape (n,), optional
        A group for each pair: ranks are compared less their group's mean, so that what differs between groups alone
        explains nothing. Pairs that are alone in their group then say nothing.
    seed : int
        Of the bootstrap.
    """
    x, y = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    groups = np.zeros(len(x)) if within is None else np.asarray(within)
    value = _rho(x, y, groups)
    if np.isnan(value):
        return Estimate(np.nan, np.nan, np.nan)
    if len(x) < FEWEST:
        return Estimate(value, -1.0, 1.0)
    rng = np.random.default_rng(seed)
    draws = [_rho(x[rows], y[rows], groups[rows]) for rows in rng.integers(0, len(x), (RESAMPLES, len(x)))]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def _rho(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    """Correlation of ranks, each less the mean of its group."""
    left = []
    for values in (x, y):
        ranks = stats.rankdata(values)
        for group in np.unique(groups):
            ranks[groups == group] -= ranks[groups == group].mean()
        left.append(ranks)
    size = np.sqrt((left[0] ** 2).sum() * (left[1] ** 2).sum())
    return float((left[0] * left[1]).sum() / size) if size else float("nan")


def mean_difference(differences: ArrayLike) -> Estimate:
    """The mean of paired differences with its t interval, which is all numbers for fewer than two."""
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return Estimate(float(values.mean()) if len(values) else np.nan, -np.inf, np.inf)
    error = values.std(ddof=1) / len(values) ** 0.5
    half = float(stats.t.ppf(0.975, len(values) - 1) * error)
    mean = float(values.mean())
    return Estimate(mean, mean - half, mean + half)
