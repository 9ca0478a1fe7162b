"""Raptors of one teacher: what blocks keep, partitions, and the recipe taken apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial, wraps
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml

from analyses.raptor_cells import HEAD, LINEAR, RAPTOR, Cells, least_skill
from analyses.raptor_on_vits import LADDER_K
from analyses.recording import OFFLINE, ROOT
from analyses.rules import UNTRAINED, Numbers
from analyses.statistics import NORMAL, Estimate, with_errors
from brdyn.classifiers import packaged
from brdyn.raptor import Evaluation, Fit
from brdyn.raptor.baselines import BASELINES
from brdyn.raptor.partitions import MAXCUT, PARTITIONS

PUBLISHED = {2: 0.96, 3: 0.98, 4: 0.985}  # share of the linear probe's accuracy, ImageNet, ViT-B
PUBLISHED_IMAGES = 2 * 312_500 * 64
OTHER_TEACHER = "cifar_vit12_patch4"
WHOLE = "maxcut_k3"
LONGER, MUON = f"{WHOLE}_longer", f"{WHOLE}_muon16"
FORCING, ANNEALED, AT_THE_RAISED_RATE = (
    "ladder_teacher-forcing",
    "ladder_annealed",
    "ladder_stage2-raised-rate",
)
LADDER = (FORCING, ANNEALED, "ladder_depth-scaling", "ladder_token-weighting")
STAGE_1_ALONE = "ladder_stage1-twice-as-long"
FEWEST_DRAWS = 3
KEPT = {LINEAR: "kept", HEAD: "kept_head"}  # the column of a probe
LADDER_NAMES: dict[str, str] = yaml.safe_load((ROOT / "analyses" / "ladder.yaml").read_text())


def of_the_recipe(cells: Cells) -> pd.DataFrame:
    """Fits by the published recipe, whatever partition, seed or draw."""
    return cells.summary[cells.summary["varies"].isin(["partition", "seed"])]


def table(cells: Cells) -> pd.DataFrame:
    """Table 1: mean and standard deviation over seeds or draws, by k and partition."""
    rows = of_the_recipe(cells)
    grouped = rows.groupby(["k", "partition"])[["kept", "kept_knn", "r2", "r2_least", "r2_one_step"]]
    found = grouped.agg(["mean", "std"])
    found.columns = ["_".join(column) for column in found.columns]
    return found.assign(fits=rows.groupby(["k", "partition"]).size()).reset_index()


def images_seen(cells: Cells) -> int:
    """Of a fit by the whole recipe."""
    return int(of_the_recipe(cells)["images_seen"].max())


def lengths(*studies: Cells) -> list[dict[str, float]]:
    """What fits of max-cut phases, k = 3, keep by how many images they saw, over all studies of a teacher."""
    rows = pd.concat([cells.summary for cells in studies])
    rows = rows[(rows["partition"] == MAXCUT) & (rows["k"] == LADDER_K) & rows.index.str.startswith(WHOLE)]
    return [
        {"images_seen": seen, "fits": len(fits), **fits[["kept", "r2", "r2_one_step"]].mean()}
        for seen, fits in rows.groupby("images_seen")
    ]


def share_kept(cells: Cells, name: str, probe: str = LINEAR) -> Estimate:
    """Share of a probe's accuracy that one fit keeps, with its interval over test images."""
    column = KEPT[probe]
    return Estimate(*cells.summary.loc[name, [column, f"{column}_low", f"{column}_high"]])


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


def between_seeds(cells: Cells, column: str = "kept") -> tuple[float, float]:
    """Variance of fits that differ in their seed alone, pooled over k, and its degrees of freedom; no number where none
    were repeated."""
    rows = of_the_recipe(cells).query("partition == @MAXCUT")
    groups = [values.to_numpy() for _, values in rows.groupby("k")[column] if len(values) > 1]
    df = sum(len(values) - 1 for values in groups)
    return (sum(values.var(ddof=1) * (len(values) - 1) for values in groups) / df, df) if df else (np.nan, 0)


def fits_of(cells: Cells, name: str) -> list[str]:
    """A fit and those that differ from it in their seed alone."""
    index = cells.summary.index
    return list(index[index.str.fullmatch(rf"{re.escape(name)}(_seed\d+)?")])


def gained(
    cells: Cells, fits: Sequence[str], below: Sequence[str], probe: str = LINEAR, share: float = 1
) -> Estimate:
    """What fits keep beyond others, or a share of it, on average: image by image where it is recorded which each names
    right, with the error between seeds."""
    weights = {**dict.fromkeys(fits, share / len(fits)), **dict.fromkeys(below, -1 / len(below))}
    right = cells.right.get(probe, {})
    if not weights.keys() <= right.keys():
        return share_kept(cells, fits[0]).less(share_kept(cells, below[0]))
    value = sum(weight * cells.summary.loc[one, KEPT[probe]] for one, weight in weights.items())
    differences = np.sum([weight * right[one] for one, weight in weights.items()], axis=0)
    error = float(differences.std(ddof=1)) / len(differences) ** 0.5 / cells.teacher[probe]
    variance, df = between_seeds(cells, KEPT[probe])
    seeds = (variance * sum(weight**2 for weight in weights.values())) ** 0.5
    return with_errors(value, [(error, np.inf), (seeds, df)])


def _better(
    cells: Cells,
    better: str,
    worse: str,
    columns: tuple[str, ...] = ("kept", "r2"),
    fewest: int = FEWEST_DRAWS,
) -> Numbers | None:
    """Differences between two partitions, of means over fits with the same k, averaged over the k that have both.

    Max-cut has one partition of each k and its fits differ by seed; the fits of a random one differ by draw.
    """
    rows = of_the_recipe(cells)
    counts = rows.groupby(["k", "partition"]).size().unstack(fill_value=0)
    if not {better, worse} <= set(counts):
        return None
    shared = [k for k in counts.index if counts.loc[k, better] and counts.loc[k, worse] >= fewest]
    if not shared:
        return None
    found: dict[str, Estimate] = {}
    for column in columns:
        means, of_draws, seeds = [], [], 0.0
        for k in shared:
            means.append(0.0)
            for partition, sign in ((better, 1), (worse, -1)):
                values = rows[(rows["k"] == k) & (rows["partition"] == partition)][column].to_numpy()
                means[-1] += sign * values.mean()
                if partition == MAXCUT:
                    seeds += 1 / len(values)
                else:
                    of_draws.append((values.std(ddof=1) / len(values) ** 0.5 / len(shared), len(values) - 1))
        variance, df = between_seeds(cells, column)
        of_seeds = [((seeds * variance) ** 0.5 / len(shared), df)] if seeds else []
        found[column] = with_errors(float(np.mean(means)), [*of_draws, *of_seeds])
    return {**found, "ks": shared}


def spread_of(cells: Cells, partition: str, k: int = LADDER_K) -> str:
    """The least and the most that fits of a partition keep, and how many there are."""
    kept = of_the_recipe(cells).query("k == @k and partition == @partition")["kept"]
    if kept.empty:
        return "not recorded"
    if len(kept) == 1:
        return f"{kept.iloc[0]:.1%} (one fit)"
    return f"{kept.min():.1%} to {kept.max():.1%} ({len(kept)} fits)"


better_than_contiguous = partial(_better, better=PARTITIONS[0], worse=PARTITIONS[1])
phases_over_shuffled = partial(_better, better=PARTITIONS[0], worse=PARTITIONS[2])
better_than_shuffled = partial(_better, better=PARTITIONS[1], worse=PARTITIONS[2])


def by_head(cells: Cells, better: str, worse: str) -> Numbers | None:
    """By the teacher's own head, once there are all draws that were planned: a look before is one chance more."""
    planned = cells.size["draws"].values()
    return _better(cells, better, worse, ("kept_head",), fewest=max(planned))


head_over_contiguous = partial(by_head, better=PARTITIONS[0], worse=PARTITIONS[1])
head_over_shuffled = partial(by_head, better=PARTITIONS[0], worse=PARTITIONS[2])


@of_fits(*(f"maxcut_k{k}" for k in range(1, 6)))
def saturation(cells: Cells) -> Numbers:
    found = {f"k{k}": share_kept(cells, f"maxcut_k{k}") for k in range(1, 6)}
    more, rise = gained(cells, ["maxcut_k5"], ["maxcut_k4"]), gained(cells, ["maxcut_k4"], ["maxcut_k2"])
    return {**found, "more": more, "rise": rise}


@of_fits(*LADDER, STAGE_1_ALONE, WHOLE)
def rungs(cells: Cells) -> Numbers:
    return {"gained": {label: gained(cells, [one], [below]) for label, one, below in rungs_of_the_recipe()}}


def with_all_seeds(cells: Cells, *names: str) -> bool:
    """Whether every rung has all seeds that were planned: a look before is one chance more."""
    return all(len(fits_of(cells, name)) >= cells.size["ladder_seeds"] for name in names)


def head_rungs(cells: Cells) -> Numbers | None:
    if not with_all_seeds(cells, *LADDER, STAGE_1_ALONE, WHOLE):
        return None
    return {
        "gained": {
            label: gained(cells, fits_of(cells, one), fits_of(cells, below), HEAD)
            for label, one, below in rungs_of_the_recipe()
        }
    }


def rungs_of_the_recipe() -> Iterator[tuple[str, str, str]]:
    """What a rung adds, its fit and that of the rung below."""
    labels = ("annealing", "depth scaling", "token weighting", "stage 2")
    for label, (below, one) in zip(labels, [*pairwise(LADDER), (STAGE_1_ALONE, WHOLE)], strict=True):
        yield label, one, below


def head_forcing(cells: Cells) -> Numbers | None:
    if not with_all_seeds(cells, FORCING, ANNEALED):
        return None
    alone, other = (fits_of(cells, name) for name in (FORCING, ANNEALED))
    excess = gained(cells, other, alone, HEAD, share=0.5)
    kept = cells.summary[KEPT[HEAD]]
    return {"excess": excess, "alone": kept[alone].mean(), "other": kept[other].mean()}


def _kept_by_head(cells: Cells, name: str, variance: float, df: float) -> Numbers:
    """Of the accuracy of the teacher's own head, mean over seeds: errors are of test images and of seeds."""
    fits, one = fits_of(cells, name), share_kept(cells, name, HEAD)
    errors = [((one.high - one.low) / 2 / NORMAL, np.inf), ((variance / len(fits)) ** 0.5, df)]
    return {"kept": with_errors(float(cells.summary.loc[fits, KEPT[HEAD]].mean()), errors), "fits": len(fits)}


@of_fits(WHOLE)
def head_kept(cells: Cells) -> Numbers:
    return _kept_by_head(cells, WHOLE, *between_seeds(cells, KEPT[HEAD]))


@of_fits(MUON)
def muon_kept(cells: Cells) -> Numbers:
    """By the recipe that keeps most in the search, of those without corrections; seeds have a spread of their own."""
    kept = cells.summary.loc[fits_of(cells, MUON), KEPT[HEAD]]
    return _kept_by_head(cells, MUON, float(kept.var(ddof=1)), len(kept) - 1)


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


def fast_start(cells: Cells) -> Numbers | None:
    """Fits that start from layers of the teacher, against those that start at random, k = 3."""
    fast = cells.summary[(cells.summary["varies"] == "fast") & (cells.summary["k"] == LADDER_K)]
    usual = of_the_recipe(cells).query("k == @LADDER_K and partition == @MAXCUT")
    if min(len(fast), len(usual)) < FEWEST_DRAWS:
        return None
    found = {
        column: with_errors(
            float(fast[column].mean() - usual[column].mean()),
            [(float(one[column].std()) / len(one) ** 0.5, len(one) - 1) for one in (fast, usual)],
        )
        for column in ("kept", "kept_knn", "r2")
    }
    return {**found, "one": fast.mean(numeric_only=True), "two": usual.mean(numeric_only=True)}


longer = of_fits(LONGER, WHOLE)(partial(_against, name=LONGER, another=WHOLE))
raised_rate = of_fits(WHOLE, AT_THE_RAISED_RATE)(partial(_against, name=WHOLE, another=AT_THE_RAISED_RATE))


def read_refitted(folder: Path = RAPTOR) -> list[Evaluation] | None:
    """Evaluations of Raptors of the packaged network and of its untrained twins, by one recipe; None without twins."""
    twins = sorted(folder.glob(f"{packaged.NAME}_random*_eval"))
    places = [folder / f"{packaged.NAME}_eval", *twins]
    return [Evaluation.read(place) for place in places] if twins else None


def tried(folder: Path = RAPTOR) -> Fit | None:
    """A fit of the offline model that tried its learning rates first; None where there is none."""
    place = folder / f"{OFFLINE}_rates"
    return Fit.read(place) if (place / Fit.FILE).is_file() else None


class Photographs(NamedTuple):
    """A Raptor of the offline model fitted to crops of photographs, judged on others."""

    fit: Fit
    evaluation: Evaluation

    @property
    def by_layer(self) -> list[dict[str, float]]:
        """R² and skill over the best baseline of all tokens after each layer, on its own way and from the teacher's
        state."""
        fidelity = self.evaluation.fidelity
        free, one_step = (fidelity.curve("r2", mode=mode) for mode in ("autoregressive", "one-step"))
        skills = pd.concat([fidelity.curve(f"skill_{name}") for name in BASELINES], axis=1).min(axis=1)
        return [
            {
                "layer": layer,
                "r2": free[layer],
                "one_step": one_step[layer],
                "skill": skills.get(layer, np.nan),
            }
            for layer in range(1, len(self.evaluation.assignment) + 1)
        ]


def photographs(folder: Path = RAPTOR) -> Photographs | None:
    """None where that is not recorded."""
    places = folder / f"{OFFLINE}_photos", folder / f"{OFFLINE}_photos_eval"
    if not all(place.is_dir() for place in places):
        return None
    return Photographs(Fit.read(places[0]), Evaluation.read(places[1]))


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
    fidelity = evaluation.fidelity
    return {"skill": least_skill(fidelity.table).value, "r2": float(fidelity.curve("r2").iloc[-1])}
