"""Reading JSON of unknown origin into declared types: a config is checked before anything is built from it."""

from __future__ import annotations

import types
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from math import isfinite
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from brdyn.errors import UsageError

T = TypeVar("T")

SHOWN = 40


class Range(NamedTuple):
    """Least and most of a number, both allowed; as in `Annotated[int, Range(1, 1000)]`."""

    low: float
    high: float


ANY_SIZE = Range(-1_000_000, 1_000_000)
"""Of a number for which nothing else is said: nothing in a network is larger."""


def build(kind: type[T], content: Any, where: str, *, more: bool = False) -> T:
    """A dataclass from a JSON object, each entry checked against the type it is declared with.

    Parameters
    ----------
    kind : type
        The dataclass.
    content : Any
        What the JSON has.
    where : str
        What to call it in an error: the file, and the entry in it.
    more : bool
        Let there be entries that are not declared; they are left out.

    Raises
    ------
    UsageError
        If an entry is missing, not declared, of another type or out of range.
    """
    declared = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    optional = {
        name
        for name, field in declared.items()
        if field.default is not MISSING or field.default_factory is not MISSING
    }
    hints = get_type_hints(kind, include_extras=True)
    values = entries({name: hints[name] for name in declared}, content, where, optional=optional, more=more)
    try:
        return kind(**values)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def entries(
    hints: Mapping[str, Any],
    content: Any,
    where: str,
    *,
    optional: Collection[str] = (),
    more: bool = False,
) -> dict[str, Any]:
    """The declared entries of a JSON object, each checked against its type.

    Parameters
    ----------
    hints : mapping of str to type
    content, where, more
        As of :func:`build`.
    optional : collection of str
        Entries that may be missing.

    Raises
    ------
    UsageError
        As of :func:`build`.
    """
    if not isinstance(content, Mapping):
        raise UsageError(f"{where} is {shown(content)} instead of an object")
    unknown = [] if more else sorted(set(content) - set(hints))
    if unknown:
        raise UsageError(f"{where} has an entry {shown(unknown[0])} that brdyn does not know")
    for name in hints:
        if name not in content and name not in optional:
            raise UsageError(f"{where} has no {name!r}")
    return {
        name: value(content[name], hint, f"{where}: {name}")
        for name, hint in hints.items()
        if name in content
    }


def value(found: Any, hint: Any, where: str) -> Any:
    """A JSON value as the type it is declared with: numbers finite and in range, lists as lists or tuples.

    Raises
    ------
    UsageError
        If it is of another type or out of range.
    """
    bounds = ANY_SIZE
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        bounds = next((extra for extra in extras if isinstance(extra, Range)), bounds)
    if hint is Any:
        return found
    choices = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for choice in choices:
        if _is(found, choice):
            return _inside(found, choice, bounds, where)
    raise UsageError(f"{where} is {shown(found)} instead of {_named(choices)}")


def _is(found: Any, choice: Any) -> bool:
    if choice in (None, type(None)):
        return found is None
    if choice is float:
        return isinstance(found, int | float) and not isinstance(found, bool)
    if choice is int:
        return isinstance(found, int) and not isinstance(found, bool)
    if choice in (bool, str):
        return isinstance(found, choice)
    if is_dataclass(choice) or (get_origin(choice) or choice) in (dict, Mapping):
        return isinstance(found, Mapping)
    return isinstance(found, list | tuple)


def _inside(found: Any, choice: Any, bounds: Range, where: str) -> Any:
    if choice in (int, float):
        if not (isinstance(found, int) or isfinite(found)) or not bounds.low <= found <= bounds.high:
            raise UsageError(
                f"{where} is {shown(found)} instead of a number from {bounds.low} to {bounds.high}"
            )
        return choice(found)
    if is_dataclass(choice) and isinstance(choice, type):
        return build(choice, found, where)
    if (get_origin(choice) or choice) in (tuple, list):
        return _sequence(found, choice, bounds, where)
    return found


def _sequence(found: Any, choice: Any, bounds: Range, where: str) -> Sequence[Any]:
    inner = get_args(choice) or (Any,)
    if len(inner) > 1 and inner[-1] is not Ellipsis and len(found) != len(inner):
        raise UsageError(f"{where} has {len(found)} entries instead of {len(inner)}")
    entry = inner[0] if get_origin(inner[0]) is Annotated else Annotated[inner[0], bounds]
    kind: type[Sequence[Any]] = get_origin(choice) or choice
    return kind(value(each, entry, f"{where}[{number}]") for number, each in enumerate(found))  # type: ignore[call-arg]


def _named(choices: Iterable[Any]) -> str:
    words: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        type(None): "null",
    }
    words |= {None: "null", dict: "an object", Mapping: "an object"}
    return " or ".join(
        dict.fromkeys(
            "an object"
            if is_dataclass(choice)
            else words.get(choice, words.get(get_origin(choice), "a list"))
            for choice in choices
        )
    )


def shown(found: Any) -> str:
    """A value for an error message, shortened."""
    if isinstance(found, list | Mapping):
        return "a list" if isinstance(found, list) else "an object"
    text = repr(found)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
