"""`brdyn vitrm-train`: ViTRM, and baselines beside it, from scratch; one run, or a grid of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from brdyn.choices import one_of
from brdyn.classifiers.architectures import ARCHITECTURES, Architecture
from brdyn.classifiers.config import MOST_STEPS, ViTRMConfig
from brdyn.classifiers.recipe import DROPOUT, VITRM_NAME, ClassifierRecipe
from brdyn.cli import checks
from brdyn.cli.run import run_command
from brdyn.cli.train_options import HELPS, NETWORK, RECIPE, TrainRequest
from brdyn.cli.training import Previous, Resume, Tracker, check_resume, check_tracker, to_go_on_with
from brdyn.errors import UsageError
from brdyn.progress import stage
from brdyn.store.result_files import GRID_RESULT, TRAIN_RESULT
from brdyn.store.unfinished import goes_on

RECURSION = "Recursion"


@dataclass(frozen=True, kw_only=True)
class ViTRMRequest(TrainRequest):
    """With the networks that are trained by ViTRM's recipe."""

    model: Annotated[
        str,
        typer.Option(
            help="vitrm, vit-small, vit-base, vit-large, vit-tiny12, resnet18, resnet34 or resnet50.",
            rich_help_panel=NETWORK,
        ),
    ] = VITRM_NAME


@run_command(request=ViTRMRequest, recipe=ClassifierRecipe, helps=HELPS)
def vitrm_train(
    request: ViTRMRequest,
    epochs: Annotated[
        float | None,
        typer.Option(help="Default: as published, 1000 for vitrm and 300 for others.", rich_help_panel=RECIPE),
    ] = None,
    warmup_epochs: Annotated[
        float | None,
        typer.Option(help="Default: as published, 30 and 10; at most a tenth of all.", rich_help_panel=RECIPE),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            help="Decay of an average of the weights, which is the result; 0 for none (default: 0.999 and 0).",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option(help="After attention and MLP (default: 0.1; a ResNet has none).", rich_help_panel=NETWORK),
    ] = None,
    latent_steps: Annotated[
        int, typer.Option(help="n, updates of the latent in a step.", min=1, rich_help_panel=RECURSION)
    ] = ViTRMConfig.latent_steps,
    n_sup: Annotated[
        int,
        typer.Option(
            help="N_sup, steps that a batch is trained for.", min=1, max=MOST_STEPS, rich_help_panel=RECURSION
        ),
    ] = 1,
    recursion_steps: Annotated[
        int,
        typer.Option(help="T, recursion steps for an answer.", min=1, max=MOST_STEPS, rich_help_panel=RECURSION),
    ] = 1,
    sees_image: Annotated[
        bool,
        typer.Option(
            help="Whether all updates of the latent see the image, or it starts from it alone.",
            rich_help_panel=RECURSION,
        ),
    ] = True,
    shared_stages: Annotated[
        bool,
        typer.Option(
            help="Whether the blocks of a ResNet's stage share their convolutions; each keeps its normalisations.",
            rich_help_panel=NETWORK,
        ),
    ] = False,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="Train one vitrm for each combination, as `--grid n=1,3,6 n_sup=1,2`, each in a folder of its own in "
            "--out; grid.json has them all. With --resume: those that are missing.",
            rich_help_panel=RECURSION,
        ),
    ] = None,
    more_of_grid: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    resume: Resume = False,
    previous: Previous = False,
    tracker: Tracker = "none",
    **recipe: Any,
) -> None:
    """Train a ViTRM, or a baseline by the same recipe, from scratch on small images.

    Writes the classifier (config.json, model.safetensors), train.json and train.png to --out; `--resume` goes on
    after an interruption.
    """
    check_resume(resume, previous)
    check_tracker(tracker)
    architecture = ARCHITECTURES[one_of("network", request.model, ARCHITECTURES)]
    cells = _cells(architecture, grid or [], more_of_grid or [])
    for key, option, beside in (
        ("n", "--latent-steps", latent_steps != ViTRMConfig.latent_steps), ("n_sup", "--n-sup", n_sup != 1),
    ):  # fmt: skip
        if cells and key in cells[0] and beside:
            raise UsageError(f"--grid says {key} of every run; drop {option}")
    chosen = request.recipe(architecture.published, epochs, warmup_epochs, ema, recipe)
    built = _built(architecture, request.sizes(), dropout, latent_steps, sees_image, shared_stages)
    architecture.check(request.image_size, **built)
    if not architecture.is_recursive and (n_sup > 1 or recursion_steps > 1):
        raise UsageError(f"--n-sup and --recursion-steps are of vitrm, and this is {request.model}")
    names = _names(cells)
    result = GRID_RESULT if cells else TRAIN_RESULT
    go_on = goes_on(request.out, to_go_on_with(resume, result, names))
    formats = checks.check_written(request, result, go_on=go_on)
    checks.check_images(request.data, request.test)
    with stage("loading torch"):
        from brdyn.classifiers.training import ClassifierRun
        from brdyn.cli.training_jobs import open_job, run_grid

    run = ClassifierRun(
        network=request.model,
        recipe=chosen,
        image_size=request.image_size,
        built=built,
        n_sup=n_sup,
        steps=recursion_steps,
    )
    with open_job(request, formats, resume, previous, tracker, names) as (job, folder):
        if cells:
            run_grid(job, run, cells, request.out, folder)
        else:
            job.train_alone(run, request.out, folder)


def _cells(architecture: Architecture, grid: list[str], more: list[str]) -> list[dict[str, int]]:
    """The cells of a grid; none where no grid is asked for. Its keys may follow as arguments, as in the shell."""
    from brdyn.classifiers.grid import parse_grid

    if more and not grid:
        raise UsageError(f"vitrm-train takes no argument ({more[0]!r}); its options are in vitrm-train --help")
    if not grid:
        return []
    if not architecture.is_recursive:
        raise UsageError(f"--grid is of vitrm, and this is {architecture.name}")
    return parse_grid([word for given in (*grid, *more) for word in given.split()])


def _names(cells: list[dict[str, int]]) -> list[str]:
    """The folders of the cells."""
    from brdyn.classifiers.grid import cell_name

    return [cell_name(cell) for cell in cells]


def _built(
    architecture: Architecture,
    sizes: dict[str, int],
    dropout: float | None,
    latent_steps: int,
    sees_image: bool,
    shared_stages: bool,
) -> dict[str, Any]:
    """What the network is built with, beside classes and image size."""
    name = architecture.name
    if not architecture.is_recursive and (latent_steps != ViTRMConfig.latent_steps or not sees_image):
        raise UsageError(f"--latent-steps and --no-sees-image are of vitrm, and this is {name}")
    if shared_stages and "shared_stages" not in architecture.options():
        raise UsageError(
            f"--shared-stages is of ResNets, and this is {name}; layers of a ViT share blocks by "
            "`brdyn vit-train --shared-blocks`"
        )
    if not architecture.is_transformer:
        if sizes:
            raise UsageError(f"{', '.join(f'--{size}' for size in sizes)}: a {name} comes in one size")
        if dropout:
            raise UsageError(f"--dropout: a {name} has none")
        return {"shared_stages": True} if shared_stages else {}
    built: dict[str, Any] = {"dropout": DROPOUT if dropout is None else dropout, **sizes}
    if architecture.is_recursive:
        built |= {"latent_steps": latent_steps, "sees_image": sees_image}
    return built
