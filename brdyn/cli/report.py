"""`brdyn report`: from a model's name to a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from brdyn.choices import MOST_TWINS
from brdyn.cli import options as opt
from brdyn.cli import output
from brdyn.cli.run import RunRequest, check_run, run_command
from brdyn.errors import BrdynError, UsageError
from brdyn.progress import stage, tell
from brdyn.reporting.plan import (
    PAGE,
    REPORT,
    ReportSettings,
    check_alone,
    check_others,
    is_report,
    others_reported,
    subjects,
)
from brdyn.words import as_typed

PANEL = "Report"

Models = Annotated[
    list[str],
    typer.Option(
        help="As in other commands; give it several times to report on several models.",
        rich_help_panel=opt.MODEL,
    ),
]
Number = Annotated[
    int | None,
    typer.Option(
        "--n",
        "-n",
        help="Images of phases and dynamics (default: 1000; 100 with --fast, 5000 with --thorough).",
        min=1,
        rich_help_panel=opt.IMAGES,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace results in --out that are of other images, weights or settings.",
        rich_help_panel=opt.OUTPUT,
    ),
]


@dataclass(frozen=True, kw_only=True)
class ManyRequest(RunRequest):
    """With several models."""

    model: Models = ("imgfocus_vits14",)  # type: ignore[assignment]
    n: Number = None
    overwrite: Overwrite = False


@run_command(request=ManyRequest)
def report(
    request: ManyRequest,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="Few images and operations: minutes on a CPU.", rich_help_panel=PANEL),
    ] = False,
    thorough: Annotated[
        bool,
        typer.Option("--thorough", help="Many images, every operation.", rich_help_panel=PANEL),
    ] = False,
    null: Annotated[
        int,
        typer.Option(
            "--null",
            help="Measure this many untrained twins beside each model; each takes as long as the model.",
            min=0,
            max=MOST_TWINS,
            rich_help_panel=PANEL,
        ),
    ] = 0,
    twin: Annotated[
        bool,
        typer.Option(
            "--twin",
            help="Report on an untrained network of each model's architecture besides, as on a model.",
            rich_help_panel=PANEL,
        ),
    ] = False,
    raptor: Annotated[
        list[str],
        typer.Option(
            help="Folder of a Raptor of one of the models, to judge it; may be given for each.",
            rich_help_panel=PANEL,
        ),
    ] = [],  # noqa: B006
    fit_raptor: Annotated[
        int,
        typer.Option(
            help="Fit a Raptor to each model that none is given of, by this many steps, and judge it.",
            min=0,
            rich_help_panel=PANEL,
        ),
    ] = 0,
    probe: Annotated[
        list[str],
        typer.Option(
            help="Folder of brdyn probe --layers on one of the models, to tell which layers to read for masks, depth, "
            "classes; may be given several times.",
            rich_help_panel=PANEL,
        ),
    ] = [],  # noqa: B006
) -> None:
    """From a model's name to a verdict: phases, dynamics, perturbation, interventions, splicing, and a page on them.

    Writes report.html, report.json, and of each model a folder with the result of each section, to --out. The same
    command again goes on where it was stopped, and uses what is there.

    Example: brdyn report --model dinov2_vits14 --twin --images photos/ --fast --out runs/report
    """
    check_alone()
    out = request.out
    formats, batch_size = check_run(request, request.model, REPORT, go_on=is_report(out))
    if fast and thorough:
        raise UsageError("--fast and --thorough exclude each other; drop one of them")
    settings = ReportSettings(
        size="fast" if fast else "thorough" if thorough else "default",
        n=request.n,
        null=null,
        twin=twin,
        raptors=tuple(raptor),
        fit_raptor=fit_raptor,
        probes=tuple(probe),
        seed=request.seed,
    )
    models = subjects(request.model, request.init, twin)
    if not request.overwrite:
        check_others(out, others_reported(out, models))
    if request.weights is not None and len(request.model) > 1:
        raise UsageError("--weights is of one model; give one --model, or folders as models")
    if fit_raptor and request.dtype != "float32":
        raise UsageError("--fit-raptor fits in float32; drop --dtype")

    with stage("loading torch"):
        from brdyn import runtime
        from brdyn.reporting.run import make_report
        from brdyn.trajectory import Stream

    processes = runtime.start_processes(request.device)
    found = make_report(
        models,
        lambda one: request.open_model(one.name, one.init, processes.device, request.dtype),
        lambda model: request.open_images(request.images, model, n=settings.n or settings.of_size.images),
        out,
        settings,
        stream=Stream(batch_size=batch_size, workers=request.workers, progress=True),
        overwrite=request.overwrite,
        formats=formats,
        say=lambda line: tell(as_typed(line)),
    )
    if output.wants_json():
        output.print_json(output.as_mapping(found, out, [PAGE, REPORT]))
    else:
        output.say(f"{as_typed(found.summary())}\n\nreport: {out / PAGE}")
    if found.failed:
        raise BrdynError(f"something failed of {', '.join(found.failed)}; the report has the rest")
