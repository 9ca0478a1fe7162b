"""Fitting a Raptor to a teacher: two stages, on the fly, from images alone. BRH, method notes section 4."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial

from accelerate import Accelerator

from brdyn.checked_json import made
from brdyn.data import Batch, ImageSet, ReadReport
from brdyn.data.shuffled import ShuffledBatches
from brdyn.models import VisionTransformer
from brdyn.raptor.cache import ActivationCache
from brdyn.raptor.losses import (
    JOINT_WEIGHTS,
    LAST_PHASE_WEIGHTS,
    LossFunction,
    group_weights,
    plain_loss,
    weighted_loss,
)
from brdyn.raptor.model import Raptor, untrained
from brdyn.raptor.recipe import FitSettings
from brdyn.raptor.tasks import BlocksApart, BlocksJoined, ReadStates, cached, online
from brdyn.runtime import gather
from brdyn.training import Checkpoints, History, Saved, Task, train
from brdyn.training.loop import make_accelerator

STAGES = (1, 2)
Report = Callable[[int, int, dict[str, float]], None]


@dataclass
class Fit:
    """A fitted Raptor and how it got there.

    Attributes
    ----------
    raptor : Raptor
    histories : dict of int to History
        By stage.

    Examples
    --------
    >>> from brdyn.raptor import FitSettings
    >>> settings = FitSettings(stage1_steps=2, stage2_steps=0, batch_size=4, mlp_ratio=1.0, log_every=1)
    >>> fit = brdyn.fit_raptor(model, images, [0] * 12, settings)
    >>> [row["step"] for row in fit.histories[1].losses]
    [1.0, 2.0]
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
    cache: ActivationCache | None = None,
    report: Report | None = None,
    progress: bool = False,
) -> Fit:
    """Distil a teacher into shared blocks.

    The teacher runs beside the student, so no activations are stored, unless a cache of them is given.

    Parameters
    ----------
    teacher : VisionTransformer
    images : ImageSet
        Some are kept out for validation. Its report then says how many were seen, epoch after epoch, by all processes
        and in all sessions.
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
    cache : ActivationCache, optional
        Of these images, filled: states are read from it instead of running the teacher.
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

    Examples
    --------
    >>> from brdyn.raptor import FitSettings
    >>> settings = FitSettings(stage1_steps=1, stage2_steps=1, batch_size=4, mlp_ratio=1.0)
    >>> fit = brdyn.fit_raptor(model, images, [0] * 6 + [1] * 6, settings)
    >>> fit.raptor.k, fit.raptor(next(images.batches(2)).images).shape
    (2, torch.Size([2, 5, 192]))
    """
    settings = settings or FitSettings()
    accelerator = accelerator or make_accelerator(teacher.device)
    raptor = untrained(teacher, assignment, settings.block(teacher), settings.seed)
    raptor.shared.requires_grad_(True)
    learning, held_out = images.split(settings.held_out(len(images)), settings.seed)
    learning.report = ReadReport()  # what was read before is not of the fit
    settings = settings.fitted_to(len(learning))
    stream = ShuffledBatches(learning, settings.training(1).batch_size, settings.seed, workers)
    if cache is not None:
        stream = replace(stream, reader=cache.reader(learning), item_bytes=cache.image_bytes)
    read = online(teacher) if cache is None else cached(teacher)
    validation = list(held_out.batches(stream.batch_size, workers=0)) if held_out is not None else []
    fit = Fit(raptor.to(accelerator.device))
    if resume is not None:
        earlier = resume.state.get("earlier", {})
        fit.histories = {
            stage: made(History, earlier[str(stage)]) for stage in STAGES if str(stage) in earlier
        }
    for stage, steps in zip(STAGES, (settings.stage1_steps, settings.stage2_steps), strict=True):
        if not steps or (resume is not None and resume.stage > stage):
            continue
        here = resume if resume is not None and resume.stage == stage else None
        task = _task(stage, raptor, teacher, settings, validation, read)
        fit.histories[stage] = train(
            task,
            stream,
            settings.training(stage),
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
    images.report = gather(stream.images.report, accelerator.num_processes)
    if held_out is not None:
        images.report.skipped = sorted({*images.report.skipped, *held_out.report.skipped})
    if cache is not None:
        images.report.digest = cache.digest()
    raptor.eval().requires_grad_(False)
    raptor.info = replace(raptor.info, weights="fitted in this process (not saved)")
    return fit


def _task(
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
