"""What layers do: whose work a block can do, what attention and the MLP add, when the answer is read, what blocks
stretch, and whether a Raptor's come to rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyses.findings.twins import beside
from analyses.recording import OFFLINE, RESULTS
from analyses.rules import UNTRAINED, Numbers
from analyses.statistics import Estimate, across_over_within, placed
from brdyn.classifiers import packaged
from brdyn.interventions import Splice, within_against_across
from brdyn.interventions.splice_result import same_phase
from brdyn.measures.dynamics import Dynamics
from brdyn.measures.found_fixed_points import FixedPoints
from brdyn.measures.found_spectra import EXPONENT, SIDES, overall, within
from brdyn.measures.readout import deciding_state
from brdyn.raptor import Evaluation

NETWORKS = (OFFLINE, packaged.NAME)
TWINS = tuple(f"{packaged.NAME}_random{seed}" for seed in range(1, 5))


class Motion(NamedTuple):
    """Curves over depth, and what spectra say over all of it: of a network, or of a twin."""

    of: Dynamics
    totals: pd.DataFrame

    def curve(self, statistic: str, group: str) -> np.ndarray:
        return self.of.curve(statistic, group)

    def total(self, quantity: str) -> Estimate:
        """Of the leading index."""
        row = self.totals[self.totals["quantity"] == quantity].iloc[0]
        return Estimate(row["mean"], row["low"], row["high"])


class Results(NamedTuple):
    """What is recorded of each network, `motions` with branches, read-outs and spectra; and what the blocks of Raptors
    of the packaged one come to past their phases, and of those of its untrained twins."""

    splices: dict[str, Splice]
    motions: dict[str, Motion]
    fixed_points: FixedPoints
    of_twins: tuple[FixedPoints, ...] = ()

    @property
    def heads(self) -> dict[str, tuple[float, float, float]]:
        """Of networks with a head the mean state from which on its answer is the last one, with its interval."""
        found = {name: deciding_state(motion.of.table) for name, motion in self.motions.items()}
        return {name: one for name, one in found.items() if one is not None}


def load() -> Results:
    dynamics = {name: Dynamics.read(RESULTS / "layers" / name) for name in NETWORKS}
    past, *twins = (Evaluation.read(RESULTS / "beyond" / name).beyond for name in (packaged.NAME, *TWINS))
    assert past is not None
    return Results(
        {name: Splice.read(RESULTS / "splice" / name) for name in NETWORKS},
        {name: Motion(one, one.spectra.totals) for name, one in dynamics.items() if one.spectra is not None},
        past,
        tuple(one for one in twins if one is not None),
    )


def as_twins(results: Results) -> Iterator[Results]:
    """The results with the first untrained twin of every network in the place of it, the second, and so on."""
    tables = [
        [one.null.each() if one.null is not None else [] for one in of.values()]
        for of in (results.splices, {name: motion.of for name, motion in results.motions.items()})
    ]
    for splices, motions in zip(*(zip(*one, strict=True) for one in tables), strict=True):
        yield results._replace(
            splices={
                name: one.of_tables(of)
                for (name, one), of in zip(results.splices.items(), splices, strict=True)
            },
            motions={
                name: Motion(one.of.of_tables(of), of["spectra"])
                for (name, one), of in zip(results.motions.items(), motions, strict=True)
            },
        )


beside_twins = beside(as_twins)


def _counted(value: float) -> Estimate:
    """Of a twin, whose spread is that of all twins."""
    return Estimate(value, value, value)


def _levels(found: Mapping[str, Estimate]) -> dict[str, float]:
    """What twins are compared by."""
    return {name: one.value for name, one in found.items()}


@beside_twins
def work(results: Results) -> Numbers:
    """Squared error of another layer's block over that of doing nothing, mean over pairs within phases, and across."""
    found: dict[str, dict[str, Estimate]] = {"within phases": {}, "across phases": {}}
    for name, splice in results.splices.items():
        rows = splice.rows("exchange")
        same = same_phase(rows, splice.phases)
        for (where, of), chosen in zip(found.items(), (same, ~same), strict=True):
            row = splice.shared_work(where)
            mean = float(1 - rows["mean"][chosen].mean())
            of[name] = _counted(mean) if row is None else Estimate(row["mean"], row["low"], row["high"])
    inside, across = found.values()
    return {"work": inside, "across": across, "level": _levels(inside)}


@beside_twins
def shared(results: Results) -> Numbers:
    """Error of exchanged blocks across phases less that within, at equal distance."""
    excess = {}
    for name, splice in results.splices.items():
        matrix = splice.exchanged()
        test = within_against_across((matrix + matrix.T) / 2, splice.phases.boundaries)
        assert test is not None
        assert test.matched_excess is not None
        assert test.p_matched is not None
        excess[name] = placed(test.matched_excess, test.p_matched, test.placements)
    return {"excess": excess, "level": _levels(excess)}


def whole_phases(results: Results) -> list[dict[str, Any]]:
    """For each phase of two layers and more what stands in for it: skill at the last layer, over doing nothing."""
    found: dict[tuple[str, int, int], dict[str, Any]] = {}
    for name, splice in results.splices.items():
        rows = splice.whole_phases("skill")
        fitted = rows["calibration"].isin(splice.full["calibration"])
        for _, row in rows[fitted & (rows["end"] - rows["start"] > 1)].iterrows():
            of = found.setdefault((name, row["start"] + 1, row["end"]), {})
            of[row["surrogate"]] = Estimate(row["mean"], row["low"], row["high"])
    return [{"name": name, "first": first, "last": last, **of} for (name, first, last), of in found.items()]


def _standing_in(results: Results, surrogate: str) -> dict[str, Estimate]:
    rows = whole_phases(results)
    return {f"{one['name']} layers {one['first']}-{one['last']}": one[surrogate] for one in rows}


def linear(results: Results) -> Numbers:
    """Skill of an affine map in the place of whole phases of two layers and more."""
    return {"affine": _standing_in(results, "affine")}


def repeated(results: Results) -> Numbers:
    """Skill of a phase's first block, repeated, in the place of it, less that of an affine map."""
    repeat, affine = (_standing_in(results, name) for name in ("repeat", "affine"))
    return {"repeat": repeat, "lead": {name: one.less(affine[name]) for name, one in repeat.items()}}


@beside_twins
def opposed(results: Results) -> Numbers:
    """Cosine between what attention and what the MLP adds to the patches, mean over blocks."""
    return {
        "cosine": {
            name: float(np.nanmean(motion.curve("branches_cosine", "patches")))
            for name, motion in results.motions.items()
        }
    }


def share_jumps(results: Results) -> Numbers:
    """Change of attention's share from block to block, across phase boundaries over within phases."""
    excess = {}
    for name, motion in results.motions.items():
        blocks = list(pairwise(range(1, motion.of.phases.layers + 1)))
        for group in motion.of.groups("attention_share"):
            change = np.abs(np.diff(motion.curve("attention_share", group)))
            excess[f"{name} {group}"] = across_over_within(
                blocks, change, motion.of.phases.boundaries, motion.of.phases.layers
            )
    return {"excess": excess}


@beside_twins
def decided(results: Results) -> Numbers:
    """The mean state from which on the head's answer is the last one, and the last boundary of the phases."""
    (name, (mean, low, high)), *_ = results.heads.items()
    twin = results.motions[name].of.null is None
    state = _counted(mean) if twin else Estimate(mean, low, high)
    return {
        "state": state,
        "level": mean,
        "last": max(results.motions[name].of.phases.boundaries),
        "name": name,
    }


@beside_twins
def _all_pairs(results: Results) -> Numbers:
    found = {
        f"{name} {side}": motion.total(overall(side))
        for name, motion in results.motions.items()
        for side in SIDES
    }
    return {"coupling": found, "level": _levels(found)}


def coupling(results: Results) -> Numbers:
    """Coupling of the leading singular vectors of blocks, all pairs; and the mean of twins."""
    found = _all_pairs(results)
    twins = {
        name: float(np.mean([one["level"][name] for one in found.get(UNTRAINED, [])]))
        for name in found["level"]
    }
    return {**found, "twins": twins}


@beside_twins
def coupled_phases(results: Results) -> Numbers:
    """The same within phases less across, at equal distance, with the test of other placements of the boundaries."""
    excess = {}
    for name, motion in results.motions.items():
        tests = {} if motion.of.spectra is None else motion.of.spectra.tests
        for side in SIDES:
            value, test = motion.total(within(side)).value, tests.get(side)
            excess[f"{name} {side}"] = (
                Estimate(value) if test is None else placed(value, test.p_value, test.placements)
            )
    return {"excess": excess, "level": _levels(excess)}


@beside_twins
def turned_together(results: Results) -> Numbers:
    """The leading Lyapunov exponent less the growth of the tokens' norm: below 0 angles shrink.

    Both have an interval over images. Curves of blocks are of the same images, so that the error of their mean is at
    most the mean of their errors; twins count by their spread."""
    gap = {}
    for name, motion in results.motions.items():
        rows = motion.of.table.query("statistic == 'norm_growth' and group == 'all'")
        norm = (
            Estimate(*rows[["mean", "low", "high"]].mean())
            if "low" in rows
            else _counted(rows["mean"].mean())
        )
        gap[name] = motion.total(EXPONENT).less(norm)
    return {"gap": gap, "level": _levels(gap)}


def contracting(results: Results) -> Numbers:
    """Spectral radius of every block of a Raptor where it ends, and of those fitted to untrained twins."""

    def radii(found: FixedPoints) -> dict[str, Any]:
        rows = {phase: found.curve(phase, "radius").iloc[0] for phase in found.lengths}
        radius = {phase: Estimate(row["mean"], row["low"], row["high"]) for phase, row in rows.items()}
        return {"radius": radius, "level": _levels(radius)}

    twins = [radii(one) for one in results.of_twins]
    return {**radii(results.fixed_points), **({UNTRAINED: twins} if twins else {})}


ALONG = {
    "attention_share": ("attention's share of both updates", ".2f"),
    "branches_cosine": ("cosine of both updates", "+.2f"),
    "attention_cosine": ("cosine of attention's with the state", "+.2f"),
    "mlp_cosine": ("cosine of the MLP's with the state", "+.2f"),
    "leading_growth": ("growth of the leading direction, nats", ".2f"),
    "norm_growth": ("growth of the norm, nats", ".2f"),
    "readout_decided": ("decided after this block", ".0%"),
}


def along(results: Results) -> list[dict[str, Any]]:
    """Curves over blocks, in words: of every network, statistic and token group."""
    return [
        {"name": name, "what": what, "group": group, "values": [f"{one:{form}}" for one in curve[-layers:]]}
        for name, motion in results.motions.items()
        for layers in (motion.of.phases.layers,)
        for statistic, (what, form) in ALONG.items()
        for group in motion.of.groups(statistic)
        for curve in (motion.curve(statistic, group),)
    ]
