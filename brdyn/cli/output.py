"""What a command prints: its answer on standard output, with --json that alone; what else it says on stderr."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from brdyn import progress
from brdyn.cli.streams import discard
from brdyn.words import as_typed

if TYPE_CHECKING:
    from brdyn.result import Result

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
    """Say something besides the answer."""
    progress.clear()
    typer.echo(text, err=_wants_json)


def mention(text: str) -> None:
    """Say something on the way: where nobody reads it any more, what is left to do is done unheard."""
    try:
        say(text)
    except BrokenPipeError:
        discard(sys.stderr if _wants_json else sys.stdout)


def print_json(content: Mapping[str, Any]) -> None:
    """Print the answer where JSON is wanted."""
    from brdyn.store import to_json

    progress.clear()
    typer.echo(to_json(content).decode(), nl=False)


def tell(result: Result, folder: Path, files: Sequence[str]) -> None:
    """Print what a result says, and where it is."""
    if _wants_json:
        print_json(as_mapping(result, folder, files))
        return
    say(as_typed(result.summary()))
    say(f"\nwritten to {folder}: {', '.join(files)}")


def as_mapping(result: Result, folder: Path, files: Sequence[str]) -> dict[str, Any]:
    """What --json prints of a result: `kind`, `folder`, `files`, `answer`, `table`, `notes` and `provenance`."""
    origin = result.provenance
    notes = [*([] if origin is None else origin.warnings()), *result.remarks()]
    return {
        "kind": Path(result.FILE).stem,
        "folder": str(folder),
        "files": list(files),
        "answer": as_typed(result.answer()),
        "table": [{name: _known(value) for name, value in row.items()} for row in result.overview()],
        "notes": [as_typed(note) for note in notes],
        "provenance": {} if origin is None else origin.short(),
    }


def _known(value: Any) -> Any:
    """JSON has no NaN."""
    return None if value != value else value
