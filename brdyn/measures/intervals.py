"""95 % intervals: of a mean by Student's t, of a share by Wilson's score, of two paired shares by Newcombe's method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

CONFIDENCE_Z = 1.959964


def of_mean(mean: Any, sd: Any, n: Any) -> tuple[Any, Any]:
    """Low and high end for a mean of `n` values with standard deviation `sd`; numbers, arrays or tensors alike.

    NaN for fewer than two values, whose spread is not known.

    >>> from brdyn.measures.intervals import of_mean
    >>> [round(end, 3) for end in of_mean(0.0, 1.0, 4)], [round(end, 3) for end in of_mean(0.0, 1.0, 10_000)]
    ([-1.591, 1.591], [-0.02, 0.02])
    """
    half = t_quantile(n) * sd / n**0.5
    return mean - half, mean + half


def of_values(values: np.ndarray) -> tuple[float, float]:
    """Low and high end for the mean of values `(n,)`; NaN for fewer than two.

    >>> from brdyn.measures.intervals import of_values
    >>> [round(end, 3) for end in of_values(np.array([0.0, 1.0, 2.0]))], of_values(np.ones(1))
    ([-1.484, 3.484], (nan, nan))
    """
    sd = float(values.std(ddof=1)) if len(values) > 1 else np.nan
    return of_mean(float(values.mean()), sd, len(values))


def t_quantile(n: Any) -> Any:
    """How many standard errors a 95 % interval of a mean of `n` values is wide on each side, by Student's t with n - 1.

    >>> from brdyn.measures.intervals import t_quantile
    >>> round(t_quantile(2), 3), round(t_quantile(10**6), 3)
    (12.706, 1.96)
    """
    if isinstance(n, Tensor):
        return torch.as_tensor(t_quantile(n.cpu().numpy()), dtype=n.dtype, device=n.device)
    found = stdtrit(n - 1, 0.975)
    return found if isinstance(found, np.ndarray) else float(found)


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


def of_paired_shares(first: np.ndarray, second: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Low and high end of how much the share of `second` is more, and of how many times that of `first` it is.

    The difference by method 10 of Newcombe (1998), the ratio by that of Donner and Zou (2012): made of the two
    intervals by Wilson, so that they hold the value, have a width where all are right or wrong too, and agree on
    whether one is above the other.

    Parameters
    ----------
    first, second : ndarray
        `(n,)`, from 0 to 1, of the same things; no ratio to a share of 0 (NaN).

    >>> import numpy as np
    >>> from brdyn.measures.intervals import of_paired_shares
    >>> first, second = (np.arange(50) < right for right in (43, 41))  # 41 right by both, 2 by the first alone
    >>> [[round(end, 3) for end in ends] for ends in of_paired_shares(first, second)]
    [[-0.125, 0.037], [0.85, 1.048]]
    """
    one, other = (np.asarray(values, dtype=float) for values in (first, second))
    p, q, n = float(one.mean()), float(other.mean()), len(one)
    (p_low, p_high), (q_low, q_high) = (of_share(share, n) for share in (p, q))
    together, apart = float((one * other).mean()) - p * q, float(one.std() * other.std())
    if together > 0:
        together = max(together - 1 / (2 * n), 0)  # Newcombe's correction for continuity
    r = together / apart if apart else 0.0

    def ends(p_end: float, q_end: float) -> tuple[float, float, float, float]:
        a, b = abs(p_end - p), abs(q_end - q)
        reach = (a**2 - 2 * r * a * b + b**2) ** 0.5
        middle, above, below = p * q - r * a * b, q**2 - b**2, p**2 - a**2
        return reach, middle + max(middle**2 - above * below, 0) ** 0.5, above, below

    down, root, above, _ = ends(p_high, q_low)
    up, high_root, _, below = ends(p_low, q_high)
    ratio = (above / root if q else 0.0, high_root / below) if p else (np.nan, np.nan)
    return (q - p - down, q - p + up), ratio


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
