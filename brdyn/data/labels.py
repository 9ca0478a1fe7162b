"""The one rule of what counts as the label of an image.

A label is the number of a class, from 0.

- A folder of class folders: the first-level folder, in the order of their sorted names.
- A column declared as classes (`ClassLabel` with names): a number below how many there are, or one of the names.
- A column of whole numbers, or of fractions that are all whole (as pandas writes numbers with gaps): the number.
- A column of booleans: false is class 0, true class 1.
- A column of text: its distinct values, sorted, are the classes.

Everything else is no label: null, NaN, empty text, -1 and other negative numbers (the hub's "not known"), a number
beyond the classes or from a million on. A column of anything else (lists, several labels an image, fractions) holds no
labels.

An image without a label takes part in all that needs none, and in nothing that needs one; results count and name such
images. `NO_LABEL` stands in the place of its label, so that images and labels always go together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from brdyn.data.files import shown
from brdyn.words import shortened

NO_LABEL = -1
MOST_CLASSES = 1_000_000
NAMED = 1000
"""Images without a label that a result names; all are counted."""


@dataclass(frozen=True)
class Labels:
    """The classes of a set.

    Attributes
    ----------
    names : list of str or None
        Of the classes; None where they have only numbers.
    highest : int or None
        The largest number that the whole source holds, where classes have no names.
    """

    names: list[str] | None = None
    highest: int | None = None
    _numbers: Mapping[str, int] = field(default_factory=dict, repr=False)

    @classmethod
    def named(cls, names: Iterable[str]) -> Labels:
        """Classes with names, in this order."""
        listed = list(names)
        return cls(listed, _numbers={name: number for number, name in enumerate(listed)})

    @property
    def count(self) -> int:
        """Classes that there can be."""
        return MOST_CLASSES if self.names is None else len(self.names)

    def read(self, cell: Any) -> tuple[int, str]:
        """The label that a cell of a table holds, and why it holds none (empty where it does)."""
        number = NO_LABEL
        if isinstance(cell, str):
            number = self._numbers.get(cell, NO_LABEL)
        elif isinstance(cell, int | float) and cell % 1 == 0 and 0 <= cell < self.count:  # NaN % 1 is NaN
            number = int(cell)
        if number != NO_LABEL:
            return number, ""
        return (
            NO_LABEL,
            "null" if cell is None else f"{shortened(shown(repr(cell)), 60)} is not one of the classes",
        )


@dataclass
class Unlabelled:
    """Images of a labelled set that have no label.

    Attributes
    ----------
    count : int
    first : list of (int, str, str)
        Position, name and reason of the first `NAMED`.
    """

    count: int = 0
    first: list[tuple[int, str, str]] = field(default_factory=list)

    def add(self, other: Unlabelled) -> None:
        """Join those of a batch or of another process, in any order."""
        if other.count:
            self.count += other.count
            self.first = sorted({*self.first, *other.first})[:NAMED]

    def to_dict(self) -> dict[str, Any]:
        """How many and which, ready for JSON."""
        return {"count": self.count, "first": [{"name": name, "reason": why} for _, name, why in self.first]}

    def describe(self) -> str:
        """In a sentence; empty for none."""
        if not self.count:
            return ""
        return (
            f"{self.count} images have no label ({self.example()}) and are left out of all that needs labels; the JSON "
            "names them"
        )

    def example(self) -> str:
        """The first, and why it has none."""
        _, name, why = self.first[0]
        return f"the first, {name}: {why}"
