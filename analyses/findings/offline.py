"""The offline model's phases, motion, perturbations and interventions."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyses.findings import Measured
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
    dynamics, basins, perturbed, operated = (
        read_json(RESULTS / folder / OFFLINE / f"{name}.json", "a recorded result")
        for folder, name in (("dynamics", "dynamics"), ("basins", "dynamics"), ("perturb", "perturb"),
                             ("interventions", "interventions"))
    )  # fmt: skip
    return Results(
        dynamics,
        basins,
        Repair.read(RESULTS / "perturb" / OFFLINE),
        Surgery.read(RESULTS / "interventions" / OFFLINE),
        Phases.from_dict(dynamics["phases"]),
        perturbed,
        operated,
    )


def beyond_drift(results: Results) -> Measured:
    """Are there phases that a steady drift would not give?"""
    found = {k: results.phases.segmentations[k] for k in range(2, 6)}
    cut, drift = (
        {k: getattr(one, name) for k, one in found.items()} for name in ("cut_share", "drift_share")
    )
    stable = min(min(one.stability or (0.0,)) for one in found.values())
    return Measured(
        "share cut, over a drift's: " + ", ".join(f"k={k} {100 * (cut[k] - drift[k]):+.1f}" for k in found)
        + f" points; each boundary in {'all' if stable == 1 else f'at least {stable:.0%} of'} bootstrap samples of "
        "images",
        {"the share of the dissimilarity that is cut": cut, "that of a structureless drift": drift},
    )  # fmt: skip


def convergence(results: Results) -> Measured:
    """Is the rise spread over depth?"""
    shares = {}
    for group, curve in results.dynamics["convergence"].items():
        rise = np.diff(curve)
        shares[group] = (float(rise.max() / (curve[-1] - min(curve))), int(rise.argmax()) + 1)
    return Measured(
        "largest share of the rise from its lowest point: "
        + ", ".join(f"{group} {share:.0%} by block {layer}" for group, (share, layer) in shares.items()),
        {
            "the share of the rise that a single block makes": {
                group: share for group, (share, _) in shares.items()
            }
        },
    )


def final_turn(results: Results) -> Measured:
    """Is cls fastest in the last block, and faster than patches?"""
    cls, patches = (np.array(results.dynamics["speed"][group]) for group in ("cls", "patches"))
    return Measured(
        f"last block: cls {cls[-1]:.2f}, patches {patches[-1]:.2f} radians; median of all blocks: cls "
        f"{np.median(cls):.2f}, patches {np.median(patches):.2f}",
        {"the speed of cls": cls, "its speed there": cls[-1], "that of the patches": patches[-1]},
    )


def registers(_: Results) -> Measured:
    """The offline model has none."""
    return Measured("the model has no registers")


def speed_jumps(results: Results) -> Measured:
    """Permutation tests of the change of speed."""
    tests = results.dynamics["alignment"]
    said = ", ".join(
        f"{group} {test['at_boundaries']:.2f} at boundaries, {test['inside']:.2f} inside (p = {test['p_value']:.2f})"
        for group, test in tests.items()
    )
    excess = {
        group: Estimate(test["at_boundaries"] - test["inside"], p_value=test["p_value"])
        for group, test in tests.items()
    }
    name = "the change of speed at boundaries over that inside phases"
    return Measured(f"k = {results.phases.k}: {said}", {name: excess})


def rank(results: Results) -> Measured:
    """Rises to mid depth and falls late."""
    effective, stable = (np.array(results.dynamics[name]) for name in ("effective_rank", "stable_rank"))
    return Measured(
        f"effective rank {effective[0]:.0f}, {effective.max():.0f} (update {effective.argmax()}), {effective[-1]:.0f}; "
        f"stable rank {stable[0]:.1f}, {stable.max():.1f}, {stable[-1]:.1f}",
        {"the effective rank": effective},
    )


def late_rank(results: Results) -> Measured:
    """To about 6?"""
    last = results.dynamics["effective_rank"][-1]
    return Measured(f"{last:.0f}", {"the last effective rank": last})


def coherence(results: Results) -> Measured:
    """Rises late."""
    curve = np.array(results.dynamics["coherence"])
    middle = float(np.median(curve[len(curve) // 3 : 2 * len(curve) // 3]))
    return Measured(
        f"{curve[0]:.2f} at first, {middle:.2f} in the middle third, {curve[-1]:.2f} at last",
        {"the last value": curve[-1], "the median of the middle third": middle},
    )


def basins(results: Results) -> Measured:
    """Do classes gather?"""
    table = pd.DataFrame(results.basins["table"])
    rows = table[(table["group"] == "cls") & (table["layer"] > 0)]
    ratio = rows[rows["statistic"] == "basin_ratio"].set_index("layer")
    purity, said = results.basins["knn_purity"]["cls"], results.basins["basins"]
    first, last = (Estimate(*row[["mean", "low", "high"]]) for row in (ratio.iloc[0], ratio.iloc[-1]))
    best = int(np.nanargmax(np.array(purity, dtype=float)))
    return Measured(
        f"{said['n_images']} CIFAR-10 images: ratio {first.say('.3f')} at layer 1, {last.say('.3f')} at L; purity "
        f"{purity[1]:.2f}, at most {purity[best]:.2f} (layer {best}), {purity[-1]:.2f} at L (chance "
        f"{said['chance_purity']:.2f})",
        {
            "the upper end of the interval of the ratio of the angle within to between classes at L": last.high,
            "the lower end of that at layer 1": first.low,
        },
    )


def estimation(results: Results) -> Measured:
    """Does the variance of the error fall within phases?"""
    steps: list[float] = []
    for curve in results.dynamics["estimation_variance"].values():
        for first, last in results.phases.intervals:
            steps += np.diff(curve[first - 1 : last - 1]).tolist()
    means, spreads = (
        np.abs(np.concatenate(list(map(np.array, results.dynamics[f"estimation_{name}"].values()))))
        for name in ("mean", "variance")
    )
    inside = spreads > 0
    share = float(np.median(means[inside] / np.sqrt(spreads[inside])))
    return Measured(
        f"variance falls in {sum(step < 0 for step in steps)} of {len(steps)} steps; median of absolute mean over "
        f"standard deviation {share:.3f}",
        {
            "the step of the variance from layer to layer": steps,
            "the median of absolute mean over standard deviation": share,
        },
    )


def operator(results: Results) -> Measured:
    """How far is one operator from the endpoint map?"""
    rows = pd.DataFrame(results.dynamics["modes"]["errors"]).query("measure == 'cosine' and 2 <= steps <= 4")
    wide = rows.pivot_table(index=["group", "phase", "steps"], columns="predictor", values="mean")
    gap = (wide["endpoint"] - wide["operator"]).groupby("group").max().to_dict()
    return Measured(
        "largest gap: " + ", ".join(f"{group} {value:.3f}" for group, value in gap.items()),
        {"what one operator loses in cosine on the endpoint map, at most over phases and 2 to 4 steps,": gap},
    )


def most_linear(results: Results) -> Measured:
    """Is cls closest to linear?"""
    rows = pd.DataFrame(results.dynamics["modes"]["errors"]).query(
        "measure == 'cosine' and predictor == 'operator'"
    )
    ends = rows.loc[rows.groupby(["group", "phase"])["steps"].idxmax()]
    wide = ends.pivot(index="phase", columns="group", values="mean")
    said = "; ".join(
        f"{group} {', '.join(f'{value:.2f}' for value in wide[group])}" for group in ("cls", "patches")
    )
    return Measured(
        f"cosine at the end of each phase: {said}",
        {
            "the cosine of cls at the end of the phase": list(wide["cls"]),
            "that of the patches": list(wide["patches"]),
        },
    )


def _shallow_and_deep(results: Results, group: str) -> Measured:
    """Of noise on a token group and the error left on it; noise on the last state goes through no block."""
    eps = float(results.repair.angles["eps"].max())
    final = results.repair.final(group, group, eps)[:-1]
    third = len(final) // 3
    shallow, deep = float(final[:third].mean()), float(final[-third:].mean())
    return Measured(
        f"noise of {eps:g}: {shallow:.3f} radians from states 0 to {third - 1}, {deep:.3f} from {len(final) - third} "
        f"to {len(final) - 1}",
        {
            "the mean angle at L of noise on the first third of the starts": shallow,
            "that of noise on the last third (below L)": deep,
        },
    )


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
    smallest = min(
        within_against_across(results.surgery.matrix("swap", readout), found.boundaries).p_contiguous  # type: ignore[union-attr]
        for k, found in results.phases.segmentations.items()
        if 2 <= k <= 5
        for readout in results.surgery.readouts
    )
    return Measured(
        f"relative error: {said}. Smallest p for k = 2 to 5: {smallest:.2f}",
        {
            "the relative error of swaps within a phase": {
                readout: test.within for readout, test in tests.items()
            },
            "p against other contiguous phases": {
                readout: test.p_contiguous for readout, test in tests.items()
            },
        },
    )


def shuffles(results: Results) -> Measured:
    """Is shuffling within a phase less harmful than across a boundary?"""
    within, across = (
        {
            readout: float(results.surgery.rows(f"shuffle_{where}", readout)["mean"].mean())
            for readout in results.surgery.readouts
        }
        for where in ("within", "across")
    )
    said = "; ".join(
        f"{readout} {within[readout]:.2f} within, {across[readout]:.2f} across" for readout in within
    )
    return Measured(
        f"relative error: {said}",
        {
            "the relative error of shuffles within a phase": within,
            "that of shuffling as many consecutive layers across a boundary": across,
        },
    )


def replacements(results: Results) -> Measured:
    """Is a layer better replaced by one of its phase?"""
    intervals = results.phases.intervals
    own = {layer: phase for phase, (first, last) in enumerate(intervals) for layer in range(first, last + 1)}
    parts, within, across = [], {}, {}
    for readout in results.surgery.readouts:
        rows = results.surgery.rows("replace", readout)
        same = np.array([own[first] == own[second] for first, second in rows["layers"]])
        near = np.array([abs(first - second) == 1 for first, second in rows["layers"]])
        mean = rows["mean"].to_numpy()
        within[readout], across[readout] = mean[same & near].mean(), mean[~same & near].mean()
        parts.append(
            f"{readout} {mean[same].mean():.2f} within, {mean[~same].mean():.2f} across; neighbours only "
            f"{within[readout]:.2f} and {across[readout]:.2f}"
        )
    return Measured(
        f"relative error: {'; '.join(parts)}",
        {
            "the relative error of a neighbouring layer's weights within a phase": within,
            "that of a neighbour's across a boundary": across,
        },
    )


def deletions(surgery: Surgery) -> Measured:
    """Does the packaged network bear the loss of any one layer?"""
    right = surgery.rows("delete", "head", "accuracy").sort_values("mean")
    worst, intact = right.iloc[0], surgery.intact_accuracy
    assert intact is not None
    left = [(mean - 1 / CLASSES) / (intact - 1 / CLASSES) for mean in right["mean"]]
    return Measured(
        f"`{packaged.NAME}`: intact {intact:.1%}, worst {worst['mean']:.1%} [{worst['low']:.1%}, {worst['high']:.1%}] "
        f"(layer {worst['layers'][0]}), best {right['mean'].iloc[-1]:.1%}",
        {"the accuracy above chance that is left": left, "the intact network's": [1.0] * len(left)},
    )
