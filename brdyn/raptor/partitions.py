"""Which layers share a block: phases by max-cut, given boundaries, or the paper's random baselines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from brdyn.errors import UsageError
from brdyn.phases import check_request

PARTITIONS = ("maxcut", "random-contiguous", "random-shuffle")


def contiguous(boundaries: Sequence[int], layers: int) -> list[int]:
    """The block of each layer for phases that end at `boundaries`.

    Raises
    ------
    UsageError
        If the boundaries do not rise from 1 to L - 1.
    """
    edges = [0, *boundaries, layers]
    if any(later <= earlier for earlier, later in pairwise(edges)):
        raise UsageError(
            f"boundaries {', '.join(map(str, boundaries))} do not rise from 1 to {layers - 1}; "
            "each is the last layer of a phase"
        )
    return [phase for phase, (start, end) in enumerate(pairwise(edges)) for _ in range(start, end)]


def random_contiguous(k: int, layers: int, seed: int) -> list[int]:
    """k contiguous phases with boundaries drawn evenly from all placements."""
    check_request(k, layers)
    drawn = np.random.default_rng(seed).choice(layers - 1, size=k - 1, replace=False) + 1
    return contiguous(sorted(int(place) for place in drawn), layers)


def random_shuffle(boundaries: Sequence[int], layers: int, seed: int) -> list[int]:
    """Blocks of the same sizes as the phases, their layers drawn at random; never the phases themselves.

    Raises
    ------
    UsageError
        If there is nothing to shuffle: one phase, or as many as layers.
    """
    own = contiguous(boundaries, layers)
    if len(set(own)) in (1, layers):
        raise UsageError(f"k={len(set(own))} phases of {layers} layers cannot be shuffled; use another k")
    rng = np.random.default_rng(seed)
    drawn = own
    while drawn == own:
        drawn = _numbered([int(block) for block in rng.permutation(own)])
    return drawn


def _numbered(blocks: Sequence[int]) -> list[int]:
    """Blocks renumbered by first use."""
    order = {block: number for number, block in enumerate(dict.fromkeys(blocks))}
    return [order[block] for block in blocks]
