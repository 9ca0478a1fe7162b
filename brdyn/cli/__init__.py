"""The command line: a few lines over the public API, and one clear line for every error."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import nullcontext
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer

from brdyn import interruption
from brdyn.cli.dynamics import dynamics
from brdyn.cli.interventions import interventions
from brdyn.cli.models import models
from brdyn.cli.perturb import perturb
from brdyn.cli.phases import phases
from brdyn.cli.probe import probe
from brdyn.cli.raptor import raptor_fit
from brdyn.cli.raptor_eval import raptor_eval
from brdyn.cli.vit_train import vit_train
from brdyn.cli.vitrm_eval import vitrm_eval
from brdyn.cli.vitrm_train import vitrm_train
from brdyn.errors import BrdynError, exit_code

app = typer.Typer(
    name="brdyn",
    help="Block-recurrent dynamics of pretrained Vision Transformers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(models)
app.command()(phases)
app.command()(dynamics)
app.command()(perturb)
app.command()(interventions)
app.command()(raptor_fit)
app.command()(raptor_eval)
app.command()(probe)
app.command()(vit_train)
app.command()(vitrm_train)
app.command()(vitrm_eval)


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
) -> None:
    """Block-recurrent dynamics of pretrained Vision Transformers."""


def main() -> None:
    """Run a command. Exit code 2 for a request that cannot be served, 1 for a run that failed."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    writes = os.environ.get("RANK", "0") == "0"  # others may end at once
    try:
        with interruption.listening() if writes else nullcontext():
            code = app(prog_name="brdyn", standalone_mode=False)
    except (interruption.Interrupted, KeyboardInterrupt, typer.Abort) as stopped:
        _interrupted(stopped)
    except BrdynError as error:
        if interruption.heard() is not None:  # what a process that was told to end as well has made of it
            _interrupted(error)
        _fail(str(error), exit_code(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if interruption.heard() is not None:
            _interrupted(error)
        if not hasattr(error, "format_message"):  # not one of click's own, which its versions keep elsewhere
            raise
        _show_click_error(error)
    if code == 128 + signal.SIGINT:  # as some versions of click give a Ctrl-C back
        _interrupted(KeyboardInterrupt())
    sys.exit(code if isinstance(code, int) else 0)


def _interrupted(error: BaseException) -> NoReturn:
    """Say what became of the run."""
    became = getattr(error, "__notes__", ["no result was written (a training run goes on with --resume)"])
    typer.echo(f"brdyn: interrupted; {became[0]}", err=True)
    sys.exit(128 + (interruption.heard() or signal.SIGINT))


def _show_click_error(error: Any) -> NoReturn:
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message())
        sys.exit(error.exit_code)
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "brdyn"
    _fail(f"{error.format_message().rstrip('.')}; see `{command} --help`", error.exit_code)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"brdyn: error: {' '.join(message.split())}", err=True)
    sys.exit(code)
