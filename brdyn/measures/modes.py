"""Dynamic mode decomposition: is a phase one linear operator, applied again and again?

Aswani and Jabari, arXiv 2605.07556. For the phase of layers s + 1 to e, which the state a_s enters, the operator K
minimises the sum over its layers of `|a_{l+1} - K a_l|^2` (ridge) over all tokens of a group. States are centred: each
without its mean over what was fitted, which is large and the same for all images. `K^p a_s` is compared with a_{s+p} on
images that K was not fitted on, beside the best linear map from a_s to a_{s+p} (the endpoint map), a_s itself (the
identity) and the mean state alone. Fitting needs only sums of outer products, D x D.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from brdyn.choices import RIDGE, check_ridge
from brdyn.data import ImageSet
from brdyn.errors import UsageError
from brdyn.measures import intervals
from brdyn.measures.contract import Asked, DepthMeasure
from brdyn.measures.engine import metric_device
from brdyn.measures.found_modes import PREDICTORS, Modes
from brdyn.measures.kinematics import TINY, cosine
from brdyn.measures.linear_maps import ROUNDING, Shifted, centred, least_squares, outer_sum
from brdyn.measures.sampling import SamplingMetric, rows_in
from brdyn.models import TokenLayout, VisionTransformer
from brdyn.random_keys import one_in, random_keys, random_tokens
from brdyn.runtime import available_memory
from brdyn.trajectory import Trajectory

HELD_OUT = 5  # one image of each five
MEMORY_SHARE = 0.25


class DynamicModes(SamplingMetric, DepthMeasure):
    """Streams the second moments between layers, and keeps some tokens of held-out images.

    Parameters
    ----------
    layout : TokenLayout
    depth, width : int
        L and D.
    boundaries : sequence of int, optional
        Of the phases. Without them the moments of all pairs of layers are kept, (L + 1)(L + 2) / 2 instead of about
        3 L, for phases found in the same pass.
    tokens_per_image : int
        Tokens of each group and image that are fitted, drawn by `seed`.
    held_out_images, held_out_tokens : int
        How many are kept for testing, at most. Of every five consecutive images one is held out.
    seed : int
        Draws tokens and held-out images.
    ridge : float
        Added to the second moment, over its mean eigenvalue.
    rank : int, optional
        Use only so many principal directions of the second moment.

    Raises
    ------
    UsageError
        If ridge or rank make no sense, or the moments would take more than a quarter of the free memory.
    """

    DETAILS = Modes

    fitted: Tensor
    held_positions: list[Tensor] | Tensor

    def __init__(
        self,
        layout: TokenLayout,
        depth: int,
        width: int,
        boundaries: Sequence[int] | None = None,
        *,
        tokens_per_image: int = 32,
        held_out_images: int = 128,
        held_out_tokens: int = 16,
        seed: int = 0,
        ridge: float = RIDGE,
        rank: int | None = None,
        device: torch.device | str = "cpu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fit(ridge, rank, width)
        self.layout, self.depth, self.width, self.seed = layout, depth, width, seed
        self.ridge, self.rank = ridge, rank
        self.tokens_per_image, self.held_out_tokens = tokens_per_image, held_out_tokens
        self.held_out_images = held_out_images
        self.pairs = {pair: slot for slot, pair in enumerate(needed_pairs(depth, boundaries))}
        self.flush_at = 4 * width
        rows = len(layout.groups) * self.flush_at + sum(
            2 * held_out_images * min(tokens, held_out_tokens) for tokens in layout.sizes().values()
        )
        size = 8 * len(self.pairs) * width**2 * len(layout.groups) + 4 * rows * (depth + 1) * width
        if size > MEMORY_SHARE * available_memory(torch.device(device)):
            remedy = "give `phases`" if boundaries is None else "take fewer measures"
            raise UsageError(
                f"dynamic mode decomposition would take {size / 2**30:.1f} GiB; {remedy}, "
                "or leave modes out of `measures`"
            )
        self.add_state("fitted", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_rows("held_positions", dtype=torch.long)
        for group, count in layout.sizes().items():
            moments = torch.zeros(len(self.pairs), width, width, dtype=torch.float64)
            self.add_state(f"moments_{group}", moments, dist_reduce_fx="sum")
            sums = torch.zeros(depth + 1, width, dtype=torch.float64)
            self.add_state(f"sums_{group}", sums, dist_reduce_fx="sum")
            self.add_rows(f"pending_{group}", depth + 1, width)
            self.add_rows(f"held_{group}", min(count, held_out_tokens), depth + 1, width)

    @classmethod
    def missing(cls, images: ImageSet) -> str | None:
        """Images enough to hold one out."""
        if len(images) >= HELD_OUT:
            return None
        return f"dynamic modes need at least {HELD_OUT} images, and there are {len(images)}; give more"

    @classmethod
    def make(cls, model: VisionTransformer, asked: Asked) -> Self:
        return cls(
            model.tokens,
            model.depth,
            model.info.width,
            asked.boundaries,
            seed=asked.seed,
            ridge=asked.ridge,
            rank=asked.rank,
            device=metric_device(model),
        )

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a trajectory."""
        held = torch.from_numpy(one_in(HELD_OUT, trajectory.positions.cpu().numpy(), self.seed))
        self.fitted += int((~held).sum())
        assert isinstance(self.held_positions, list)
        for group in self.layout.groups:
            fit = self._tokens(trajectory, group, ~held, self.tokens_per_image).flatten(0, 1)
            pending = getattr(self, f"pending_{group}")
            pending.append(fit)
            if rows_in(pending) >= self.flush_at:
                self._add(group, dim_zero_cat(pending))
                setattr(self, f"pending_{group}", [])
            getattr(self, f"held_{group}").append(self._tokens(trajectory, group, held, self.held_out_tokens))
        self.held_positions.append(trajectory.positions[held].to(self.fitted.device))
        if rows_in(self.held_positions) > 2 * self.held_out_images:
            for name, kept in self._held().items():
                setattr(self, name, [kept])

    def _tokens(self, trajectory: Trajectory, group: str, images: Tensor, count: int) -> Tensor:
        """Some tokens of some images in every state, `(images, tokens, L + 1, D)`, float32."""
        part = self.layout[group]
        positions = trajectory.positions[images].cpu()
        tokens = part.start + random_tokens(positions, part.stop - part.start, count, self.seed)
        device = trajectory.states[0].device
        rows = images.nonzero().to(device)
        index = torch.from_numpy(tokens).to(device)
        chosen = torch.stack([state[rows, index] for state in trajectory.states], dim=2)
        return chosen.float().to(self.fitted.device)

    def _add(self, group: str, rows: Tensor) -> None:
        """Add the sums and outer products of rows `(n, L + 1, D)`."""
        states = [Shifted.of(rows[:, layer]) for layer in range(self.depth + 1)]
        getattr(self, f"sums_{group}").add_(torch.stack([state.total for state in states]))
        moments = getattr(self, f"moments_{group}")
        for (first, second), slot in self.pairs.items():
            moments[slot] += outer_sum(states[first], states[second])

    def _held(self) -> dict[str, Tensor]:
        """Held-out tokens and positions of the images kept, by the name of the state."""
        positions = dim_zero_cat(self.held_positions)
        order = random_keys(positions.cpu(), self.seed).argsort(kind="stable")[: self.held_out_images]
        chosen = torch.from_numpy(np.sort(order)).to(positions.device)
        states = {"held_positions": positions[chosen]}
        for group in self.layout.groups:
            states[f"held_{group}"] = dim_zero_cat(getattr(self, f"held_{group}"))[chosen]
        return states

    def compute(self) -> dict[str, Tensor]:
        """Images fitted, and by group moments `(pairs, D, D)`, sums and held-out tokens `(images, T, L + 1, D)`."""
        if not int(self.fitted) or not rows_in(self.held_positions):
            raise UsageError(
                f"dynamic mode decomposition holds one image of five out and got {int(self.fitted)} to fit; "
                f"use at least {HELD_OUT} readable images, or leave modes out"
            )
        found = {"fitted": self.fitted, **self._held()}
        for group in self.layout.groups:
            pending = getattr(self, f"pending_{group}")
            if rows_in(pending):
                self._add(group, dim_zero_cat(pending))
                setattr(self, f"pending_{group}", [])
            for name in (f"moments_{group}", f"sums_{group}"):
                found[name] = getattr(self, name)
        return found

    def details(self, boundaries: Sequence[int] = ()) -> Modes:
        """Fit and test the operator of every phase.

        Parameters
        ----------
        boundaries : sequence of int
            Last layer of every phase but the last.

        Raises
        ------
        UsageError
            If there are fewer than five images.
        """
        found = self.compute()
        rows: list[dict[str, Any]] = []
        spectra, operators = [], {}
        fitted_rows = {
            group: int(found["fitted"]) * min(size, self.tokens_per_image)
            for group, size in self.layout.sizes().items()
        }
        for phase, (start, end) in enumerate(pairwise([0, *boundaries, self.depth]), 1):
            for group, count in fitted_rows.items():
                sums = found[f"sums_{group}"]
                operator, endpoints = self._fit(found[f"moments_{group}"], sums, count, start, end)
                operators[phase, group] = operator.cpu().numpy()
                spectra.append(_spectrum(operator, phase, group))
                means = sums / count
                held = found[f"held_{group}"].double() - means
                ahead = identity = held[:, :, start]
                for steps, endpoint in enumerate(endpoints, 1):
                    ahead, truth = ahead @ operator.T, held[:, :, start + steps]
                    guesses = (ahead, identity @ endpoint.T, identity, torch.zeros_like(truth))
                    for predictor, guess in zip(PREDICTORS, guesses, strict=True):
                        place = {"phase": phase, "group": group, "steps": steps, "predictor": predictor}
                        rows += [place | row for row in _compare(guess, truth, means[start + steps])]
        n_held = len(found[f"held_{next(iter(self.layout.groups))}"])
        return Modes(
            pd.DataFrame(rows), pd.concat(spectra, ignore_index=True), operators, self.ridge, self.rank,
            int(found["fitted"]), n_held, True, fitted_rows, self.rank or self.width,
        )  # fmt: skip

    def _fit(self, moments: Tensor, sums: Tensor, count: int, start: int, end: int) -> tuple[Tensor, list[Tensor]]:
        """The operator of a phase between centred states, and its endpoint maps 1, 2, … steps ahead."""

        def moment(first: int, second: int) -> Tensor:
            return centred(moments[self.pairs[first, second]], sums[first], sums[second], count)

        def rounding(*layers: int) -> float:
            return ROUNDING * sum(float(moments[self.pairs[layer, layer]].trace()) for layer in layers)

        layers, nothing = range(start, end), torch.zeros_like(moments[0])
        operator = least_squares(
            sum((moment(layer, layer) for layer in layers), nothing),
            [sum((moment(layer, layer + 1) for layer in layers), nothing)],
            self.ridge,
            self.rank,
            rounding(*layers),
        )[0]
        targets = [moment(start, other) for other in range(start + 1, end + 1)]
        return operator, least_squares(moment(start, start), targets, self.ridge, self.rank, rounding(start))


def needed_pairs(depth: int, boundaries: Sequence[int] | None) -> Iterator[tuple[int, int]]:
    """Pairs of states whose moments the operators and endpoint maps of these phases need, or of any phases."""
    if boundaries is None:
        yield from ((layer, layer) for layer in range(depth))
        yield from combinations(range(depth + 1), 2)
        return
    chosen = {(layer, other) for layer in range(depth) for other in (layer, layer + 1)}
    for start, end in pairwise([0, *boundaries, depth]):
        chosen |= {(start, other) for other in range(start, end + 1)}
    yield from sorted(chosen)


def check_fit(ridge: float, rank: int | None, width: int) -> None:
    """Refuse a negative ridge, or a rank that is not from 1 to the width."""
    check_ridge(ridge)
    if rank is not None and not 1 <= rank <= width:
        raise UsageError(f"rank {rank} is not from 1 to the model's width, {width}")


def _spectrum(operator: Tensor, phase: int, group: str) -> pd.DataFrame:
    values = torch.linalg.eigvals(operator).cpu().numpy()
    values = values[np.argsort(-np.abs(values), kind="stable")]
    return pd.DataFrame(
        {
            "phase": phase,
            "group": group,
            "index": np.arange(len(values)),
            "real": values.real,
            "imaginary": values.imag,
            "modulus": np.abs(values),
        }
    )


def _compare(guess: Tensor, truth: Tensor, mean: Tensor) -> Iterator[dict[str, Any]]:
    """Errors and cosines of centred states `(n, T, D)`, whose mean is given."""
    squares = truth.flatten(1).square().sum(1)
    error = (guess - truth).flatten(1).square().sum(1)
    measures = {"relative_error": (error / squares.clamp_min(TINY)).sqrt()}
    for name, offset in {"cosine": torch.zeros_like(mean), "raw_cosine": mean}.items():
        measures[name] = cosine((guess + offset).float(), (truth + offset).float()).mean(1).double()
    for name, values in measures.items():
        count = len(values)
        average, spread = float(values.mean()), float(values.std()) if count > 1 else np.nan
        low, high = intervals.of_mean(average, spread, count)
        yield {
            "measure": name, "mean": average, "low": low, "high": high, "sd": spread, "n_images": count,
        }  # fmt: skip
    share = float(1 - error.sum() / squares.sum()) if squares.any() else np.nan
    yield {
        "measure": "r2", "mean": share, "low": np.nan, "high": np.nan, "sd": np.nan, "n_images": len(truth),
    }  # fmt: skip
