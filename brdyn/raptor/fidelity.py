"""How faithful a Raptor is: error against the teacher at every layer, for every token group. Method notes, section 4.

Autoregressive, the Raptor starts from the teacher's embedding and goes its own way. One-step, every application of a
block gets the teacher's state. The epsilon of the block-recurrent hypothesis is `E_x |a_l - a~_l|_F`. Skill is fidelity
over what the same spans amount to without a block: :mod:`brdyn.raptor.baselines`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from brdyn.checked_json import made
from brdyn.compared import Compared
from brdyn.data import ImageSet
from brdyn.errors import BrdynError, UsageError
from brdyn.measures.engine import measure
from brdyn.measures.per_image import PerImageMetric, Statistic
from brdyn.raptor.baselines import BASELINES, Fitted, SpanBaselines, skill
from brdyn.raptor.model import Raptor
from brdyn.trajectory import Stream, Trajectory, check_normed

MODES = ("autoregressive", "one-step")
UNITS = {
    "relative_error": "relative error",
    "cosine": "cosine to the teacher's token",
    "epsilon": "epsilon (Frobenius norm of the error)",
}
POOLED = {"r2": "R²", **{f"skill_{name}": f"skill over {words}" for name, words in BASELINES.items()}}
TINY = 1e-12
SUMS = ("residual", "squares", "mean_token")
HEAD = ("agreeing", "right", "teacher_right", "labelled", "beyond")


@dataclass(frozen=True, eq=False, repr=False)
class Fidelity(Compared):
    """How near a Raptor is to its teacher.

    Attributes
    ----------
    table : DataFrame
        One row per `mode` (`autoregressive`, `one-step`), `statistic`, token `group` (and `all`) and `layer` 1..L:
        `mean`, the 95 % interval `low` to `high` of a mean over images, `sd`, `n_images`. Statistics without an
        interval, over all images and tokens: `r2`, 1 minus the squared error over the squared distance of the teacher's
        tokens to their mean token; `skill_identity`, `skill_mean_update` and `skill_affine`, 1 minus the squared error
        over that of a baseline of the same span: 1 is perfect, 0 no better than it. Others: `relative_error`, the
        Frobenius norm of an image's error over that of its state; `cosine`, the mean over tokens; `epsilon`, the
        Frobenius norm of an image's error.
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
        baselines: Mapping[str, Any] | None,
    ) -> Fidelity:
        """Back from the JSON of :class:`brdyn.raptor.evaluation.Evaluation`."""
        table = pd.DataFrame(rows).astype(dict.fromkeys(("mean", "low", "high", "sd"), float))
        read = {name: head[name] for name in ("agreement", "accuracy", "teacher_accuracy")}
        return cls(table, **read, baselines=made(Fitted, baselines) if baselines is not None else None)

    def curve(self, statistic: str, group: str = "all", mode: str = "autoregressive") -> pd.Series:
        """Values by layer.

        Raises
        ------
        UsageError
            If there is no such curve.
        """
        table = self.table
        rows = table[(table["mode"] == mode) & (table["statistic"] == statistic) & (table["group"] == group)]
        if rows.empty:
            raise UsageError(f"there is no {mode} {statistic!r} of {group!r}")
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
    BrdynError
        If one is not finite: the layer is named.
    """

    def run() -> tuple[Tensor, ...]:
        states = [trajectory.states[0]]
        with torch.no_grad():
            for block in raptor.blocks:
                states.append(block(states[-1]))
        finite = torch.stack([state.float().sum() for state in states]).isfinite().tolist()
        if not all(finite):
            raise BrdynError(
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
    with_labels : bool
        Take labels as classes of the teacher's head.
    """

    residual: Tensor
    squares: Tensor
    mean_token: Tensor
    agreeing: Tensor
    right: Tensor
    teacher_right: Tensor
    labelled: Tensor
    beyond: Tensor

    def __init__(self, raptor: Raptor, *, with_labels: bool = True, **kwargs: Any) -> None:
        self.modes = MODES  # before the base class asks for statistics
        super().__init__(raptor.tokens, raptor.depth, **kwargs)
        self._held = (raptor,)  # not a part of this metric's state
        self.with_labels = with_labels
        groups, width = len(self.layout.groups), raptor.info.width
        shapes = {
            "residual": (len(MODES), groups, self.depth),
            "squares": (groups, self.depth),
            "mean_token": (groups, self.depth, width),
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
        return tuple(
            Statistic(f"{mode}/{name}", unit, 1, self.depth) for mode in MODES for name, unit in UNITS.items()
        )

    def per_image(self, trajectory: Trajectory) -> Mapping[tuple[str, str], Tensor]:
        """Errors of every image, and on the way the sums for R^2."""
        rows: dict[tuple[str, str], list[Tensor]] = {}
        (raptor,) = self._held
        own = student_states(raptor, trajectory)
        parts = list(self.layout.groups.values())
        sizes = torch.tensor(
            list(self.layout.sizes().values()), dtype=torch.float64, device=self.count.device
        )
        for layer in range(self.depth):
            truth = trajectory.states[layer + 1].float()
            squares = self._by_group(truth.square().sum(-1), parts)
            self.squares[:, layer] += squares.sum(1)
            means = torch.stack([truth[:, part].sum((0, 1)) for part in parts])
            self.mean_token[:, layer] += means.to(self.count.device).double()
            for number, mode in enumerate(MODES):
                with torch.no_grad():
                    guess = own[layer + 1] if number == 0 else raptor.blocks[layer](trajectory.states[layer])
                error = self._by_group((guess.float() - truth).square().sum(-1), parts)
                self.residual[number, :, layer] += error.sum(1)
                cosine = self._by_group(functional.cosine_similarity(guess.float(), truth, dim=-1), parts)
                for name, values in {
                    "relative_error": (_with_all(error) / _with_all(squares).clamp_min(TINY)).sqrt(),
                    "cosine": _with_all(cosine) / torch.cat([sizes, sizes.sum(0, keepdim=True)])[:, None],
                    "epsilon": _with_all(error).sqrt(),
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

    def r_squared(self) -> Tensor:
        """`(modes, groups and all, L)`."""
        tokens = self.count * torch.tensor(list(self.layout.sizes().values()), device=self.count.device)
        residual, squares, sums = self.residual, self.squares, self.mean_token
        residual = torch.cat([residual, residual.sum(1, keepdim=True)], dim=1)
        squares, sums = _with_all(squares), _with_all(sums)
        tokens = torch.cat([tokens, tokens.sum(0, keepdim=True)])
        spread = squares - sums.square().sum(-1) / tokens[:, None]
        return 1 - residual / spread.clamp_min(TINY)

    def compute(self) -> dict[str, Tensor]:
        """The curves of the base class, R^2, and what the head says."""
        head = torch.stack([getattr(self, name) for name in ("count", *HEAD)])
        return {**super().compute(), "r2": self.r_squared(), "residual": self.residual, "head": head}

    def result(self, baselines: SpanBaselines | None = None) -> Fidelity:
        """Everything in one table, with skill over baselines that saw the same images."""
        found = self.compute()  # over all processes, as the states themselves are not
        pooled = {"r2": found["r2"]}
        if baselines is not None:
            theirs = baselines.compute()
            skills = skill(found["residual"], theirs).unbind(1)
            pooled |= {f"skill_{name}": values for name, values in zip(BASELINES, skills, strict=True)}
        images, agreeing, right, teacher_right, labelled, beyond = found["head"].tolist()
        if beyond:  # of other classes than the head's
            labelled = 0
        table = self.table()
        mode = table["statistic"].str.split("/").str
        table = table.assign(mode=mode[0], statistic=mode[1])
        rows = [
            {
                "mode": name, "statistic": statistic, "unit": POOLED[statistic], "group": group, "layer": layer + 1,
                "mean": float(values[number, place, layer]), "low": np.nan, "high": np.nan, "sd": np.nan,
                "n_images": int(images),
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


def _with_all(values: Tensor) -> Tensor:
    """Rows of groups and below them their sum."""
    return torch.cat([values, values.sum(0, keepdim=True)])


def fidelity(raptor: Raptor, images: ImageSet, stream: Stream | None = None) -> Fidelity:
    """Compare a Raptor with its teacher at every layer, in one pass over the images.

    Parameters
    ----------
    raptor : Raptor
    images : ImageSet
    stream : Stream, optional
        How to go through the images.

    Returns
    -------
    Fidelity
    """
    metric = FidelityMetric(raptor, with_labels=raptor.takes_labels(images.label_names))
    baselines = SpanBaselines(raptor, images.seed)
    measure(raptor.teacher, images, {"fidelity": metric, "baselines": baselines}, stream=stream)
    return metric.result(baselines)
