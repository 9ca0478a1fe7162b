"""`brdyn vitrm-train` and `vitrm-eval`: ViTRM, and baselines beside it, from scratch."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brdyn import results
from brdyn.classification.recipe import BASELINE, DROPOUT, ClassifierRecipe
from brdyn.classification.recipe import VITRM as VITRM_RECIPE
from brdyn.cli import options as opt
from brdyn.cli.run import run_command
from brdyn.cli.training import (
    CHECKPOINTS,
    Previous,
    Resume,
    Tracker,
    check_resume,
    checkpoint_to_resume,
    open_tracker,
)
from brdyn.errors import UsageError

if TYPE_CHECKING:
    from brdyn.classification.pixels import PixelSet
    from brdyn.classification.saved import Classifier
    from brdyn.training import History

RESULT = "train.json"
NETWORK, RECIPE, RECURSION = "Network", "Recipe", "Recursion"
VITRM = "vitrm"
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
    "group": "Images that share a RandAugment operation.",
    "mixup": "Alpha of Mixup; 0 for none.",
    "cutmix": "Alpha of CutMix; 0 for none.",
    "log_every": "Steps between losses in train.json (default: a hundred logs).",
    "validate_every": "Steps between accuracies (default: fifty).",
    "checkpoint_every": "Steps between checkpoints (default: fifty).",
}


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """The options of commands that train a classifier, as typed, with their defaults."""

    model: Annotated[
        str,
        typer.Option(
            help="vitrm, vit-small, vit-base, vit-large, resnet18, resnet34 or resnet50.",
            rich_help_panel=NETWORK,
        ),
    ] = VITRM
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
    chosen = _recipe(request, epochs, warmup_epochs, ema, recipe)
    if request.model == VITRM:
        built: dict[str, Any] = {"latent_steps": latent_steps, "sees_image": sees_image, "dropout": dropout}
    else:
        if n_sup > 1 or steps > 1:
            raise UsageError(f"--n-sup and --steps are of vitrm, and this is {request.model}")
        built = {} if request.model.startswith("resnet") else {"dropout": dropout}
    formats = results.check_formats(request.formats)
    with ExitStack() as stack:
        from brdyn import runtime
        from brdyn.classification.fit import train_classifier
        from brdyn.classification.saved import Classifier
        from brdyn.training import Checkpoints
        from brdyn.training.loop import make_accelerator

        processes = stack.enter_context(runtime.start_processes(request.device))
        folder = results.OutputFolder(request.out, request.overwrite or resume) if processes.is_main else None
        if folder is not None:
            stack.enter_context(folder)
        watch = results.Stopwatch()
        images, test = _images(request)
        classifier = Classifier.new(
            request.model, images.names, request.image_size, *images.statistics(), seed=request.seed, **built
        )
        accelerator = make_accelerator(processes.device)
        options = {
            "network": request.model, "built": built, "n_sup": n_sup, "steps": steps, "image_size": request.image_size,
            "data": {"source": images.description, "images": len(images), "digest": images.digest},
            "recipe": chosen.to_dict(), "processes": processes.world,
        }  # fmt: skip
        checkpoints = Checkpoints(request.out / CHECKPOINTS, options, anew=not resume)
        report = open_tracker(tracker, request.out, {1: 0}, is_main=processes.is_main)
        history = train_classifier(
            classifier,
            images,
            chosen,
            validation=test,
            supervision=n_sup,
            steps=steps,
            checkpoints=checkpoints,
            resume=checkpoint_to_resume(
                request.out, RESULT, checkpoints, resume, previous, say=processes.is_main
            ),
            accelerator=accelerator,
            report=report,
            progress=True,
        )
        if folder is not None:
            _write(
                folder,
                formats,
                classifier,
                images,
                test,
                history,
                options,
                watch.seconds,
                processes.device.type,
            )
            shutil.rmtree(request.out / CHECKPOINTS, ignore_errors=True)


def _recipe(
    request: TrainRequest,
    epochs: float | None,
    warmup: float | None,
    ema: float | None,
    given: dict[str, Any],
) -> ClassifierRecipe:
    """The published recipe of the network, changed as asked for."""
    published = VITRM_RECIPE if request.model == VITRM else BASELINE
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


def _write(
    folder: results.OutputFolder,
    formats: tuple[str, ...],
    classifier: Classifier,
    images: PixelSet,
    test: PixelSet | None,
    history: History,
    options: dict[str, Any],
    seconds: float,
    device: str,
) -> None:
    from brdyn import plots
    from brdyn.classification.evaluation import accuracy

    right = accuracy(classifier, test, options["steps"]) if test is not None else None
    classifier.save_pretrained(folder.path, trained=options)
    content = {
        "network": classifier.name,
        "parameters": classifier.parameters,
        "test": None
        if test is None
        else {"source": test.description, "images": len(test), "digest": test.digest},
        "accuracy": right,
        "options": options,
        "history": asdict(history),
        "seconds": round(seconds, 1),
        "provenance": results.run_provenance(device),
    }
    pictures = {
        "train": plots.plot_fit({1: history}, title=classifier.name, watched="accuracy on test images")
    }
    folder.save(RESULT, content, pictures, formats)
    recipe = options["recipe"]
    typer.echo(f"{classifier.name}: {classifier.parameters / 1e6:.2f} M parameters")
    typer.echo(
        f"{recipe['epochs']:g} epochs of {len(images)} images in {seconds:.0f} s with loading "
        f"({history.images_per_second:.0f} images/s)"
    )
    if right is not None:
        typer.echo(f"accuracy on {len(test or ())} test images: {right:.2%}")
    typer.echo(f"written to {folder.path}: config.json, model.safetensors, train.json and train.png")


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """The options of `vitrm-eval`, as typed, with their defaults."""

    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a trained classifier.")]
    data: Annotated[
        str,
        typer.Option(
            help="Test images: cifar10, cifar100 (their test split), a parquet file or folder with labels.",
            rich_help_panel=opt.IMAGES,
        ),
    ] = "cifar10"
    out: opt.Out
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
        int, typer.Option(help="Largest number of recursion steps.", min=1, rich_help_panel=RECURSION)
    ] = 8,
) -> None:
    """Evaluate a ViTRM against its recursion steps: accuracy, macro F1, halting, latency; a baseline as it is.

    Writes vitrm_eval.json and pictures to --out.
    """
    formats = results.check_formats(request.formats)
    with results.OutputFolder(request.out, request.overwrite) as folder:
        from brdyn import plots, runtime
        from brdyn.classification.evaluation import accuracy_and_f1, check_classes, class_scores
        from brdyn.classification.pixels import load_pixels
        from brdyn.classification.saved import Classifier
        from brdyn.vitrm.evaluation import evaluate_recursion

        processes = runtime.start_processes(request.device)
        classifier = Classifier.from_pretrained(request.run)
        classifier.network.to(processes.device)
        images = load_pixels(
            request.data,
            classifier.image_size,
            train=False,
            n=request.n,
            seed=request.seed,
            workers=request.workers,
        )
        check_classes(classifier, images)
        content: dict[str, Any] = {
            "network": classifier.name,
            "parameters": classifier.parameters,
            "digest": classifier.digest,
            "test": {"source": images.description, "images": len(images), "digest": images.digest},
        }
        pictures = {}
        if classifier.name == VITRM:
            found = evaluate_recursion(classifier, images, most=most)
            content |= found.to_dict()
            pictures["recursion"] = plots.plot_recursion(found.steps, found.adaptive, title=request.run)
            pictures["halting"] = plots.plot_halting(found.halting, title=request.run)
        else:
            content |= accuracy_and_f1(class_scores(classifier, images).argmax(1), images.labels)
        content["provenance"] = results.run_provenance(processes.device.type)
        folder.save("vitrm_eval.json", content, pictures, formats)
        _summarise(content, request.out)


def _summarise(content: dict[str, Any], out: Any) -> None:
    network, size, count = content["network"], content["parameters"] / 1e6, content["test"]["images"]
    typer.echo(f"{network}: {size:.2f} M parameters, {count} images")
    if "steps" not in content:
        typer.echo(f"accuracy {content['accuracy']:.2%}, macro F1 {content['macro_f1']:.3f}")
    for row in content.get("steps", ()):
        typer.echo(
            f"  {row['steps']} steps: accuracy {row['accuracy']:.2%}, macro F1 {row['macro_f1']:.3f}, calibration "
            f"error {row['calibration_error']:.3f}, {row['latency_ms']:.1f} ms an image, "
            f"{row['images_per_second']:.0f} images/s"
        )
    for row in content.get("adaptive", ()):
        typer.echo(
            f"  halting above {row['threshold']:g}: accuracy {row['accuracy']:.2%} in {row['mean_steps']:.2f} steps "
            "on average"
        )
    typer.echo(f"written to {out}: vitrm_eval.json" + (" and pictures" if "steps" in content else ""))
