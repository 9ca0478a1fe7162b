"""Small ViTs under stochastic depth, and Raptors of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from analyses.findings import Measured
from analyses.statistics import Estimate, mean_difference, rank_correlation
from analyses.stochastic_depth_cells import Recorded
from analyses.stochastic_depth_plan import LAST, MIDDLE, UNTRAINED
from brdyn.classification.recipe import BEST
from brdyn.raptor.partitions import CONTIGUOUS, MAXCUT, SHUFFLE

K = 3
PEAK = (0.4, 0.6)
BY_HEART = 0.2  # gained on training images
FORMATS = {"r2": "+.3f", "kept": "+.1%"}
SHOWN = {"r2": "R²", "kept": "accuracy kept"}  # of the last layer; above chance
NAMES = {"r2": "R² of the last layer", "kept": "the share of the network's accuracy that is kept"}


def named(found: dict[str, Estimate]) -> dict[str, Estimate]:
    """By the names that rules have for columns."""
    return {NAMES[column]: one for column, one in found.items()}


def best_networks(study: Recorded) -> pd.DataFrame:
    """Every network at its best epoch."""
    return study.networks[study.networks["moment"] == BEST]


def maxcut_fits(study: Recorded, k: int = K, moment: str = BEST) -> pd.DataFrame:
    """Raptors with max-cut phases, by p and seed."""
    rows = study.fits.query("partition == @MAXCUT and k == @k and moment == @moment")
    return rows.set_index(["p", "seed"]).sort_index()


def _peak(rows: pd.DataFrame) -> Measured | None:
    """Is accuracy highest at a large p?"""
    right = (
        rows.pivot_table(index="seed", columns="p", values="accuracy").dropna()
        if len(rows)
        else pd.DataFrame()
    )
    mean = right.mean()
    inside = [p for p in mean.index if PEAK[0] <= p <= PEAK[1]]
    if not inside:
        return None
    peak, best = (max(ps, key=lambda p: float(mean[p])) for ps in (inside, list(mean.index)))
    over_zero = mean_difference(right[peak] - right[min(mean.index)])
    said = ", ".join(f"p={p:g} {value:.1%}" for p, value in mean.items())
    said += f"; p={peak:g} over p={min(mean.index):g}: {over_zero.say('+.1%')}"
    below = Estimate(np.nan)
    if best not in inside:
        below = mean_difference(right[best] - right[peak])
        said += f", under p={best:g}: {below.say('+.1%')}"
    low, high = PEAK
    return Measured(
        said,
        {
            f"the best p from {low} to {high} over p = 0": over_zero,
            "the most accurate p, where it is another, over the best of these": below,
        },
    )


def accuracy_rises(study: Recorded) -> Measured | None:
    """Where is the most accurate p?"""
    return _peak(best_networks(study))


def raptor_accuracy_rises(study: Recorded) -> Measured | None:
    """Where is the most accurate Raptor?"""
    return _peak(maxcut_fits(study).reset_index())


def evenness_grows(study: Recorded) -> Measured:
    """Do phases become as long as each other?"""
    rows = best_networks(study)
    found = {k: rank_correlation(rows["p"], rows[f"evenness_{k}"]) for k in study.config.phases}
    said = "; ".join(f"k={k} {one.say()}" for k, one in found.items())
    mean = rows.groupby("p")[f"evenness_{K}"].mean()
    return Measured(
        f"{said}; k={K} from {mean.iloc[0]:.2f} to {mean.iloc[-1]:.2f}",
        {f"the entropy of the phase lengths, k = {K}, over networks": found[K]},
    )


def similarity_grows(study: Recorded) -> Measured:
    """Do layers become alike?"""
    rows = best_networks(study)
    found = rank_correlation(rows["p"], rows["mean_similarity"])
    mean = rows.groupby("p")["mean_similarity"].mean()
    return Measured(
        f"{found.say()}; from {mean.iloc[0]:.2f} to {mean.iloc[-1]:.2f}",
        {"the mean similarity of pairs of layers": found},
    )


def fidelity_grows(study: Recorded) -> Measured | None:
    """Are networks with large p nearer to recurrent?"""
    rows = maxcut_fits(study).reset_index()
    if rows.empty:
        return None
    found = {column: rank_correlation(rows["p"], rows[column]) for column in SHOWN}
    mean = rows.groupby("p")[list(SHOWN)].mean()
    said = "; ".join(f"{SHOWN[column]} {one.say()}" for column, one in found.items())
    return Measured(
        f"{said}; R² from {mean['r2'].iloc[0]:.2f} to {mean['r2'].iloc[-1]:.2f}, kept from "
        f"{mean['kept'].iloc[0]:.1%} to {mean['kept'].iloc[-1]:.1%}",
        named(found),
    )


def partition_differences(study: Recorded, better: str, worse: str) -> pd.DataFrame:
    """Per network and k: difference of the means over draws, and how many standard deviations of single draws it is."""
    fits = study.fits[study.fits["moment"] == BEST]
    if not {better, worse} <= set(fits["partition"]):
        return pd.DataFrame(columns=[*SHOWN, *(f"{name}_sd" for name in SHOWN)])
    by = fits.groupby(["p", "seed", "k", "partition"])[list(SHOWN)]
    mean, deviation = (found.unstack("partition") for found in (by.mean(), by.std()))
    rows = {}
    for column in SHOWN:
        rows[column] = mean[column][better] - mean[column][worse]
        pooled = float((deviation[column][worse] ** 2).mean() ** 0.5)  # not a number for single draws
        rows[f"{column}_sd"] = rows[column] / pooled
    return pd.DataFrame(rows).dropna(subset=list(SHOWN))


def _partitions(study: Recorded, better: str, worse: str) -> Measured | None:
    rows = partition_differences(study, better, worse)
    if rows.empty:
        return None
    networks = rows.groupby(["p", "seed"]).mean()
    found, parts = {}, []
    for column, name in SHOWN.items():
        found[column], size = mean_difference(networks[column]), networks[f"{column}_sd"].mean()
        sd = f" ({size:+.1f} sd)" if np.isfinite(size) else ""
        larger = int((networks[column] > 0).sum())
        parts.append(
            f"{name} {found[column].say(FORMATS[column])}{sd}, larger in {larger} of {len(networks)}"
        )
    return Measured("; ".join(parts), named(found))


better_than_contiguous = partial(_partitions, better=MAXCUT, worse=CONTIGUOUS)
better_than_shuffled = partial(_partitions, better=CONTIGUOUS, worse=SHUFFLE)


def more_blocks(study: Recorded) -> Measured | None:
    """Does the third block help, and more than the fourth?"""
    fits = study.fits.query("partition == @MAXCUT and moment == @BEST")
    kept = fits.pivot_table(index=["p", "seed"], columns="k", values="kept").dropna()
    ks = sorted(int(k) for k in kept.columns)
    if kept.empty or not {2, 3, 4} <= set(ks):
        return None
    third = mean_difference(kept[3] - kept[2])
    more = mean_difference((kept[3] - kept[2]) - (kept[4] - kept[3]))
    said = ", ".join(f"k={k} {kept[k].mean():.1%}" for k in ks)
    return Measured(
        f"{said}; 2 to 3 {third.say('+.1%')}, over 3 to 4 {more.say('+.1%')}",
        {"the rise from k = 2 to 3": third, "that rise less the one from 3 to 4": more},
    )


def structure_predicts(study: Recorded) -> Measured | None:
    """Across networks: does a better cut mean a better Raptor?"""
    models = best_networks(study).set_index(["p", "seed"])
    rows = models.join(maxcut_fits(study)[["r2", "kept"]], how="inner").reset_index()
    if len(rows) < 3:
        return None
    raw = rank_correlation(rows[f"z_{K}"], rows["r2"])
    partial_ = rank_correlation(rows[f"z_{K}"], rows["r2"], within=rows["p"])
    others = {"cut": f"cut_{K}", "cut over a drift's": f"over_drift_{K}", "evenness": f"evenness_{K}",
              "mean similarity": "mean_similarity"}  # fmt: skip
    beside = "; ".join(
        f"{name} {rank_correlation(rows[column], rows['r2']).say()}" for name, column in others.items()
    )
    return Measured(
        f"z {raw.say()}, within p {partial_.say()} (beside it: {beside})",
        {"over networks": raw, "among networks of one p (ranks less the mean of their p)": partial_},
    )


def untrained_easier(study: Recorded) -> Measured | None:
    """Before and after training."""
    before, after = (maxcut_fits(study, moment=moment)["r2"] for moment in (UNTRAINED, BEST))
    if before.empty or after.empty:
        return None
    return Measured(
        f"{before.min():.3f} to {before.max():.3f} of {len(before)} untrained, {after.min():.3f} to {after.max():.3f} "
        f"of {len(after)} trained",
        {
            f"k = {K}, max-cut: R² of every untrained network": list(before),
            "that of every trained one": list(after),
        },
    )


def _falls(study: Recorded, first: str, second: str, chosen: Any) -> tuple[dict[str, Estimate], str, int]:
    """Mean falls of what Raptors reach from one moment to another, over some networks."""
    before, after = (maxcut_fits(study, moment=moment) for moment in (first, second))
    shared = before.index.intersection(after.index).intersection(chosen)
    found = {
        column: mean_difference(before.loc[shared, column] - after.loc[shared, column]) for column in SHOWN
    }
    said = "; ".join(
        f"{name} {before.loc[shared, column].mean():.3f} to {after.loc[shared, column].mean():.3f}, fall "
        f"{found[column].say(FORMATS[column])}"
        for column, name in SHOWN.items()
    )
    return named(found), said, len(shared)


def overfitting_hurts(study: Recorded) -> Measured | None:
    """The last epoch against the best, where accuracy meanwhile rose on training and fell on test images."""
    last = study.networks[study.networks["moment"] == LAST].set_index(["p", "seed"])
    fitted = len(maxcut_fits(study, moment=LAST))
    if not fitted:
        return None
    found, said, count = _falls(study, BEST, LAST, last.index[last["overfitted"]])
    return Measured(
        f"{said} ({count} overfitted)" if count else f"none of {fitted} networks overfitted", found
    )


def memorising_hurts(study: Recorded) -> Measured | None:
    """The last epoch against the middle, where what is learnt meanwhile is of the training images alone."""
    at = study.networks.reset_index().pivot_table(
        index=["p", "seed"], columns="moment", values=["accuracy", "train_accuracy"]
    )
    gained = {name: at[name][LAST] - at[name][MIDDLE] for name in ("accuracy", "train_accuracy")}
    chosen = at.index[
        (gained["train_accuracy"] > BY_HEART) & (gained["accuracy"] < gained["train_accuracy"] / 2)
    ]
    found, said, count = _falls(study, MIDDLE, LAST, chosen)
    if not count:
        return None
    tested, trained = (gained[name].loc[chosen].mean() for name in gained)
    return Measured(
        f"{said} ({count} networks; training images {trained:+.1%}, test images {tested:+.1%})", found
    )


def not_only_less_trained(study: Recorded) -> Measured | None:
    """Is a network with a large p easier to fit only because it has learnt less?"""
    moments = study.networks.set_index(["moment", "p", "seed"])["accuracy"]
    early, late = maxcut_fits(study, moment=MIDDLE)["r2"], maxcut_fits(study)["r2"]
    early = early[early.index.get_level_values("p") == min(study.config.drop_path)]
    late = late[late.index.get_level_values("p") >= PEAK[1]]
    if early.empty or late.empty:
        return None
    right = {
        moment: [moments[(moment, *one)] for one in fits.index]
        for moment, fits in ((MIDDLE, early), (BEST, late))
    }
    return Measured(
        f"{late.min():.3f} to {late.max():.3f} (test accuracy {min(right[BEST]):.1%} to {max(right[BEST]):.1%}) "
        f"against {early.min():.3f} to {early.max():.3f} ({min(right[MIDDLE]):.1%} to {max(right[MIDDLE]):.1%})",
        {
            f"k = {K}, max-cut: R² of every network whose p is at least {PEAK[1]}, at its best epoch,": list(
                late
            ),
            "that of every network with p = 0 in the middle of training": list(early),
        },
    )
