"""Which changes of depth are tried: every swap, deletion and replacement, and random shuffles."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, permutations

import numpy as np

from brdyn.choices import DRAWS
from brdyn.interventions.contexts import rearranged

ENUMERATED = 5  # layers whose orders are few enough to list
ATTEMPTS = 50


@dataclass(frozen=True)
class Operation:
    """One change of depth.

    Attributes
    ----------
    kind : {"swap", "delete", "replace", "shuffle_within", "shuffle_across"}
    layers : tuple of int
        The layers swapped, deleted or shuffled; for a replacement the layer and what replaces it.
    phase : int
        For shuffles: the phase that is shuffled, or whose size the window across a boundary has. Else 0.
    order : tuple of int
        The layer applied at each step.
    """

    kind: str
    layers: tuple[int, ...]
    phase: int
    order: tuple[int, ...]


def operations(
    kinds: Sequence[str],
    depth: int,
    boundaries: Sequence[int],
    draws: int = DRAWS,
    seed: int = 0,
    apart: int | None = None,
) -> Iterator[Operation]:
    """All swaps, deletions and replacements, and up to `draws` shuffles of each phase and of windows of its size.

    Those windows straddle a boundary, and some layer of theirs changes phase. Swaps and replacements are of layers that
    are at most `apart` from each other, where that is given.
    """
    layers = range(1, depth + 1)
    if "swap" in kinds:
        for pair in _near(combinations(layers, 2), apart):
            yield Operation("swap", pair, 0, rearranged(depth, pair, pair[::-1]))
    if "delete" in kinds and depth > 1:
        for layer in layers:
            yield Operation("delete", (layer,), 0, tuple(other for other in layers if other != layer))
    if "replace" in kinds:
        for pair in _near(permutations(layers, 2), apart):
            yield Operation("replace", pair, 0, rearranged(depth, pair[:1], pair[1:]))
    if "shuffle" in kinds:
        rng = np.random.default_rng(seed)
        for phase, (start, end) in enumerate(pairwise([0, *boundaries, depth]), 1):
            size = end - start
            if size < 2:
                continue
            own = [tuple(range(start + 1, end + 1))]
            windows = straddling_windows(boundaries, depth, size)
            for kind, places in (("shuffle_within", own), ("shuffle_across", windows)):
                across = kind == "shuffle_across"
                for window, layers_there in _shuffles(places, boundaries if across else None, draws, rng):
                    yield Operation(kind, window, phase, rearranged(depth, window, layers_there))


def _near(pairs: Iterable[tuple[int, int]], apart: int | None) -> Iterator[tuple[int, int]]:
    """The pairs of layers that are at most so far apart; all of them without a number."""
    return (pair for pair in pairs if apart is None or abs(pair[0] - pair[1]) <= apart)


def _shuffles(
    windows: Sequence[tuple[int, ...]],
    boundaries: Sequence[int] | None,
    draws: int,
    rng: np.random.Generator,
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Up to `draws` different orders of the layers of some windows, never the true one.

    With boundaries, only orders in which some layer changes phase. Overlapping windows share orders: each counts once.
    """

    def counts(window: tuple[int, ...], order: tuple[int, ...]) -> bool:
        if boundaries is None:
            return order != window
        return any(
            bisect_left(boundaries, place) != bisect_left(boundaries, layer)
            for place, layer in zip(window, order, strict=True)
        )

    found: dict[frozenset[tuple[int, int]], tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def add(window: tuple[int, ...], order: tuple[int, ...]) -> None:
        if counts(window, order):
            moved = frozenset(pair for pair in zip(window, order, strict=True) if pair[0] != pair[1])
            found.setdefault(moved, (window, order))

    if windows and len(windows[0]) <= ENUMERATED:
        for window in windows:
            for order in permutations(window):
                add(window, order)
        every = list(found.values())
        return [every[index] for index in sorted(rng.permutation(len(every))[:draws])]
    for _ in range(ATTEMPTS * draws if windows else 0):
        if len(found) == draws:
            break
        window = windows[int(rng.integers(len(windows)))]
        add(window, tuple(int(layer) for layer in rng.permutation(window)))
    return list(found.values())


def straddling_windows(boundaries: Sequence[int], layers: int, size: int) -> list[tuple[int, ...]]:
    """Runs of `size` consecutive layers that cross a phase boundary."""
    edges = [0, *boundaries, layers]
    whole = [set(range(start + 1, end + 1)) for start, end in pairwise(edges)]
    windows = (tuple(range(start, start + size)) for start in range(1, layers - size + 2))
    return [window for window in windows if not any(phase.issuperset(window) for phase in whole)]
