"""Noise that depends on the image's position, the layer and the seed, not on how images are batched."""

from __future__ import annotations

from torch import Tensor

from brdyn.measures.kinematics import TINY, lengths
from brdyn.measures.sampling import normal_like

LAYERS_APART = 1_000_003


def relative_noise(states: Tensor, positions: Tensor, layer: int, seed: int) -> Tensor:
    """Gaussian noise for states `(B, N, D)`, scaled to the norm of each token.

    The same numbers come back for an image on the same kind of device; CPU and GPU draw different ones.
    """
    noise = normal_like(states, positions, seed + LAYERS_APART * layer)
    size = lengths(states, keepdim=True)
    return (noise * (size / lengths(noise, keepdim=True).clamp_min(TINY))).to(states.dtype)
