"""`brdyn vitrm-eval`: a trained ViTRM against its recursion steps, or another trained classifier as it is."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated

import typer

from brdyn.choices import RECURSION_STEPS
from brdyn.classifiers.config import MOST_STEPS
from brdyn.cli import checks
from brdyn.cli import options as opt
from brdyn.cli.run import finish, run_command, say_skipped
from brdyn.cli.vitrm_train import RECURSION
from brdyn.progress import stage
from brdyn.store import OutputFolder

RESULT = "vitrm_eval.json"


@dataclass(frozen=True, kw_only=True)
class EvalRequest(opt.ImagesRequest):
    """The options of `vitrm-eval`, as typed, with their defaults."""

    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a trained classifier, or cifar_vit12.")]
    data: Annotated[
        str,
        typer.Option(
            help="Test images: cifar10, cifar100 (their test split), or labelled images as --images takes them.",
            rich_help_panel=opt.IMAGES,
        ),
    ] = "cifar10"
    out: opt.Out
    split: opt.Split = None
    image_column: opt.ImageColumn = None
    label_column: opt.LabelColumn = None
    n: opt.Number = None
    seed: opt.Seed = 0
    device: opt.Device = "auto"
    workers: opt.Workers = None
    overwrite: opt.Overwrite = False
    formats: opt.Formats = "png"


@run_command(request=EvalRequest)
def vitrm_eval(
    request: EvalRequest,
    most: Annotated[
        int,
        typer.Option(help="Largest number of recursion steps.", min=1, max=MOST_STEPS, rich_help_panel=RECURSION),
    ] = RECURSION_STEPS,
    beyond: opt.Beyond = None,
) -> None:
    """Evaluate a ViTRM against its recursion steps: accuracy, calibration, step norm, images that stop by themselves,
    latency; another classifier as it is.

    Writes vitrm_eval.json and pictures to --out.
    """
    formats = checks.check_written(request, RESULT)
    checks.check_images(request.data)
    with ExitStack() as stack:
        with stage("loading torch"):
            from brdyn import runtime
            from brdyn.checked_json import expanded
            from brdyn.classifiers import Classifier, evaluate_classifier, load_pixels, packaged
            from brdyn.classifiers.saved import read_trained

        processes = stack.enter_context(runtime.start_processes(request.device))
        if not processes.is_main:
            return  # one is enough
        folder = stack.enter_context(OutputFolder(request.out, request.overwrite, result=RESULT))
        place = packaged.HOME if request.run == packaged.NAME else expanded(request.run)
        classifier, trained = Classifier.from_pretrained(place), read_trained(place)
        classifier.network.to(processes.device)
        images = load_pixels(
            request.data,
            classifier.image_size,
            train=False,
            workers=request.workers,
            **request.images_options(),
        )
        say_skipped(images.skipped, images.unlabelled)
        with stage("evaluating"):
            found = evaluate_classifier(
                classifier, images, most=most, beyond=beyond, trained=max(trained.steps, trained.n_sup)
            )
        finish(found, folder, formats)
