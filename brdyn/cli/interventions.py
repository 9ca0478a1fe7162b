"""`brdyn interventions`: swap, delete, shuffle and replace layers, and see what becomes of the representation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from brdyn.choices import DRAWS, KINDS, SURGERY, separated, some_of
from brdyn.cli.checks import check_serves
from brdyn.cli.given_phases import GivenPhases, NumberOfPhases, PhasesFile
from brdyn.cli.null import Null, check_null, measured
from brdyn.cli.run import RunRequest, open_run, run_command

if TYPE_CHECKING:
    from brdyn.models import VisionTransformer

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
    null: Null = 0,
) -> None:
    """Swap, delete, shuffle and replace layers: does it matter less within a phase than across phases?

    Writes interventions.json, interventions.parquet (one row per operation, readout and measure) and pictures to --out.
    """
    chosen = some_of("intervention", separated(kinds), KINDS)
    check_serves("--draws", draws != DRAWS, ["shuffle"], chosen, "--kinds")
    given = GivenPhases.read(phases, k)

    def check(model: VisionTransformer) -> None:
        given.check(model)
        check_null(model, null)

    with open_run(request, RESULT, check=check) as run:
        from brdyn.interventions import layer_surgery

        options = {"k": k, "kinds": chosen, "draws": draws}
        run.finish(measured(run, null, layer_surgery, given.phases, **options))
