"""`brdyn raptor-eval`: how faithful a Raptor is, layer by layer, and what its features are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from brdyn.choices import SEEDS
from brdyn.cli import options as opt
from brdyn.cli.checks import check_images
from brdyn.cli.dense_options import DenseRequest
from brdyn.cli.probe import PROBE, Seeds, check_test_number, second_set
from brdyn.cli.run import RunRequest, open_run, run_command
from brdyn.errors import UsageError

if TYPE_CHECKING:
    from brdyn.data import ImageSet

RESULT = "raptor_eval.json"
Fitted = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a fitted Raptor.")]
ProbeTrain = Annotated[
    str | None,
    typer.Option("--probe-train", help="Labelled images to fit probes on (none: no probes).", rich_help_panel=PROBE),
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


@run_command(subject=Fitted, request=DenseRequest)
def raptor_eval(
    request: DenseRequest,
    probe_train: ProbeTrain = None,
    probe_test: ProbeTest = None,
    probe_n: ProbeNumber = None,
    probe_test_n: ProbeTestNumber = None,
    seeds: Seeds = SEEDS,
    beyond: opt.Beyond = None,
) -> None:
    """Compare a Raptor with its teacher: R^2, relative error, cosine and epsilon per layer; cost; probes.

    Errors are measured on --images, autoregressive (the Raptor's own way from the embedding) and one-step (every layer
    from the teacher's state). With --task or --layers masks, depth or classes are read from the layers of both. Writes
    raptor_eval.json, fidelity.parquet and pictures to --out.
    """
    request.check(probe_test)
    if probe_train is None and request.by_layer:
        raise UsageError("--task, --layers and --protocol go with --probe-train")
    if probe_train is None and (probe_test, probe_n, probe_test_n) != (None, None, None):
        raise UsageError("--probe-test, --probe-n and --probe-test-n go with --probe-train")
    if probe_train is None and seeds != SEEDS:
        raise UsageError(f"--seeds {seeds} is of probes, and there are none without --probe-train")
    check_images(probe_train, probe_test)
    check_test_number(probe_test, probe_test_n, "--probe-test")
    with open_run(request, RESULT, columns_where_there=probe_train is not None) as run:
        from brdyn.raptor import Raptor
        from brdyn.raptor.evaluation import evaluate

        raptor = run.model
        if not isinstance(raptor, Raptor):
            raise UsageError(f"{request.model!r} is not a Raptor; give the --out folder of brdyn raptor-fit")
        train: ImageSet | None = None
        test: ImageSet | None = None
        if probe_train is not None and request.dense:
            train = request.load(probe_train, raptor, probe_n)
            test = None if probe_test is None else request.load(probe_test, raptor, probe_test_n, test=True)
        elif probe_train is not None:
            train = second_set(run, probe_train, probe_n, "--probe-n")
            check_columns(request, run.images, train)
            test = None if probe_test is None else second_set(run, probe_test, probe_test_n, "--probe-test-n")
        layered = request.options() if request.by_layer else None
        run.finish(
            evaluate(
                raptor,
                run.images,
                train,
                test,
                seeds=seeds,
                stream=run.stream,
                layer_options=layered,
                beyond=beyond,
            )
        )


def check_columns(request: RunRequest, *sets: ImageSet) -> None:
    """Refuse columns that none of several sets has."""
    for name, option, found in (
        (request.image_column, "--image-column", [images.source.image_column for images in sets]),
        (request.label_column, "--label-column", [images.source.label_column for images in sets]),
    ):
        if name is not None and name not in found:
            raise UsageError(f"{option} {name}: neither --images nor --probe-train has such a column")
