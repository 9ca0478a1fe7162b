"""Do the layers of a phase act alike? What pairs of layers have within phases against pairs across, at the same
distance: coupling, or harm done by exchanging them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    phase = phases_at(depth, boundaries)
    first, second = np.triu_indices(depth, 1)
    same = (phase[:, first] == phase[:, second]).astype(float)
    distance = np.equal.outer(second - first, np.arange(1, depth)).astype(float)  # (pairs, distances)
    rest = same - (same @ distance / distance.sum(0)) @ distance.T
    size = (rest**2).sum(1, keepdims=True)
    return np.divide(rest, size, out=np.zeros_like(rest), where=size > 1e-9)


@dataclass(frozen=True)
class PlacementTest:
    """The coupling within phases less across, among what the same number of boundaries gives at other places.

    Attributes
    ----------
    p_value : float
        Share of the placements that give as much.
    placements : int
    exact : bool
        Whether all were compared.
    """

    p_value: float
    placements: int
    exact: bool


def placement_test(
    coupling: np.ndarray, depth: int, boundaries: Sequence[int], seed: int, draws: int = DRAWS
) -> PlacementTest | None:
    """Compare a coupling of pairs, as :func:`same_phase` has them, at the boundaries and at other places.

    None where no distance has pairs of both kinds.

    Examples
    --------
    >>> from brdyn.measures.coupling import placement_test
    >>> placement_test(np.array([0.9, 0.1, 0.1, 0.1, 0.1, 0.9]), 4, [2], seed=0)
    PlacementTest(p_value=0.3333333333333333, placements=3, exact=True)
    """
    chosen = np.array([boundaries], dtype=int)
    if not len(boundaries) or not same_phase(depth, chosen).any():
        return None
    places, exact = placements(depth - 1, (chosen[0] - 1).tolist(), draws, np.random.default_rng(seed))
    parts = np.array_split(places + 1, max(1, len(places) * len(coupling) // 10**7))
    found = np.concatenate([same_phase(depth, part) @ coupling for part in parts])
    here = float(same_phase(depth, chosen)[0] @ coupling)
    return PlacementTest(float(np.mean(found >= here - 1e-12)), len(places), exact)
