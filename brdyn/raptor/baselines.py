"""What a span of layers amounts to without any block: the baselines that a Raptor's skill is over.

Three surrogates of a span, entered by the teacher's state x: the identity, x itself; the mean update, x + E(a_l - x);
and one affine map of x for each layer l (ridge, towards the mean update). Autoregressive, x is the state a_s that
enters the span; one-step, it is a_{l-1}, as it is for the block.

Mean update and affine map are of a token group, and cross-fitted: the images are halved by chance, and each half is
judged by what was fitted to the other. Both need sums only (Gaussian moments of x and a_l - x), from one pass. Of a few
ridges the best counts, chosen where it is judged: the benefit is the baseline's, lest its bad fit look like skill.

Each half is summed in five parts, so that intervals can be had by a jackknife: :func:`jackknife`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor
from torchmetrics import Metric

from brdyn.measures.linear_maps import ROUNDING, Shifted, centred, outer_sum, ridge_maps
from brdyn.random_keys import one_in
from brdyn.raptor.model import Raptor
from brdyn.trajectory import Trajectory
from brdyn.words import counted

BASELINES = {"identity": "the identity", "mean_update": "the mean update", "affine": "one affine map"}
HALVES = 2
BLOCKS = 5
FOLDS = BLOCKS * HALVES
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)  # over the mean eigenvalue of the second moment
MOST_BYTES = 4 * 2**30  # of moments; the same on every machine, so that all processes measure the same
EXACT = 1e-6  # of the squared update: errors below are rounding


@dataclass(frozen=True)
class Fitted:
    """How the affine maps were fitted.

    Attributes
    ----------
    ridges : tuple of float
        Over the mean eigenvalue of the second moment; at each layer that of least error counts for a group.
    rows : dict of str to int
        Tokens of each group in the smaller half of the images.
    directions : int
        In which a map may act: the width.
    left_out : str or None
        Why there are no affine maps.
    """

    ridges: tuple[float, ...]
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
            "mean update and affine map: each half of the images judged by what was fitted to the other, the map with "
            f"the best ridge of {', '.join(f'{ridge:g}' for ridge in self.ridges)}"
            + (f"; underdetermined: {few}" if few else "")
        )


def fold_of(positions: Tensor, seed: int) -> np.ndarray:
    """The tenth of the images that each is in: even ones are the first half, odd ones the other. Of any twenty in a row
    two are in each.
    """
    places = positions.cpu().numpy()
    return HALVES * (places // HALVES % BLOCKS) + ~one_in(HALVES, places, seed)


def jackknife(value: Tensor, without: Tensor) -> tuple[Tensor, Tensor]:
    """The 95 % interval of what is computed from sums, by t, from its values without each fold of the images.

    Parameters
    ----------
    value : Tensor
        Of all images.
    without : Tensor, shape (folds, ...)
        NaN, of fewer than two.

    Returns
    -------
    (Tensor, Tensor)
        Low and high end.
    """
    folds = len(without)
    if folds < 2:
        return torch.full_like(value, torch.nan), torch.full_like(value, torch.nan)
    error = ((folds - 1) * without.var(0, correction=0)).sqrt()
    half = float(stdtrit(folds - 1, 0.975)) * error
    return value - half, value + half


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
        self.in_blocks = (
            BLOCKS * size <= MOST_BYTES
        )  # or the moments of maps in halves alone: no interval of theirs
        shapes: dict[str, tuple[int, ...]] = {
            "images": (FOLDS,),
            "squares": (FOLDS, groups, number),
            "updates": (FOLDS, groups, number, width),
            "inputs": (FOLDS, groups, self.depth, width),
        }
        if self.left_out is None:
            folds = FOLDS if self.in_blocks else HALVES
            shapes["second"] = (folds, groups, self.depth, width, width)
            shapes["cross"] = (folds, groups, number, width, width)
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a trajectory."""
        folds = fold_of(trajectory.positions, self.seed)
        for fold in np.unique(folds):
            images = torch.from_numpy(np.flatnonzero(folds == fold)).to(trajectory.states[0].device)
            self.images[fold] += len(images)
            for group, part in enumerate(self.layout.groups.values()):
                for start in range(self.depth):
                    before = self._tokens(trajectory.states[start], images, part)
                    entered = Shifted.of(before)
                    self.inputs[fold, group, start] += entered.total
                    if self.left_out is None:
                        self.second[self._held(fold), group, start] += outer_sum(entered, entered)
                    for layer, slot in self._leading_from(start).items():
                        after = self._tokens(trajectory.states[layer], images, part)
                        self._add(fold, group, slot, entered, Shifted.of(after - before))

    def _held(self, fold: int) -> int:
        """Where the moments of maps are."""
        return fold if self.in_blocks else fold % HALVES

    def _tokens(self, state: Tensor, images: Tensor, part: slice) -> Tensor:
        """Tokens of some images, `(n, D)`, float32, where float64 is to be had."""
        return state[images, part].flatten(0, 1).float().to(self.images.device)

    def _leading_from(self, start: int) -> dict[int, int]:
        """Layers that are predicted from a state, and their places."""
        return {layer: slot for (first, layer), slot in self.pairs.items() if first == start}

    def _add(self, fold: int, group: int, slot: int, entered: Shifted, update: Shifted) -> None:
        self.squares[fold, group, slot] += update.squares
        self.updates[fold, group, slot] += update.total
        if self.left_out is None:
            self.cross[self._held(fold), group, slot] += outer_sum(entered, update)

    def compute(self) -> dict[str, Tensor]:
        """By fold: squared errors summed over images and tokens, `(folds, modes, baselines, groups, L)`, NaN where
        nothing was fitted; the squared updates likewise, `(folds, modes, groups, L)`; and images. Errors of maps whose
        moments are not in blocks stand in the first fold of each half.
        """
        by_pair = torch.stack([self.squares, self._of_means(), self._of_maps()], 1)
        slots = torch.tensor(
            [[self.pairs[entry[layer], layer] for layer in range(1, self.depth + 1)] for entry in self.entry],
            device=by_pair.device,
        )
        errors = by_pair[..., slots]  # folds, baselines, groups, modes, L
        return {
            "errors": errors.permute(0, 3, 1, 2, 4),
            "squares": self.squares[:, :, slots].transpose(1, 2),
            "images": self.images,
        }

    def _counts(self) -> Tensor:
        """Tokens by fold and group."""
        sizes = torch.tensor(
            list(self.layout.sizes().values()), dtype=torch.float64, device=self.images.device
        )
        return self.images[:, None] * sizes

    def _of_means(self) -> Tensor:
        """Squared error of the mean update, `(folds, groups, pairs)`."""
        counts = self._counts()[..., None]
        fitted = by_half(self.updates) / by_half(counts)[..., None]  # NaN where there is none
        others = fitted.flip(0).repeat(BLOCKS, 1, 1, 1)
        return self.squares - 2 * (others * self.updates).sum(-1) + counts * others.square().sum(-1)

    def _of_maps(self) -> Tensor:
        """Squared error of the affine maps, `(folds, groups, pairs)`; NaN where there are none."""
        if self.left_out is not None or not by_half(self.images).all():
            return torch.full_like(self.squares, torch.nan)
        found = torch.zeros(len(RIDGES), *self.squares.shape, dtype=torch.float64, device=self.images.device)
        for half in range(HALVES):
            for group in range(len(self.layout.groups)):
                for start in range(self.depth):
                    slots = list(self._leading_from(start).values())
                    errors = self._judged(half, group, start, slots)  # ridges, blocks, slots
                    for block, error in enumerate(errors.unbind(1)):
                        found[:, HALVES * block + half, group, slots] = error
        best = found.sum(1, keepdim=True).argmin(0, keepdim=True)
        return found.gather(0, best.expand(1, *found.shape[1:]))[0].clamp_min(0)

    def _judged(self, half: int, group: int, start: int, slots: list[int]) -> Tensor:
        """Squared error, `(ridges, blocks, slots)`, on one half of the maps from one state that are fitted to the
        other half."""
        counts, other = self._counts()[:, group], 1 - half
        count, inputs = by_half(counts)[other], by_half(self.inputs[:, group, start])
        total, moments = inputs[other], by_half(self.second[:, group, start])[other]
        updates = by_half(self.updates[:, group, slots])[other]
        cross = by_half(self.cross[:, group, slots])[other]
        second = centred(moments, total, total, count)
        fitted_to = torch.stack(
            [centred(one, total, there, count) for one, there in zip(cross, updates, strict=True)]
        )
        entry, update = total / count, updates / count
        blocks = [
            self._about_fitted(place, group, start, slots, entry, update)
            for place in range(half, FOLDS if self.in_blocks else HALVES, HALVES)
        ]
        errors = []
        for ridge in RIDGES:
            maps = ridge_maps(second, fitted_to, ridge, ROUNDING * moments.trace())
            errors.append(
                torch.stack(
                    [
                        squares - 2 * (maps * explained).sum((1, 2)) + (maps * (spread @ maps)).sum((1, 2))
                        for squares, spread, explained in blocks
                    ]
                )
            )
        return torch.stack(errors)

    def _about_fitted(
        self, place: int, group: int, start: int, slots: list[int], entry: Tensor, update: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A block, or a half, about the means of the fitted half: what is left of each update, squared; the spread of
        what enters; and the products of both."""
        folds = [place] if self.in_blocks else list(range(place, FOLDS, HALVES))
        count, seen = self._counts()[folds, group].sum(), self.inputs[folds, group, start].sum(0)
        moved = self.updates[folds, group][:, slots].sum(0)
        squared = self.squares[folds, group][:, slots].sum(0)
        squares = squared - 2 * (update * moved).sum(-1) + count * update.square().sum(-1)
        spread = _about(self.second[place, group, start], seen, seen, entry, entry, count)
        explained = [
            _about(product, seen, there, entry, mean, count)
            for product, there, mean in zip(self.cross[place, group, slots], moved, update, strict=True)
        ]
        return squares, spread, torch.stack(explained)

    def fitted(self, images: Tensor) -> Fitted:
        """How the maps were fitted, from the images by fold of all processes."""
        fewest = int(by_half(images).min())
        rows = {group: fewest * size for group, size in self.layout.sizes().items()}
        return Fitted(RIDGES, rows, self.width, self.left_out)


def by_half(values: Tensor) -> Tensor:
    """Sums of folds by half, `(2, ...)`."""
    return values.unflatten(0, (-1, HALVES)).sum(0)


def _about(
    products: Tensor, first: Tensor, second: Tensor, centre: Tensor, other: Tensor, count: Tensor
) -> Tensor:
    """Sum of outer products about two points, from that about zero and the sums of rows."""
    shifts = torch.outer(first, other) + torch.outer(centre, second) - count * torch.outer(centre, other)
    return products - shifts


def skill(residual: Tensor, errors: Tensor, squares: Tensor) -> Tensor:
    """1 minus a squared error over that of each baseline.

    Parameters
    ----------
    residual : Tensor, shape (..., modes, groups, L)
    errors, squares : Tensor, shapes (..., modes, baselines, groups, L) and (..., modes, groups, L)
        What :meth:`SpanBaselines.compute` gives, summed over folds.

    Returns
    -------
    Tensor, shape (..., modes, baselines, groups and all, L)
        NaN where nothing moves or nothing was fitted. A baseline whose error is rounding counts with a millionth of the
        squared update.
    """
    errors = errors.maximum(EXACT * squares.unsqueeze(-3))
    errors, residual = (
        torch.cat([values, values.sum(-2, keepdim=True)], dim=-2) for values in (errors, residual)
    )
    return 1 - residual.unsqueeze(-3) / errors.where(errors > 0, torch.nan)
