"""What a Raptor costs against its teacher: parameters, operations, images per second."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from brdyn import runtime
from brdyn.models import VisionTransformer
from brdyn.raptor.model import Raptor

ROUNDS = 7


@dataclass(frozen=True)
class Cost:
    """Teacher and Raptor side by side.

    Attributes
    ----------
    parameters, teacher_parameters : int
        Of the whole trunks: embedding, blocks, final norm.
    block_parameters, teacher_block_parameters : int
        Of the blocks alone.
    flops, teacher_flops : int
        Floating-point operations of an image: matrix products and convolutions, a multiplication and an addition
        counting two. What a forward pass does once for all its images, as corrected weights are built, is not in it.
    images_per_second, teacher_images_per_second : float
        Medians, forward passes only.
    speed_ratio : float
        Median over rounds of the Raptor's images per second over the teacher's.
    speed_ratio_range : (float, float)
        Least and largest of the rounds.
    batch_size : int
    """

    parameters: int
    teacher_parameters: int
    block_parameters: int
    teacher_block_parameters: int
    flops: int
    teacher_flops: int
    images_per_second: float
    teacher_images_per_second: float
    speed_ratio: float
    speed_ratio_range: tuple[float, float]
    batch_size: int

    def __post_init__(self) -> None:
        """A list, as JSON has it, is a range too."""
        object.__setattr__(self, "speed_ratio_range", tuple(self.speed_ratio_range))

    def describe(self) -> str:
        """Side by side, in a sentence."""
        return (
            f"blocks: {self.block_parameters / 1e6:.1f} M parameters against "
            f"{self.teacher_block_parameters / 1e6:.1f} M; {self.flops / 1e9:.2f} GFLOP an image against "
            f"{self.teacher_flops / 1e9:.2f}; {self.images_per_second:.0f} images/s against "
            f"{self.teacher_images_per_second:.0f}"
        )


def cost(raptor: Raptor, *, batch_size: int | None = None, rounds: int = ROUNDS) -> Cost:
    """Count parameters and operations, and time both models in turn on the same batch.

    Parameters
    ----------
    raptor : Raptor
    batch_size : int, optional
        Default: what fits in memory well.
    rounds : int
    """
    teacher = raptor.teacher
    size = batch_size or runtime.fitting_images(teacher)
    images = torch.zeros(size, 3, *raptor.info.image_size, device=raptor.device, dtype=raptor.dtype)
    models: tuple[VisionTransformer, ...] = (raptor, teacher)
    times: list[list[float]] = [[], []]
    with torch.no_grad():
        for model in models:
            model(images)
        for _ in range(rounds):
            for model, found in zip(models, times, strict=True):
                found.append(runtime.timed(partial(model, images), raptor.device))
    ours, theirs = np.array(times)
    ratios = theirs / ours
    return Cost(
        parameters=raptor.info.parameters,
        teacher_parameters=teacher.info.parameters,
        block_parameters=raptor.block_parameters,
        teacher_block_parameters=teacher.block_parameters,
        flops=flops(raptor),
        teacher_flops=flops(teacher),
        images_per_second=size / float(np.median(ours)),
        teacher_images_per_second=size / float(np.median(theirs)),
        speed_ratio=float(np.median(ratios)),
        speed_ratio_range=(float(ratios.min()), float(ratios.max())),
        batch_size=size,
    )


def flops(model: VisionTransformer) -> int:
    """Floating-point operations of matrix products and convolutions that an image adds to a forward pass."""
    images = torch.zeros(2, 3, *model.info.image_size, device=model.device, dtype=model.dtype)
    one, two = (runtime.flops(partial(model, images[:count])) for count in (1, 2))
    return two - one
