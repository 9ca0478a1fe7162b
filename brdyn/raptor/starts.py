"""Where the blocks of a Raptor start: at random, at a layer of the teacher, or at the mean of all that share."""

from __future__ import annotations

import torch

from brdyn.choices import one_of
from brdyn.data import ImageSet
from brdyn.models import VisionTransformer
from brdyn.raptor.copied import CopiedBlock, layers_of_blocks
from brdyn.raptor.model import Raptor
from brdyn.raptor.recipe import LAYER, MEAN
from brdyn.runtime import in_float64
from brdyn.trajectory import capture

START_IMAGES, BATCH = 64, 16
LEAST = 1e-12  # of the mean squared update of a phase: below it a layer does nothing but float32 rounding


def tie(raptor: Raptor, start: str, images: ImageSet) -> None:
    """Let every block of copies start where it was asked for, with the corrections that its rank allows.

    Parameters
    ----------
    raptor : Raptor
        Of copies of its teacher's blocks.
    start : {"layer", "mean"}
        The layer of each block whose weights do best at all its layers, or the mean of their weights.
    images : ImageSet
        To choose the layer by; :data:`START_IMAGES` are enough.

    Raises
    ------
    UsageError
        If there is no such start.
    """
    one_of("start", start, (LAYER, MEAN))
    chosen: list[int | None] = [None] * raptor.k
    if start == LAYER:
        chosen = list(nearest_layers(raptor.teacher, raptor.assignment, images))
    for block, layer in zip(raptor.shared, chosen, strict=True):
        assert isinstance(block, CopiedBlock)
        block.tie(raptor.teacher, layer)


@torch.no_grad()
def nearest_layers(teacher: VisionTransformer, assignment: tuple[int, ...], images: ImageSet) -> list[int]:
    """For each block the one of its layers that makes the least error at all of them, each from the teacher's state.

    The error at a layer is the squared one over that of doing nothing; they are summed over the layers, without those
    that do nothing themselves.

    Parameters
    ----------
    teacher : VisionTransformer
    assignment : tuple of int
        The block of each layer.
    images : ImageSet
    """
    shared = layers_of_blocks(assignment)
    if all(len(layers) == 1 for layers in shared):
        return [layers[0] for layers in shared]
    errors = torch.zeros(teacher.depth + 1, teacher.depth + 1, dtype=torch.float64)
    nothing = torch.zeros(teacher.depth + 1, dtype=torch.float64)
    for batch in images.batches(BATCH, workers=0):
        states = capture(teacher, batch).states
        for layers in shared:
            for layer in layers:
                before, after = states[layer - 1], states[layer]
                nothing[layer] += in_float64(after - before).square().sum().cpu()
                for candidate in layers:
                    guess = teacher.blocks[candidate - 1](before)
                    errors[candidate, layer] += in_float64(guess - after).square().sum().cpu()
    chosen = []
    for layers in shared:
        done = nothing[layers]
        asked = done > LEAST * done.mean()
        totals = (errors[layers][:, layers][:, asked] / done[asked]).sum(1)
        chosen.append(layers[int(totals.argmin())])
    return chosen
