"""Changed runs of a network that go through its blocks in one batch, as many as memory holds."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from brdyn.errors import BrdynError
from brdyn.models import VisionTransformer
from brdyn.runtime import fitting_images, is_out_of_memory

Run = TypeVar("Run")


def follow_together(
    model: VisionTransformer,
    runs: Sequence[Run],
    images: int,
    follow: Callable[[Sequence[Run]], None],
    together: int | None = None,
    *,
    what: str,
) -> int | None:
    """Follow all runs, so many at once; half as many where memory is too small.

    Parameters
    ----------
    model : VisionTransformer
    runs : sequence
    images : int
        In each run.
    follow : callable
        Follows some of the runs, in their order; called again with fewer after it ran out of memory.
    together : int, optional
        How many at once; as many as should fit when not given.
    what : str
        What is followed, for the error.

    Returns
    -------
    int or None
        `together`, or how many did fit where it was too many.

    Raises
    ------
    BrdynError
        If memory is too small for one.
    """
    number = together or max(1, fitting_images(model) // images)
    waiting = list(runs)
    while waiting:
        try:
            follow(waiting[:number])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if number == 1:
                raise BrdynError(
                    f"out of memory on {model.device} while following {what}; use a smaller `batch_size`"
                ) from None
            together = number = number // 2
            gc.collect()
            if model.device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        waiting = waiting[number:]
    return together
