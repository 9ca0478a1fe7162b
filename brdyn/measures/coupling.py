"""Do the layers of a phase act alike? What pairs of layers have within phases against pairs across, at the same
distance: coupling, or harm done by exchanging them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from brdyn.checked_json import ADDED_LATER
from brdyn.measures.placements import placements

DRAWS = 10_000


def phases_at(depth: int, boundaries: np.ndarray) -> np.ndarray:
    """Phase (from 0) of every layer for placements of boundaries `(n, k - 1)`, `(n, L)`."""
    return (np.arange(1, depth + 1)[None, :, None] > boundaries[:, None, :]).sum(-1)


def same_phase(depth: int, boundaries: np.ndarray) -> np.ndarray:
    """Weights of pairs of layers l < m by which couplings add to "within phases less across", for each placement.

    Of pairs at one distance `m - l` those within a phase are compared with those across; distances at which there is
    only one kind say nothing. It is the regression of the coupling on being in one phase, with a level of its own for
    every distance: layers that are near couple more in any network, and more of them are in one phase.

    Parameters
    ----------
    depth : int
        L.
    boundaries : ndarray, shape (n, k - 1)
        Last layers of all phases but the last, for n placements.

    Returns
    -------
    ndarray, shape (n, L (L - 1) / 2)
        Pairs row by row of the upper triangle; zeros where no distance has both kinds.

    Examples
    --------
    >>> from brdyn.measures.coupling import same_phase
    >>> same_phase(4, np.array([[2]]))  # neighbours 1-2 and 3-4 within, 2-3 across; further apart all are across
    array([[ 0.5,  0. ,  0. , -1. ,  0. ,  0.5]])
    """
    first, second = np.triu_indices(depth, 1)
    phase = phases_at(depth, boundaries)
    return _weights(phase[:, first] == phase[:, second], second - first)


def beyond_distance(values: np.ndarray, chosen: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What chosen pairs have beyond others at their distance, and the same over its standard error, but for a factor.

    The second varies alike for every choice, so that choices can be held against each other; it is not a number where
    no distance has pairs of both kinds.

    Parameters
    ----------
    values : ndarray, shape (pairs,)
    chosen : ndarray of bool, shape (n, pairs)
    distances : ndarray, shape (pairs,)

    Examples
    --------
    >>> from brdyn.measures.coupling import beyond_distance
    >>> beyond_distance(np.array([3.0, 1.0, 9.0]), np.array([[True, False, True]]), np.array([1, 1, 2]))
    (array([2.]), array([1.41421356]))
    """
    weights = _weights(chosen, distances)
    found, size = weights @ values, (weights**2).sum(1)  # 1 over the sum of squares of the regression
    return found, np.divide(found, size**0.5, out=np.full(len(found), np.nan), where=size > 0)


def _weights(chosen: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Of the regression on being chosen, with a level for every distance; zeros where none has both kinds."""
    at = np.equal.outer(distances, np.unique(distances)).astype(float)  # (pairs, distances)
    rest = chosen - (chosen @ at / at.sum(0)) @ at.T
    size = (rest**2).sum(1, keepdims=True)
    return np.divide(rest, size, out=np.zeros_like(rest), where=size > 1e-9)


@dataclass(frozen=True)
class PlacementTest:
    """The coupling within phases less across, among what the same number of boundaries gives at other places.

    Attributes
    ----------
    p_value : float
        Share of the placements that give as much, each over its standard error: by the difference alone evenly spaced
        boundaries, which have the fewest pairs within a phase, would be extreme twice as often as others.
    placements : int
        Of those that have pairs of both kinds at one distance.
    exact : bool
        Whether all were compared.
    p_below : float or None
        Share of the placements that give as little; None in a result of before it was measured.
    """

    p_value: float
    placements: int
    exact: bool
    p_below: float | None = field(default=None, metadata=ADDED_LATER)


def placement_test(
    coupling: np.ndarray, depth: int, boundaries: Sequence[int], seed: int, draws: int = DRAWS
) -> PlacementTest | None:
    """Compare a coupling of pairs, as :func:`same_phase` has them, at the boundaries and at other places.

    None where no distance has pairs of both kinds.

    Examples
    --------
    >>> from brdyn.measures.coupling import placement_test
    >>> placement_test(np.array([0.9, 0.1, 0.1, 0.1, 0.1, 0.9]), 4, [2], seed=0)
    PlacementTest(p_value=0.3333333333333333, placements=3, exact=True, p_below=1.0)
    """
    chosen = np.array([boundaries], dtype=int)
    if not len(boundaries) or not same_phase(depth, chosen).any():
        return None
    places, exact = placements(depth - 1, (chosen[0] - 1).tolist(), draws, np.random.default_rng(seed))
    parts = np.array_split(places + 1, max(1, len(places) * len(coupling) // 10**7))
    found = np.concatenate([_over_error(coupling, depth, part) for part in parts])
    found, here = found[np.isfinite(found)], float(_over_error(coupling, depth, chosen)[0])
    above, below = (float(np.mean(share)) for share in (found >= here - 1e-12, found <= here + 1e-12))
    return PlacementTest(above, len(found), exact, below)


def _over_error(coupling: np.ndarray, depth: int, boundaries: np.ndarray) -> np.ndarray:
    """Within phases less across, over its standard error."""
    first, second = np.triu_indices(depth, 1)
    phase = phases_at(depth, boundaries)
    return beyond_distance(coupling, phase[:, first] == phase[:, second], second - first)[1]
