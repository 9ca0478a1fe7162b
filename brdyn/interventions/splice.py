"""Splice skill: what a span of layers does, by what can stand in for it. Method notes, section 10; arXiv 2605.07556.

Blocks s + 1 to e are replaced by a surrogate, and the rest of the network runs on. Skill is 1 minus the squared error
of the last state over that of the identity, which does nothing in that span. A surrogate that is near the span's own
output may still be far off at the end, and the other way round, which is why it is measured there.

The clean prefixes are those of one forward. Suffixes are run together: the sweep over all spans takes (L^2 - 1) / 6
forwards of an image for each surrogate, that of exchanges (L^2 - 1) / 2.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from brdyn.arguments import checked
from brdyn.choices import REPLICATES, RIDGE, SPLICED, SURROGATES, check_ridge, some_of
from brdyn.data import ImageSet
from brdyn.errors import UsageError
from brdyn.interventions.span_maps import (
    FITTED,
    LINEAR,
    Span,
    SpanMap,
    SpanMoments,
    check_memory,
    tokens_lacking,
)
from brdyn.interventions.splice_cells import (
    EXCHANGE,
    IDENTITY,
    RAPTOR,
    REPEAT,
    Cell,
    SharedBlocks,
    cells_of,
    check_spans,
)
from brdyn.interventions.splice_result import Calibration, Splice
from brdyn.interventions.splice_sums import SpliceSums, compared
from brdyn.interventions.together import follow_together
from brdyn.interventions.within_across import within_against_across
from brdyn.measures.engine import metric_device
from brdyn.measures.found_phases import find_phases
from brdyn.models import VisionTransformer
from brdyn.phases import Phases
from brdyn.provenance import Provenance, Stopwatch, image_provenance
from brdyn.random_keys import random_keys
from brdyn.seeds import check_seed
from brdyn.trajectory import Stream, Trajectory, check_normed, visit_trajectories

NESTED = (8, 4, 2)  # maps of whole phases are fitted to these parts of the calibration images, too
Maps = Mapping[Cell, SpanMap]


class SpliceSweep:
    """Runs the rest of the network behind every surrogate, and sums what becomes of the last state.

    Parameters
    ----------
    model : VisionTransformer
    cells : sequence of Cell
    maps : mapping of Cell to SpanMap
        Of the surrogates that are fitted.
    raptor : SharedBlocks, optional
    replicates, seed : int
        Of the bootstrap over images.
    together : int, optional
        Cells that go through the blocks in one batch; as many as fit in memory when not given.
    """

    def __init__(
        self,
        model: VisionTransformer,
        cells: Sequence[Cell],
        maps: Maps,
        raptor: SharedBlocks | None = None,
        *,
        replicates: int = REPLICATES,
        seed: int = 0,
        together: int | None = None,
    ) -> None:
        self.model, self.cells, self.maps, self.raptor = model, list(cells), maps, raptor
        self.together = together
        self.sums = SpliceSums(model.tokens, model.info.width, self.cells, replicates, seed)
        self.sums.to(metric_device(model))
        self._walk: tuple[tuple[str, int], int, Tensor] | None = None  # of a block that is applied again

    @torch.no_grad()
    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a clean trajectory."""
        clean = trajectory.states[-1]
        self._walk = None
        said = self._says(clean, clean)
        shape = (len(trajectory), len(self.cells), len(self.model.tokens.groups))
        errors, cosines = (torch.empty(shape, device=clean.device, dtype=torch.float32) for _ in range(2))
        agreeing = torch.full(shape[:2], torch.nan, device=clean.device, dtype=torch.float32)

        def follow(chunk: Sequence[int]) -> None:
            final = self._follow(trajectory, [self.cells[index] for index in chunk])
            places = torch.tensor(chunk, device=clean.device)
            errors[:, places], cosines[:, places] = compared(final, clean, self.model.tokens)
            if said is not None:
                says = self._says(final.flatten(0, 1), clean)
                assert says is not None
                agreeing[:, places] = says.unflatten(0, final.shape[:2]).eq(said).T.float()

        self.together = follow_together(
            self.model, range(len(self.cells)), len(trajectory), follow, self.together, what="surrogates"
        )
        self._walk = None
        self.sums.update(trajectory.positions, clean, errors, cosines, agreeing)

    def _says(self, state: Tensor, clean: Tensor) -> Tensor | None:
        """What the head reads from a last state; None of a model without one."""
        if not self.model.classes:
            return None
        normed = self.model.norm(state)
        if state is clean:
            check_normed(self.model, normed)
        logits = self.model.logits(normed)
        return None if logits is None else logits.argmax(-1)

    def _follow(self, trajectory: Trajectory, cells: Sequence[Cell]) -> Tensor:
        """The last states `(cells, B, N, D)`; each joins the others in the batch where its span ends."""
        entering = [self._after_span(cell, trajectory) for cell in cells]
        order = sorted(range(len(cells)), key=lambda index: cells[index].end)
        state, joined = trajectory.states[0][:0], 0
        for layer in range(cells[order[0]].end, self.model.depth + 1):
            if joined:
                state = self.model.blocks[layer - 1](state)
            now = [index for index in order[joined:] if cells[index].end == layer]
            state = torch.cat([state, *(entering[index] for index in now)])
            joined += len(now)
        final = state.unflatten(0, (len(cells), len(trajectory)))
        return final[torch.tensor(order, device=final.device).argsort()]

    def _after_span(self, cell: Cell, trajectory: Trajectory) -> Tensor:
        """What the surrogate makes of the clean state that enters the span."""
        state = trajectory.states[cell.start]
        if cell.surrogate == IDENTITY:
            return state
        if cell.surrogate == EXCHANGE:
            return self.model.blocks[cell.block - 1](state)
        if cell.surrogate in (REPEAT, RAPTOR):
            return self._walked(cell, trajectory)
        return self.maps[cell](state, self.model.tokens)

    def _walked(self, cell: Cell, trajectory: Trajectory) -> Tensor:
        """A block applied once for each layer of the span, going on from the last shorter span with this start."""
        key = (cell.surrogate, cell.start)
        if self._walk is not None and self._walk[0] == key and self._walk[1] <= cell.end:
            _, layer, state = self._walk
        elif cell.surrogate == REPEAT:  # whose first step is the network's own
            layer, state = cell.start + 1, trajectory.states[cell.start + 1]
        else:
            layer, state = cell.start, trajectory.states[cell.start]
        while layer < cell.end:
            layer += 1
            state = self._again(cell, layer)(state)
        self._walk = (key, layer, state)
        return state

    def _again(self, cell: Cell, layer: int) -> torch.nn.Module:
        """The block that is applied at a layer of the span."""
        if cell.surrogate == REPEAT:
            return self.model.blocks[cell.block - 1]
        assert self.raptor is not None
        return self.raptor.blocks[layer - 1]


@checked
def splice_skill(
    model: VisionTransformer,
    images: ImageSet,
    phases: Phases | Sequence[int] | None = None,
    *,
    k: int | None = None,
    surrogates: Sequence[str] | None = None,
    spans: Sequence[Span] | None = None,
    fit_images: ImageSet | None = None,
    raptor: SharedBlocks | None = None,
    ridge: float = RIDGE,
    within: bool = False,
    seed: int = 0,
    stream: Stream | None = None,
) -> Splice:
    """Replace every span of layers by what could stand in for it, run the rest, and see how far off the end is.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet
        Half of them, drawn by `seed`, are fitted to, and the others judged by; all are judged by where nothing is
        fitted, or to other images.
    phases : Phases or sequence of int, optional
        Or their boundaries, as of :func:`brdyn.phases.as_phases`.
        Without them they are found in a pass of their own (cosine of cls and mean patch, `k` phases).
    k : int, optional
        The number of phases.
    surrogates : sequence of str, optional
        Some of `identity` (always there), `mean`, `affine`, `power` (maps that are fitted), `repeat` (the first block
        of the span, applied for each of its layers), `exchange` (every other layer's block, for spans of one), and
        `raptor`. All by default, the last where there is a Raptor.
    spans : sequence of (int, int), optional
        The states s < e from 0 to L: blocks s + 1 to e are replaced. All by default; maps stand in for whole phases in
        any case.
    fit_images : ImageSet, optional
        Other images to fit to.
    raptor : Raptor, optional
        Of this model; its block replaces spans within a run of layers that it is applied to.
    ridge : float
        Of the maps, over the mean eigenvalue.
    within : bool
        Exchange blocks within phases alone, which is cheaper and has no test against those across.
    seed : int
        Of the halves and of the bootstrap.
    stream : Stream, optional
        How to go through the images.

    Returns
    -------
    Splice

    Raises
    ------
    UsageError
        If a surrogate or span is none, images are too few for a map or in both sets, or the Raptor is of another model.

    Examples
    --------
    >>> found = brdyn.splice_skill(model, images, phases, surrogates=["mean", "repeat"], spans=[(0, 2), (4, 8)])
    >>> found.matrix("mean").shape, found.calibration.images
    ((12, 12), 4)
    >>> found.matrix("identity")[4, 7]  # row s + 1, column e, from 1: doing nothing is no better than doing nothing
    np.float64(0.0)
    """
    chosen = check_surrogates(model, surrogates, raptor)
    seed = check_seed(seed)
    check_ridge(ridge)
    wanted = check_spans(spans, model)
    fitted = [name for name in chosen if name in FITTED]
    watch, stream = Stopwatch(), stream or Stream()
    judged, fit_to = apart(images, fit_images, seed) if fitted else (images, None)
    if fit_to is not None:
        check_enough(len(fit_to), model, fitted)
    phases = find_phases(model, judged if fit_to is None else fit_to, phases, k, seed=seed, stream=stream)
    if within and EXCHANGE in chosen and all(first == last for first, last in phases.intervals):
        raise UsageError("no phase has two layers to exchange blocks within; give fewer phases, or drop `within`")
    maps = {} if fit_to is None else fit_maps(model, fit_to, fitted, wanted, phases, ridge, seed, stream)
    fitted_to = max((cell.calibration for cell in maps), default=0)
    stretches = () if raptor is None else raptor.spans
    phase = phases.labels.tolist() if within else None
    cells = [*cells_of(chosen, wanted, model.depth, fitted_to, stretches, phase), *maps]
    cells += [Cell(IDENTITY, *cell.span) for cell in maps]
    sweep = SpliceSweep(model, list(dict.fromkeys(cells)), maps, raptor, seed=seed)
    visit_trajectories(model, judged, sweep.update, stream=stream)
    origin = Provenance.of(
        model, judged, watch, stream.processes, seed=seed, bootstrap={"replicates": REPLICATES, "unit": "images"},
        **({} if fit_to is None else {"calibration": image_provenance(fit_to)}),
    )  # fmt: skip
    calibration = None
    if fit_to is not None:
        calibration = Calibration(fitted_to, fitted_to * model.tokens.count, model.info.width, ridge)
    return replace(_result(sweep, phases, calibration, seed), provenance=origin)


def _result(sweep: SpliceSweep, phases: Phases, calibration: Calibration | None, seed: int) -> Splice:
    """What was summed, over all processes."""
    model, found = sweep.model, sweep.sums.found()
    precision = torch.finfo(model.dtype).eps
    table = found.table(precision, bool(model.classes))
    work, ratios = found.exchanged(precision, phases)
    notes = () if model.classes else ("no agreement: the model has no classification head",)
    symmetric = (ratios + ratios.T) / 2
    test = within_against_across(symmetric, phases.boundaries, seed) if len(work) else None
    return Splice(table, work, test, phases, calibration, notes)


def check_surrogates(
    model: VisionTransformer, surrogates: Sequence[str] | None, raptor: SharedBlocks | None
) -> tuple[str, ...]:
    """The surrogates in order, each once; all that there can be where none are named.

    Raises
    ------
    UsageError
        If one is unknown, or there is no Raptor for it, or one of another model.
    """
    named = SPLICED if surrogates is None else surrogates
    chosen = some_of("surrogate", named if raptor is None else [*named, RAPTOR], SURROGATES)
    if raptor is None:
        if RAPTOR in chosen:
            raise UsageError("the surrogate 'raptor' is a fitted Raptor's block; give one by `raptor`, or leave it out")
        return chosen
    teacher = raptor.teacher
    same = bool(model.info.digest) and teacher.info.digest == model.info.digest
    if teacher is not model and not same:
        raise UsageError(
            f"the Raptor is of {teacher.info.name!r} ({teacher.info.weights}), and this is {model.info.name!r} "
            f"({model.info.weights}); give a Raptor of this model"
        )
    return chosen


def apart(images: ImageSet, fit_images: ImageSet | None, seed: int) -> tuple[ImageSet, ImageSet]:
    """Images to judge by, and others to fit to: half of them where no others are given.

    Raises
    ------
    UsageError
        If an image is in both, or there is one alone.
    """
    if fit_images is None:
        if len(images) < 2:
            raise UsageError("1 image cannot be fitted to and judged by; give more images, or `fit_images`")
        judged, fit_to = images.split((len(images) + 1) // 2, seed)
        assert fit_to is not None
        return judged, fit_to
    if both := images.shared_with(fit_images):
        raise UsageError(f"{both} images are both to fit to and to judge by; give other `fit_images`")
    return images, fit_images


def check_enough(images: int, model: VisionTransformer, surrogates: Collection[str]) -> None:
    """Refuse affine maps and powers of fewer tokens than they have directions.

    Raises
    ------
    UsageError
        With how many images are needed.
    """
    lacking = tokens_lacking(images, model)
    named = [name for name in LINEAR if name in surrogates]
    if lacking and named:
        raise UsageError(
            f"{lacking} to fit to; give more, by `fit_images`, or leave {' and '.join(named)} out of `surrogates`"
        )


def fit_maps(
    model: VisionTransformer,
    images: ImageSet,
    surrogates: Sequence[str],
    spans: Sequence[Span],
    phases: Phases,
    ridge: float,
    seed: int,
    stream: Stream,
) -> dict[Cell, SpanMap]:
    """Maps of all spans, and of whole phases also to an eighth, a quarter and a half of the images; in one pass.

    Each part is drawn by the seed and within the next: a set that is ordered by class begins with few classes.
    """
    whole = [(first - 1, last) for first, last in phases.intervals]
    most = len(images)
    of = {count: whole for part in NESTED if (count := most // part)} | {most: sorted({*spans, *whole})}
    check_memory(model, of[most], surrogates)
    moments = {
        count: SpanMoments(model.tokens, model.depth, model.info.width, there, surrogates).to(metric_device(model))
        for count, there in of.items()
    }

    place = torch.from_numpy(random_keys(np.arange(most), seed).argsort().argsort())

    def visit(trajectory: Trajectory) -> None:
        for count, metric in moments.items():
            if len(part := _only(trajectory, place[trajectory.positions] < count)):
                metric.update(part)

    visit_trajectories(model, images, visit, stream=stream)
    found: dict[Cell, SpanMap] = {}
    for count, metric in moments.items():
        read = int(metric.compute()["images"])
        if count == most:
            check_enough(read, model, surrogates)
        able = [name for name in surrogates if name not in LINEAR or not tokens_lacking(read, model)]
        maps = metric.fit(able, of[count], ridge, model) if read else {}
        found |= {Cell(name, *span, calibration=read): one for (name, span), one in maps.items()}
    return found


def _only(trajectory: Trajectory, there: Tensor) -> Trajectory:
    """Some images of a trajectory, bool `(B,)`."""
    if there.all():
        return trajectory
    states = [state[there.to(state.device)] for state in trajectory.states]
    return Trajectory(states, trajectory.tokens, trajectory.positions[there])
