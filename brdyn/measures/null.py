"""Results beside those of untrained twins: what the architecture does by itself, as the null of what a network does.

A rule that untrained networks pass is no evidence of what was learnt (method notes, section 6).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
import pandas as pd

from brdyn.arguments import checked
from brdyn.compared import Compared
from brdyn.data import ImageSet
from brdyn.errors import BrdynError
from brdyn.models import VisionTransformer
from brdyn.models.twins import Twins, is_still
from brdyn.phases import Phases
from brdyn.result import Result
from brdyn.store import listed, read_table
from brdyn.trajectory import Stream
from brdyn.words import counted

TWIN = "twin"
NULL = {  # in a JSON
    "weights": [str],
    "notes": [str],
    "tables?": [str],  # all of a result in the first versions
    "values": {str: {"value": (float, None), "untrained": [(float, None)]}},
}
STILL = (
    "LayerScale of the untrained architecture starts so near 0 that its blocks hardly move a state: the twins show "
    "what doing nothing gives"
)
ONE = "one twin shows no spread; take 5 or more"

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True, eq=False, repr=False)
class Null(Compared):
    """What untrained twins of a model gave by the same measurement.

    Attributes
    ----------
    weights : tuple of str
        Of each twin: how it was drawn; none where one of them could not be measured.
    tables : dict of str to DataFrame
        The tables of the result, with a column `twin` from 1, without what a head or probe would read out.
    notes : tuple of str
        What a reader should know of them.

    Examples
    --------
    >>> twins = brdyn.untrained_twins(model, 2)
    >>> found = brdyn.with_null(brdyn.token_dynamics, model, images, phases, twins=twins, measures=["norm"])
    >>> found.null.twins, list(found.null.tables), sorted(set(found.null.tables["dynamics"]["twin"]))
    (2, ['dynamics'], [1, 2])
    """

    weights: tuple[str, ...]
    tables: Tables
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.weights)

    @property
    def twins(self) -> int:
        """How many there are."""
        return len(self.weights)

    @property
    def label(self) -> str:
        """For the legend of a picture."""
        return f"untrained twins ({self.twins})"

    def each(self) -> list[Tables]:
        """The tables of every twin, in order."""
        return [
            {name: table[table[TWIN] == number].drop(columns=TWIN) for name, table in self.tables.items()}
            for number in range(1, self.twins + 1)
        ]

    def band(self, name: str, by: Sequence[str]) -> pd.DataFrame:
        """Least, mean and largest mean over the twins of a table's rows: columns `by`, `low`, `middle`, `high`."""
        groups = self.tables[name].groupby(list(by), sort=False)["mean"]
        return groups.agg(low="min", middle="mean", high="max").reset_index()

    @classmethod
    def read(cls, content: Mapping[str, Any], folder: Path, columns: Mapping[str, Sequence[str]]) -> Null | None:
        """Back from a result's JSON, which is of its shape, and the tables beside it; None where it has none.

        Parameters
        ----------
        content : mapping
        folder : path
        columns : mapping of str to sequence of str
            The tables there are, and their columns.

        Raises
        ------
        UsageError
            If a table is not there, or not one of such twins.
        ValueError
            If it is of other twins.
        """
        if content.get("null") is None:
            return None
        weights = tuple(content["null"]["weights"])
        tables = {}
        for name in content["null"].get("tables", columns):
            if name not in columns:
                raise ValueError(f"there is no table {name!r} of untrained twins in such a result")
            there = columns[name]
            table = read_table(folder / file_of(name), "a table of untrained twins", [*there, TWIN])
            if not set(table[TWIN]) <= set(range(1, len(weights) + 1)):
                raise ValueError(f"{file_of(name)} is of other twins than the {len(weights)} that are named")
            tables[name] = table
        return cls(weights, tables, tuple(content["null"]["notes"]))


def file_of(name: str) -> str:
    """Where a table of twins is kept."""
    return f"null_{name}.parquet"


@dataclass(frozen=True, eq=False, repr=False)
class BesideTwins(Result):
    """A result that untrained twins can stand beside.

    Attributes
    ----------
    null : Null or None
        What the twins gave; None where none were asked for.

    Examples
    --------
    >>> dynamics = brdyn.token_dynamics(model, images, phases, measures=["speed"])
    >>> dynamics.null is None, list(dynamics.compared())
    (True, ['dynamics'])
    """

    NULL_SHAPE: ClassVar[Mapping[str, Any]] = {"null?": (NULL, None)}

    _: KW_ONLY
    null: Null | None = None

    if TYPE_CHECKING:  # a field of every such result

        @property
        def phases(self) -> Phases: ...

    @abstractmethod
    def compared(self) -> dict[str, pd.DataFrame]:
        """The tables to take of a twin, by name: of the representation, as a twin's head was never trained."""

    @abstractmethod
    def headlines(self, tables: Tables) -> dict[str, float]:
        """The few numbers to tell of such tables, each by what it is."""

    @abstractmethod
    def of_tables(self, tables: Tables) -> Self:
        """A twin as a result of its own: with its tables, and without what is not of them."""

    def beside(self) -> dict[str, tuple[float, np.ndarray]]:
        """Each headline: the number here, and those of the twins; nothing without twins."""
        if not self.null:
            return {}
        twins = [self.headlines(tables) for tables in self.null.each()]
        own = self.headlines(self.compared())
        return {name: (value, np.array([one.get(name, np.nan) for one in twins])) for name, value in own.items()}

    def null_content(self) -> dict[str, Any]:
        """For the JSON: the twins, and the headlines."""
        if self.null is None:
            return {}
        values = {
            name: {"value": listed([value])[0], "untrained": listed(twins)}
            for name, (value, twins) in self.beside().items()
        }
        return {
            "null": {
                "weights": list(self.null.weights),
                "notes": list(self.null.notes),
                "tables": list(self.null.tables),
                "values": values,
            }
        }

    def null_tables(self) -> dict[str, pd.DataFrame]:
        """The tables of the twins, by file."""
        return {} if self.null is None else {file_of(name): table for name, table in self.null.tables.items()}

    def null_lines(self) -> list[str]:
        """Where each headline lies among those of the twins."""
        if self.null is None:
            return []
        if not self.null:
            return list(self.null.notes)
        twins = self.null.twins
        lines = [f"beside {counted(twins, 'untrained twin')} of this architecture, mean [least, largest]:"]
        lines += [f"  {said}" for name, (value, of) in self.beside().items() if (said := _placed(name, value, of))]
        if twins == 1:
            lines.append(f"  {ONE}")
        else:
            lines.append(f"  (outside all {twins} on a side named before: p = {1 / (twins + 1):.2g})")
        return [*lines, *(f"  {note}" for note in self.null.notes)]

    def numbers(self) -> dict[str, Any]:
        """The headlines."""
        return dict(self.headlines(self.compared()))

    @property
    def timed(self) -> bool:
        """Not where twins took most of the time."""
        return self.TIMED and self.null is None

    def with_twins(self, null: Null) -> Self:
        """The same beside twins."""
        return replace(self, null=null)


def _placed(name: str, value: float, twins: np.ndarray) -> str:
    """A number and those of twins, in words; empty where either is missing."""
    if not np.isfinite(value) or not np.isfinite(twins).all():
        return ""
    where = "above all" if value > twins.max() else "below all" if value < twins.min() else "among them"
    spread = "" if len(twins) == 1 else f" [{twins.min():.3g}, {twins.max():.3g}]"
    return f"{name}: {value:.3g}, untrained {twins.mean():.3g}{spread}: {where}"


Found = TypeVar("Found", bound=BesideTwins)


@checked
def with_null(
    measure: Callable[..., Found],
    model: VisionTransformer,
    images: ImageSet,
    phases: Phases | Sequence[int] | None = None,
    *,
    twins: Twins,
    stream: Stream | None = None,
    **options: Any,
) -> Found:
    """Measure a model, and then its untrained twins by the same settings on the same images and phases.

    Each twin costs as much as the model. Twins get the phases that are given, or found in the model, so that numbers
    compare.

    Parameters
    ----------
    measure : callable
        :func:`brdyn.token_dynamics`, :func:`brdyn.perturbation_repair`, :func:`brdyn.layer_surgery` or
        :func:`brdyn.splice_skill`.
    model : VisionTransformer
    images : ImageSet
    phases : Phases or sequence of int, optional
        Or their boundaries, as of :func:`brdyn.phases.as_phases`.
    twins : collection of VisionTransformer
        Of :func:`brdyn.untrained_twins`; or a list of models that you initialised yourself. None of them: no null.
    stream : Stream, optional
        How to go through the images.
    **options
        Of the measure.

    Returns
    -------
    Dynamics, Repair, Surgery or Splice
        What the measure gives of the model, with `null`. Where a twin cannot be drawn or measured, `null` has none, and
        a note says why.

    Raises
    ------
    UsageError, BrdynError
        As of the measure of the model. That of a twin, which the message names, is raised where this is one of several
        processes, as the others may be waiting for its numbers.

    Examples
    --------
    >>> twins = brdyn.untrained_twins(model, 3)
    >>> found = brdyn.with_null(brdyn.token_dynamics, model, images, phases, twins=twins, measures=["speed"])
    >>> value, untrained = found.beside()["cls: angular speed of the last update (radians)"]
    >>> untrained.shape
    (3,)
    """
    stream = stream or Stream()
    found = measure(model, images, phases, stream=stream, **options)
    weights: list[str] = []
    notes: list[str] = []
    tables: dict[str, list[pd.DataFrame]] = {}
    drawn = iter(twins)
    for number in range(1, len(twins) + 1):
        what = f"untrained twin {number} of {len(twins)}"
        try:
            twin = next(drawn)
            named = replace(stream, name=f"{model.info.name}, {what}")
            beside = measure(twin, images, found.phases, stream=named, **options)
        except BrdynError as error:
            if not stream.is_alone:
                raise type(error)(f"{what}: {error}") from error
            return found.with_twins(Null((), {}, (f"no null, as of {what}: {error}",)))
        for name, table in beside.compared().items():
            tables.setdefault(name, []).append(table.assign(**{TWIN: number}))
        weights.append(twin.info.weights)
        notes += [STILL] if is_still(twin) and not notes else []
        del twin, beside  # before the next is drawn
    if not weights:
        return found
    joined: dict[str, pd.DataFrame] = {}
    for name in found.compared():
        if len(tables.get(name, ())) == len(weights):
            joined[name] = pd.concat(tables[name], ignore_index=True)
        else:
            notes.append(f"no {name} of the twins: one of them was left without")
    return found.with_twins(Null(tuple(weights), joined, tuple(notes)))
