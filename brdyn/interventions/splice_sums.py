"""What becomes of the last state when a span of layers is replaced: errors by image, resampled as they stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric

from brdyn.interventions.splice_cells import EXCHANGE, IDENTITY, Cell
from brdyn.measures import intervals
from brdyn.measures.bootstrap import poisson_weights
from brdyn.measures.moments import r_squared, with_sum
from brdyn.models import TokenLayout
from brdyn.phases import Phases

ALL, HEAD = "all", "head"
SKILL, R2, COSINE, AGREEMENT = "skill", "r2", "cosine", "agreement"
WITHIN, ACROSS, DIFFERENCE = "within phases", "across phases", "across minus within"
WORK = ("group", "where", "cells", "mean", "low", "high", "sd", "n_images")
SUMS = ("errors", "cosines", "agreeing", "squares", "tokens", "images")


class SpliceSums(Metric):
    """Streams errors, cosines and agreement of every cell, of all images and of every resampled set of them.

    What is compared with what (a surrogate with doing nothing) is summed with the same weights, so that intervals are
    of paired images.

    Parameters
    ----------
    layout : TokenLayout
    width : int
        D.
    cells : sequence of Cell
    replicates, seed : int
        Of the bootstrap over images.
    """

    full_state_update = False
    errors: Tensor
    cosines: Tensor
    agreeing: Tensor
    squares: Tensor
    tokens: Tensor
    images: Tensor

    def __init__(
        self,
        layout: TokenLayout,
        width: int,
        cells: Sequence[Cell],
        replicates: int,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layout, self.cells = layout, list(cells)
        self.replicates, self.seed = replicates, seed
        sets, groups = 1 + replicates, len(layout.groups)  # the first set is of all images, each once
        shapes = {
            "errors": (sets, len(self.cells), groups),
            "cosines": (sets, len(self.cells), groups),
            "agreeing": (sets, len(self.cells)),
            "squares": (sets, groups),
            "tokens": (sets, groups, width),
            "images": (sets,),
        }
        for name in SUMS:
            self.add_state(name, torch.zeros(shapes[name], dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, positions: Tensor, clean: Tensor, errors: Tensor, cosines: Tensor, agreeing: Tensor) -> None:
        """Add some images.

        Parameters
        ----------
        positions : Tensor, shape (B,)
            Of the images in their set.
        clean : Tensor, shape (B, N, D)
            The last state of the network as it is.
        errors, cosines : Tensor, shape (B, cells, G)
            Of its tokens, summed over those of each group; as :func:`compared` gives them.
        agreeing : Tensor, shape (B, cells)
            1 where the head says the same.
        """
        weights = torch.cat(
            [
                torch.ones(len(positions), 1, dtype=torch.float64),
                poisson_weights(positions.cpu(), self.replicates, self.seed),
            ],
            1,
        ).T.to(self.images.device)

        def weighted(values: Tensor) -> Tensor:
            exact = values.to(self.images.device).double()
            return (weights @ exact.flatten(1)).unflatten(1, exact.shape[1:])

        parts = [clean[:, part].float() for part in self.layout.groups.values()]
        self.errors += weighted(errors)
        self.cosines += weighted(cosines)
        self.agreeing += weighted(agreeing)
        self.squares += weighted(torch.stack([part.square().sum((1, 2)) for part in parts], 1))
        self.tokens += weighted(torch.stack([part.sum(1) for part in parts], 1))
        self.images += weights.sum(1)

    def compute(self) -> dict[str, Tensor]:
        """The sums, over all processes."""
        return {name: getattr(self, name) for name in SUMS}

    def found(self) -> Found:
        """What the sums amount to."""
        return Found(self.layout, self.cells, self.compute())


class Found:
    """Statistics of the cells, in all images (index 0) and in every resampled set of them."""

    def __init__(self, layout: TokenLayout, cells: Sequence[Cell], sums: dict[str, Tensor]) -> None:
        self.cells, self.groups = list(cells), [*layout.groups, ALL]
        self._sums = sums
        device = sums["images"].device
        sizes = torch.tensor(list(layout.sizes().values()), dtype=torch.float64, device=device)
        self._tokens = with_sum(sums["images"][:, None] * sizes, -1)  # sets, groups and all
        self.errors = with_sum(sums["errors"], -1)
        self.n_images = int(sums["images"][0])

    def ratios(self, precision: float) -> Tensor:
        """Squared error over that of doing nothing in the same span, `(sets, cells, groups and all)`.

        NaN where doing nothing makes no error beyond rounding, as of blocks that do nothing themselves: none that is
        twice what two passes can differ by, if each of L blocks rounds by a twelfth of a step in the mean square.
        """
        place = {cell.span: index for index, cell in enumerate(self.cells) if cell.surrogate == IDENTITY}
        nothing = self.errors[:, [place[cell.span] for cell in self.cells]]
        depth = max(cell.end for cell in self.cells)
        least = 4 * (2 * depth / 12) * precision**2 * with_sum(self._sums["squares"], -1)[:, None]
        return self.errors / nothing.where(nothing > least, torch.nan)

    def r_squared(self) -> Tensor:
        """`(sets, cells, groups and all)`."""
        truth = (with_sum(self._sums["squares"], -1)[:, None], with_sum(self._sums["tokens"], -2)[:, None])
        return r_squared(self.errors, *truth, self._tokens[:, None])

    def cosine(self) -> Tensor:
        """To the true tokens, `(sets, cells, groups and all)`."""
        return with_sum(self._sums["cosines"], -1) / self._tokens[:, None]

    def agreement(self) -> Tensor:
        """Share of images with the same prediction, `(sets, cells)`."""
        return self._sums["agreeing"] / self._sums["images"][:, None]

    def table(self, precision: float, with_head: bool) -> pd.DataFrame:
        """One row per cell, measure and token group, with its interval over images."""
        rows: list[dict[str, Any]] = []
        measures = {SKILL: 1 - self.ratios(precision), R2: self.r_squared(), COSINE: self.cosine()}
        for measure, values in measures.items():
            for place, group in enumerate(self.groups):
                rows += self._rows(measure, group, values[..., place])
        if with_head:
            rows += self._rows(AGREEMENT, HEAD, self.agreement())
        return pd.DataFrame(rows)

    def _rows(self, measure: str, group: str, values: Tensor) -> Iterator[dict[str, Any]]:
        means, lows, highs = self._interval(values)
        if measure == AGREEMENT:
            lows, highs = intervals.of_share(means, self.n_images)
        for cell, mean, low, high in zip(self.cells, means, lows, highs, strict=True):
            yield {
                **cell._asdict(), "group": group, "measure": measure, "mean": mean, "low": low, "high": high,
                "sd": np.nan, "n_images": self.n_images,
            }  # fmt: skip

    def _interval(self, values: Tensor) -> np.ndarray:
        """Value of all images, and the 95 % interval of the resampled sets, `(3, ...)`; NaN where it is not known."""
        exact = values.cpu().numpy()
        exact[~np.isfinite(exact)] = np.nan
        ends = np.full((2, *exact.shape[1:]), np.nan)
        if self.n_images > 1:
            known = exact[1:][(self._sums["images"][1:] > 0).cpu().numpy()]  # a set may have drawn no image
            ends = np.percentile(known, [2.5, 97.5], axis=0)
        return np.concatenate([exact[:1], ends])

    def exchanged(self, precision: float, phases: Phases) -> tuple[pd.DataFrame, np.ndarray]:
        """Whether a block does another's work: its error over that of doing nothing, cells weighted alike.

        Returns
        -------
        (DataFrame, ndarray)
            Rows `group, where, cells, mean, low, high, sd, n_images`, `where` being `within phases`, `across phases`,
            `across minus within` or the layers of a phase; and the ratios of all tokens, `(L, L)`, row l by column m
            for layer m's block in the place of layer l's, NaN on the diagonal.
        """
        places = [index for index, cell in enumerate(self.cells) if cell.surrogate == EXCHANGE]
        whose = [(self.cells[index].end, self.cells[index].block) for index in places]
        pairs = np.array(whose, dtype=int).reshape(-1, 2)
        ratios = self.ratios(precision)[:, places]
        phase = phases.labels[pairs - 1]
        within = phase[:, 0] == phase[:, 1]
        chosen = {WITHIN: within, ACROSS: ~within}
        for number, (first, last) in enumerate(phases.intervals):
            if last > first:
                chosen[f"layers {first}-{last}"] = within & (phase[:, 0] == number)
        rows: list[dict[str, Any]] = []
        for place, group in enumerate(self.groups):
            known = ratios[0, :, place].isfinite().cpu().numpy()
            means = {where: ratios[:, mask & known, place].mean(1) for where, mask in chosen.items() if mask.any()}
            if WITHIN in means and ACROSS in means:
                means[DIFFERENCE] = means[ACROSS] - means[WITHIN]
            for where, values in means.items():
                mean, low, high = self._interval(values)
                cells = int((chosen[where] & known).sum()) if where in chosen else int(known.sum())
                rows.append(
                    {
                        "group": group, "where": where, "cells": cells, "mean": mean, "low": low, "high": high,
                        "sd": np.nan, "n_images": self.n_images,
                    }
                )  # fmt: skip
        matrix = np.full((phases.layers, phases.layers), np.nan)
        matrix[tuple((pairs - 1).T)] = ratios[0, :, -1].cpu().numpy()
        return pd.DataFrame(rows, columns=WORK), matrix


def compared(state: Tensor, clean: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor]:
    """Squared errors and cosines of tokens, summed over those of each group.

    Parameters
    ----------
    state : Tensor, shape (runs, B, N, D)
    clean : Tensor, shape (B, N, D)
    layout : TokenLayout

    Returns
    -------
    (Tensor, Tensor)
        Each `(B, runs, G)`, float32; NaN of a state that is not finite.
    """
    truth, guess = clean.float(), state.float()
    errors = (guess - truth).square().sum(-1)
    errors = errors.where(errors.isfinite(), torch.nan)
    cosines = functional.cosine_similarity(guess, truth.expand_as(guess), dim=-1)
    parts = list(layout.groups.values())
    found = [
        torch.stack([values[..., part].sum(-1) for part in parts], -1).transpose(0, 1) for values in (errors, cosines)
    ]
    return found[0], found[1]
