"""`brdyn probe`: what can be read from a model's frozen features, and at which layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from brdyn.choices import SEEDS
from brdyn.cli.checks import check_images
from brdyn.cli.dense_options import DenseRequest
from brdyn.cli.given_phases import GivenPhases, MarkedPhases, NumberOfMarked
from brdyn.cli.run import Run, open_run, run_command
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


@run_command(request=DenseRequest)
def probe(
    request: DenseRequest,
    test: Test = None,
    test_n: TestNumber = None,
    val: Val = None,
    seeds: Seeds = SEEDS,
    phases: MarkedPhases = None,
    k: NumberOfMarked = None,
) -> None:
    """Read classes, masks or depth from frozen features, of the last layer or of every layer.

    Classes by a k-NN and a linear probe on cls and mean patch; masks and depth by linear heads on patches. Writes
    probe.json to --out, or layer_probe.json with --task, --layers, --val or --protocol published: scores with their
    spread over seeds and over test images.
    """
    check_images(test, val)
    check_test_number(test, test_n)
    request.check(test)
    given = GivenPhases.read(phases, k)
    if phases is None and k is not None:
        raise UsageError("--k goes with --phases")
    if phases is not None and not request.by_layer:
        raise UsageError("--phases goes with --layers or --task")
    if request.by_layer or val is not None:
        _probe_layers(request, test, test_n, val, seeds, given)
    else:
        _probe_last(request, test, test_n, seeds)


def _probe_last(request: DenseRequest, test: str | None, test_n: int | None, seeds: int) -> None:
    """Classes, from the last layer."""
    with open_run(request, RESULT) as run:
        from brdyn.probes import probe_images

        others = None if test is None else second_set(run, test, test_n, "--test-n")
        run.finish(probe_images(run.model, run.images, others, seeds=seeds, seed=run.seed, stream=run.stream))


def _probe_layers(
    request: DenseRequest,
    test: str | None,
    test_n: int | None,
    val: str | None,
    seeds: int,
    given: GivenPhases,
) -> None:
    """Any task, from any layers."""

    def pairs(model: VisionTransformer) -> ImageSet:
        return request.load(request.images, model, request.n, request.split)

    def others(run: Run, source: str | None, n: int | None) -> ImageSet | None:
        if source is None:
            return None
        if request.dense:
            return request.load(source, run.model, n, test=source == test)
        return second_set(run, source, n, "--test-n")

    with open_run(request, LAYER_RESULT, images_of=pairs if request.dense else None, check=given.check) as run:
        from brdyn.probes import probe_layers

        found = probe_layers(
            run.model, run.images, others(run, test, test_n), val=others(run, val, None), phases=given.phases,
            seeds=seeds, stream=run.stream, **request.options(),
        )  # fmt: skip
        run.finish(found)


def check_test_number(test: str | None, n: int | None, option: str = "--test") -> None:
    """Refuse a number of test images where none are given."""
    if test is None and n is not None:
        raise UsageError(f"{option}-n goes with {option}")


def second_set(run: Run, images: str, n: int | None, option: str) -> ImageSet:
    """Other images than `--images`; the columns asked for count where they have them, and `@SPLIT` says their split."""
    if n is not None and n < 1:
        raise UsageError(f"{option} {n}: at least one image is needed")
    return run.request.open_images(images, run.model, n=n, split=None, columns_where_there=True)
