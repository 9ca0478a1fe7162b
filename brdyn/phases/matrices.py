"""Matrices of pairs of layers that a caller gives: numbers, square, and finite."""

from __future__ import annotations

import numpy as np

from brdyn.errors import UsageError


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
        raise UsageError(
            f"the {called} of shape {values.shape} is not a square matrix of layers; give {shape}"
        )
    return values.astype(np.float64, copy=False)
