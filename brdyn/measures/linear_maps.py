"""Linear maps between states, fitted from streamed sums of outer products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from brdyn.measures.kinematics import TINY

ROUNDING = 1e-12  # of second moments in float64: what is smaller is none


@dataclass(frozen=True, eq=False)
class Shifted:
    """Rows with a value near their mean taken off, so that float32 products keep what differs between rows.

    Attributes
    ----------
    rows : Tensor, shape (n, D)
        float32, less the shift.
    shift, mean : Tensor, shape (D,)
        float64; the mean is that of the rows as they were.
    """

    rows: Tensor
    shift: Tensor
    mean: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Shifted:
        """Take the mean off, as far as float32 can hold it."""
        mean = rows.mean(0, dtype=torch.float64)
        shift = mean.float()
        return cls(rows - shift, shift.double(), mean)

    @property
    def total(self) -> Tensor:
        """Sum of the rows as they were, float64."""
        return len(self.rows) * self.mean

    @property
    def squares(self) -> Tensor:
        """Sum of the squares of the rows as they were, float64."""
        mean = self.shift @ self.mean + (self.mean - self.shift) @ self.shift
        return self.rows.square().sum(dtype=torch.float64) + len(self.rows) * mean


def outer_sum(first: Shifted, second: Shifted) -> Tensor:
    """Sum over rows of `x y^T` as they were, `(D, E)`, float64.

    The product of the shifted rows is taken in float32, what the shifts add to it exactly: states whose mean is much
    larger than their spread would lose the spread otherwise.
    """
    product = (first.rows.T @ second.rows).double()
    means = torch.outer(first.shift, second.mean) + torch.outer(first.mean - first.shift, second.shift)
    return product + len(first.rows) * means


def centred(products: Tensor, first: Tensor, second: Tensor, count: Tensor | float) -> Tensor:
    """Sum of outer products about the means, from the sum of outer products and the sums of `count` rows."""
    return products - torch.outer(first, second) / count


def least_squares(
    second: Tensor, cross: Sequence[Tensor], ridge: float, rank: int | None, floor: float = 0.0
) -> list[Tensor]:
    """The maps M that minimise `|y - M x|^2 + ridge * mean eigenvalue * |M|^2` from moments, float64.

    Parameters
    ----------
    second : Tensor, shape (D, D)
        Sum of `x x^T`.
    cross : sequence of Tensor, shape (D, D)
        Sum of `x y^T`, for each y.
    ridge : float
    rank : int, optional
        Restrict x to so many leading eigenvectors of `second` (as DMD's truncated singular value decomposition does).
    floor : float
        Directions with an eigenvalue up to this are rounding, and mapped to zero.
    """
    values, vectors = torch.linalg.eigh(second)
    values, vectors = values.flip(0), vectors.flip(1)
    kept = values > (ROUNDING * values[0]).clamp_min(max(floor, TINY))
    kept &= torch.arange(len(values), device=values.device) < (rank or len(values))
    values, vectors = values[kept], vectors[:, kept]
    penalty = ridge * second.diagonal().mean()
    inverse = (vectors / (values + penalty)) @ vectors.T
    return [(inverse @ target).T for target in cross]


def ridge_maps(second: Tensor, cross: Tensor, ridge: float, floor: Tensor | float = 0.0) -> Tensor:
    """The maps M that minimise `|y - x M|^2 + ridge * mean eigenvalue * |M|^2` over rows, from moments, by one solve.

    Parameters
    ----------
    second : Tensor, shape (D, D)
        Sum of `x x^T`.
    cross : Tensor, shape (..., D, E)
        Sum of `x y^T`, for each y.
    ridge : float
    floor : float
        Added to the penalty: what rounding leaves of the moments.
    """
    penalty = ridge * second.diagonal().mean() + floor
    eye = torch.eye(len(second), dtype=second.dtype, device=second.device)
    return torch.linalg.solve(second + penalty.clamp_min(TINY) * eye, cross)
