"""`brdyn vitrm-train`: ViTRM, and baselines beside it, from scratch; one run, or a grid of them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brdyn import results
from brdyn.classification.recipe import BASELINE, DROPOUT, VITRM_NAME, ClassifierRecipe
from brdyn.classification.recipe import VITRM as VITRM_RECIPE
from brdyn.cli import options as opt
from brdyn.cli.run import run_command, say_skipped
from brdyn.cli.training import (
    CHECKPOINTS,
    Previous,
    Resume,
    Tracker,
    check_resume,
    check_tracker,
    checkpoint_to_resume,
    open_tracker,
)
from brdyn.errors import BrdynError, UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from brdyn.classification.pixels import PixelSet
    from brdyn.classification.run import ClassifierRun
    from brdyn.training import Checkpoints, Saved

RESULT, GRID_RESULT = "train.json", "grid.json"
NETWORK, RECIPE, RECURSION = "Network", "Recipe", "Recursion"
SIZES = ("width", "depth", "heads", "hidden", "patch")
HELPS = {
    "batch_size": "Images of a step.",
    "lr": "Learning rate of AdamW.",
    "min_lr": "Learning rate at the last step.",
    "weight_decay": "Of AdamW.",
    "clip": "Largest gradient norm; 0 for none.",
    "accumulate": "Pieces that a batch goes through in.",
    "compile": "Compile the network.",
    "padding": "Pixels around an image from which a crop is drawn; 0 for none.",
    "flip": "Mirror half of the images.",
    "operations": "Of RandAugment; 0 for none.",
    "magnitude": "Of RandAugment, up to 30.",
    "mixup": "Alpha of Mixup; 0 for none.",
    "cutmix": "Alpha of CutMix; 0 for none.",
    "log_every": "Steps between losses in train.json (default: a hundred logs).",
    "validate_every": "Steps between accuracies (default: fifty).",
    "checkpoint_every": "Steps between checkpoints (default: fifty).",
}


def _size(what: str) -> Any:
    return Annotated[
        int | None,
        typer.Option(help=f"{what} (default: as published).", min=1, rich_help_panel=NETWORK),
    ]


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """The options of commands that train a classifier, as typed, with their defaults."""

    model: Annotated[
        str,
        typer.Option(
            help="vitrm, vit-small, vit-base, vit-large, resnet18, resnet34 or resnet50.",
            rich_help_panel=NETWORK,
        ),
    ] = VITRM_NAME
    data: Annotated[
        str,
        typer.Option(
            help="Training images: cifar10, cifar100, a parquet file with labels, or a folder of class folders.",
            rich_help_panel=opt.IMAGES,
        ),
    ] = "cifar10"
    test: Annotated[
        str | None,
        typer.Option(
            help="Test images, as --data (default: the test split of cifar10 and cifar100, else none).",
            rich_help_panel=opt.IMAGES,
        ),
    ] = None
    out: opt.Out
    image_size: Annotated[
        int, typer.Option(help="Side in pixels that images are resized to.", min=1, rich_help_panel=NETWORK)
    ] = 32
    width: _size("Units of a token") = None  # type: ignore[valid-type]
    depth: _size("Layers of the network (of vitrm: of the shared one)") = None  # type: ignore[valid-type]
    heads: _size("Attention heads") = None  # type: ignore[valid-type]
    hidden: _size("Hidden units of the MLP") = None  # type: ignore[valid-type]
    patch: _size("Side of a patch in pixels") = None  # type: ignore[valid-type]
    n: opt.Number = None
    seed: opt.Seed = 0
    device: opt.Device = "auto"
    dtype: opt.Dtype = "float32"
    workers: opt.Workers = None
    overwrite: opt.Overwrite = False
    formats: opt.Formats = "png"


@run_command(request=TrainRequest, recipe=ClassifierRecipe, helps=HELPS)
def vitrm_train(
    request: TrainRequest,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="Default: as published, 1000 for vitrm and 300 for others.", rich_help_panel=RECIPE
        ),
    ] = None,
    warmup_epochs: Annotated[
        float | None,
        typer.Option(
            help="Default: as published, 30 and 10; at most a tenth of all.", rich_help_panel=RECIPE
        ),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            help="Decay of an average of the weights, which is the result; 0 for none (default: 0.999 and 0).",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    dropout: Annotated[
        float, typer.Option(help="After attention and MLP.", rich_help_panel=NETWORK)
    ] = DROPOUT,
    latent_steps: Annotated[
        int, typer.Option(help="n, updates of the latent in a step.", min=1, rich_help_panel=RECURSION)
    ] = 3,
    n_sup: Annotated[
        int, typer.Option(help="N_sup, steps that a batch is trained for.", min=1, rich_help_panel=RECURSION)
    ] = 1,
    steps: Annotated[int, typer.Option(help="T, steps for an answer.", min=1, rich_help_panel=RECURSION)] = 1,
    sees_image: Annotated[
        bool, typer.Option(help="Whether the latent's updates see the image.", rich_help_panel=RECURSION)
    ] = True,
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
    cells = _cells(request, grid or [], more_of_grid or [])
    chosen = _recipe(request, epochs, warmup_epochs, ema, recipe)
    built = _built(request, dropout, latent_steps, sees_image)
    if request.model != VITRM_NAME and (n_sup > 1 or steps > 1):
        raise UsageError(f"--n-sup and --steps are of vitrm, and this is {request.model}")
    formats = results.check_formats(request.formats)
    with ExitStack() as stack:
        from brdyn import runtime
        from brdyn.classification.run import ClassifierRun
        from brdyn.training.loop import make_accelerator

        processes = stack.enter_context(runtime.start_processes(request.device))
        folder = results.OutputFolder(request.out, request.overwrite or resume) if processes.is_main else None
        if folder is not None:
            stack.enter_context(folder)
        images, test = _images(request)
        if processes.is_main:
            say_skipped([*images.skipped, *(test.skipped if test is not None else ())])
        job = _Job(
            images,
            test,
            make_accelerator(processes.device),
            processes.world,
            formats,
            resume,
            previous,
            tracker,
        )
        run = ClassifierRun(
            network=request.model,
            recipe=chosen,
            image_size=request.image_size,
            built=built,
            n_sup=n_sup,
            steps=steps,
        )
        if cells:
            _train_grid(job, run, cells, request.out, folder)
            return
        content = job.train(run, request.out, folder)
        if content is not None:
            _summarise(content)
            typer.echo(f"written to {request.out}: config.json, model.safetensors, train.json and train.png")


@dataclass(frozen=True)
class _Job:
    """What the runs of one command share."""

    images: PixelSet
    test: PixelSet | None
    accelerator: Accelerator
    processes: int
    formats: tuple[str, ...]
    resume: bool
    previous: bool
    tracker: str

    def train(
        self, run: ClassifierRun, out: Path, folder: results.OutputFolder | None, *, may_be_new: bool = False
    ) -> dict[str, Any] | None:
        """One run to its end.

        Parameters
        ----------
        run : ClassifierRun
        out : Path
        folder : OutputFolder or None
            At `out`; None in a process that does not write.
        may_be_new : bool
            When resuming, a run without a checkpoint begins.
        """
        checkpoints = self.checkpoints(run, out)
        saved: Saved | None = None
        if not may_be_new or checkpoints.paths():
            saved = checkpoint_to_resume(
                out, RESULT, checkpoints, self.resume, self.previous, say=folder is not None
            )
        with open_tracker(self.tracker, out, {1: 0}, is_main=folder is not None) as report:
            return run.train(
                self.images,
                folder,
                checkpoints,
                test=self.test,
                resume=saved,
                accelerator=self.accelerator,
                formats=self.formats,
                report=report,
                progress=True,
            )

    def checkpoints(self, run: ClassifierRun, out: Path) -> Checkpoints:
        """Those of a run in a folder."""
        from brdyn.training import Checkpoints

        options = run.options(self.images, self.test, self.processes)
        return Checkpoints(out / CHECKPOINTS, options, anew=not self.resume)

    def finished(self, run: ClassifierRun, out: Path) -> dict[str, Any] | None:
        """What a finished run says; None where it is still to be trained, or to be trained anew.

        Raises
        ------
        UsageError
            If it is of other options.
        """
        from brdyn.training.settings import differences

        checkpoints = self.checkpoints(run, out)
        if not self.resume or checkpoints.paths() or not (out / RESULT).is_file():
            return None
        content = results.read_json(out / RESULT, "a training run", ("options",))
        changed = differences(content["options"], checkpoints.options)
        if changed:
            raise UsageError(
                f"{str(out)!r} is of a run with other options ({'; '.join(changed)}); resume with the same, or choose "
                "another --out"
            )
        return content


def _train_grid(
    job: _Job,
    run: ClassifierRun,
    cells: list[dict[str, int]],
    out: Path,
    folder: results.OutputFolder | None,
) -> None:
    """Every cell in a folder of its own; `grid.json` is written anew after each. One that fails does not stop the rest.

    Raises
    ------
    BrdynError
        At the end, if some failed.
    """
    from brdyn.vitrm.grid import cell_name

    runs = {
        cell_name(cell): replace(
            run,
            built={**run.built, "latent_steps": cell.get("n", run.built["latent_steps"])},
            n_sup=cell.get("n_sup", run.n_sup),
        )
        for cell in cells
    }
    if folder is not None and not job.resume:
        for name in runs:  # of another grid: not to be taken for this one's when it is resumed
            (out / name / RESULT).unlink(missing_ok=True)
    finished = {name: content for name, one in runs.items() if (content := job.finished(one, out / name))}
    failed: dict[str, str] = {}
    for name, one in runs.items():
        if name not in finished:
            try:
                with ExitStack() as stack:
                    own = results.OutputFolder(out / name, overwrite=True) if folder is not None else None
                    if own is not None:
                        stack.enter_context(own)
                    content = job.train(one, out / name, own, may_be_new=True)
            except UsageError:
                raise
            except BrdynError as error:
                failed[name] = str(error)
                content = None
            if content is not None:
                finished[name] = content
        if folder is not None:
            said = failed.get(name) or "trained"
            if name in finished and job.test is not None:
                said = f"accuracy {finished[name]['accuracy']:.2%}"
            typer.echo(f"{name}: {said}")
            _write_grid(job, runs, finished, failed, folder)
    if failed:
        raise BrdynError(
            f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)} ({next(iter(failed.values()))})"
        )
    if folder is not None:
        typer.echo(f"written to {out}: {GRID_RESULT} and a folder for each of {len(runs)} runs")


def _write_grid(
    job: _Job,
    runs: dict[str, ClassifierRun],
    finished: dict[str, dict[str, Any]],
    failed: dict[str, str],
    folder: results.OutputFolder,
) -> None:
    """What is there so far."""
    from brdyn import plots

    rows = [
        {
            "n": one.built["latent_steps"],
            "n_sup": one.n_sup,
            "accuracy": finished[name]["accuracy"],
            "parameters": finished[name]["parameters"],
            "train_seconds": finished[name]["history"]["seconds"],
            "images_per_second": finished[name]["history"]["images_per_second"],
        }
        for name, one in runs.items()
        if name in finished
    ]
    content = {
        "cells": rows,
        "asked": list(runs),
        "failed": failed,
        "test": None if job.test is None else job.test.identity(),
        "provenance": results.run_provenance(job.accelerator.device.type),
    }
    pictures = {"grid": plots.plot_grid(rows)} if job.test is not None and rows else {}
    folder.save(GRID_RESULT, content, pictures, job.formats)


def _cells(request: TrainRequest, grid: list[str], more: list[str]) -> list[dict[str, int]]:
    """The cells of a grid; none where no grid is asked for. Its keys may follow as arguments, as in the shell."""
    from brdyn.vitrm.grid import parse_grid

    if more and not grid:
        raise UsageError(
            f"vitrm-train takes no argument ({more[0]!r}); its options are in vitrm-train --help"
        )
    if not grid:
        return []
    if request.model != VITRM_NAME:
        raise UsageError(f"--grid is of vitrm, and this is {request.model}")
    return parse_grid([word for given in (*grid, *more) for word in given.split()])


def _recipe(
    request: TrainRequest,
    epochs: float | None,
    warmup: float | None,
    ema: float | None,
    given: dict[str, Any],
) -> ClassifierRecipe:
    """The published recipe of the network, changed as asked for."""
    published = VITRM_RECIPE if request.model == VITRM_NAME else BASELINE
    total = published.epochs if epochs is None else epochs
    return replace(
        published,
        epochs=total,
        warmup_epochs=min(published.warmup_epochs, total / 10) if warmup is None else warmup,
        ema=published.ema if ema is None else ema,
        precision=request.dtype,
        seed=request.seed,
        **given,
    )


def _built(request: TrainRequest, dropout: float, latent_steps: int, sees_image: bool) -> dict[str, Any]:
    """What the network is built with, beside classes and image size."""
    sizes = {name: value for name in SIZES if (value := getattr(request, name)) is not None}
    if request.model.startswith("resnet"):
        if sizes:
            raise UsageError(
                f"{', '.join(f'--{name}' for name in sizes)}: a {request.model} comes in one size"
            )
        return {}
    built: dict[str, Any] = {"dropout": dropout, **sizes}
    if request.model == VITRM_NAME:
        built |= {"latent_steps": latent_steps, "sees_image": sees_image}
    return built


def _images(request: TrainRequest) -> tuple[PixelSet, PixelSet | None]:
    """Training and test images."""
    from brdyn.classification.pixels import NAMED, load_pixels

    images = load_pixels(
        request.data, request.image_size, n=request.n, seed=request.seed, workers=request.workers
    )
    source = request.test or (request.data if request.data in NAMED else None)
    if source is None:
        return images, None
    test = load_pixels(source, request.image_size, train=False, workers=request.workers)
    if test.names != images.names:
        raise UsageError(
            f"{images.description!r} has {images.classes} classes and {test.description!r} {test.classes}, or they are "
            "named otherwise; give test images of the same classes"
        )
    return images, test


def _summarise(content: dict[str, Any]) -> None:
    options, history = content["options"], content["history"]
    typer.echo(f"{content['network']}: {content['parameters'] / 1e6:.2f} M parameters")
    typer.echo(
        f"{options['recipe']['epochs']:g} epochs of {options['data']['images']} images in {content['seconds']:.0f} s "
        f"({history['images_per_second']:.0f} images/s)"
    )
    if content["accuracy"] is not None:
        typer.echo(f"accuracy on {content['test']['images']} test images: {content['accuracy']:.2%}")
