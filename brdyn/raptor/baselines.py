"""What a span of layers amounts to without any block: the baselines that a Raptor's skill is over.

Three surrogates of a span, entered by the teacher's state x: the identity, x itself; the mean update, x + E(a_l - x);
and one affine map of x for each layer l (ridge, towards the mean update). Autoregressive, x is the state a_s that
enters the span; one-step, it is a_{l-1}, as it is for the block.

Mean update and affine map are of a token group, and cross-fitted: the images are halved by chance, and each half is
judged by what was fitted to the other. Both need sums only (Gaussian moments of x and a_l - x), from one pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from brdyn.choices import RIDGE
from brdyn.measures.linear_maps import ROUNDING, Shifted, centred, outer_sum
from brdyn.random_keys import one_in
from brdyn.raptor.model import Raptor
from brdyn.trajectory import Trajectory
from brdyn.words import counted

BASELINES = {"identity": "the identity", "mean_update": "the mean update", "affine": "one affine map"}
HALVES = 2
TINY = 1e-30
MOST_BYTES = 4 * 2**30  # of moments; the same on every machine, so that all processes measure the same
EXACT = 1e-6  # of the squared update: errors below are rounding


@dataclass(frozen=True)
class Fitted:
    """How the affine maps were fitted.

    Attributes
    ----------
    ridge : float
        Over the mean eigenvalue of the second moment.
    rows : dict of str to int
        Tokens of each group in the smaller half of the images.
    directions : int
        In which a map may act: the width.
    left_out : str or None
        Why there are no affine maps.
    """

    ridge: float
    rows: dict[str, int]
    directions: int
    left_out: str | None = None

    def describe(self) -> str:
        """Fit and judgement in a sentence."""
        if self.left_out is not None:
            return f"no affine map: {self.left_out}"
        few = ", ".join(
            f"{group} ({counted(rows, 'row')} for {self.directions} directions)"
            for group, rows in self.rows.items()
            if rows < self.directions
        )
        return (
            f"mean update and affine map (ridge {self.ridge:g}): each half of the images judged by what was fitted to "
            "the other" + (f"; underdetermined: {few}" if few else "")
        )


class SpanBaselines(Metric):
    """Streams what it takes to know the squared error of every baseline at every layer.

    Parameters
    ----------
    raptor : Raptor
        Its spans are replaced.
    seed : int
        Of the halves.
    """

    full_state_update = False
    images: Tensor
    squares: Tensor
    updates: Tensor
    inputs: Tensor
    second: Tensor
    cross: Tensor

    def __init__(self, raptor: Raptor, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layout, self.depth, self.seed = raptor.tokens, raptor.depth, seed
        self.width = width = raptor.info.width
        entered = {
            layer: span.start for span in raptor.spans for layer in range(span.start + 1, span.end + 1)
        }
        # For each mode the state that enters what leads to a layer.
        self.entry = (entered, {layer: layer - 1 for layer in entered})
        pairs = sorted({(start, layer) for entry in self.entry for layer, start in entry.items()})
        self.pairs = {pair: slot for slot, pair in enumerate(pairs)}
        groups, number = len(self.layout.groups), len(pairs)
        size = 8 * HALVES * groups * (self.depth + number) * width**2
        self.left_out = (
            f"the moments of {self.depth} layers of width {width} would take {size / 2**30:.1f} GiB, more than "
            f"{MOST_BYTES // 2**30}"
            if size > MOST_BYTES
            else None
        )
        shapes: dict[str, tuple[int, ...]] = {
            "images": (HALVES,),
            "squares": (HALVES, groups, number),
            "updates": (HALVES, groups, number, width),
            "inputs": (HALVES, groups, self.depth, width),
        }
        if self.left_out is None:
            shapes["second"] = (HALVES, groups, self.depth, width, width)
            shapes["cross"] = (HALVES, groups, number, width, width)
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a trajectory."""
        first = one_in(HALVES, trajectory.positions.cpu().numpy(), self.seed)
        for half, chosen in enumerate((first, ~first)):
            images = torch.from_numpy(np.flatnonzero(chosen)).to(trajectory.states[0].device)
            if not len(images):
                continue
            self.images[half] += len(images)
            for group, part in enumerate(self.layout.groups.values()):
                for start in range(self.depth):
                    before = self._tokens(trajectory.states[start], images, part)
                    entered = Shifted.of(before)
                    self.inputs[half, group, start] += entered.total
                    if self.left_out is None:
                        self.second[half, group, start] += outer_sum(entered, entered)
                    for layer, slot in self._leading_from(start).items():
                        after = self._tokens(trajectory.states[layer], images, part)
                        self._add(half, group, slot, entered, Shifted.of(after - before))

    def _tokens(self, state: Tensor, images: Tensor, part: slice) -> Tensor:
        """Tokens of some images, `(n, D)`, float32, where float64 is to be had."""
        return state[images, part].flatten(0, 1).float().to(self.images.device)

    def _leading_from(self, start: int) -> dict[int, int]:
        """Layers that are predicted from a state, and their places."""
        return {layer: slot for (first, layer), slot in self.pairs.items() if first == start}

    def _add(self, half: int, group: int, slot: int, entered: Shifted, update: Shifted) -> None:
        self.squares[half, group, slot] += update.squares
        self.updates[half, group, slot] += update.total
        if self.left_out is None:
            self.cross[half, group, slot] += outer_sum(entered, update)

    def compute(self) -> dict[str, Tensor]:
        """Squared errors summed over images and tokens, `(modes, baselines, groups, L)`, NaN where nothing was fitted;
        the squared updates likewise, `(modes, groups, L)`; and images by half.
        """
        by_pair = torch.stack([self.squares.sum(0), self._of_means(), self._of_maps()])
        slots = torch.tensor(
            [[self.pairs[entry[layer], layer] for layer in range(1, self.depth + 1)] for entry in self.entry],
            device=by_pair.device,
        )
        errors = by_pair[..., slots]  # baselines, groups, modes, L
        return {
            "errors": errors.permute(2, 0, 1, 3),
            "squares": self.squares.sum(0)[:, slots].transpose(0, 1),
            "images": self.images,
        }

    def _counts(self) -> Tensor:
        """Tokens by half and group."""
        sizes = torch.tensor(
            list(self.layout.sizes().values()), dtype=torch.float64, device=self.images.device
        )
        return self.images[:, None] * sizes

    def _of_means(self) -> Tensor:
        """Squared error of the mean update, `(groups, pairs)`."""
        counts = self._counts()[..., None]
        fitted = (self.updates / counts[..., None]).flip(0)  # to the other half; NaN where that is empty
        error = self.squares - 2 * (fitted * self.updates).sum(-1) + counts * fitted.square().sum(-1)
        return error.sum(0)

    def _of_maps(self) -> Tensor:
        """Squared error of the affine maps, `(groups, pairs)`; NaN where there are none."""
        error = torch.full_like(self.squares[0], torch.nan)
        if self.left_out is None and self.images.all():
            error.zero_()
            for half in range(HALVES):
                for group in range(len(self.layout.groups)):
                    for start in range(self.depth):
                        slots = list(self._leading_from(start).values())
                        error[group, slots] += self._judged(half, group, start, slots)
        return error.clamp_min(0)

    def _judged(self, half: int, group: int, start: int, slots: list[int]) -> Tensor:
        """Squared error on one half of the maps from one state that are fitted to the other half."""
        counts, other = self._counts()[:, group], 1 - half
        count, total = counts[other], self.inputs[other, group, start]
        second = centred(self.second[other, group, start], total, total, count)
        penalty = RIDGE * second.diagonal().mean() + ROUNDING * self.second[other, group, start].trace()
        second.diagonal().add_(penalty.clamp_min(TINY))
        updates = self.updates[other, group, slots]
        cross = [
            centred(product, total, update, count)
            for product, update in zip(self.cross[other, group, slots], updates, strict=True)
        ]
        maps = torch.linalg.solve(second, torch.stack(cross))
        entry, update = total / count, updates / count
        # The judged half about the means of the fitted one: what is left of each update, squared.
        seen, moved = self.inputs[half, group, start], self.updates[half, group, slots]
        own = counts[half]
        squares = (
            self.squares[half, group, slots] - 2 * (update * moved).sum(-1) + own * update.square().sum(-1)
        )
        spread = _about(self.second[half, group, start], seen, seen, entry, entry, own)
        explained = torch.stack(
            [
                _about(product, seen, there, entry, mean, own)
                for product, there, mean in zip(self.cross[half, group, slots], moved, update, strict=True)
            ]
        )
        return squares - 2 * (maps * explained).sum((1, 2)) + (maps * (spread @ maps)).sum((1, 2))

    def fitted(self, images: Tensor) -> Fitted:
        """How the maps were fitted, from the images by half of all processes."""
        fewest = int(images.min())
        rows = {group: fewest * size for group, size in self.layout.sizes().items()}
        return Fitted(RIDGE, rows, self.width, self.left_out)


def _about(
    products: Tensor, first: Tensor, second: Tensor, centre: Tensor, other: Tensor, count: Tensor
) -> Tensor:
    """Sum of outer products about two points, from that about zero and the sums of rows."""
    shifts = torch.outer(first, other) + torch.outer(centre, second) - count * torch.outer(centre, other)
    return products - shifts


def skill(residual: Tensor, found: Mapping[str, Tensor]) -> Tensor:
    """1 minus a squared error over that of each baseline.

    Parameters
    ----------
    residual : Tensor, shape (modes, groups, L)
    found : mapping of str to Tensor
        What :meth:`SpanBaselines.compute` gives.

    Returns
    -------
    Tensor, shape (modes, baselines, groups and all, L)
        NaN where nothing moves or nothing was fitted. A baseline whose error is rounding counts with a millionth of the
        squared update.
    """
    errors = found["errors"].maximum(EXACT * found["squares"][:, None])
    errors, residual = (
        torch.cat([values, values.sum(-2, keepdim=True)], dim=-2) for values in (errors, residual)
    )
    return 1 - residual[:, None] / errors.where(errors > 0, torch.nan)
