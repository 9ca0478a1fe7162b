"""What splicing finds: how well each surrogate stands in for each span of layers, and whose work a block can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from brdyn.interventions.repair_result import STATISTICS
from brdyn.interventions.splice_cells import EXCHANGE, IDENTITY, Cell
from brdyn.interventions.splice_sums import ACROSS, AGREEMENT, ALL, DIFFERENCE, HEAD, R2, SKILL, WITHIN
from brdyn.interventions.within_across import WithinAcross
from brdyn.measures.null import TWIN, BesideTwins, Null, Tables
from brdyn.phases import Phases
from brdyn.store import ROW, from_records, listed, records, rows_of
from brdyn.words import with_interval

TABLE = "splice"
HARDLY = 0.1  # of the error of doing nothing: who saves less does hardly better
WORDS = {
    "identity": "doing nothing",
    "mean": "the mean update",
    "affine": "one affine map",
    "power": "powers of one linear operator",
    "repeat": "its first block repeated",
    "exchange": "another layer's block",
    "raptor": "the Raptor's block",
}
KNOWN = {"surrogate": WORDS, "measure": (SKILL, R2, AGREEMENT)}


@dataclass(frozen=True)
class Calibration:
    """What the maps were fitted to.

    Attributes
    ----------
    images, rows : int
        And their tokens.
    directions : int
        In which a map may act: the width.
    ridge : float
        Over the mean eigenvalue of the second moment.
    """

    images: int
    rows: int
    directions: int
    ridge: float

    def describe(self) -> str:
        """In a sentence."""
        return (
            f"maps fitted to {self.images} other images ({self.rows} tokens for {self.directions} directions, ridge "
            f"{self.ridge:g})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Splice(BesideTwins):
    """How well surrogates stand in for spans of layers, seen at the last layer.

    Attributes
    ----------
    table : DataFrame
        One row per `surrogate`, `start` s and `end` e (blocks s + 1 to e are replaced), `block` (the layer whose block
        stands in, of `repeat` and `exchange`; else 0), `calibration` (images that the map was fitted to; else 0),
        token `group` (and `all`) and `measure`: `skill`, 1 minus the squared error over that of doing nothing, NaN
        where that makes none; `r2`; `cosine`; and of the group `head`, where the model has a classification head,
        `agreement`, the share of images with the same prediction. Over all images, with the 95 % interval of a
        bootstrap over them (of the agreement Wilson's), and `n_images`; there is no `sd`.
    work : DataFrame
        Of `exchange`: the squared error of another layer's block over that of doing nothing, `mean` of the cells (a
        layer and another, all alike) `where` they are within phases, across phases, in a phase (`layers 1-4`), and
        across minus within.
    test : WithinAcross or None
        The same of all tokens, within against across phases, with permutation tests.
    phases : Phases
    calibration : Calibration or None
        None where nothing was fitted.
    notes : tuple of str
        What could not be measured, and why.
    null : Null or None
        The same of untrained twins, where :func:`brdyn.with_null` measured them.

    Examples
    --------
    >>> found = brdyn.splice_skill(model, images, phases, surrogates=["repeat", "exchange"], spans=[(0, 6)])
    >>> found.surrogates, found.calibration is None
    (['identity', 'repeat', 'exchange'], True)
    >>> found.exchanged().shape, bool(np.isnan(found.exchanged().diagonal()).all())
    ((12, 12), True)
    """

    FILE: ClassVar[str] = "splice.json"
    SHAPE: ClassVar[Mapping[str, Any]] = {
        "table": [
            {"surrogate": str, "start": int, "end": int, "block": int, "calibration": int, "group": str,
             "measure": str, **ROW}
        ],
        "work": [{"group": str, "where": str, "cells": int, **ROW}],
        "test": (WithinAcross, None),
        "phases": dict,
        "calibration": (Calibration, None),
        "notes": [str],
        **BesideTwins.NULL_SHAPE,
    }  # fmt: skip

    table: pd.DataFrame
    work: pd.DataFrame
    test: WithinAcross | None
    phases: Phases
    calibration: Calibration | None = None
    notes: tuple[str, ...] = ()

    def content(self) -> dict[str, Any]:
        """Matrices of skill, whose work a block does, the test, phases, and the table."""
        return {
            "skill": {name: [listed(row) for row in self.matrix(name)] for name in self.spanning},
            "work": records(self.work),
            "test": None if self.test is None else asdict(self.test),
            "phases": self.phases.to_dict(),
            "calibration": None if self.calibration is None else asdict(self.calibration),
            "notes": list(self.notes),
            "table": records(self.table),
            **self.null_content(),
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """The table, whose work a block does, and the table of twins."""
        work = {"work.parquet": self.work} if len(self.work) else {}
        return {"splice.parquet": self.table, **work, **self.null_tables()}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from a splice.json."""
        table, work = (from_records(content[name], cls.SHAPE[name][0]) for name in ("table", "work"))
        phases = Phases.from_dict(content["phases"])
        check_within(table, phases.layers)
        return cls(
            table, work,
            content["test"],
            phases,
            content["calibration"],
            tuple(content["notes"]),
            null=Null.read(content, folder, {TABLE: list(cls.SHAPE["table"][0])}),
        )  # fmt: skip

    def alike(self) -> dict[str, Any]:
        """Also the images that maps were fitted to."""
        fitted = {} if self.provenance is None else self.provenance.details.get("calibration", {})
        return super().alike() | {"images that maps were fitted to": fitted.get("digest")}

    def compared(self) -> dict[str, pd.DataFrame]:
        """The table without what a head says, and without maps that were fitted to fewer images."""
        return {TABLE: self.full[self.full["measure"] != AGREEMENT].reset_index(drop=True)}

    def of_tables(self, tables: Tables) -> Self:
        """What stands in for a twin's layers; the test is of the model."""
        return replace(self, table=tables[TABLE], work=self.work.head(0), test=None, notes=(), null=None)

    def headlines(self, tables: Tables) -> dict[str, float]:
        """Of each surrogate the median skill over spans within phases, and over those that cross a boundary."""
        return headlines(tables[TABLE], self.phases)

    def of_twins(self) -> Self | None:
        """The mean over untrained twins, as a result; None without twins."""
        if not self.null:
            return None
        rows = self.null.tables[TABLE]
        keys = [name for name in rows.columns if name not in (*STATISTICS, TWIN)]
        return self.of_tables({TABLE: rows.groupby(keys, sort=False)["mean"].mean().reset_index()})

    @property
    def full(self) -> pd.DataFrame:
        """The table without maps that were fitted to fewer images."""
        images = 0 if self.calibration is None else self.calibration.images
        return self.table[self.table["calibration"].isin([0, images])]

    @property
    def surrogates(self) -> list[str]:
        """All there are, in order."""
        return list(dict.fromkeys(self.table["surrogate"]))

    @property
    def spanning(self) -> list[str]:
        """The surrogates of spans, of which there is one for each: all but `exchange`."""
        return [name for name in self.surrogates if name != EXCHANGE]

    def rows(self, surrogate: str, measure: str = SKILL, group: str = ALL) -> pd.DataFrame:
        """Rows of one surrogate, its maps fitted to all the images there were. Raises UsageError if there is no such
        surrogate, measure or group."""
        return rows_of(self.full, KNOWN, surrogate=surrogate, measure=measure, group=group)

    def matrix(self, surrogate: str, measure: str = SKILL, group: str = ALL) -> np.ndarray:
        """Of spans, `(L, L)`: row s + 1 and column e, counted from 1, for the first and the last block replaced."""
        found = np.full((self.phases.layers, self.phases.layers), np.nan)
        rows = self.rows(surrogate, measure, group)
        found[rows["start"], rows["end"] - 1] = rows["mean"]
        return found

    def exchanged(self, group: str = ALL) -> np.ndarray:
        """Error of layer m's block in the place of layer l's over that of doing nothing, `(L, L)`: row l, column m."""
        found = np.full((self.phases.layers, self.phases.layers), np.nan)
        rows = self.rows(EXCHANGE, SKILL, group)
        found[rows["end"] - 1, rows["block"] - 1] = 1 - rows["mean"]
        return found

    def whole_phases(self, measure: str = R2, group: str = ALL) -> pd.DataFrame:
        """Rows of spans that are a phase, also of maps that were fitted to fewer images; with its number as `phase`."""
        number = {(first - 1, last): place for place, (first, last) in enumerate(self.phases.intervals, 1)}
        rows = rows_of(self.table, KNOWN, measure=measure, group=group)
        rows = rows[rows["surrogate"] != EXCHANGE]
        phase = [number.get(span, 0) for span in zip(rows["start"], rows["end"], strict=True)]
        return rows.assign(phase=phase).query("phase > 0")

    def shared_work(self, where: str = WITHIN, group: str = ALL) -> pd.Series | None:
        """The row of `work` for a place, if there is one."""
        rows = self.work.query("where == @where and group == @group")
        return rows.iloc[0] if len(rows) else None

    def answer(self) -> str:
        """Whether one layer's block does another's work within a phase; and what stands in for whole phases best."""
        said = "; ".join([*self._of_work(), *self._of_phases()])
        if said:
            return said
        left_out = self.whole_phases(R2).query("surrogate == @IDENTITY")["mean"].median()
        if np.isnan(left_out):
            return "no block was exchanged, and nothing stands in for a whole phase; the table has every span"
        return f"no block was exchanged; without a whole phase R² is {left_out:.2f} (median over phases)"

    def _of_work(self) -> Iterator[str]:
        """By the interval, and by how much."""
        if EXCHANGE not in self.surrogates and not len(self.work):
            return
        within, across = (self.shared_work(where) for where in (WITHIN, ACROSS))
        if within is None:
            yield "no phase has two layers whose blocks could do each other's work"
            return
        if np.isnan(within["mean"]):
            yield "whether one layer's block does another's work cannot be told: doing nothing in a phase is no error"
            return
        besides = "" if across is None else f"; across phases {_share(across)}"
        yield (
            f"{verdict(within['mean'], within['low'], within['high'])}: within a phase another layer's block makes "
            f"{_share(within)} of the error that doing nothing makes{besides}"
        )

    def _of_phases(self) -> Iterator[str]:
        rows = self.whole_phases(SKILL)
        rows = rows[rows["calibration"].isin(self.full["calibration"]) & (rows["surrogate"] != IDENTITY)]
        found = rows.groupby("surrogate", sort=False)["mean"].agg(["median", "count"])
        found = found[found["count"] == found["count"].max()].dropna()
        if len(found):
            best = found["median"].idxmax()
            yield (
                f"for whole phases {WORDS[str(best)]} stands in best (skill {found.loc[best, 'median']:.2f} over doing "
                "nothing, median over phases)"
            )

    def overview(self) -> list[dict[str, Any]]:
        """Of each surrogate skill within phases and across, and its best; R² and agreement of whole phases.

        Medians, as nothing bounds skill from below.
        """
        found = []
        whole, agreement = self.whole_phases(R2), self.whole_phases(AGREEMENT, HEAD)
        for name in self.surrogates:
            rows = self.rows(name)
            inside = same_phase(rows, self.phases)
            chosen = "surrogate == @name and calibration in @rows.calibration"
            of_phases, agreeing = whole.query(chosen)["mean"], agreement.query(chosen)["mean"]
            found.append(
                {
                    "in place of a span": WORDS[name],
                    "median skill within phases": float(rows["mean"][inside].median()),
                    "across": float(rows["mean"][~inside].median()),
                    "best": float(rows["mean"].max()),
                    "R² for whole phases": float(of_phases.median()),
                    "agreement": float(agreeing.median()),
                }
            )
        return found

    def remarks(self) -> list[str]:
        """Each phase, the tests, what could not be measured, how maps were fitted, phases, twins."""
        lines = [
            f"blocks exchanged, {row['where']}: {_share(row)} of the error of doing nothing ({row['cells']} pairs)"
            for _, row in self.work.query("group == @ALL").iterrows()
            if row["where"] not in (WITHIN, ACROSS, DIFFERENCE)
        ]
        if (difference := self.shared_work(DIFFERENCE)) is not None:
            lines.append(
                "blocks exchanged, across phases minus within: "
                f"{_share(difference, '+.3f')} of the error of doing nothing"
            )
        if self.test is not None:
            lines += [f"blocks exchanged: {line.strip()}" for line in self.test.lines()]
        lines += [*self._undefined(), *self.notes]
        if self.calibration is not None:
            lines.append(self.calibration.describe())
        return [*lines, self.phases.describe(), *self.null_lines()]

    def _undefined(self) -> Iterator[str]:
        """Spans in which doing nothing is no error, and surrogates whose states are not finite."""
        rows = self.full.query("group == @ALL")
        nothing = rows.query("surrogate == @IDENTITY and measure == @SKILL")
        nothing = nothing[nothing["mean"].isna()]
        if len(nothing):
            named = ", ".join(f"{start + 1}-{end}" for start, end in zip(nothing["start"], nothing["end"], strict=True))
            yield f"no skill where doing nothing makes no error: blocks {named}"
        wild = rows[(rows["measure"] == R2) & rows["mean"].isna()]
        for name, part in wild.groupby("surrogate", sort=False):
            yield f"{WORDS[str(name)]} makes states that are not finite in {len(part)} spans"

    def brief(self) -> str:
        """Which surrogates, of how many layers."""
        return f"{', '.join(self.surrogates)}; {self.phases.layers} layers"


def verdict(ratio: float, low: float, high: float) -> str:
    """What an error over that of doing nothing says, with its interval.

    >>> from brdyn.interventions.splice_result import verdict
    >>> verdict(0.5, 0.4, 0.6)
    "one layer's block does some of another's work"
    >>> verdict(0.97, 0.96, 0.98)
    "one layer's block does hardly any of another's work"
    >>> verdict(1.2, 1.1, 1.3), verdict(0.97, 0.9, 1.1)[:7]
    ("no: one layer's block does worse than nothing in another's place", 'no sign')
    """
    if low > 1:
        return "no: one layer's block does worse than nothing in another's place"
    if not high < 1:
        return "no sign that one layer's block does another's work"
    return f"one layer's block does {'hardly any' if ratio > 1 - HARDLY else 'some'} of another's work"


def _share(row: pd.Series, form: str = ".0%") -> str:
    return with_interval(row["mean"], row["low"], row["high"], form)


def same_phase(rows: pd.DataFrame, phases: Phases) -> np.ndarray:
    """Which spans lie within a phase; of exchanges, where both layers do."""
    others = rows["block"].where(rows["surrogate"] == EXCHANGE, rows["start"] + 1)
    return phases.labels[rows["end"] - 1] == phases.labels[others - 1]


def check_within(table: pd.DataFrame, layers: int) -> None:
    """Refuse a table of surrogates that there are not, or of spans that no network of so many layers has."""
    if unknown := set(table["surrogate"]) - set(WORDS):
        raise ValueError(f"there is no surrogate {min(unknown)!r}")
    for cell in table[list(Cell._fields)].itertuples(index=False):
        if not 0 <= cell.start < cell.end <= layers or not 0 <= cell.block <= layers:
            raise ValueError(f"the span {cell.start}-{cell.end} with block {cell.block} is not of {layers} layers")


def headlines(table: pd.DataFrame, phases: Phases) -> dict[str, float]:
    """Median skills of a table to tell beside those of other networks, by what they are."""
    rows = table[(table["measure"] == SKILL) & (table["group"] == ALL) & (table["surrogate"] != IDENTITY)]
    inside, found = pd.Series(same_phase(rows, phases), rows.index), {}
    for name, part in rows.groupby("surrogate", sort=False):
        for where, skills in (("within", part["mean"][inside]), ("across", part["mean"][~inside])):
            if skills.notna().any():
                found[f"median skill of {WORDS[str(name)]} {where} phases"] = float(skills.median())
    return found
