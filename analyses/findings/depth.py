"""Small ViTs under stochastic depth, and Raptors of them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from analyses.rules import Numbers
from analyses.statistics import Estimate, mean_difference, rank_correlation
from analyses.stochastic_depth_cells import LAST, MIDDLE, UNTRAINED, Recorded
from brdyn.classifiers.recipe import BEST
from brdyn.raptor.partitions import CONTIGUOUS, MAXCUT, SHUFFLE

K = 3
PEAK = (0.4, 0.6)
BY_HEART = 0.2  # gained on training images
SHOWN = ["r2", "kept"]  # of the last layer; above chance


def best_networks(study: Recorded) -> pd.DataFrame:
    return study.networks[study.networks["moment"] == BEST]


def maxcut_fits(study: Recorded, k: int = K, moment: str = BEST) -> pd.DataFrame:
    """Raptors with max-cut phases, by p and seed."""
    rows = study.fits.query("partition == @MAXCUT and k == @k and moment == @moment")
    return rows.set_index(["p", "seed"]).sort_index()


def ends_by_p(rows: pd.DataFrame, column: str) -> tuple[float, float]:
    """Means of the least and the largest p."""
    mean = rows.groupby("p")[column].mean()
    return mean.iloc[0], mean.iloc[-1]


def _peak(rows: pd.DataFrame) -> Numbers | None:
    if rows.empty:
        return None
    by_seed = rows.pivot_table(index="seed", columns="p", values="accuracy").dropna()
    right = by_seed.mean()
    inside = right[(right.index >= PEAK[0]) & (right.index <= PEAK[1])]
    if inside.empty:
        return None
    peak, best, least = inside.idxmax(), right.idxmax(), right.index.min()
    below = Estimate(np.nan) if best == peak else mean_difference(by_seed[best] - by_seed[peak])
    gain = mean_difference(by_seed[peak] - by_seed[least])
    shown = {f"{p:g}": value for p, value in right.items()}
    return {"gain": gain, "below": below, "right": shown, "peak": peak, "best": best, "least": least}


def accuracy_rises(study: Recorded) -> Numbers | None:
    return _peak(best_networks(study))


def raptor_accuracy_rises(study: Recorded) -> Numbers | None:
    return _peak(maxcut_fits(study).reset_index())


def evenness_grows(study: Recorded) -> Numbers:
    rows = best_networks(study)
    found = {k: rank_correlation(rows["p"], rows[f"evenness_{k}"]) for k in study.config.phases}
    return {"rho": found[K], "found": found, "K": K, "ends": ends_by_p(rows, f"evenness_{K}")}


def similarity_grows(study: Recorded) -> Numbers:
    rows = best_networks(study)
    return {
        "rho": rank_correlation(rows["p"], rows["mean_similarity"]),
        "ends": ends_by_p(rows, "mean_similarity"),
    }


def fidelity_grows(study: Recorded) -> Numbers | None:
    rows = maxcut_fits(study).reset_index()
    if rows.empty:
        return None
    found = {column: rank_correlation(rows["p"], rows[column]) for column in SHOWN}
    return {**found, "ends": {column: ends_by_p(rows, column) for column in SHOWN}}


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


def _partitions(study: Recorded, better: str, worse: str) -> Numbers | None:
    rows = partition_differences(study, better, worse)
    if rows.empty:
        return None
    networks = rows.groupby(["p", "seed"]).mean()
    return {
        **{column: mean_difference(networks[column]) for column in SHOWN},
        "sd": {column: networks[f"{column}_sd"].mean() for column in SHOWN},
        "larger": {column: (networks[column] > 0).sum() for column in SHOWN}, "count": len(networks),
    }  # fmt: skip


better_than_contiguous = partial(_partitions, better=MAXCUT, worse=CONTIGUOUS)
better_than_shuffled = partial(_partitions, better=CONTIGUOUS, worse=SHUFFLE)


def more_blocks(study: Recorded) -> Numbers | None:
    fits = study.fits.query("partition == @MAXCUT and moment == @BEST")
    kept = fits.pivot_table(index=["p", "seed"], columns="k", values="kept").dropna()
    if kept.empty or not {2, 3, 4} <= set(kept.columns):
        return None
    third, fourth = kept[3] - kept[2], kept[4] - kept[3]
    right = {int(k): kept[k].mean() for k in kept.columns}
    return {"third": mean_difference(third), "more": mean_difference(third - fourth), "right": right}


def structure_predicts(study: Recorded) -> Numbers | None:
    models = best_networks(study).set_index(["p", "seed"])
    rows = models.join(maxcut_fits(study)[SHOWN], how="inner").reset_index()
    if len(rows) < 3:
        return None
    rho = rank_correlation(rows[f"z_{K}"], rows["r2"])
    within = rank_correlation(rows[f"z_{K}"], rows["r2"], within=rows["p"])
    others = {"cut": f"cut_{K}", "cut over a drift's": f"over_drift_{K}", "evenness": f"evenness_{K}",
              "mean similarity": "mean_similarity"}  # fmt: skip
    beside = {name: rank_correlation(rows[column], rows["r2"]) for name, column in others.items()}
    return {"rho": rho, "rho_within": within, "beside": beside}


def untrained_easier(study: Recorded) -> Numbers | None:
    before, after = (maxcut_fits(study, moment=moment)["r2"].to_numpy() for moment in (UNTRAINED, BEST))
    return {"before": before, "after": after} if len(before) and len(after) else None


def _falls(study: Recorded, first: str, second: str, chosen: pd.Index) -> Numbers:
    """Mean falls of what Raptors reach from one moment to another, over some networks."""
    before, after = (maxcut_fits(study, moment=moment) for moment in (first, second))
    shared = before.index.intersection(after.index).intersection(chosen)
    before, after = before.loc[shared], after.loc[shared]
    found = {column: mean_difference(before[column] - after[column]) for column in SHOWN}
    means = {column: (before[column].mean(), after[column].mean()) for column in SHOWN}
    return {**found, "at": means, "count": len(shared)}


def overfitting_hurts(study: Recorded) -> Numbers | None:
    """The last epoch against the best, where accuracy meanwhile rose on training and fell on test images."""
    last = study.networks[study.networks["moment"] == LAST].set_index(["p", "seed"])
    fitted = len(maxcut_fits(study, moment=LAST))
    return {**_falls(study, BEST, LAST, last.index[last["overfitted"]]), "fitted": fitted} if fitted else None


def memorising_hurts(study: Recorded) -> Numbers | None:
    """The last epoch against the middle, where what is learnt meanwhile is of the training images alone."""
    columns = ["accuracy", "train_accuracy"]
    at = study.networks.reset_index().pivot_table(index=["p", "seed"], columns="moment", values=columns)
    tested, trained = (at[name][LAST] - at[name][MIDDLE] for name in columns)
    chosen = at.index[(trained > BY_HEART) & (tested < trained / 2)]
    found = _falls(study, MIDDLE, LAST, chosen)
    gained = {"tested": tested.loc[chosen].mean(), "trained": trained.loc[chosen].mean()}
    return {**found, **gained} if found["count"] else None


def not_only_less_trained(study: Recorded) -> Numbers | None:
    right = study.networks.set_index(["moment", "p", "seed"])["accuracy"]
    early, late = maxcut_fits(study, moment=MIDDLE)["r2"], maxcut_fits(study)["r2"]
    early = early[early.index.get_level_values("p") == min(study.config.drop_path)]
    late = late[late.index.get_level_values("p") >= PEAK[1]]
    if early.empty or late.empty:
        return None
    them = [
        np.array([right[(moment, *one)] for one in fits.index])
        for moment, fits in ((BEST, late), (MIDDLE, early))
    ]
    return {"late": late.to_numpy(), "early": early.to_numpy(), "right": them}
