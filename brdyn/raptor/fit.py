"""Fitting a Raptor to a teacher: two stages, on the fly, from images alone. BRH, method notes section 4."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from accelerate import Accelerator

from brdyn.data import Batch, ImageSet
from brdyn.data.shuffled import ShuffledBatches
from brdyn.errors import UsageError
from brdyn.models import VisionTransformer
from brdyn.raptor.block import BlockConfig
from brdyn.raptor.losses import (
    JOINT_WEIGHTS,
    LAST_PHASE_WEIGHTS,
    LossFunction,
    group_weights,
    plain_loss,
    weighted_loss,
)
from brdyn.raptor.model import Raptor, untrained
from brdyn.raptor.tasks import BlocksApart, BlocksJoined
from brdyn.training import Checkpoints, History, Saved, Task, TrainSettings, train
from brdyn.training.loop import make_accelerator

STAGES = (1, 2)
WARMUP_SHARE = 10_000 / 312_500
ANNEALED_SHARE = 0.25
STEPS = 2000
VALIDATION_IMAGES = 64
Report = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """The recipe. Defaults are the published ones, with shares of the steps where those are counted in steps.

    Attributes
    ----------
    stage1_steps, stage2_steps : int
        Published: 312 500 each. 0 leaves a stage out.
    batch_size, lr, min_lr, weight_decay, clip, accumulate, precision, ema, compile, seed
        As in :class:`brdyn.training.TrainSettings`.
    warmup : float
        Share of each stage's steps in which the learning rate rises (published: 10 000 of 312 500).
    annealed : float
        Share of the steps of stage 1 in which teacher forcing gives way (published: 0.25).
    teacher_forcing_only : bool
        Never let it give way.
    token_weighting : bool
        Weigh token groups apart in the last phase and in stage 2; otherwise every token counts the same.
    loss : {"mse", "cosine+mse"}
    sigma : float
        Noise on the inputs of a block (the public code's default: 0.001).
    mlp, mlp_ratio, layer_scale, depth_scaling
        As in :class:`brdyn.raptor.BlockConfig`.
    validation_images : int
        Kept out of the training images for the R^2 of every block; 0 for none.
    log_every, validate_every, checkpoint_every : int
        Steps.
    """

    stage1_steps: int = STEPS // 2
    stage2_steps: int = STEPS - STEPS // 2
    batch_size: int = 64
    lr: float = 3e-4
    min_lr: float = 1e-6
    weight_decay: float = 1e-4
    warmup: float = WARMUP_SHARE
    clip: float = 1.0
    accumulate: int = 1
    precision: str = "float32"
    ema: float = 0.0
    compile: bool = False
    seed: int = 0
    annealed: float = ANNEALED_SHARE
    teacher_forcing_only: bool = False
    token_weighting: bool = True
    loss: str = "mse"
    sigma: float = 1e-3
    mlp: str = "swiglu"
    mlp_ratio: float = 4.0
    layer_scale: float = 1e-5
    depth_scaling: str = "index"
    validation_images: int = VALIDATION_IMAGES
    log_every: int = 20
    validate_every: int = 500
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.stage1_steps < 0 or self.stage2_steps < 0 or not self.stage1_steps + self.stage2_steps:
            raise UsageError(
                f"{self.stage1_steps} and {self.stage2_steps} steps are no fit; at least one stage needs steps"
            )
        for name in ("warmup", "annealed"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} {getattr(self, name)} is not a share of the steps, from 0 to 1")
        if not self.sigma >= 0:
            raise UsageError(f"sigma {self.sigma} is negative")
        if self.validation_images < 0:
            raise UsageError(f"{self.validation_images} validation images are less than none")
        plain_loss(self.loss)
        self.training(max(self.stage1_steps, self.stage2_steps))

    def training(self, steps: int) -> TrainSettings:
        """The settings of one stage."""
        shared = {
            name: getattr(self, name)
            for name in (
                "batch_size", "lr", "min_lr", "weight_decay", "clip", "accumulate", "precision", "ema", "compile",
                "seed", "log_every", "validate_every", "checkpoint_every",
            )
        }  # fmt: skip
        return TrainSettings(steps=steps, warmup=round(self.warmup * steps), **shared)

    def block(self, teacher: VisionTransformer) -> BlockConfig:
        """The block for a teacher."""
        return BlockConfig(
            width=teacher.info.width,
            heads=teacher.info.heads,
            mlp=self.mlp,
            mlp_ratio=self.mlp_ratio,
            layer_scale=self.layer_scale,
            depth_scaling=self.depth_scaling,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass
class Fit:
    """A fitted Raptor and how it got there.

    Attributes
    ----------
    raptor : Raptor
    histories : dict of int to History
        By stage.
    """

    raptor: Raptor
    histories: dict[int, History] = field(default_factory=dict)


def fit_raptor(
    teacher: VisionTransformer,
    images: ImageSet,
    assignment: Sequence[int],
    settings: FitSettings | None = None,
    *,
    checkpoints: Checkpoints | None = None,
    resume: Saved | None = None,
    accelerator: Accelerator | None = None,
    workers: int | None = None,
    report: Report | None = None,
    progress: bool = False,
) -> Fit:
    """Distil a teacher into shared blocks.

    The teacher runs beside the student, so no activations are stored.

    Parameters
    ----------
    teacher : VisionTransformer
    images : ImageSet
        Some are kept out for validation.
    assignment : sequence of int
        The block of each layer; see :mod:`brdyn.raptor.partitions`.
    settings : FitSettings, optional
    checkpoints : Checkpoints, optional
    resume : Saved, optional
        A checkpoint of this very fit to go on from.
    accelerator : Accelerator, optional
        Default: on the teacher's device, in the precision of the settings.
    workers : int, optional
        Loader processes.
    report : callable, optional
        Gets stage, step and numbers of every logged step.
    progress : bool
        Show a progress bar on a terminal.

    Returns
    -------
    Fit

    Raises
    ------
    UsageError
        If the images do not fill a batch, or the assignment does not fit the teacher.
    BrdynError
        If a loss is not finite.
    """
    settings = settings or FitSettings()
    accelerator = accelerator or make_accelerator(settings.training(1), teacher.device)
    raptor = untrained(teacher, assignment, settings.block(teacher), settings.seed)
    raptor.shared.requires_grad_(True)
    learning, held_out = images.split(settings.validation_images, settings.seed)
    stream = ShuffledBatches(learning, settings.batch_size, settings.seed, workers)
    validation = list(held_out.batches(settings.batch_size, workers=0)) if held_out is not None else []
    fit = Fit(raptor.to(accelerator.device))
    if resume is not None:
        earlier = resume.state["earlier"]
        fit.histories = {int(stage): History(**history) for stage, history in earlier.items()}
    for stage, steps in zip(STAGES, (settings.stage1_steps, settings.stage2_steps), strict=True):
        if not steps or (resume is not None and resume.stage > stage):
            continue
        here = resume if resume is not None and resume.stage == stage else None
        task = _task(stage, raptor, teacher, settings, validation)
        fit.histories[stage] = train(
            task,
            stream,
            settings.training(steps),
            checkpoints,
            accelerator=accelerator,
            stage=stage,
            resume=here,
            report=partial(report, stage) if report else None,
            progress=progress,
            earlier={str(number): asdict(history) for number, history in fit.histories.items()},
        )
        last = stage == 2 or not settings.stage2_steps
        if settings.ema and last:
            task.parts.load_state_dict(task.average)
    raptor.eval().requires_grad_(False)
    return fit


def _task(
    stage: int, raptor: Raptor, teacher: VisionTransformer, settings: FitSettings, validation: Sequence[Batch]
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
        )
    joint = plain_loss(settings.loss)
    if settings.token_weighting:
        joint = weighted_loss(layout, group_weights(layout, JOINT_WEIGHTS), settings.loss)
    return BlocksJoined(raptor, teacher, joint, sigma=settings.sigma, validation=validation)
