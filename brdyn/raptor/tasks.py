"""The two stages of a fit: each block alone on its layers, then all joined. BRH, method notes section 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite, nan

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


class BlocksApart(Task):
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
        sigma: float = 0.0,
        validation: Sequence[Batch] = (),
        read: ReadStates | None = None,
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({block_name(number): block for number, block in enumerate(raptor.shared)})
        self._held = (raptor, teacher)  # not parameters of this task
        self.losses = list(losses)
        self.annealed_over, self.teacher_forcing_only, self.sigma = annealed_over, teacher_forcing_only, sigma
        self.validation, self.read = validation, read or online(teacher)

    def inputs(self, batch: Batch) -> States:
        """The teacher's states."""
        return self.read(batch)

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

    def _noisy(self, state: Tensor) -> Tensor:
        return state + self.sigma * torch.randn_like(state) if self.sigma and self.training else state

    def validate(self) -> dict[str, float]:
        """R^2 and skill of the state at the end of each block's spans, autoregressive from the teacher's state."""
        raptor, teacher = self._held
        sums: dict[str, _Determination] = {}
        for batch in self.validation:
            states = capture(teacher, batch).states
            for span in raptor.spans:
                own = states[span.start]
                for layer in range(span.start + 1, span.end + 1):
                    own = self.parts[block_name(span.block)](own, layer)
                found = sums.setdefault(block_name(span.block), _Determination())
                found.add(own, states[span.end], states[span.start])
        return _defined(sums)


class BlocksJoined(Task):
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

    def __init__(
        self,
        raptor: Raptor,
        teacher: VisionTransformer,
        loss: LossFunction,
        *,
        sigma: float = 0.0,
        validation: Sequence[Batch] = (),
        read: ReadStates | None = None,
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"raptor": raptor.shared})
        self._held = (raptor, teacher)
        self.loss, self.sigma, self.validation = loss, sigma, validation
        self.read = read or online(teacher)

    def inputs(self, batch: Batch) -> States:
        """The teacher's states."""
        return self.read(batch)

    def forward(self, inputs: States, step: int) -> dict[str, Tensor]:
        """The mean over layers, of each image."""
        state, errors = inputs[0], []
        for layer, truth in enumerate(inputs[1:], 1):
            state = self._advance(state, layer)
            errors.append(self.loss(state, truth))
        return {"raptor": torch.stack(errors).mean(0)}

    def _advance(self, state: Tensor, layer: int) -> Tensor:
        if self.sigma and self.training:
            state = state + self.sigma * torch.randn_like(state)
        blocks = self.parts["raptor"]
        assert isinstance(blocks, nn.ModuleList)
        return blocks[self._held[0].assignment[layer - 1]](state, layer)

    def validate(self) -> dict[str, float]:
        """R^2 and skill at the end of every span, from the embedding on."""
        raptor, teacher = self._held
        starts = {span.end: span.start for span in raptor.spans}
        sums: dict[str, _Determination] = {}  # empty without validation images
        for batch in self.validation:
            states = capture(teacher, batch).states
            state = states[0]
            for layer in range(1, raptor.depth + 1):
                state = self._advance(state, layer)
                if layer in starts:
                    found = sums.setdefault(f"layer {layer}", _Determination())
                    found.add(state, states[layer], states[starts[layer]])
        return _defined(sums)


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
            sigma=settings.sigma,
            validation=validation,
            read=read,
        )
    joint = plain_loss(settings.loss)
    if settings.token_weighting:
        joint = weighted_loss(layout, group_weights(layout, JOINT_WEIGHTS), settings.loss)
    return BlocksJoined(raptor, teacher, joint, sigma=settings.sigma, validation=validation, read=read)


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
