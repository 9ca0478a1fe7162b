"""`brdyn vit-train`: a small ViT from scratch, with stochastic depth, and classifiers kept on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from brdyn.choices import one_of
from brdyn.classifiers.architectures import UNSCALED, VITS
from brdyn.classifiers.recipe import BASELINE, BEST, ClassifierRecipe, parse_keep
from brdyn.classifiers.sharing import CYCLE, SEQUENCE
from brdyn.cli import checks
from brdyn.cli.run import run_command
from brdyn.cli.train_options import HELPS, NETWORK, RECIPE, TrainRequest
from brdyn.cli.training import PANEL, Previous, Resume, Tracker, check_resume, check_tracker, to_go_on_with
from brdyn.errors import UsageError
from brdyn.progress import stage
from brdyn.store.result_files import TRAIN_RESULT
from brdyn.store.unfinished import goes_on

MOST_HELD_OUT = 2000
SMALL = "vit-tiny12"


@dataclass(frozen=True, kw_only=True)
class ViTRequest(TrainRequest):
    """With the ViTs."""

    model: Annotated[
        str,
        typer.Option(
            help="vit-tiny12 (12 layers, width 192, 3 heads, patch 4), vit-small, vit-base or vit-large.",
            rich_help_panel=NETWORK,
        ),
    ] = SMALL


@run_command(request=ViTRequest, recipe=ClassifierRecipe, helps=HELPS)
def vit_train(
    request: ViTRequest,
    drop_path: Annotated[
        float,
        typer.Option(
            help="Chance that a branch of a layer is left out for an image, the same at every layer.",
            rich_help_panel=NETWORK,
        ),
    ] = 0.0,
    dropout: Annotated[float, typer.Option(help="After attention and MLP.", rich_help_panel=NETWORK)] = 0.0,
    shared_blocks: Annotated[
        int,
        typer.Option(
            help="Blocks that the layers share, 1 for the same at each; 0: every layer has its own.",
            min=0,
            rich_help_panel=NETWORK,
        ),
    ] = 0,
    partition: Annotated[
        str,
        typer.Option(
            help="Which layers share one: sequence (000111), cycle (010101), or the block of each layer, as 0,0,1.",
            rich_help_panel=NETWORK,
        ),
    ] = SEQUENCE,
    depth_scaling: Annotated[
        str,
        typer.Option(
            help="Factors by which a block knows its layer: index, constant (the same at each), or none.",
            rich_help_panel=NETWORK,
        ),
    ] = UNSCALED,
    epochs: Annotated[float, typer.Option(help="Passes over the images.", rich_help_panel=RECIPE)] = BASELINE.epochs,
    warmup_epochs: Annotated[
        float | None,
        typer.Option(help="Default: 10, at most a tenth of all.", rich_help_panel=RECIPE),
    ] = None,
    ema: Annotated[
        float,
        typer.Option(
            help="Decay of an average of the weights, which is the result; 0 for none.",
            rich_help_panel=RECIPE,
        ),
    ] = 0.0,
    keep: Annotated[
        str,
        typer.Option(
            help="Also keep the classifiers of these epochs, as `0,10,best` (0: untrained), in --out/epoch0, "
            "--out/best, ...; the last epoch's is --out itself.",
            rich_help_panel=PANEL,
        ),
    ] = "",
    held_out: Annotated[
        int | None,
        typer.Option(
            help="Training images to watch the accuracy on and choose the best by, instead of the test images "
            "(default: with `--keep best` a tenth, at most 2000; else none).",
            min=0,
            rich_help_panel=PANEL,
        ),
    ] = None,
    resume: Resume = False,
    previous: Previous = False,
    tracker: Tracker = "none",
    **recipe: Any,
) -> None:
    """Train a small ViT from scratch on small images, with uniform stochastic depth.

    Writes the classifier (config.json, model.safetensors), those to --keep, train.json and train.png to --out;
    `--resume` goes on after an interruption. Each is a model for every other command: `--model runs/vit-train/best`.
    """
    check_resume(resume, previous)
    check_tracker(tracker)
    formats = checks.check_written(
        request, TRAIN_RESULT, go_on=goes_on(request.out, to_go_on_with(resume, TRAIN_RESULT))
    )
    checks.check_images(request.data, request.test)
    one_of("ViT", request.model, VITS)
    kept = parse_keep(keep)
    chosen = request.recipe(BASELINE, epochs, warmup_epochs, ema, recipe)
    if partition == CYCLE and not shared_blocks:
        raise UsageError(f"--partition {CYCLE} goes with --shared-blocks")
    built: dict[str, Any] = {"drop_path": drop_path, "dropout": dropout, **request.sizes()}
    if shared_blocks or partition != SEQUENCE:
        built |= {"shared_blocks": shared_blocks, "partition": partition}
    if depth_scaling != UNSCALED:
        built |= {"depth_scaling": depth_scaling}
    VITS[request.model].check(request.image_size, **built)
    with stage("loading torch"):
        from brdyn.classifiers.training import ClassifierRun
        from brdyn.cli.training_jobs import open_job

    with open_job(request, formats, resume, previous, tracker) as (job, folder):
        if held_out is None:
            held_out = min(MOST_HELD_OUT, len(job.images) // 10) if BEST in kept else 0
        run = ClassifierRun(
            network=request.model,
            recipe=chosen,
            image_size=request.image_size,
            built=built,
            keep=kept,
            held_out=held_out,
        )
        job.train_alone(run, request.out, folder)
