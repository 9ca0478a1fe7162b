"""The command line: a few lines over the public API, and one clear line for every error."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from brdyn.cli.models import models
from brdyn.cli.phases import phases
from brdyn.errors import BrdynError, UsageError

app = typer.Typer(
    name="brdyn",
    help="Block-recurrent dynamics of pretrained Vision Transformers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(models)
app.command()(phases)


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
    try:
        app()
    except UsageError as error:
        _fail(error, 2)
    except BrdynError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        typer.echo("brdyn: interrupted; no result was written", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)


def _fail(error: Exception, code: int) -> None:
    message = " ".join(str(error).split())
    typer.echo(f"brdyn: error: {message}", err=True)
    sys.exit(code)
