"""The offline model's phases, motion, perturbations and interventions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from analyses.findings.twins import Finding, beside, twins_of
from analyses.recording import OFFLINE, RESULTS
from analyses.rules import Numbers
from analyses.statistics import Estimate, across_over_within, matched, placed
from brdyn import Phases
from brdyn.classifiers import packaged
from brdyn.errors import BrdynError
from brdyn.interventions import Repair, Surgery, within_against_across
from brdyn.interventions.repair_result import shallow_and_deep
from brdyn.measures.dynamics import Dynamics
from brdyn.measures.intervals import of_share

CLASSES = 10  # of the packaged network


class Results(NamedTuple):
    """The recorded runs: of perturbations and interventions, of motion, of basins on images with classes, and of
    dynamic modes on more images than they have directions."""

    repair: Repair
    surgery: Surgery
    motion: Dynamics
    basins: Dynamics
    modes: Dynamics

    @property
    def phases(self) -> Phases:
        return self.motion.phases


def load() -> Results:
    return Results(
        Repair.read(RESULTS / "perturb" / OFFLINE), Surgery.read(RESULTS / "interventions" / OFFLINE),
        Dynamics.read(RESULTS / "dynamics" / OFFLINE), Dynamics.read(RESULTS / "basins" / OFFLINE),
        Dynamics.read(RESULTS / "modes" / f"{OFFLINE}_ridge0.1"),
    )  # fmt: skip


def beside_twins(part: str) -> Callable[[Finding[Results]], Finding[Results]]:
    """The numbers of a finding with those of untrained twins, where this part of the results has them."""
    return beside(lambda results: (results._replace(**{part: one}) for one in twins_of(getattr(results, part))))


def curves(motion: Dynamics, statistic: str) -> dict[str, np.ndarray]:
    """Over depth, by token group."""
    return {group: motion.curve(statistic, group) for group in motion.groups(statistic)}


@beside_twins("motion")
def convergence(results: Results) -> Numbers:
    rises = {group: np.diff(curve) for group, curve in curves(results.motion, "convergence").items()}
    ranges = {group: curve[-1] - min(curve) for group, curve in curves(results.motion, "convergence").items()}
    return {
        "share": {group: float(rise.max() / ranges[group]) for group, rise in rises.items()},
        "block": {group: rise.argmax() + 1 for group, rise in rises.items()},
    }


@beside_twins("motion")
def final_turn(results: Results) -> Numbers:
    cls, patches = (results.motion.curve("speed", group) for group in ("cls", "patches"))
    return {
        "fastest": int(cls.argmax()) + 1, "blocks": len(cls), "there": cls[-1], "patches": patches[-1],
        "medians": np.median([cls, patches], axis=1),
    }  # fmt: skip


def _as_worded(what: str, is_worded: bool) -> None:
    """Refuse numbers of another statistic than the words of a rule are of: those of brdyn's first versions."""
    if not is_worded:
        raise BrdynError(f"the recorded {what} are of an old statistic, and rule and words of the new; record anew")


def speed_jumps(results: Results) -> Numbers:
    tests = {group: test for group, test in results.motion.alignment.items() if test is not None}
    _as_worded("alignment", all(one.statistic == "speed" for one in tests.values()))
    excess = [placed(one.at_boundaries - one.inside, one.p_value, one.placements) for one in tests.values()]
    return {"excess": excess, "tests": tests, "k": results.phases.k}


@beside_twins("motion")
def rank(results: Results) -> Numbers:
    rank, stable = (results.motion.curve(f"{kind}_rank") for kind in ("effective", "stable"))
    return {
        "rank": rank, "stable": stable, "fall": rank[-1] / rank.max(), "peak": rank.max(), "first": rank[0],
        "last": rank[-1], "others": rank[:-1].min(),
    }  # fmt: skip


def late_rank(results: Results) -> Numbers:
    return {"last": results.motion.curve("effective_rank")[-1]}


@beside_twins("motion")
def coherence(results: Results) -> Numbers:
    curve = results.motion.curve("coherence")
    middle = np.median(curve[len(curve) // 3 : 2 * len(curve) // 3])
    return {"first": curve[0], "middle": middle, "last": curve[-1], "rise": curve[-1] - middle}


def basins(results: Results) -> Numbers:
    rows = results.basins.table.query("group == 'cls' and layer > 0 and statistic == 'basin_ratio'")
    ratio = [Estimate.of(rows.iloc[place]) for place in (0, -1)]
    purity = results.basins.curve("knn_purity", "cls")
    return {
        "fall": ratio[0].less(ratio[1]), "ratio": ratio, "purity": purity, "best": np.nanargmax(purity),
        "found": results.basins.basins,
    }  # fmt: skip


@beside_twins("motion")
def estimation(results: Results) -> Numbers:
    means, spreads = (list(curves(results.motion, f"estimation_{name}").values()) for name in ("mean", "variance"))
    within = [curve[first - 1 : last - 1] for curve in spreads for first, last in results.phases.intervals]
    mean, spread = np.concatenate(means), np.concatenate(spreads)
    inside = spread > 0
    bias = np.median(np.abs(mean[inside]) / np.sqrt(spread[inside]))
    return {"steps": np.concatenate([np.diff(curve) for curve in within]), "bias": bias}


def _errors(results: Results, chosen: str) -> pd.DataFrame:
    modes = results.modes.modes
    assert modes is not None
    _as_worded("modes", modes.centred)
    return modes.errors.query(chosen)


def operator(results: Results) -> Numbers:
    rows = _errors(results, "measure == 'cosine' and 2 <= steps <= 4")
    wide = rows.pivot_table(index=["group", "phase", "steps"], columns="predictor", values="mean")
    return {"gap": (wide["endpoint"] - wide["operator"]).groupby("group").max().to_dict()}


def most_linear(results: Results) -> Numbers:
    rows = _errors(results, "measure == 'r2' and predictor == 'endpoint'")
    last = rows.loc[rows.groupby(["group", "phase"])["steps"].idxmax()]
    wide = last.pivot(index="phase", columns="group", values="mean")
    ends = {group: list(wide[group]) for group in ("cls", "patches")}
    return {**ends, "ends": ends}


def _shallow_and_deep(results: Results, group: str) -> Numbers:
    """Of noise on a token group and the error left on it; noise on the last state goes through no block."""
    eps = float(results.repair.angles["eps"].max())
    final = results.repair.final(group, group, eps)[:-1]
    third, count = len(final) // 3, len(final)
    shallow, deep = shallow_and_deep(final)
    return {"shallow": shallow, "deep": deep, "ratio": deep / shallow, "eps": eps, "third": third, "count": count}


deep_noise_on_patches, deep_noise_on_cls = (
    beside_twins("repair")(partial(_shallow_and_deep, group=group)) for group in ("patches", "cls")
)


@beside_twins("surgery")
def swaps(results: Results) -> Numbers:
    surgery, phase = results.surgery, results.phases.labels
    matrices = {readout: surgery.matrix("swap", readout) for readout in surgery.readouts}
    found = {name: within_against_across(one, results.phases.boundaries) for name, one in matrices.items()}
    tests = {readout: test for readout, test in found.items() if test is not None}
    cuts = [results.phases.segmentations[k].boundaries for k in range(2, 6)]
    others = [within_against_across(one, boundaries) for boundaries in cuts for one in matrices.values()]
    within = {}
    for readout in tests:
        rows = surgery.rows("swap", readout)
        same = [phase[first - 1] == phase[second - 1] for first, second in rows["layers"]]
        within[readout] = Estimate.of(rows[same].mean(numeric_only=True))
    excess = [matched(test) for test in tests.values()]
    return {
        "within_phase": within, "excess": excess, "tests": tests,
        "ratio": {readout: test.within / test.across for readout, test in tests.items()},
        "smallest": min(test.p_matched for test in others if test is not None and test.p_matched is not None),
    }  # fmt: skip


def _harms(results: Results, within: dict[str, float], across: dict[str, float], *kinds: str) -> Numbers:
    """Harm within phases and across by read-out, their ratio, and the excess of that across over that within, of what
    reaches as far; an order that is there twice is one."""
    excess = {}
    for readout in within:
        rows = pd.concat([results.surgery.rows(kind, readout) for kind in kinds]).drop_duplicates("order")
        touched = [
            layers if kind == "replace" else [layer for layer, now in enumerate(order, 1) if layer != now]
            for kind, layers, order in zip(rows["kind"], rows["layers"], rows["order"], strict=True)
        ]
        spans = [(min(layers), max(layers)) for layers in touched]
        excess[readout] = across_over_within(spans, rows["mean"], results.phases.boundaries, results.surgery.layers)
    ratio = {readout: within[readout] / across[readout] for readout in within}
    return {"within_phase": within, "across": across, "excess": excess, "ratio": ratio}


@beside_twins("surgery")
def shuffles(results: Results) -> Numbers:
    surgery, kinds = results.surgery, ("shuffle_within", "shuffle_across")
    within, across = (
        {readout: surgery.rows(kind, readout)["mean"].mean() for readout in surgery.readouts} for kind in kinds
    )
    return _harms(results, within, across, *kinds)


@beside_twins("surgery")
def replacements(results: Results) -> Numbers:
    phase, within, across, whole = results.phases.labels, {}, {}, {}
    for readout in results.surgery.readouts:
        rows = results.surgery.rows("replace", readout)
        first, second = np.array(list(rows["layers"])).T
        same, near = phase[first - 1] == phase[second - 1], abs(first - second) == 1
        mean = rows["mean"].to_numpy()
        within[readout], across[readout] = mean[same & near].mean(), mean[~same & near].mean()
        whole[readout] = mean[same].mean(), mean[~same].mean()
    return {**_harms(results, within, across, "replace"), "whole": whole}


def deletions(surgery: Surgery) -> Numbers:
    rows, intact = surgery.rows("delete", "head", "accuracy").sort_values("mean"), surgery.intact_accuracy
    assert intact is not None
    low, high = of_share(intact, rows["n_images"].iloc[0])
    half = Estimate(*((value - 1 / CLASSES) / 2 for value in (intact, low, high)))
    above = rows.assign(**{name: rows[name] - 1 / CLASSES for name in ("mean", "low", "high")})
    worst, best = rows.iloc[0].to_dict(), rows["mean"].iloc[-1]
    left = [Estimate.of(row).less(half) for _, row in above.iterrows()]
    return {"left": left, "right": intact, "worst": worst, "best": best, "name": packaged.NAME}
