"""Augmentation where the images are: on the GPU, a batch at a time, with torchvision's transforms.

torchvision's RandAugment, applied to a batch, does the same to every image of it. Here every image draws its own
operation, and each operation runs once, on the images that drew it: they share no more than the direction it takes
(left or right, brighter or darker). Crops and flips are drawn for every image, mixing for every batch, as published.
All draws are torch's on the CPU, so that a seeded step repeats exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

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

    def __init__(
        self, settings: AugmentSettings, classes: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.settings, self.classes = settings, classes
        self.mean, self.std = mean, std
        mixing = []
        if settings.cutmix:
            mixing.append(v2.CutMix(alpha=settings.cutmix, num_classes=classes))
        if settings.mixup:
            mixing.append(v2.MixUp(alpha=settings.mixup, num_classes=classes))
        self.mixing = v2.RandomChoice(mixing) if mixing else None
        self.operations = single_operations(settings.magnitude)

    def train(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Augmented, normalised images `(B, 3, H, W)` and class weights `(B, classes)`, each row summing to 1."""
        if self.settings.padding:
            pixels = crop(pixels, self.settings.padding)
        if self.settings.flip:
            mirrored = torch.rand(len(pixels)) < 0.5
            pixels = torch.where(mirrored.to(pixels.device).view(-1, 1, 1, 1), pixels.flip(-1), pixels)
        for _ in range(self.settings.operations):
            pixels = self.operate(pixels)
        images = self.normalised(pixels)
        if self.mixing is None or len(images) < 2:
            return images, functional.one_hot(labels, self.classes).float()
        images, weights = self.mixing(images, labels)
        return images, weights.float()

    def normalised(self, pixels: Tensor) -> Tensor:
        """Images as they are, normalised."""
        return normalised(pixels, self.mean, self.std)

    def operate(self, pixels: Tensor) -> Tensor:
        """One RandAugment operation on every image, its own."""
        drawn = torch.randint(len(self.operations), (len(pixels),))
        changed = pixels.clone()
        for number, operation in enumerate(self.operations):
            rows = (drawn == number).nonzero()[:, 0].to(pixels.device, non_blocking=True)
            if len(rows):
                changed[rows] = operation(pixels[rows])
        return changed


def single_operations(magnitude: int) -> list[v2.RandAugment]:
    """torchvision's RandAugment with one operation to choose from, for each of its operations."""
    space = v2.RandAugment._AUGMENTATION_SPACE
    return [
        type(name, (v2.RandAugment,), {"_AUGMENTATION_SPACE": {name: entry}})(1, magnitude)
        for name, entry in space.items()
    ]


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 images `(B, 3, H, W)` with each channel less its mean, over its standard deviation (of values 0 to 1)."""
    shift, scale = (torch.tensor(values, device=pixels.device).view(1, -1, 1, 1) for values in (mean, std))
    return (pixels.float() / 255 - shift) / scale


def crop(pixels: Tensor, padding: int) -> Tensor:
    """A crop of the images' own size from each, padded by reflection, at a place of its own."""
    count, _, height, width = pixels.shape
    padded = functional.pad(pixels.float(), (padding,) * 4, mode="reflect").to(pixels.dtype)
    device = pixels.device
    top, left = torch.randint(0, 2 * padding + 1, (2, count)).to(device)
    rows = top[:, None] + torch.arange(height, device=device)
    columns = left[:, None] + torch.arange(width, device=device)
    images = torch.arange(count, device=device)
    return padded.permute(0, 2, 3, 1)[images[:, None, None], rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )
