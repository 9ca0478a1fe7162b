"""What takes a short fit of a Raptor further? Changes of one recipe, one at a time, as many images for each.

The base is the fast recipe, at eight times the usual rates for the packaged network and at a quarter of them for short
fits of the offline model, which first trials of one seed had shown to go further.

A cell is one change and one seed: a fit of k = 3 by max-cut on training images, measured on others of these, which no
fit sees, so that what is chosen here can be told again on test images. Seconds are those that the processor worked,
with choosing the layers to start from. Sizes: `cpu`, under a minute a fit of the packaged network; `offline`, three of
the offline model, and fewer changes; `gpu`, of that too; `tiny`, a dry run.

    python -m analyses.raptor_search --train cifar10/train.parquet
    python -m analyses.raptor_search --size offline --model imgfocus_vits14 --train cifar10/train.parquet
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from analyses.aligned import aligned
from analyses.raptor_cells import came_to
from analyses.raptor_on_vits import load_teacher
from analyses.recording import OFFLINE, RESULTS, SMALL_VIT, Choice
from analyses.statistics import ALPHA, Side, contrast, holm
from analyses.study import Study, read_all, run_study, sizes_of, study_parser
from brdyn import Stream, fit_raptor, layer_similarity, load_images, segment
from brdyn.raptor import FitSettings
from brdyn.raptor.fidelity import fidelity
from brdyn.raptor.partitions import MAXCUT, assign
from brdyn.raptor.recipe import FAST, PUBLISHED_LR, learning_rate
from brdyn.raptor.starts import START_IMAGES, nearest_layers

RECORDED = RESULTS / "raptor_search"
K = 3
ALIGNED = "aligned"
BASE, SEED = "base", "_seed"
SIZES = sizes_of("raptor_search")
MEASURES = ("r2", "r2_one_step", "kept")
CHANGES: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())


def candidates(size: SimpleNamespace) -> dict[str, dict[str, Any]]:
    """What each changes of the base, as in `raptor_search.yaml`; of rates, one of each."""
    every: dict[str, dict[str, Any]] = {}
    for name, row in CHANGES.items():
        changes = {key: value for key, value in row.items() if key not in ("said", "each")}
        if "each" in row:
            rates = getattr(size, row["each"])
            every |= {f"{name}-{times}": {**changes, "rates": times} for times in rates}
        elif name not in size.leave_out:
            every[name] = changes
    return every


def words(name: str, size: SimpleNamespace) -> str:
    """A change in words; of rates, how many times the usual ones."""
    kind, _, own = name.rpartition("-")
    row, times = (CHANGES[name], size.rates) if name in CHANGES else (CHANGES[kind], float(own))
    return row["said"].format(rates="the usual rates" if times == 1 else f"{times:g} times the usual rates")


def candidate_of(cell: str) -> str:
    return cell.rpartition(SEED)[0]


class SearchStudy(Study[str]):
    """A teacher, the images, and the cells."""

    def __init__(self, choice: Choice) -> None:
        super().__init__(choice)
        self.size = size = SIZES[choice.size]
        self.folder = choice.out / choice.model.replace("/", "--") / choice.size
        self.teacher = load_teacher(choice, size.image_size, choice.device)
        images = load_images(choice.train, self.teacher, n=size.images + size.kept_out)
        learn, kept = images.split(size.kept_out, 0)
        assert kept is not None
        self.learn, self.kept = learn.decoded(), kept.decoded()
        self.phases = segment(layer_similarity(self.teacher, self.kept, stream=Stream(workers=0)), K)

    @classmethod
    def planned(cls, size: str) -> list[str]:
        return [f"{name}{SEED}{seed}" for seed in range(SIZES[size].seeds) for name in candidates(SIZES[size])]

    def changes(self, cell: str) -> dict[str, Any]:
        return dict(candidates(self.size)[candidate_of(cell)])

    def settings(self, cell: str) -> FitSettings:
        changes = self.changes(cell)
        changes.pop(ALIGNED, None)
        batch = int(self.size.batch_size * changes.pop("batch", 1))
        steps = self.size.images // batch  # of both stages, for so many images in all
        first = round(changes.pop("stage1", 0.5) * steps)
        rates = changes.pop("rates", self.size.rates)
        shared = {
            "recipe": FAST, "validation_images": 0, "seed": int(cell.rpartition(SEED)[2]), "batch_size": batch,
            "stage1_steps": first, "stage2_steps": steps - first, "lr": rates * learning_rate(max(first, 1)),
            "stage2_lr": rates * changes.pop("stage2", 1) * PUBLISHED_LR,
        }  # fmt: skip
        return FitSettings(**{**shared, **changes})

    def asked(self, cell: str) -> Mapping[str, Any]:
        return {
            "teacher": self.teacher.info.digest, "learn": self.learn.identity(), "kept_out": self.kept.identity(),
            "assignment": assign(MAXCUT, self.phases.boundaries, self.teacher.depth),
            "settings": self.settings(cell).to_dict(), **({ALIGNED: True} if ALIGNED in self.changes(cell) else {}),
        }  # fmt: skip

    def said(self, content: Mapping[str, Any]) -> str:
        return f"{content['images']} images, {content['cpu_seconds']:.0f} s"

    def run(self, cell: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        started, teacher, assignment = time.process_time(), self.teacher, asked["assignment"]
        if asked.get(ALIGNED):
            few = self.learn.some(START_IMAGES, asked["settings"]["seed"])
            teacher = aligned(teacher, assignment, nearest_layers(teacher, tuple(assignment), few))
        fit = fit_raptor(teacher, self.learn, assignment, self.settings(cell), workers=0)
        seconds = time.process_time() - started
        found = fidelity(fit.raptor, self.kept, Stream(workers=0))
        return {
            "candidate": candidate_of(cell), "images": fit.images_seen, "cpu_seconds": seconds,
            "parameters": fit.raptor.info.parameters / self.teacher.info.parameters, **came_to(found),
        }  # fmt: skip


class Found(NamedTuple):
    """A recorded search.

    `fits` has a row a fit: `candidate`, `seed`, and what it came to; `table` a row a candidate, in their order: means
    over seeds, `cost`, the seconds over those of the base, and for each measure what it gains (`r2_gain`: Estimate)
    with its p-value, by Holm over the candidates. `judged` are the two measures that have to agree: where the teacher
    has no head, R² of the last layer and the mean one-step R². `failed`: why a fit of a candidate failed at some seed,
    which is then in no table.
    """

    fits: pd.DataFrame
    table: pd.DataFrame
    size: SimpleNamespace
    provenance: dict[str, Any]
    judged: tuple[str, str]
    model: str
    failed: dict[str, str]


def read_search(name: str = "cpu", model: str = SMALL_VIT, folder: Any = RECORDED) -> Found | None:
    """A recorded search, of the seeds that every candidate has; None where there is no such seed."""
    found = read_all(folder / model / name, SearchStudy.planned(name), "asked")
    failed = {candidate_of(cell): why for cell, why in found.failed.items()}
    rows = [{**one, "seed": one["asked"]["settings"]["seed"]} for one in found.done.values()]
    rows = [row for row in rows if row["candidate"] not in failed]
    size, every = SIZES[name], [one for one in candidates(SIZES[name]) if one not in failed]
    if not rows or BASE in failed:
        return None
    columns = ["candidate", "seed", "images", "cpu_seconds", "parameters", *MEASURES, "skill"]
    fits = pd.DataFrame(rows)[columns]
    whole = fits.groupby("seed").filter(lambda one: len(one) == len(every))
    if whole.empty:
        return None
    judged = ("r2", "r2_one_step" if whole["kept"].isna().any() else "kept")
    return Found(whole, _table(whole, every), size, found.provenance, judged, model, failed)


def recorded() -> list[Found]:
    """The searches that there are, of either teacher."""
    found = (read_search(*one) for one in (("cpu", SMALL_VIT), ("offline", OFFLINE), ("gpu", OFFLINE)))
    return [search for search in found if search is not None]


def _table(fits: pd.DataFrame, every: list[str]) -> pd.DataFrame:
    """Gains are paired by seed: fits of one see the same images in the same order.

    Their error is that of a difference in a layout of changes and seeds, additive but for the luck of a fit: as all
    gains are over the same base, their own variances would not be independent. One variance of that luck is assumed
    for all changes, since three seeds of each are too few for one of its own, though those recorded differ: gains of
    what is kept have standard deviations from .0007 to .017.
    """
    by = fits.pivot(index="seed", columns="candidate")
    others = [name for name in every if name != BASE]
    fits = fits.astype({"kept": float})
    table = fits.groupby("candidate")[["parameters", *MEASURES, "skill"]].mean().loc[every]
    table["cost"] = by["cpu_seconds"].div(by["cpu_seconds"][BASE], axis=0).median()
    for measure in (one for one in MEASURES if fits[one].notna().all()):
        reached = by[measure][every].astype(float)
        luck = reached.sub(reached.mean(axis=1), axis=0) - reached.mean() + reached.to_numpy().mean()
        df = (len(reached) - 1) * (len(every) - 1)
        variance = float((luck**2).to_numpy().sum()) / df, df
        base = Side(-1, reached[BASE], luck=variance)
        found = {name: contrast(Side(1, reached[name], luck=variance), base) for name in others}
        p = holm([min(one.p_above(0), (-one).p_above(0)) for one in found.values()])
        table[f"{measure}_gain"] = pd.Series(found)
        table[f"{measure}_p"] = pd.Series(p, others)
    return table


def verdict(row: pd.Series, judged: tuple[str, str] = ("r2", "kept")) -> str:
    """Of a change: better or worse where both measures that it is judged by are, clearly; else open."""
    clear = max(row[f"{measure}_p"] for measure in judged) <= ALPHA
    signs = {np.sign(row[f"{measure}_gain"].value) for measure in judged}
    return {(True, 1.0): "better", (True, -1.0): "worse"}.get((clear and len(signs) == 1, max(signs)), "open")


OPTIONS = study_parser(__doc__, RECORDED, labelled=False, sizes=SIZES)
OPTIONS.add_argument("--train", required=True, help="labelled images; some are kept out")
OPTIONS.add_argument("--model", default=SMALL_VIT)
OPTIONS.add_argument("--weights", help="as in `brdyn phases`")
STUDY = SearchStudy
main = run_study(STUDY, OPTIONS, __name__)
