"""JSON that may be anybody's: parsed strictly, and checked to have the shape that its reader needs.

A shape is a type (`int`, `float`, `str`, `bool`, `list`, `dict`; `object` for anything), `None` for null, a tuple of
alternatives, `[shape]` for a list, `{str: shape}` for an object with any keys, or `{"key": shape, "other?": shape}`
for one that has these keys, those with a question mark if it likes, and any others.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from brdyn.words import shortened

MOST_BYTES = 256 * 2**20
MOST_INTEGER = 2**64
SHOWN = 40
KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    None: "null",
}


class JsonError(ValueError):
    """What is wrong with a piece of JSON, in words to put after the name of its file."""


def read(path: Path) -> Any:
    """Parse a file.

    Raises
    ------
    JsonError
        If it is no regular file, unreadable, absurdly large, or not strict JSON.
    """
    try:
        kind = path.stat()
        if not stat.S_ISREG(kind.st_mode):  # opening a pipe waits for ever, and a device never ends
            raise JsonError("it is a folder" if stat.S_ISDIR(kind.st_mode) else "it is not a regular file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise JsonError((error.strerror or str(error)).lower()) from error
    return parse(data)


def parse(data: bytes) -> Any:
    """Parse UTF-8 JSON, in which numbers are finite and no name comes twice in an object.

    Raises
    ------
    JsonError
        If it is not that, or too large or too deeply nested to be.
    """
    if len(data) > MOST_BYTES:
        raise JsonError(f"it is larger than {MOST_BYTES // 2**20} MB")
    try:
        return json.loads(
            data.decode("utf-8-sig"),
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError as error:
        raise JsonError(f"byte {error.start} is not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise JsonError(f"no JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise JsonError("it is nested too deeply") from error


def _integer(text: str) -> int:
    if len(text) > len(str(MOST_INTEGER)) or abs(int(text)) > MOST_INTEGER:
        raise JsonError(f"{shortened(text, SHOWN)} is too large a number")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JsonError(f"{shortened(text, SHOWN)} is too large a number")
    return number


def _constant(text: str) -> None:
    raise JsonError(f"{text} is not a number in JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise JsonError(f"{twice!r} comes twice in one object")
    return found


def check(content: Any, shape: Any, where: str = "") -> None:
    """Refuse content that is not of a shape.

    Parameters
    ----------
    content
        What :func:`parse` gave.
    shape
        As described at the top of this module.
    where : str
        The place of the content in its file, as `segmentations.3.boundaries[1]`.

    Raises
    ------
    JsonError
        Naming the first place that is not as it should be, and what should be there.
    """
    choices = shape if isinstance(shape, tuple) else (shape,)
    fitting = [choice for choice in choices if _is_of(content, choice)]
    if not fitting:
        wanted = " or ".join(KINDS[_kind(choice)] for choice in choices)
        raise JsonError(f"{where or 'it'} is {_shown(content)} instead of {wanted}")
    inner = fitting[0]
    if isinstance(inner, list):
        for place, value in enumerate(content):
            check(value, inner[0], f"{where}[{place}]")
    elif isinstance(inner, Mapping):
        _check_object(content, inner, where)


def _check_object(content: dict[str, Any], shape: Mapping[Any, Any], where: str) -> None:
    prefix = f"{where}." if where else ""
    for name, inner in shape.items():
        if name is str:
            for key, value in content.items():
                check(value, inner, f"{prefix}{shortened(key, SHOWN)}")
        elif name.rstrip("?") in content:
            key = name.rstrip("?")
            check(content[key], inner, f"{prefix}{key}")
        elif not name.endswith("?"):
            raise JsonError(f"{where or 'it'} has no {name!r}")


def fields_of(record: type) -> dict[str, Any]:
    """The shape of an object that has the fields of a dataclass, whose types are such as JSON has."""
    hints = get_type_hints(record)
    return {field.name: _shape_of(hints[field.name]) for field in fields(record)}


def _shape_of(hint: Any) -> Any:
    if hint is NoneType:
        return None
    inner = [_shape_of(argument) for argument in get_args(hint) if argument is not Ellipsis]
    if get_origin(hint) in (tuple, list):
        return inner[:1]
    return tuple(inner) if inner else hint


def made(record: Any, content: Mapping[str, Any]) -> Any:
    """A dataclass from an object of its shape, whatever else the object has."""
    return record(**{field.name: content[field.name] for field in fields(record)})


def _kind(shape: Any) -> Any:
    """The type that a shape is of at the outside."""
    return list if isinstance(shape, list) else dict if isinstance(shape, Mapping) else shape


def _is_of(content: Any, shape: Any) -> bool:
    kind = _kind(shape)
    if kind is None:
        return content is None
    if isinstance(content, bool):  # which Python takes for a number
        return kind in (bool, object)
    return isinstance(content, int | float if kind is float else kind)


def _shown(content: Any) -> str:
    return shortened(json.dumps(content), SHOWN)


def expanded(path: str | Path) -> Path:
    """A path with `~` as the home folder, and as it is where there is none."""
    return Path(os.path.expanduser(path))
