"""JSON that may be anybody's: parsed strictly, and taken as the types or shapes that its reader needs.

What is wanted is a type (`int`, `float`, `str`, `bool`, `list`, `dict`; `object` or `Any` for anything), None for null,
a tuple or union of alternatives, `[wanted]`, `list[…]` or `tuple[…]` for a list, `{str: wanted}` or `dict[str, …]` for
an object with any keys, `{"key": wanted, "other?": wanted}` for one that has these keys, those with a question mark if
it likes, and any others, or a dataclass. A number within bounds is `Annotated[int, Range(1, 1000)]`.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from brdyn.errors import UsageError
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


class Range(NamedTuple):
    """Least and most of a number, both allowed; as in `Annotated[int, Range(1, 1000)]`."""

    low: float
    high: float


ADDED_LATER = {"added": "later"}
"""`field(default=…, metadata=ADDED_LATER)`: files of before a dataclass had this field may lack it."""
ANY_SIZE = Range(-1_000_000, 1_000_000)
"""Of a number for which nothing else is said: nothing in a network is larger."""


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


def build(wanted: Any, content: Any, file: str, where: str = "", *, more: bool = False) -> Any:
    """What a config has, as :func:`take` takes it: nothing is built from it before all of it is checked.

    Parameters
    ----------
    wanted, content, where
        As of :func:`take`.
    file : str
        What to call the config in an error.
    more : bool
        Let the outermost object have entries that are not declared; they are left out.

    Raises
    ------
    UsageError
        If an entry is missing, not declared, of another type or out of range.
    """
    try:
        if more:
            known = {name.rstrip("?") for name in _shape(wanted)}
            content = {name: one for name, one in take(content, dict, where).items() if name in known}
        return take(content, wanted, where, ANY_SIZE)
    except JsonError as error:
        raise UsageError(f"{file}: {error}") from error


def take(content: Any, wanted: Any, where: str = "", bounds: Range | None = None) -> Any:
    """Content as what is wanted: dataclasses are built, lists are the lists or tuples that are declared.

    Parameters
    ----------
    content
        What :func:`parse` gave.
    wanted
        As described at the top of this module.
    where : str
        The place of the content in its file, as `segmentations.3.boundaries[1]`.
    bounds : Range, optional
        Of a config: of numbers for which nothing else is said. Its objects may then lack fields that have a default,
        and have no other entries than those wanted.

    Raises
    ------
    JsonError
        Naming the first place that is not as it should be, and what should be there.
    """
    if get_origin(wanted) is Annotated:
        wanted, *extras = get_args(wanted)
        bounds = next((extra for extra in extras if isinstance(extra, Range)), bounds)
    choices = wanted if isinstance(wanted, tuple) else get_args(wanted) if _is_union(wanted) else (wanted,)
    fitting = [choice for choice in choices if _is_of(content, choice)]
    if not fitting:
        words = " or ".join(dict.fromkeys(KINDS[_kind(choice)] for choice in choices))
        raise JsonError(f"{where or 'it'} is {_as_json(content)} instead of {words}")
    inner = fitting[0]
    if _kind(inner) is dict:
        return _taken_object(content, inner, where, bounds)
    if _kind(inner) is list:
        return _taken_list(content, inner, where, bounds)
    if bounds is None or inner not in (int, float):
        return content
    if not bounds.low <= content <= bounds.high:
        raise JsonError(
            f"{where or 'it'} is {_as_json(content)} instead of a number from {bounds.low} to {bounds.high}"
        )
    return inner(content)


def _taken_object(content: dict[str, Any], wanted: Any, where: str, bounds: Range | None) -> Any:
    prefix, found = f"{where}." if where else "", {}
    lenient = bounds is not None or not is_dataclass(wanted)
    later = () if lenient else [one.name for one in fields(wanted) if one.metadata == ADDED_LATER]
    for name, inner in _shape(wanted).items():
        if name is str:
            for key, value in content.items():
                found[key] = take(value, inner, f"{prefix}{shortened(key, SHOWN)}", bounds)
        elif (key := name.rstrip("?")) in content:
            found[key] = take(content[key], inner, f"{prefix}{key}", bounds)
        elif not (name.endswith("?") and lenient) and key not in later:
            raise JsonError(f"{where or 'it'} has no {key!r}")
    unknown = sorted(set(content) - set(found))
    if unknown and bounds is not None:
        raise JsonError(f"{where or 'it'} has an entry {shortened(unknown[0], SHOWN)!r} that brdyn does not know")
    if not is_dataclass(wanted):
        return {**content, **found}
    record: Any = wanted
    try:
        return record(**found)
    except UsageError as error:
        raise JsonError(f"{where}: {error}" if where else str(error)) from error


def _taken_list(content: list[Any], wanted: Any, where: str, bounds: Range | None) -> Any:
    inner = list(wanted if isinstance(wanted, list) else get_args(wanted)) or [object]
    if len(inner) == 1 or inner[-1] is Ellipsis:
        inner = inner[:1] * len(content)
    if len(inner) != len(content):
        raise JsonError(f"{where or 'it'} has {len(content)} entries instead of {len(inner)}")
    pairs = enumerate(zip(content, inner, strict=True))
    return (get_origin(wanted) or list)(take(one, of, f"{where}[{place}]", bounds) for place, (one, of) in pairs)


def _shape(wanted: Any) -> Mapping[Any, Any]:
    """What the entries of an object are, by name."""
    if isinstance(wanted, Mapping):
        return wanted
    return fields_of(wanted) if is_dataclass(wanted) else {str: (get_args(wanted) or (object,))[-1]}


def fields_of(record: Any) -> dict[str, Any]:
    """The types of a dataclass's fields by name, which has a question mark where there is a default."""
    hints, missing = get_type_hints(record, include_extras=True), (MISSING, MISSING)
    optional = {one.name for one in fields(record) if (one.default, one.default_factory) != missing}
    return {one.name + "?" * (one.name in optional): hints[one.name] for one in fields(record)}


def _is_union(wanted: Any) -> bool:
    return get_origin(wanted) in (Union, UnionType)


def _kind(wanted: Any) -> Any:
    """The type that something wanted is of at the outside."""
    if isinstance(wanted, Mapping) or is_dataclass(wanted):
        return dict
    kind = list if isinstance(wanted, list) else get_origin(wanted) or wanted
    return {tuple: list, Mapping: dict, NoneType: None, Any: object}.get(kind, kind)


def _is_of(content: Any, wanted: Any) -> bool:
    kind = _kind(wanted)
    if kind is None:
        return content is None
    if isinstance(content, bool):  # which Python takes for a number
        return kind in (bool, object)
    return isinstance(content, int | float if kind is float else kind)


def _as_json(content: Any) -> str:
    return shortened(json.dumps(content), SHOWN)


def shown(content: Any) -> str:
    """An entry of a config for an error message, shortened."""
    if isinstance(content, list | Mapping):
        return "a list" if isinstance(content, list) else "an object"
    return shortened(repr(content), SHOWN)


def expanded(path: str | Path) -> Path:
    """A path with `~` as the home folder, and as it is where there is none."""
    return Path(os.path.expanduser(path))
