"""Maps that stand in for a span of layers, fitted from moments that stream: method notes, section 10.

All have the form `x + d + (x - m) A`, where m is the mean state that enters the span, d the mean update over it, each
of a token group, and A one D x D matrix for all tokens:

- mean: A is 0.
- affine: the A that predicts the update of a token about its mean, by ridge least squares.
- power: dynamic mode decomposition. One matrix K for every step within the span, about the mean states of each step,
  and applied as often as the span has layers: A is `K^n - I`.

The ridge draws maps towards the mean update, which is what a block that does the same to every token would do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from brdyn.errors import UsageError
from brdyn.measures.engine import metric_device
from brdyn.measures.linear_maps import ROUNDING, Shifted, centred, outer_sum, ridge_maps
from brdyn.models import TokenLayout, VisionTransformer
from brdyn.runtime import available_memory
from brdyn.trajectory import Trajectory
from brdyn.words import counted

Span = tuple[int, int]
MEAN, AFFINE, POWER = FITTED = ("mean", "affine", "power")
LINEAR = (AFFINE, POWER)  # that need more tokens than directions
MEMORY_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class SpanMap:
    """One map for all tokens, with an offset for each token group.

    Attributes
    ----------
    centre, shift : Tensor, shape (G, D)
        Mean state that enters the span, and mean update over it, of each token group.
    matrix : Tensor, shape (D, D), or None
        What is added of a token's difference from the mean; None for nothing.
    """

    centre: Tensor
    shift: Tensor
    matrix: Tensor | None = None

    def __call__(self, state: Tensor, layout: TokenLayout) -> Tensor:
        """The state `(B, N, D)` after the span."""
        group_of = torch.tensor(
            [number for number, size in enumerate(layout.sizes().values()) for _ in range(size)],
            device=state.device,
        )
        found = state.float() + self.shift[group_of]
        if self.matrix is not None:
            found += (state.float() - self.centre[group_of]) @ self.matrix
        return found.to(state.dtype)


class SpanMoments(Metric):
    """Streams what the maps of some spans need: sums and outer products of states and updates, in float64.

    Parameters
    ----------
    layout : TokenLayout
    depth, width : int
        L and D.
    spans : collection of (int, int)
        The states s and e of each: blocks s + 1 to e are replaced.
    surrogates : collection of str
        Some of `mean`, `affine`, `power`.
    """

    full_state_update = False
    images: Tensor
    totals: Tensor
    second: Tensor
    cross: Tensor

    def __init__(
        self,
        layout: TokenLayout,
        depth: int,
        width: int,
        spans: Collection[Span],
        surrogates: Collection[str],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layout, self.width = layout, width
        pairs, starts = needed(spans, surrogates)
        self.pairs = {pair: slot for slot, pair in enumerate(pairs)}
        self.starts = {start: slot for slot, start in enumerate(starts)}
        shapes = {
            "images": (),
            "totals": (len(layout.groups), depth + 1, width),
            "second": (len(starts), width, width),
            "cross": (len(pairs), width, width),
        }
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a trajectory."""
        self.images += len(trajectory)
        for group, part in enumerate(self.layout.groups.values()):
            tokens = [self._tokens(state[:, part]) for state in trajectory.states]
            for layer, rows in enumerate(tokens):
                self.totals[group, layer] += rows.sum(0, dtype=torch.float64)
            for start, slot in self.starts.items():
                entering = Shifted.of(tokens[start])
                self.second[slot] += outer_sum(entering, entering)
                for (first, last), place in self.pairs.items():
                    if first == start:
                        self.cross[place] += outer_sum(entering, Shifted.of(tokens[last] - tokens[start]))

    def _tokens(self, state: Tensor) -> Tensor:
        """Tokens `(n, D)`, float32, where float64 is to be had."""
        return state.flatten(0, 1).float().to(self.images.device)

    def compute(self) -> dict[str, Tensor]:
        """The sums, over all processes."""
        return {name: getattr(self, name) for name in ("images", "totals", "second", "cross")}

    def fit(
        self, surrogates: Collection[str], spans: Collection[Span], ridge: float, model: VisionTransformer
    ) -> dict[tuple[str, Span], SpanMap]:
        """The maps of spans, on the device of a model, from the images that were seen so far."""
        found = Fit(self.layout, self.compute(), self.pairs, self.starts, ridge)
        matrices = {MEAN: lambda span: None, AFFINE: found.affine, POWER: found.power}
        maps: dict[tuple[str, Span], SpanMap] = {}
        for span in spans:
            centre, shift = (values.float().to(model.device) for values in found.means(span))
            for name in surrogates:
                matrix = matrices[name](span)
                maps[name, span] = SpanMap(centre, shift, None if matrix is None else matrix.float().to(model.device))
        return maps


@dataclass(frozen=True, eq=False)
class Fit:
    """Maps from moments."""

    layout: TokenLayout
    moments: Mapping[str, Tensor]
    pairs: Mapping[Span, int]
    starts: Mapping[int, int]
    ridge: float

    @property
    def counts(self) -> Tensor:
        """Tokens of each group, `(G,)`."""
        totals = self.moments["totals"]
        sizes = torch.tensor(list(self.layout.sizes().values()), dtype=totals.dtype, device=totals.device)
        return self.moments["images"] * sizes

    def means(self, span: Span) -> tuple[Tensor, Tensor]:
        """Mean state that enters a span, and mean update over it, of each group."""
        first, last = (self.moments["totals"][:, layer] / self.counts[:, None] for layer in span)
        return first, last - first

    def affine(self, span: Span) -> Tensor:
        """The matrix that predicts the update over a span."""
        return ridge_maps(self._second(span[0]), self._cross(span), self.ridge, self._rounding(span[0]))

    def power(self, span: Span) -> Tensor:
        """What as many powers as the span has layers of one operator of its steps add."""
        steps = list(pairwise(range(span[0], span[1] + 1)))
        second = torch.stack([self._second(start) for start, _ in steps]).sum(0)
        cross = torch.stack([self._cross(step) for step in steps]).sum(0)
        rounding = torch.stack([self._rounding(start) for start, _ in steps]).sum()
        eye = torch.eye(len(second), dtype=second.dtype, device=second.device)
        operator = eye + ridge_maps(second, cross, self.ridge, rounding)
        return torch.linalg.matrix_power(operator, len(steps)) - eye

    def _second(self, start: int) -> Tensor:
        """Outer products of states about the mean of each group."""
        states = self.moments["totals"][:, start]
        return self._about_means(self.moments["second"][self.starts[start]], states, states)

    def _cross(self, span: Span) -> Tensor:
        """Outer products of states with the updates over a span, about the means of each group."""
        first, last = (self.moments["totals"][:, layer] for layer in span)
        return self._about_means(self.moments["cross"][self.pairs[span]], first, last - first)

    def _about_means(self, products: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Outer products about means, from those about zero and the sums of the rows of each group."""
        for ours, theirs, count in zip(first, second, self.counts, strict=True):
            products = centred(products, ours, theirs, count)
        return products

    def _rounding(self, start: int) -> Tensor:
        return ROUNDING * self.moments["second"][self.starts[start]].trace()


def needed(spans: Collection[Span], surrogates: Collection[str]) -> tuple[list[Span], list[int]]:
    """The pairs of states whose moments the maps of spans need, and the first states of those."""
    pairs = set(spans) if AFFINE in surrogates else set()
    if POWER in surrogates:
        pairs |= {(layer, layer + 1) for start, end in spans for layer in range(start, end)}
    return sorted(pairs), sorted({start for start, _ in pairs})


def check_memory(model: VisionTransformer, spans: Collection[Span], surrogates: Collection[str]) -> None:
    """Refuse moments that would take more than a quarter of the free memory.

    Raises
    ------
    UsageError
        With what they would take.
    """
    pairs, starts = needed(spans, surrogates)
    size = 8 * model.info.width**2 * (len(pairs) + len(starts))
    if size > MEMORY_SHARE * available_memory(metric_device(model)):
        raise UsageError(
            f"maps of {counted(len(spans), 'span')} of width {model.info.width} would take {size / 2**30:.1f} GiB; "
            "name fewer `spans`, or leave affine and power out of `surrogates`"
        )


def tokens_lacking(images: int, model: VisionTransformer) -> str | None:
    """Why so many images are too few for a map of a model's width, which needs more tokens than directions.

    >>> from brdyn.interventions.span_maps import tokens_lacking
    >>> tokens_lacking(38, model)
    '38 images of 5 tokens are 190 rows, too few for a map of width 192, which needs 193: at least 39 images'
    """
    tokens, least = model.tokens.count, model.info.width + 1
    if images * tokens >= least:
        return None
    return (
        f"{counted(images, 'image')} of {counted(tokens, 'token')} are {images * tokens} rows, too few for a map of "
        f"width {model.info.width}, which needs {least}: at least {-(-least // tokens)} images"
    )
