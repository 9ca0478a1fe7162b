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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor
from torchmetrics import Metric

from brdyn.measures.linear_maps import ROUNDING, Shifted, outer_sum, ridge_maps
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
        entered = {layer: span.start for span in raptor.spans for layer in range(span.start + 1, span.end + 1)}
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
        self.in_blocks = BLOCKS * size <= MOST_BYTES  # or the moments of maps in halves alone: no interval of theirs
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
        sizes = torch.tensor(list(self.layout.sizes().values()), dtype=torch.float64, device=self.images.device)
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
        found = torch.zeros_like(self.squares)
        parts = [[fold] for fold in range(FOLDS)] if self.in_blocks else [_half(0), _half(1)]
        for group in range(len(self.layout.groups)):
            for start in range(self.depth):
                slots = list(self._leading_from(start).values())
                others = [self._moments(_half(1 - half), group, start, slots) for half in range(HALVES)]
                maps = self._best_maps(others, group, start, slots)
                for folds in parts:
                    half = folds[0] % HALVES
                    judged = self._moments(folds, group, start, slots, others[half])
                    found[folds[0], group, slots] = judged.errors(maps[half])
        return found.clamp_min(0)

    def _best_maps(self, others: Sequence[_Moments], group: int, start: int, slots: list[int]) -> list[Tensor]:
        """The maps `(slots, D, D)` that judge each half, by the ridge of least error on both together."""
        halves = [self._moments(_half(half), group, start, slots, one) for half, one in enumerate(others)]
        best: list[Tensor] = []
        least = torch.full((len(slots),), torch.inf, dtype=torch.float64, device=self.images.device)
        for ridge in RIDGES:
            maps = [other.maps(ridge) for other in others]
            errors = torch.stack([one.errors(of) for one, of in zip(halves, maps, strict=True)]).sum(0)
            better = errors < least
            least = errors.where(better, least)
            kept = best or maps
            best = [now.where(better[:, None, None], was) for now, was in zip(maps, kept, strict=True)]
        return best

    def _moments(
        self, folds: list[int], group: int, start: int, slots: list[int], other: _Moments | None = None
    ) -> _Moments:
        """Moments of some folds about their own means, to fit maps to; or about those of others, to judge theirs by."""
        count, seen = self._counts()[folds, group].sum(), self.inputs[folds, group, start].sum(0)
        rows = torch.tensor(folds)[:, None]
        held = torch.tensor(sorted({self._held(fold) for fold in folds}))[:, None]
        moved = self.updates[rows, group, slots].sum(0)
        entry, update = (seen / count, moved / count) if other is None else (other.entry, other.update)
        squared = self.squares[rows, group, slots].sum(0)
        second = self.second[held, group, start].sum(0)[0]
        cross = self.cross[held, group, slots].sum(0)
        return _Moments(
            squared - 2 * (update * moved).sum(-1) + count * update.square().sum(-1),
            _about(second, seen, seen, entry, entry, count),
            _about(cross, seen, moved, entry, update, count),
            entry,
            update,
            ROUNDING * second.trace(),
        )

    def fitted(self, images: Tensor) -> Fitted:
        """How the maps were fitted, from the images by fold of all processes."""
        fewest = int(by_half(images).min())
        rows = {group: fewest * size for group, size in self.layout.sizes().items()}
        return Fitted(RIDGES, rows, self.width, self.left_out)


class _Moments(NamedTuple):
    """Of a state that maps act on and of updates that they are to give, about two points: what is left of each update,
    squared; the spread of the state; products of both; and those points. Rounding is of the spread about zero."""

    squares: Tensor
    spread: Tensor
    explained: Tensor
    entry: Tensor
    update: Tensor
    rounding: Tensor

    def maps(self, ridge: float) -> Tensor:
        """Those of least squares, `(slots, D, D)`."""
        return ridge_maps(self.spread, self.explained, ridge, self.rounding)

    def errors(self, maps: Tensor) -> Tensor:
        """What maps leave of the updates, squared, `(slots,)`."""
        return self.squares - 2 * (maps * self.explained).sum((1, 2)) + (maps * (self.spread @ maps)).sum((1, 2))


def _half(half: int) -> list[int]:
    """The folds of a half of the images."""
    return list(range(half, FOLDS, HALVES))


def by_half(values: Tensor) -> Tensor:
    """Sums of folds by half, `(2, ...)`."""
    return values.unflatten(0, (-1, HALVES)).sum(0)


def _about(products: Tensor, first: Tensor, second: Tensor, centre: Tensor, other: Tensor, count: Tensor) -> Tensor:
    """Sum of outer products about two points, from that about zero and the sums of rows; of several second ones and
    their points, `(slots, D)`, too."""
    first, centre = first[:, None], centre[:, None]
    second, other = second[..., None, :], other[..., None, :]
    return products - (first * other + centre * second - count * (centre * other))


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
    errors, residual = (torch.cat([values, values.sum(-2, keepdim=True)], dim=-2) for values in (errors, residual))
    return 1 - residual.unsqueeze(-3) / errors.where(errors > 0, torch.nan)
