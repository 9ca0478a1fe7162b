"""All measures of how tokens move, from one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import pandas as pd

from brdyn.arguments import checked
from brdyn.choices import (
    KRYLOV_STEPS,
    MEASURES,
    RIDGE,
    TANGENTS,
    check_spectra,
    chosen_measures,
    some_of,
)
from brdyn.data import ImageSet
from brdyn.errors import UsageError
from brdyn.measures.alignment import PhaseAlignment, phase_alignment
from brdyn.measures.basins import Basins
from brdyn.measures.contract import COLUMNS, Asked, DepthMeasure, Details, measure_class, updates_from_1
from brdyn.measures.engine import measure
from brdyn.measures.found_modes import SHAPE, Modes
from brdyn.measures.found_phases import FoundPhases
from brdyn.measures.found_spectra import SIDES, TOTALS, Spectra, overall, within
from brdyn.measures.headlines import headlines, leading
from brdyn.measures.in_words import basins_end, curve, decision, ends, linearity, motion, too_few
from brdyn.measures.modes import check_fit
from brdyn.measures.null import BesideTwins, Null, Tables
from brdyn.measures.readout import ACCURACY, DIVERGENCE, deciding_state
from brdyn.models import VisionTransformer
from brdyn.phases import Phases
from brdyn.provenance import Provenance, Stopwatch
from brdyn.seeds import check_seed
from brdyn.store import ROW, from_records, listed, records, rows_of
from brdyn.trajectory import Stream
from brdyn.words import counted

# Statistics of the spatial tokens alone, which dynamics.json has as a list and not by group.
SPATIAL = (
    "stable_rank",
    "effective_rank",
    "coherence",
    "tangent_stable_rank",
    "tangent_effective_rank",
    "cosine_to_mean",
)
SILENT = (
    "tangent_stable_rank",
    "tangent_effective_rank",
    "stable_rank",
    "cosine_to_mean",
    "attention_stable_rank",
    "mlp_stable_rank",
)  # of the small table
# Of which no headline is told; the divergence of an untrained head is small because it is sure of nothing.
UNTOLD = {*SPATIAL, *SILENT, DIVERGENCE}
TABLE, MODES, SPECTRA = "dynamics", "modes", "spectra"
BESIDE = {MODES: tuple(SHAPE["errors"][0]), SPECTRA: TOTALS}  # tables of twins besides that of curves


@dataclass(frozen=True, eq=False, repr=False)
class Dynamics(BesideTwins):
    """How the tokens of a model move through its depth.

    Attributes
    ----------
    table : DataFrame
        One row per statistic, group and layer: `mean`, the 95 % interval of the mean over images (`low`, `high`),
        `sd`, `n_images`. States are numbered from 0 (embedding) to L, updates from 1 to L, as blocks.
    phases : Phases
        The phases that estimation error, modes and alignment refer to.
    alignment : dict of str to PhaseAlignment or None
        By token group: are the updates that cross a phase boundary faster than the others?
    details : dict of str to Details
        By measure, what does not fit the table: `basins`, `modes`, `spectra`.
    left_out : dict of str to str
        Measures that these images do not allow, and why.
    null : Null or None
        The same of untrained twins, where :func:`brdyn.with_null` measured them.

    Examples
    --------
    >>> dynamics = brdyn.token_dynamics(model, images, phases, measures=["norm"])
    >>> dynamics.groups("norm"), dynamics.curve("norm", "cls").shape
    (['cls', 'patches'], (13,))
    """

    FILE: ClassVar[str] = "dynamics.json"
    SCHEMA: ClassVar[int] = 2
    SHAPE: ClassVar[Mapping[str, Any]] = {
        "table": [{"statistic": str, "unit": str, "group": str, "layer": int, **ROW}],
        "phases": dict,
        "alignment": {str: (PhaseAlignment.shape(), None)},
        "left_out": {str: str},
        **BesideTwins.NULL_SHAPE,
    }

    table: pd.DataFrame
    phases: Phases
    alignment: dict[str, PhaseAlignment | None]
    details: Mapping[str, Details] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def basins(self) -> Basins | None:
        """Angular basins, where they were measured."""
        return cast("Basins | None", self.details.get("basins"))

    @property
    def modes(self) -> Modes | None:
        """Dynamic modes, where they were measured."""
        return cast("Modes | None", self.details.get("modes"))

    @property
    def spectra(self) -> Spectra | None:
        """Lyapunov exponents and what belongs to them, where they were measured."""
        return cast("Spectra | None", self.details.get("spectra"))

    def curve(self, statistic: str, group: str | None = None) -> np.ndarray:
        """Mean of a statistic over depth, by default of its last token group, the spatial tokens. Raises UsageError if
        there is no such statistic or group."""
        chosen = group or next(reversed(self.groups(statistic)), "")
        rows = rows_of(self.table, statistic=statistic, group=chosen)
        return rows.sort_values("layer")["mean"].to_numpy()

    def groups(self, statistic: str) -> list[str]:
        """The token groups a statistic was taken on."""
        return list(dict.fromkeys(self.table.loc[self.table["statistic"] == statistic, "group"]))

    @property
    def statistics(self) -> list[str]:
        """What there is a curve of."""
        return list(dict.fromkeys(self.table["statistic"]))

    def content(self) -> dict[str, Any]:
        """Every curve by name, the table, phases, tests, and what measures found besides."""
        return {
            **{
                name: listed(self.curve(name))
                if name in SPATIAL
                else {group: listed(self.curve(name, group)) for group in self.groups(name)}
                for name in self.statistics
            },
            "layers": {name: int(rows["layer"].min()) for name, rows in self.table.groupby("statistic", sort=False)},
            "phases": self.phases.to_dict(),
            "alignment": {group: asdict(test) if test else None for group, test in self.alignment.items()},
            "left_out": dict(self.left_out),
            "table": records(self.table),
            **{name: found.to_dict() for name, found in self.details.items()},
            **self.null_content(),
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """The table, and those of the details."""
        own = {"dynamics.parquet": self.table, **self.null_tables()}
        return own | {name: table for found in self.details.values() for name, table in found.tables().items()}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from a dynamics.json and the tables beside it; operators of modes are not kept."""
        phases = Phases.from_dict(content["phases"])
        earlier = content.get("schema", 0) < cls.SCHEMA
        table = from_records(content["table"], COLUMNS)
        table = updates_from_1(table, phases.layers) if earlier else table
        kinds = {name: measure_class(name).DETAILS for name in MEASURES if name in content}
        null = Null.read(content, folder, {TABLE: COLUMNS} | {name: BESIDE[name] for name in kinds if name in BESIDE})
        if earlier and null is not None:
            of_twins = updates_from_1(null.tables[TABLE], phases.layers)
            null = replace(null, tables={**null.tables, TABLE: of_twins})
        return cls(
            table,
            phases,
            {
                group: PhaseAlignment.from_content(test) if test else None
                for group, test in content["alignment"].items()
            },
            {name: kind.from_content(content[name], table, folder) for name, kind in kinds.items() if kind is not None},
            content["left_out"],
            null=null,
        )

    def compared(self) -> dict[str, pd.DataFrame]:
        """The table without what a head says of labels, the errors of modes, and what spectra say over depth."""
        table = self.table[self.table["statistic"] != ACCURACY]
        modes = {} if self.modes is None else {MODES: self.modes.errors}
        return {TABLE: table, **modes, **({} if self.spectra is None else {SPECTRA: self.spectra.totals})}

    def of_tables(self, tables: Tables) -> Self:
        """Curves alone: basins, modes, spectra and tests of the speed are of the model."""
        return replace(self, table=tables[TABLE], alignment={}, details={}, null=None)

    def headlines(self, tables: Tables) -> dict[str, float]:
        """Of every curve one or two values that the guide speaks of, its last one by default."""
        found = headlines(tables[TABLE], UNTOLD)
        if SPECTRA in tables:
            means = tables[SPECTRA].drop_duplicates("quantity").set_index("quantity")["mean"]
            told = (what(side) for what in (overall, within) for side in SIDES)
            found |= {name: float(means[name]) for name in told if name in means}
        return found

    def answer(self) -> str:
        """When directions are settled, and where they turn fastest; without these, what was measured instead."""
        return self._said()[0]

    def _said(self) -> list[str]:
        """What measures say, line by line."""
        lines = [motion(self.table)]
        if (decided := deciding_state(self.table)) is not None:
            lines.append(decision(self.table, self.phases, *decided))
        if self.basins is not None:
            lines.append(basins_end(self.table, self.basins))
        if self.modes is not None:
            lines += linearity(self.phases, self.modes)
        if self.spectra is not None:
            lines += self.spectra.describe()
        unknown = f"not defined of any of these images: {', '.join(self.statistics).replace('_', ' ')}"
        return list(filter(None, lines)) or [leading(self.table, UNTOLD) or unknown]

    def overview(self) -> list[dict[str, Any]]:
        """The ends and extremes of every curve."""
        return ends(self.table, self.phases.layers, SILENT)

    def remarks(self) -> list[str]:
        """Tests, what other measures say, what the images are too few for, twins, and what was left out."""
        lines = [f"{group}: {test.describe()}" for group, test in self.alignment.items() if test is not None]
        if self.groups("effective_rank") and not np.isfinite(self.curve("effective_rank")).any():
            lines.append("no update moves a token: there is neither rank nor coherence")
        lines += self._said()[1:]
        left_out = [f"left out: {name} ({why})" for name, why in self.left_out.items()]
        few = too_few(self.table, SILENT)
        return [self.phases.describe(), *lines, *few, *self.null_lines(), *left_out]

    def brief(self) -> str:
        """What was measured."""
        return f"{', '.join([counted(len(self.statistics), 'statistic'), *self.details])}; {self.phases.layers} layers"


@checked
def token_dynamics(
    model: VisionTransformer,
    images: ImageSet,
    phases: Phases | Sequence[int] | None = None,
    *,
    measures: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    k: int | None = None,
    seed: int = 0,
    ridge: float = RIDGE,
    rank: int | None = None,
    tangents: int = TANGENTS,
    krylov_steps: int = KRYLOV_STEPS,
    stream: Stream | None = None,
) -> Dynamics:
    """Measure how tokens move, in one pass over the images.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet
    phases : Phases or sequence of int, optional
        Or their boundaries, as of :func:`brdyn.phases.as_phases`.
        Without them they are found in the same pass (cosine of cls and mean patch, `k` phases).
    measures : sequence of str, optional
        Which of :data:`brdyn.choices.MEASURES` to take; `all` among them is the default, those that the images and the
        model allow (basins need labels, modes five images, the read-out a head) without
        :data:`brdyn.choices.ONLY_NAMED`.
    leave_out : sequence of str
        Measures not to take of those, as modes cost the most.
    k, seed
        Of the phases; the seed also draws the samples and bootstraps.
    ridge, rank
        Of the modes; see :meth:`brdyn.measures.modes.DynamicModes.details`.
    tangents, krylov_steps
        Of the spectra; see :class:`brdyn.measures.spectra.JacobianSpectra`.
    stream : Stream, optional
        How to go through the images.

    Returns
    -------
    Dynamics

    Raises
    ------
    UsageError
        If a measure is unknown, one that was named needs what the images do not have, or the model gives none of
        those that were named.

    Examples
    --------
    >>> dynamics = brdyn.token_dynamics(model, images, phases, measures=["norm", "speed"])
    >>> dynamics.curve("norm", "cls").shape, dynamics.curve("speed", "cls").shape  # states, updates
    ((13,), (12,))
    """
    unwanted = some_of("measure", leave_out, MEASURES) if len(leave_out) else ()
    chosen = tuple(name for name in chosen_measures(measures) if name not in unwanted)
    if not chosen:
        raise UsageError("`leave_out` names all of the `measures`; leave out fewer")
    check_fit(ridge, rank, model.info.width)
    check_spectra(tangents, krylov_steps)
    check_seed(seed)
    watch, stream = Stopwatch(), stream or Stream()
    finder = FoundPhases(model, phases, k, seed)
    boundaries = finder.given.boundaries if finder.given is not None else None
    names = images.label_names
    asked = Asked(
        boundaries=boundaries, seed=seed, ridge=ridge, rank=rank, tangents=tangents, krylov_steps=krylov_steps,
        label_names=None if names is None else tuple(names),
    )  # fmt: skip
    taken = _Taken(frozenset(measures or ()))
    metrics: dict[str, DepthMeasure] = {}
    for name in chosen:
        kind = measure_class(name)
        if (why := kind.missing(images)) is not None:
            taken.leave_out(name, why)
            continue
        metric = taken.possible(name, partial(kind.make, model, asked), stream.is_alone)
        if metric is not None and taken.gives(name, metric):
            metrics[name] = metric
    taken.check(metrics)
    measure(model, images, {**metrics, **finder.metrics}, stream=stream)
    phases = finder.result()
    places = phases.boundaries
    tables, details = [], {}
    for name, metric in metrics.items():
        if (why := metric.missing(images)) is not None:  # now that they were read
            taken.leave_out(name, why)
        elif not taken.gives(name, metric):
            continue
        elif metric.DETAILS is None:
            tables.append(metric.table(places))
        elif (found := taken.possible(name, partial(metric.details, places), True)) is not None:
            details[name] = found
            tables.append(found.rows)
    taken.check(tables)
    table = _joined(tables)
    groups = dict.fromkeys(table.loc[table["statistic"] == "speed", "group"])
    alignment = {group: phase_alignment(curve(table, "speed", group), places, seed) for group in groups}
    origin = Provenance.of(model, images, watch, stream.processes, seed=seed, measures=list(chosen))
    return Dynamics(table, phases, alignment, details, taken.left_out, provenance=origin)


@dataclass
class _Taken:
    """Which measures were asked for by name, and which are left out, each with why."""

    named: frozenset[str]
    left_out: dict[str, str] = field(default_factory=dict)

    def leave_out(self, name: str, why: str) -> None:
        """Go on without a measure; one that was named is refused."""
        if name in self.named:
            raise UsageError(why)
        self.left_out[name] = why

    def possible(self, name: str, make: Callable[[], Any], alike: bool) -> Any:
        """What `make` gives, or None where the measure was not asked for by name and cannot be had."""
        try:
            return make()
        except UsageError as error:
            # Several processes must agree on what is measured, and memory may differ between them.
            if not alike:
                raise
            self.leave_out(name, str(error))
            return None

    def gives(self, name: str, metric: DepthMeasure) -> bool:
        """Whether the model gives a measure; one that it does not is left out, named or not."""
        why = metric.withheld()
        if why is not None:
            self.left_out[name] = why
        return why is None

    def check(self, found: Sized) -> None:
        """Refuse to measure nothing of what was named."""
        if self.left_out and not found:
            raise UsageError(next(iter(self.left_out.values())))


def _joined(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """All rows; none where nothing has any."""
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(COLUMNS))
