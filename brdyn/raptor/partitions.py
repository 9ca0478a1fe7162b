"""Which layers share a block: phases by max-cut, given boundaries, or the paper's random baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import comb, factorial, prod

import numpy as np

from brdyn.errors import UsageError
from brdyn.phases import check_request
from brdyn.phases.given import contiguous
from brdyn.words import counted

MAXCUT, CONTIGUOUS, SHUFFLE = "maxcut", "random-contiguous", "random-shuffle"
RANDOM = (CONTIGUOUS, SHUFFLE)
PARTITIONS = (MAXCUT, *RANDOM)


def assign(partition: str, boundaries: Sequence[int], layers: int, draw: int = 0, sequence: int = 0) -> list[int]:
    """The block of each layer by one of `PARTITIONS`.

    Parameters
    ----------
    partition : str
    boundaries : sequence of int
        Of the phases: what is shared, what random contiguous phases are not to be, or whose sizes are shuffled.
    layers : int
    draw, sequence : int
        Of the random ones, as in :func:`random_contiguous`.

    Raises
    ------
    UsageError
        If there is no such partition, or not so many draws.
    """
    if partition == CONTIGUOUS:
        return random_contiguous(len(boundaries) + 1, layers, draw, boundaries, sequence)
    if partition == SHUFFLE:
        return random_shuffle(boundaries, layers, draw, sequence)
    if partition != MAXCUT:
        raise UsageError(f"unknown partition {partition!r}; choose one of {', '.join(PARTITIONS)}")
    return contiguous(boundaries, layers)


def draws_of(partition: str, boundaries: Sequence[int], layers: int) -> int:
    """How many different draws a partition has, beside the phases themselves: one of max-cut.

    >>> from brdyn.raptor.partitions import draws_of
    >>> draws_of("random-contiguous", [4, 8], 12), draws_of("random-shuffle", [1], 3), draws_of("random-shuffle", [], 3)
    (54, 2, 0)
    """
    k = len(boundaries) + 1
    if partition == MAXCUT:
        return 1
    if partition == CONTIGUOUS:
        return comb(layers - 1, k - 1) - 1
    if k in (1, layers):
        return 0
    sizes = Counter(contiguous(boundaries, layers)).values()
    same = Counter(sizes).values()  # blocks of one size can trade names
    return factorial(layers) // prod(map(factorial, sizes)) // prod(map(factorial, same)) - 1


def random_contiguous(k: int, layers: int, seed: int, other_than: Sequence[int] = (), sequence: int = 0) -> list[int]:
    """k contiguous phases with boundaries drawn evenly from all placements.

    Parameters
    ----------
    k, layers : int
    seed : int
        Which draw. Draws do not repeat: every seed gives another placement.
    other_than : sequence of int
        Boundaries that no draw may give: those of the phases that the draws are to be compared with.
    sequence : int
        Which sequence of draws, so that several teachers can be given different ones.

    Raises
    ------
    UsageError
        If there are not so many placements.
    """
    check_request(k, layers)
    left_out = {tuple(other_than)} if len(other_than) == k - 1 else set()

    def draw(rng: np.random.Generator) -> tuple[int, ...]:
        return tuple(sorted(int(place) + 1 for place in rng.choice(layers - 1, size=k - 1, replace=False)))

    possible = comb(layers - 1, k - 1) - len(left_out)
    if not possible:
        raise UsageError(f"{counted(k, 'phase')} of {layers} layers can be placed in one way alone; use another k")
    return contiguous(_distinct(draw, seed, sequence, left_out, possible, "placements"), layers)


def random_shuffle(boundaries: Sequence[int], layers: int, seed: int, sequence: int = 0) -> list[int]:
    """Blocks of the same sizes as the phases, their layers drawn at random; never the phases themselves.

    Every seed gives another assignment; `sequence` as in :func:`random_contiguous`.

    Raises
    ------
    UsageError
        If there is nothing to shuffle (one phase, or as many as layers), or there are not so many assignments.
    """
    own = contiguous(boundaries, layers)
    if len(set(own)) in (1, layers):
        raise UsageError(f"k={len(set(own))} phases of {layers} layers cannot be shuffled; use another k")

    def draw(rng: np.random.Generator) -> tuple[int, ...]:
        return tuple(_numbered([int(block) for block in rng.permutation(own)]))

    possible = draws_of(SHUFFLE, boundaries, layers)
    return list(_distinct(draw, seed, sequence, {tuple(own)}, possible, "assignments"))


def _distinct(
    draw: Callable[[np.random.Generator], tuple[int, ...]],
    number: int,
    sequence: int,
    left_out: set[tuple[int, ...]],
    possible: int,
    what: str,
) -> tuple[int, ...]:
    """The `number`-th of a sequence of draws, repetitions and `left_out` skipped; of so many `possible` ones."""
    if not 0 <= number < possible:
        raise UsageError(
            f"`partition_seed={number}`: there are {possible} such {what}, numbered from 0; use a smaller one"
        )
    rng, met = np.random.default_rng(sequence), set(left_out)
    while True:
        found = draw(rng)
        if found not in met:
            met.add(found)
            if len(met) - len(left_out) > number:
                return found


def _numbered(blocks: Sequence[int]) -> list[int]:
    """Blocks renumbered by first use."""
    order = {block: number for number, block in enumerate(dict.fromkeys(blocks))}
    return [order[block] for block in blocks]
