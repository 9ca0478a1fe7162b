"""How far from recurrent a ViT is: what shared blocks do, against the rank of each layer's corrections to them.

At rank 0 the layers of a phase do the same; at full rank each does what it does in the teacher. In between it shows at
which rank a phase can be shared. Relaxed sharing (Bae et al., arXiv 2410.20672), method notes section 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan, sqrt
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd
import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from brdyn.arguments import checked
from brdyn.data import ImageSet
from brdyn.errors import UsageError
from brdyn.measures import intervals, measure
from brdyn.measures.sampling import SamplingMetric
from brdyn.models import VisionTransformer
from brdyn.phases import Phases, as_assignment
from brdyn.provenance import Provenance, Stopwatch, skipped_lines
from brdyn.raptor.copied import CopiedBlock, CopyConfig, relaxed_parameters
from brdyn.raptor.fit import fit_raptor
from brdyn.raptor.model import Raptor
from brdyn.raptor.recipe import LAYER, FitSettings
from brdyn.raptor.starts import START_IMAGES, tie
from brdyn.result import Result
from brdyn.runtime import in_float64
from brdyn.store import records, rows_of
from brdyn.training import Session
from brdyn.trajectory import Stream, Trajectory
from brdyn.words import counted as number_of
from brdyn.words import with_interval

COLUMNS = {
    "partition": str, "rank": int, "fitted": bool, "parameters": int, "share": (float, None),
    "skill": (float, None), "low": (float, None), "high": (float, None), "r2": (float, None),
    "agreement": (float, None), "n_images": int,
}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class RankCurve(Result):
    """Fidelity at the last layer against the rank of the corrections, for one or several partitions.

    Attributes
    ----------
    table : DataFrame
        One row for each `partition`, `rank`, and whether the weights were `fitted` or are the teacher's own:
        `parameters` of the blocks and their `share` of the teacher's; `skill`, 1 minus the squared error of the last
        state over that of the embedding (doing nothing), with its 95 % interval over images (`low`, `high`); `r2`; and
        the `agreement` of the teacher's head, where it has one.
    assignments : mapping of str to list of int
        The block of each layer, by partition.
    start : {"layer", "mean"}
        What the shared weights are.
    images_seen : int
        In each fit; 0 where nothing was fitted.
    fit_images : mapping
        Those that do not judge: how many chose the shared weights (`choose`) and were fitted to (`fit`), and which were
        `skipped`. Empty where the same images judge, and in results of earlier versions.

    Examples
    --------
    >>> curve = brdyn.raptor_ranks(model, images, {"halves": [0] * 6 + [1] * 6}, ranks=[0, 192])
    >>> curve.table["rank"].tolist(), round(float(curve.table["skill"].iloc[-1]), 4)
    ([0, 192], 1.0)
    """

    FILE: ClassVar[str] = "raptor_rank.json"
    SHAPE: ClassVar[Mapping[str, Any]] = {
        "table": [COLUMNS],
        "assignments": {str: [int]},
        "start": str,
        "images_seen": int,
        "fit_images?": {"choose?": int, "fit?": int, "skipped?": [{"name": str, "reason": str}]},
    }

    ROW_OF: ClassVar[tuple[str, ...]] = ("fitted", "rank")

    table: pd.DataFrame
    assignments: Mapping[str, list[int]]
    start: str
    images_seen: int = 0
    fit_images: Mapping[str, Any] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """The table, and what it is of."""
        return {
            "table": records(self.table),
            "assignments": dict(self.assignments),
            "start": self.start,
            "images_seen": self.images_seen,
            "fit_images": dict(self.fit_images),
        }

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from a raptor_rank.json."""
        del folder
        table = pd.DataFrame(content["table"], columns=list(COLUMNS))
        table = table.astype(dict.fromkeys(("share", "skill", "low", "high", "r2", "agreement"), float))
        return cls(
            table,
            content["assignments"],
            content["start"],
            content["images_seen"],
            content.get("fit_images", {}),
        )

    def least_rank(self, partition: str, skill: float, *, fitted: bool) -> int | None:
        """The least rank measured at which the skill is reached; None where it is not. Raises UsageError if there is no
        such partition, or none was fitted."""
        rows = rows_of(self.table, partition=partition, fitted=fitted)
        reached = rows[rows["skill"] >= skill]
        return None if reached.empty else int(reached["rank"].min())

    def answer(self) -> str:
        """What is shared without corrections, and the rank at which nine tenths are reached, of the first partition."""
        name, fitted = self.table["partition"].iloc[0], bool(self.table["fitted"].any())
        rows = self.table[(self.table["partition"] == name) & (self.table["fitted"] == fitted)]
        first = rows.loc[rows["rank"].idxmin()]
        rank = self.least_rank(name, GOOD, fitted=fitted)
        at = "none of these ranks is enough"
        if rank is not None:
            share = float(rows.loc[rows["rank"] == rank, "share"].iloc[0])
            saved = "" if share < 1 else " (none saved)"
            at = f"rank {rank}, with {share:.0%} of the parameters of the teacher's blocks{saved}, is enough"
        blocks = f"{name}: with corrections of rank {first['rank']:.0f} the shared blocks have"
        if isnan(first["skill"]):
            return f"{blocks} no skill that is known: doing nothing makes no error"
        skill = with_interval(first["skill"], first["low"], first["high"], ".3f")
        return f"{blocks} skill {skill} over doing nothing; {at} for {GOOD}"

    def overview(self) -> list[dict[str, Any]]:
        """Every partition and rank."""
        names = ["partition", "fitted", "rank", "share", "skill", "low", "high", "r2"]
        return self.table[names].to_dict(orient="records")

    def remarks(self) -> list[str]:
        """What a share is of, and which images chose and which judge."""
        lines = ["share: parameters of the blocks and their corrections over those of the teacher's blocks"]
        if not self.fit_images:
            return lines
        parts = {"to choose the shared weights by": "choose", "to fit to": "fit"}
        said = [
            f"{number_of(self.fit_images[name], 'image')} {words}"
            for words, name in parts.items()
            if self.fit_images[name]
        ]
        judging = number_of(int(self.table["n_images"].iloc[0]), "other image")
        lines.append(", ".join([*said, f"{judging} to judge by"]))
        return lines + skipped_lines(self.fit_images["skipped"], {"count": 0})

    def brief(self) -> str:
        """Partitions and ranks."""
        return f"{len(self.assignments)} partitions at ranks {sorted(set(self.table['rank']))}"


GOOD = 0.9  # of the way from doing nothing to the teacher


class EndMetric(SamplingMetric):
    """What a Raptor makes of the last state, by the directions of its corrections that count.

    Parameters
    ----------
    raptor : Raptor
        Of copies of its teacher's blocks.
    ranks : sequence of int
    """

    nothing: list[Tensor]
    error: list[Tensor]
    agreeing: list[Tensor]
    squares: Tensor
    mean_token: Tensor

    def __init__(self, raptor: Raptor, ranks: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._held, self.ranks = (raptor,), tuple(ranks)
        self.add_rows("nothing", dtype=torch.float64)
        for name in ("error", "agreeing"):
            self.add_rows(name, len(self.ranks), dtype=torch.float64)
        self.add_state("squares", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        zeros = torch.zeros(raptor.info.width, dtype=torch.float64)
        self.add_state("mean_token", zeros, dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, trajectory: Trajectory) -> None:
        """Add the images of the teacher's trajectory."""
        (raptor,), truth = self._held, trajectory.states[-1].float()
        device = self.squares.device
        self.nothing.append(_squares(trajectory.states[0].float() - truth).to(device))
        exact = in_float64(truth)
        self.squares += exact.square().sum().to(device)
        self.mean_token += exact.sum((0, 1)).to(device)
        theirs = raptor.teacher.logits(raptor.norm(trajectory.states[-1]))
        errors, agreeing = [], []
        for rank in self.ranks:
            for block in raptor.shared:
                assert isinstance(block, CopiedBlock)
                block.most = rank
            state = trajectory.states[0]
            for application in raptor.blocks:
                state = application(state)
            errors.append(_squares(state.float() - truth))
            if theirs is not None:
                own = raptor.logits(raptor.norm(state))
                assert own is not None
                agreeing.append(in_float64(own.argmax(-1) == theirs.argmax(-1)))
        self.error.append(torch.stack(errors, 1).to(device))
        self.agreeing.append(
            torch.stack(agreeing, 1).to(device)
            if agreeing
            else torch.full((len(truth), len(self.ranks)), nan, dtype=torch.float64, device=device)
        )

    def compute(self) -> pd.DataFrame:
        """A row for each rank."""
        nothing, error = dim_zero_cat(self.nothing), dim_zero_cat(self.error)
        agreeing, images = dim_zero_cat(self.agreeing), len(nothing)
        (raptor,) = self._held
        spread = float(self.squares - self.mean_token.square().sum() / (images * raptor.tokens.count))
        rows = []
        for number, rank in enumerate(self.ranks):
            skill, half = skill_of(error[:, number], nothing)
            rows.append(
                {
                    "rank": rank,
                    "skill": skill,
                    "low": skill - half,
                    "high": skill + half,
                    "r2": 1 - float(error[:, number].sum()) / spread if spread > 0 else nan,
                    "agreement": float(agreeing[:, number].mean()),
                    "n_images": images,
                }
            )
        return pd.DataFrame(rows)


def _squares(difference: Tensor) -> Tensor:
    return in_float64(difference.square().sum((1, 2)))


def skill_of(error: Tensor, nothing: Tensor) -> tuple[float, float]:
    """1 minus the ratio of two sums over images, and half its 95 % interval (the ratio linearised).

    >>> from brdyn.raptor.ranks import skill_of
    >>> skill_of(torch.tensor([1.0, 1.0]), torch.tensor([4.0, 4.0]))
    (0.75, 0.0)
    """
    images, total = len(nothing), float(nothing.sum())
    if not total:
        return nan, nan
    ratio = float(error.sum()) / total
    if images < 2:
        return 1 - ratio, nan
    rest = error - ratio * nothing
    variance = float(rest.square().sum()) / (images * (images - 1))
    return 1 - ratio, intervals.t_quantile(images) * sqrt(variance) / (total / images)


@checked
def raptor_ranks(
    teacher: VisionTransformer,
    images: ImageSet,
    partitions: Mapping[str, Phases | Sequence[int]],
    ranks: Sequence[int],
    *,
    start: str = LAYER,
    settings: FitSettings | None = None,
    fit_images: ImageSet | None = None,
    stream: Stream | None = None,
) -> RankCurve:
    """Share the teacher's own blocks among layers, with corrections of each rank, and see what is left of it.

    Parameters
    ----------
    teacher : VisionTransformer
    images : ImageSet
        To judge by.
    partitions : mapping of str to Phases or sequence of int
        By name, which layers share a block, as of :func:`brdyn.phases.as_assignment`.
    ranks : sequence of int
        From 0 to the width, at which nothing is shared any more.
    start : {"layer", "mean"}
        The shared weights: those of the layer that does best at all, or the mean.
    settings : FitSettings, optional
        Fit each one by this recipe, too; its start and rank are set here.
    fit_images : ImageSet, optional
        To choose layers by and to fit to; by default those to judge by, which then is optimistic.
    stream : Stream, optional
        How to go through the images.

    Returns
    -------
    RankCurve

    Raises
    ------
    UsageError
        If a rank is negative or larger than the width, there is no such start, or the layers that are to share are
        built differently.

    Examples
    --------
    >>> curve = brdyn.raptor_ranks(model, images, {"one block": [0] * 12}, ranks=[0, 8])
    >>> curve.table[["rank", "n_images"]].values.tolist()
    [[0, 8], [8, 8]]
    """
    watch, stream = Stopwatch(), stream or Stream()
    wanted = sorted(dict.fromkeys(ranks))
    if not wanted or not partitions:
        raise UsageError("there is nothing to measure without ranks and partitions")
    info, learning = teacher.info, fit_images or images
    seen = 0 if settings is None else _images_seen(settings, len(learning))
    choosing = learning.some(START_IMAGES, images.seed)
    configs = {rank: CopyConfig(width=info.width, heads=info.heads, rank=rank) for rank in wanted}
    parts = []
    # One pass each: a partition holds the teacher's blocks over again.
    assignments = {name: as_assignment(given, teacher.depth, repr(info.name)) for name, given in partitions.items()}
    for name, assignment in assignments.items():
        tied = Raptor(teacher, assignment, configs[wanted[-1]]).settled()
        tie(tied, start, choosing)
        found = [(False, _measured(tied, images, wanted, stream))]
        del tied
        for rank in wanted if settings is not None else ():
            assert settings is not None
            asked = replace(settings, start=start, relax=rank)
            raptor = fit_raptor(
                teacher,
                learning,
                assignment,
                asked,
                session=Session(progress=stream.progress),
                workers=stream.workers,
            ).raptor
            found.append((True, _measured(raptor, images, [rank], stream)))
        for fitted, table in found:
            sizes = [relaxed_parameters(teacher, assignment, int(rank)) for rank in table["rank"]]
            parts.append(table.assign(partition=name, fitted=fitted, parameters=sizes))
    table = pd.concat(parts, ignore_index=True)
    table["share"] = table["parameters"] / teacher.block_parameters
    origin = Provenance.of(teacher, images, watch, stream.processes, seed=images.seed)
    others: dict[str, Any] = {}
    if fit_images is not None:
        others = {
            "choose": len(choosing) if start == LAYER else 0,
            "fit": 0 if settings is None else len(learning),
            "skipped": [one._asdict() for one in sorted({*choosing.report.skipped, *learning.report.skipped})],
        }
    return RankCurve(table[list(COLUMNS)], assignments, start, seen, others, provenance=origin)


def _measured(raptor: Raptor, images: ImageSet, ranks: Sequence[int], stream: Stream) -> pd.DataFrame:
    metric = EndMetric(raptor, ranks)
    measure(raptor.teacher, images, {"ends": metric}, stream=stream)
    return metric.compute()


def _images_seen(settings: FitSettings, images: int) -> int:
    fitted = settings.fitted_to(images - settings.held_out(images))
    return (settings.stage1_steps + settings.stage2_steps) * fitted.training(1).batch_size
