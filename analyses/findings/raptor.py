"""Raptors of the offline model: what blocks keep, partitions, and the recipe taken apart."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pandas as pd

from analyses.findings import Measured
from analyses.raptor_on_vits import Cells
from analyses.statistics import Estimate, mean_difference
from brdyn.raptor.partitions import MAXCUT, PARTITIONS

PUBLISHED = {2: 0.96, 3: 0.98, 4: 0.985}  # share of the linear probe's accuracy, ImageNet, ViT-B
PUBLISHED_IMAGES = 2 * 312_500 * 64
LADDER = ("teacher-forcing", "annealed", "depth-scaling", "token-weighting")
WHOLE = "maxcut_k3"
LONGER = f"{WHOLE}_longer"
DRAWS = 3
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
    LONGER: "the whole recipe, four times as long",
}


def table(cells: Cells) -> pd.DataFrame:
    """Table 1: mean and standard deviation over seeds or draws, by k and partition."""
    rows = cells.summary[cells.summary["varies"] != "recipe"]
    grouped = rows.groupby(["k", "partition"])[["kept", "kept_knn", "r2", "r2_least", "r2_one_step"]]
    found = grouped.agg(["mean", "std"])
    found.columns = ["_".join(column) for column in found.columns]
    return found.assign(fits=rows.groupby(["k", "partition"]).size()).reset_index()


def share_kept(cells: Cells, name: str) -> Estimate:
    """Share of the probe's accuracy that one fit keeps, with its interval over test images."""
    row = cells.summary.loc[name]
    return Estimate(row["kept"], row["kept_low"], row["kept_high"])


def recorded(cells: Cells, *names: str) -> bool:
    """Whether all of these fits are."""
    return set(names) <= set(cells.summary.index)


def kept(cells: Cells) -> Measured | None:
    """Share of the probe's accuracy."""
    if not recorded(cells, *(f"maxcut_k{k}" for k in PUBLISHED)):
        return None
    found = {k: share_kept(cells, f"maxcut_k{k}") for k in PUBLISHED}
    return Measured(
        "; ".join(f"k={k} {one.say('.1%')}" for k, one in found.items()),
        {"share kept over test images": found, "the published share": PUBLISHED},
    )


def forcing(cells: Cells) -> Measured | None:
    """Teacher forcing alone."""
    names = [f"ladder_{name}" for name in ("teacher-forcing", "annealed")]
    if not recorded(cells, *names):
        return None
    alone, annealed = (cells.summary.loc[name] for name in names)
    return Measured(
        f"R² {alone['r2']:.2f} against {annealed['r2']:.2f}, one-step {alone['r2_one_step']:.2f} against "
        f"{annealed['r2_one_step']:.2f}; probe accuracy kept {alone['kept']:.1%} against {annealed['kept']:.1%}",
        {
            "its R² at the last layer, autoregressive,": alone["r2"],
            "0 and that of the annealed fit": min(0, annealed["r2"]),
            "what a probe keeps": alone["kept"],
            "what it keeps of the annealed fit": annealed["kept"],
        },
    )


def _paired(cells: Cells, better: str, worse: str) -> Measured | None:
    """Differences between two partitions, fit by fit with the same k and draw (max-cut has one)."""
    rows = cells.summary[cells.summary["varies"] == "partition"]
    if not {better, worse} <= set(rows["partition"]):
        return None
    wide = rows.pivot_table(index=["k", "draw"], columns="partition", values=["kept", "r2"])
    found = {}
    for column, name in (("kept", "the share kept"), ("r2", "R² of the last layer")):
        ours, theirs = (wide[column][partition] for partition in (better, worse))
        differences = ((ours.groupby("k").transform("mean") if better == MAXCUT else ours) - theirs).dropna()
        if len(differences) < len(PUBLISHED) * DRAWS:
            return None
        found[name] = mean_difference(differences)
    kept, r2 = found.values()
    return Measured(f"kept {kept.say('+.1%')}; R² {r2.say('+.3f')}", found)


better_than_contiguous = partial(_paired, better=PARTITIONS[0], worse=PARTITIONS[1])
better_than_shuffled = partial(_paired, better=PARTITIONS[1], worse=PARTITIONS[2])


def saturation(cells: Cells) -> Measured | None:
    """Does k = 5 add little?"""
    names = [f"maxcut_k{k}" for k in range(1, 6)]
    if not recorded(cells, *names):
        return None
    found = {f"k = {k}": share_kept(cells, name) for k, name in enumerate(names, 1)}
    said = ", ".join(f"{one.value:.1%}" for one in found.values())
    return Measured(
        f"kept, k = 1 to 5: {said}", {f"the share kept with {k}": one for k, one in found.items()}
    )


def rungs(cells: Cells) -> Measured | None:
    """Does every part of the recipe help?"""
    steps = [
        *((f"ladder_{first}", f"ladder_{second}") for first, second in pairwise(LADDER)),
        ("ladder_stage1-twice-as-long", WHOLE),
    ]
    if not recorded(cells, *(name for step in steps for name in step)):
        return None
    labels = ("annealing", "depth scaling", "token weighting", "stage 2")
    before, after = (
        {label: share_kept(cells, step[which]) for label, step in zip(labels, steps, strict=True)}
        for which in (0, 1)
    )
    return Measured(
        ", ".join(f"{label} {after[label].value - before[label].value:+.1%}" for label in labels),
        {"the share kept": after, "that one rung below (stage 2: stage 1 for as many steps)": before},
    )


def middle(cells: Cells) -> Measured | None:
    """Where along the depth is a Raptor weakest?"""
    if not recorded(cells, WHOLE):
        return None
    curve, cls = (r2_curve(cells, WHOLE, group).to_numpy() for group in ("all", "cls"))
    third = len(curve) // 3
    return Measured(
        f"R² of all tokens {curve[0]:.2f} at first, least {curve.min():.2f} (layer {curve.argmin() + 1}), "
        f"{curve[-1]:.2f} at last; cls {cls[0]:.2f}, {cls.min():.2f} (layer {cls.argmin() + 1}), {cls[-1]:.2f}",
        {
            "R² of all tokens, k = 3,": curve,
            "it": curve,
            "the lower one of the first and last layer": min(curve[0], curve[-1]),
            "the highest of the middle third": curve[third : 2 * third].max(),
        },
    )


def _against(cells: Cells, what: str, other: str, better: str, worse: str) -> Measured | None:
    """One fit against another of k = 3."""
    if not recorded(cells, better, worse):
        return None
    first, second = (cells.summary.loc[name] for name in (better, worse))
    return Measured(
        f"kept {first['kept']:.1%} against {second['kept']:.1%} (k-NN {first['kept_knn']:.1%} against "
        f"{second['kept_knn']:.1%}), R² {first['r2']:.2f} against {second['r2']:.2f}",
        {
            f"the share kept {what}, k = 3,": share_kept(cells, better),
            f"the share kept {other}": share_kept(cells, worse),
            f"R² of the last layer {what}": first["r2"],
            f"R² {other}": second["r2"],
        },
    )


longer = partial(
    _against, what="by a fit four times as long", other="by the recipe as it is", better=LONGER, worse=WHOLE
)
raised_rate = partial(
    _against,
    what="at the published rate of stage 2",
    other="at the raised one",
    better=WHOLE,
    worse="ladder_stage2-raised-rate",
)


def r2_curve(cells: Cells, cell: str, group: str = "all", images: str = "test") -> pd.Series:
    """R² by layer, autoregressive."""
    rows = cells.fidelity.query(
        "cell == @cell and images == @images and group == @group and statistic == 'r2' and mode == 'autoregressive'"
    )
    return rows.set_index("layer")["mean"]
