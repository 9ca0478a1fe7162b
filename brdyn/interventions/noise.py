"""Noise that depends on the image's position, the layer and the seed, not on how images are batched."""

from __future__ import annotations

import torch
from torch import Tensor

from brdyn.measures.kinematics import TINY
from brdyn.random_keys import random_keys

LAYERS_APART = 1_000_003


def relative_noise(states: Tensor, positions: Tensor, layer: int, seed: int) -> Tensor:
    """Gaussian noise for states `(B, N, D)`, scaled to the norm of each token.

    The same numbers come back for an image on the same kind of device; CPU and GPU draw different ones.
    """
    device = states.device if states.device.type == "cuda" else torch.device("cpu")
    generator = torch.Generator(device)
    noise = torch.empty(states.shape, dtype=torch.float32, device=device)
    for image, key in zip(noise, random_keys(positions.cpu(), seed + LAYERS_APART * layer), strict=True):
        image.normal_(generator=generator.manual_seed(int(key) >> 1))
    noise = noise.to(states.device)
    size = torch.linalg.vector_norm(states, dim=-1, keepdim=True, dtype=torch.float32)
    return (noise * (size / torch.linalg.vector_norm(noise, dim=-1, keepdim=True).clamp_min(TINY))).to(
        states.dtype
    )
