"""What the paper claims of Raptors, and what the recorded study says: docs/guide/raptor_findings.md.

python -m analyses.raptor_findings            # rewrite
python -m analyses.raptor_findings --check    # fail if it differs from the results

Each verdict follows from the numbers by the rule that is stated with it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pandas as pd

from analyses.findings import Finding, claims_table, not_recorded
from analyses.raptor_cells import Cells, read_cells
from analyses.recording import OFFLINE, write_or_check
from analyses.statistics import mean_difference, together
from brdyn.raptor.partitions import MAXCUT, PARTITIONS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guide" / "raptor_findings.md"
PUBLISHED = {2: 0.96, 3: 0.98, 4: 0.985}  # share of the linear probe's accuracy, ImageNet, ViT-B
PUBLISHED_IMAGES = 2 * 312_500 * 64
LADDER = ("teacher-forcing", "annealed", "depth-scaling", "token-weighting")
WHOLE = "maxcut_k3"
FOLLOWS = 0.5
DRAWS = 3
KEPT = "k = 2, 3, 4 blocks keep 96, 98, 98.5 % of the linear probe's accuracy"
KEPT_RULE = (
    "for every k the interval over test images is above the published share (fails: below it for some)"
)
FORMATS = {"kept": ".1%", "kept_knn": ".1%", "r2": ".2f", "r2_least": ".2f", "r2_one_step": ".2f"}
LADDER_NAMES = {
    "ladder_teacher-forcing": "teacher forcing only, stage 1",
    "ladder_annealed": "+ annealed to autoregressive",
    "ladder_depth-scaling": "+ depth scaling",
    "ladder_token-weighting": "+ token weighting",
    WHOLE: "+ stage 2 (the whole recipe)",
    "ladder_stage1-twice-as-long": "stage 1 alone, for as many steps as both",
    "ladder_autonomous": "the same factors at every layer (autonomous block)",
    "ladder_cosine-loss": "cosine + MSE",
    "ladder_no-noise": "no noise on the inputs",
    "ladder_stage2-raised-rate": "stage 2 at the raised learning rate of a short stage 1",
    f"{WHOLE}_longer": "the whole recipe, four times as long",
}


def table(cells: Cells) -> pd.DataFrame:
    """Table 1: mean and standard deviation over seeds or draws, by k and partition."""
    rows = cells.summary[cells.summary["varies"] != "recipe"]
    grouped = rows.groupby(["k", "partition"])[["kept", "kept_knn", "r2", "r2_least", "r2_one_step"]]
    found = grouped.agg(["mean", "std"])
    found.columns = ["_".join(column) for column in found.columns]
    return found.assign(fits=rows.groupby(["k", "partition"]).size()).reset_index()


def kept(cells: Cells) -> Finding:
    """Share of the probe's accuracy."""
    parts, verdicts = [], []
    for k, published in PUBLISHED.items():
        name = f"maxcut_k{k}"
        if name not in cells.summary.index:
            return not_recorded(KEPT, KEPT_RULE)
        low, value, high = _interval(cells, name)
        parts.append(f"k={k} {value:.1%} [{low:.1%}, {high:.1%}]")
        verdicts.append(True if low >= published else False if high < published else None)
    return Finding(KEPT, KEPT_RULE, "; ".join(parts), together(verdicts))


def forcing(cells: Cells) -> Finding:
    """Teacher forcing alone."""
    claim = "Teacher forcing alone collapses when the blocks run on their own (3.9 % against 72.7 % annealed)"
    rule = (
        "its R² at the last layer, autoregressive, is below 0 and below that of the annealed fit, and a probe keeps "
        "less than half of what it keeps of the annealed fit (fails: neither)"
    )
    names = [f"ladder_{name}" for name in ("teacher-forcing", "annealed")]
    if not all(name in cells.summary.index for name in names):
        return not_recorded(claim, rule)
    alone, annealed = (cells.summary.loc[name] for name in names)
    fell = [alone["r2"] < min(0, annealed["r2"]), alone["kept"] < annealed["kept"] / 2]
    return Finding(
        claim,
        rule,
        f"R² {alone['r2']:.2f} against {annealed['r2']:.2f}, one-step {alone['r2_one_step']:.2f} against "
        f"{annealed['r2_one_step']:.2f}; probe accuracy kept {alone['kept']:.1%} against {annealed['kept']:.1%}",
        bool(fell[0]) if fell[0] == fell[1] else None,
    )


def better_than_contiguous(cells: Cells) -> Finding:
    """Max-cut against random contiguous phases."""
    return _paired(cells, "Max-cut phases are fitted better than random contiguous ones", *PARTITIONS[:2])


def better_than_shuffled(cells: Cells) -> Finding:
    """Random contiguous phases against shuffled layers."""
    return _paired(cells, "Random contiguous phases are fitted better than shuffled layers", *PARTITIONS[1:])


def _paired(cells: Cells, claim: str, better: str, worse: str) -> Finding:
    """Differences between two partitions, fit by fit with the same k and draw (max-cut has one)."""
    rule = (
        "mean difference over k = 2, 3, 4 and three draws, with its 95 % t interval, above 0 both in the share kept "
        "and in R² of the last layer (fails: below 0 in either)"
    )
    rows = cells.summary[cells.summary["varies"] == "partition"]
    wide = rows.pivot_table(index=["k", "draw"], columns="partition", values=["kept", "r2"])
    if not {better, worse} <= set(rows["partition"]):
        return not_recorded(claim, rule)
    parts, verdicts = [], []
    for column, form in (("kept", "+.1%"), ("r2", "+.3f")):
        first = (
            wide[column][better].groupby("k").transform("mean") if better == MAXCUT else wide[column][better]
        )
        differences = (first - wide[column][worse]).dropna().to_numpy()
        if len(differences) < len(PUBLISHED) * DRAWS:
            return not_recorded(claim, rule)
        found = mean_difference(differences)
        parts.append(f"{column} {found.say(form)}")
        verdicts.append(found.positive)
    return Finding(claim, rule, "; ".join(parts).replace("r2", "R²"), together(verdicts))


def saturation(cells: Cells) -> Finding:
    """Does k = 5 add little?"""
    claim = "The gain saturates at k = 4"
    rule = (
        "the share kept rises clearly from k = 2 to 4 and does not from 4 to 5 (fails: it does from 4 to 5)"
    )
    names = [f"maxcut_k{k}" for k in range(1, 6)]
    if not all(name in cells.summary.index for name in names):
        return not_recorded(claim, rule)
    more = _clear(cells, names[3], names[4])
    return Finding(
        claim,
        rule,
        "kept, k = 1 to 5: " + ", ".join(f"{_interval(cells, name)[1]:.1%}" for name in names),
        False if more is True else True if _clear(cells, names[1], names[3]) is True else None,
    )


def rungs(cells: Cells) -> Finding:
    """Does every part of the recipe help?"""
    claim = "Each part of the recipe adds: annealing, depth scaling, token weighting, stage 2"
    rule = (
        "the share kept rises clearly at every rung, k = 3; stage 2 is compared with stage 1 for as many steps (fails: "
        "it falls clearly at one)"
    )
    steps = [
        *((f"ladder_{first}", f"ladder_{second}") for first, second in pairwise(LADDER)),
        ("ladder_stage1-twice-as-long", WHOLE),
    ]
    if not all(name in cells.summary.index for step in steps for name in step):
        return not_recorded(claim, rule)
    labels = ("annealing", "depth scaling", "token weighting", "stage 2")
    changes = [_interval(cells, second)[1] - _interval(cells, first)[1] for first, second in steps]
    return Finding(
        claim,
        rule,
        ", ".join(f"{label} {change:+.1%}" for label, change in zip(labels, changes, strict=True)),
        together([_clear(cells, *step) for step in steps]),
    )


def middle(cells: Cells) -> Finding:
    """Where along the depth is a Raptor weakest?"""
    claim = "With k ≥ 3 a Raptor follows nearly every layer, best at both ends, weakest in the middle"
    rule = (
        f"k = 3: R² of all tokens is above {FOLLOWS} at all layers but one or two, least in the middle third, and "
        "higher at the first and last layer than at any of the middle third"
    )
    if WHOLE not in cells.summary.index:
        return not_recorded(claim, rule)
    curve, cls = (r2_curve(cells, WHOLE, group).to_numpy() for group in ("all", "cls"))
    third = len(curve) // 3
    inside = curve[third : 2 * third]
    return Finding(
        claim,
        rule,
        f"R² of all tokens {curve[0]:.2f} at first, least {curve.min():.2f} (layer {curve.argmin() + 1}), "
        f"{curve[-1]:.2f} at last; cls {cls[0]:.2f}, {cls.min():.2f} (layer {cls.argmin() + 1}), {cls[-1]:.2f}",
        bool(
            (curve < FOLLOWS).sum() <= 2
            and curve.min() == inside.min()
            and min(curve[0], curve[-1]) > inside.max()
        ),
    )


def longer(cells: Cells) -> Finding:
    """Is it the length of the fit?"""
    claim = "A longer fit keeps more: the length of these fits is part of what they lack"
    return _against(cells, claim, "four times as long", f"{WHOLE}_longer", WHOLE)


def raised_rate(cells: Cells) -> Finding:
    """Is it the learning rate of stage 2?"""
    claim = "The raised learning rate of a short stage 1 is too high for stage 2"
    return _against(cells, claim, "at the published rate", WHOLE, "ladder_stage2-raised-rate")


def _against(cells: Cells, claim: str, what: str, better: str, worse: str) -> Finding:
    """One fit against another of k = 3."""
    rule = (
        f"k = 3: {what} the share kept is clearly larger, and R² of the last layer is larger (fails: the share is "
        "clearly smaller)"
    )
    if not {better, worse} <= set(cells.summary.index):
        return not_recorded(claim, rule)
    first, second = (cells.summary.loc[name] for name in (better, worse))
    clear = _clear(cells, worse, better)
    return Finding(
        claim,
        rule,
        f"kept {first['kept']:.1%} against {second['kept']:.1%} (k-NN {first['kept_knn']:.1%} against "
        f"{second['kept_knn']:.1%}), R² {first['r2']:.2f} against {second['r2']:.2f}",
        None if clear is True and not first["r2"] > second["r2"] else clear,
    )


def r2_curve(cells: Cells, cell: str, group: str = "all", images: str = "test") -> pd.Series:
    """R² by layer, autoregressive."""
    rows = cells.fidelity
    chosen = rows[(rows["cell"] == cell) & (rows["images"] == images) & (rows["group"] == group)]
    chosen = chosen[(chosen["statistic"] == "r2") & (chosen["mode"] == "autoregressive")]
    return chosen.set_index("layer")["mean"]


def _interval(cells: Cells, name: str) -> tuple[float, float, float]:
    """Share kept by one fit, between the ends of its 95 % interval over test images."""
    row = cells.summary[["kept_low", "kept", "kept_high"]].to_dict("index")[name]
    return row["kept_low"], row["kept"], row["kept_high"]


def _clear(cells: Cells, first: str, second: str) -> bool | None:
    """Whether the second keeps more (True) or less (False) by more than both intervals together."""
    low, before, high = _interval(cells, first)
    lower, after, higher = _interval(cells, second)
    noise = (((high - low) / 2) ** 2 + ((higher - lower) / 2) ** 2) ** 0.5
    return None if abs(after - before) <= noise else after > before


FINDINGS: tuple[Callable[[Cells], Finding], ...] = (
    kept,
    saturation,
    better_than_contiguous,
    better_than_shuffled,
    forcing,
    rungs,
    middle,
)

OURS: tuple[Callable[[Cells], Finding], ...] = (longer, raised_rate)
"""What of it is our doing."""


def page(cells: Cells) -> str:
    """The page, as Markdown."""
    size, found = cells.size, [make(cells) for make in FINDINGS]
    seen = int(cells.summary[cells.summary["varies"] != "recipe"]["images_seen"].max())
    columns = (
        "fits",
        "accuracy kept, linear",
        "k-NN",
        "R², last layer",
        "least R²",
        "one-step R²",
        "parameters",
    )
    lines = [
        "# Raptor on the offline model",
        "",
        "<!-- written by `python -m analyses.raptor_findings` from the recorded results; do not edit -->",
        "",
        f"Raptors of `{OFFLINE}` (12 layers, trained for saliency), fitted and probed on CIFAR-10 (JPEG-recompressed)",
        f"at {size['image_size']} pixels. Every fit of the first table saw {seen:,} images; the published "
        f"ones {PUBLISHED_IMAGES:,}, {PUBLISHED_IMAGES / seen:,.0f} times as many.",
        "So the numbers bound fidelity from below and compare fits of one length; it is not the published experiment.",
        f"Probes: {size['probe_train']} training and {size['probe_test']} test images; the teacher gets "
        f"{cells.teacher['linear']:.1%} (linear), {cells.teacher['knn']:.1%} (k-NN).",
        "",
        "## k and partitions",
        "",
        f"| k | partition | {' | '.join(columns)} |",
        "| --- " * (len(columns) + 2) + "|",
    ]
    share = cells.summary.groupby(["k", "partition"])["parameters"].first()
    for row in table(cells).to_dict(orient="records"):
        values = " | ".join(
            f"{row[f'{name}_mean']:{form}}" + (f" ± {row[f'{name}_std']:{form}}" if row["fits"] > 1 else "")
            for name, form in FORMATS.items()
        )
        lines.append(
            f"| {row['k']} | {row['partition']} | {row['fits']} | {values} | {share[row['k'], row['partition']]:.0%} |"
        )
    lines += [
        "",
        "± standard deviation over seeds (max-cut, k = 3) or draws. R² of all tokens, autoregressive, on "
        f"{size['fidelity_images']} test images. Max-cut boundaries: "
        + "; ".join(
            f"k={k} after {', '.join(map(str, cells.phases.with_k(k).boundaries))}" for k in range(2, 6)
        )
        + ".",
        "",
        "## The recipe taken apart, k = 3",
        "",
        "| fit | images seen | accuracy kept, linear | k-NN | R², last layer | one-step R² |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, label in LADDER_NAMES.items():
        if name in cells.summary.index:
            fit = cells.summary.loc[name]
            lines.append(
                f"| {label} | {fit['images_seen']:,} | {fit['kept']:.1%} | {fit['kept_knn']:.1%} | {fit['r2']:.2f} "
                f"| {fit['r2_one_step']:.2f} |"
            )
    for heading, column, rows in (
        ("The paper's claims", "claim (Jacobs et al.)", found),
        ("Us, or the teacher?", "claim (ours)", [make(cells) for make in OURS]),
    ):
        lines += ["", f"## {heading}", "", *claims_table(rows, column)]
    lines.append("")
    if cells.failed:
        lines += [
            "Fits that failed: " + "; ".join(f"{name} ({why})" for name, why in cells.failed.items()),
            "",
        ]
    lines += [
        f"Recorded in `analyses/results/raptor/{OFFLINE}/` on {cells.provenance['device']}, "
        f"{cells.provenance['date'][:10]}; {cells.summary['seconds'].sum() / 60:.0f} minutes in all for "
        f"{len(cells.summary)} fits and their evaluation.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Rewrite, or check."""
    write_or_check(__doc__, lambda: {PAGE: page(read_cells())})


if __name__ == "__main__":
    main()
