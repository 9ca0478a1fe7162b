"""`brdyn.report`: from a model's name to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from brdyn import runtime
from brdyn.arguments import checked
from brdyn.checked_json import expanded
from brdyn.choices import INITS, one_of
from brdyn.data import ImageSet, load_images
from brdyn.models import VisionTransformer, load_model, untrained_twins
from brdyn.reporting.plan import RANDOM, ReportSettings, Subject, check_alone, subjects
from brdyn.reporting.result import Report
from brdyn.reporting.run import make_report
from brdyn.store import check_formats
from brdyn.trajectory import Stream


@checked
def report(
    models: Sequence[str | VisionTransformer],
    images: str | Path,
    out: str | Path,
    settings: ReportSettings | None = None,
    *,
    init: str = "pretrained",
    image_size: int | tuple[int, int] | None = None,
    device: str = "auto",
    dtype: torch.dtype | str = "float32",
    stream: Stream | None = None,
    overwrite: bool = False,
    formats: tuple[str, ...] = ("png",),
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Measure models and say of each whether it is block-recurrent, with the evidence, in a folder with a page.

    Phases and dynamics come from one pass over the images; perturbation, interventions, splicing and a Raptor follow.
    Each is kept when it is whole: a report that was stopped goes on, and what is there of the same images, weights
    and settings is used again.

    Parameters
    ----------
    models : sequence of str or VisionTransformer
        Names as :func:`brdyn.load_model` takes them, or models that were loaded.
    images : str or path
        As :func:`brdyn.load_images` takes them.
    out : path
        Gets report.html, report.json, and of each model a folder with the result of each section.
    settings : ReportSettings, optional
        What is measured, and of how many images.
    init : {"pretrained", "random"}
        Of models that are named.
    image_size, device, dtype
        Of models that are named; a precision as :func:`brdyn.load_model` takes it.
    stream : Stream, optional
        How to go through the images.
    overwrite : bool
        Replace results in `out` that are of other images, weights or settings.
    formats : tuple of str
        Of the pictures of each section: some of `png`, `svg`, `pdf`; none of them for no pictures.
    say : callable, optional
        Told at the start what will be done and about how long that takes, and then line by line what is done.

    Returns
    -------
    Report
        A model of which something failed says so in `failures`; the others are whole.

    Raises
    ------
    UsageError
        If `out` holds results of something else, or a request cannot be served.
    BrdynError
        If nothing could be measured of any model.

    Examples
    --------
    >>> settings = brdyn.reporting.ReportSettings(size="fast", n=4)
    >>> found = brdyn.report([model], "photos", "runs/report", settings, formats=())
    >>> found.models[0].sections
    ('phases', 'dynamics', 'perturb', 'interventions', 'splice')
    """
    check_alone()
    settings, stream = settings or ReportSettings(), stream or Stream()
    formats = check_formats(",".join(formats)) if formats else ()
    one_of("init", init, INITS)
    given = {one.info.name: one for one in models if isinstance(one, VisionTransformer)}
    named = subjects([one if isinstance(one, str) else one.info.name for one in models], init, settings.twin)
    kind = runtime.start_processes(device).device

    def open_model(subject: Subject) -> VisionTransformer:
        if subject.name in given:
            model = given[subject.name]
            return next(iter(untrained_twins(model, 1, settings.seed))) if subject.init == RANDOM else model
        return load_model(
            subject.name,
            init=subject.init,
            seed=settings.seed,
            image_size=image_size,
            device=kind,
            dtype=dtype,
        )

    open_images = partial(_images, images, settings)
    return make_report(
        named, open_model, open_images, expanded(out), settings, stream=stream, overwrite=overwrite, formats=formats,
        say=say,
    )  # fmt: skip


def _images(images: str | Path, settings: ReportSettings, model: VisionTransformer) -> ImageSet:
    return load_images(images, model, n=settings.n or settings.of_size.images, seed=settings.seed)
