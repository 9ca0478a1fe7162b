"""What recorded runs say on each claim: the numbers that its rule judges, by name, and a sentence of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Measured:
    """What was measured.

    Parameters
    ----------
    said : str
        In a sentence.
    each : mapping of str to Measured, optional
        The same of several models, of which the claim is about the first.
    **numbers
        What a rule judges; without them it cannot be told.
    """

    def __init__(self, said: str, each: Mapping[str, Measured] | None = None, **numbers: Any) -> None:
        self.said, self.each, self.numbers = said, each or {}, numbers


def listed(values: Any, form: str, by: str = " ") -> str:
    """`cls 0.25, patches 0.50`, of a mapping or a series."""
    return ", ".join(f"{name}{by}{value:{form}}" for name, value in values.items())
