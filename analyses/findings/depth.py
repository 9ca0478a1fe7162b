"""Small ViTs under stochastic depth, and Raptors of them.

Networks of one seed begin with the same weights and see the same images in the same order, whatever their p: a seed is
one cluster. R² compares Raptors of one network; those of several are compared by skill, since R² is higher where layers
are more alike and there is less to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import entr

from analyses.raptor_cells import RAPTOR, least_skill
from analyses.recording import SMALL_VIT
from analyses.rules import Numbers
from analyses.statistics import Estimate, mean_difference, rank_correlation
from analyses.stochastic_depth_cells import LAST, MIDDLE, MOMENTS, Network, Recorded
from brdyn.classifiers.recipe import BEST
from brdyn.interventions import Surgery, within_against_across
from brdyn.phases import phase_evidence
from brdyn.raptor import Evaluation, Fit
from brdyn.raptor.partitions import CONTIGUOUS, MAXCUT, SHUFFLE

K = 3
PEAK = (0.4, 0.6)
BY_HEART = 0.2  # gained on training images
WITHIN = ["r2", "kept"]  # of the last layer; above chance: of Raptors of one network
SHOWN = ["r2", "skill", "kept"]  # of several, which the last two compare


def best_networks(study: Recorded) -> pd.DataFrame:
    return study.networks[study.networks["moment"] == BEST]


def maxcut_fits(study: Recorded, k: int = K, moment: str = BEST) -> pd.DataFrame:
    """Raptors with max-cut phases, by p and seed."""
    rows = study.fits.query("partition == @MAXCUT and k == @k and moment == @moment")
    return rows.set_index(["p", "seed"]).sort_index()


def at_moments(study: Recorded, rates: Iterable[float], moments: Sequence[str]) -> list[dict[str, Any]]:
    """Networks of each p at each moment, and Raptors of them; nothing of what is not recorded."""
    networks = dict(list(study.networks.groupby(["p", "moment"])))
    fits = {moment: maxcut_fits(study, moment=moment).reset_index() for moment in moments}
    return [
        {"p": p, "moment": moment, "networks": networks[p, moment], "fits": fits[moment].query("p == @p")}
        for p in sorted(rates) for moment in moments if (p, moment) in networks
    ]  # fmt: skip


def along(study: Recorded) -> list[dict[str, Any]]:
    """Networks along their training, of the rates that Raptors follow; untrained ones are the same for every p."""
    return at_moments(study, study.fits[study.fits["moment"] != BEST]["p"].unique(), MOMENTS)


def at_best(study: Recorded) -> list[dict[str, Any]]:
    """Networks at their best epoch, by p."""
    return at_moments(study, best_networks(study)["p"].unique(), [BEST])


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
    return {
        "gain": mean_difference(by_seed[peak] - by_seed[least]),
        "behind": Estimate(np.nan) if best == peak else mean_difference(by_seed[best] - by_seed[peak]),
        "right": {f"{p:g}": value for p, value in right.items()}, "peak": peak, "best": best, "least": least,
    }  # fmt: skip


def accuracy_rises(study: Recorded) -> Numbers | None:
    return _peak(best_networks(study))


def raptor_accuracy_rises(study: Recorded) -> Numbers | None:
    return _peak(maxcut_fits(study).reset_index())


def evenness_grows(study: Recorded) -> Numbers:
    rows = best_networks(study)
    found = {k: _with_p(rows, f"evenness_{k}") for k in study.config.phases}
    ends, layers = ends_by_p(rows, f"evenness_{K}"), int(study.config.network["depth"])
    room = evenness_one_off(layers)
    return {"rho": found[K], "found": found, "K": K, "ends": ends, "first": ends[0], "room": room}


def evenness_one_off(layers: int) -> float:
    """Of the most even phases with a boundary moved by one layer: as much room as there can be for a rise by one."""
    sizes = np.diff(np.arange(K + 1) * layers // K) + ([-1, 1] + [0] * (K - 2))
    return float(entr(sizes / layers).sum() / np.log(K))


def _with_p(rows: pd.DataFrame, column: str) -> Estimate:
    """How a column goes with p, among networks of one seed."""
    return rank_correlation(rows["p"], rows[column], rows["seed"])


def similarity_grows(study: Recorded) -> Numbers:
    rows, column = best_networks(study), "mean_similarity"
    return {"rho": _with_p(rows, column), "ends": ends_by_p(rows, column)}


def fidelity_grows(study: Recorded) -> Numbers | None:
    rows = maxcut_fits(study).reset_index()
    if rows.empty:
        return None
    found = {column: _with_p(rows, column) for column in SHOWN}
    return {**found, "ends": {column: ends_by_p(rows, column) for column in SHOWN}}


def partition_differences(study: Recorded, better: str, worse: str) -> pd.DataFrame:
    """Per network and k: difference of the means over draws, and how many standard deviations of single draws it is."""
    fits = study.fits[study.fits["moment"] == BEST]
    if not {better, worse} <= set(fits["partition"]):
        return pd.DataFrame(columns=[*WITHIN, *(f"{name}_sd" for name in WITHIN)])
    by = fits.groupby(["p", "seed", "k", "partition"])[WITHIN]
    mean, variance = (found.unstack("partition").swaplevel(axis=1) for found in (by.mean(), by.std() ** 2))
    rows = mean[better] - mean[worse]
    pooled = variance[worse].mean() ** 0.5  # not a number for single draws
    return rows.join(rows / pooled, rsuffix="_sd").dropna(subset=WITHIN)


def _over_seeds(values: pd.Series) -> Estimate:
    """The mean over networks, by (p, seed)."""
    return mean_difference(values, values.index.get_level_values("seed"))


def _partitions(study: Recorded, better: str, worse: str) -> Numbers | None:
    rows = partition_differences(study, better, worse)
    if rows.empty:
        return None
    networks = rows.groupby(["p", "seed"]).mean()
    return {
        **{column: _over_seeds(networks[column]) for column in WITHIN},
        "sd": {column: networks[f"{column}_sd"].mean() for column in WITHIN},
        "larger": {column: (networks[column] > 0).sum() for column in WITHIN}, "count": len(networks),
    }  # fmt: skip


better_than_contiguous = partial(_partitions, better=MAXCUT, worse=CONTIGUOUS)
better_than_shuffled = partial(_partitions, better=CONTIGUOUS, worse=SHUFFLE)


def more_blocks(study: Recorded) -> Numbers | None:
    fits = study.fits.query("partition == @MAXCUT and moment == @BEST")
    kept = fits.pivot_table(index=["p", "seed"], columns="k", values="kept").dropna()
    if kept.empty or not {2, 3, 4} <= set(kept.columns):
        return None
    third, fourth = kept[3] - kept[2], kept[4] - kept[3]
    return {"third": _over_seeds(third), "more": _over_seeds(third - fourth), "right": kept.mean().to_dict()}


def structure_predicts(study: Recorded) -> Numbers | None:
    """Phases are as clear as the largest step of the test stands out: by t."""
    models = best_networks(study)
    rows = models.set_index(["p", "seed"]).join(maxcut_fits(study)[SHOWN], how="inner").reset_index()
    if len(rows) < 3:
        return None
    names = [Network(p=p, seed=seed).name for p, seed in zip(rows["p"], rows["seed"], strict=True)]
    evidence = [phase_evidence(1 - study.similarity[name]) for name in names]
    rows["t"] = [one.largest.t if one.largest else np.nan for one in evidence]
    found = {column: rank_correlation(rows["t"], rows[column], rows["seed"]) for column in SHOWN}
    return {**found, "ends": ends_by_p(rows, "t"), "most": max(one.k for one in evidence)}


def _falls(study: Recorded, first: str, second: str, chosen: pd.Index) -> Numbers:
    """Mean falls of what Raptors reach from one moment to another, over some networks."""
    before, after = (maxcut_fits(study, moment=moment) for moment in (first, second))
    shared = before.index.intersection(after.index).intersection(chosen)
    before, after = before.loc[shared], after.loc[shared]
    found = {column: _over_seeds(before[column] - after[column]) for column in SHOWN}
    ends = [one.groupby("seed")[SHOWN].mean().mean() for one in (before, after)]
    return {**found, "at": {column: [one[column] for one in ends] for column in SHOWN}, "count": len(shared)}


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
    found = {"tested": tested[chosen].mean(), "trained": trained[chosen].mean()}
    return {**found, **falls} if (falls := _falls(study, MIDDLE, LAST, chosen))["count"] else None


def not_only_less_trained(study: Recorded) -> Numbers | None:
    """Networks of large p at their best epoch against one of p = 0 in the middle of training, by seed."""
    least = min(study.config.drop_path)
    late, early = maxcut_fits(study).loc[PEAK[1] :], maxcut_fits(study, moment=MIDDLE).loc[least:least]
    if early.empty or late.empty:
        return None
    skill = late["skill"].groupby("seed").mean() - early["skill"].groupby("seed").mean()
    right = study.networks.set_index(["moment", "p", "seed"])["accuracy"]
    of_them = [right[moment].loc[fits.index] for moment, fits in ((BEST, late), (MIDDLE, early))]
    return {"skill": mean_difference(skill), "late": late["r2"], "early": early["r2"], "right": of_them}


def packaged_network(surgery: Surgery, evaluation: Evaluation) -> dict[str, Any]:
    """What `brdyn interventions` and `brdyn raptor-eval` say of the network that comes with the package."""
    swapped = surgery.matrix("swap", "head", "accuracy")
    return {
        "fit": Fit.read(RAPTOR / SMALL_VIT), "skill": least_skill(evaluation.fidelity.table),
        "deleted": surgery.rows("delete", "head", "accuracy").sort_values("mean"),
        "swapped": within_against_across(swapped, surgery.phases.boundaries),
    }  # fmt: skip
