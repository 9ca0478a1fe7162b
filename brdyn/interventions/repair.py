"""Perturbation repair: does a network forget noise that is added at some depth? Method notes, section 6.

Noise of norm `eps |a_l|` is added to the tokens of a state, and the angle to the clean state is followed to the last
layer. Runs begin at the perturbed layer and share the clean pass: all L + 1 start layers of one eps cost about half of
L + 1 forward passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from brdyn.arguments import checked
from brdyn.choices import EPS, check_eps
from brdyn.data import ImageSet
from brdyn.errors import BrdynError, UsageError
from brdyn.interventions.contexts import canonical, token_slices
from brdyn.interventions.noise import relative_noise
from brdyn.interventions.repair_result import GROWTH_COLUMNS, STATISTICS, Repair, Run
from brdyn.interventions.together import follow_together
from brdyn.measures.engine import metric_device
from brdyn.measures.found_phases import FoundPhases
from brdyn.measures.kinematics import TINY, lengths
from brdyn.measures.moments import RunningMoments
from brdyn.models import VisionTransformer
from brdyn.phases import Phases
from brdyn.progress import within
from brdyn.provenance import Provenance, Stopwatch
from brdyn.seeds import check_seed
from brdyn.trajectory import Stream, Trajectory, visit_trajectories

OVER_ROUNDING = 3  # times what rounding leaves: an angle below that is not told from it


class PerturbationSweep:
    """Runs a batch's perturbed states on and sums what becomes of the angles.

    Parameters
    ----------
    model : VisionTransformer
    eps : sequence of float
    targets : sequence of str
        Token groups, several joined by `+`, or `all`.
    starts : sequence of int
        States 0..L.
    seed : int
    together : int, optional
        Runs that go through the blocks in one batch; as many as fit in memory when not given.
    """

    def __init__(
        self,
        model: VisionTransformer,
        eps: Sequence[float],
        targets: Sequence[str],
        starts: Sequence[int],
        seed: int = 0,
        together: int | None = None,
    ) -> None:
        self.model, self.seed, self.together = model, seed, together
        self.slices = {target: token_slices(model.tokens, target) for target in targets}
        self.asked = [Run(*run) for run in product(starts, eps, targets)]
        self.rounding = self._of_rounding(starts)
        every = dict.fromkeys([*self.asked, *self.rounding.values()])
        self.runs = sorted(every, key=lambda run: run.start)
        groups = len(model.tokens.groups)
        device = metric_device(model)
        self.angles = RunningMoments((len(self.runs), model.depth + 1, groups)).to(device)
        self.growth = RunningMoments((len(self.runs), groups)).to(device)

    def _of_rounding(self, starts: Sequence[int]) -> dict[int, Run]:
        """In half precision, from each state, noise of one step of it on all tokens: rounding leaves as much of it."""
        if self.model.dtype not in (torch.bfloat16, torch.float16):
            return {}
        self.slices["all"] = token_slices(self.model.tokens, "all")
        return {start: Run(start, torch.finfo(self.model.dtype).eps, "all") for start in starts}

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a clean trajectory."""
        angles = self.follow(trajectory)
        self._check_finite(angles)
        self.angles.update(angles)
        starts = torch.tensor([run.start for run in self.runs], device=angles.device)
        begin = angles.gather(2, starts[None, :, None, None].expand(*angles.shape[:2], 1, angles.shape[3]))[:, :, 0]
        left = (self.model.depth - starts)[None, :, None]
        end = angles[:, :, -1]
        defined = (begin > 0) & (end > 0) & (left > 0)
        rate = (end / begin.clamp_min(TINY)).clamp_min(TINY).log() / left.clamp_min(1)
        self.growth.update(rate.where(defined, torch.nan))

    def _check_finite(self, angles: Tensor) -> None:
        """Refuse angles of states that have overflowed."""
        starts = torch.tensor([run.start for run in self.runs], device=angles.device)
        begun = torch.arange(self.model.depth + 1, device=angles.device) >= starts[:, None]
        bad = (~angles.isfinite().all(-1).all(0) & begun).any(1).nonzero().flatten().tolist()
        if bad:
            run = self.runs[bad[0]]
            other = "" if self.model.dtype == torch.float32 else ", or `dtype=float32`"
            raise BrdynError(
                f"noise of {run.eps:g} on {run.target} at layer {run.start} makes states that are not finite in "
                f"{self.model.precision}; use a smaller `eps`{other}"
            )

    @torch.no_grad()
    def follow(self, trajectory: Trajectory) -> Tensor:
        """Mean angle of each token group in every run, `(B, runs, L + 1, groups)`; NaN before a run begins."""
        shape = (
            len(trajectory),
            len(self.runs),
            self.model.depth + 1,
            len(self.model.tokens.groups),
        )
        angles = torch.full(shape, torch.nan, device=trajectory.states[0].device, dtype=torch.float32)

        def follow(chunk: Sequence[int]) -> None:
            self._follow(trajectory, chunk, angles)
            within(chunk[-1] + 1, len(self.runs), len(trajectory))

        self.together = follow_together(
            self.model,
            range(len(self.runs)),
            len(trajectory),
            follow,
            self.together,
            what="perturbations",
        )
        return angles

    def _follow(self, trajectory: Trajectory, chunk: Sequence[int], angles: Tensor) -> None:
        """Follow some runs, ordered by start; each joins the others at its layer."""
        images = len(trajectory)
        state = trajectory.states[0][:0]
        active: list[int] = []
        for layer in range(self.runs[chunk[0]].start, self.model.depth + 1):
            if active:
                state = self.model.blocks[layer - 1](state)
            clean = trajectory.states[layer]
            joining = [index for index in chunk if self.runs[index].start == layer]
            if joining:
                state = torch.cat([state, *self._perturbed(clean, trajectory.positions, layer, joining)])
                active += joining
            if active:
                found = angles_to(state.unflatten(0, (len(active), images)), clean)
                for group, part in enumerate(self.model.tokens.groups.values()):
                    angles[:, active, layer, group] = found[..., part].mean(-1).T

    def _perturbed(self, clean: Tensor, positions: Tensor, layer: int, runs: Sequence[int]) -> list[Tensor]:
        """The state with the noise of each run; runs of one layer share the noise but for its size and place."""
        noise = relative_noise(clean, positions, layer, self.seed)
        states = []
        for index in runs:
            state = clean.clone()
            for part in self.slices[self.runs[index].target]:
                state[:, part] += self.runs[index].eps * noise[:, part]
            states.append(state)
        return states

    def result(self, phases: Phases) -> Repair:
        """What was summed, over all processes."""
        angles = self.angles.arrays()["mean"][:, -1]
        left = {run.start: angles[self.runs.index(run)] for run in self.rounding.values()}
        of_groups = np.max(list(left.values()), axis=0) if left else []
        rounding = dict(zip(self.model.tokens.groups, map(float, of_groups), strict=bool(left)))
        return Repair(self._angle_table(), self._growth_table(left), phases, rounding)

    def _angle_table(self) -> pd.DataFrame:
        found = self.angles.arrays()
        rows = [
            {
                **run._asdict(),
                "group": group,
                "perturbed": part in self.slices[run.target],
                "layer": layer,
                **{name: found[name][index, layer, place] for name in STATISTICS},
            }
            for index, run in enumerate(self.runs)
            if run in self.asked
            for place, (group, part) in enumerate(self.model.tokens.groups.items())
            for layer in range(run.start, self.model.depth + 1)
        ]
        return pd.DataFrame(rows)

    def _growth_table(self, left: Mapping[int, np.ndarray]) -> pd.DataFrame:
        """Without the growth that cannot be told from rounding, by what that leaves at the last layer."""
        rates, angles = self.growth.arrays(), self.angles.arrays()["mean"]
        rows: list[dict[str, Any]] = []
        for index, run in enumerate(self.runs):
            if run not in self.asked or run.start == self.model.depth or not run.eps:
                continue
            for place, (group, part) in enumerate(self.model.tokens.groups.items()):
                if part not in self.slices[run.target]:
                    continue
                values = {name: rates[name][index, place] for name in STATISTICS}
                values["half_repair"] = half_repair(angles[index, run.start :, place])
                if left and angles[index, -1, place] < OVER_ROUNDING * left[run.start][place]:
                    values |= dict.fromkeys(values.keys() - {"n_images"}, np.nan)
                rows.append({**run._asdict(), "group": group, **values})
        return pd.DataFrame(rows, columns=GROWTH_COLUMNS)


@checked
def perturbation_repair(
    model: VisionTransformer,
    images: ImageSet,
    phases: Phases | Sequence[int] | None = None,
    *,
    k: int | None = None,
    eps: Sequence[float] = EPS,
    targets: Sequence[str] | None = None,
    starts: Sequence[int] | None = None,
    seed: int = 0,
    stream: Stream | None = None,
) -> Repair:
    """Add noise at every layer and follow the angle to the clean states.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet
    phases : Phases or sequence of int, optional
        Or their boundaries, as of :func:`brdyn.phases.as_phases`.
        Without them they are found in the same pass (cosine of cls and mean patch, `k` phases).
    k : int, optional
        The number of phases.
    eps : sequence of float
        Norms of the noise over that of the token.
    targets : sequence of str, optional
        Which tokens get the noise, one after another: token groups, several joined by `+`, or `all`. By default each
        group alone, then all.
    starts : sequence of int, optional
        Which states get the noise, 0 (embedding) to L; by default every one.
    seed : int
    stream : Stream, optional
        How to go through the images.

    Returns
    -------
    Repair

    Raises
    ------
    UsageError
        If there is no such state or token group, or a size is negative.

    Examples
    --------
    >>> repair = brdyn.perturbation_repair(model, images, eps=[0.02, 0.2], targets=["cls"], starts=[6])
    >>> sorted(set(repair.angles["eps"])), sorted(set(repair.angles["layer"]))
    ([0.02, 0.2], [6, 7, 8, 9, 10, 11, 12])
    """
    seed = check_seed(seed)
    targets, starts = check_request(model, eps, targets, starts)
    watch, stream = Stopwatch(), stream or Stream()
    finder = FoundPhases(model, phases, k, seed)
    for metric in finder.metrics.values():
        metric.to(metric_device(model))
    sweep = PerturbationSweep(model, sorted(set(eps)), targets, starts, seed)

    def visit(trajectory: Trajectory) -> None:
        sweep.update(trajectory)
        for metric in finder.metrics.values():
            metric.update(trajectory)

    visit_trajectories(model, images, visit, stream=stream)
    origin = Provenance.of(model, images, watch, stream.processes, seed=seed)
    return replace(sweep.result(finder.result()), provenance=origin)


def check_request(
    model: VisionTransformer,
    eps: Sequence[float],
    targets: Sequence[str] | None = None,
    starts: Sequence[int] | None = None,
) -> tuple[list[str], list[int]]:
    """Targets and starts in order, each once; all where none are named.

    Raises
    ------
    UsageError
        If there is no such state or token group, or a size is negative.
    """
    groups = list(model.tokens.groups)
    every = [*groups, "all"] if len(groups) > 1 else groups
    targets = every if targets is None else targets
    starts = range(model.depth + 1) if starts is None else starts
    named = [canonical(model.tokens, target) for target in targets]
    if not named:
        raise UsageError(f"no tokens to perturb; name some of {', '.join(every)}")
    check_eps(eps)
    wanted = sorted(set(starts))
    outside = [start for start in wanted if not 0 <= start <= model.depth]
    if outside or not wanted:
        raise UsageError(
            f"layer {outside[0] if outside else 'list'} is not from 0 (the embedding) to {model.depth}, "
            f"the states of {model.info.name!r}"
        )
    return list(dict.fromkeys(named)), wanted


def angles_to(states: Tensor, clean: Tensor) -> Tensor:
    """Angles between the tokens of `(..., B, N, D)` and `(B, N, D)`, in radians.

    From the chord between p, scaled to the length of c, and c: its error is that of a unit in the last place of the
    states, where the arc cosine of float32 knows nothing below 5e-4.
    """
    size = lengths(states, keepdim=True)
    clean_size = lengths(clean)
    chord = states.float() * (clean_size[..., None] / size.clamp_min(TINY)) - clean.float()
    half = lengths(chord) / (2 * clean_size).clamp_min(TINY)
    return 2 * half.clamp(max=1).asin()


def half_repair(curve: np.ndarray) -> float:
    """Layers after which a curve first falls to half of its first value, interpolated; NaN where it never does."""
    target = curve[0] / 2
    below = np.flatnonzero(curve <= target)
    if not curve[0] > 0 or not len(below):
        return float("nan")
    after = int(below[0])
    before = curve[after - 1]
    return after - 1 + float((before - target) / (before - curve[after]))
