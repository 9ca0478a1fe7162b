"""The two stages of a fit: each block alone on its layers, then all joined. BRH, method notes section 4."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite, nan
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import R2Score

from brdyn.data import Batch
from brdyn.models import VisionTransformer
from brdyn.raptor.losses import (
    JOINT_WEIGHTS,
    LAST_PHASE_WEIGHTS,
    LossFunction,
    group_weights,
    plain_loss,
    weighted_loss,
)
from brdyn.raptor.model import Raptor, Span
from brdyn.raptor.recipe import FitSettings
from brdyn.training import Task
from brdyn.trajectory import capture

States = tuple[Tensor, ...]
ReadStates = Callable[[Batch], States]


def online(teacher: VisionTransformer) -> ReadStates:
    """States by running the teacher."""
    return lambda batch: capture(teacher, batch).states


def cached(teacher: VisionTransformer) -> ReadStates:
    """States from a batch whose items are states, `(B, L + 1, N, D)`."""
    return lambda batch: batch.images.to(teacher.device, non_blocking=True).to(teacher.dtype).unbind(1)


class _Stage(Task):
    """What both stages have in common; parameters as of :class:`BlocksApart`."""

    def __init__(
        self,
        raptor: Raptor,
        teacher: VisionTransformer,
        *,
        sigma: float = 0.0,
        validation: Sequence[Batch] = (),
        read: ReadStates | None = None,
    ) -> None:
        super().__init__()
        self._held = (raptor, teacher)  # not parameters of this task
        self.sigma, self.validation, self.read = sigma, validation, read or online(teacher)

    def inputs(self, batch: Batch) -> States:
        """The teacher's states."""
        return self.read(batch)

    def _noisy(self, state: Tensor) -> Tensor:
        return state + self.sigma * torch.randn_like(state) if self.sigma and self.training else state

    def validate(self) -> dict[str, float]:
        """R^2 and skill of the states of :meth:`at_ends`."""
        sums: dict[str, _Determination] = {}  # empty without validation images
        for batch in self.validation:
            states = capture(self._held[1], batch).states
            for name, span, own in self.at_ends(states):
                sums.setdefault(name, _Determination()).add(own, states[span.end], states[span.start])
        return _defined(sums)

    @abstractmethod
    def at_ends(self, states: States) -> Iterator[tuple[str, Span, Tensor]]:
        """Each span by the name under which it is validated, and the state that the blocks lead to at its end."""


class BlocksApart(_Stage):
    """Stage 1: every block on the spans of layers it replaces, entered by the teacher's own states.

    The loss of a block is `r * teacher-forced + (1 - r) * autoregressive`, with r falling linearly from 1 to 0 over the
    first steps. Teacher-forced, each layer gets the teacher's state; autoregressive, the block's own last output. All
    blocks learn from one pass of the teacher.

    Parameters
    ----------
    raptor : Raptor
    teacher : VisionTransformer
    losses : sequence of callable
        Of each block.
    annealed_over : int
        Steps over which r falls; 0 for autoregressive alone.
    teacher_forcing_only : bool
        Keep r at 1.
    sigma : float
        Standard deviation of the noise that is added to every input of a block.
    validation : sequence of Batch
        Images for the R^2 of :meth:`validate`.
    read : callable, optional
        The teacher's states from a batch; by default the teacher runs on its images.
    """

    def __init__(
        self,
        raptor: Raptor,
        teacher: VisionTransformer,
        losses: Sequence[LossFunction],
        *,
        annealed_over: int,
        teacher_forcing_only: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(raptor, teacher, **common)
        self.parts = nn.ModuleDict({block_name(number): block for number, block in enumerate(raptor.shared)})
        self.losses = list(losses)
        self.annealed_over, self.teacher_forcing_only = annealed_over, teacher_forcing_only

    def forced_share(self, step: int) -> float:
        """r, the weight of the teacher-forced loss at a step (from 0)."""
        if self.teacher_forcing_only:
            return 1.0
        return max(0.0, 1.0 - step / self.annealed_over) if self.annealed_over else 0.0

    def forward(self, inputs: States, step: int) -> dict[str, Tensor]:
        """The loss of each image by block."""
        share = self.forced_share(step)
        found: dict[str, Tensor] = {}
        layers = dict.fromkeys(range(len(self.losses)), 0)
        for span in self._held[0].spans:
            layers[span.block] += span.end - span.start
            name = block_name(span.block)
            error = self._span(span, inputs, share)
            found[name] = found[name] + error if name in found else error
        return {block_name(number): found[block_name(number)] / count for number, count in layers.items()}

    def _span(self, span: Span, states: States, share: float) -> Tensor:
        """Sum over the layers of a span, `(B,)`."""
        block, loss = self.parts[block_name(span.block)], self.losses[span.block]
        images = len(states[0])
        own = states[span.start]
        errors = []
        for layer in range(span.start + 1, span.end + 1):
            truth = states[layer]
            forced = states[layer - 1]
            if share == 0 or layer == span.start + 1:  # nothing forced, or both inputs are the same
                own = block(self._noisy(own), layer)
                errors.append(loss(own, truth))
            elif share == 1:
                own = block(self._noisy(forced), layer)
                errors.append(loss(own, truth))
            else:
                both = block(self._noisy(torch.cat([forced, own])), layer)
                own = both[images:]
                errors.append(share * loss(both[:images], truth) + (1 - share) * loss(own, truth))
        return torch.stack(errors).sum(0)

    def at_ends(self, states: States) -> Iterator[tuple[str, Span, Tensor]]:
        """By block, autoregressive from the teacher's state that enters the span."""
        for span in self._held[0].spans:
            own, name = states[span.start], block_name(span.block)
            for layer in range(span.start + 1, span.end + 1):
                own = self.parts[name](own, layer)
            yield name, span, own


class BlocksJoined(_Stage):
    """Stage 2: the whole Raptor from the embedding to the last layer, autoregressive.

    Parameters
    ----------
    raptor : Raptor
    teacher : VisionTransformer
    loss : callable
        At every layer; averaged over them.
    sigma, validation, read
        As in stage 1.
    """

    def __init__(self, raptor: Raptor, teacher: VisionTransformer, loss: LossFunction, **common: Any) -> None:
        super().__init__(raptor, teacher, **common)
        self.parts = nn.ModuleDict({"raptor": raptor.shared})
        self.loss = loss

    def forward(self, inputs: States, step: int) -> dict[str, Tensor]:
        """The mean over layers, of each image."""
        pairs = zip(self._states(inputs[0]), inputs[1:], strict=True)
        return {"raptor": torch.stack([self.loss(state, truth) for state, truth in pairs]).mean(0)}

    def _states(self, state: Tensor) -> Iterator[Tensor]:
        """After each layer."""
        blocks = self.parts["raptor"]
        assert isinstance(blocks, nn.ModuleList)
        for layer, number in enumerate(self._held[0].assignment, 1):
            state = blocks[number](self._noisy(state), layer)
            yield state

    def at_ends(self, states: States) -> Iterator[tuple[str, Span, Tensor]]:
        """By layer, from the embedding on."""
        ends = {span.end: span for span in self._held[0].spans}
        for layer, own in enumerate(self._states(states[0]), 1):
            if layer in ends:
                yield f"layer {layer}", ends[layer], own


def stage_task(
    stage: int,
    raptor: Raptor,
    teacher: VisionTransformer,
    settings: FitSettings,
    validation: Sequence[Batch],
    read: ReadStates,
) -> Task:
    """What a stage trains, with the losses of the recipe."""
    layout = teacher.tokens
    common: dict[str, Any] = {"sigma": settings.sigma, "validation": validation, "read": read}
    if stage == 1:
        losses: list[LossFunction] = [plain_loss(settings.loss)] * raptor.k
        if settings.token_weighting:
            weights = group_weights(layout, LAST_PHASE_WEIGHTS)
            losses[raptor.assignment[-1]] = weighted_loss(layout, weights, settings.loss)
        return BlocksApart(
            raptor,
            teacher,
            losses,
            annealed_over=round(settings.annealed * settings.stage1_steps),
            teacher_forcing_only=settings.teacher_forcing_only,
            **common,
        )
    joint = plain_loss(settings.loss)
    if settings.token_weighting:
        joint = weighted_loss(layout, group_weights(layout, JOINT_WEIGHTS), settings.loss)
    return BlocksJoined(raptor, teacher, joint, **common)


def block_name(number: int) -> str:
    """`block 1` for block 0, as in messages and results."""
    return f"block {number + 1}"


def _defined(sums: Mapping[str, _Determination]) -> dict[str, float]:
    """R^2 and skill where there are any: a teacher whose tokens are all the same has no R^2."""
    values = {f"{kind} {name}": value for name, one in sums.items() for kind, value in one.values.items()}
    return {name: value for name, value in values.items() if isfinite(value)}


class _Determination:
    """1 minus the squared error of all tokens over their squared distance to the mean token (R^2), or to the state that
    enters the span (skill over the identity)."""

    def __init__(self) -> None:
        self.metric = R2Score(multioutput="variance_weighted").set_dtype(torch.float64)
        self.error, self.of_nothing = 0.0, 0.0

    def add(self, guess: Tensor, truth: Tensor, start: Tensor) -> None:
        """Add some states `(B, N, D)`."""
        guess, truth, start = (part.detach().flatten(0, 1).cpu().double() for part in (guess, truth, start))
        self.metric.update(guess, truth)
        self.error += float((guess - truth).square().sum())
        self.of_nothing += float((start - truth).square().sum())

    @property
    def values(self) -> dict[str, float]:
        """`r2` and `skill`: 1 for a perfect guess, 0 for the mean or for doing nothing."""
        skill = 1 - self.error / self.of_nothing if self.of_nothing else nan
        return {"r2": float(self.metric.compute()), "skill": skill}
