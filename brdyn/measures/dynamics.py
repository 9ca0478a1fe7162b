"""All measures of how tokens move, from one pass over the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from brdyn.data import ImageSet
from brdyn.measures.alignment import PhaseAlignment, phase_alignment
from brdyn.measures.convergence import DirectionalConvergence
from brdyn.measures.engine import measure, similarity_metric
from brdyn.measures.estimation import EstimationError
from brdyn.measures.norm import TokenNorm
from brdyn.measures.per_image import PerImageMetric
from brdyn.measures.speed import AngularSpeed, TurningAngle
from brdyn.measures.update_field import UpdateField
from brdyn.models import VisionTransformer
from brdyn.phases import Phases, segment

CURVES: dict[str, type[PerImageMetric]] = {
    "norm": TokenNorm,
    "convergence": DirectionalConvergence,
    "speed": AngularSpeed,
    "turning": TurningAngle,
    "update": UpdateField,
}


@dataclass(frozen=True)
class Dynamics:
    """How the tokens of a model move through its depth.

    Attributes
    ----------
    table : DataFrame
        One row per statistic, group and layer: `mean`, the 95 % interval of the mean over images (`low`, `high`),
        `sd`, `n_images`. States are numbered from 0 (embedding) to L, updates from 0 (made by block 1) to L - 1.
    phases : Phases
        The phases that estimation error and alignment refer to.
    alignment : dict of str to PhaseAlignment or None
        By token group: does the angular speed change more at phase boundaries?
    """

    table: pd.DataFrame
    phases: Phases
    alignment: dict[str, PhaseAlignment | None]

    def curve(self, statistic: str, group: str = "patches") -> np.ndarray:
        """Mean of a statistic over depth."""
        rows = self.table[(self.table["statistic"] == statistic) & (self.table["group"] == group)]
        return rows.sort_values("layer")["mean"].to_numpy()

    def groups(self, statistic: str) -> list[str]:
        """The token groups a statistic was taken on."""
        return list(dict.fromkeys(self.table.loc[self.table["statistic"] == statistic, "group"]))


def token_dynamics(
    model: VisionTransformer,
    images: ImageSet,
    phases: Phases | None = None,
    *,
    curves: Sequence[str] = tuple(CURVES),
    k: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Dynamics:
    """Measure norm, convergence, speed, turning, update field and estimation error in one pass.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet
    phases : Phases, optional
        Without them they are found in the same pass (cosine of cls and mean patch, `k` phases).
    curves : sequence of str
        Which of `norm`, `convergence`, `speed`, `turning`, `update` to take.
    k, seed
        Of the phases and of the alignment's permutation test.
    **options
        Of :func:`brdyn.measures.measure`.

    Returns
    -------
    Dynamics
    """
    metrics = {name: CURVES[name](model.tokens, model.depth) for name in curves}
    estimation = EstimationError(model.tokens, model.depth)
    similarity = similarity_metric("cosine", model, seed=seed) if phases is None else None
    everything = {**metrics, "estimation": estimation} | ({"similarity": similarity} if similarity else {})
    measure(model, images, everything, **options)
    if phases is None:
        assert similarity is not None
        phases = segment(similarity.result(), k)
    parts = [metric.table() for metric in metrics.values()] + [estimation.within(phases.boundaries)]
    found = Dynamics(pd.concat(parts, ignore_index=True), phases, {})
    aligned = {
        group: phase_alignment(found.curve("speed", group), phases.boundaries, seed)
        for group in found.groups("speed")
    }
    return Dynamics(found.table, phases, aligned)
