"""`brdyn raptor-eval`: how faithful a Raptor is, layer by layer, and what its features are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from brdyn.cli.checks import check_images
from brdyn.cli.probe import PROBE, Seeds, describe, image_set, second_set, train_and_test
from brdyn.cli.run import Run, RunRequest, open_run, run_command, say_skipped
from brdyn.errors import UsageError
from brdyn.results import OutputFolder

if TYPE_CHECKING:
    from brdyn.data import ImageSet
    from brdyn.raptor import Raptor
    from brdyn.raptor.evaluation import Evaluation

Fitted = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a fitted Raptor.")]
ProbeTrain = Annotated[
    str | None,
    typer.Option(
        "--probe-train", help="Labelled images to fit probes on (none: no probes).", rich_help_panel=PROBE
    ),
]
ProbeTest = Annotated[
    str | None,
    typer.Option(
        "--probe-test",
        help="Labelled images to test them on (default: a fifth of the others).",
        rich_help_panel=PROBE,
    ),
]
ProbeNumber = Annotated[
    int | None, typer.Option("--probe-n", help="Use this many to fit.", min=1, rich_help_panel=PROBE)
]
ProbeTestNumber = Annotated[
    int | None, typer.Option("--probe-test-n", help="Use this many to test.", min=1, rich_help_panel=PROBE)
]


@run_command(subject=Fitted)
def raptor_eval(
    request: RunRequest,
    probe_train: ProbeTrain = None,
    probe_test: ProbeTest = None,
    probe_n: ProbeNumber = None,
    probe_test_n: ProbeTestNumber = None,
    seeds: Seeds = 3,
) -> None:
    """Compare a Raptor with its teacher: R^2, relative error, cosine and epsilon per layer; cost; probes.

    Errors are measured on --images, autoregressive (the Raptor's own way from the embedding) and one-step (every layer
    from the teacher's state). Writes raptor_eval.json, fidelity.parquet and pictures to --out.
    """
    if probe_train is None and (probe_test, probe_n, probe_test_n) != (None, None, None):
        raise UsageError("--probe-test, --probe-n and --probe-test-n go with --probe-train")
    check_images(probe_train, probe_test)
    with open_run(request, columns_where_there=probe_train is not None) as run:
        from brdyn.raptor import Raptor
        from brdyn.raptor.evaluation import evaluate

        raptor = run.model
        if not isinstance(raptor, Raptor):
            raise UsageError(f"{request.model!r} is not a Raptor; give the --out folder of brdyn raptor-fit")
        train = test = None
        if probe_train is not None:
            labelled = second_set(run, probe_train, probe_n, "--probe-n")
            check_columns(request, run.images, labelled)
            train, test = train_and_test(run, labelled, probe_test, probe_test_n, option="--probe-test")
        found = evaluate(raptor, run.images, train, test, seeds=seeds, **run.stream)
        if run.folder is not None:
            _write(run, run.folder, raptor, found, train, test)
            _summarise(run, run.folder, raptor, found)
            for part in (train, test):
                if part is not None:
                    say_skipped(part.report.skipped, part.report.unlabelled)


def check_columns(request: RunRequest, *sets: ImageSet) -> None:
    """Refuse columns that none of several sets has."""
    for name, option, found in (
        (request.image_column, "--image-column", [images.source.image_column for images in sets]),
        (request.label_column, "--label-column", [images.source.label_column for images in sets]),
    ):
        if name is not None and name not in found:
            raise UsageError(f"{option} {name}: neither --images nor --probe-train has such a column")


def _write(
    run: Run,
    folder: OutputFolder,
    raptor: Raptor,
    found: Evaluation,
    train: ImageSet | None,
    test: ImageSet | None,
) -> None:
    from brdyn import plots
    from brdyn.raptor.evaluation import FILE

    content = {
        **run.header(),
        "teacher": raptor.teacher.info.name,
        "assignment": list(raptor.assignment),
        "probe_images": None
        if train is None or test is None
        else {"train": image_set(train), "test": image_set(test)},
        **found.to_dict(),
        "provenance": run.provenance(),
    }
    title = f"{raptor.k} blocks for the {raptor.depth} layers of {raptor.teacher.info.name}"
    pictures = {"fidelity": plots.plot_fidelity(found.fidelity.table, raptor.spans, title=title)}
    files = {"fidelity.parquet": found.fidelity.table.to_parquet(index=False)}
    folder.save(FILE, content, pictures, run.formats, files)


def _summarise(run: Run, folder: OutputFolder, raptor: Raptor, found: Evaluation) -> None:
    run.summarise()
    table = found.fidelity.table
    for mode, rows in table.groupby("mode", sort=False):
        ends = rows[rows["layer"] == raptor.depth].pivot(index="group", columns="statistic", values="mean")
        typer.echo(f"\n{mode}, last layer:")
        for group in dict.fromkeys(rows["group"]):
            values = ends.loc[group]
            typer.echo(
                f"  {group}: R² {values['r2']:.3f}, relative error {values['relative_error']:.3f}, "
                f"cosine {values['cosine']:.3f}, epsilon {values['epsilon']:.3g}"
            )
    curves = {group: found.fidelity.curve("r2", group) for group in dict.fromkeys(table["group"])}
    least = ", ".join(
        f"{group} {curve.min():.3f} (layer {curve.idxmin()})" for group, curve in curves.items()
    )
    typer.echo(f"least R² on the way (autoregressive): {least}")
    if found.fidelity.agreement is not None:
        typer.echo(
            f"the head of the teacher gives the same class for {found.fidelity.agreement:.1%} of the images"
        )
    if found.fidelity.accuracy is not None:
        typer.echo(
            f"accuracy by that head: {found.fidelity.accuracy:.1%}, teacher {found.fidelity.teacher_accuracy:.1%}"
        )
    cost = found.cost
    assert cost is not None
    typer.echo(
        f"\nblocks: {cost.block_parameters / 1e6:.1f} M parameters against "
        f"{cost.teacher_block_parameters / 1e6:.1f} M; "
        f"{cost.flops / 1e9:.2f} GFLOP an image against {cost.teacher_flops / 1e9:.2f}; "
        f"{cost.images_per_second:.0f} images/s against {cost.teacher_images_per_second:.0f}"
    )
    if found.probing is not None:
        describe(found.probing)
    else:
        typer.echo("no probes: give labelled images by --probe-train")
    typer.echo(f"written to {folder.path}: raptor_eval.json, fidelity.parquet and pictures")
