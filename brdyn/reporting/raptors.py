"""The Raptor of a report's model: given, or fitted here; and how faithful it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from brdyn.data import ImageSet
from brdyn.errors import BrdynError, UsageError
from brdyn.models import VisionTransformer
from brdyn.phases import Phases
from brdyn.phases.given import contiguous
from brdyn.provenance import Stopwatch
from brdyn.raptor import Evaluation, Fit, FitSettings, Raptor, evaluate, fit_raptor
from brdyn.raptor.fit import fit_options
from brdyn.raptor.model import is_raptor, read_saved
from brdyn.reporting.blocks import accepted
from brdyn.reporting.plan import ReportSettings
from brdyn.store.unfinished import CHECKPOINTS
from brdyn.training import Checkpoints, Session
from brdyn.trajectory import Stream

JUDGED = 0.2  # of the images: what a Raptor is judged by, where it is fitted here


def given_raptors(folders: Sequence[str], models: Sequence[VisionTransformer]) -> dict[int, tuple[str, str]]:
    """Which model each Raptor is of, by its number: the folder, and the digest of its weights.

    Raises
    ------
    UsageError
        If one is no Raptor, or of none of the models, or two are of one.
    """
    found: dict[int, tuple[str, str]] = {}
    for folder in folders:
        if not is_raptor(folder):
            raise UsageError(f"{folder!r} is not a Raptor; give the folder of brdyn raptor-fit as `raptor`")
        config, _ = read_saved(folder)
        teacher = config.teacher
        of = [number for number, model in enumerate(models) if model.info.digest == teacher.digest]
        if not of:
            raise UsageError(
                f"the Raptor in {folder!r} is of {teacher.name!r}, which is none of the models of the report, or has "
                "other weights there; give its `model` too"
            )
        if models[of[0]].info.image_size != teacher.image_size:
            raise UsageError(
                f"the Raptor in {folder!r} is for images of {teacher.image_size[0]}x{teacher.image_size[1]} pixels; "
                "give the report that `image_size`"
            )
        if of[0] in found:
            raise UsageError(f"{found[of[0]][0]!r} and {folder!r} are Raptors of one model; give one")
        found[of[0]] = (folder, config.digest)
    return found


def parts(images: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    """Images to fit a Raptor on, and others to judge it by."""
    learning, judged = images.split(max(1, round(JUDGED * len(images))), seed)
    assert judged is not None
    return learning, judged


@contextmanager
def fitted_here(
    model: VisionTransformer,
    images: ImageSet,
    phases: Phases,
    settings: ReportSettings,
    folder: Path,
    stream: Stream,
) -> Iterator[Fit]:
    """Fit one shared block to each phase, or go on with a fit that was stopped, and keep it inside.

    Phases are those that the test accepts, or those of the cut that is chosen where it accepts none. The checkpoints go
    at the end, unless what is done inside fails.
    """
    if model.dtype != torch.float32:
        raise UsageError("a Raptor is fitted in float32: pass `dtype=float32`, or drop `fit_raptor`")
    steps, (learning, _) = settings.fit_raptor, parts(images, settings.seed)
    recipe = FitSettings(stage1_steps=steps // 2, stage2_steps=steps - steps // 2, seed=settings.seed)
    assignment = contiguous(accepted(phases) or phases.boundaries, model.depth)
    options = fit_options(model, learning, assignment, recipe, 1, cached=False)
    checkpoints = Checkpoints(folder / CHECKPOINTS, options, watch=Stopwatch())
    try:
        saved = checkpoints.latest()
    except BrdynError:  # of another fit, or damaged
        checkpoints, saved = Checkpoints(folder / CHECKPOINTS, options, anew=True, watch=Stopwatch()), None
    session = Session(checkpoints=checkpoints, resume=saved, progress=stream.progress)
    yield fit_raptor(model, learning, assignment, recipe, session=session, workers=stream.workers)
    checkpoints.remove()


def evaluate_raptor(
    folder: str,
    model: VisionTransformer,
    images: ImageSet,
    settings: ReportSettings,
    given: bool,
    stream: Stream,
) -> Evaluation:
    """Judge a Raptor on the images; one that was fitted here on those that were kept out."""
    raptor = Raptor.from_pretrained(folder, model)
    judged = images if given else parts(images, settings.seed)[1]
    return evaluate(raptor, judged, stream=stream, beyond=settings.of_size.beyond)
