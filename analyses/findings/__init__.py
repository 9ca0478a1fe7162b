"""What recorded runs say on each claim: the numbers by the names that its rule has for them, and a sentence of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes
    ----------
    said : str
        In a sentence.
    numbers : mapping
        What a rule judges; without them it cannot be told.
    each : mapping of str to Measured
        The same of several models, of which the claim is about the first.
    """

    said: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    each: Mapping[str, Measured] = field(default_factory=dict)
