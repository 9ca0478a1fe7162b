"""Estimates with their intervals, for verdicts. What several numbers share (the seed of networks, the draw of a fit) is
one cluster, and clusters are what intervals and tests count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special, stats

from brdyn.interventions import WithinAcross
from brdyn.measures.coupling import beyond_distance, phases_at
from brdyn.measures.placements import placements

PERMUTATIONS = 10_000
ALPHA = 0.05
NORMAL = float(special.ndtri(0.975))  # standard errors in half of a 95 % interval


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval, of t with `df` degrees of freedom; of a test against 0, the one-sided p-values
    that it is above, and below."""

    value: float
    low: float = -np.inf
    high: float = np.inf
    p_value: float | None = None
    p_below: float | None = None
    df: float = np.inf

    @classmethod
    def of(cls, row: Mapping[str, Any] | pd.Series, name: str = "mean") -> Estimate:
        """A number of a row of a result's table, the mean by default, with its interval."""
        return cls(*(float(row[one]) for one in (name, "low", "high")))

    def say(self, form: str = "+.2f") -> str:
        if np.isnan(self.value):
            return "not recorded"
        if np.isfinite(self.high - self.low):
            return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"
        return f"{self.value:{form}} ({'no interval' if self.p_value is None else f'p = {self.p_value:.2g}'})"

    @property
    def standard_error(self) -> float:
        """That of its interval, which is symmetric but for those of bootstraps."""
        return float((self.high - self.low) / 2 / stats.t.ppf(0.975, self.df))

    def times(self, factor: float) -> Estimate:
        """In another unit."""
        return replace(self, value=factor * self.value, low=factor * self.low, high=factor * self.high)

    def __neg__(self) -> Estimate:
        return Estimate(-self.value, -self.high, -self.low, self.p_below, self.p_value, self.df)

    def against(self, other: float) -> bool | None:
        """Whether the whole interval is above (True) or below (False) a number."""
        return True if self.low > other else False if self.high < other else None

    def p_above(self, other: float) -> float:
        """P-value of being above a number: of its test, or two-sided by t, with the interval as wide as it is on that
        side. 1 where it is not above, or has no interval."""
        if self.p_value is not None:
            return self.p_value
        if not self.value > other:
            return 1.0
        half = self.value - self.low
        if not half:
            return 0.0
        return float(2 * stats.t.sf(stats.t.ppf(0.975, self.df) * (self.value - other) / half, self.df))

    def less(self, other: Estimate) -> Estimate:
        """The difference of two that know nothing of each other: half the widths of their intervals add in square.

        Of two networks on the same images it is too wide rather than too narrow, as what is hard for one is hard for
        the other; records have no image's own result, so that nothing can be paired.
        """
        half = float(np.hypot((self.high - self.low) / 2, (other.high - other.low) / 2))
        value = self.value - other.value
        return Estimate(value, value - half, value + half, df=min(self.df, other.df))


def with_errors(value: float, errors: Iterable[tuple[float, float]]) -> Estimate:
    """A value whose error is the sum of independent ones, each its standard error and degrees of freedom (Welch and
    Satterthwaite). No interval where one is not known."""
    found = [(error**2, df) for error, df in errors]
    variance = sum(one for one, _ in found)
    if not np.isfinite(variance):
        return Estimate(value)
    within = sum(one**2 / df for one, df in found)
    df = variance**2 / within if within else np.inf
    half = float(stats.t.ppf(0.975, df) * variance**0.5)
    return Estimate(value, value - half, value + half, df=df)


class Side(NamedTuple):
    """Fits of a contrast that differ by luck alone, a seed or a draw; together they weigh `weight`.

    `right`: what each comes to, test image by test image, `(fits, images)`; or as a whole, `(fits,)`, with
    `image_error`, the standard error over test images of their mean. `luck`: the variance between such fits and its
    degrees of freedom, where these are too few for one of their own.
    """

    weight: float
    right: ArrayLike
    image_error: float = 0.0
    luck: tuple[float, float] | None = None


def contrast(*sides: Side) -> Estimate:
    """The weighted sum of what sides come to on average, all judged on the same test images.

    It has two kinds of error: that of the images, paired where sides have them one by one, and that of the luck of each
    side's fits (Welch). A variance that sides share counts once, with its own degrees of freedom. No interval where a
    side of one fit has no variance.
    """
    value, paired, unpaired, lucks = 0.0, np.zeros(1), 0.0, dict[object, tuple[float, float]]()
    for place, (weight, found, image_error, luck) in enumerate(sides):
        right = np.asarray(found, dtype=float)
        each = right.reshape(len(right), -1).mean(1)
        value += weight * float(each.mean())
        if right.ndim == 2:
            paired = paired + weight * right.mean(0)
        else:
            unpaired += (weight * image_error) ** 2
        own = float(each.var(ddof=1)) if len(each) > 1 else np.nan
        variance, df = luck or (own, len(each) - 1)
        before, _ = lucks.get(luck or place, (0.0, df))
        lucks[luck or place] = before + weight**2 * variance / len(each), df
    if len(paired) > 1:
        unpaired += float(paired.var(ddof=1)) / len(paired)
    return with_errors(value, [(unpaired**0.5, np.inf), *((one**0.5, df) for one, df in lucks.values())])


def largest(estimates: Iterable[Estimate]) -> Estimate:
    """The largest of several, with an interval and a p-value of being above 0 by which it is chosen among so many
    (Bonferroni). Not a number of none."""
    found = list(estimates)
    if not found:
        return Estimate(np.nan)
    most, count = max(found, key=lambda one: one.value), len(found)
    half = most.standard_error * float(stats.t.ppf(1 - ALPHA / 2 / count, most.df))
    p_value = min(1.0, count * most.p_above(0))
    return Estimate(most.value, most.value - half, most.value + half, p_value, df=most.df)


def rank_correlation(first: ArrayLike, second: ArrayLike, clusters: ArrayLike, seed: int = 0) -> Estimate:
    """Spearman's rho within each cluster, averaged, with p-values by permutation within clusters.

    What the members of a cluster share is in every permutation, so that it explains nothing and makes nothing
    significant. Clusters where either does not vary say nothing; not a number where all are so, or where a number is
    missing.
    """
    x, y, groups = np.asarray(first, float), np.asarray(second, float), np.asarray(clusters)
    if not np.isfinite([x, y]).all():
        return Estimate(np.nan)
    rng, found, others = np.random.default_rng(seed), [], []
    for group in np.unique(groups):
        ranks = [stats.rankdata(values[groups == group]) for values in (x, y)]
        one, two = (rank - rank.mean() for rank in ranks)
        size = float(one @ one * (two @ two)) ** 0.5
        if size:
            found.append(one @ two / size)
            others.append(rng.permuted(np.tile(one, (PERMUTATIONS, 1)), axis=1) @ two / size)
    if not found:
        return Estimate(np.nan)
    return against_draws(float(np.mean(found)), np.mean(others, axis=0))


def against_draws(value: float, others: ArrayLike) -> Estimate:
    """A statistic against random draws of its null distribution: of those and itself, the share as large, or as
    small."""
    drawn = np.append(np.asarray(others, dtype=float), value)
    above, below = (float(np.mean(share)) for share in (drawn >= value - 1e-12, drawn <= value + 1e-12))
    return Estimate(value, p_value=above, p_below=below)


def placed(value: float, p_value: float, placements: int) -> Estimate:
    """A statistic by its share of other placements of the boundaries that give as much: as large a share of them gives
    less as does not give as much or more."""
    return Estimate(value, p_value=p_value, p_below=min(1.0, 1 - p_value + 1 / placements))


def matched(test: WithinAcross) -> Estimate:
    """By how much pairs across phases exceed those within at equal distance, with its test."""
    excess = np.nan if test.matched_excess is None else test.matched_excess
    return Estimate(excess, p_value=test.p_matched, p_below=test.p_matched_below)


def mean_difference(differences: ArrayLike, clusters: ArrayLike | None = None) -> Estimate:
    """The mean of paired differences, of clusters where they are given (each by its mean, as one), with its t
    interval, which is all numbers for fewer than two."""
    values = np.asarray(differences, dtype=float)
    if clusters is not None:
        groups = np.asarray(clusters)
        values = np.array([values[groups == group].mean() for group in np.unique(groups)])
    return contrast(Side(1, values)) if len(values) else Estimate(np.nan)


def across_over_within(
    spans: Iterable[tuple[int, int]], values: ArrayLike, boundaries: Iterable[int], layers: int
) -> Estimate:
    """By how much operations on layers of two phases exceed those within one, at equal distance, against all other
    placements of as many boundaries, each over its standard error.

    `spans` has the first and last layer that each operation touches; those of one span are one, by their mean. Not a
    number where no distance has both.
    """
    ends, which = np.unique(np.array(list(spans)), axis=0, return_inverse=True)
    mean = np.bincount(which.ravel(), np.asarray(values, dtype=float)) / np.bincount(which.ravel())
    first, last = ends.T
    own = [boundary - 1 for boundary in boundaries]
    every, _ = placements(layers - 1, own, PERMUTATIONS, np.random.default_rng(0))
    phase = phases_at(layers, np.concatenate([[own], every[~(every == own).all(1)]]) + 1)
    excess, over_error = beyond_distance(mean, phase[:, first - 1] != phase[:, last - 1], last - first)
    if np.isnan(over_error[0]):
        return Estimate(np.nan)
    others = over_error[1:][np.isfinite(over_error[1:])]
    return replace(against_draws(over_error[0], others), value=float(excess[0]))


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
