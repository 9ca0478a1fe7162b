"""`brdyn probe`: how much of the classes can be read from a model's frozen features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from brdyn.cli.checks import check_images
from brdyn.cli.run import Run, RunRequest, open_run, run_command, say_skipped
from brdyn.errors import UsageError
from brdyn.results import image_provenance

if TYPE_CHECKING:
    from brdyn.data import ImageSet
    from brdyn.probes import Probing

PROBE = "Probe"
TEST_SHARE = 0.2

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
def probe(request: RunRequest, test: Test = None, test_n: TestNumber = None, seeds: Seeds = 3) -> None:
    """Classify labelled images by a k-NN and a linear probe on frozen features: cls and mean patch.

    Writes probe.json to --out: accuracies with their spread over seeds and over test images.
    """
    check_images(test)
    with open_run(request) as run:
        from brdyn.probes import extract_features
        from brdyn.probes import probe as run_probe

        training, testing = train_and_test(run, run.images, test, test_n)
        train = extract_features(run.model, training, **run.stream)
        tested = extract_features(run.model, testing, **run.stream)
        if run.folder is not None:
            found = run_probe(train, tested, seeds=seeds, device=run.model.device)
            run.images = training
            content = {
                **run.header(),
                "images": {"train": image_set(training), "test": image_set(testing)},
                "probing": found.to_dict(),
                "provenance": run.provenance(),
            }
            run.folder.save("probe.json", content)
            run.summarise()
            say_skipped(testing.report.skipped, testing.report.unlabelled)
            describe(found)
            typer.echo(f"written to {run.folder.path}: probe.json")


def image_set(images: ImageSet) -> dict[str, Any]:
    """Which images were read, and which could not be."""
    report = images.report
    return {
        **image_provenance(images),
        "skipped": [skipped._asdict() for skipped in report.skipped],
        "unlabelled": report.unlabelled.to_dict(),
    }


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


def train_and_test(
    run: Run, images: ImageSet, test: str | None, n: int | None, *, option: str = "--test"
) -> tuple[ImageSet, ImageSet]:
    """Labelled images to fit probes on, and to test them.

    Raises
    ------
    UsageError
        If either has no labels, or they name different classes.
    """
    from brdyn.probes.features import check_labelled

    check_labelled(images)
    if test is None:
        if n is not None:
            raise UsageError(f"{option}-n goes with {option}")
        learning, held_out = images.split(max(1, round(TEST_SHARE * len(images))), run.seed)
        assert held_out is not None
        return learning, held_out
    others = second_set(run, test, n, f"{option}-n")
    check_labelled(others)
    if len(images.source) == len(others.source):
        both = np.intersect1d(images.indices(), others.indices())
        if len(both) and images.source.fingerprint() == others.source.fingerprint():
            raise UsageError(
                f"{len(both)} images are both to fit the probe and to test it; give others by {option}, or drop it: a "
                "fifth of the images is then kept for the test"
            )
    first, second = images.label_names, others.label_names
    if first and second and first != second:
        raise UsageError(
            f"{images.source.description!r} and {others.source.description!r} name different classes"
        )
    return images, others


def describe(found: Probing) -> None:
    """Print accuracies and ratios."""
    typer.echo(
        f"probes: {found.n_train} training and {found.n_test} test images of {found.classes} classes; the most "
        f"frequent class alone gets {found.most_frequent:.1%}"
    )
    for row in found.summary().to_dict(orient="records"):
        over = f", sd {row['sd']:.1%} over {row['seeds']} seeds" if row["seeds"] > 1 else ""
        typer.echo(
            f"  {row['model']}, {row['probe']}: {row['accuracy']:.1%} ({row['low']:.1%} to {row['high']:.1%}){over}"
        )
    for model in found.at_the_end():
        typer.echo(f"  note: a linear probe of {model} chose the strongest or weakest penalty it could")
    for row in found.ratios.to_dict(orient="records"):
        typer.echo(
            f"  {row['model']} keeps {row['ratio']:.1%} ({row['low']:.1%} to {row['high']:.1%}) by {row['probe']}"
        )
