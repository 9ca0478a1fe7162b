"""The offline model's phases, motion, perturbations and interventions."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyses.findings import Measured, listed
from analyses.recording import OFFLINE, RESULTS
from analyses.statistics import Estimate
from brdyn.interventions import Repair, Surgery, within_against_across
from brdyn.models import packaged
from brdyn.phases import Phases
from brdyn.results import read_json

CLASSES = 10  # of the packaged network


class Results(NamedTuple):
    """The recorded runs: of dynamics, basins, perturbations and interventions, each with its file, and of phases."""

    dynamics: dict[str, Any]
    basins: dict[str, Any]
    repair: Repair
    surgery: Surgery
    phases: Phases
    perturbed: dict[str, Any]
    operated: dict[str, Any]


def load() -> Results:
    """Read the recorded runs."""
    files = {
        "dynamics": "dynamics",
        "basins": "dynamics",
        "perturb": "perturb",
        "interventions": "interventions",
    }
    dynamics, basins, perturbed, operated = (
        read_json(RESULTS / folder / OFFLINE / f"{name}.json", "a recorded result")
        for folder, name in files.items()
    )
    repair, surgery = (
        Repair.read(RESULTS / "perturb" / OFFLINE),
        Surgery.read(RESULTS / "interventions" / OFFLINE),
    )
    return Results(
        dynamics, basins, repair, surgery, Phases.from_dict(dynamics["phases"]), perturbed, operated
    )


def beyond_drift(results: Results) -> Measured:
    """Are there phases that a steady drift would not give?"""
    found = [results.phases.segmentations[k] for k in range(2, 6)]
    cut, drift = ([getattr(one, name) for one in found] for name in ("cut_share", "drift_share"))
    stable = min(min(one.stability or (0.0,)) for one in found)
    points = {f"k={k}": 100 * (one - other) for k, one, other in zip(range(2, 6), cut, drift, strict=True)}
    bears = "all" if stable == 1 else f"at least {stable:.0%} of"
    said = f"{listed(points, '+.1f')} points; each boundary in {bears} bootstrap samples of images"
    return Measured(f"share cut, over a drift's: {said}", cut=cut, drift=drift)


def convergence(results: Results) -> Measured:
    """Is the rise spread over depth?"""
    share, parts = {}, []
    for group, curve in results.dynamics["convergence"].items():
        rise = np.diff(curve)
        share[group] = float(rise.max() / (curve[-1] - min(curve)))
        parts.append(f"{group} {share[group]:.0%} by block {rise.argmax() + 1}")
    return Measured(f"largest share of the rise from its lowest point: {', '.join(parts)}", share=share)


def final_turn(results: Results) -> Measured:
    """Is cls fastest in the last block, and faster than patches?"""
    cls, patches = (np.array(results.dynamics["speed"][group]) for group in ("cls", "patches"))
    said = f"last block: cls {cls[-1]:.2f}, patches {patches[-1]:.2f} radians; median of all blocks: cls "
    said += f"{np.median(cls):.2f}, patches {np.median(patches):.2f}"
    return Measured(said, speed=cls, there=cls[-1], patches=patches[-1])


def registers(_: Results) -> Measured:
    """The offline model has none."""
    return Measured("the model has no registers")


def speed_jumps(results: Results) -> Measured:
    """Permutation tests of the change of speed."""
    excess, parts = {}, []
    for group, test in results.dynamics["alignment"].items():
        there, inside, p = test["at_boundaries"], test["inside"], test["p_value"]
        excess[group] = Estimate(there - inside, p_value=p)
        parts.append(f"{group} {there:.2f} at boundaries, {inside:.2f} inside (p = {p:.2f})")
    return Measured(f"k = {results.phases.k}: {', '.join(parts)}", excess=excess)


def rank(results: Results) -> Measured:
    """Rises to mid depth and falls late."""
    rank, stable = (np.array(results.dynamics[name]) for name in ("effective_rank", "stable_rank"))
    said = f"effective rank {rank[0]:.0f}, {rank.max():.0f} (update {rank.argmax()}), {rank[-1]:.0f}; "
    return Measured(f"{said}stable rank {stable[0]:.1f}, {stable.max():.1f}, {stable[-1]:.1f}", rank=rank)


def late_rank(results: Results) -> Measured:
    """To about 6?"""
    last = results.dynamics["effective_rank"][-1]
    return Measured(f"{last:.0f}", last=last)


def coherence(results: Results) -> Measured:
    """Rises late."""
    curve = np.array(results.dynamics["coherence"])
    first, last, middle = curve[0], curve[-1], float(np.median(curve[len(curve) // 3 : 2 * len(curve) // 3]))
    said = f"{first:.2f} at first, {middle:.2f} in the middle third, {last:.2f} at last"
    return Measured(said, last=last, middle=middle)


def basins(results: Results) -> Measured:
    """Do classes gather?"""
    rows = pd.DataFrame(results.basins["table"]).query(
        "group == 'cls' and layer > 0 and statistic == 'basin_ratio'"
    )
    first, last = (Estimate(*row[["mean", "low", "high"]]) for row in (rows.iloc[0], rows.iloc[-1]))
    purity, found = results.basins["knn_purity"]["cls"], results.basins["basins"]
    best = int(np.nanargmax(np.array(purity, dtype=float)))
    said = f"{found['n_images']} CIFAR-10 images: ratio {first.say('.3f')} at layer 1, {last.say('.3f')} at L; purity "
    said += f"{purity[1]:.2f}, at most {purity[best]:.2f} (layer {best}), {purity[-1]:.2f} at L (chance "
    return Measured(f"{said}{found['chance_purity']:.2f})", first=first.low, last=last.high)


def estimation(results: Results) -> Measured:
    """Does the variance of the error fall within phases?"""
    means, spreads = (results.dynamics[f"estimation_{name}"].values() for name in ("mean", "variance"))
    steps = np.concatenate(
        [
            np.diff(curve[first - 1 : last - 1])
            for curve in spreads
            for first, last in results.phases.intervals
        ]
    )
    mean, spread = (
        np.concatenate([np.array(curve, dtype=float) for curve in curves]) for curves in (means, spreads)
    )
    inside = spread > 0
    bias = float(np.median(np.abs(mean[inside]) / np.sqrt(spread[inside])))
    said = (
        f"variance falls in {(steps < 0).sum()} of {len(steps)} steps; median of absolute mean over standard "
    )
    return Measured(f"{said}deviation {bias:.3f}", steps=steps, bias=bias)


def operator(results: Results) -> Measured:
    """How far is one operator from the endpoint map?"""
    rows = pd.DataFrame(results.dynamics["modes"]["errors"]).query("measure == 'cosine' and 2 <= steps <= 4")
    wide = rows.pivot_table(index=["group", "phase", "steps"], columns="predictor", values="mean")
    gap = (wide["endpoint"] - wide["operator"]).groupby("group").max().to_dict()
    return Measured(f"largest gap: {listed(gap, '.3f')}", gap=gap)


def most_linear(results: Results) -> Measured:
    """Is cls closest to linear?"""
    errors = pd.DataFrame(results.dynamics["modes"]["errors"])
    rows = errors.query("measure == 'cosine' and predictor == 'operator'")
    ends = rows.loc[rows.groupby(["group", "phase"])["steps"].idxmax()]
    wide = ends.pivot(index="phase", columns="group", values="mean")[["cls", "patches"]]
    said = "; ".join(f"{group} {', '.join(f'{value:.2f}' for value in wide[group])}" for group in wide)
    return Measured(
        f"cosine at the end of each phase: {said}", **{group: list(wide[group]) for group in wide}
    )


def _shallow_and_deep(results: Results, group: str) -> Measured:
    """Of noise on a token group and the error left on it; noise on the last state goes through no block."""
    eps = float(results.repair.angles["eps"].max())
    final = results.repair.final(group, group, eps)[:-1]
    third, count = len(final) // 3, len(final)
    shallow, deep = float(final[:third].mean()), float(final[-third:].mean())
    said = f"noise of {eps:g}: {shallow:.3f} radians from states 0 to {third - 1}, {deep:.3f} from "
    return Measured(f"{said}{count - third} to {count - 1}", shallow=shallow, deep=deep)


deep_noise_on_patches = partial(_shallow_and_deep, group="patches")
deep_noise_on_cls = partial(_shallow_and_deep, group="cls")


def swaps(results: Results) -> Measured:
    """Are swaps within a phase harmless, and less harmful than across?"""
    tests = {readout: test for readout, test in results.surgery.tests.items() if test is not None}
    said = "; ".join(
        f"{readout} {test.within:.2f} within, {test.across:.2f} across (p = {test.p_contiguous:.2f}; at equal "
        f"distance {test.matched_excess:+.2f}, p = {test.p_matched:.2f})"
        for readout, test in tests.items()
    )
    others = (
        within_against_across(results.surgery.matrix("swap", readout), results.phases.segmentations[k].boundaries)
        for k in range(2, 6) for readout in results.surgery.readouts
    )  # fmt: skip
    smallest = min(test.p_contiguous for test in others if test is not None)
    return Measured(
        f"relative error: {said}. Smallest p for k = 2 to 5: {smallest:.2f}",
        within_phase=[test.within for test in tests.values()], p=[test.p_contiguous for test in tests.values()],
    )  # fmt: skip


def shuffles(results: Results) -> Measured:
    """Is shuffling within a phase less harmful than across a boundary?"""
    surgery = results.surgery
    within, across = (
        [float(surgery.rows(f"shuffle_{where}", readout)["mean"].mean()) for readout in surgery.readouts]
        for where in ("within", "across")
    )
    each = zip(surgery.readouts, within, across, strict=True)
    said = "; ".join(f"{readout} {one:.2f} within, {other:.2f} across" for readout, one, other in each)
    return Measured(f"relative error: {said}", within_phase=within, across=across)


def replacements(results: Results) -> Measured:
    """Is a layer better replaced by one of its phase?"""
    phase, parts, within, across = results.phases.labels, [], [], []
    for readout in results.surgery.readouts:
        rows = results.surgery.rows("replace", readout)
        first, second = np.array(list(rows["layers"])).T
        same, near, mean = (
            phase[first - 1] == phase[second - 1],
            abs(first - second) == 1,
            rows["mean"].to_numpy(),
        )
        within.append(mean[same & near].mean())
        across.append(mean[~same & near].mean())
        said = f"{readout} {mean[same].mean():.2f} within, {mean[~same].mean():.2f} across; neighbours only "
        parts.append(f"{said}{within[-1]:.2f} and {across[-1]:.2f}")
    return Measured(f"relative error: {'; '.join(parts)}", within_phase=within, across=across)


def deletions(surgery: Surgery) -> Measured:
    """Does the packaged network bear the loss of any one layer?"""
    right = surgery.rows("delete", "head", "accuracy").sort_values("mean")
    worst, best, intact = right.iloc[0], right.iloc[-1], surgery.intact_accuracy
    assert intact is not None
    said = f"`{packaged.NAME}`: intact {intact:.1%}, worst {worst['mean']:.1%} "
    said += f"[{worst['low']:.1%}, {worst['high']:.1%}] (layer {worst['layers'][0]}), best {best['mean']:.1%}"
    return Measured(said, left=list((right["mean"] - 1 / CLASSES) / (intact - 1 / CLASSES)), intact=1.0)
