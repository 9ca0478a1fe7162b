"""What every command that runs a model over images does first and last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import MISSING, dataclass, fields
from functools import partial
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from brdyn.choices import DTYPES, INITS, check_code, check_named, check_numbers, check_source, one_of
from brdyn.cli import checks
from brdyn.cli import options as opt
from brdyn.cli.output import mention, tell
from brdyn.errors import BrdynError
from brdyn.progress import stage
from brdyn.provenance import Stopwatch, skipped_lines
from brdyn.store import OutputFolder, unfinished
from brdyn.words import first_line

if TYPE_CHECKING:
    import torch

    from brdyn.data import ImageSet
    from brdyn.data.labels import Unlabelled
    from brdyn.models import VisionTransformer
    from brdyn.result import Result
    from brdyn.runtime import Processes
    from brdyn.trajectory import Stream

RECIPE = "Recipe"


@dataclass(frozen=True, kw_only=True)
class RunRequest(opt.ImagesRequest):
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

    def open_model(self, name: str, init: str, device: torch.device, dtype: str) -> VisionTransformer:
        """Load a model as asked for; one that is untrained without the weights that others have."""
        from brdyn.models import load_model

        trained = init != "random"
        return load_model(
            name,
            weights=self.weights if trained else None,
            weights_key=self.weights_key if trained else None,
            init=init,
            seed=self.seed,
            image_size=opt.parse_image_size(self.image_size),
            device=device,
            dtype=dtype,
            allow_pickle=self.allow_pickle,
            allow_code=self.allow_code,
            teacher=self.teacher,
        )

    def open_images(self, images: str, model: VisionTransformer, **others: Any) -> ImageSet:
        """Find images for a model as asked for; `others` count more than what was typed."""
        from brdyn.data import load_images

        return load_images(images, model, strict=self.strict, **self.images_options(**others))


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
    defaults = {field.name: Parameter.empty if field.default is MISSING else field.default for field in fields(request)}
    defaults["out"] = Path("runs") / command.__name__.replace("_", "-")
    if subject is not None:
        hints["model"], defaults["model"] = subject, Parameter.empty
    shared = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[name])
        for name, default in defaults.items()
    ]
    own = opt.own_options(command)[1:]
    parameters = [*shared[:3], *own, *_recipe_options(recipe, helps or {}), *shared[3:]]

    def run(**values: Any) -> None:
        check_numbers({name: value for name, value in values.items() if name != "seed"})
        wrapped(request(**{name: values.pop(name) for name in defaults}), **values)

    return opt.with_options(run, command, parameters)


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
    stream : Stream
        How to go through the images.
    watch : Stopwatch
        Wall time since the run began.
    """

    model: VisionTransformer
    images: ImageSet
    processes: Processes
    folder: OutputFolder | None
    formats: tuple[str, ...]
    stream: Stream
    watch: Stopwatch
    seed: int
    request: RunRequest

    def finish(self, result: Result | None, end: Callable[[], None] = lambda: None) -> None:
        """Write what was found as the result of this run, end it, and say it."""
        finish(None if result is None else result.lasting(self.watch), self.folder, self.formats, end=end)


def finish(
    result: Result | None,
    folder: OutputFolder | None,
    formats: tuple[str, ...],
    beside: Sequence[str] = (),
    end: Callable[[], None] = lambda: None,
) -> None:
    """Write a result with its pictures, and say it; nothing in processes that do not write.

    Parameters
    ----------
    result : Result or None
    folder : OutputFolder or None
    formats : tuple of str
        Of the pictures.
    beside : sequence of str
        What else the run has left in the folder, to say.
    end : callable
        Called once the result is written, and before it is said: whoever reads standard output may have gone.
    """
    if folder is None or result is None:
        return
    with stage("drawing"):
        files = write_drawn(result, folder, formats)
    end()
    tell(result, folder.path, [*files, *beside])


def write_drawn(result: Result, folder: OutputFolder, formats: tuple[str, ...]) -> list[str]:
    """Write a result with its pictures; the names of the files. Where those cannot be drawn it is written without."""
    from brdyn import plots

    try:
        return result.write(folder, plots.draw(result), formats)
    except (BrdynError, OSError):
        raise
    except Exception as error:  # whatever it is, numbers may have taken hours
        result.write(folder)
        raise BrdynError(
            f"the numbers are in {str(folder.path)!r}, without pictures: drawing them failed with an unforeseen "
            f"{type(error).__name__}: {first_line(error)}; `brdyn plot` tries again"
        ) from error


def say_skipped(skipped: Sequence[tuple[str, str]], unlabelled: Unlabelled, images: str = "") -> None:
    """Name images that could not be read, or have no label."""
    named = [{"name": name, "reason": why} for name, why in skipped]
    for line in skipped_lines(named, unlabelled.to_dict(), images):
        mention(line)


def open_folder(
    stack: ExitStack,
    processes: Processes,
    path: Path,
    result: str | None,
    overwrite: bool,
    go_on_with: Sequence[str] = (),
) -> OutputFolder | None:
    """The output folder, in the process that writes; None in the others, which end where it is refused."""
    folder, refusal = None, None
    try:
        if processes.is_main:
            folder = stack.enter_context(OutputFolder(path, overwrite, go_on_with, result))
    except BrdynError as error:
        refusal = error
    processes.agree(refusal)
    return folder


def _described(request: RunRequest) -> VisionTransformer | None:
    """The model without its weights; None where that takes as much, or only loading it can say what is wrong."""
    from brdyn.models import describe_model
    from brdyn.models.own_family import matches

    if matches(request.model) or request.teacher is not None:
        return None  # code is run once
    if request.weights is not None and request.weights.is_dir():
        return None  # its config is there
    try:
        return describe_model(request.model, opt.parse_image_size(request.image_size))
    except BrdynError:
        return None


def check_run(
    request: RunRequest, models: Sequence[str], result: str, *, go_on: bool
) -> tuple[tuple[str, ...], int | str]:
    """Refuse what the shared options alone show to be wrong: before torch is loaded, or a model.

    Returns
    -------
    tuple
        The formats of pictures, the batch size.
    """
    formats = checks.check_written(request, result, go_on=go_on)
    opt.parse_image_size(request.image_size)
    batch_size = opt.parse_batch_size(request.batch_size)
    one_of("dtype", request.dtype, DTYPES)
    one_of("init", request.init, INITS)
    for name in models:
        check_named(name)
        check_code(name, request.allow_code)
    check_code(request.teacher or "", request.allow_code)
    check_source(request.init == "random", request.weights is not None, request.weights_key)
    checks.check_images(request.images)
    checks.check_file("--weights", request.weights, folder=True)
    return formats, batch_size


@contextmanager
def open_run(
    request: RunRequest,
    result: str,
    *,
    float32: bool = False,
    go_on_with: Sequence[str] = (),
    columns_where_there: bool = False,
    check: Callable[[VisionTransformer], None] | None = None,
    images_of: Callable[[VisionTransformer], ImageSet] | None = None,
) -> Iterator[Run]:
    """Check the options, load the model and find the images; clean up when the command fails.

    Parameters
    ----------
    request : RunRequest
    result : str
        The JSON file that the command writes.
    float32 : bool
        Load the model in float32 whatever the precision asked for, as training does.
    go_on_with : sequence of str
        As in :class:`brdyn.store.OutputFolder`.
    columns_where_there : bool
        The columns asked for may be those of other images alone.
    check : callable, optional
        Refuses a model that the options do not fit: called with its description before its weights are read, which may
        be a download, and with the model.
    images_of : callable, optional
        Finds the images for a model, where they are not found as those of other commands.
    """
    formats, batch_size = check_run(request, [request.model], result, go_on=unfinished.goes_on(request.out, go_on_with))
    with stage("loading torch"):  # here and below, once nothing plain is wrong
        from brdyn import runtime
        from brdyn.trajectory import Stream

    with ExitStack() as stack:
        processes = stack.enter_context(runtime.start_processes(request.device))
        folder = open_folder(stack, processes, request.out, result, request.overwrite, go_on_with)
        watch = Stopwatch()
        with stage(f"loading {request.model}"):
            described = None if check is None else _described(request)
            if check is not None and described is not None:
                check(described)
            dtype = "float32" if float32 else request.dtype
            model = request.open_model(request.model, request.init, processes.device, dtype)
        if check is not None:
            check(model)
        with stage(f"finding images: {request.images}"):
            images = (
                request.open_images(request.images, model, columns_where_there=columns_where_there)
                if images_of is None
                else images_of(model)
            )
        stream = Stream(batch_size=batch_size, workers=request.workers, processes=processes, progress=True)
        with stage("computing", at_once=False):
            yield Run(model, images, processes, folder, formats, stream, watch, request.seed, request)
