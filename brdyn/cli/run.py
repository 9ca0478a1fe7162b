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
from brdyn.choices import DTYPES, INITS, one_of
from brdyn.cli import checks
from brdyn.cli import options as opt
from brdyn.errors import BrdynError
from brdyn.words import counted

if TYPE_CHECKING:
    from brdyn.data import ImageSet
    from brdyn.data.labels import Unlabelled
    from brdyn.data.sources import ImageSource
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
    allow_code: opt.AllowCode = False
    teacher: opt.Teacher = None
    split: opt.Split = None
    image_column: opt.ImageColumn = None
    label_column: opt.LabelColumn = None
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
    request: RunRequest

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
            "unlabelled": report.unlabelled.to_dict(),
        }

    def provenance(self, **settings: Any) -> dict[str, Any]:
        """Where the numbers come from."""
        return results.provenance(
            self.model, self.images, self.processes, self.watch.seconds, seed=self.seed, **settings
        )

    def summarise(self, seconds: float | None = None) -> None:
        """Print what was run, and what was skipped.

        Parameters
        ----------
        seconds : float, optional
            That the images took; where the run did more than go through them once, none are told.
        """
        info, report = self.model.info, self.images.report
        marked = "  ** RANDOM WEIGHTS: an untrained network **" if info.is_random else ""
        typer.echo(
            f"{info.name}: {info.layers} layers, width {info.width}, weights from {info.weights}{marked}"
        )
        typer.echo(f"positions: {info.position_rule}")
        for note in info.notes:
            typer.echo(f"note: {note}")
        took = (
            ""
            if seconds is None
            else f" in {seconds:.1f} s with loading ({report.count / seconds:.1f} images/s)"
        )
        typer.echo(f"{report.count} images{took}")
        for line in chosen_of(self.images.source):
            typer.echo(line)
        say_skipped(report.skipped, report.unlabelled)


def chosen_of(source: ImageSource) -> Iterator[str]:
    """Which columns and split of several were taken, in a line if there is any."""
    said = [
        f"{what} {name!r}"
        for what, name in (
            ("images from column", source.image_column),
            ("labels from column", source.label_column),
            ("split", source.split),
        )
        if name is not None
    ]
    if said:
        yield ", ".join(said)


def say_skipped(skipped: Sequence[tuple[str, str]], unlabelled: Unlabelled) -> None:
    """Name images that could not be read, or have no label."""
    if unlabelled.count:
        typer.echo(f"  {unlabelled.describe()}")
    for name, why in skipped[:SKIPPED_SHOWN]:
        typer.echo(f"  skipped {name}: {why}")
    if skipped:
        typer.echo(f"  {counted(len(skipped), 'unreadable image')} skipped in all; the JSON names them")


def open_folder(
    stack: ExitStack, processes: Processes, path: Path, overwrite: bool, go_on_with: Sequence[str] = ()
) -> results.OutputFolder | None:
    """The output folder, in the process that writes; None in the others, which end where it is refused."""
    folder, refusal = None, None
    try:
        if processes.is_main:
            folder = stack.enter_context(results.OutputFolder(path, overwrite, go_on_with))
    except BrdynError as error:
        refusal = error
    processes.agree(refusal)
    return folder


@contextmanager
def open_run(
    request: RunRequest,
    *,
    float32: bool = False,
    go_on_with: Sequence[str] = (),
    columns_where_there: bool = False,
) -> Iterator[Run]:
    """Check the options, load the model and find the images; clean up when the command fails.

    Parameters
    ----------
    request : RunRequest
    float32 : bool
        Load the model in float32 whatever the precision asked for, as training does.
    go_on_with : sequence of str
        As in :class:`brdyn.results.OutputFolder`.
    columns_where_there : bool
        The columns asked for may be those of other images alone.
    """
    formats = checks.check_written(request, go_on=bool(go_on_with))
    size, batch_size = opt.parse_image_size(request.image_size), opt.parse_batch_size(request.batch_size)
    one_of("dtype", request.dtype, DTYPES)
    one_of("init", request.init, INITS)
    checks.check_images(request.images)
    checks.check_file("--weights", request.weights, folder=True)

    import torch  # here and below, once nothing plain is wrong

    from brdyn import runtime
    from brdyn.data import load_images
    from brdyn.models import load_model

    precision = runtime.resolve_dtype(request.dtype)
    with ExitStack() as stack:
        processes = stack.enter_context(runtime.start_processes(request.device))
        folder = open_folder(stack, processes, request.out, request.overwrite, go_on_with)
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
            allow_code=request.allow_code,
            teacher=request.teacher,
        )
        images = load_images(
            request.images,
            model,
            n=request.n,
            seed=request.seed,
            split=request.split,
            strict=request.strict,
            image_column=request.image_column,
            label_column=request.label_column,
            columns_where_there=columns_where_there,
        )
        stream = {
            "batch_size": batch_size,
            "workers": request.workers,
            "processes": processes,
            "progress": True,
        }
        yield Run(model, images, processes, folder, formats, stream, watch, request.seed, request)
