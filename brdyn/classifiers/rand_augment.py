"""RandAugment of a whole batch at once, where the images are.

Cubuk et al., *RandAugment* (arXiv 1909.13719), by torchvision's operations and magnitudes. torchvision's own, applied
to a batch, does the same to every image of it. Here every image draws its own operation and its own direction (left or
right, brighter or darker). Images are put in the order of what they drew, so that each operation takes a slice, and all
draws come to the device at once: a GPU waits for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as images_of

SPACE = v2.RandAugment._AUGMENTATION_SPACE
NAMES = tuple(SPACE)
BINS = 31
GRAY = (0.2989, 0.587, 0.114)


def rand_augment(pixels: Tensor, magnitude: int) -> Tensor:
    """One operation on each of some uint8 images `(B, 3, H, W)`, all draws torch's on the CPU.

    >>> from brdyn.classifiers.rand_augment import rand_augment
    >>> pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    >>> rand_augment(pixels, magnitude=9).shape
    torch.Size([4, 3, 8, 8])
    """
    count = len(pixels)
    return operate(pixels, torch.randint(len(NAMES), (count,)), torch.rand(count) <= 0.5, magnitude)


def operate(pixels: Tensor, operation: Tensor, backwards: Tensor, magnitude: int) -> Tensor:
    """To each image the operation of this number, in the direction that is drawn: both `(B,)`, on the CPU."""
    height, width = pixels.shape[-2:]
    tables = _tables(magnitude, height, width, pixels.device)
    ordered = operation.argsort()
    draws = torch.stack([ordered, (2 * operation + backwards)[ordered]]).to(pixels.device, non_blocking=True)
    found = pixels[draws[0]]
    ends = torch.bincount(operation, minlength=len(NAMES)).cumsum(0).tolist()
    start = ends[0]  # images that stay as they are
    for names, change in CHANGES:
        end = ends[NAMES.index(names[-1])]
        if end > start:
            found[start:end] = change(found[start:end], _Drawn(tables, draws[1, start:end]))
        start = end
    result = torch.empty_like(found)
    result[draws[0]] = found
    return result


class _Drawn(NamedTuple):
    """The tables, and the row of them that each image drew."""

    tables: _Tables
    row: Tensor

    def weights(self) -> tuple[Tensor, Tensor]:
        """Of each image, and of what it is blended with."""
        own, other = (table[self.row].view(-1, 1, 1, 1) for table in (self.tables.own, self.tables.other))
        return own, other


def _blended(images: Tensor, end: Tensor | float, drawn: _Drawn) -> Tensor:
    own, other = drawn.weights()
    return (images * own + end * other).clamp(0, 255).to(images.dtype)


def _gray(images: Tensor) -> Tensor:
    red, green, blue = images.float().unbind(1)
    return (GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue).floor()[:, None]


def _contrasted(images: Tensor, drawn: _Drawn) -> Tensor:
    return _blended(images, _gray(images).mean((1, 2, 3), keepdim=True), drawn)


def _sharpened(images: Tensor, drawn: _Drawn) -> Tensor:
    """From or to each pixel's average with its neighbours, itself five times as heavy; the border stays."""
    if min(images.shape[-2:]) <= 2:
        return images
    values = images.float()
    inner = values[..., 1:-1, 1:-1]
    blurred = ((functional.avg_pool2d(values, 3, 1) * 9 + 4 * inner) / 13).round()
    inner += drawn.weights()[1] * (blurred - inner)
    return values.clamp(0, 255).to(images.dtype)


def _posterized(images: Tensor, drawn: _Drawn) -> Tensor:
    lost = 8 - drawn.tables.bits
    return (images >> lost) << lost


def _moved(images: Tensor, drawn: _Drawn) -> Tensor:
    """Each read at the nearest pixel of the places that its map gives, black outside."""
    height, width = images.shape[-2:]
    grid = drawn.tables.places @ drawn.tables.maps[drawn.row]
    grid = grid.view(-1, height, width, 2)
    return functional.grid_sample(images.float(), grid, "nearest", "zeros", align_corners=False).to(
        images.dtype
    )


CHANGES: tuple[tuple[tuple[str, ...], Callable[[Tensor, _Drawn], Tensor]], ...] = (
    (("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"), _moved),
    (("Brightness",), lambda images, drawn: _blended(images, 0.0, drawn)),
    (("Color",), lambda images, drawn: _blended(images, _gray(images), drawn)),
    (("Contrast",), _contrasted),
    (("Sharpness",), _sharpened),
    (("Posterize",), _posterized),
    (("Solarize",), lambda images, drawn: images_of.solarize(images, drawn.tables.threshold)),
    (("AutoContrast",), lambda images, drawn: images_of.autocontrast(images)),
    (("Equalize",), lambda images, drawn: images_of.equalize(images)),
)
"""What changes images, for operations that stand together in the order of their numbers."""


class _Tables(NamedTuple):
    """Of every operation in both directions, two rows each: the map from places of the result to places of the image
    `(28, 3, 2)`, and weights of the image and of what it is blended with `(28,)`. `places`: x, y and 1 of every pixel
    `(H W, 3)`, from the middle. Bits that are kept, and the threshold, of two operations."""

    maps: Tensor
    own: Tensor
    other: Tensor
    places: Tensor
    bits: int
    threshold: float


@cache
def _tables(magnitude: int, height: int, width: int, device: torch.device) -> _Tables:
    maps, own, sizes = [], [], {}
    for name, (values, signed) in SPACE.items():
        found = values(BINS, height, width)
        sizes[name] = size = 0.0 if found is None else float(found[magnitude])
        for sign in (1, -1) if signed else (1, 1):
            maps.append(_map(name, sign * size, height, width))
            own.append(1 + sign * size)
    weights = torch.tensor([own, [1 - value for value in own]], dtype=torch.float64).float().to(device)
    half = torch.tensor([width / 2, height / 2])
    scaled = torch.tensor(maps).view(-1, 2, 3).transpose(1, 2) / half
    rows, columns = (torch.arange(count) - (count - 1) / 2 for count in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(-1, 3)
    return _Tables(
        scaled.to(device),
        weights[0],
        weights[1],
        places.to(device),
        int(sizes["Posterize"]),
        255 * sizes["Solarize"],
    )


def _map(name: str, size: float, height: int, width: int) -> list[float]:
    """From a place of the result to that of the image, in pixels from the middle: two rows of three."""
    shift = int(size)
    turn = math.radians(-size)
    return {
        "ShearX": [1.0, size, size * height / 2, 0.0, 1.0, 0.0],
        "ShearY": [1.0, 0.0, 0.0, size, 1.0, size * width / 2],
        "TranslateX": [1.0, 0.0, -float(shift), 0.0, 1.0, 0.0],
        "TranslateY": [1.0, 0.0, 0.0, 0.0, 1.0, -float(shift)],
        "Rotate": [math.cos(turn), math.sin(turn), 0.0, -math.sin(turn), math.cos(turn), 0.0],
    }.get(name, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
