"""Is exchanging layers of one phase less harmful than exchanging layers of two? With permutation tests.

Neighbouring layers are both in one phase more often and more alike whatever the phases, so a plain comparison says
little. Nor is it enough to compare with other contiguous phases: evenly spaced boundaries, which are those of a steady
drift, leave the nearest pairs within phases. Pairs at equal distance are compared for that, among all placements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from brdyn.arguments import checked
from brdyn.checked_json import ADDED_LATER
from brdyn.choices import check_least
from brdyn.measures.coupling import phases_at, placement_test, same_phase
from brdyn.measures.placements import placements
from brdyn.phases.evidence import ALPHA
from brdyn.phases.given import contiguous as check_boundaries
from brdyn.phases.matrices import square
from brdyn.seeds import check_seed


@dataclass(frozen=True)
class WithinAcross:
    """Mean over pairs of layers within a phase against pairs across phases.

    Attributes
    ----------
    within, across : float
        Mean over the pairs.
    p_contiguous : float
        Share of all placements of as many boundaries with at least as large an excess of across over within: small for
        evenly spaced ones wherever harm grows with distance.
    p_shuffled : float
        The same over random assignments of layers to phases of the same sizes, which need not be contiguous: easy to
        pass, as distance alone does it.
    matched_excess : float or None
        Across minus within among pairs at equal distance, averaged over the distances that have both, each weighted
        by its pairs as a regression does (:func:`brdyn.measures.coupling.same_phase`); None where there is none.
    p_matched, p_matched_below : float or None
        Share of the contiguous placements with at least, or at most, as large a matched excess over its standard error
        (:class:`brdyn.measures.coupling.PlacementTest`).
    placements : int
        How many contiguous placements were compared.
    exact : bool
        Whether those were all there are.

    Raises
    ------
    UsageError
        If the matrix is not square, or boundaries do not increase from 1 to L - 1.

    Examples
    --------
    >>> from brdyn.interventions import within_against_across
    >>> parts = np.repeat([0, 1], 4)
    >>> found = within_against_across(np.abs(parts[:, None] - parts), [4])
    >>> found.placements, found.exact, round(found.p_contiguous, 3)  # 1 of the 7 places for a boundary
    (7, True, 0.143)
    """

    within: float
    across: float
    p_contiguous: float
    p_shuffled: float
    matched_excess: float | None
    p_matched: float | None
    placements: int
    exact: bool
    p_matched_below: float | None = field(default=None, metadata=ADDED_LATER)

    def told(self) -> str:
        """What pairs at equal distance say, in words."""
        if self.p_matched is None:
            return "no distance has pairs within phases and across"
        p = f"p = {self.p_matched:.3f}"
        if self.p_matched < ALPHA:
            return f"at equal distance more across than for other cuts into as many phases, {p}"
        if 1 / self.placements >= ALPHA:
            return f"{self.placements} cuts into as many phases are too few to tell, {p}"
        return f"at equal distance not told from other cuts into as many phases, {p}"

    def lines(self) -> list[str]:
        """The tests in words."""
        lines = [
            f"  within phases {self.within:.3f}, across {self.across:.3f} (p = {self.p_contiguous:.3f} against other "
            f"contiguous phases, {self.p_shuffled:.4f} against shuffled ones)"
        ]
        if self.matched_excess is not None:
            lines.append(
                f"  at equal distance, across minus within {self.matched_excess:+.3f} (p = {self.p_matched:.3f})"
            )
        return lines


@checked
def within_against_across(
    matrix: np.ndarray, boundaries: Sequence[int], seed: int = 0, permutations: int = 10_000
) -> WithinAcross | None:
    """Compare the entries of a symmetric matrix within and across phases, one-sided.

    Parameters
    ----------
    matrix : ndarray, shape (L, L)
        Harm done by exchanging two layers; the diagonal is not used.
    boundaries : sequence of int
        Last layer of every phase but the last.
    seed, permutations
        Of what is sampled: contiguous placements beyond 20 000, and all shuffles.

    Returns
    -------
    WithinAcross or None
        None where there is one phase alone, no phase with two layers, or a value that is not finite.

    Examples
    --------
    >>> from brdyn.interventions import within_against_across
    >>> parts = np.repeat([0, 1], 4)
    >>> harm = 1 + 4 * np.abs(parts[:, None] - parts)  # 1 within a phase, 5 across
    >>> found = within_against_across(harm, [4])
    >>> found.within, found.across
    (1.0, 5.0)
    """
    layers = len(matrix)
    check_boundaries(boundaries, layers)
    check_least(1, permutations=permutations)
    first, second = np.triu_indices(layers, 1)
    values = square(matrix, "harm of exchanges")[first, second]
    rng = np.random.default_rng(check_seed(seed))
    chosen = np.array([boundaries], dtype=int)
    own = phases_at(layers, chosen)
    same = own[:, first] == own[:, second]
    if not len(boundaries) or not same.any() or not np.isfinite(values).all():
        return None
    places, exact = placements(layers - 1, [last - 1 for last in boundaries], permutations, rng)
    contiguous = phases_at(layers, places + 1)
    contiguous = contiguous[:, first] == contiguous[:, second]
    contiguous = contiguous[contiguous.any(1)]
    shuffled = np.concatenate([own, rng.permuted(np.repeat(own, permutations, axis=0), axis=1)])
    shuffled = shuffled[:, first] == shuffled[:, second]
    excess = _excess(values, same)[0]
    matched = placement_test(-values, layers, boundaries, seed, permutations)
    return WithinAcross(
        within=float(values[same[0]].mean()),
        across=float(values[~same[0]].mean()),
        p_contiguous=_share(_excess(values, contiguous), excess),
        p_shuffled=_share(_excess(values, shuffled), excess),
        matched_excess=None if matched is None else float(same_phase(layers, chosen)[0] @ -values),
        p_matched=None if matched is None else matched.p_value,
        placements=len(contiguous),
        exact=exact,
        p_matched_below=None if matched is None else matched.p_below,
    )


def _excess(values: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Mean across minus mean within, for each row of `same`."""
    count = same.sum(1)
    within = (same @ values) / count
    return (values.sum() - same @ values) / np.maximum(len(values) - count, 1) - within


def _share(others: np.ndarray, found: float) -> float:
    return float(np.mean(others >= found - 1e-12))
