"""All ways, or many, to place a number of boundaries: what permutation tests of phases compare with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np

EXHAUSTIVE_UP_TO = 20_000


def placements(count: int, chosen: Sequence[int], draws: int, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """As many of `count` places as are chosen, in every way, or in random ones where there are more than 20 000.

    Parameters
    ----------
    count : int
    chosen : sequence of int
        From 0; the first placement where they are drawn.
    draws : int
        Random placements.
    rng : Generator

    Returns
    -------
    (ndarray, bool)
        Placements `(n, len(chosen))`, each in order, and whether they are all.
    """
    if comb(count, len(chosen)) <= EXHAUSTIVE_UP_TO:
        return np.array(list(combinations(range(count), len(chosen))), dtype=int), True
    drawn = rng.random((draws, count)).argsort(axis=1)[:, : len(chosen)]
    return np.sort(np.concatenate([np.array([chosen], dtype=int), drawn]), axis=1), False
