"""The commands under one name: `brdyn models`, `brdyn phases`, …"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from brdyn.cli.drawn import compare, plot
from brdyn.cli.dynamics import dynamics
from brdyn.cli.every import add
from brdyn.cli.interventions import interventions
from brdyn.cli.models import models
from brdyn.cli.perturb import perturb
from brdyn.cli.phases import phases
from brdyn.cli.probe import probe
from brdyn.cli.raptor import raptor_fit
from brdyn.cli.raptor_eval import raptor_eval
from brdyn.cli.raptor_import import raptor_import
from brdyn.cli.raptor_rank import raptor_rank
from brdyn.cli.report import report
from brdyn.cli.splice import splice
from brdyn.cli.vit_train import vit_train
from brdyn.cli.vitrm_eval import vitrm_eval
from brdyn.cli.vitrm_train import vitrm_train

app = typer.Typer(
    name="brdyn",
    help="Block-recurrent dynamics of pretrained Vision Transformers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    models,
    report,
    phases,
    dynamics,
    perturb,
    interventions,
    splice,
    raptor_fit,
    raptor_eval,
    raptor_rank,
    raptor_import,
    probe,
    vit_train,
    vitrm_train,
    vitrm_eval,
    compare,
    plot,
):
    add(app, command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"brdyn {version('brdyn')}")
        raise typer.Exit


@app.callback()
def _root(
    show: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of an error; also after a command, or BRDYN_DEBUG=1."),
    ] = False,
) -> None:
    """Block-recurrent dynamics of pretrained Vision Transformers."""


command_line = typer.main.get_command(app)  # once: it takes longer than to tell a mistake
