"""Records that hold arrays, tensors and tables: equal where their content is, and short to print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from brdyn.words import shortened

SHOWN = 6  # of a sequence or mapping
LONGEST = 60  # characters of a text


class Compared:
    """Base of such dataclasses, which are declared with `eq=False, repr=False`.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from brdyn.compared import Compared
    >>> @dataclass(eq=False, repr=False)
    ... class Curve(Compared):
    ...     name: str
    ...     values: np.ndarray
    >>> Curve("speed", np.zeros(12))
    Curve(name='speed', values=ndarray(12))
    >>> Curve("speed", np.zeros(12)) == Curve("speed", np.zeros(12)), Curve("speed", np.zeros(12)) == 3
    (True, False)
    """

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        """The same class with the same content; NaN is NaN."""
        if type(other) is not type(self):
            return NotImplemented
        return all(same(getattr(self, one.name), getattr(other, one.name)) for one in _fields(self))

    def __repr__(self) -> str:
        """Shapes in the place of what is long."""
        return f"{type(self).__name__}({', '.join(f'{f.name}={brief(getattr(self, f.name))}' for f in _fields(self))})"


def _fields(record: Any) -> tuple[Any, ...]:
    return tuple(one for one in fields(record) if one.compare)


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal, arrays and tables element by element."""
    if type(first) is not type(second):
        return bool(first == second) if isinstance(first, int | float) else False
    if hasattr(first, "equals"):  # a table
        return bool(first.equals(second))
    if hasattr(first, "shape"):
        equal = first.shape == second.shape
        return equal and bool(((first == second) | ((first != first) & (second != second))).all())
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, Sequence) and not isinstance(first, str | bytes):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second) or (first != first and second != second)


def brief(value: Any, inside: bool = False) -> str:
    """A value in a few words; what lies `inside` another in fewer."""
    if hasattr(value, "shape"):
        return f"{type(value).__name__}({', '.join(map(str, value.shape))})"
    if hasattr(value, "parameters"):
        return type(value).__name__
    if isinstance(value, Mapping | list | tuple) and inside:
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, Mapping):
        shown = [f"{brief(key, True)}: {brief(entry, True)}" for key, entry in list(value.items())[:SHOWN]]
        return f"{{{', '.join(shown)}{_more(value)}}}"
    if isinstance(value, list | tuple):
        opening, closing = "[]" if isinstance(value, list) else "()"
        return f"{opening}{', '.join(brief(entry, True) for entry in value[:SHOWN])}{_more(value)}{closing}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return shortened(repr(value), LONGEST)


def _more(values: Any) -> str:
    left = len(values) - SHOWN
    return f", … {left} more" if left > 0 else ""
