"""Raptors of one teacher: what blocks keep, partitions, and the recipe taken apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial, wraps
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from analyses.findings.twins import with_twins
from analyses.raptor_cells import HEAD, LINEAR, RAPTOR, Cells, least_skill, read_cells
from analyses.raptor_on_vits import LADDER_K
from analyses.recording import OFFLINE, ROOT, SMALL_VIT
from analyses.rules import Numbers
from analyses.statistics import NORMAL, Estimate, Side, contrast
from brdyn.classifiers import packaged
from brdyn.raptor import Evaluation, Fit
from brdyn.raptor.baselines import BASELINES
from brdyn.raptor.partitions import CONTIGUOUS, MAXCUT, SHUFFLE
from brdyn.raptor.recipe import VALIDATION_IMAGES as VALIDATION_IMAGES  # which the page names
from brdyn.store import read_json
from brdyn.training import History

PUBLISHED = {2: 0.96, 3: 0.98, 4: 0.985}  # share of the linear probe's accuracy, ImageNet, ViT-B
PUBLISHED_IMAGES = 2 * 312_500 * 64
OTHER_TEACHER = "cifar_vit12_patch4"
WHOLE, FAST = "maxcut_k3", "fast_k3"
LONGER, MUON = f"{WHOLE}_longer", f"{WHOLE}_muon16"
FORCING, ANNEALED, STAGE_1_ALONE = "ladder_teacher-forcing", "ladder_annealed", "ladder_stage1-twice-as-long"
AT_THE_RAISED_RATE = "ladder_stage2-raised-rate"
LADDER = (FORCING, ANNEALED, "ladder_depth-scaling", "ladder_token-weighting")
RUNGS = {  # each with the fit below
    **dict(zip(("annealing", "depth scaling", "token weighting"), pairwise(LADDER), strict=True)),
    "stage 2": (STAGE_1_ALONE, WHOLE),
}
FEWEST_DRAWS = 3
PROBES = {"kept": LINEAR, "kept_knn": "knn", "kept_head": HEAD}  # of a column
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
    return found.assign(fits=grouped.size()).reset_index()


def by_partition(cells: Cells) -> Any:
    """Fits by k and partition, those of the fast recipe apart; those that take the published recipe apart left out."""
    rows = cells.summary[cells.summary["varies"] != "recipe"]
    shown = rows["partition"].where(rows["varies"] != "fast", rows["partition"] + ", fast recipe")
    return rows.assign(partition=shown).groupby(["k", "partition"])


def other() -> Cells:
    """Of the second teacher."""
    return read_cells("gpu", OTHER_TEACHER)


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


def course(cell: str = LONGER, model: str = SMALL_VIT, size: str = "long") -> dict[int, History]:
    """What a recorded fit came to as it went on, by stage."""
    content = read_json(RAPTOR / model / size / f"{cell}.json", "a fit of a Raptor study")
    return {int(stage): History(**said) for stage, said in content["stages"].items()}


def milestones(stage: History, batch_size: int, rows: int = 8) -> list[dict[str, float]]:
    """R² and skill over doing nothing at the end of the last block, on validation images, after so many images of a
    stage: evenly spaced, the last one among them."""
    places = np.linspace(0, len(stage.validation) - 1, rows).round().astype(int)
    last = [name.removeprefix("r2 ") for name in stage.validation[0] if name.startswith("r2 ")][-1]
    return [
        {"images": int(row["step"] * batch_size), "r2": row[f"r2 {last}"], "skill": row[f"skill {last}"]}
        for row in map(stage.validation.__getitem__, places)
    ]


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
    kept = {"kept": alone["kept"], "annealed": other["kept"]}
    return {**kept, "r2": alone["r2"], "least": min(0, other["r2"]), "alone": alone, "other": other}


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


def side(cells: Cells, fits: Sequence[str], column: str = "kept", weight: float = 1) -> Side:
    """Fits by a column of the summary, for a contrast: what a probe keeps is known image by image, where that is
    recorded, or has its interval; of R² no error over images is known. The luck of seeds is one for all fits by the
    recipe on max-cut phases, and for those of which there is one; others have their own."""
    rows, of_recipe = cells.summary.loc[list(fits)], of_the_recipe(cells).query("partition == @MAXCUT").index
    luck = between_seeds(cells, column) if len(fits) == 1 or {*fits} <= {*of_recipe} else None
    probe = PROBES.get(column, "")
    right = cells.right.get(probe, {})
    if {*fits} <= right.keys():
        return Side(weight, np.array([right[one] for one in fits]) / cells.teacher[probe], luck=luck)
    known = f"{column}_low" in rows
    half = (rows[f"{column}_high"] - rows[f"{column}_low"]).mean() / 2 if known else 0.0
    return Side(weight, rows[column], half / NORMAL, luck)


def share_kept(cells: Cells, name: str, column: str = "kept") -> Estimate:
    """Share of a probe's accuracy that fits of a name keep on average: of the teacher's on the same test images, whose
    errors are in the interval of each fit."""
    return contrast(side(cells._replace(right={}), fits_of(cells, name), column))


def gained(cells: Cells, name: str, below: str, column: str = "kept", share: float = 1) -> Estimate:
    """What fits of a name keep beyond those of another, or a share of it, on average."""
    weights = {name: share, below: -1.0}
    return contrast(*(side(cells, fits_of(cells, one), column, weight) for one, weight in weights.items()))


def undrawn(cells: Cells, partition: str = SHUFFLE) -> list[int]:
    """The k of which draws of a random partition that were planned are not recorded."""
    fits = of_the_recipe(cells).query("partition == @partition").groupby("k").size()
    return [int(k) for k, draws in cells.size.get("draws", {}).items() if fits.get(int(k), 0) < draws]


def _better(
    cells: Cells, better: str, worse: str, columns: Sequence[str] = ("kept", "r2"), fewest: int = FEWEST_DRAWS
) -> Numbers | None:
    """Differences between two partitions, of means over fits with the same k, averaged over the k that have both: over
    that of the ladder alone until all that were planned do, as a look before is one chance more.

    Max-cut has one partition of each k and its fits differ by seed; the fits of a random one differ by draw.
    """
    fits = {key: list(rows.index) for key, rows in of_the_recipe(cells).groupby(["k", "partition"])}
    ks = [k for k, one in fits if one == better and len(fits.get((k, worse), ())) >= fewest]
    if undrawn(cells, worse):
        ks = [k for k in ks if k == LADDER_K]
    if not ks:
        return None
    sides = [(fits[k, one], sign / len(ks)) for k in ks for one, sign in ((better, 1), (worse, -1))]
    found = {column: contrast(*(side(cells, of, column, weight) for of, weight in sides)) for column in columns}
    return {"ks": ks, **found}


def spread_of(cells: Cells, partition: str, k: int = LADDER_K) -> str:
    """The least and the most that fits of a partition keep, and how many there are."""
    kept = of_the_recipe(cells).query("k == @k and partition == @partition")["kept"]
    if kept.empty:
        return "not recorded"
    if len(kept) == 1:
        return f"{kept.iloc[0]:.1%} (one fit)"
    return f"{kept.min():.1%} to {kept.max():.1%} ({len(kept)} fits)"


def _by_head(cells: Cells, better: str, worse: str) -> Numbers | None:
    """By the teacher's own head, once there are all draws that were planned: a look before is one chance more."""
    planned = cells.size["draws"].values()
    return _better(cells, better, worse, ("kept_head",), max(planned))


better_than_contiguous, head_over_contiguous = (
    partial(how, better=MAXCUT, worse=CONTIGUOUS) for how in (_better, _by_head)
)
phases_over_shuffled, head_over_shuffled = (partial(how, better=MAXCUT, worse=SHUFFLE) for how in (_better, _by_head))
better_than_shuffled = partial(_better, better=CONTIGUOUS, worse=SHUFFLE)


@of_fits(*(f"maxcut_k{k}" for k in range(1, 6)))
def saturation(cells: Cells) -> Numbers:
    found = {f"k{k}": share_kept(cells, f"maxcut_k{k}") for k in range(1, 6)}
    more, rise = gained(cells, "maxcut_k5", "maxcut_k4"), gained(cells, "maxcut_k4", "maxcut_k2")
    return {**found, "more": more, "rise": rise}


def _rungs(cells: Cells, column: str) -> Numbers:
    return {"gained": {label: gained(cells, one, below, column) for label, (below, one) in RUNGS.items()}}


rungs = of_fits(*LADDER, STAGE_1_ALONE, WHOLE)(partial(_rungs, column="kept"))


def with_all_seeds(cells: Cells, *names: str) -> bool:
    """Whether every rung has all seeds that were planned: a look before is one chance more."""
    return all(len(fits_of(cells, name)) >= cells.size["ladder_seeds"] for name in names)


def head_rungs(cells: Cells) -> Numbers | None:
    return _rungs(cells, "kept_head") if with_all_seeds(cells, *LADDER, STAGE_1_ALONE, WHOLE) else None


def head_forcing(cells: Cells) -> Numbers | None:
    if not with_all_seeds(cells, FORCING, ANNEALED):
        return None
    kept = cells.summary["kept_head"]
    alone, other = (kept[fits_of(cells, name)].mean() for name in (FORCING, ANNEALED))
    excess = gained(cells, ANNEALED, FORCING, "kept_head", share=0.5)
    return {"excess": excess, "alone": alone, "other": other}


def _kept_by_head(cells: Cells, name: str) -> Numbers:
    return {"kept": share_kept(cells, name, "kept_head"), "fits": len(fits_of(cells, name))}


head_kept, muon_kept = (of_fits(name)(partial(_kept_by_head, name=name)) for name in (WHOLE, MUON))


@of_fits(WHOLE)
def middle(cells: Cells) -> Numbers:
    curve, cls = (r2_curve(cells, WHOLE, group).to_numpy() for group in ("all", "cls"))
    third = len(curve) // 3
    return {
        "curve": curve, "cls": cls, "low": int((curve < 0.5).sum()), "weakest": int(curve.argmin()) + 1,
        "third": third + 1, "end": 2 * third, "ends": min(curve[0], curve[-1]),
        "middle": curve[third : 2 * third].max(),
    }  # fmt: skip


def _against(cells: Cells, name: str, another: str) -> Numbers:
    """Fits of a name against those of another, k = 3."""
    one, two = (cells.summary.loc[fits_of(cells, cell)].mean(numeric_only=True) for cell in (name, another))
    columns = ("kept", "kept_knn", "r2")
    return {**{column: gained(cells, name, another, column) for column in columns}, "one": one, "two": two}


def fast_start(cells: Cells) -> Numbers | None:
    """Fits that start from layers of the teacher, against those that start at random; none of fewer than three each."""
    fits = min(len(fits_of(cells, name)) for name in (FAST, WHOLE))
    return _against(cells, FAST, WHOLE) if fits >= FEWEST_DRAWS else None


longer = of_fits(LONGER, WHOLE)(partial(_against, name=LONGER, another=WHOLE))
raised_rate = of_fits(WHOLE, AT_THE_RAISED_RATE)(partial(_against, name=WHOLE, another=AT_THE_RAISED_RATE))


def read_refitted() -> list[Evaluation]:
    """Evaluations of Raptors of the packaged network and of its untrained twins, by one recipe."""
    twins = sorted(RAPTOR.glob(f"{packaged.NAME}_random*_eval"))
    return [Evaluation.read(place) for place in (RAPTOR / f"{packaged.NAME}_eval", *twins)]


def tried() -> Fit:
    """A fit of the offline model that tried its learning rates first."""
    return Fit.read(RAPTOR / f"{OFFLINE}_rates")


class Photographs(NamedTuple):
    """A Raptor of the offline model fitted to crops of photographs, judged on others."""

    fit: Fit
    evaluation: Evaluation

    @property
    def by_layer(self) -> list[dict[Any, Any]]:
        """R² and skill over the best baseline of all tokens after each layer, on its own way and from the teacher's
        state."""
        curve = self.evaluation.fidelity.curve
        rows = pd.DataFrame({"r2": curve("r2"), "one_step": curve("r2", mode="one-step")})
        skill = pd.concat([curve(f"skill_{name}") for name in BASELINES], axis=1).min(axis=1)
        return rows.assign(skill=skill).loc[1:].rename_axis("layer").reset_index().to_dict("records")


def photographs() -> Photographs:
    """Both as they are recorded."""
    return Photographs(Fit.read(RAPTOR / f"{OFFLINE}_photos"), Evaluation.read(RAPTOR / f"{OFFLINE}_photos_eval"))


def untrained_easier(refitted: list[Evaluation]) -> Numbers:
    """By skill over the best baseline, of all tokens at the last layer; R² is said beside it."""
    network, *twins = (
        {"skill": least_skill(one.fidelity.table).value, "r2": float(one.fidelity.curve("r2").iloc[-1])}
        for one in refitted
    )
    ends = pd.DataFrame(twins).agg(["min", "max"])
    return {
        **with_twins(network, twins), "twins": {name: tuple(ends[name]) for name in network}, "of": len(twins),
        "k": len(set(refitted[0].assignment)), "name": packaged.NAME,
    }  # fmt: skip
