"""How blocks stretch what enters them: finite-time Lyapunov exponents along depth, singular values, and coupling.

`J_l` is the derivative of block l at an image's own state, on all N tokens at once, without the radial direction of
every token (:class:`brdyn.measures.jacobian.BlockJacobian`). m orthonormal vectors, drawn at random in the embedding,
are carried through depth by forward-mode products, `J_l Q_{l-1} = Q_l R_l` (QR): log R_ii of block l is the growth of
index i, and its mean over the L blocks the finite-time Lyapunov exponent `lambda_i`. With few blocks they are those of
a generic change of the embedding, at most the largest there are. Growth is absolute: norms grow with depth, and a
direction turns towards the others where its growth is below that of the norm.

That takes about m forward passes an image. Singular values of `J_l` itself need products with its transpose too: m
vectors carried forward give only those of `J_l` restricted to them, which are at most the true ones. With `steps` from
1 on, block Krylov steps take 2 m passes each, and give the m leading singular values with their vectors, and the
*coupling* of layers: the mean squared cosine between their leading subspaces, of the vectors that enter (right) and of
those that leave (left); 1 where two layers stretch the same directions, m / N(D - 1) by chance. After Aubry et al.
(arXiv 2407.07810), who compare singular vectors one by one, of the Jacobian of the update and for each token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from brdyn.choices import KRYLOV_STEPS, TANGENTS, check_spectra
from brdyn.errors import BrdynError, UsageError
from brdyn.measures import intervals
from brdyn.measures.contract import Asked, DepthMeasure
from brdyn.measures.coupling import PlacementTest, placement_test, same_phase
from brdyn.measures.engine import metric_device
from brdyn.measures.found_spectra import (
    BLOCKS,
    EXPONENT,
    GROWTH,
    MEANS,
    NORM,
    OF_PHASE,
    PAIRS,
    RESTRICTED,
    SETTLED,
    SIDES,
    SINGULAR,
    TOTALS,
    Spectra,
    overall,
    within,
)
from brdyn.measures.jacobian import (
    BlockJacobian,
    leading_singular,
    orthonormal,
    tangential,
)
from brdyn.measures.jacobian import directions as directions_of
from brdyn.measures.kinematics import TINY, at_least_float32
from brdyn.measures.moments import mean_and_sd
from brdyn.measures.sampling import normal_like
from brdyn.models import VisionTransformer
from brdyn.runtime import available_memory, is_out_of_memory
from brdyn.trajectory import Trajectory, capture, not_finite_remedy
from brdyn.words import first_line

MEMORY_SHARE = 0.25
CACHED = 2**20  # numbers of states and tangents, a few of which a CPU has at hand
SUMS = ("total", "products")
LEAST = 1e-30  # growth below this is told as this: a direction that is lost has no logarithm


class JacobianSpectra(DepthMeasure):
    """Carries `tangents` vectors through the blocks for every image, and streams means and products over images.

    Parameters
    ----------
    model : VisionTransformer
    tangents : int
        m.
    steps : int
        Krylov steps for singular values and coupling; 0 for none.
    seed : int
        Of the vectors, which are an image's own wherever it comes in a batch.

    Raises
    ------
    UsageError
        If there are not so many directions, or sums over pairs of layers do not fit in memory.
    """

    DETAILS = Spectra
    full_state_update = False
    count: Tensor

    def __init__(
        self,
        model: VisionTransformer,
        tangents: int = TANGENTS,
        steps: int = KRYLOV_STEPS,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_spectra(tangents, steps)
        self.depth, self.seed, self.tangents, self.steps = model.depth, seed, tangents, steps
        self.precision = model.dtype
        self.directions = model.tokens.count * (model.info.width - 1)
        self._blocks = (model.blocks,)  # held in a tuple, as the blocks are no part of the measure
        _check_directions(model, tangents, steps, self.directions)
        pairs = model.depth * (model.depth - 1) // 2
        needed = 8 * len(SIDES) * pairs**2 if steps else 0
        if needed > MEMORY_SHARE * available_memory(metric_device(model)):
            raise UsageError(
                f"the coupling of {model.depth} layers would take {needed / 2**30:.1f} GiB; use `krylov_steps=0`"
            )
        self.sizes = {
            GROWTH: (tangents, model.depth),
            RESTRICTED: (tangents, model.depth),
            NORM: (1, model.depth),
        }
        if steps:
            self.sizes |= {SINGULAR: (tangents, model.depth), SETTLED: (1, model.depth)}
            self.sizes |= dict.fromkeys(SIDES, (1, pairs))
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        for name, (rows, entries) in self.sizes.items():
            for what, shape in zip(SUMS, ((rows, entries), (rows, entries, entries)), strict=True):
                zeros = torch.zeros(shape, dtype=torch.float64)
                self.add_state(_state(what, name), zeros, dist_reduce_fx="sum")

    @classmethod
    def make(cls, model: VisionTransformer, asked: Asked) -> Self:
        """One for a model, whose blocks are tried on a blank image."""
        found = cls(model, asked.tangents, asked.krylov_steps, asked.seed)
        _try_blocks(model, back=asked.krylov_steps > 0)
        return found

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a trajectory, a batch of states and tangents at a time, or what a cache holds."""
        size = max(1, len(trajectory) // self.tangents)
        if trajectory.states[0].device.type == "cpu":
            size = max(1, CACHED // (self.tangents * trajectory.states[0][0].numel()))
        for start in range(0, len(trajectory), size):
            part = slice(start, start + size)
            states = [state[part] for state in trajectory.states]
            found = self._carry(states, trajectory.positions[part])
            for name, values in found.items():
                exact = values.to(self.count).double()
                getattr(self, _state("total", name)).add_(exact.sum(0))
                getattr(self, _state("products", name)).add_(torch.einsum("bkp,bkq->kpq", exact, exact))
        self.count += len(trajectory)

    def _carry(self, states: Sequence[Tensor], positions: Tensor) -> dict[str, Tensor]:
        """Values `(B, rows, entries)` of some images by quantity."""
        carried = orthonormal(self._start(states[0], positions))[0]
        rows: dict[str, list[Tensor]] = {name: [] for name in self.sizes if name not in SIDES}
        spanned: dict[str, list[Tensor]] = {side: [] for side in SIDES}
        for layer, block in enumerate(self._blocks[0]):
            jacobian = BlockJacobian(block, states[layer], states[layer + 1])
            moved = jacobian.ahead(carried)
            following, factor = orthonormal(moved)
            self._check(factor, layer + 1)
            rows[GROWTH].append(factor.diagonal(dim1=-2, dim2=-1).abs().clamp_min(LEAST).log())
            rows[RESTRICTED].append(torch.linalg.svdvals(factor.cpu()))
            if self.steps:
                leading = leading_singular(jacobian, carried, moved, self.steps)
                rows[SINGULAR].append(leading.values)
                rows[SETTLED].append(leading.settled[:, None])
                for side in SIDES:
                    spanned[side].append(getattr(leading, side))
            carried = following
        rows[NORM] = list(_norm_growth(states)[..., None])
        coupled = {side: _coupling(found)[:, None] for side, found in spanned.items() if found}
        return {name: torch.stack(values, dim=-1) for name, values in rows.items()} | coupled

    def _start(self, state: Tensor, positions: Tensor) -> Tensor:
        """Random vectors `(m, B, N, D)`, each image's own by its position, without radial parts."""
        several = state[:, None].expand(-1, self.tangents, -1, -1)
        vectors = normal_like(several, positions, self.seed).transpose(0, 1)
        exact = vectors.double() if state.dtype == torch.float64 else vectors
        return tangential(exact, directions_of(state))

    def _check(self, factor: Tensor, block: int) -> None:
        if not factor.isfinite().all():
            raise BrdynError(
                f"products with the Jacobian of block {block} are not finite in "
                f"{str(self.precision).removeprefix('torch.')}; {not_finite_remedy(self.precision)}"
            )

    def compute(self) -> dict[str, Tensor]:
        """Images, `count`, and sums over them by quantity: `total` `(rows, entries)` and `products` of its entries."""
        names = [_state(what, name) for name in self.sizes for what in SUMS]
        return {"count": self.count, **{name: getattr(self, name) for name in names}}

    def details(self, boundaries: Sequence[int] = ()) -> Spectra:
        """Everything, for these phases."""
        sums = _Sums(self.compute(), self.sizes)
        places = np.array([boundaries], dtype=int)
        blocks = [row for name in self.sizes if name not in SIDES for row in sums.by_entry(name, "block", first=1)]
        totals = list(self._exponents(sums, boundaries))
        pairs: list[dict[str, Any]] = []
        tests: dict[str, PlacementTest | None] = {}
        for side in (side for side in SIDES if self.steps):
            first, second = (index + 1 for index in np.triu_indices(self.depth, 1))
            alike = np.full((1, len(first)), 1 / max(1, len(first)))
            for quantity, weights in (
                (overall(side), alike),
                (within(side), same_phase(self.depth, places)),
            ):
                if weights.any():
                    totals += sums.weighted(side, weights, quantity=quantity, phase=0)
            for row, one, other in zip(sums.by_entry(side, "pair"), first, second, strict=True):
                pairs.append({**row, "side": side, "block": int(one), "other": int(other)})
            tests[side] = placement_test(sums.mean(side)[0], self.depth, boundaries, self.seed)
        return Spectra(
            pd.DataFrame(totals, columns=list(TOTALS)), pd.DataFrame(blocks, columns=list(BLOCKS)),
            pd.DataFrame(pairs, columns=list(PAIRS)), tests, self.tangents, self.steps, self.directions, self.depth,
        )  # fmt: skip

    def _exponents(self, sums: _Sums, boundaries: Sequence[int]) -> list[dict[str, Any]]:
        """The mean growth over all blocks, and the sum over those of each phase."""
        edges = [0, *boundaries, self.depth]
        rows = sums.weighted(GROWTH, np.full((1, self.depth), 1 / self.depth), quantity=EXPONENT, phase=0)
        for phase, (start, end) in enumerate(pairwise(edges), 1):
            weights = np.zeros((1, self.depth))
            weights[0, start:end] = 1
            rows += sums.weighted(GROWTH, weights, quantity=OF_PHASE, phase=phase)
        return rows


class _Sums:
    """Means over images with their intervals, from what :meth:`JacobianSpectra.compute` sums over all processes."""

    def __init__(self, found: Mapping[str, Tensor], sizes: Mapping[str, tuple[int, int]]) -> None:
        self.count = found["count"]
        # torchmetrics makes a scalar of one number.
        self.totals = {name: found[_state("total", name)].reshape(size) for name, size in sizes.items()}
        self.products = {
            name: found[_state("products", name)].reshape(rows, entries, entries)
            for name, (rows, entries) in sizes.items()
        }

    def mean(self, name: str) -> np.ndarray:
        """Of every entry, `(rows, entries)`."""
        return (self.totals[name] / self.count).cpu().numpy()

    def weighted(self, name: str, weights: np.ndarray, **place: Any) -> list[dict[str, Any]]:
        """Rows of a weighted sum of the entries of each image, by index, with its interval over images."""
        factors = torch.from_numpy(weights[0]).to(self.count)
        total = self.totals[name] @ factors
        squares = torch.einsum("p,kpq,q->k", factors, self.products[name], factors)
        return [{**place, "index": index, **row} for index, row in enumerate(self._rows(total, squares), 1)]

    def by_entry(self, name: str, column: str, first: int = 0) -> list[dict[str, Any]]:
        """Rows of every entry of every index."""
        total, squares = self.totals[name], self.products[name].diagonal(dim1=-2, dim2=-1)
        entries = total.shape[1]
        return [
            {"quantity": name, "index": place // entries + 1, column: place % entries + first, **row}
            for place, row in enumerate(self._rows(total.flatten(), squares.flatten()))
        ]

    def _rows(self, total: Tensor, squares: Tensor) -> list[dict[str, Any]]:
        mean, spread = (value.cpu().numpy() for value in mean_and_sd(self.count, total, squares))
        count = int(self.count)
        values = zip(mean, *intervals.of_mean(mean, spread, count), spread, [count] * len(mean), strict=True)
        return [dict(zip(MEANS, one, strict=True)) for one in values]


def _state(what: str, name: str) -> str:
    return f"{what}_{name.replace(' ', '_')}"


def _norm_growth(states: Sequence[Tensor]) -> Tensor:
    """Mean over tokens of log |a_l| / |a_{l-1}|, `(L, B)`."""
    sizes = [torch.linalg.vector_norm(at_least_float32(state), dim=-1) for state in states]
    return torch.stack(sizes).clamp_min(TINY).log().diff(dim=0).mean(-1)


def _coupling(spanned: list[Tensor]) -> Tensor:
    """Mean squared cosine between subspaces, for all pairs of layers l < m, `(B, L (L - 1) / 2)`."""
    vectors = torch.stack(spanned, dim=1)  # (B, L, m, N * D)
    images, depth, count, _ = vectors.shape
    flat = vectors.flatten(1, 2)
    squares = (flat @ flat.mT).square().view(images, depth, count, depth, count).sum((2, 4)) / count
    first, second = torch.triu_indices(depth, depth, offset=1)
    return squares[:, first, second]


def _check_directions(model: VisionTransformer, tangents: int, steps: int, there: int) -> None:
    """Refuse more vectors than there are directions."""
    states = f"the {there} directions that {model.tokens.count} tokens of width {model.info.width} can turn in"
    if tangents > there:
        raise UsageError(f"`tangents={tangents}` is more than {states}")
    if (steps + 1) * tangents > there:
        raise UsageError(
            f"`krylov_steps={steps}` with `tangents={tangents}` spans more than {states}; use `krylov_steps="
            f"{there // tangents - 1}` at most"
        )


def _try_blocks(model: VisionTransformer, back: bool) -> None:
    """Refuse a model with a block that cannot be differentiated.

    Raises
    ------
    UsageError
        Naming the block.
    """
    from brdyn.data import Batch

    images = torch.zeros(1, 3, *model.info.image_size)
    states = capture(model, Batch(images, torch.zeros(1, dtype=torch.long), None)).states
    number = 0
    try:
        for number, block in enumerate(model.blocks, 1):
            jacobian = BlockJacobian(block, states[number - 1], states[number])
            moved = jacobian.ahead(torch.ones_like(states[0])[None])
            if back:
                jacobian.back(moved)
    except Exception as error:  # somebody else's code can fail in any way
        if is_out_of_memory(error):
            raise
        raise UsageError(
            f"spectra need blocks that can be differentiated, and block {number} of {model.info.name!r} cannot "
            f"({type(error).__name__}: {first_line(error)}); leave spectra out"
        ) from error
