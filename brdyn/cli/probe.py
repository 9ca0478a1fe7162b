"""`brdyn probe`: what can be read from a model's frozen features, and at which layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from brdyn.choices import SEEDS, check_layers
from brdyn.cli.checks import check_images
from brdyn.cli.dense_options import (
    CLASSIFICATION,
    Augment,
    Cache,
    Classes,
    DenseOptions,
    DepthUnit,
    Epochs,
    IgnoreIndex,
    Layers,
    MaxDepth,
    Palette,
    Protocol,
    TargetColumn,
    Task,
)
from brdyn.cli.given_phases import GivenPhases, NumberOfPhases, PhasesFile
from brdyn.cli.run import Run, RunRequest, open_run, run_command
from brdyn.errors import UsageError

if TYPE_CHECKING:
    from brdyn.data import ImageSet
    from brdyn.models import VisionTransformer

PROBE = "Probe"
RESULT, LAYER_RESULT = "probe.json", "layer_probe.json"

Test = Annotated[
    str | None,
    typer.Option(
        "--test",
        help="Test images, as --images (default: a fifth of the images, drawn with --seed).",
        rich_help_panel=PROBE,
    ),
]
TestNumber = Annotated[
    int | None, typer.Option("--test-n", help="Use this many test images.", min=1, rich_help_panel=PROBE)
]
Val = Annotated[
    str | None,
    typer.Option(
        "--val",
        help="Images to choose penalty and epoch by (default: a fifth of the training images, drawn with each seed).",
        rich_help_panel=PROBE,
    ),
]
Seeds = Annotated[
    int,
    typer.Option(
        "--seeds",
        help="Linear probes, each on its own split of the images.",
        min=1,
        max=1000,
        rich_help_panel=PROBE,
    ),
]


@run_command
def probe(
    request: RunRequest,
    test: Test = None,
    test_n: TestNumber = None,
    seeds: Seeds = SEEDS,
    task: Task = CLASSIFICATION,
    layers: Layers = None,
    val: Val = None,
    phases: PhasesFile = None,
    k: NumberOfPhases = None,
    target_column: TargetColumn = None,
    ignore_index: IgnoreIndex = None,
    classes: Classes = None,
    palette: Palette = None,
    depth_unit: DepthUnit = None,
    max_depth: MaxDepth = DenseOptions.max_depth,
    epochs: Epochs = None,
    protocol: Protocol = DenseOptions.protocol,
    augment: Augment = False,
    cache: Cache = None,
) -> None:
    """Read classes, masks or depth from frozen features, of the last layer or of every layer.

    Classes by a k-NN and a linear probe on cls and mean patch; masks and depth by linear heads on patches. Writes
    probe.json to --out, or layer_probe.json with --task or --layers: scores with their spread over seeds and over test
    images.
    """
    check_images(test, val)
    check_test_number(test, test_n)
    dense = DenseOptions(
        target_column=target_column, ignore_index=ignore_index, classes=classes, palette=palette,
        depth_unit=depth_unit, max_depth=max_depth, epochs=epochs, protocol=protocol, augment=augment, cache=cache,
    )  # fmt: skip
    dense.check(task)
    given = GivenPhases.read(phases, k)
    if task == CLASSIFICATION and layers is None:
        if val is not None or phases is not None or k is not None:
            raise UsageError("--val, --phases and --k go with --layers")
        _probe_last(request, test, test_n, seeds)
        return
    if given.phases is None and k is not None:
        raise UsageError("--k goes with --phases here")
    if val is not None and task == CLASSIFICATION:
        raise UsageError("--val does not go with --task classification, whose seeds draw what is held out")
    check_layers(layers or "last")
    _probe_layers(request, test, test_n, seeds, task, layers or "last", val, given, dense)


def _probe_last(request: RunRequest, test: str | None, test_n: int | None, seeds: int) -> None:
    """Classes, from the last layer."""
    with open_run(request, RESULT) as run:
        from brdyn.probes import probe_images

        others = None if test is None else second_set(run, test, test_n, "--test-n")
        run.finish(probe_images(run.model, run.images, others, seeds=seeds, seed=run.seed, stream=run.stream))


def _probe_layers(
    request: RunRequest,
    test: str | None,
    test_n: int | None,
    seeds: int,
    task: str,
    layers: str,
    val: str | None,
    given: GivenPhases,
    dense: DenseOptions,
) -> None:
    """Any task, from any layers."""

    def images_of(model: VisionTransformer) -> ImageSet:
        return dense.load(request.images, model, task, request, request.n, request.split)

    of_task = images_of if task != CLASSIFICATION else None
    with open_run(request, LAYER_RESULT, images_of=of_task, check=given.check) as run:
        from brdyn.probes import probe_layers

        others: dict[str, ImageSet | None] = {"test": None, "val": None}
        for name, source, n in (("test", test, test_n), ("val", val, None)):
            if source is not None and task == CLASSIFICATION:
                others[name] = second_set(run, source, n, f"--{name}-n")
            elif source is not None:
                others[name] = dense.load(source, run.model, task, request, n, None)
        found = probe_layers(
            run.model, run.images, others["test"], val=others["val"], layers=layers, phases=given.phases,
            seeds=seeds, seed=run.seed, stream=run.stream, say=typer.echo, **dense.run_options(task),
        )  # fmt: skip
        run.finish(found)


def check_test_number(test: str | None, n: int | None, option: str = "--test") -> None:
    """Refuse a number of test images where none are given."""
    if test is None and n is not None:
        raise UsageError(f"{option}-n goes with {option}")


def second_set(run: Run, images: str, n: int | None, option: str) -> ImageSet:
    """Other images than `--images`; the columns asked for count where they have them, and `@SPLIT` says their split."""
    from brdyn.data import load_images

    if n is not None and n < 1:
        raise UsageError(f"{option} {n}: at least one image is needed")
    return load_images(
        images,
        run.model,
        n=n,
        seed=run.seed,
        strict=run.images.strict,
        image_column=run.request.image_column,
        label_column=run.request.label_column,
        columns_where_there=True,
    )
