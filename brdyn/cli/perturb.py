"""`brdyn perturb`: does the model forget noise that is added at some depth?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from brdyn.choices import EPS, check_eps, separated
from brdyn.cli.given_phases import GivenPhases, NumberOfPhases, PhasesFile
from brdyn.cli.null import Null, check_null, measured
from brdyn.cli.options import parse_numbers
from brdyn.cli.run import RunRequest, open_run, run_command

if TYPE_CHECKING:
    from brdyn.models import VisionTransformer

PERTURBATION = "Perturbation"
RESULT = "perturb.json"


@run_command
def perturb(
    request: RunRequest,
    eps: Annotated[
        str,
        typer.Option(
            help="Norms of the noise over the norm of the token, joined by commas.",
            rich_help_panel=PERTURBATION,
        ),
    ] = ",".join(map(str, EPS)),
    tokens: Annotated[
        str,
        typer.Option(
            help="What gets the noise, one after another: token groups (joined by + to get it together) and `all`, "
            "joined by commas. Each group and all when `each`.",
            rich_help_panel=PERTURBATION,
        ),
    ] = "each",
    layers: Annotated[
        str,
        typer.Option(
            help="Where: `all`, or layers from 0 (embedding) to L joined by commas.",
            rich_help_panel=PERTURBATION,
        ),
    ] = "all",
    phases: PhasesFile = None,
    k: NumberOfPhases = None,
    null: Null = 0,
) -> None:
    """Add noise at every layer and follow the angle to the clean states: is it repaired?

    Writes perturb.json, perturb.parquet (one row per start, eps, target, token group and layer), growth.parquet and
    pictures to --out. Noise is Gaussian, of the given size relative to each token.
    """
    sizes = parse_numbers("--eps", eps, float)
    starts = None if layers == "all" else [int(layer) for layer in parse_numbers("--layers", layers, int)]
    targets = None if tokens == "each" else separated(tokens)
    check_eps(sizes)
    given = GivenPhases.read(phases, k)

    def check(model: VisionTransformer) -> None:
        from brdyn.interventions.repair import check_request

        check_request(model, sizes, targets, starts)
        given.check(model)
        check_null(model, null)

    with open_run(request, RESULT, check=check) as run:
        from brdyn.interventions import perturbation_repair

        options = {"k": k, "eps": sizes, "targets": targets, "starts": starts}
        run.finish(measured(run, null, perturbation_repair, given.phases, **options))
