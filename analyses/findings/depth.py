"""Small ViTs under stochastic depth, and Raptors of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from analyses.findings import Measured, listed
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


def best_networks(study: Recorded) -> pd.DataFrame:
    """Every network at its best epoch."""
    return study.networks[study.networks["moment"] == BEST]


def maxcut_fits(study: Recorded, k: int = K, moment: str = BEST) -> pd.DataFrame:
    """Raptors with max-cut phases, by p and seed."""
    rows = study.fits.query("partition == @MAXCUT and k == @k and moment == @moment")
    return rows.set_index(["p", "seed"]).sort_index()


def ends_by_p(rows: pd.DataFrame, column: str, form: str) -> str:
    """`from 0.1 to 0.2`: means of the least and the largest p."""
    mean = rows.groupby("p")[column].mean()
    return f"from {mean.iloc[0]:{form}} to {mean.iloc[-1]:{form}}"


def _peak(rows: pd.DataFrame) -> Measured | None:
    """Is accuracy highest at a large p?"""
    if rows.empty:
        return None
    right = rows.pivot_table(index="seed", columns="p", values="accuracy").dropna()
    mean = right.mean()
    inside = [p for p in mean.index if PEAK[0] <= p <= PEAK[1]]
    if not inside:
        return None
    peak, best = (max(ps, key=lambda p: float(mean[p])) for ps in (inside, list(mean.index)))
    least, below = min(mean.index), Estimate(np.nan)
    gain = mean_difference(right[peak] - right[least])
    said = ", ".join(f"p={p:g} {value:.1%}" for p, value in mean.items())
    said += f"; p={peak:g} over p={least:g}: {gain.say('+.1%')}"
    if best not in inside:
        below = mean_difference(right[best] - right[peak])
        said += f", under p={best:g}: {below.say('+.1%')}"
    return Measured(said, gain=gain, below=below)


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
    return Measured(f"{said}; k={K} {ends_by_p(rows, f'evenness_{K}', '.2f')}", rho=found[K])


def similarity_grows(study: Recorded) -> Measured:
    """Do layers become alike?"""
    rows = best_networks(study)
    found = rank_correlation(rows["p"], rows["mean_similarity"])
    return Measured(f"{found.say()}; {ends_by_p(rows, 'mean_similarity', '.2f')}", rho=found)


def fidelity_grows(study: Recorded) -> Measured | None:
    """Are networks with large p nearer to recurrent?"""
    rows = maxcut_fits(study).reset_index()
    if rows.empty:
        return None
    found = {column: rank_correlation(rows["p"], rows[column]) for column in SHOWN}
    said = "; ".join(f"{SHOWN[column]} {one.say()}" for column, one in found.items())
    said += f"; R² {ends_by_p(rows, 'r2', '.2f')}, kept {ends_by_p(rows, 'kept', '.1%')}"
    return Measured(said, **found)


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
    found = {column: mean_difference(networks[column]) for column in SHOWN}
    parts = []
    for column, name in SHOWN.items():
        size, larger = networks[f"{column}_sd"].mean(), int((networks[column] > 0).sum())
        sd = f" ({size:+.1f} sd)" if np.isfinite(size) else ""
        parts.append(
            f"{name} {found[column].say(FORMATS[column])}{sd}, larger in {larger} of {len(networks)}"
        )
    return Measured("; ".join(parts), **found)


better_than_contiguous = partial(_partitions, better=MAXCUT, worse=CONTIGUOUS)
better_than_shuffled = partial(_partitions, better=CONTIGUOUS, worse=SHUFFLE)


def more_blocks(study: Recorded) -> Measured | None:
    """Does the third block help, and more than the fourth?"""
    fits = study.fits.query("partition == @MAXCUT and moment == @BEST")
    kept = fits.pivot_table(index=["p", "seed"], columns="k", values="kept").dropna()
    if kept.empty or not {2, 3, 4} <= set(kept.columns):
        return None
    third = mean_difference(kept[3] - kept[2])
    more = mean_difference((kept[3] - kept[2]) - (kept[4] - kept[3]))
    said = listed({f"k={int(k)}": kept[k].mean() for k in kept.columns}, ".1%")
    return Measured(
        f"{said}; 2 to 3 {third.say('+.1%')}, over 3 to 4 {more.say('+.1%')}", third=third, more=more
    )


def structure_predicts(study: Recorded) -> Measured | None:
    """Across networks: does a better cut mean a better Raptor?"""
    models = best_networks(study).set_index(["p", "seed"])
    rows = models.join(maxcut_fits(study)[["r2", "kept"]], how="inner").reset_index()
    if len(rows) < 3:
        return None
    rho = rank_correlation(rows[f"z_{K}"], rows["r2"])
    within = rank_correlation(rows[f"z_{K}"], rows["r2"], within=rows["p"])
    others = {"cut": f"cut_{K}", "cut over a drift's": f"over_drift_{K}", "evenness": f"evenness_{K}",
              "mean similarity": "mean_similarity"}  # fmt: skip
    found = {name: rank_correlation(rows[column], rows["r2"]) for name, column in others.items()}
    beside = "; ".join(f"{name} {one.say()}" for name, one in found.items())
    return Measured(
        f"z {rho.say()}, within p {within.say()} (beside it: {beside})", rho=rho, rho_within=within
    )


def untrained_easier(study: Recorded) -> Measured | None:
    """Before and after training."""
    before, after = (maxcut_fits(study, moment=moment)["r2"] for moment in (UNTRAINED, BEST))
    if before.empty or after.empty:
        return None
    said = f"{before.min():.3f} to {before.max():.3f} of {len(before)} untrained, "
    said += f"{after.min():.3f} to {after.max():.3f} of {len(after)} trained"
    return Measured(said, before=list(before), after=list(after))


def _falls(study: Recorded, first: str, second: str, chosen: Any) -> tuple[str, int, dict[str, Estimate]]:
    """Mean falls of what Raptors reach from one moment to another, over some networks."""
    before, after = (maxcut_fits(study, moment=moment) for moment in (first, second))
    shared = before.index.intersection(after.index).intersection(chosen)
    before, after = before.loc[shared], after.loc[shared]
    found = {column: mean_difference(before[column] - after[column]) for column in SHOWN}
    said = "; ".join(
        f"{name} {before[column].mean():.3f} to {after[column].mean():.3f}, fall {found[column].say(FORMATS[column])}"
        for column, name in SHOWN.items()
    )
    return said, len(shared), found


def overfitting_hurts(study: Recorded) -> Measured | None:
    """The last epoch against the best, where accuracy meanwhile rose on training and fell on test images."""
    last = study.networks[study.networks["moment"] == LAST].set_index(["p", "seed"])
    if not (fitted := len(maxcut_fits(study, moment=LAST))):
        return None
    said, count, found = _falls(study, BEST, LAST, last.index[last["overfitted"]])
    return Measured(
        f"{said} ({count} overfitted)" if count else f"none of {fitted} networks overfitted", **found
    )


def memorising_hurts(study: Recorded) -> Measured | None:
    """The last epoch against the middle, where what is learnt meanwhile is of the training images alone."""
    columns = ["accuracy", "train_accuracy"]
    at = study.networks.reset_index().pivot_table(index=["p", "seed"], columns="moment", values=columns)
    tested, trained = (at[name][LAST] - at[name][MIDDLE] for name in columns)
    chosen = at.index[(trained > BY_HEART) & (tested < trained / 2)]
    said, count, found = _falls(study, MIDDLE, LAST, chosen)
    if not count:
        return None
    tested, trained = tested.loc[chosen].mean(), trained.loc[chosen].mean()
    said += f" ({count} networks; training images {trained:+.1%}, test images {tested:+.1%})"
    return Measured(said, **found)


def not_only_less_trained(study: Recorded) -> Measured | None:
    """Is a network with a large p easier to fit only because it has learnt less?"""
    right = study.networks.set_index(["moment", "p", "seed"])["accuracy"]
    early, late = maxcut_fits(study, moment=MIDDLE)["r2"], maxcut_fits(study)["r2"]
    early = early[early.index.get_level_values("p") == min(study.config.drop_path)]
    late = late[late.index.get_level_values("p") >= PEAK[1]]
    if early.empty or late.empty:
        return None

    def said(fits: pd.Series, moment: str, word: str = "") -> str:
        them = [right[(moment, *one)] for one in fits.index]
        return f"{fits.min():.3f} to {fits.max():.3f} ({word}{min(them):.1%} to {max(them):.1%})"

    both = f"{said(late, BEST, 'test accuracy ')} against {said(early, MIDDLE)}"
    return Measured(both, late=list(late), early=list(early))
