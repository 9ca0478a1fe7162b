"""Findings beside the same of untrained twins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from analyses.rules import UNTRAINED, Numbers

R = TypeVar("R")


def beside(
    as_twins: Callable[[R], Iterable[R]],
) -> Callable[[Callable[[R], Numbers]], Callable[[R], Numbers]]:
    """The numbers of a finding with those of untrained twins, where `as_twins` gives any: the results with a twin in
    the place of the network, one after the other."""

    def decorate(finding: Callable[[R], Numbers]) -> Callable[[R], Numbers]:
        def found(results: R) -> Numbers:
            twins = [finding(one) for one in as_twins(results)]
            return {**finding(results), **({UNTRAINED: twins} if twins else {})}

        return found

    return decorate
