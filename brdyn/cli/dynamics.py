"""`brdyn dynamics`: how the tokens of a model move through depth."""

from __future__ import annotations

from typing import Annotated

import typer

from brdyn.choices import MEASURES, separated, some_of
from brdyn.cli.checks import check_file
from brdyn.cli.given_phases import NumberOfPhases, PhasesFile, read_phases
from brdyn.cli.run import RunRequest, open_run, run_command

DYNAMICS = "Dynamics"


@run_command
def dynamics(
    request: RunRequest,
    phases: PhasesFile = None,
    k: NumberOfPhases = None,
    measures: Annotated[
        str,
        typer.Option(
            help=f"`all` that the images allow, or some of {', '.join(MEASURES)} (basins need labels); joined by "
            "commas.",
            rich_help_panel=DYNAMICS,
        ),
    ] = "all",
    ridge: Annotated[
        float,
        typer.Option(help="Ridge of the modes, over the mean eigenvalue.", rich_help_panel=DYNAMICS),
    ] = 1e-3,
    rank: Annotated[
        int | None, typer.Option(help="Rank of the modes (default: full).", min=1, rich_help_panel=DYNAMICS)
    ] = None,
) -> None:
    """Measure how tokens move through depth: convergence, speed, norms, updates, estimation error, basins, modes.

    Writes dynamics.json, dynamics.parquet (one row per statistic, token group and layer) and pictures to --out.
    """
    chosen = None if measures == "all" else some_of("measure", separated(measures), MEASURES)
    check_file("--phases", phases)
    with open_run(request) as run:
        from brdyn.measures.dynamics import token_dynamics

        run.finish(
            token_dynamics(
                run.model,
                run.images,
                read_phases(phases, run, k),
                measures=chosen,
                k=k,
                seed=run.seed,
                ridge=ridge,
                rank=rank,
                stream=run.stream,
            )
        )
