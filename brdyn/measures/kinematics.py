"""Norms, updates and angles of the tokens of a trajectory, computed once and shared by the measures.

Everything is float32 whatever the precision of the model. Angles are in radians.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from brdyn.trajectory import Trajectory

TINY = 1e-30


def at_least_float32(values: Tensor) -> Tensor:
    """As they are, or in float32 where they are in half precision."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def lengths(vectors: Tensor, *, keepdim: bool = False) -> Tensor:
    """Norms over the last axis, float32; added up in at least that, without a copy of vectors in half precision."""
    precision = torch.promote_types(vectors.dtype, torch.float32)
    return torch.linalg.vector_norm(vectors, dim=-1, keepdim=keepdim, dtype=precision).float()


def norms(trajectory: Trajectory) -> Tensor:
    """`|a_l|` of every token, `(L + 1, B, N)`."""
    return trajectory.derive(
        "norms",
        lambda: torch.stack([lengths(state) for state in trajectory.states]),
    )


def updates(trajectory: Trajectory) -> list[Tensor]:
    """`d_l = a_l - a_{l-1}`, what block l does, for l = 1..L: L tensors `(B, N, D)`, the first of l = 1."""
    states = trajectory.states
    return trajectory.derive(
        "updates",
        lambda: [after.float() - before.float() for before, after in pairwise(states)],
    )


def update_norms(trajectory: Trajectory) -> Tensor:
    """`|d_l|` of every token, `(L, B, N)`."""
    return trajectory.derive(
        "update_norms",
        lambda: torch.stack([lengths(update) for update in updates(trajectory)]),
    )


def step_angles(trajectory: Trajectory) -> Tensor:
    """Angle between consecutive states, `(L, B, N)`.

    From `sin^2(angle / 2) = (|d|^2 - (|a_l| - |a_{l-1}|)^2) / (4 |a_{l-1}| |a_l|)`, which keeps its accuracy for small
    angles where the arc cosine loses it (unless nearly all of the step is growth). NaN where a token is zero.
    """

    def compute() -> Tensor:
        size = norms(trajectory)
        return angles_of_steps(size[:-1], size[1:], update_norms(trajectory))

    return trajectory.derive("step_angles", compute)


def angles_of_steps(before: Tensor, after: Tensor, step: Tensor) -> Tensor:
    """As :func:`step_angles`, from the norms of tokens before a step and after it, and that of the step."""
    half = (step.square() - (after - before).square()).clamp_min(0) / (4 * before * after).clamp_min(TINY)
    return (2 * half.clamp(max=1).sqrt().asin()).where((before > 0) & (after > 0), torch.nan)


def dot(first: Tensor, second: Tensor) -> Tensor:
    """Inner product over the last axis."""
    return torch.einsum("...d,...d->...", first.float(), second.float())


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine over the last axis; 0 where a vector is zero."""
    return (dot(first, second) / (lengths(first) * lengths(second)).clamp_min(TINY)).clamp(-1, 1)
