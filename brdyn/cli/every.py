"""What every command takes besides its own options, and how it is registered."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

from brdyn.cli import output
from brdyn.cli.checks import at_home
from brdyn.cli.config import read_config
from brdyn.cli.examples import EXAMPLES
from brdyn.cli.options import own_options, with_options
from brdyn.environment import using

PANEL = "Every command"

Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Tell nothing of the progress on stderr.", rich_help_panel=PANEL)
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print the answer as JSON, and nothing else on standard output.",
        rich_help_panel=PANEL,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Options from a TOML file (at its top, or in a table named as the command), or of an earlier result, from "
        "its JSON file. What is typed counts more.",
        callback=read_config,
        is_eager=True,
        rich_help_panel=PANEL,
    ),
]
COMMON = {"config": (Config, None), "quiet": (Quiet, False), "json": (Json, False)}


def add(app: typer.Typer, command: Callable[..., None]) -> None:
    """Register a command, with the options of every one and its examples at the end of its help.

    It gets its paths with `~` as the home folder: a shell leaves it in `--out=~/x`, and a file of options everywhere.
    """
    name = command.__name__.replace("_", "-")
    common = [
        Parameter(option, Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        for option, (hint, default) in COMMON.items()
    ]

    def run(**values: Any) -> None:
        common = {option: values.pop(option) for option in COMMON}
        output.choose(json=common["json"], quiet=common["quiet"])
        with using(values):
            command(**{name: _at_home(value) for name, value in values.items()})

    register = app.command(name, epilog="\n\n".join(["Examples:", *EXAMPLES[name]]))
    register(with_options(run, command, [*own_options(command), *common]))


def _at_home(value: Any) -> Any:
    """A path, or several, with `~` as the home folder; anything else as it is."""
    if isinstance(value, list):
        return [_at_home(one) for one in value]
    return at_home(value) if isinstance(value, Path) else value
