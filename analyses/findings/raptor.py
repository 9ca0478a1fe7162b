"""Raptors of the offline model: what blocks keep, partitions, and the recipe taken apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from itertools import pairwise

import pandas as pd

from analyses.findings import Measured, listed
from analyses.raptor_on_vits import Cells
from analyses.statistics import Estimate, mean_difference
from brdyn.raptor.partitions import MAXCUT, PARTITIONS

PUBLISHED = {2: 0.96, 3: 0.98, 4: 0.985}  # share of the linear probe's accuracy, ImageNet, ViT-B
PUBLISHED_IMAGES = 2 * 312_500 * 64
WHOLE = "maxcut_k3"
LONGER = f"{WHOLE}_longer"
FORCING, ANNEALED, AT_THE_RAISED_RATE = (
    "ladder_teacher-forcing",
    "ladder_annealed",
    "ladder_stage2-raised-rate",
)
LADDER = (FORCING, ANNEALED, "ladder_depth-scaling", "ladder_token-weighting")
STAGE_1_ALONE = "ladder_stage1-twice-as-long"
DRAWS = 3
LADDER_NAMES = {
    FORCING: "teacher forcing only, stage 1",
    ANNEALED: "+ annealed to autoregressive",
    "ladder_depth-scaling": "+ depth scaling",
    "ladder_token-weighting": "+ token weighting",
    WHOLE: "+ stage 2 (the whole recipe)",
    STAGE_1_ALONE: "stage 1 alone, for as many steps as both",
    "ladder_autonomous": "the same factors at every layer (autonomous block)",
    "ladder_cosine-loss": "cosine + MSE",
    "ladder_no-noise": "no noise on the inputs",
    AT_THE_RAISED_RATE: "stage 2 at the raised learning rate of a short stage 1",
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
    return Estimate(*cells.summary.loc[name, ["kept", "kept_low", "kept_high"]])


def r2_curve(cells: Cells, cell: str, group: str = "all", images: str = "test") -> pd.Series:
    """R² by layer, autoregressive."""
    rows = cells.fidelity.query(
        "cell == @cell and images == @images and group == @group and statistic == 'r2' and mode == 'autoregressive'"
    )
    return rows.set_index("layer")["mean"]


def of_fits(*names: str) -> Callable[[Callable[[Cells], Measured]], Callable[[Cells], Measured | None]]:
    """What needs these fits, and is not measured where one is missing."""

    def wrapped(make: Callable[[Cells], Measured]) -> Callable[[Cells], Measured | None]:
        return wraps(make)(lambda cells: make(cells) if set(names) <= set(cells.summary.index) else None)

    return wrapped


@of_fits(*(f"maxcut_k{k}" for k in PUBLISHED))
def kept(cells: Cells) -> Measured:
    """Share of the probe's accuracy."""
    found = {k: share_kept(cells, f"maxcut_k{k}") for k in PUBLISHED}
    said = "; ".join(f"k={k} {one.say('.1%')}" for k, one in found.items())
    return Measured(said, kept=found, published=PUBLISHED)


@of_fits(FORCING, ANNEALED)
def forcing(cells: Cells) -> Measured:
    """Teacher forcing alone."""
    alone, annealed = (cells.summary.loc[name] for name in (FORCING, ANNEALED))
    said = f"R² {alone['r2']:.2f} against {annealed['r2']:.2f}, one-step {alone['r2_one_step']:.2f} against "
    said += f"{annealed['r2_one_step']:.2f}; probe accuracy kept {alone['kept']:.1%} against {annealed['kept']:.1%}"
    least = min(0, annealed["r2"])
    return Measured(said, r2=alone["r2"], least=least, kept=alone["kept"], annealed=annealed["kept"])


def _paired(cells: Cells, better: str, worse: str) -> Measured | None:
    """Differences between two partitions, fit by fit with the same k and draw (max-cut has one)."""
    rows = cells.summary[cells.summary["varies"] == "partition"]
    if not {better, worse} <= set(rows["partition"]):
        return None
    wide = rows.pivot_table(index=["k", "draw"], columns="partition", values=["kept", "r2"])
    found = {}
    for column in ("kept", "r2"):
        ours, theirs = (wide[column][partition] for partition in (better, worse))
        differences = ((ours.groupby("k").transform("mean") if better == MAXCUT else ours) - theirs).dropna()
        if len(differences) < len(PUBLISHED) * DRAWS:
            return None
        found[column] = mean_difference(differences)
    return Measured(f"kept {found['kept'].say('+.1%')}; R² {found['r2'].say('+.3f')}", **found)


better_than_contiguous = partial(_paired, better=PARTITIONS[0], worse=PARTITIONS[1])
better_than_shuffled = partial(_paired, better=PARTITIONS[1], worse=PARTITIONS[2])


@of_fits(*(f"maxcut_k{k}" for k in range(1, 6)))
def saturation(cells: Cells) -> Measured:
    """Does k = 5 add little?"""
    found = {f"k{k}": share_kept(cells, f"maxcut_k{k}") for k in range(1, 6)}
    return Measured(f"kept, k = 1 to 5: {', '.join(f'{one.value:.1%}' for one in found.values())}", **found)


@of_fits(*LADDER, STAGE_1_ALONE, WHOLE)
def rungs(cells: Cells) -> Measured:
    """Does every part of the recipe help?"""
    labels = ("annealing", "depth scaling", "token weighting", "stage 2")
    steps = dict(zip(labels, [*pairwise(LADDER), (STAGE_1_ALONE, WHOLE)], strict=True))
    below, kept = (
        {label: share_kept(cells, step[which]) for label, step in steps.items()} for which in (0, 1)
    )
    gained = {label: kept[label].value - below[label].value for label in labels}
    return Measured(listed(gained, "+.1%"), kept=kept, below=below)


@of_fits(WHOLE)
def middle(cells: Cells) -> Measured:
    """Where along the depth is a Raptor weakest?"""
    curve, cls = (r2_curve(cells, WHOLE, group).to_numpy() for group in ("all", "cls"))
    third = len(curve) // 3
    said = f"R² of all tokens {curve[0]:.2f} at first, least {curve.min():.2f} (layer {curve.argmin() + 1}), "
    said += f"{curve[-1]:.2f} at last; cls {cls[0]:.2f}, {cls.min():.2f} (layer {cls.argmin() + 1}), {cls[-1]:.2f}"
    return Measured(said, curve=curve, ends=min(curve[0], curve[-1]), middle=curve[third : 2 * third].max())


def _against(cells: Cells, name: str, other: str) -> Measured:
    """One fit against another of k = 3."""
    one, two = (cells.summary.loc[cell] for cell in (name, other))
    said = f"kept {one['kept']:.1%} against {two['kept']:.1%} (k-NN {one['kept_knn']:.1%} against "
    said += f"{two['kept_knn']:.1%}), R² {one['r2']:.2f} against {two['r2']:.2f}"
    kept = {"kept": share_kept(cells, name), "other": share_kept(cells, other)}
    return Measured(said, **kept, r2=one["r2"], other_r2=two["r2"])


longer = of_fits(LONGER, WHOLE)(partial(_against, name=LONGER, other=WHOLE))
raised_rate = of_fits(WHOLE, AT_THE_RAISED_RATE)(partial(_against, name=WHOLE, other=AT_THE_RAISED_RATE))
