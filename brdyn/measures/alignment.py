"""Phase alignment: is the motion faster where phases meet than elsewhere?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brdyn.checked_json import fields_of
from brdyn.measures.placements import placements

# What was compared, by its name in dynamics.json; the first is what is measured now, the second is of old results.
STATISTICS = ("speed", "change of speed")


@dataclass(frozen=True)
class PhaseAlignment:
    """Speed across boundaries against the speed of the other updates, with a permutation test.

    Attributes
    ----------
    statistic : str
        `speed`, or in results of earlier versions `change of speed`: the mean of `|s_{b+1} - s_b|`.
    at_boundaries, inside : float
        Mean angular speed (radians per layer) of the updates that cross a boundary, and of the others between layers.
    p_value : float
        Share of all placements of as many boundaries whose difference is at least as large.
    placements : int
        How many were compared.
    exact : bool
        Whether those were all there are.
    """

    statistic: str
    at_boundaries: float
    inside: float
    p_value: float
    placements: int
    exact: bool

    @classmethod
    def shape(cls) -> dict[str, Any]:
        """In dynamics.json, whose first versions did not name the statistic."""
        fields = fields_of(cls)
        return {"statistic?": fields.pop("statistic"), **fields}

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> PhaseAlignment:
        """Back from a dynamics.json.

        Raises
        ------
        ValueError
            If the statistic is none that there is or was.
        """
        statistic = content.get("statistic", STATISTICS[1])
        if statistic not in STATISTICS:
            raise ValueError(f"alignment is of {statistic!r} instead of {' or '.join(map(repr, STATISTICS))}")
        return cls(statistic, *(content[name] for name in fields_of(cls) if name != "statistic"))

    def describe(self) -> str:
        """The comparison in a few words."""
        return (
            f"{self.statistic} {self.at_boundaries:.3f} at phase boundaries, {self.inside:.3f} inside "
            f"(permutation p = {self.p_value:.3f})"
        )


def phase_alignment(
    speed: np.ndarray, boundaries: Sequence[int], seed: int = 0, permutations: int = 10_000
) -> PhaseAlignment | None:
    """Test whether the updates that lead from one phase to the next are the fast ones.

    The update that crosses boundary b is that of block b + 1, `speed[b]`. It is compared with all others between
    layers; the first, from the embedding to layer 1, is none of them, as no boundary can be there. One-sided; all
    placements are compared where there are at most 20 000.

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

    Examples
    --------
    >>> import numpy as np
    >>> from brdyn.measures.alignment import phase_alignment
    >>> phase_alignment(np.array([1.0, 1, 2, 1, 1]), [2]).describe()
    'speed 2.000 at phase boundaries, 1.000 inside (permutation p = 0.250)'
    """
    gaps = np.asarray(speed, dtype=np.float64)[1:]
    chosen = np.array([boundary - 1 for boundary in boundaries], dtype=int)
    if not 0 < len(chosen) < len(gaps) or not np.isfinite(gaps).all():
        return None

    def difference(places: np.ndarray) -> np.ndarray:
        inside = (gaps.sum() - gaps[places].sum(-1)) / (len(gaps) - len(chosen))
        return gaps[places].mean(-1) - inside

    places, exact = placements(len(gaps), chosen.tolist(), permutations, np.random.default_rng(seed))
    found = difference(chosen)
    return PhaseAlignment(
        statistic=STATISTICS[0],
        at_boundaries=float(gaps[chosen].mean()),
        inside=float(np.delete(gaps, chosen).mean()),
        p_value=float(np.mean(difference(places) >= found - 1e-12)),
        placements=len(places),
        exact=exact,
    )
