"""What every command takes besides its own options, and how it is registered."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Annotated, Any

import typer

from brdyn.cli import output
from brdyn.cli.examples import EXAMPLES

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
COMMON = {"quiet": Quiet, "json": Json}


def add(app: typer.Typer, command: Callable[..., None]) -> None:
    """Register a command, with the options of every one and its examples at the end of its help."""
    name = command.__name__.replace("_", "-")
    own = [
        parameter.replace(kind=Parameter.KEYWORD_ONLY)
        for parameter in signature(command, eval_str=True).parameters.values()
    ]
    common = [
        Parameter(option, Parameter.KEYWORD_ONLY, default=False, annotation=hint)
        for option, hint in COMMON.items()
    ]

    def run(**values: Any) -> None:
        output.choose(**{option: values.pop(option) for option in COMMON})
        command(**values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = Signature([*own, *common])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *common]}
    app.command(name, epilog="\n\n".join(["Examples:", *EXAMPLES[name]]))(run)
