"""What the model's own head reads from every state (the head lens): when the answer is there. Method notes, section 10.

Every state goes the way of the last one: final norm, pooling and head, all the model's own. At layer L that is the
model's answer itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from brdyn.errors import BrdynError
from brdyn.measures import intervals
from brdyn.measures.contract import Asked
from brdyn.measures.per_image import PerImageMetric, Statistic
from brdyn.models import VisionTransformer
from brdyn.trajectory import Trajectory, not_finite_remedy

GROUP = "head"
AGREEMENT, DIVERGENCE, DECIDED, ACCURACY = (f"readout_{name}" for name in ("agreement", "kl", "decided", "accuracy"))
UNITS = {
    AGREEMENT: "share of images with the final class",
    DIVERGENCE: "KL divergence of the answer from the final one (nats)",
    DECIDED: "share of images whose class no longer changes",
    ACCURACY: "accuracy",
}


class HeadReadout(PerImageMetric):
    """Class and divergence of what the head reads from each state, and from which state on the class is the final one.

    The divergence is `KL(final || layer)`. Accuracy is of images whose labels can be of the head's classes.

    Parameters
    ----------
    model : VisionTransformer
    with_labels : bool
        Take labels as classes of the head.

    Examples
    --------
    >>> from brdyn.measures.readout import HeadReadout
    >>> metric = HeadReadout(model)
    >>> metric.update(brdyn.capture(model, next(images.batches(4))))
    >>> last = metric.table().query("layer == 12").set_index("statistic")["mean"]
    >>> float(last["readout_agreement"]), float(last["readout_kl"])
    (1.0, 0.0)
    """

    beyond: Tensor

    def __init__(self, model: VisionTransformer, *, with_labels: bool = True, **kwargs: Any) -> None:
        super().__init__(model.tokens, model.depth, **kwargs)
        self._held = (model,)  # not a part of this metric's state
        self.with_labels = with_labels
        self.add_state("beyond", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    @classmethod
    def make(cls, model: VisionTransformer, asked: Asked) -> Self:
        return cls(model, with_labels=model.takes_labels(asked.label_names))

    def withheld(self) -> str | None:
        """A head."""
        (model,) = self._held
        if model.classes:
            return None
        return f"{model.info.name!r} has no classification head; `brdyn probe --layers all` fits one to every state"

    def groups(self) -> tuple[str, ...]:
        """One: whatever the head reads."""
        return (GROUP,)

    def statistics(self) -> tuple[Statistic, ...]:
        """Four curves over the states."""
        states = self.depth + 1
        return tuple(Statistic(name, unit, 0, states, share=name != DIVERGENCE) for name, unit in UNITS.items())

    @torch.no_grad()
    def per_image(self, trajectory: Trajectory) -> Mapping[tuple[str, str], Tensor]:
        """All four; the accuracy of an image without a label is NaN."""
        (model,) = self._held
        final = self._scores(trajectory.states[-1])
        classes, divergences = [], []
        for scores in chain(map(self._scores, trajectory.states[:-1]), (final,)):
            classes.append(scores.argmax(-1))
            divergences.append((final.exp() * (final - scores)).sum(-1))
        predicted, divergence = torch.stack(classes), torch.stack(divergences)  # (L + 1, B)
        self._check_finite(divergence)
        agrees = predicted == predicted[-1]
        decided = agrees.flip(0).cumprod(0).flip(0)
        labels = trajectory.labels.to(predicted.device)
        known = trajectory.labelled.to(predicted.device) & self.with_labels
        self.beyond += (labels.where(known, -1) >= model.classes).sum().to(self.beyond.device)
        found = {
            AGREEMENT: agrees.double(),
            DIVERGENCE: divergence,
            DECIDED: decided.double(),
            ACCURACY: (predicted == labels).double().where(known, torch.nan),
        }
        return {(name, GROUP): values for name, values in found.items()}

    def _scores(self, state: Tensor) -> Tensor:
        """Logarithms of the probabilities of classes, `(B, classes)`, by the model's own norm, pooling and head."""
        (model,) = self._held
        logits = model.logits(model.norm(state))
        assert logits is not None
        precise = logits.float() if logits.device.type == "mps" else logits.double()
        return precise.log_softmax(-1)

    def _check_finite(self, divergence: Tensor) -> None:
        """Refuse scores that are not finite, whose divergence is not either."""
        (model,) = self._held
        if not divergence.isfinite().all():
            raise BrdynError(
                f"what the head of {model.info.name!r} reads from a state is not finite in {model.precision}; "
                f"{not_finite_remedy(model.dtype)}"
            )

    def compute(self) -> dict[str, Tensor]:
        """The curves, and how many labels are of no class of the head, `beyond`."""
        return {**super().compute(), "beyond": self.beyond}

    def table(self, boundaries: Sequence[int] = ()) -> pd.DataFrame:
        """One row per statistic and state; without accuracy where labels are not there or not the head's."""
        table = super().table(boundaries)
        rows = table["statistic"].eq(ACCURACY)
        unknown = bool(self.compute()["beyond"]) or not table.loc[rows, "n_images"].any()
        return table[~rows].reset_index(drop=True) if unknown else table


def deciding_state(table: pd.DataFrame) -> tuple[float, float, float] | None:
    """Mean state from which on an image's class is the final one, and its 95 % interval; None where it is not measured.

    An image is decided at state T, and the table has the share with `T <= l` for every state l, which gives the mean
    and the spread of T exactly.

    Parameters
    ----------
    table : DataFrame
        Of :class:`brdyn.measures.dynamics.Dynamics`, or of the measure.

    Examples
    --------
    >>> from brdyn.measures.readout import HeadReadout, deciding_state
    >>> metric = HeadReadout(model)
    >>> metric.update(brdyn.capture(model, next(images.batches(4))))
    >>> mean, low, high = deciding_state(metric.table())
    >>> low <= mean <= high <= 13
    True
    """
    rows = table[table["statistic"] == DECIDED].sort_values("layer")
    if rows.empty:
        return None
    later, n = 1 - rows["mean"].to_numpy(), int(rows["n_images"].iloc[0])  # P(T > l)
    mean = float(later.sum())
    square = float(((2 * np.arange(len(later)) + 1) * later).sum())
    spread = max(square - mean**2, 0.0) * n / (n - 1) if n > 1 else np.nan
    low, high = intervals.of_mean(mean, spread**0.5, n)
    return mean, float(low), float(high)
