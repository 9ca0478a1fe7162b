"""All measures of how tokens move, from one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from torchmetrics import Metric

from brdyn.choices import MEASURES, some_of
from brdyn.data import ImageSet
from brdyn.errors import UsageError
from brdyn.measures.alignment import PhaseAlignment, phase_alignment
from brdyn.measures.basins import NO_LABELS, AngularBasins, Basins
from brdyn.measures.convergence import DirectionalConvergence
from brdyn.measures.engine import measure, metric_device, similarity_metric
from brdyn.measures.estimation import EstimationError
from brdyn.measures.modes import HELD_OUT, RIDGE, DynamicModes, Modes, check_fit
from brdyn.measures.norm import TokenNorm
from brdyn.measures.per_image import PerImageMetric
from brdyn.measures.speed import AngularSpeed, TurningAngle
from brdyn.measures.update_field import UpdateField
from brdyn.models import VisionTransformer
from brdyn.phases import Phases, segment
from brdyn.seeds import check_seed

CURVES: dict[str, type[PerImageMetric]] = {
    "norm": TokenNorm,
    "convergence": DirectionalConvergence,
    "speed": AngularSpeed,
    "turning": TurningAngle,
    "update": UpdateField,
    "estimation": EstimationError,
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
        The phases that estimation error, modes and alignment refer to.
    alignment : dict of str to PhaseAlignment or None
        By token group: does the angular speed change more at phase boundaries?
    basins : Basins or None
    modes : Modes or None
    left_out : dict of str to str
        Measures that these images do not allow, and why.
    """

    table: pd.DataFrame
    phases: Phases
    alignment: dict[str, PhaseAlignment | None]
    basins: Basins | None = None
    modes: Modes | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    def curve(self, statistic: str, group: str | None = None) -> np.ndarray:
        """Mean of a statistic over depth; by default of its last token group, the spatial tokens."""
        return curve(self.table, statistic, group or self.groups(statistic)[-1])

    def groups(self, statistic: str) -> list[str]:
        """The token groups a statistic was taken on."""
        return list(dict.fromkeys(self.table.loc[self.table["statistic"] == statistic, "group"]))


def curve(table: pd.DataFrame, statistic: str, group: str) -> np.ndarray:
    """Mean of a statistic over depth, from a tidy table."""
    rows = table[(table["statistic"] == statistic) & (table["group"] == group)]
    return rows.sort_values("layer")["mean"].to_numpy()


def token_dynamics(
    model: VisionTransformer,
    images: ImageSet,
    phases: Phases | None = None,
    *,
    measures: Sequence[str] | None = None,
    k: int | None = None,
    seed: int = 0,
    ridge: float = RIDGE,
    rank: int | None = None,
    **options: Any,
) -> Dynamics:
    """Measure how tokens move, in one pass over the images.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet
    phases : Phases, optional
        Without them they are found in the same pass (cosine of cls and mean patch, `k` phases).
    measures : sequence of str, optional
        Which of `norm`, `convergence`, `speed`, `turning`, `update`, `estimation`, `basins`, `modes` to take.
        By default all that the images allow: basins need labels, modes five images.
    k, seed
        Of the phases; the seed also draws the samples and bootstraps.
    ridge, rank
        Of the modes; see :meth:`brdyn.measures.modes.DynamicModes.within`.
    **options
        Of :func:`brdyn.measures.measure`.

    Returns
    -------
    Dynamics

    Raises
    ------
    UsageError
        If a measure is unknown, or one that was named needs what the images do not have.

    Examples
    --------
    >>> dynamics = brdyn.token_dynamics(model, images, phases, measures=["norm", "speed"])
    >>> dynamics.curve("norm", "cls").shape, dynamics.curve("speed", "cls").shape  # states, updates
    ((13,), (12,))
    """
    chosen = check_measures(measures)
    check_fit(ridge, rank, model.info.width)
    check_seed(seed)
    left_out: dict[str, str] = {}

    processes = options.get("processes")
    alone = processes is None or processes.world == 1

    def attempt(name: str, make: Callable[[], Any], alike: bool = alone) -> Any:
        """What `make` gives, or None where the measure was not asked for by name and cannot be had."""
        if name not in chosen or name in left_out:
            return None
        try:
            return make()
        except UsageError as error:
            # Several processes must agree on what is measured, and memory may differ between them.
            if measures is not None or not alike:
                raise
            left_out[name] = str(error)
            return None

    shape = (model.tokens, model.depth, model.info.width)
    boundaries = phases.boundaries if phases is not None else None
    curves = {name: CURVES[name](model.tokens, model.depth) for name in chosen if name in CURVES}
    for name, missing in _missing(images).items():
        if name in chosen and measures is not None:
            raise UsageError(missing)
        if name in chosen:
            left_out[name] = missing
    basins = attempt("basins", lambda: AngularBasins(*shape, seed=seed))
    modes = attempt("modes", lambda: DynamicModes(*shape, boundaries, seed=seed, device=metric_device(model)))
    similarity = similarity_metric("cosine", model, seed=seed) if phases is None else None
    metrics: dict[str, Metric | None] = {**curves, "basins": basins, "modes": modes, "similarity": similarity}
    measure(
        model, images, {name: metric for name, metric in metrics.items() if metric is not None}, **options
    )
    if phases is None:
        assert similarity is not None
        phases = segment(similarity.result(), k)
    places = phases.boundaries
    found_basins = attempt("basins", lambda: _basins(basins, images), alike=True)  # from what all have seen
    found_modes = attempt("modes", lambda: modes.within(places, ridge, rank))
    table: pd.DataFrame = pd.concat(
        [
            metric.within(places) if isinstance(metric, EstimationError) else metric.table()
            for metric in curves.values()
        ]
        + ([found_basins.table] if found_basins is not None else [])
        or [
            pd.DataFrame(
                columns=["statistic", "unit", "group", "layer", "mean", "low", "high", "sd", "n_images"]
            )
        ],
        ignore_index=True,
    )
    groups = dict.fromkeys(table.loc[table["statistic"] == "speed", "group"])
    alignment = {group: phase_alignment(curve(table, "speed", group), places, seed) for group in groups}
    return Dynamics(table, phases, alignment, found_basins, found_modes, left_out)


def _basins(metric: AngularBasins, images: ImageSet) -> Basins:
    """Of the images that have a label, if there is any."""
    report = images.report
    if report.unlabelled.count == report.count:
        raise UsageError(
            f"angular basins need labels, and not one of the {report.count} images has one "
            f"({report.unlabelled.example()})"
        )
    return metric.result()


def _missing(images: ImageSet) -> dict[str, str]:
    """Measures that these images cannot give, known before any is read."""
    found = {}
    if not images.source.labelled:
        found["basins"] = "; ".join(filter(None, (NO_LABELS, images.source.no_labels)))
    if len(images) < HELD_OUT:
        found["modes"] = (
            f"dynamic modes need at least {HELD_OUT} images, and there are {len(images)}; give more"
        )
    return found


def check_measures(names: Sequence[str] | None) -> tuple[str, ...]:
    """The measures of these names, in order; all without names.

    Raises
    ------
    UsageError
        If there is no such measure, or none is named.
    """
    return MEASURES if names is None else some_of("measure", names, MEASURES)
