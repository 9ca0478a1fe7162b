"""Context managers that change a model's depth for a while: perturb, swap, delete, shuffle, replace.

The model is as before afterwards, also when something inside fails. They can be nested (a perturbation innermost), and
combined with :func:`brdyn.trajectory.capture` and everything built on it. Layers are numbered from 1 to L; state 0 is
the embedding.

>>> batch = next(images.batches(4))
>>> with brdyn.interventions.swap(model, 3, 5):
...     changed = brdyn.capture(model, batch)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brdyn.arguments import checked
from brdyn.choices import check_eps
from brdyn.errors import UsageError
from brdyn.interventions.noise import relative_noise
from brdyn.models import TokenLayout, VisionTransformer
from brdyn.seeds import check_seed


class _Step(nn.Module):
    """One application of a block: a module of its own even where a block is applied twice."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, state: Tensor) -> Tensor:
        return self.block(state)


class _NoisyStep(_Step):
    """A step whose input or output gets noise from a hook on it."""


@checked
@contextmanager
def reorder(model: VisionTransformer, order: Sequence[int]) -> Iterator[VisionTransformer]:
    """Apply the blocks in another order, some of them perhaps twice or not at all.

    Parameters
    ----------
    model : VisionTransformer
    order : sequence of int
        The layer whose block is applied at each step.

    Raises
    ------
    UsageError
        If a layer is not from 1 to L, or there is none.

    Examples
    --------
    >>> with brdyn.interventions.reorder(model, [1, 2, 3, 3, 3]):
    ...     trajectory = brdyn.capture(model, next(images.batches(4)))
    >>> trajectory.depth, model.depth
    (5, 12)
    """
    if not len(order):
        raise UsageError(f"no layer of {model.info.name!r} would be left; keep at least one")
    for layer in order:
        check_layer(model, layer)
    if any(isinstance(block, _NoisyStep) for block in model.blocks):
        raise UsageError(
            "a perturbation belongs to a place in depth and must be the innermost: `with swap(…), perturb(…)`"
        )
    blocks = model.blocks
    model.blocks = nn.ModuleList([_Step(blocks[layer - 1]) for layer in order])
    try:
        yield model
    finally:
        model.blocks = blocks


@checked
@contextmanager
def swap(model: VisionTransformer, first: int, second: int) -> Iterator[VisionTransformer]:
    """Exchange two layers.

    >>> pictures = next(images.batches(4)).images
    >>> with brdyn.interventions.swap(model, 3, 5):
    ...     swapped = model(pictures)
    >>> torch.equal(swapped, model(pictures))
    False
    """
    pair = (check_layer(model, first), check_layer(model, second))
    with reorder(model, rearranged(model.depth, pair, pair[::-1])):
        yield model


@checked
@contextmanager
def delete(model: VisionTransformer, *layers: int) -> Iterator[VisionTransformer]:
    """Leave layers out: their input goes to the next layer.

    >>> with brdyn.interventions.delete(model, 4, 5):
    ...     print(model.depth)
    10
    """
    gone = {check_layer(model, layer) for layer in layers}
    with reorder(model, [layer for layer in range(1, model.depth + 1) if layer not in gone]):
        yield model


@checked
@contextmanager
def replace(model: VisionTransformer, layer: int, by: int) -> Iterator[VisionTransformer]:
    """Apply another layer's block in the place of a layer's.

    >>> with brdyn.interventions.replace(model, 6, by=5):
    ...     state = brdyn.capture(model, next(images.batches(4))).states[6]
    >>> clean = brdyn.capture(model, next(images.batches(4)))
    >>> torch.equal(state, model.blocks[4](clean.states[5]))
    True
    """
    with reorder(model, rearranged(model.depth, [check_layer(model, layer)], [check_layer(model, by)])):
        yield model


@checked
@contextmanager
def shuffle(model: VisionTransformer, layers: Sequence[int], seed: int = 0) -> Iterator[VisionTransformer]:
    """Apply some layers in a random order, never the true one; the others stay where they are.

    Layers of one phase are shuffled within it, any others across phases.

    Raises
    ------
    UsageError
        If a layer is unknown or named twice, or there are fewer than two.

    Examples
    --------
    >>> pictures = next(images.batches(4)).images
    >>> with brdyn.interventions.shuffle(model, [3, 4, 5], seed=1):
    ...     shuffled = model(pictures)
    >>> torch.equal(shuffled, model(pictures))
    False
    """
    with reorder(model, shuffled(model.depth, [check_layer(model, layer) for layer in layers], seed)):
        yield model


@checked
@contextmanager
def perturb(
    model: VisionTransformer, layer: int, eps: float, tokens: str | Sequence[str] = "all", seed: int = 0
) -> Iterator[VisionTransformer]:
    """Add Gaussian noise to the state a_l before it goes on: to each token, a vector of norm `eps |a_l|`.

    Parameters
    ----------
    model : VisionTransformer
    layer : int
        From 0 (the embedding) to L (the state before the final norm).
    eps : float
        Norm of the noise over the norm of the token.
    tokens : str or sequence of str
        Token groups, in one text joined by `+`, or `all`.
    seed : int
        Images get noise of their own, in the order in which they go through the model.

    Raises
    ------
    UsageError
        If there is no such state or token group, or eps is negative.

    Examples
    --------
    >>> batch = next(images.batches(4))
    >>> with brdyn.interventions.perturb(model, 6, eps=0.1, tokens="cls"):
    ...     noisy = brdyn.capture(model, batch).states[6]
    >>> clean = brdyn.capture(model, batch).states[6]
    >>> size = (noisy - clean).norm(dim=-1) / clean.norm(dim=-1)
    >>> round(size[0, 0].item(), 3), size[0, 1].item()  # of cls, of a patch
    (0.1, 0.0)
    """
    if layer != 0:
        check_layer(model, layer)
    parts = token_slices(model.tokens, tokens)
    check_eps([eps])
    seed = check_seed(seed)
    seen = 0

    def disturbed(state: Tensor) -> Tensor:
        nonlocal seen
        positions = torch.arange(seen, seen + len(state))
        seen += len(state)
        noise = relative_noise(state, positions, layer, seed)
        changed = state.clone()
        for part in parts:
            changed[:, part] += eps * noise[:, part]
        return changed

    def before_first(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (disturbed(inputs[0]), *inputs[1:])

    def after(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return disturbed(output)

    blocks = model.blocks
    number = max(layer, 1) - 1
    step = _NoisyStep(blocks[number])
    if layer == 0:
        step.register_forward_pre_hook(before_first)
    else:
        step.register_forward_hook(after)
    model.blocks = nn.ModuleList([*blocks[:number], step, *blocks[number + 1 :]])
    try:
        yield model
    finally:
        model.blocks = blocks


def rearranged(depth: int, places: Sequence[int], layers: Sequence[int]) -> tuple[int, ...]:
    """The layers 1..L with these layers at these places."""
    order = list(range(1, depth + 1))
    for place, layer in zip(places, layers, strict=True):
        order[place - 1] = layer
    return tuple(order)


def shuffled(depth: int, layers: Sequence[int], seed: int) -> list[int]:
    """The layers 1..L with some of them in a random order that is not the true one."""
    places = sorted(set(layers))
    if len(places) < 2 or len(places) < len(layers):
        raise UsageError(f"layers {list(layers)} cannot be shuffled; name at least two, each once")
    rng = np.random.default_rng(check_seed(seed))
    drawn = places
    while drawn == places:
        drawn = [int(layer) for layer in rng.permutation(places)]
    return list(rearranged(depth, places, drawn))


def check_layer(model: VisionTransformer, layer: int) -> int:
    """The layer, if the model has it."""
    if not 1 <= layer <= model.depth:
        raise UsageError(f"layer {layer} is not from 1 to {model.depth}, the layers of {model.info.name!r}")
    return layer


def canonical(layout: TokenLayout, tokens: str | Sequence[str]) -> str:
    """`registers+cls` as `cls+registers`, each group once; `all` where it is among them.

    Raises
    ------
    UsageError
        If the model has no such tokens.
    """
    names = {name.strip() for name in (tokens.split("+") if isinstance(tokens, str) else tokens)}
    for name in names - {"all"}:
        layout[name]
    return "all" if "all" in names else "+".join(name for name in layout.groups if name in names)


def token_slices(layout: TokenLayout, tokens: str | Sequence[str]) -> list[slice]:
    """Slices of the token axis for `cls`, `cls+registers`, `all`, …"""
    wanted = canonical(layout, tokens)
    return [layout[name] for name in (layout.groups if wanted == "all" else wanted.split("+"))]
