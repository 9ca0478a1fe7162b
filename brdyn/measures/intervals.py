"""95 % intervals by the normal approximation."""

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
    """Low and high end for a share of `n` (binomial)."""
    return of_mean(share, (share * (1 - share)) ** 0.5, n)


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
