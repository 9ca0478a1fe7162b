"""Options from a file: --config."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from brdyn.checked_json import expanded
from brdyn.errors import UsageError
from brdyn.store import read_json
from brdyn.words import first_line

OPTIONS = "options"  # where a result keeps them
ITSELF = ("config", "help", "quiet", "json")
TRUST = ("allow_code", "allow_pickle")  # whoever runs a command gives it, and no file
ONCE = (*TRUST, "overwrite", "resume", "previous")  # of one run alone: a result does not hand it on
PLAIN = str | int | float | bool


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take the options of a file for the defaults of a command: those that are typed count more.

    The file is TOML, with options by their names at the top level or in a table named as the command; or the JSON file
    of a result, which has those that it was made with, except for what it was allowed to replace, go on with or trust.

    Raises
    ------
    UsageError
        If it cannot be read, or has a key that is no option of the command, or a value that no option takes; or where
        it says that code is to be trusted.
    """
    if path is None or context.resilient_parsing:
        return path
    command = context.info_name or ""
    commands = () if context.parent is None else tuple(getattr(context.parent.command, "commands", ()))
    known = {key: one for one in context.command.params if one.name not in ITSELF for key in _keys(one)}
    found: dict[str, Any] = {}
    called: dict[str, tuple[int, str]] = {}
    for place, key, value in _entries(path, command, commands):
        name = key.replace("-", "_")
        if name not in known:
            close = get_close_matches(name, [*known, *(commands if isinstance(value, dict) else ())], n=1)
            nearest = f"; the nearest is {close[0]!r}" if close else f"; see `brdyn {command} --help`"
            raise UsageError(f"{str(path)!r}: {key!r} is no option of brdyn {command}{nearest}")
        if known[name].name in TRUST:
            raise UsageError(
                f"{str(path)!r}: {key!r} is not taken from a file; type --{known[name].name.replace('_', '-')}"
            )
        option = str(known[name].name)
        if called.get(option, (-1, ""))[0] == place:
            raise UsageError(f"{str(path)!r}: {called[option][1]!r} and {key!r} are the same option; keep one")
        called[option] = (place, key)
        found[option] = _value(path, key, value, known[name])
    context.default_map = {**(context.default_map or {}), **found}
    return path


def _keys(parameter: Any) -> Iterable[str]:
    """What a key in the file may call a parameter."""
    flags = (option.lstrip("-") for option in parameter.opts if option.startswith("--") or "-" not in option)
    said = (getattr(parameter, "metavar", None) or "").strip(".…").lower()
    return dict.fromkeys(name.replace("-", "_") for name in (parameter.name, *flags, said) if name)


def _entries(path: Path, command: str, commands: Iterable[str]) -> Iterator[tuple[int, str, Any]]:
    """The options of one command in a file, each with its place: those of a later place count more."""
    place = expanded(path)
    if place.suffix == ".json":
        provenance = read_json(place, "a result", {"provenance": dict})["provenance"]
        if not isinstance(provenance.get(OPTIONS), dict):
            raise UsageError(f"{str(path)!r} does not tell the options it was made with; an earlier version wrote it")
        options = provenance[OPTIONS].items()
        yield from ((0, name, value) for name, value in options if value is not None and name not in ONCE)
        return
    try:
        content = tomllib.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else first_line(error)
        raise UsageError(f"cannot read --config {str(path)!r} ({said})") from error
    others = {name for name, value in content.items() if isinstance(value, dict) and name in commands}
    own = content.get(command, {}) if command in others else {}
    yield from ((0, name, value) for name, value in content.items() if name not in others)
    yield from ((1, name, value) for name, value in own.items())


def _value(path: Path, key: str, value: Any, option: Any) -> Any:
    """A value as an option takes it: a list is joined by commas where one text is expected."""
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, PLAIN) for one in values):
        raise UsageError(f"{str(path)!r}: {key!r} is neither a number, a text, true or false, nor a list of these")
    if not getattr(option, "is_flag", False) and any(isinstance(one, bool) for one in values):
        raise UsageError(f"{str(path)!r}: {key!r} takes a value, and is given true or false")
    if option.multiple or option.nargs != 1:
        return values
    return ",".join(map(str, values)) if isinstance(value, list) else value
