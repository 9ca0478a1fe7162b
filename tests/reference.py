"""Independent implementations that brdyn is compared with: nothing here imports brdyn."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@cache
def normal_numbers() -> Tensor:
    """As many as the largest parameter has here; a window of them is drawn in a tenth of their time."""
    return torch.randn(2**24, generator=torch.Generator().manual_seed(0))


DINOV2_SHAPES = {"vits14": (12, 384, 6, 1536), "vitb14": (12, 768, 12, 3072), "vitg14": (40, 1536, 24, 4096)}


def facebook_dinov2_state(size: str, registers: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """A random state dict in the key layout of Facebook's DINOv2 checkpoints."""
    layers, width, _, hidden = DINOV2_SHAPES[size]
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float = 0.05, mean: float = 0.0) -> Tensor:
        count, numbers = math.prod(shape), normal_numbers()
        first = int(torch.randint(len(numbers) - count, (), generator=generator))
        found = numbers[first : first + count].reshape(shape).mul(std)
        return found.add_(mean) if mean else found

    state = {
        "cls_token": normal(1, 1, width, std=1.0),
        "pos_embed": normal(1, 1 + 37 * 37, width, std=1.0),
        "mask_token": normal(1, width),
        "patch_embed.proj.weight": normal(width, 3, 14, 14),
        "patch_embed.proj.bias": normal(width),
        "norm.weight": normal(width, mean=1.0),
        "norm.bias": normal(width),
    }
    if registers:
        state["register_tokens"] = normal(1, 4, width, std=1.0)
    gated = size == "vitg14"
    for index in range(layers):
        block = f"blocks.{index}"
        for norm in ("norm1", "norm2"):
            state[f"{block}.{norm}.weight"] = normal(width, mean=1.0)
            state[f"{block}.{norm}.bias"] = normal(width)
        for scale in ("ls1", "ls2"):
            state[f"{block}.{scale}.gamma"] = normal(width, mean=0.3)
        linears = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        linears |= (
            {"mlp.w12": (2 * hidden, width), "mlp.w3": (width, hidden)}
            if gated
            else {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
        )
        for name, shape in linears.items():
            state[f"{block}.{name}.weight"] = normal(*shape, std=0.02)
            state[f"{block}.{name}.bias"] = normal(shape[0])
    return state


def dinov2_embed(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Facebook's prepare_tokens: patches, cls, positions at the grid of the images, then registers."""
    patches = functional.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=14)
    grid = patches.shape[-2:]
    tokens = patches.flatten(2).transpose(1, 2)
    table = state["pos_embed"]
    square = table[0, 1:].reshape(37, 37, -1).double().numpy()
    registers = state.get("register_tokens")
    if tuple(grid) == (37, 37):
        resampled = square
    elif registers is None:
        resampled = bicubic(square, grid, [(side + 0.1) / 37 for side in grid])
    else:
        resampled = bicubic_antialias(square, grid)
    positions = torch.from_numpy(resampled).float().reshape(1, -1, tokens.shape[-1])
    cls = (state["cls_token"] + table[:, :1]).expand(len(images), -1, -1)
    between = [registers.expand(len(images), -1, -1)] if registers is not None else []
    return torch.cat([cls, *between, tokens + positions], dim=1)


def dinov2_block(state: dict[str, Tensor], index: int, x: Tensor, heads: int) -> Tensor:
    """One DINOv2 block, with materialised attention and a GELU or SwiGLU MLP."""
    p = {key.removeprefix(f"blocks.{index}."): value for key, value in state.items() if f"blocks.{index}." in key}
    width = x.shape[-1]
    h = functional.layer_norm(x, (width,), p["norm1.weight"], p["norm1.bias"], 1e-6)
    qkv = functional.linear(h, p["attn.qkv.weight"], p["attn.qkv.bias"])
    q, k, v = qkv.reshape(*x.shape[:2], 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    attention = (q @ k.transpose(-2, -1) / math.sqrt(width // heads)).softmax(dim=-1)
    mixed = (attention @ v).transpose(1, 2).reshape(x.shape)
    x = x + p["ls1.gamma"] * functional.linear(mixed, p["attn.proj.weight"], p["attn.proj.bias"])
    h = functional.layer_norm(x, (width,), p["norm2.weight"], p["norm2.bias"], 1e-6)
    if "mlp.w12.weight" in p:
        gate, value = functional.linear(h, p["mlp.w12.weight"], p["mlp.w12.bias"]).chunk(2, dim=-1)
        out = functional.linear(functional.silu(gate) * value, p["mlp.w3.weight"], p["mlp.w3.bias"])
    else:
        hidden = functional.gelu(functional.linear(h, p["mlp.fc1.weight"], p["mlp.fc1.bias"]))
        out = functional.linear(hidden, p["mlp.fc2.weight"], p["mlp.fc2.bias"])
    return x + p["ls2.gamma"] * out


def cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    d = np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _interpolation_matrix(old: int, new: int, scale: float) -> np.ndarray:
    matrix = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) / scale - 0.5
        first = math.floor(centre) - 1
        for tap in range(first, first + 4):
            matrix[row, min(max(tap, 0), old - 1)] += cubic(np.array(centre - tap), a=-0.75)
    return matrix


def _antialias_matrix(old: int, new: int) -> np.ndarray:
    ratio = old / new
    width = max(ratio, 1.0)
    matrix = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * ratio
        first, last = max(int(centre - 2 * width + 0.5), 0), min(int(centre + 2 * width + 0.5), old)
        taps = np.arange(first, last)
        weights = cubic((taps + 0.5 - centre) / width, a=-0.5)
        matrix[row, first:last] = weights / weights.sum()
    return matrix


def bicubic(square: np.ndarray, grid: tuple[int, int], scale: list[float]) -> np.ndarray:
    """Bicubic resampling in float64 by an explicit scale factor, without antialias."""
    rows = _interpolation_matrix(square.shape[0], grid[0], scale[0])
    columns = _interpolation_matrix(square.shape[1], grid[1], scale[1])
    return np.einsum("ia,jb,abd->ijd", rows, columns, square, optimize=True)


def bicubic_antialias(square: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Bicubic resampling in float64 with the antialias filter that PIL and torch share."""
    rows, columns = _antialias_matrix(square.shape[0], grid[0]), _antialias_matrix(square.shape[1], grid[1])
    return np.einsum("ia,jb,abd->ijd", rows, columns, square, optimize=True)
