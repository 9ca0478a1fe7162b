"""Augmentation where the images are: on the GPU, a batch at a time.

Crops, flips and the operations of RandAugment are drawn for every image, mixing for every batch, as published. All
draws are torch's on the CPU, so that a seeded step repeats exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from brdyn.classifiers.rand_augment import rand_augment
from brdyn.classifiers.recipe import AugmentSettings


class Augmentation:
    """Turns uint8 images and class indices into what a network trains on.

    Parameters
    ----------
    settings : AugmentSettings
    classes : int
    mean, std : sequence of float
        Of each channel, of values from 0 to 1.
    """

    def __init__(self, settings: AugmentSettings, classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        self.settings, self.classes = settings, classes
        self.mean, self.std = tuple(mean), tuple(std)
        mixing = []
        if settings.cutmix:
            mixing.append(v2.CutMix(alpha=settings.cutmix, num_classes=classes))
        if settings.mixup:
            mixing.append(v2.MixUp(alpha=settings.mixup, num_classes=classes))
        self.mixing = v2.RandomChoice(mixing) if mixing else None

    def train(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Augmented, normalised images `(B, 3, H, W)` and class weights `(B, classes)`, each row summing to 1."""
        if self.settings.padding:
            pixels = crop(pixels, self.settings.padding)
        if self.settings.flip:
            mirrored = torch.rand(len(pixels)) < 0.5
            pixels = torch.where(mirrored.to(pixels.device).view(-1, 1, 1, 1), pixels.flip(-1), pixels)
        for _ in range(self.settings.operations):
            pixels = rand_augment(pixels, self.settings.magnitude)
        images = self.normalised(pixels)
        if self.mixing is None or len(images) < 2:
            return images, functional.one_hot(labels, self.classes).float()
        images, weights = self.mixing(images, labels)
        return images, weights.float()

    def normalised(self, pixels: Tensor) -> Tensor:
        """Images as they are, normalised."""
        return normalised(pixels, self.mean, self.std)


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 images `(B, 3, H, W)` with each channel less its mean, over its standard deviation (of values 0 to 1)."""
    shift, scale = (_by_channel(tuple(values), pixels.device) for values in (mean, std))
    return (pixels.float() / 255 - shift) / scale


@cache
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """As `(1, 3, 1, 1)`; kept, since a batch that brought it along would make a GPU wait."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


def crop(pixels: Tensor, padding: int) -> Tensor:
    """A crop of the images' own size from each, padded with black, at a place of its own."""
    count, _, height, width = pixels.shape
    padded = functional.pad(pixels, (padding,) * 4)
    device = pixels.device
    top, left = torch.randint(0, 2 * padding + 1, (2, count)).to(device)
    rows = top[:, None] + torch.arange(height, device=device)
    columns = left[:, None] + torch.arange(width, device=device)
    images = torch.arange(count, device=device)
    return padded.permute(0, 2, 3, 1)[images[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
