"""How faithful a Raptor is: error against the teacher at every layer, for every token group. Method notes, section 4.

Autoregressive, the Raptor starts from the teacher's embedding and goes its own way. One-step, every application of a
block gets the teacher's state. The epsilon of the block-recurrent hypothesis is `E_x |a_l - a~_l|_F`. Skill is fidelity
over what the same spans amount to without a block: :mod:`brdyn.raptor.baselines`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric

from brdyn.compared import Compared
from brdyn.data import ImageSet
from brdyn.errors import DivergedError
from brdyn.measures.engine import measure
from brdyn.measures.moments import r_squared, with_sum
from brdyn.measures.per_image import PerImageMetric, Statistic
from brdyn.raptor.baselines import BASELINES, FOLDS, Fitted, SpanBaselines, fold_of, jackknife, skill
from brdyn.raptor.model import Raptor
from brdyn.store import rows_of
from brdyn.trajectory import Stream, Trajectory, check_normed

MODES = ("autoregressive", "one-step")
UNITS = {
    "relative_error": "relative error",
    "cosine": "cosine to the teacher's token",
    "epsilon": "epsilon (Frobenius norm of the error)",
}
POOLED = {"r2": "R²", **{f"skill_{name}": f"skill over {words}" for name, words in BASELINES.items()}}
TINY = 1e-12
ENDS = ("mean", "low", "high")
SUMS = ("images", "residual", "squares", "mean_token")
HEAD = ("agreeing", "right", "teacher_right", "labelled", "beyond")


@dataclass(frozen=True, eq=False, repr=False)
class Fidelity(Compared):
    """How near a Raptor is to its teacher.

    Attributes
    ----------
    table : DataFrame
        One row per `mode` (`autoregressive`, `one-step`), `statistic`, token `group` (and `all`) and `layer` 1..L:
        `mean`, the 95 % interval `low` to `high`, `sd`, `n_images`. Means over images: `relative_error`, the Frobenius
        norm of an image's error over that of its state; `cosine`, the mean over tokens; `epsilon`, the norm of an
        image's error. Over all images and tokens together, without `sd`, the interval by a jackknife over ten parts
        of the images: `r2`, 1 minus the squared error over the squared distance of the teacher's tokens to their mean
        token, NaN where they do not vary; `skill_identity`, `skill_mean_update` and `skill_affine`, 1 minus the
        squared error over that of a baseline of the same span, as it was fitted: 1 is perfect, 0 no better than it.
    agreement, accuracy, teacher_accuracy : float or None
        Where the teacher has a classification head: share of images with the teacher's prediction; and share
        predicted right by either, of those with a label, where all labels are of the head's classes.
    baselines : Fitted or None
        How those of the skill were fitted; None in results of earlier versions, which have none.
    """

    table: pd.DataFrame
    agreement: float | None = None
    accuracy: float | None = None
    teacher_accuracy: float | None = None
    baselines: Fitted | None = None

    @classmethod
    def from_records(
        cls,
        rows: Sequence[Mapping[str, Any]],
        head: Mapping[str, float | None],
        baselines: Fitted | None,
    ) -> Fidelity:
        """Back from the JSON of :class:`brdyn.raptor.evaluation.Evaluation`."""
        table = pd.DataFrame(rows).astype(dict.fromkeys(("mean", "low", "high", "sd"), float))
        read = {name: head[name] for name in ("agreement", "accuracy", "teacher_accuracy")}
        return cls(table, **read, baselines=baselines)

    def curve(self, statistic: str, group: str = "all", mode: str = "autoregressive") -> pd.Series:
        """Values by layer.

        Raises
        ------
        UsageError
            If there is no such curve.
        """
        rows = rows_of(self.table, mode=mode, statistic=statistic, group=group)
        return rows.set_index("layer")["mean"]

    def head(self) -> dict[str, float | None]:
        """What the teacher's classification head reads."""
        return {
            "agreement": self.agreement,
            "accuracy": self.accuracy,
            "teacher_accuracy": self.teacher_accuracy,
        }


def student_states(raptor: Raptor, trajectory: Trajectory) -> tuple[Tensor, ...]:
    """The Raptor's own states a~_0 .. a~_L from the teacher's embedding; computed once for a trajectory.

    Raises
    ------
    DivergedError
        If one is not finite: the layer is named.
    """

    def run() -> tuple[Tensor, ...]:
        states = [trajectory.states[0]]
        with torch.no_grad():
            for block in raptor.blocks:
                states.append(block(states[-1]))
        finite = torch.stack([state.float().sum() for state in states]).isfinite().tolist()
        if not all(finite):
            raise DivergedError(
                f"the Raptor runs away: its own state at layer {finite.index(False)} is not finite; fit it for longer, "
                "or with a smaller `lr`"
            )
        return tuple(states)

    return trajectory.derive("student", run)


class FidelityMetric(PerImageMetric):
    """Compares the Raptor with the trajectories of its teacher, in both modes.

    Parameters
    ----------
    raptor : Raptor
    seed : int
        Of the parts of the images, as that of :class:`brdyn.raptor.baselines.SpanBaselines`.
    with_labels : bool
        Take labels as classes of the teacher's head.
    """

    images: Tensor

    residual: Tensor
    squares: Tensor
    mean_token: Tensor
    agreeing: Tensor
    right: Tensor
    teacher_right: Tensor
    labelled: Tensor
    beyond: Tensor

    def __init__(self, raptor: Raptor, seed: int = 0, *, with_labels: bool = True, **kwargs: Any) -> None:
        super().__init__(raptor.tokens, raptor.depth, **kwargs)
        self._held = (raptor,)  # not a part of this metric's state
        self.with_labels, self.seed = with_labels, seed
        groups, width = len(self.layout.groups), raptor.info.width
        shapes = {
            "images": (FOLDS,),
            "residual": (FOLDS, len(MODES), groups, self.depth),
            "squares": (FOLDS, groups, self.depth),
            "mean_token": (FOLDS, groups, self.depth, width),
        }
        for name in SUMS:
            self.add_state(name, torch.zeros(shapes[name], dtype=torch.float64), dist_reduce_fx="sum")
        for name in HEAD:
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def groups(self) -> tuple[str, ...]:
        """Each group, and all tokens together."""
        return (*self.layout.groups, "all")

    def statistics(self) -> tuple[Statistic, ...]:
        """Three curves in each mode."""
        return tuple(Statistic(f"{mode}/{name}", unit, 1, self.depth) for mode in MODES for name, unit in UNITS.items())

    def per_image(self, trajectory: Trajectory) -> Mapping[tuple[str, str], Tensor]:
        """Errors of every image, and on the way the sums for R^2, by fold."""
        rows: dict[tuple[str, str], list[Tensor]] = {}
        (raptor,) = self._held
        own = student_states(raptor, trajectory)
        parts = list(self.layout.groups.values())
        sizes = torch.tensor(list(self.layout.sizes().values()), dtype=torch.float64, device=self.count.device)
        folds = torch.from_numpy(fold_of(trajectory.positions, self.seed)).to(self.count.device)
        self.images += folds.bincount(minlength=FOLDS)
        for layer in range(self.depth):
            truth = trajectory.states[layer + 1].float()
            squares = self._by_group(truth.square().sum(-1), parts)
            self.squares[:, :, layer].index_add_(0, folds, squares.T)
            means = torch.stack([truth[:, part].sum(1) for part in parts], 1)
            self.mean_token[:, :, layer].index_add_(0, folds, means.to(self.count.device).double())
            for number, mode in enumerate(MODES):
                with torch.no_grad():
                    guess = own[layer + 1] if number == 0 else raptor.blocks[layer](trajectory.states[layer])
                error = self._by_group((guess.float() - truth).square().sum(-1), parts)
                self.residual[:, number, :, layer].index_add_(0, folds, error.T)
                cosine = self._by_group(functional.cosine_similarity(guess.float(), truth, dim=-1), parts)
                for name, values in {
                    "relative_error": (with_sum(error) / with_sum(squares).clamp_min(TINY)).sqrt(),
                    "cosine": with_sum(cosine) / torch.cat([sizes, sizes.sum(0, keepdim=True)])[:, None],
                    "epsilon": with_sum(error).sqrt(),
                }.items():
                    for group, value in zip(self.groups(), values, strict=True):
                        rows.setdefault((f"{mode}/{name}", group), []).append(value)
        self._heads(raptor, trajectory, own[-1])
        return {key: torch.stack(values) for key, values in rows.items()}

    def _by_group(self, values: Tensor, parts: list[slice]) -> Tensor:
        """Sums `(G, B)` in float64 of values of tokens `(B, N)`."""
        return torch.stack([values[:, part].sum(1) for part in parts]).to(self.count.device).double()

    def _heads(self, raptor: Raptor, trajectory: Trajectory, last: Tensor) -> None:
        """Count what the teacher's head says of both."""
        if not raptor.classes:
            return
        with torch.no_grad():
            normed = [raptor.norm(state) for state in (trajectory.states[-1], last)]
            check_normed(raptor.teacher, normed[0])
            theirs, ours = map(raptor.logits, normed)
        assert theirs is not None
        assert ours is not None
        theirs, ours = theirs.argmax(1).cpu(), ours.argmax(1).cpu()
        self.agreeing += (theirs == ours).sum()
        if self.with_labels:
            rows, labels = trajectory.labelled.cpu(), trajectory.labels.cpu()
            self.labelled += rows.sum()
            self.beyond += (labels >= raptor.classes).sum()
            self.right += (rows & (ours == labels)).sum()
            self.teacher_right += (rows & (theirs == labels)).sum()

    def r_squared(self, images: Tensor, residual: Tensor, squares: Tensor, sums: Tensor) -> Tensor:
        """`(..., modes, groups and all, L)`, from sums over as many images."""
        sizes = torch.tensor(list(self.layout.sizes().values()), device=self.count.device)
        tokens = with_sum(images[..., None, None, None] * sizes[:, None], -2)
        truth = (with_sum(squares, -2).unsqueeze(-3), with_sum(sums, -3).unsqueeze(-4))
        return r_squared(with_sum(residual, -2), *truth, tokens)

    def compute(self) -> dict[str, Tensor]:
        """The curves of the base class, sums by fold, and what the head says."""
        head = torch.stack([getattr(self, name) for name in ("count", *HEAD)])
        return {**super().compute(), **{name: getattr(self, name) for name in SUMS}, "head": head}

    def result(self, baselines: SpanBaselines | None = None) -> Fidelity:
        """Everything in one table, with skill over baselines that saw the same images."""
        found = self.compute()  # over all processes, as the states themselves are not
        pooled = {"r2": _with_interval(self.r_squared, *(found[name] for name in SUMS), images=found["images"])}
        if baselines is not None:
            assert baselines.seed == self.seed  # the same folds
            theirs = baselines.compute()
            sums = (found["residual"], theirs["errors"], theirs["squares"])
            skills = _with_interval(skill, *sums, images=found["images"])
            for place, name in enumerate(BASELINES):
                value, low, high = (one[:, place] for one in skills)
                pooled[f"skill_{name}"] = (value, low, high)
            if not baselines.in_blocks:
                of_maps, unknown = pooled["skill_affine"][0], torch.full_like(pooled["r2"][0], torch.nan)
                pooled["skill_affine"] = (of_maps, unknown, unknown)
        images, agreeing, right, teacher_right, labelled, beyond = found["head"].tolist()
        if beyond:  # of other classes than the head's
            labelled = 0
        table = self.table()
        mode = table["statistic"].str.split("/").str
        table = table.assign(mode=mode[0], statistic=mode[1])
        rows = [
            {
                "mode": name, "statistic": statistic, "unit": POOLED[statistic], "group": group, "layer": layer + 1,
                **{name: float(one[number, place, layer]) for name, one in zip(ENDS, values, strict=True)},
                "sd": np.nan, "n_images": int(images),
            }
            for statistic, values in pooled.items()
            for number, name in enumerate(MODES)
            for place, group in enumerate(self.groups())
            for layer in range(self.depth)
        ]  # fmt: skip
        whole = pd.concat([pd.DataFrame(rows), table[list(rows[0])]], ignore_index=True)
        return Fidelity(
            whole,
            agreement=agreeing / images if self._held[0].classes else None,
            accuracy=right / labelled if labelled else None,
            teacher_accuracy=teacher_right / labelled if labelled else None,
            baselines=None if baselines is None else baselines.fitted(theirs["images"]),
        )


def _with_interval(statistic: Callable[..., Tensor], *sums: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A statistic of sums over images, given by fold, and its interval."""
    there = images > 0
    value, without = (
        statistic(*made) for made in ([one.sum(0) for one in sums], [one.sum(0) - one[there] for one in sums])
    )
    return (value, *jackknife(value, without))


def fidelity(
    raptor: Raptor,
    images: ImageSet,
    stream: Stream | None = None,
    others: Mapping[str, Metric] | None = None,
) -> Fidelity:
    """Compare a Raptor with its teacher at every layer, in one pass over the images.

    Parameters
    ----------
    raptor : Raptor
    images : ImageSet
    stream : Stream, optional
        How to go through the images.
    others : mapping of str to Metric, optional
        To be fed with the same trajectories.

    Returns
    -------
    Fidelity
    """
    metric = FidelityMetric(raptor, images.seed, with_labels=raptor.takes_labels(images.label_names))
    baselines = SpanBaselines(raptor, images.seed)
    measure(raptor.teacher, images, {"fidelity": metric, "baselines": baselines, **(others or {})}, stream=stream)
    return metric.result(baselines)
