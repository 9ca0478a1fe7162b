"""95 % intervals: of a mean by the normal approximation, of a share by Wilson's score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

CONFIDENCE_Z = 1.959964


def of_mean(mean: Any, sd: Any, n: Any) -> tuple[Any, Any]:
    """Low and high end for a mean of `n` values with standard deviation `sd`; numbers, arrays or tensors alike."""
    half = CONFIDENCE_Z * sd / n**0.5
    return mean - half, mean + half


def of_share(share: Any, n: Any) -> tuple[Any, Any]:
    """Low and high end for a share of `n` (binomial), by Wilson (1927): of 0 and 1 as well it has a width.

    >>> from brdyn.measures.intervals import of_share
    >>> [round(end, 3) for end in of_share(0.5, 100)], [round(end, 3) for end in of_share(1.0, 10)]
    ([0.404, 0.596], [0.722, 1.0])
    """
    weight = CONFIDENCE_Z**2 / n
    middle = (share + weight / 2) / (1 + weight)
    half = weight * (share * (1 - share) / weight + 1 / 4) ** 0.5 / (1 + weight)
    return middle - half, middle + half


def told_apart(mean: Sequence[float], low: Sequence[float], high: Sequence[float]) -> bool:
    """Whether the largest of several means can be told from the least: their intervals leave room between them.

    >>> from brdyn.measures.intervals import told_apart
    >>> told_apart([1.0, 2.0], [0.8, 1.7], [1.2, 2.3]), told_apart([1.0, 2.0], [0.3, 1.3], [1.7, 2.7])
    (True, False)
    """
    means, lows, highs = (np.asarray(values, dtype=float) for values in (mean, low, high))
    known = np.isfinite(means)
    if not known.any():
        return False
    return bool(lows[np.nanargmax(means)] > highs[np.nanargmin(means)])
