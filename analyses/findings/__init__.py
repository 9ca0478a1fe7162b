"""What recorded runs say on each claim: the numbers that its rule judges, by name, and a sentence of them."""

from __future__ import annotations

from typing import Any


class Measured:
    """What was measured.

    Attributes
    ----------
    said : str
        In a sentence.
    numbers : dict of str to anything
        What a rule judges; without them it cannot be told.
    each : dict of str to Measured
        The same of several models, of which the claim is about the first.
    """

    def __init__(self, said: str, /, **numbers: Any) -> None:
        self.said, self.numbers = said, numbers
        self.each: dict[str, Measured] = {}

    @classmethod
    def of_each(cls, each: dict[str, Measured]) -> Measured:
        """Of several models."""
        found = cls("", **next(iter(each.values())).numbers)
        found.each = each
        return found


def listed(values: Any, form: str, by: str = " ") -> str:
    """`cls 0.25, patches 0.50`, of a mapping or a series."""
    return ", ".join(f"{name}{by}{value:{form}}" for name, value in values.items())
