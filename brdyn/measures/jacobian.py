"""Products with the Jacobian of a block at the states of some images, and what can be had from products alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from brdyn.measures.kinematics import TINY, at_least_float32
from brdyn.runtime import in_float64

SINGULAR = 1e-4  # a ratio of lengths below which a Cholesky factor of squares is not to be trusted


class BlockJacobian:
    """`P_l J_l P_{l-1}` of block l at the states of B images: P takes off every token's own direction.

    P_l v is, token by token, v without its part along the state a_l of that token. Blocks that normalise what they read
    hand a change along a token's own state on as it is, so each of the N radial directions would count as neutral.

    Parameters
    ----------
    block : nn.Module
    before, after : Tensor
        States that enter and leave it, `(B, N, D)`.

    Examples
    --------
    >>> from brdyn.measures.jacobian import BlockJacobian
    >>> trajectory = brdyn.capture(model, next(images.batches(2)))
    >>> jacobian = BlockJacobian(model.blocks[0], *trajectory.states[:2])
    >>> first, second = torch.randn(2, 1, *trajectory.states[0].shape)
    >>> ahead, back = (jacobian.ahead(first) * second).sum(), (first * jacobian.back(second)).sum()
    >>> torch.allclose(ahead, back, rtol=1e-3, atol=1e-3)  # one is the transpose of the other
    True
    """

    def __init__(self, block: nn.Module, before: Tensor, after: Tensor) -> None:
        self.block, self.before = block, before
        self.entering, self.leaving = directions(before), directions(after)

    def ahead(self, tangents: Tensor) -> Tensor:
        """J v of vectors `(m, B, N, D)`, in one pass: the block itself is computed once, and its derivative m times."""
        moving = tangential(tangents, self.entering).to(self.before.dtype)
        with sdpa_kernel(SDPBackend.MATH):  # fused kernels have no derivative in forward mode
            moved = vmap(lambda tangent: jvp(self.block, (self.before,), (tangent,))[1])(moving)
        return tangential(moved, self.leaving)

    def back(self, cotangents: Tensor) -> Tensor:
        """J^T u of vectors `(m, B, N, D)`."""
        moving = tangential(cotangents, self.leaving).to(self.before.dtype)
        with sdpa_kernel(SDPBackend.MATH):
            moved = vmap(lambda cotangent: self._pull(cotangent)[0])(moving)
        return tangential(moved, self.entering)

    @cached_property
    def _pull(self) -> Callable[[Tensor], tuple[Tensor]]:
        return vjp(self.block, self.before)[1]


def directions(state: Tensor) -> Tensor:
    """Every token over its norm; zero where it is zero."""
    exact = at_least_float32(state)
    return exact / torch.linalg.vector_norm(exact, dim=-1, keepdim=True).clamp_min(TINY)


def tangential(vectors: Tensor, along: Tensor) -> Tensor:
    """Vectors `(m, B, N, D)` without the part of every token along a direction, `(B, N, D)`."""
    exact = at_least_float32(vectors)
    return exact - (exact * along).sum(-1, keepdim=True) * along


def columns(vectors: Tensor) -> Tensor:
    """Vectors `(m, B, N, D)` as the columns of a matrix for each image, `(B, N * D, m)`, float64."""
    return in_float64(vectors).flatten(2).permute(1, 2, 0)


def orthonormal(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Q and R of vectors `(m, B, N, D)`: of their shape, and upper triangular `(B, m, m)`, float64.

    By Cholesky's factor of the m x m products, which costs a GPU next to nothing; by Householder's reflections where
    vectors are nearly dependent.

    Examples
    --------
    >>> from brdyn.measures.jacobian import orthonormal
    >>> basis, factor = orthonormal(torch.tensor([[3.0, 0.0], [1.0, 2.0]]).reshape(2, 1, 1, 2))
    >>> factor[0].tolist()
    [[3.0, 1.0], [0.0, 2.0]]
    """
    matrix = columns(vectors)
    lower, failed = torch.linalg.cholesky_ex(matrix.mT @ matrix)
    factor = lower.mT.contiguous()
    lengths = factor.diagonal(dim1=-2, dim2=-1)
    doubtful = (failed != 0) | (lengths.amin(-1) < SINGULAR * lengths.amax(-1))
    basis = torch.linalg.solve_triangular(factor, matrix, upper=True, left=False)
    if doubtful.any():
        basis[doubtful], factor[doubtful] = torch.linalg.qr(matrix[doubtful])
    return basis.permute(2, 0, 1).reshape(vectors.shape).to(vectors), factor


class Leading(NamedTuple):
    """The leading singular values of a block's Jacobian, with their vectors.

    Attributes
    ----------
    values : Tensor
        Descending, `(B, m)`, float64.
    entering, leaving : Tensor
        Right and left singular vectors, as rows `(B, m, N * D)`.
    settled : Tensor
        Mean squared cosine between the leading right subspaces of all steps and of one step fewer, `(B,)`.
    """

    values: Tensor
    entering: Tensor
    leaving: Tensor
    settled: Tensor


def leading_singular(jacobian: BlockJacobian, start: Tensor, image: Tensor, steps: int) -> Leading:
    """Leading singular values and vectors by block Krylov steps (Musco and Musco 2015), each J^T J of m vectors.

    Parameters
    ----------
    jacobian : BlockJacobian
    start, image : Tensor
        Orthonormal vectors `(m, B, N, D)` to start from, and J of them.
    steps : int
        From 1. The best approximations in the span of what all steps gave are taken (Rayleigh-Ritz), so values never
        exceed the true ones.
    """
    count = len(start)
    basis, images = [start], [image]
    for _ in range(steps):
        new = jacobian.back(images[-1])
        for _ in range(2):  # once leaves rounding of what was large
            new = orthonormal(_without(new, basis))[0]
        basis.append(new)
        images.append(jacobian.ahead(new))
    wholes = columns(torch.cat(basis)), columns(torch.cat(images))
    squares = wholes[1].mT @ wholes[1]
    values, turned = _descending(squares, count)
    fewer = squares.shape[-1] - count
    before = _descending(squares[:, :fewer, :fewer], count)[1]
    settled = (before.mT @ turned[:, :fewer]).square().sum((-2, -1)) / count
    entering, leaving = ((whole @ turned).mT for whole in wholes)
    return Leading(values, entering, leaving / values.clamp_min(TINY)[..., None], settled)


def _without(vectors: Tensor, basis: list[Tensor]) -> Tensor:
    """Vectors less their parts in a basis, in its blocks' order."""
    for block in basis:
        vectors = vectors - torch.einsum("kbnd,kbm->mbnd", block, torch.einsum("kbnd,mbnd->kbm", block, vectors))
    return vectors


def _descending(squares: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Roots of the largest eigenvalues of small symmetric matrices `(B, n, n)`, and their vectors; by LAPACK."""
    values, vectors = torch.linalg.eigh(squares.cpu())
    values, vectors = values.flip(-1)[:, :count], vectors.flip(-1)[..., :count]
    return values.clamp_min(0).sqrt().to(squares.device), vectors.to(squares.device)
