"""What layers do: whose work a block can do, what attention and the MLP add, when the answer is read, what blocks
stretch, and whether a Raptor's come to rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from analyses.findings.twins import beside, tables_of, twins_of, with_twins
from analyses.recording import OFFLINE, RESULTS
from analyses.rules import UNTRAINED, Numbers
from analyses.statistics import Estimate, across_over_within, matched
from brdyn.classifiers import packaged
from brdyn.interventions import Splice, within_against_across
from brdyn.interventions.splice_result import same_phase
from brdyn.measures.coupling import placement_test
from brdyn.measures.dynamics import Dynamics
from brdyn.measures.found_fixed_points import FixedPoints
from brdyn.measures.found_spectra import EXPONENT, SIDES, overall, within
from brdyn.measures.readout import deciding_state
from brdyn.raptor import Evaluation

NETWORKS = (OFFLINE, packaged.NAME)
TWINS = tuple(f"{packaged.NAME}_random{seed}" for seed in range(1, 5))
T = TypeVar("T")


class Motion(NamedTuple):
    """Curves over depth, and what spectra say over all of it: of a network, or of a twin."""

    of: Dynamics
    totals: pd.DataFrame

    def total(self, quantity: str) -> Estimate:
        """Of the leading index."""
        return Estimate.of(self.totals[self.totals["quantity"] == quantity].iloc[0])


class Results(NamedTuple):
    """What is recorded of each network, `motions` with branches, read-outs and spectra; and what the blocks of Raptors
    of the packaged one come to past their phases, and of those of its untrained twins."""

    splices: dict[str, Splice]
    motions: dict[str, Motion]
    fixed_points: FixedPoints
    of_twins: tuple[FixedPoints, ...] = ()


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


def _one_by_one(of: Mapping[str, list[T]]) -> Iterator[dict[str, T]]:
    """The first of every network, the second, and so on."""
    return (dict(zip(of, each, strict=True)) for each in zip(*of.values(), strict=True))


@beside
def beside_twins(results: Results) -> Iterator[Results]:
    """The results with the first untrained twin of every network in the place of it, the second, and so on."""
    splices = {name: twins_of(one) for name, one in results.splices.items()}
    motions = {
        name: [Motion(motion.of_tables(of), of["spectra"]) for of in tables_of(motion)]
        for name, (motion, _) in results.motions.items()
    }
    for of_splices, of_motions in zip(_one_by_one(splices), _one_by_one(motions), strict=True):
        yield results._replace(splices=of_splices, motions=of_motions)


def _counted(value: float) -> Estimate:
    """Of a twin, whose spread is that of all twins."""
    return Estimate(value, value, value)


@beside_twins
def work(results: Results) -> Numbers:
    """Squared error of another layer's block over that of doing nothing, mean over pairs within phases, and across."""
    found: dict[str, dict[str, Estimate]] = {"within phases": {}, "across phases": {}}
    for name, splice in results.splices.items():
        rows = splice.rows("exchange")
        same = same_phase(rows, splice.phases)
        for (where, of), chosen in zip(found.items(), (same, ~same), strict=True):
            row = splice.shared_work(where)
            of[name] = _counted(float(1 - rows["mean"][chosen].mean())) if row is None else Estimate.of(row)
    inside, across = found.values()
    return {"work": inside, "across": across}


@beside_twins
def shared(results: Results) -> Numbers:
    """Error of exchanged blocks across phases less that within, at equal distance."""
    excess = {}
    for name, splice in results.splices.items():
        matrix = splice.exchanged()
        test = within_against_across((matrix + matrix.T) / 2, splice.phases.boundaries)
        assert test is not None
        excess[name] = matched(test)
    return {"excess": excess}


def whole_phases(results: Results) -> list[dict[str, Any]]:
    """For each phase of two layers and more what stands in for it: skill at the last layer, over doing nothing."""
    found: dict[tuple[str, int, int], dict[str, Any]] = {}
    for name, splice in results.splices.items():
        rows = splice.whole_phases("skill")
        fitted = rows["calibration"].isin(splice.full["calibration"])
        for _, row in rows[fitted & (rows["end"] - rows["start"] > 1)].iterrows():
            of = found.setdefault((name, row["start"] + 1, row["end"]), {})
            of[row["surrogate"]] = Estimate.of(row)
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
    curves = {name: motion.of.curve("branches_cosine", "patches") for name, motion in results.motions.items()}
    return {"cosine": {name: float(np.nanmean(curve)) for name, curve in curves.items()}}


def share_jumps(results: Results) -> Numbers:
    """Change of attention's share from block to block, across phase boundaries over within phases."""
    excess = {}
    for name, (motion, _) in results.motions.items():
        boundaries, layers = motion.phases.boundaries, motion.phases.layers
        blocks = list(pairwise(range(1, layers + 1)))
        for group in motion.groups("attention_share"):
            change = np.abs(np.diff(motion.curve("attention_share", group)))
            excess[f"{name} {group}"] = across_over_within(blocks, change, boundaries, layers)
    return {"excess": excess}


@beside_twins
def decided(results: Results) -> Numbers:
    """The mean state from which on the answer of a head is the last one, and the last boundary of the phases."""
    states = {name: deciding_state(motion.of.table) for name, motion in results.motions.items()}
    name, (mean, low, high) = next((name, one) for name, one in states.items() if one is not None)
    network = results.motions[name].of
    state = _counted(mean) if network.null is None else Estimate(mean, low, high)
    return {"state": state, "last": max(network.phases.boundaries), "name": name}


@beside_twins
def _all_pairs(results: Results) -> Numbers:
    networks = results.motions.items()
    return {"coupling": {f"{name} {side}": one.total(overall(side)) for name, one in networks for side in SIDES}}


def coupling(results: Results) -> Numbers:
    """Coupling of the leading singular vectors of blocks, all pairs; and the mean of twins."""
    found = _all_pairs(results)
    of_twins = [one["coupling"] for one in found.get(UNTRAINED, [])]
    twins = {name: float(np.mean([one[name].value for one in of_twins])) for name in found["coupling"]}
    return {**found, "twins": twins}


@beside_twins
def coupled_phases(results: Results) -> Numbers:
    """The same within phases less across, at equal distance, with the test of other placements of the boundaries."""
    excess = {}
    for name, motion in results.motions.items():
        spectra, boundaries = motion.of.spectra, motion.of.phases.boundaries
        for side in SIDES:
            one = Estimate(motion.total(within(side)).value)
            if spectra is not None:
                coupled = spectra.coupling(side)[np.triu_indices(spectra.depth, 1)]
                test = placement_test(coupled, spectra.depth, boundaries, seed=0)
                assert test is not None
                one = replace(one, p_value=test.p_value, p_below=test.p_below)
            excess[f"{name} {side}"] = one
    return {"excess": excess}


@beside_twins
def turned_together(results: Results) -> Numbers:
    """The leading Lyapunov exponent less the growth of the tokens' norm: below 0 angles shrink.

    Both have an interval over images. Curves of blocks are of the same images, so that the error of their mean is at
    most the mean of their errors; twins count by their spread."""
    gap = {}
    for name, motion in results.motions.items():
        rows = motion.of.table.query("statistic == 'norm_growth' and group == 'all'")
        mean = rows.mean(numeric_only=True)
        norm = Estimate.of(mean) if "low" in rows else _counted(mean["mean"])
        gap[name] = motion.total(EXPONENT).less(norm)
    return {"gap": gap}


def contracting(results: Results) -> Numbers:
    """Spectral radius of every block of a Raptor where it ends, and of those fitted to untrained twins."""

    def radii(found: FixedPoints) -> Numbers:
        rows = {phase: found.curve(phase, "radius").iloc[0] for phase in found.lengths}
        return {"radius": {phase: Estimate.of(row) for phase, row in rows.items()}}

    return with_twins(radii(results.fixed_points), map(radii, results.of_twins))


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
    rows = []
    for name, (motion, _) in results.motions.items():
        for statistic, (what, form) in ALONG.items():
            for group in motion.groups(statistic):
                values = motion.curve(statistic, group)[-motion.phases.layers :]
                said = [f"{one:{form}}" for one in values]
                rows.append({"name": name, "what": what, "group": group, "values": said})
    return rows
