"""A short warm-up: how fast a model is on this machine, and what share of its time each block takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brdyn.data import ImageSet
from brdyn.models import VisionTransformer
from brdyn.runtime import fitting_images, synchronise, timed

SECONDS = 0.5  # that a batch of the warm-up may take
MOST = {"cuda": 32}
ROUNDS = 5


@dataclass(frozen=True)
class Speed:
    """What the warm-up measured.

    Attributes
    ----------
    images_per_second : float
        Of forward passes, the median of a few.
    batch_size : int
    reading : float
        Seconds to read and decode an image.
    blocks : tuple of float
        Share of the time of a forward pass that each block takes, each part by its fastest pass.

    Examples
    --------
    >>> from brdyn.reporting.speed import Speed
    >>> Speed(images_per_second=10.0, batch_size=4, reading=0.01, blocks=(0.5, 0.25)).seconds(20, passes=2)
    4.2
    """

    images_per_second: float
    batch_size: int
    reading: float
    blocks: tuple[float, ...]

    def seconds(self, images: int, passes: float) -> float:
        """About how long so many passes over so many images take."""
        return images * (passes / self.images_per_second + self.reading)


def measure_speed(model: VisionTransformer, images: ImageSet) -> Speed:
    """Read one batch and send it through the model a few times.

    Raises
    ------
    BrdynError
        If no image can be read.
    """
    started = time.perf_counter()
    batch = next(iter(images.batches(min(len(images), 8), workers=0)))
    reading = (time.perf_counter() - started) / len(batch)
    pictures = batch.images.to(model.device, model.dtype)
    with torch.no_grad():
        model(pictures[:1])
        one = timed(lambda: model(pictures[:1]), model.device)
        size = max(1, min(int(SECONDS / one), MOST.get(model.device.type, 8), fitting_images(model)))
        pictures = pictures.repeat(-(-size // len(pictures)), 1, 1, 1)[:size]
        rounds = np.array([_timed_parts(model, pictures) for _ in range(ROUNDS)])
    least = rounds.min(0)  # what else the machine does makes a part slower, and never faster
    shares = least[1:-1] / least.sum()
    return Speed(size / float(np.median(rounds.sum(1))), size, reading, tuple(map(float, shares)))


def _timed_parts(model: VisionTransformer, pictures: Tensor) -> list[float]:
    """Seconds of the embedding, of each block, and of the norm."""
    seconds, state = [], pictures
    for part in (model.embed, *model.blocks, model.norm):
        synchronise(model.device)
        started = time.perf_counter()
        state = part(state)
        synchronise(model.device)
        seconds.append(time.perf_counter() - started)
    return seconds
