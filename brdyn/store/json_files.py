"""JSON as results are written in, and read back: strict, with one line for whatever is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from brdyn import checked_json
from brdyn.errors import UsageError
from brdyn.words import first_line, printable


def to_json(content: Mapping[str, Any]) -> bytes:
    """A mapping as JSON, indented, with lists of plain values on one line; names that are no UTF-8 are escaped.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    return ("".join(_json(json.loads(json.dumps(content, allow_nan=False, default=_plain)), 0)) + "\n").encode()


def _json(value: Any, depth: int) -> Iterator[str]:
    nested = isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(entry, dict | list) for entry in value)
    )
    if not nested or not value:
        yield json.dumps(_printable(value))
        return
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    entries = value.items() if isinstance(value, dict) else ((None, entry) for entry in value)
    separator = opening
    for key, entry in entries:
        yield (separator + "\n" + "  " * (depth + 1) + (f"{json.dumps(printable(key))}: " if key is not None else ""))
        yield from _json(entry, depth + 1)
        separator = ","
    yield "\n" + "  " * depth + closing


def _printable(value: Any) -> Any:
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    return printable(value) if isinstance(value, str) else value


def read_json(path: str | Path, what: str, shape: Mapping[str, Any] | Sequence[str] = ()) -> dict[str, Any]:
    """Read a JSON file written earlier, by brdyn or by anybody.

    Parameters
    ----------
    path : path
    what : str
        What it should be, for the error: `a phases.json`.
    shape : mapping of str to shape, or sequence of str
        The keys it has, with what they hold as :mod:`brdyn.checked_json` has it, or whatever they hold.

    Raises
    ------
    UsageError
        If it is not there, not strict JSON, or not of that shape.
    """
    try:
        content = checked_json.read(checked_json.expanded(path))
    except checked_json.JsonError as error:
        raise UsageError(f"cannot read {str(path)!r} as {what} ({error})") from error
    with reading(path, what):
        checked_json.take(content, shape if isinstance(shape, Mapping) else dict.fromkeys(shape, object))
    return content


@contextmanager
def reading(path: str | Path, what: str) -> Iterator[None]:
    """While the content of a file is made into something: a `ValueError` about it becomes one that names the file.

    Raises
    ------
    UsageError
        `'x.json' is not a phases.json (…)`.
    """
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{str(path)!r} is not {what} ({first_line(error)})") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
