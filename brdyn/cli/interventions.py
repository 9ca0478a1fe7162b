"""`brdyn interventions`: swap, delete, shuffle and replace layers, and see what becomes of the representation."""

from __future__ import annotations

from typing import Annotated

import typer

from brdyn.choices import DRAWS, KINDS, SURGERY, separated, some_of
from brdyn.cli.given_phases import GivenPhases, NumberOfPhases, PhasesFile
from brdyn.cli.run import RunRequest, open_run, run_command

INTERVENTIONS = "Interventions"
RESULT = "interventions.json"


@run_command
def interventions(
    request: RunRequest,
    kinds: Annotated[
        str,
        typer.Option(
            help="Some of swap, delete, shuffle, replace, joined by commas. Swaps cost about L^2/3 forward passes an "
            "image, replacements L^2/2.",
            rich_help_panel=INTERVENTIONS,
        ),
    ] = ",".join(SURGERY),
    draws: Annotated[
        int,
        typer.Option(
            help="Shuffles of each phase, and as many across a boundary.",
            min=1,
            max=10_000,
            rich_help_panel=INTERVENTIONS,
        ),
    ] = DRAWS,
    phases: PhasesFile = None,
    k: NumberOfPhases = None,
) -> None:
    """Swap, delete, shuffle and replace layers: does it matter less within a phase than across phases?

    Writes interventions.json, interventions.parquet (one row per operation, readout and measure) and pictures to --out.
    """
    chosen = some_of("intervention", separated(kinds), KINDS)
    given = GivenPhases.read(phases, k)
    with open_run(request, RESULT, check=given.check) as run:
        from brdyn.interventions import layer_surgery

        run.finish(
            layer_surgery(
                run.model,
                run.images,
                given.phases,
                k=k,
                kinds=chosen,
                draws=draws,
                seed=run.seed,
                stream=run.stream,
            )
        )
