"""Untrained twins: networks of a model's own architecture with random weights, to hold its numbers against."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sized
from dataclasses import replace
from typing import Protocol, runtime_checkable

from brdyn.arguments import checked
from brdyn.choices import check_twins
from brdyn.errors import BrdynError, UsageError
from brdyn.models.base import VisionTransformer
from brdyn.models.request import untrained_source
from brdyn.seeds import LARGEST_SEED, check_seed

LAYER_SCALE = re.compile(r"(^|[._])(gamma(_\d)?|lambda_?\d)$")
STILL = 0.01


@runtime_checkable
class Twins(Sized, Iterable[VisionTransformer], Protocol):
    """Models to hold a model's numbers against, of which it is known how many there are."""


class UntrainedTwins:
    """Twins of a model, each drawn when it is asked for, so that only one is in memory beside the model.

    Parameters
    ----------
    model : VisionTransformer
    n : int
    seed : int
        Twin i has the seed `seed + i`; that of a model which is itself untrained is left out.

    Attributes
    ----------
    seeds : tuple of int
        Of the twins, in order.
    """

    def __init__(self, model: VisionTransformer, n: int, seed: int) -> None:
        n, seed = check_twins(n), check_seed(seed)
        if n:
            check_redraws(model)
        self.model = model
        drawn = ((seed + number) % (LARGEST_SEED + 1) for number in range(1, n + 2))
        self.seeds = tuple(one for one in drawn if untrained_source(one) != model.info.weights)[:n]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.seeds)

    def __iter__(self) -> Iterator[VisionTransformer]:
        """Draw them one after another."""
        return map(self._draw, self.seeds)

    def _draw(self, seed: int) -> VisionTransformer:
        model = self.model
        assert model.redraw is not None
        twin = model.redraw(seed)
        _check_alike(model, twin)
        twin.preprocessing = model.preprocessing
        twin.info = replace(twin.info, name=model.info.name)
        return twin.eval().requires_grad_(False).to(device=model.device, dtype=model.dtype)


@checked
def untrained_twins(model: VisionTransformer, n: int, seed: int = 0) -> UntrainedTwins:
    """Networks of a model's architecture with random weights: what its numbers would be without training.

    They have its layers, tokens, image size and preprocessing, and are on its device in its precision; weights are
    drawn as `load_model(..., init="random")` does. The twin of a Raptor has untrained blocks between the embedding and
    the norm of an untrained teacher.

    Parameters
    ----------
    model : VisionTransformer
        Of :func:`brdyn.load_model`, trained or not.
    n : int
        How many; 19 are the fewest for p = .05 of a value outside all of them on a side that was named before.
    seed : int
        They have the seeds from `seed + 1` on, without that of the model where it is untrained itself.

    Returns
    -------
    UntrainedTwins
        `len` says how many, and each loop over it draws them anew, one at a time.

    Raises
    ------
    UsageError
        If nothing is known that initialises the model, as of a module of one's own, or n is negative or more than 1000.
    BrdynError
        When it is drawn, if a twin is not built as the model is.

    Examples
    --------
    >>> [twin.info.weights for twin in brdyn.untrained_twins(model, 2)]
    ['random (untrained, seed 1)', 'random (untrained, seed 2)']
    """
    return UntrainedTwins(model, n, seed)


def check_redraws(model: VisionTransformer, option: str = "null") -> None:
    """Refuse a model that cannot be initialised anew, for what an option asks.

    Raises
    ------
    UsageError
    """
    if model.redraw is None:
        raise UsageError(
            f"nothing is known that initialises {model.info.name!r}, so that there are no untrained twins of it; drop "
            f"`{option}`, or give models that you initialised yourself to brdyn.with_null"
        )


def _check_alike(model: VisionTransformer, twin: VisionTransformer) -> None:
    """Refuse a twin whose trunk is not of the model's shapes: its numbers would be of another architecture."""
    wanted, found = _shape(model), _shape(twin)
    other = next((name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)), None)
    if other is not None:
        raise BrdynError(
            f"an untrained {model.info.name!r} is built otherwise than its weights ({other}: {found.get(other)} "
            f"instead of {wanted.get(other)}), so that there are no twins of it; ask for none"
        )


def _shape(model: VisionTransformer) -> dict[str, object]:
    """Tokens, image size, heads, and the shape of every parameter of the blocks and the norm."""
    parts = {"blocks": model.blocks, "norm": model.norm}
    shapes: dict[str, object] = {
        f"{part}.{name}": tuple(value.shape)
        for part, module in parts.items()
        for name, value in module.named_parameters()
    }
    info = model.info
    said = {"tokens": model.tokens.sizes(), "image size": tuple(info.image_size), "heads": info.heads}
    return {**shapes, **said}


def is_still(model: VisionTransformer) -> bool:
    """Whether LayerScale starts so near 0 that untrained blocks leave a state nearly as it is."""
    scales = [value for name, value in model.blocks.named_parameters() if LAYER_SCALE.search(name)]
    return bool(scales) and all(float(value.abs().max()) < STILL for value in scales)
