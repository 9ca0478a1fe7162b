"""Phase alignment: does the angular speed change more at phase boundaries than inside phases?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brdyn.measures.placements import placements


@dataclass(frozen=True)
class PhaseAlignment:
    """Change of speed at boundaries against inside phases, with a permutation test.

    Attributes
    ----------
    at_boundaries, inside : float
        Mean absolute change of angular speed (radians per layer).
    p_value : float
        Share of all placements of as many boundaries whose difference is at least as large.
    placements : int
        How many were compared.
    exact : bool
        Whether those were all there are.
    """

    at_boundaries: float
    inside: float
    p_value: float
    placements: int
    exact: bool


def phase_alignment(
    speed: np.ndarray, boundaries: Sequence[int], seed: int = 0, permutations: int = 10_000
) -> PhaseAlignment | None:
    """Test whether speed jumps where phases meet.

    The first update of the phase after boundary b is that of block b + 1, `speed[b]`; the change there is
    `|speed[b] - speed[b - 1]|`. One-sided; all placements are compared where there are at most 20 000.

    Parameters
    ----------
    speed : ndarray, shape (L,)
        Angular speed of each update.
    boundaries : sequence of int
        Last layer of every phase but the last.
    seed, permutations
        Of the sampled test.

    Returns
    -------
    PhaseAlignment or None
        None where there is no boundary, nothing but boundaries, or a layer at which nothing has a direction.
    """
    change = np.abs(np.diff(np.asarray(speed, dtype=np.float64)))
    chosen = np.array([boundary - 1 for boundary in boundaries], dtype=int)
    if not 0 < len(chosen) < len(change) or not np.isfinite(change).all():
        return None

    def difference(places: np.ndarray) -> np.ndarray:
        inside = (change.sum() - change[places].sum(-1)) / (len(change) - len(chosen))
        return change[places].mean(-1) - inside

    places, exact = placements(len(change), chosen.tolist(), permutations, np.random.default_rng(seed))
    found = difference(chosen)
    outside = np.delete(change, chosen)
    return PhaseAlignment(
        at_boundaries=float(change[chosen].mean()),
        inside=float(outside.mean()),
        p_value=float(np.mean(difference(places) >= found - 1e-12)),
        placements=len(places),
        exact=exact,
    )
