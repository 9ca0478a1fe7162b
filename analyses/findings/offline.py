"""The offline model's phases, motion, perturbations and interventions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyses.findings.twins import beside
from analyses.recording import OFFLINE, RESULTS
from analyses.rules import Numbers
from analyses.statistics import Estimate, across_over_within, placed
from brdyn import Phases
from brdyn.classifiers import packaged
from brdyn.errors import BrdynError
from brdyn.interventions import Repair, Surgery, within_against_across
from brdyn.interventions.repair_result import shallow_and_deep
from brdyn.measures.dynamics import Dynamics
from brdyn.measures.intervals import of_share
from brdyn.store import read_json

CLASSES = 10  # of the packaged network
FILES = {"dynamics": "dynamics", "basins": "dynamics", "perturb": "perturb", "interventions": "interventions"}


class Results(NamedTuple):
    """The recorded runs: of dynamics, basins, perturbations and interventions, each with its file, of phases, and of
    dynamic modes on more images than they have directions."""

    phases: Phases
    repair: Repair
    surgery: Surgery
    dynamics: dict[str, Any]
    basins: dict[str, Any]
    perturbed: dict[str, Any]
    operated: dict[str, Any]
    motion: Dynamics
    modes: dict[str, Any]


def load() -> Results:
    places = [RESULTS / folder / OFFLINE for folder in FILES]
    files = [place / f"{name}.json" for place, name in zip(places, FILES.values(), strict=True)]
    dynamics, *others = [read_json(file, "a recorded result") for file in files]
    motion, repair, surgery = Dynamics.read(places[0]), Repair.read(places[2]), Surgery.read(places[3])
    basins, perturbed, operated = others
    modes = read_json(RESULTS / "modes" / f"{OFFLINE}_ridge0.1" / "dynamics.json", "a recorded result")
    return Results(motion.phases, repair, surgery, dynamics, basins, perturbed, operated, motion, modes)


def as_twins(results: Results, part: str) -> Iterator[Results]:
    """The results with each untrained twin in the place of the network, in one part; none where it has no twins."""
    recorded: Dynamics | Repair | Surgery = getattr(results, part)
    for tables in recorded.null.each() if recorded.null is not None else []:
        twin = recorded.of_tables(tables)
        changed: dict[str, Any] = {part: twin}
        if isinstance(twin, Dynamics):
            changed["dynamics"] = {**results.dynamics, **twin.content()}
        yield results._replace(**changed)


def beside_twins(part: str) -> Callable[[Callable[[Results], Numbers]], Callable[[Results], Numbers]]:
    """The numbers of a finding with those of untrained twins, where this part of the results has them."""
    return beside(partial(as_twins, part=part))


@beside_twins("motion")
def convergence(results: Results) -> Numbers:
    share, block = {}, {}
    for group, curve in results.dynamics["convergence"].items():
        rise = np.diff(curve)
        share[group], block[group] = float(rise.max() / (curve[-1] - min(curve))), rise.argmax() + 1
    return {"share": share, "block": block}


@beside_twins("motion")
def final_turn(results: Results) -> Numbers:
    cls, patches = (np.array(results.dynamics["speed"][group]) for group in ("cls", "patches"))
    medians = np.median([cls, patches], axis=1)
    ends = {"there": cls[-1], "patches": patches[-1], "medians": medians}
    return {"fastest": int(cls.argmax()) + 1, "blocks": len(cls), **ends}


def _as_worded(what: str, is_worded: bool) -> None:
    """Refuse numbers of another statistic than the words of a rule are of: those of brdyn's first versions."""
    if not is_worded:
        raise BrdynError(
            f"the recorded {what} are of an old statistic, and rule and words of the new; record anew"
        )


def speed_jumps(results: Results) -> Numbers:
    tests = results.dynamics["alignment"]
    _as_worded("alignment", all(one.get("statistic") == "speed" for one in tests.values()))
    excess = [
        placed(one["at_boundaries"] - one["inside"], one["p_value"], one["placements"])
        for one in tests.values()
    ]
    return {"excess": excess, "tests": tests, "k": results.phases.k}


@beside_twins("motion")
def rank(results: Results) -> Numbers:
    rank, stable = (np.array(results.dynamics[f"{kind}_rank"]) for kind in ("effective", "stable"))
    ends = {"peak": rank.max(), "first": rank[0], "last": rank[-1], "others": rank[:-1].min()}
    return {"rank": rank, "stable": stable, "fall": rank[-1] / rank.max(), **ends}


def late_rank(results: Results) -> Numbers:
    return {"last": results.dynamics["effective_rank"][-1]}


@beside_twins("motion")
def coherence(results: Results) -> Numbers:
    curve = np.array(results.dynamics["coherence"])
    middle = np.median(curve[len(curve) // 3 : 2 * len(curve) // 3])
    return {"first": curve[0], "middle": middle, "last": curve[-1], "rise": curve[-1] - middle}


def basins(results: Results) -> Numbers:
    rows = pd.DataFrame(results.basins["table"]).query(
        "group == 'cls' and layer > 0 and statistic == 'basin_ratio'"
    )
    ratio = [Estimate(*rows.iloc[place][["mean", "low", "high"]]) for place in (0, -1)]
    purity = np.array(results.basins["knn_purity"]["cls"], dtype=float)
    found = {
        "ratio": ratio,
        "purity": purity,
        "best": np.nanargmax(purity),
        "found": results.basins["basins"],
    }
    return {"fall": ratio[0].less(ratio[1]), **found}


@beside_twins("motion")
def estimation(results: Results) -> Numbers:
    means, spreads = (results.dynamics[f"estimation_{name}"].values() for name in ("mean", "variance"))
    within = [curve[first - 1 : last - 1] for curve in spreads for first, last in results.phases.intervals]
    mean, spread = (
        np.concatenate([np.array(curve, dtype=float) for curve in curves]) for curves in (means, spreads)
    )
    inside = spread > 0
    bias = np.median(np.abs(mean[inside]) / np.sqrt(spread[inside]))
    return {"steps": np.concatenate([np.diff(curve) for curve in within]), "bias": bias}


def _modes(results: Results, measure: str) -> pd.DataFrame:
    modes = results.modes["modes"]
    _as_worded("modes", modes.get("centred", False))
    return pd.DataFrame(modes["errors"]).query(f"measure == '{measure}'")


def operator(results: Results) -> Numbers:
    rows = _modes(results, "cosine").query("2 <= steps <= 4")
    wide = rows.pivot_table(index=["group", "phase", "steps"], columns="predictor", values="mean")
    return {"gap": (wide["endpoint"] - wide["operator"]).groupby("group").max().to_dict()}


def most_linear(results: Results) -> Numbers:
    rows = _modes(results, "r2").query("predictor == 'endpoint'")
    wide = rows.loc[rows.groupby(["group", "phase"])["steps"].idxmax()].pivot(
        index="phase", columns="group", values="mean"
    )
    ends = {group: list(wide[group]) for group in ("cls", "patches")}
    return {**ends, "ends": ends}


def _shallow_and_deep(results: Results, group: str) -> Numbers:
    """Of noise on a token group and the error left on it; noise on the last state goes through no block."""
    eps = float(results.repair.angles["eps"].max())
    final = results.repair.final(group, group, eps)[:-1]
    third, count = len(final) // 3, len(final)
    shallow, deep = shallow_and_deep(final)
    return {
        "shallow": shallow, "deep": deep, "ratio": deep / shallow, "eps": eps, "third": third, "count": count,
    }  # fmt: skip


deep_noise_on_patches = beside_twins("repair")(partial(_shallow_and_deep, group="patches"))
deep_noise_on_cls = beside_twins("repair")(partial(_shallow_and_deep, group="cls"))


@beside_twins("surgery")
def swaps(results: Results) -> Numbers:
    surgery, phase = results.surgery, results.phases.labels
    found = {
        readout: within_against_across(surgery.matrix("swap", readout), results.phases.boundaries)
        for readout in surgery.readouts
    }
    tests = {readout: test for readout, test in found.items() if test is not None}
    others = (
        within_against_across(surgery.matrix("swap", readout), results.phases.segmentations[k].boundaries)
        for k in range(2, 6) for readout in surgery.readouts
    )  # fmt: skip
    smallest = min(test.p_contiguous for test in others if test is not None)
    within = {}
    for readout in tests:
        rows = surgery.rows("swap", readout)
        same = np.array([phase[first - 1] == phase[second - 1] for first, second in rows["layers"]])
        within[readout] = Estimate(*rows[same][["mean", "low", "high"]].mean())
    excess = [
        placed(test.across - test.within, test.p_contiguous, test.placements) for test in tests.values()
    ]
    ratio = {readout: test.within / test.across for readout, test in tests.items()}
    return {"within_phase": within, "excess": excess, "ratio": ratio, "tests": tests, "smallest": smallest}


@beside_twins("surgery")
def shuffles(results: Results) -> Numbers:
    surgery, kinds = results.surgery, {"within_phase": "shuffle_within", "across": "shuffle_across"}
    found = {
        name: {readout: surgery.rows(kind, readout)["mean"].mean() for readout in surgery.readouts}
        for name, kind in kinds.items()
    }
    excess = {readout: _excess(results, readout, *kinds.values()) for readout in surgery.readouts}
    return {**found, "excess": excess, "ratio": _ratio(found["within_phase"], found["across"])}


def _excess(results: Results, readout: str, *kinds: str) -> Estimate:
    """Harm across phases over that within, of what reaches as far; an order that is there twice is one."""
    rows = pd.concat([results.surgery.rows(kind, readout) for kind in kinds]).drop_duplicates("order")
    touched = [
        layers if kind == "replace" else [layer for layer, now in enumerate(order, 1) if layer != now]
        for kind, layers, order in zip(rows["kind"], rows["layers"], rows["order"], strict=True)
    ]
    spans = [(min(layers), max(layers)) for layers in touched]
    return across_over_within(spans, rows["mean"], results.phases.boundaries, results.surgery.layers)


def _ratio(within: dict[str, float], across: dict[str, float]) -> dict[str, float]:
    return {readout: within[readout] / across[readout] for readout in within}


@beside_twins("surgery")
def replacements(results: Results) -> Numbers:
    phase, within, across, whole = results.phases.labels, {}, {}, {}
    for readout in results.surgery.readouts:
        rows = results.surgery.rows("replace", readout)
        first, second = np.array(list(rows["layers"])).T
        same, near, mean = (
            phase[first - 1] == phase[second - 1],
            abs(first - second) == 1,
            rows["mean"].to_numpy(),
        )
        within[readout], across[readout] = mean[same & near].mean(), mean[~same & near].mean()
        whole[readout] = mean[same].mean(), mean[~same].mean()
    excess = {readout: _excess(results, readout, "replace") for readout in within}
    return {
        "within_phase": within, "across": across, "whole": whole, "excess": excess, "ratio": _ratio(within, across),
    }  # fmt: skip


def deletions(surgery: Surgery) -> Numbers:
    rows, intact = surgery.rows("delete", "head", "accuracy").sort_values("mean"), surgery.intact_accuracy
    assert intact is not None
    low, high = of_share(intact, rows["n_images"].iloc[0])
    half = Estimate(*((value - 1 / CLASSES) / 2 for value in (intact, low, high)))
    left = [
        Estimate(*row).less(half)
        for row in (rows[["mean", "low", "high"]] - 1 / CLASSES).itertuples(index=False)
    ]
    worst, best = rows.iloc[0].to_dict(), rows["mean"].iloc[-1]
    return {"left": left, "right": intact, "worst": worst, "best": best, "name": packaged.NAME}
