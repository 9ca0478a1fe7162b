"""Findings beside the same of untrained twins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from analyses.rules import UNTRAINED, Numbers
from brdyn.measures.null import BesideTwins, Tables

R = TypeVar("R")
T = TypeVar("T", bound=BesideTwins)
Finding = Callable[[R], Numbers]


def with_twins(numbers: Numbers, twins: Iterable[Numbers]) -> dict[str, Any]:
    """Numbers with those of untrained twins, where there are any."""
    found = list(twins)
    return {**numbers, **({UNTRAINED: found} if found else {})}


def beside(as_twins: Callable[[R], Iterable[R]]) -> Callable[[Finding[R]], Finding[R]]:
    """The numbers of a finding with those of untrained twins, where `as_twins` gives any: the results with a twin in
    the place of the network, one after the other."""

    def decorate(finding: Finding[R]) -> Finding[R]:
        return lambda results: with_twins(finding(results), map(finding, as_twins(results)))

    return decorate


def tables_of(result: BesideTwins) -> list[Tables]:
    """Those of each untrained twin of a recorded result."""
    return [] if result.null is None else result.null.each()


def twins_of(result: T) -> list[T]:
    """Each untrained twin, as a result of its own."""
    return [result.of_tables(tables) for tables in tables_of(result)]
