"""Matrices of pairs of layers: numbers, square and finite, and whether layers differ in them at all."""

from __future__ import annotations

import numpy as np

from brdyn.errors import UsageError

ROUNDING = 1e-6  # mean dissimilarity of layers that are the same: float32 cosines are no better


def of_layers(values: np.ndarray, called: str, *, leading: int | None = 0) -> np.ndarray:
    """A matrix `(L, L)`, or several, in float64, as of :func:`square`; refused where a value is not finite."""
    matrix = square(values, called, leading=leading)
    if not np.isfinite(matrix).all():
        raise UsageError(f"the {called} has values that are not finite; leave out what has them")
    return matrix


def square(values: np.ndarray, called: str, *, leading: int | None = 0) -> np.ndarray:
    """A matrix `(L, L)`, or several, in float64.

    Parameters
    ----------
    values : ndarray, shape (..., L, L)
    called : str
        For errors: `similarity`.
    leading : int or None
        How many dimensions come before the two of layers; None for any number.

    Raises
    ------
    UsageError
        If it holds no real numbers, or is not square or empty.
    """
    if values.dtype.kind not in "biuf":
        raise UsageError(f"the {called} holds values of kind {values.dtype}; give an array of real numbers")
    square = values.ndim >= 2 and values.shape[-1] == values.shape[-2] > 0
    if not square or leading not in (None, values.ndim - 2):
        shape = "(..., L, L)" if leading is None else "(R, L, L)" if leading else "(L, L)"
        raise UsageError(f"the {called} of shape {values.shape} is not a square matrix of layers; give {shape}")
    return values.astype(np.float64, copy=False)


def check_total(total: float, layers: int) -> None:
    """Refuse dissimilarities that are negative on the whole, by more than rounding.

    Raises
    ------
    UsageError
        With their sum over the pairs of layers.
    """
    if total < -ROUNDING * max(1, layers * (layers - 1) // 2):
        raise UsageError(
            f"the total dissimilarity is {total:g}: layers would be more alike than equal ones, whose similarity is 1"
        )


def differ(dissimilarity: np.ndarray) -> bool:
    """Whether layers differ by more than rounding."""
    above = dissimilarity[np.triu_indices(len(dissimilarity), 1)]
    return bool(len(above) and np.abs(above).mean() > ROUNDING)
