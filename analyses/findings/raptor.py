"""Raptors of the offline model: what blocks keep, partitions, and the recipe taken apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from analyses.raptor_on_vits import RAPTOR, Cells
from analyses.recording import ROOT
from analyses.rules import UNTRAINED, Numbers
from analyses.statistics import Estimate, mean_difference
from brdyn.classifiers import packaged
from brdyn.raptor import Evaluation
from brdyn.raptor.baselines import BASELINES
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
LADDER_NAMES: dict[str, str] = yaml.safe_load((ROOT / "analyses" / "ladder.yaml").read_text())


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


def of_fits(*names: str) -> Callable[[Callable[[Cells], Numbers]], Callable[[Cells], Numbers | None]]:
    """What needs these fits, and is not measured where one is missing."""

    def wrapped(make: Callable[[Cells], Numbers]) -> Callable[[Cells], Numbers | None]:
        return wraps(make)(lambda cells: make(cells) if set(names) <= set(cells.summary.index) else None)

    return wrapped


@of_fits(*(f"maxcut_k{k}" for k in PUBLISHED))
def kept(cells: Cells) -> Numbers:
    return {"kept": {k: share_kept(cells, f"maxcut_k{k}") for k in PUBLISHED}, "published": PUBLISHED}


@of_fits(FORCING, ANNEALED)
def forcing(cells: Cells) -> Numbers:
    alone, other = (cells.summary.loc[name] for name in (FORCING, ANNEALED))
    numbers = {
        "r2": alone["r2"],
        "least": min(0, other["r2"]),
        "kept": alone["kept"],
        "annealed": other["kept"],
    }
    return {**numbers, "alone": alone, "other": other}


def _paired(cells: Cells, better: str, worse: str) -> Numbers | None:
    """Differences between two partitions, fit by fit with the same k and draw.

    Max-cut has one fit of each k, which all draws are compared with: their differences count as one.
    """
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
        found[column] = mean_difference(differences.groupby("k").mean() if better == MAXCUT else differences)
    return found


better_than_contiguous = partial(_paired, better=PARTITIONS[0], worse=PARTITIONS[1])
better_than_shuffled = partial(_paired, better=PARTITIONS[1], worse=PARTITIONS[2])


@of_fits(*(f"maxcut_k{k}" for k in range(1, 6)))
def saturation(cells: Cells) -> Numbers:
    found = {f"k{k}": share_kept(cells, f"maxcut_k{k}") for k in range(1, 6)}
    return {**found, "more": found["k5"].less(found["k4"])}


@of_fits(*LADDER, STAGE_1_ALONE, WHOLE)
def rungs(cells: Cells) -> Numbers:
    labels = ("annealing", "depth scaling", "token weighting", "stage 2")
    steps = dict(zip(labels, [*pairwise(LADDER), (STAGE_1_ALONE, WHOLE)], strict=True))
    below, kept = (
        {label: share_kept(cells, step[which]) for label, step in steps.items()} for which in (0, 1)
    )
    return {
        "kept": kept,
        "rung_below": below,
        "gained": {one: kept[one].value - below[one].value for one in labels},
    }


@of_fits(WHOLE)
def middle(cells: Cells) -> Numbers:
    curve, cls = (r2_curve(cells, WHOLE, group).to_numpy() for group in ("all", "cls"))
    third = len(curve) // 3
    found = {
        "low": int((curve < 0.5).sum()),
        "weakest": int(curve.argmin()) + 1,
        "third": third + 1,
        "end": 2 * third,
    }
    highest = {"ends": min(curve[0], curve[-1]), "middle": curve[third : 2 * third].max()}
    return {"curve": curve, "cls": cls, **found, **highest}


def _against(cells: Cells, name: str, another: str) -> Numbers:
    """One fit against another of k = 3."""
    one, two = (cells.summary.loc[cell] for cell in (name, another))
    kept, other = (share_kept(cells, cell) for cell in (name, another))
    return {"kept": kept, "other": other, "r2": one["r2"], "other_r2": two["r2"], "one": one, "two": two}


longer = of_fits(LONGER, WHOLE)(partial(_against, name=LONGER, another=WHOLE))
raised_rate = of_fits(WHOLE, AT_THE_RAISED_RATE)(partial(_against, name=WHOLE, another=AT_THE_RAISED_RATE))


def read_refitted(folder: Path = RAPTOR) -> list[Evaluation] | None:
    """Evaluations of Raptors of the packaged network and of its untrained twins, by one recipe; None without twins."""
    twins = sorted(folder.glob(f"{packaged.NAME}_random*_eval"))
    places = [folder / f"{packaged.NAME}_eval", *twins]
    return [Evaluation.read(place) for place in places] if twins else None


def untrained_easier(refitted: list[Evaluation]) -> Numbers:
    """By skill over the best baseline, of all tokens at the last layer; R² is said beside it."""
    network, *twins = map(_at_the_end, refitted)
    ranges = {name: (min(one[name] for one in twins), max(one[name] for one in twins)) for name in network}
    blocks = len(set(refitted[0].assignment))
    return {
        **network,
        UNTRAINED: twins,
        "twins": ranges,
        "of": len(twins),
        "k": blocks,
        "name": packaged.NAME,
    }


def _at_the_end(evaluation: Evaluation) -> dict[str, float]:
    return {"skill": least_skill(evaluation).value, "r2": float(evaluation.fidelity.curve("r2").iloc[-1])}


def least_skill(evaluation: Evaluation) -> Estimate:
    """Over the best of the baselines, of all tokens at the last layer, autoregressive; not a number where there is
    none."""
    table, names = evaluation.fidelity.table, [f"skill_{name}" for name in BASELINES]
    rows = table[table["statistic"].isin(names)].query("mode == 'autoregressive' and group == 'all'")
    last = rows[rows["layer"] == rows["layer"].max()].dropna(subset="mean")
    return (
        Estimate(*last.loc[last["mean"].idxmin(), ["mean", "low", "high"]]) if len(last) else Estimate(np.nan)
    )
