"""RandAugment of a whole batch at once, where the images are.

Cubuk et al., *RandAugment* (arXiv 1909.13719), by torchvision's operations and magnitudes. torchvision's own, applied
to a batch, does the same to every image of it. Here every image draws its own operation and its own direction (left or
right, brighter or darker), and those that drew the same are changed together. A GPU waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import atan, degrees
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as images_of

BINS = 31
Change = Callable[[Tensor, Any], Tensor]
OPERATIONS: dict[str, Change] = {
    "Identity": lambda images, size: images,
    "ShearX": lambda images, size: _affine(images, [0, 0], [size, 0.0]),
    "ShearY": lambda images, size: _affine(images, [0, 0], [0.0, size]),
    "TranslateX": lambda images, size: _affine(images, [int(size), 0], [0.0, 0.0]),
    "TranslateY": lambda images, size: _affine(images, [0, int(size)], [0.0, 0.0]),
    "Rotate": images_of.rotate,
    "Brightness": lambda images, size: images_of.adjust_brightness(images, 1 + size),
    "Color": lambda images, size: images_of.adjust_saturation(images, 1 + size),
    "Contrast": lambda images, size: images_of.adjust_contrast(images, 1 + size),
    "Sharpness": lambda images, size: _sharpened(images, size),
    "Posterize": lambda images, size: images_of.posterize(images, round(size)),
    "Solarize": lambda images, size: images_of.solarize(images, 255 * size),
    "AutoContrast": lambda images, size: images_of.autocontrast(images),
    "Equalize": lambda images, size: images_of.equalize(images),
}
NAMES = tuple(OPERATIONS)
MOVES = NAMES[1:6]


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
    changes = _changes(magnitude, pixels.shape[-2], pixels.shape[-1], pixels.device)
    drawn = 2 * operation + backwards
    ordered = drawn.argsort().to(pixels.device, non_blocking=True)
    parts = pixels[ordered].split(torch.bincount(drawn, minlength=len(changes)).tolist())
    changed = [change(part, how) for (change, how), part in zip(changes, parts, strict=True) if len(part)]
    result = torch.empty_like(pixels)
    result[ordered] = torch.cat(changed)
    return result


@cache
def _changes(magnitude: int, height: int, width: int, device: torch.device) -> list[tuple[Change, Any]]:
    """Two for each operation, one a direction. torchvision makes its maps on the CPU, and a GPU would wait for each: it
    moves the numbers of pixels here, once, from 1 on; black ones have 0."""
    numbers = torch.arange(1.0, height * width + 1).view(1, height, width)
    return [
        (_moved, change(numbers, size).flatten().long().to(device)) if name in MOVES else (change, size)
        for name, change in OPERATIONS.items()
        for size in sizes(name, magnitude, height, width)
    ]


def sizes(name: str, magnitude: int, height: int, width: int) -> tuple[float, float]:
    """How much an operation does in its one direction and in its other."""
    most = {
        "ShearX": 0.3,
        "ShearY": 0.3,
        "TranslateX": 150 / 331 * width,
        "TranslateY": 150 / 331 * height,
        "Rotate": 30.0,
    }
    first, last = {"Posterize": (8.0, 4.0), "Solarize": (1.0, 0.0)}.get(name, (0.0, most.get(name, 0.9)))
    size = float(torch.linspace(first, last, BINS)[magnitude])
    return size, size if first else -size


def _affine(images: Tensor, shift: list[float], slopes: list[float]) -> Tensor:
    shear = [degrees(atan(slope)) for slope in slopes]
    return images_of.affine(images, 0.0, shift, 1.0, shear, center=[0, 0])


def _moved(images: Tensor, source: Tensor) -> Tensor:
    return functional.pad(images.flatten(2), (1, 0)).index_select(2, source).view_as(images)


def _sharpened(images: Tensor, size: float) -> Tensor:
    """From or to each pixel's average with its neighbours, itself five times as heavy; the border stays. torchvision's
    has a GPU wait for its kernel."""
    values = images.float()
    inner = values[..., 1:-1, 1:-1]
    if inner.numel():
        blurred = ((functional.avg_pool2d(values, 3, 1) * 9 + 4 * inner) / 13).round()
        inner -= size * (blurred - inner)
    return values.clamp(0, 255).to(images.dtype)
