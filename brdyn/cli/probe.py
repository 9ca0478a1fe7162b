"""`brdyn probe`: how much of the classes can be read from a model's frozen features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from brdyn.choices import SEEDS
from brdyn.cli.checks import check_images
from brdyn.cli.run import Run, RunRequest, open_run, run_command
from brdyn.errors import UsageError

if TYPE_CHECKING:
    from brdyn.data import ImageSet

PROBE = "Probe"
RESULT = "probe.json"

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
def probe(request: RunRequest, test: Test = None, test_n: TestNumber = None, seeds: Seeds = SEEDS) -> None:
    """Classify labelled images by a k-NN and a linear probe on frozen features: cls and mean patch.

    Writes probe.json to --out: accuracies with their spread over seeds and over test images.
    """
    check_images(test)
    check_test_number(test, test_n)
    with open_run(request, RESULT) as run:
        from brdyn.probes import probe_images

        others = None if test is None else second_set(run, test, test_n, "--test-n")
        run.finish(probe_images(run.model, run.images, others, seeds=seeds, seed=run.seed, stream=run.stream))


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
