"""What the papers claim, and what the recorded runs on the offline model say: docs/guide/findings.md.

python -m analyses.findings            # rewrite
python -m analyses.findings --check    # fail if it differs from the results

Each verdict follows from the numbers by the rule that is stated with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyses.recording import OFFLINE, RESULTS, write_or_check
from analyses.statistics import together
from brdyn.interventions import Repair, Surgery, within_against_across
from brdyn.phases import Phases
from brdyn.store import read_json

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guide" / "findings.md"
SIGNIFICANT = 0.05


class Finding(NamedTuple):
    """A claim, the rule by which it holds here, the numbers, and whether they meet it (None: cannot be told)."""

    claim: str
    rule: str
    numbers: str
    holds: bool | None


WORDS = {True: "**holds**", False: "**fails**", None: "cannot be told"}


def claims_table(findings: Iterable[Finding], claim: str = "claim", here: str = "here") -> list[str]:
    """Findings as a Markdown table."""
    return [
        f"| {claim} | rule | measured | {here} |",
        "| --- | --- | --- | --- |",
        *(f"| {row.claim} | {row.rule} | {row.numbers} | {WORDS[row.holds]} |" for row in findings),
    ]


def not_recorded(claim: str, rule: str) -> Finding:
    """Where the runs that would tell are missing."""
    return Finding(claim, rule, "not recorded yet", None)


class Results(NamedTuple):
    """The recorded runs."""

    dynamics: dict[str, Any]
    basins: dict[str, Any]
    repair: Repair
    surgery: Surgery
    phases: Phases


def load() -> Results:
    """Read the recorded runs."""
    dynamics = read_json(RESULTS / "dynamics" / OFFLINE / "dynamics.json", "a recorded result")
    return Results(
        dynamics,
        read_json(RESULTS / "basins" / OFFLINE / "dynamics.json", "a recorded result"),
        Repair.read(RESULTS / "perturb" / OFFLINE),
        Surgery.read(RESULTS / "interventions" / OFFLINE),
        Phases.from_dict(dynamics["phases"]),
    )


def convergence(results: Results) -> Finding:
    """Is the rise spread over depth?"""
    shares = {}
    for group, curve in results.dynamics["convergence"].items():
        rise = np.diff(curve)
        shares[group] = (float(rise.max() / (curve[-1] - min(curve))), int(rise.argmax()) + 1)
    numbers = ", ".join(f"{group} {share:.0%} by block {layer}" for group, (share, layer) in shares.items())
    return Finding(
        "Directions converge to their end along an S (Jacobs et al.)",
        "no single block makes half of the rise",
        f"largest share of the rise from its lowest point: {numbers}",
        all(share < 0.5 for share, _ in shares.values()),
    )


def final_turn(results: Results) -> Finding:
    """Is cls fastest in the last block, and faster than patches?"""
    cls, patches = (np.array(results.dynamics["speed"][group]) for group in ("cls", "patches"))
    return Finding(
        "cls turns sharply at the end, patches are moderate (Jacobs et al.)",
        "cls is fastest in the last block, there faster than the patches",
        f"last block: cls {cls[-1]:.2f}, patches {patches[-1]:.2f} radians; median of all blocks: cls "
        f"{np.median(cls):.2f}, patches {np.median(patches):.2f}",
        bool(cls.argmax() == len(cls) - 1 and cls[-1] > patches[-1]),
    )


def registers(results: Results) -> Finding:
    """The offline model has none."""
    return Finding("Registers are slow (Jacobs et al.)", "–", "the model has no registers", None)


def speed_jumps(results: Results) -> Finding:
    """Permutation tests of the change of speed."""
    tests = results.dynamics["alignment"]
    numbers = ", ".join(
        f"{group} {test['at_boundaries']:.2f} at boundaries, {test['inside']:.2f} inside (p = {test['p_value']:.2f})"
        for group, test in tests.items()
    )
    return Finding(
        "Speed jumps at phase boundaries (Jacobs et al.)",
        f"p < {SIGNIFICANT} for every token group (fails: some group changes less at boundaries than inside)",
        f"k = {results.phases.k}: {numbers}",
        together(
            True
            if test["p_value"] < SIGNIFICANT
            else False
            if test["at_boundaries"] <= test["inside"]
            else None
            for test in tests.values()
        ),
    )


def rank(results: Results) -> Finding:
    """Rises to mid depth and falls late."""
    effective, stable = (np.array(results.dynamics[name]) for name in ("effective_rank", "stable_rank"))
    top = int(effective.argmax())
    return Finding(
        "The rank of the patch updates rises to mid depth and falls late (Jacobs et al.)",
        "the largest effective rank is inside, the last value the smallest",
        f"effective rank {effective[0]:.0f}, {effective.max():.0f} (update {top}), {effective[-1]:.0f}; stable rank "
        f"{stable[0]:.1f}, {stable.max():.1f}, {stable[-1]:.1f}",
        bool(0 < top < len(effective) - 1 and effective.argmin() == len(effective) - 1),
    )


def late_rank(results: Results) -> Finding:
    """To about 6?"""
    last = results.dynamics["effective_rank"][-1]
    return Finding(
        "It falls to about 6 (Jacobs et al.)",
        "the last effective rank is from 4 to 9",
        f"{last:.0f}",
        bool(4 <= last <= 9),
    )


def coherence(results: Results) -> Finding:
    """Rises late."""
    curve = np.array(results.dynamics["coherence"])
    middle = np.median(curve[len(curve) // 3 : 2 * len(curve) // 3])
    return Finding(
        "Coherence of the patch updates rises late (Jacobs et al.)",
        "the last value exceeds the median of the middle third",
        f"{curve[0]:.2f} at first, {middle:.2f} in the middle third, {curve[-1]:.2f} at last",
        bool(curve[-1] > middle),
    )


def basins(results: Results) -> Finding:
    """Do classes gather?"""
    table = pd.DataFrame(results.basins["table"])
    rows = table[(table["group"] == "cls") & (table["layer"] > 0)]
    ratio = rows[rows["statistic"] == "basin_ratio"].set_index("layer")
    purity = results.basins["knn_purity"]["cls"]
    first, last = ratio.iloc[0], ratio.iloc[-1]
    best = int(np.nanargmax(np.array(purity, dtype=float)))
    return Finding(
        "cls directions fall into basins of their class (Jacobs et al.)",
        "the ratio of the angle within to between classes at L lies below that at layer 1, intervals apart",
        f"{results.basins['basins']['n_images']} CIFAR-10 images: ratio {first['mean']:.3f} [{first['low']:.3f}, "
        f"{first['high']:.3f}] at layer 1, {last['mean']:.3f} [{last['low']:.3f}, {last['high']:.3f}] at L; purity "
        f"{purity[1]:.2f}, at most {purity[best]:.2f} (layer {best}), {purity[-1]:.2f} at L (chance "
        f"{results.basins['basins']['chance_purity']:.2f})",
        bool(last["high"] < first["low"]),
    )


def estimation(results: Results) -> Finding:
    """Does the variance of the error fall within phases?"""
    falls, total = 0, 0
    for group in results.dynamics["estimation_variance"]:
        curve = results.dynamics["estimation_variance"][group]
        for first, last in results.phases.intervals:
            steps = np.diff(curve[first - 1 : last - 1])  # the last one ends at no error, by definition
            falls, total = falls + int((steps < 0).sum()), total + len(steps)
    means, spreads = (
        np.abs(np.concatenate(list(map(np.array, results.dynamics[f"estimation_{name}"].values()))))
        for name in ("mean", "variance")
    )
    inside = spreads > 0
    share = float(np.median(means[inside] / np.sqrt(spreads[inside])))
    return Finding(
        "Within a phase the estimation error has mean near zero and falling variance (Greff et al.)",
        "variance falls at every layer of every phase but its last, where it is 0 by definition, and the mean is below "
        "a tenth of the standard deviation",
        f"variance falls in {falls} of {total} steps; median of absolute mean over standard deviation {share:.3f}",
        falls == total and share < 0.1,
    )


def operator(results: Results) -> Finding:
    """How far is one operator from the endpoint map?"""
    rows = pd.DataFrame(results.dynamics["modes"]["errors"]).query("measure == 'cosine' and 2 <= steps <= 4")
    wide = rows.pivot_table(index=["group", "phase", "steps"], columns="predictor", values="mean")
    gap = (wide["endpoint"] - wide["operator"]).groupby("group").max()
    numbers = ", ".join(f"{group} {value:.3f}" for group, value in gap.items())
    return Finding(
        "For 2 to 4 steps one operator stays within 0.02 in cosine of the endpoint map (Aswani and Jabari)",
        "for every token group and phase",
        f"largest gap: {numbers}",
        bool((gap <= 0.02).all()),
    )


def most_linear(results: Results) -> Finding:
    """Is cls closest to linear?"""
    rows = pd.DataFrame(results.dynamics["modes"]["errors"]).query(
        "measure == 'cosine' and predictor == 'operator'"
    )
    ends = rows.loc[rows.groupby(["group", "phase"])["steps"].idxmax()]
    wide = ends.pivot(index="phase", columns="group", values="mean")
    numbers = "; ".join(
        f"{group} {', '.join(f'{value:.2f}' for value in wide[group])}" for group in ("cls", "patches")
    )
    return Finding(
        "cls is the most linear (Aswani and Jabari)",
        "a higher cosine at the end of every phase than the patches'",
        f"cosine at the end of each phase: {numbers}",
        bool((wide["cls"] > wide["patches"]).all()),
    )


def deep_noise_on_patches(results: Results) -> Finding:
    """Shallow noise on patches hurts patches more than deep noise."""
    return _shallow_and_deep(
        results,
        "patches",
        "Shallow noise on patches leaves a large error on them, deep noise a small one",
        False,
    )


def deep_noise_on_cls(results: Results) -> Finding:
    """Deep noise on cls hurts cls more than shallow noise."""
    return _shallow_and_deep(results, "cls", "cls is the reverse, hurt most by deep noise", True)


def _shallow_and_deep(results: Results, group: str, claim: str, deep_is_worse: bool) -> Finding:
    eps = float(results.repair.angles["eps"].max())
    final = results.repair.final(group, group, eps)[:-1]  # noise on the last state goes through no block
    third = len(final) // 3
    shallow, deep = final[:third].mean(), final[-third:].mean()
    return Finding(
        f"{claim} (Jacobs et al.)",
        "mean angle at L from the first third of the starts against the last third (below L)",
        f"noise of {eps:g}: {shallow:.3f} radians from states 0 to {third - 1}, {deep:.3f} from "
        f"{len(final) - third} to {len(final) - 1}",
        bool((deep > shallow) == deep_is_worse),
    )


def swaps(results: Results) -> Finding:
    """Are swaps within a phase harmless, and less harmful than across?"""
    parts, verdicts = [], []
    for readout, test in results.surgery.tests.items():
        assert test is not None
        verdicts.append(test.within < 0.1 and test.p_contiguous < SIGNIFICANT)
        parts.append(
            f"{readout} {test.within:.2f} within, {test.across:.2f} across (p = {test.p_contiguous:.2f}; at equal "
            f"distance {test.matched_excess:+.2f}, p = {test.p_matched:.2f})"
        )
    smallest = min(
        within_against_across(results.surgery.matrix("swap", readout), found.boundaries).p_contiguous  # type: ignore[union-attr]
        for k, found in results.phases.segmentations.items()
        if 2 <= k <= 5
        for readout in results.surgery.readouts
    )
    return Finding(
        "Swapping two layers is harmless within a phase and breaks the network across (Jacobs et al.)",
        f"relative error within below 0.1, and p < {SIGNIFICANT} against other contiguous phases",
        f"relative error: {'; '.join(parts)}. Smallest p for k = 2 to 5: {smallest:.2f}",
        all(verdicts),
    )


def shuffles(results: Results) -> Finding:
    """Is shuffling within a phase less harmful than across a boundary?"""
    means = {
        readout: [
            float(results.surgery.rows(f"shuffle_{where}", readout)["mean"].mean())
            for where in ("within", "across")
        ]
        for readout in results.surgery.readouts
    }
    numbers = "; ".join(
        f"{readout} {inside:.2f} within, {across:.2f} across" for readout, (inside, across) in means.items()
    )
    return Finding(
        "Shuffling the layers of a phase does less harm than shuffling across a boundary (Jacobs et al.)",
        "less relative error than shuffling as many consecutive layers across a boundary",
        f"relative error: {numbers}",
        all(inside < across for inside, across in means.values()),
    )


def replacements(results: Results) -> Finding:
    """Is a layer better replaced by one of its phase?"""
    intervals = results.phases.intervals
    own = {layer: phase for phase, (first, last) in enumerate(intervals) for layer in range(first, last + 1)}
    parts, verdicts = [], []
    for readout in results.surgery.readouts:
        rows = results.surgery.rows("replace", readout)
        same = np.array([own[first] == own[second] for first, second in rows["layers"]])
        neighbours = np.array([abs(first - second) == 1 for first, second in rows["layers"]])
        mean = rows["mean"].to_numpy()
        verdicts.append(mean[same & neighbours].mean() < mean[~same & neighbours].mean())
        parts.append(
            f"{readout} {mean[same].mean():.2f} within, {mean[~same].mean():.2f} across; neighbours only "
            f"{mean[same & neighbours].mean():.2f} and {mean[~same & neighbours].mean():.2f}"
        )
    return Finding(
        "A layer's weights can be replaced by another's of its phase rather than of another (Jacobs et al.)",
        "among neighbouring layers, less relative error within a phase",
        f"relative error: {'; '.join(parts)}",
        all(verdicts),
    )


FINDINGS: tuple[Callable[[Results], Finding], ...] = (
    convergence,
    final_turn,
    registers,
    speed_jumps,
    basins,
    rank,
    late_rank,
    coherence,
    estimation,
    operator,
    most_linear,
    deep_noise_on_patches,
    deep_noise_on_cls,
    swaps,
    shuffles,
    replacements,
)


def page(results: Results) -> str:
    """The page, as Markdown."""
    rows = [found(results) for found in FINDINGS]
    perturbed = read_json(RESULTS / "perturb" / OFFLINE / "perturb.json", "a recorded result")
    ends = ", ".join(map(str, results.phases.boundaries))
    operated = read_json(RESULTS / "interventions" / OFFLINE / "interventions.json", "a recorded result")
    return "\n".join(
        [
            "# Findings on the offline model",
            "",
            "<!-- written by `python -m analyses.findings` from the recorded results; do not edit -->",
            "",
            f"What the papers claim, mostly of DINOv2 ViT-g, against what brdyn measured on `{OFFLINE}`: a ViT-S/14",
            "of 12 layers in DINOv2's layout, trained for saliency. It is another and much smaller network, so a claim",
            "that fails here is not refuted; it is not general. Each verdict follows from the rule beside it.",
            "",
            *claims_table(rows),
            "",
            f"Phases: {results.phases.k}, with boundaries after layers {ends}, from",
            "`analyses/results/phases/`. Photographs of ImageNet, one a class: "
            f"{results.dynamics['n_images']} for motion,",
            f"{perturbed['n_images']} for perturbations, {operated['n_images']} for interventions; for basins "
            f"{results.basins['n_images']} CIFAR-10 test images.",
            f"Recorded in `analyses/results/` on {operated['provenance']['device']}.",
            "",
        ]
    )


def main() -> None:
    """Rewrite, or check."""
    write_or_check(__doc__, lambda: {PAGE: page(load())})


if __name__ == "__main__":
    main()
