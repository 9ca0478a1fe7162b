"""`brdyn splice`: what could stand in for a span of layers, and whether one layer's block does another's work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brdyn.choices import LONGEST_SHOWN, RIDGE, SPLICED, SURROGATES, check_ridge, separated, some_of
from brdyn.cli.checks import check_images, check_serves
from brdyn.cli.given_phases import GivenPhases, NumberOfPhases, PhasesFile
from brdyn.cli.null import Null, check_null, measured
from brdyn.cli.options import WHOLE
from brdyn.cli.probe import second_set
from brdyn.cli.run import RunRequest, open_run, run_command
from brdyn.errors import UsageError
from brdyn.words import shortened

if TYPE_CHECKING:
    from brdyn.models import VisionTransformer

SPLICE = "Splice"
RESULT = "splice.json"
RAPTOR = SURROGATES[-1]


@run_command
def splice(
    request: RunRequest,
    surrogates: Annotated[
        str,
        typer.Option(
            help=f"What stands in: some of {', '.join(SPLICED)}, joined by commas. All spans cost L^2/6 forward passes "
            "an image for each, exchange L^2/2.",
            rich_help_panel=SPLICE,
        ),
    ] = ",".join(SPLICED),
    spans: Annotated[
        str,
        typer.Option(
            help="What is replaced: `all`, or states before and after as 0-4,4-8 (blocks 1 to 4, and 5 to 8).",
            rich_help_panel=SPLICE,
        ),
    ] = "all",
    fit_images: Annotated[
        str | None,
        typer.Option(
            help="Images to fit maps to, as --images (default: half of the images, drawn with --seed).",
            rich_help_panel=SPLICE,
        ),
    ] = None,
    fit_n: Annotated[int | None, typer.Option(help="Use this many to fit.", min=1, rich_help_panel=SPLICE)] = None,
    raptor: Annotated[
        Path | None,
        typer.Option(help="Folder of a Raptor of this model, whose block stands in, too.", rich_help_panel=SPLICE),
    ] = None,
    ridge: Annotated[
        float, typer.Option(help="Ridge of the maps, over the mean eigenvalue.", rich_help_panel=SPLICE)
    ] = RIDGE,
    within: Annotated[
        bool,
        typer.Option(
            "--within",
            help="Exchange blocks within phases alone: a third of the passes where there are three.",
            rich_help_panel=SPLICE,
        ),
    ] = False,
    phases: PhasesFile = None,
    k: NumberOfPhases = None,
    null: Null = 0,
) -> None:
    """Replace every span of layers by a surrogate and run the rest: how much better is it than doing nothing?

    The exchange asks whether one layer's block does another's work, within phases and across. Writes splice.json,
    splice.parquet (one row per surrogate, span, token group and measure) and pictures to --out.
    """
    chosen = some_of("surrogate", separated(surrogates), SPLICED)
    wanted = None if spans == "all" else parse_spans(spans)
    check_ridge(ridge)
    for option, asked, of in (
        ("--within", within, ["exchange"]),
        ("--ridge", ridge != RIDGE, ["affine", "power"]),
        ("--fit-images", fit_images is not None, ["mean", "affine", "power"]),
    ):
        check_serves(option, asked, of, chosen, "--surrogates")
    if fit_images is None and fit_n is not None:
        raise UsageError("--fit-n goes with --fit-images")
    if raptor is not None and null:
        raise UsageError("an untrained twin has no Raptor; drop --raptor or --null")
    check_images(fit_images)
    given = GivenPhases.read(phases, k)

    def check(model: VisionTransformer) -> None:
        from brdyn.interventions.splice_cells import check_spans

        given.check(model)
        check_null(model, null)
        check_spans(wanted, model)
        if raptor is not None:
            from brdyn.raptor.model import read_config

            read_config(raptor)

    with open_run(request, RESULT, check=check) as run:
        from brdyn.interventions import splice_skill
        from brdyn.raptor import Raptor

        fit = None if fit_images is None else second_set(run, fit_images, fit_n, "--fit-n")
        fitted = None if raptor is None else Raptor.from_pretrained(raptor, run.model)
        options = {
            "k": k,
            "surrogates": chosen,
            "spans": wanted,
            "fit_images": fit,
            "raptor": fitted,
            "ridge": ridge,
            "within": within,
        }
        run.finish(measured(run, null, splice_skill, given.phases, **options))


def parse_spans(text: str) -> list[tuple[int, int]]:
    """`0-4,4-8` as states before and after.

    Raises
    ------
    UsageError
        If it is not that.
    """
    found = []
    for part in separated(text):
        states = part.split("-")
        if len(states) != 2 or not all(WHOLE.fullmatch(state) for state in states):
            raise UsageError(f"--spans {shortened(text, LONGEST_SHOWN)!r} is neither 'all' nor states such as 0-4,4-8")
        found.append((int(states[0]), int(states[1])))
    return found
