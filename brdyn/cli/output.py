"""What a command prints: its answer on standard output, with --json that alone; what else it says on stderr."""

from __future__ import annotations

import typer

from brdyn import progress

_wants_json = False


def choose(*, json: bool, quiet: bool) -> None:
    """From now on print JSON, or tell of no progress."""
    global _wants_json
    _wants_json = json
    if quiet:
        progress.hush()


def wants_json() -> bool:
    """Whether standard output is for JSON alone."""
    return _wants_json


def say(text: str) -> None:
    """Say something besides the result."""
    progress.clear()
    typer.echo(text, err=_wants_json)


def answer(text: str) -> None:
    """Print the result."""
    progress.clear()
    typer.echo(text)
