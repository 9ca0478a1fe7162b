"""Exact max-cut over contiguous phases, for every number of phases at once (method notes, section 3).

A k-phase segmentation cuts layers 1..L into k contiguous intervals. Its cut is the sum of the
dissimilarity D[l, m] over pairs of layers in different phases; maximising it is minimising the sum
within phases, which is additive over intervals, so that dynamic programming over prefix sums is exact.

Arrays may have leading dimensions: `(..., L, L)` is cut for each of them at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from brdyn.arguments import checked
from brdyn.choices import check_least
from brdyn.errors import UsageError
from brdyn.phases.matrices import of_layers


class Moments(NamedTuple):
    """Exact mean and standard deviation, over all segmentations into k phases, of the cut."""

    mean: np.ndarray
    std: np.ndarray


def interval_costs(dissimilarity: np.ndarray) -> np.ndarray:
    """Sum of D over pairs within every interval: `cost[..., i, j]` is that of layers i+1..j, shape (…, L+1, L+1).

    Entries with j <= i are zero.
    """
    layers = dissimilarity.shape[-1]
    upper = np.triu((dissimilarity + np.swapaxes(dissimilarity, -1, -2)) / 2, k=1)
    prefix = np.zeros((*dissimilarity.shape[:-2], layers + 1, layers + 1))
    prefix[..., 1:, 1:] = upper.cumsum(-1).cumsum(-2)
    ends = np.arange(layers + 1)
    corner = prefix[..., ends, ends]
    # Pairs (l, m) with i < l < m <= j: all pairs up to j, less those with l <= i.
    costs = corner[..., None, :] - prefix
    return np.triu(costs, k=1)


def check_size(min_size: int, layers: int, name: str = "this model") -> None:
    """Refuse phases that have no layer, or more than there are."""
    if min_size < 1:
        raise UsageError(f"min_size={min_size}: a phase has at least one layer")
    if min_size > layers:
        raise UsageError(f"min_size={min_size} is more than the {layers} layers of {name}")


def allowed_intervals(layers: int, min_size: int) -> np.ndarray:
    """Which intervals i+1..j are long enough, shape (L+1, L+1)."""
    ends = np.arange(layers + 1)
    return ends[None, :] - ends[:, None] >= min_size


@checked
def best_segmentations(dissimilarity: np.ndarray, min_size: int = 1) -> tuple[np.ndarray, list[np.ndarray]]:
    """The best segmentation for every k from 1 to L // min_size.

    Parameters
    ----------
    dissimilarity : ndarray, shape (..., L, L)
        The diagonal does not count.
    min_size : int
        Fewest layers in a phase.

    Returns
    -------
    within : ndarray, shape (K, ...)
        Smallest sum of D within phases for k = 1..K.
    boundaries : list of K ndarrays, shape (..., k - 1)
        Last layer (from 1) of every phase but the last. Of equal cuts the one with the earliest last
        boundary is taken.

    Examples
    --------
    >>> from brdyn.phases import best_segmentations
    >>> dissimilarity = np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0]])
    >>> within, boundaries = best_segmentations(dissimilarity)
    >>> within.tolist(), boundaries[1].tolist()
    ([2.0, 0.0, 0.0], [2])
    """
    dissimilarity = of_layers(dissimilarity, "dissimilarity", leading=None)
    layers = dissimilarity.shape[-1]
    check_size(min_size, layers)
    costs = np.where(allowed_intervals(layers, min_size), interval_costs(dissimilarity), np.inf)
    most = layers // min_size
    by_end = np.ascontiguousarray(np.swapaxes(costs, -1, -2))  # [..., j, i]: the search runs along memory
    best = costs[..., 0, :]
    within, choices = [best[..., -1]], []
    for _ in range(2, most + 1):
        candidates = by_end + best[..., None, :]
        choice = candidates.argmin(axis=-1)
        best = candidates.min(axis=-1)
        choices.append(choice)
        within.append(best[..., -1])
    return np.stack(within), _trace(choices, layers, dissimilarity.shape[:-2])


def _trace(choices: list[np.ndarray], layers: int, batch: tuple[int, ...]) -> list[np.ndarray]:
    """Walk back from the last layer, for all k together: choice d is where the phase after boundary d starts."""
    most = len(choices) + 1
    ends = np.full((most, *batch), layers)
    table = np.zeros((most, *batch, most - 1), dtype=int)
    for number in range(most - 1, 0, -1):
        choice = choices[number - 1][None]
        ends[number:] = np.take_along_axis(choice, ends[number:, ..., None], axis=-1)[..., 0]
        table[number:, ..., number - 1] = ends[number:]
    return [table[k - 1, ..., : k - 1] for k in range(1, most + 1)]


@checked
def k_best_segmentations(
    dissimilarity: np.ndarray, count: int = 5, min_size: int = 1
) -> list[list[tuple[float, tuple[int, ...]]]]:
    """The `count` best segmentations for every k: (sum within, boundaries), best first, all different.

    Fewer are returned where fewer exist. Takes one `(L, L)` matrix.

    >>> from brdyn.phases import k_best_segmentations
    >>> dissimilarity = np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0]])
    >>> k_best_segmentations(dissimilarity)[1]  # into two phases
    [(0.0, (2,)), (1.0, (1,))]
    """
    dissimilarity = of_layers(dissimilarity, "dissimilarity")
    layers = dissimilarity.shape[-1]
    check_size(min_size, layers)
    check_least(1, count=count)
    costs = np.where(allowed_intervals(layers, min_size), interval_costs(dissimilarity), np.inf)
    most = layers // min_size
    values = np.full((count, layers + 1), np.inf)
    values[0] = costs[0]
    history: list[np.ndarray] = []
    ranked = [_paths(values, history, layers)]
    for _ in range(2, most + 1):
        candidates = (values[:, :, None] + costs[None]).reshape(count * (layers + 1), layers + 1)
        order = np.argsort(candidates, axis=0, kind="stable")[:count]
        values = np.take_along_axis(candidates, order, axis=0)
        history.append(order)
        ranked.append(_paths(values, history, layers))
    return ranked


def _paths(values: np.ndarray, history: list[np.ndarray], layers: int) -> list[tuple[float, tuple[int, ...]]]:
    paths = []
    for rank, value in enumerate(values[:, layers]):
        if not np.isfinite(value):
            break
        end, boundaries = layers, []
        for order in reversed(history):
            rank, end = divmod(int(order[rank, end]), layers + 1)
            boundaries.append(end)
        paths.append((float(value), tuple(reversed(boundaries))))
    return paths


@checked
def random_moments(dissimilarity: np.ndarray, min_size: int = 1) -> Moments:
    """Mean and standard deviation of the sum within phases over *all* segmentations into k phases, k = 1..K.

    Exact: the number of segmentations, the sum and the sum of squares of their costs follow the same
    recursion as the optimum, so that nothing is sampled. The deviation is zero where there is only one.

    >>> from brdyn.phases import random_moments
    >>> dissimilarity = np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0]])
    >>> moments = random_moments(dissimilarity)
    >>> moments.mean.tolist(), moments.std.tolist()
    ([2.0, 0.5, 0.0], [0.0, 0.5, 0.0])
    """
    dissimilarity = of_layers(dissimilarity, "dissimilarity")
    layers = dissimilarity.shape[-1]
    check_size(min_size, layers)
    allowed = allowed_intervals(layers, min_size).astype(float)
    costs = interval_costs(dissimilarity) * allowed
    most = layers // min_size
    count, first, second = allowed[0], costs[0], costs[0] ** 2
    means, deviations = [], []
    for k in range(1, most + 1):
        if k > 1:
            second = second @ allowed + 2 * (first @ costs) + count @ costs**2
            first = first @ allowed + count @ costs
            count = count @ allowed
        mean = first[-1] / count[-1]
        means.append(mean)
        variance = second[-1] / count[-1] - mean**2 if count[-1] > 1 else 0.0
        deviations.append(np.sqrt(max(variance, 0.0)))
    return Moments(np.array(means), np.array(deviations))
