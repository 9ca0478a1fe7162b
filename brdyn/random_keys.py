"""Random choices that depend on the seed and on an image's position alone.

Bounded samples drawn by these keys are the same whatever the batch size and the number of processes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def random_keys(units: ArrayLike, seed: int) -> np.ndarray:
    """A pseudo-random number for each unit (SplitMix64, Steele et al. 2014), uint64 of the same shape."""
    values = np.asarray(units, dtype=np.uint64)
    with np.errstate(over="ignore"):
        return _mix(_mix(values + GOLDEN) + np.uint64(int(seed) % 2**64) * GOLDEN)


def random_tokens(positions: ArrayLike, size: int, count: int, seed: int) -> np.ndarray:
    """`count` of `size` tokens for each image, in order, without repetition: `(len(positions), count)`."""
    positions = np.asarray(positions, dtype=np.uint64)
    if count >= size:
        return np.tile(np.arange(size), (len(positions), 1))
    units = positions[:, None] * np.uint64(size) + np.arange(size, dtype=np.uint64)
    return np.sort(random_keys(units, seed).argsort(axis=1)[:, :count], axis=1)


def one_in(every: int, positions: ArrayLike, seed: int) -> np.ndarray:
    """Which positions are the one drawn of its `every` consecutive ones (from 0, from `every`, …), bool.

    >>> from brdyn.random_keys import one_in
    >>> [int(one_in(5, range(start, start + 5), seed=0).sum()) for start in (0, 5, 10)]
    [1, 1, 1]
    """
    positions = np.asarray(positions, dtype=np.uint64)
    return positions % every == random_keys(positions // every, seed) % every


def _mix(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
