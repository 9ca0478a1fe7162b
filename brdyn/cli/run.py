"""What every command that runs a model over images does first and last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import partial
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from brdyn import results
from brdyn.cli import options as opt

if TYPE_CHECKING:
    from brdyn.data import ImageSet
    from brdyn.models import VisionTransformer
    from brdyn.runtime import Processes

SKIPPED_SHOWN = 5
RECIPE = "Recipe"


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The options that such commands share, as typed, with their defaults."""

    model: opt.Model = "imgfocus_vits14"
    images: opt.Images = "samples"
    out: opt.Out
    weights: opt.Weights = None
    weights_key: opt.WeightsKey = None
    init: opt.Init = "pretrained"
    image_size: opt.ImageSize = None
    allow_pickle: opt.AllowPickle = False
    split: opt.Split = None
    n: opt.Number = None
    strict: opt.Strict = False
    seed: opt.Seed = 0
    device: opt.Device = "auto"
    dtype: opt.Dtype = "float32"
    batch_size: opt.BatchSize = "auto"
    workers: opt.Workers = None
    overwrite: opt.Overwrite = False
    formats: opt.Formats = "png"


def run_command(
    command: Callable[..., None] | None = None,
    *,
    request: type = RunRequest,
    subject: Any = None,
    recipe: type | None = None,
    helps: Mapping[str, str] | None = None,
) -> Callable[..., Any]:
    """Give a command the options of a request besides its own, as its first argument `request`.

    Results go to `runs/NAME` by default, NAME being the command's.

    Parameters
    ----------
    command : callable
    request : dataclass
        Options that several commands share; one of its fields is `out`.
    subject : annotated type, optional
        The model as an argument of the command instead of an option.
    recipe : dataclass, optional
        Each of its fields named in `helps` becomes an option with the field's default; the command gets their values
        by keyword.
    helps : mapping of str to str, optional
        What each of these options is for.
    """
    if command is None:
        return partial(run_command, request=request, subject=subject, recipe=recipe, helps=helps)
    wrapped = command
    hints = get_type_hints(request, include_extras=True)
    defaults = {field.name: field.default for field in fields(request)}
    defaults["out"] = Path("runs") / command.__name__.replace("_", "-")
    if subject is not None:
        hints["model"], defaults["model"] = subject, Parameter.empty
    shared = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[name])
        for name, default in defaults.items()
    ]
    own = [
        parameter.replace(kind=Parameter.KEYWORD_ONLY)
        for parameter in list(signature(command, eval_str=True).parameters.values())[1:]
        if parameter.kind is not Parameter.VAR_KEYWORD
    ]
    parameters = [*shared[:3], *own, *_recipe_options(recipe, helps or {}), *shared[3:]]

    def run(**values: Any) -> None:
        wrapped(request(**{name: values.pop(name) for name in defaults}), **values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _recipe_options(recipe: type | None, helps: Mapping[str, str]) -> list[Parameter]:
    """Options for the fields of a dataclass."""
    if recipe is None:
        return []
    hints = get_type_hints(recipe)
    defaults = {field.name: field.default for field in fields(recipe)}
    return [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=defaults[name],
            annotation=Annotated[hints[name], typer.Option(help=text, rich_help_panel=RECIPE)],
        )
        for name, text in helps.items()
    ]


@dataclass
class Run:
    """A loaded model, its images, and where results go.

    Attributes
    ----------
    model, images, processes
        What to compute with.
    folder : OutputFolder or None
        None in processes that do not write.
    formats : tuple of str
        Picture formats asked for.
    stream : dict
        How to go through the images: the options of :func:`brdyn.measures.measure`.
    watch : Stopwatch
        Wall time since the run began.
    """

    model: VisionTransformer
    images: ImageSet
    processes: Processes
    folder: results.OutputFolder | None
    formats: tuple[str, ...]
    stream: dict[str, Any]
    watch: results.Stopwatch
    seed: int

    @property
    def title(self) -> str:
        """Heading of pictures; untrained networks are marked."""
        return self.model.info.name + (" (random weights)" if self.model.info.is_random else "")

    def header(self) -> dict[str, Any]:
        """The first entries of every result file."""
        report = self.images.report
        return {
            "model": self.model.info.name,
            "weights": self.model.info.weights,
            "n_images": report.count,
            "skipped": [skipped._asdict() for skipped in report.skipped],
        }

    def provenance(self, **settings: Any) -> dict[str, Any]:
        """Where the numbers come from."""
        return results.provenance(
            self.model, self.images, self.processes, self.watch.seconds, seed=self.seed, **settings
        )

    def summarise(self) -> None:
        """Print what was run, and what was skipped."""
        info, report = self.model.info, self.images.report
        marked = "  ** RANDOM WEIGHTS: an untrained network **" if info.is_random else ""
        typer.echo(
            f"{info.name}: {info.layers} layers, width {info.width}, weights from {info.weights}{marked}"
        )
        typer.echo(f"positions: {info.position_rule}")
        for note in info.notes:
            typer.echo(f"note: {note}")
        seconds = self.watch.seconds
        typer.echo(
            f"{report.count} images in {seconds:.1f} s with loading ({report.count / seconds:.1f} images/s)"
        )
        say_skipped(report.skipped)


def say_skipped(skipped: Sequence[tuple[str, str]]) -> None:
    """Name images that could not be read."""
    for name, why in skipped[:SKIPPED_SHOWN]:
        typer.echo(f"  skipped {name}: {why}")
    if skipped:
        typer.echo(f"  {len(skipped)} unreadable images skipped in all; the JSON names them")


@contextmanager
def open_run(request: RunRequest, *, float32: bool = False, go_on: bool = False) -> Iterator[Run]:
    """Check the options, load the model and find the images; clean up when the command fails.

    Parameters
    ----------
    request : RunRequest
    float32 : bool
        Load the model in float32 whatever the precision asked for, as training does.
    go_on : bool
        Allow an output folder that holds an unfinished run.
    """
    import torch

    from brdyn import runtime
    from brdyn.data import load_images
    from brdyn.models import load_model

    formats = results.check_formats(request.formats)
    size, batch_size = opt.parse_image_size(request.image_size), opt.parse_batch_size(request.batch_size)
    precision = runtime.resolve_dtype(request.dtype)
    with ExitStack() as stack:
        processes = stack.enter_context(runtime.start_processes(request.device))
        folder = (
            stack.enter_context(results.OutputFolder(request.out, request.overwrite or go_on))
            if processes.is_main
            else None
        )
        watch = results.Stopwatch()
        model = load_model(
            request.model,
            weights=request.weights,
            weights_key=request.weights_key,
            init=request.init,
            seed=request.seed,
            image_size=size,
            device=processes.device,
            dtype=torch.float32 if float32 else precision,
            allow_pickle=request.allow_pickle,
        )
        images = load_images(
            request.images, model, n=request.n, seed=request.seed, split=request.split, strict=request.strict
        )
        stream = {
            "batch_size": batch_size,
            "workers": request.workers,
            "processes": processes,
            "progress": True,
        }
        yield Run(model, images, processes, folder, formats, stream, watch, request.seed)
