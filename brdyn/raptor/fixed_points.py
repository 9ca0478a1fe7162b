"""The blocks of a Raptor past their phases. Method notes, section 10."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from brdyn.measures.fixed_points import FixedPointMetric, Repeated
from brdyn.raptor.fidelity import student_states
from brdyn.raptor.model import Raptor, Span
from brdyn.runtime import in_float64
from brdyn.trajectory import Trajectory

READ = {
    "cosine": "cosine to the teacher's token at the last layer",
    "agreement": "share with the teacher's class",
    "accuracy": "accuracy",
}


class BlockPastPhase(FixedPointMetric):
    """Follows the block of a span, from where the Raptor's own way enters it.

    In its phase it is applied as it was fitted; past it as at the last layer of the phase, so that it is one map. After
    every so many applications as the phase is long, the layers behind the phase are run and the teacher's head reads.

    Parameters
    ----------
    raptor : Raptor
    span : Span
    factor : int
        How many times the length of the span it is applied.
    seed : int
    with_labels : bool
        Take labels as classes of the teacher's head.
    """

    def __init__(self, raptor: Raptor, span: Span, factor: int, seed: int = 0, *, with_labels: bool = True) -> None:
        self.span, self.with_labels = span, with_labels
        wanted = ("cosine", "agreement", "accuracy") if raptor.classes else ("cosine",)
        super().__init__(raptor.tokens, factor * (span.end - span.start), {name: READ[name] for name in wanted}, seed)
        self._held = (raptor,)  # not a part of this metric's state

    def begin(self, trajectory: Trajectory) -> Repeated:
        """The block, from the Raptor's own state at the span's start."""
        start = student_states(self._held[0], trajectory)[self.span.start]
        return Repeated(start, self.applied, partial(self.reading, trajectory))

    def applied(self, state: Tensor, number: int) -> Tensor:
        """The state after an application."""
        layer = min(self.span.start + number, self.span.end)
        return self._held[0].blocks[layer - 1](state)

    def reading(self, trajectory: Trajectory, state: Tensor, number: int) -> Mapping[str, Tensor]:
        """What the layers behind the phase and the head make of it."""
        (raptor,) = self._held
        if number % (self.span.end - self.span.start):
            return {}
        for block in raptor.blocks[self.span.end :]:
            state = block(state)
        truth = trajectory.states[-1]
        found = {"cosine": functional.cosine_similarity(state.float(), truth.float(), dim=-1).mean(1)}
        if not raptor.classes:
            return found
        theirs, ours = (raptor.logits(raptor.norm(one)) for one in (truth, state))
        assert theirs is not None
        assert ours is not None
        found["agreement"] = in_float64(theirs.argmax(1) == ours.argmax(1))
        if self.with_labels:
            right = in_float64(ours.argmax(1) == trajectory.labels.to(ours.device))
            found["accuracy"] = right.where(trajectory.labelled.to(ours.device), torch.nan)
        return found


def past_phases(
    raptor: Raptor, factor: int, seed: int = 0, label_names: Sequence[str] | None = None
) -> dict[str, BlockPastPhase]:
    """A metric for each span of a Raptor's layers, by a name in words.

    Parameters
    ----------
    raptor : Raptor
    factor : int
        How many times the length of its span a block is applied.
    seed : int
    label_names : sequence of str, optional
        Of the images' classes.

    Examples
    --------
    >>> from brdyn.raptor import BlockConfig, Raptor
    >>> from brdyn.raptor.fixed_points import past_phases
    >>> raptor = Raptor(model, [0] * 6 + [1] * 6, BlockConfig(width=192, heads=3))
    >>> [(name, metric.applications) for name, metric in past_phases(raptor, factor=8).items()]
    [('block 1, layers 1 to 6', 48), ('block 2, layers 7 to 12', 48)]
    """
    with_labels = raptor.takes_labels(label_names)
    return {
        f"block {span.block + 1}, {_layers(span)}": BlockPastPhase(raptor, span, factor, seed, with_labels=with_labels)
        for span in raptor.spans
    }


def _layers(span: Span) -> str:
    first, last = span.start + 1, span.end
    return f"layer {last}" if first == last else f"layers {first} to {last}"
