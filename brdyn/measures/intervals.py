"""95 % intervals by the normal approximation."""

from __future__ import annotations

from typing import Any

CONFIDENCE_Z = 1.959964


def of_mean(mean: Any, sd: Any, n: Any) -> tuple[Any, Any]:
    """Low and high end for a mean of `n` values with standard deviation `sd`; numbers, arrays or tensors alike."""
    half = CONFIDENCE_Z * sd / n**0.5
    return mean - half, mean + half


def of_share(share: Any, n: Any) -> tuple[Any, Any]:
    """Low and high end for a share of `n` (binomial)."""
    return of_mean(share, (share * (1 - share)) ** 0.5, n)
