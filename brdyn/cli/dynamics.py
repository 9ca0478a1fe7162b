"""`brdyn dynamics`: how the tokens of a model move through depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from brdyn.choices import (
    KRYLOV_STEPS,
    MEASURES,
    MOST_TANGENTS,
    ONLY_NAMED,
    RIDGE,
    TANGENTS,
    check_ridge,
    chosen_measures,
    separated,
)
from brdyn.cli.checks import check_serves
from brdyn.cli.given_phases import GivenPhases, NumberOfPhases, PhasesFile
from brdyn.cli.null import Null, check_null, measured
from brdyn.cli.run import RunRequest, open_run, run_command

if TYPE_CHECKING:
    from brdyn.models import VisionTransformer

DYNAMICS = "Dynamics"
RESULT = "dynamics.json"


@run_command
def dynamics(
    request: RunRequest,
    phases: PhasesFile = None,
    k: NumberOfPhases = None,
    measures: Annotated[
        str,
        typer.Option(
            help=f"`all` that the images allow, or some of {', '.join(MEASURES)} (basins need labels, readout a head); "
            f"joined by commas. What costs more is taken where it is named: all,{','.join(ONLY_NAMED)}.",
            rich_help_panel=DYNAMICS,
        ),
    ] = "all",
    ridge: Annotated[
        float,
        typer.Option(help="Ridge of the modes, over the mean eigenvalue.", rich_help_panel=DYNAMICS),
    ] = RIDGE,
    rank: Annotated[
        int | None, typer.Option(help="Rank of the modes (default: full).", min=1, rich_help_panel=DYNAMICS)
    ] = None,
    tangents: Annotated[
        int,
        typer.Option(
            help="Vectors that spectra carry through the blocks, about a forward pass each.",
            min=1,
            max=MOST_TANGENTS,
            rich_help_panel=DYNAMICS,
        ),
    ] = TANGENTS,
    krylov_steps: Annotated[
        int,
        typer.Option(
            help="Steps for singular values and coupling of blocks in spectra, about two forward passes a vector each; "
            "0: none. Enough where `settled` is near 1.",
            min=0,
            max=MOST_TANGENTS,
            rich_help_panel=DYNAMICS,
        ),
    ] = KRYLOV_STEPS,
    null: Null = 0,
) -> None:
    """Measure how tokens move through depth: convergence, speed, norms, updates, estimation error, basins, modes, the
    read-out of the head at every layer, attention and MLP apart, spectra of the blocks.

    Writes dynamics.json, dynamics.parquet (one row per statistic, token group and layer) and pictures to --out.
    """
    chosen = separated(measures)
    check_ridge(ridge)
    for option, asked, of in (
        ("--ridge", ridge != RIDGE, "modes"),
        ("--rank", rank is not None, "modes"),
        ("--tangents", tangents != TANGENTS, "spectra"),
        ("--krylov-steps", krylov_steps != KRYLOV_STEPS, "spectra"),
    ):
        check_serves(option, asked, [of], chosen_measures(chosen), "--measures")
    given = GivenPhases.read(phases, k)

    def check(model: VisionTransformer) -> None:
        from brdyn.measures.modes import check_fit

        given.check(model)
        check_null(model, null)
        check_fit(ridge, rank, model.info.width)

    with open_run(request, RESULT, check=check) as run:
        from brdyn.measures.dynamics import token_dynamics

        options = {"measures": chosen, "k": k, "ridge": ridge, "rank": rank}
        options |= {"tangents": tangents, "krylov_steps": krylov_steps}
        run.finish(measured(run, null, token_dynamics, given.phases, **options))
