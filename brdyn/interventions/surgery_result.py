"""What surgery on depth finds: what each operation does to the representation and to predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from brdyn.interventions.repair_result import STATISTICS
from brdyn.interventions.within_across import WithinAcross
from brdyn.measures.intervals import told_apart
from brdyn.measures.null import TWIN, BesideTwins, Null, Tables
from brdyn.phases import Phases
from brdyn.store import ROW, from_records, listed, records, rows_of

AS_TEXT = ("layers", "order")
PAIRED = ("swap", "replace")  # that make a matrix of layers
TABLE, HEAD = "interventions", "head"
SAID = {
    "swap": "swaps",
    "replace": "replacements",
    "delete": "deletions",
    "shuffle_within": "shuffles within a phase",
    "shuffle_across": "shuffles across a boundary",
}
KNOWN = {"kind": SAID, "readout": (HEAD,), "measure": ("relative_error", "angle", "agreement", "accuracy")}
WORDS = {"swap": "swapping two blocks", "delete": "deleting a block", "replace": "replacing a block"}


@dataclass(frozen=True, eq=False, repr=False)
class Surgery(BesideTwins):
    """What each operation did.

    Attributes
    ----------
    table : DataFrame
        One row per operation, `readout` (`cls`, `patches`, or `head` for predictions) and `measure`:
        `relative_error` (norm of the change over that of the clean readout), `angle` (radians), and where the model
        has a classification head `agreement` (share of images with the prediction of the intact model) and `accuracy`.
        Mean over images, its 95 % interval (of the two shares Wilson's), `sd`, `n_images`.
    intact_accuracy : float or None
    layers : int
        L.
    phases : Phases
    tests : dict of str to WithinAcross or None
        For swaps, by readout: relative error within phases against across.
    notes : tuple of str
        What could not be measured, and why.
    null : Null or None
        The representation of untrained twins, where :func:`brdyn.with_null` measured them.

    Examples
    --------
    >>> surgery = brdyn.layer_surgery(model, images, phases, kinds=["delete"])
    >>> surgery.readouts, surgery.layers, surgery.intact_accuracy  # this model has no classification head
    (['cls', 'patches'], 12, None)
    """

    FILE: ClassVar[str] = "interventions.json"
    SHAPE: ClassVar[Mapping[str, Any]] = {
        "table": [{"kind": str, "layers": str, "phase": int, "order": str, "readout": str, "measure": str, **ROW}],
        "phases": dict,
        "swap_tests": {str: (WithinAcross, None)},
        "intact_accuracy": (float, None),
        "notes": [str],
        **BesideTwins.NULL_SHAPE,
    }

    table: pd.DataFrame
    intact_accuracy: float | None
    layers: int
    phases: Phases
    tests: Mapping[str, WithinAcross | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def content(self) -> dict[str, Any]:
        """Matrices by kind, tests, accuracy, phases, and the table."""
        done = set(self.table["kind"])
        shown = self.table[["readout", "measure"]].drop_duplicates().itertuples(index=False)
        pairs = [tuple(pair) for pair in shown]
        return {
            **{
                kind: {
                    f"{readout} {measure}": [listed(row) for row in self.matrix(kind, readout, measure)]
                    for readout, measure in pairs
                }
                for kind in PAIRED
                if kind in done
            },
            "swap_tests": {readout: asdict(test) if test else None for readout, test in self.tests.items()},
            "intact_accuracy": self.intact_accuracy,
            "notes": list(self.notes),
            "phases": self.phases.to_dict(),
            "table": records(self.tidy()),
            **self.null_content(),
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """The table, and that of twins."""
        return {"interventions.parquet": self.tidy(), **self.null_tables()}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from an interventions.json."""
        table = from_records(content["table"], cls.SHAPE["table"][0])
        phases = Phases.from_dict(content["phases"])
        table = _with_layers(table, phases.layers)
        notes, null = (
            tuple(content["notes"]),
            Null.read(content, folder, {TABLE: list(cls.SHAPE["table"][0])}),
        )
        return cls(table, content["intact_accuracy"], phases.layers, phases, content["swap_tests"], notes, null=null)

    def alike(self) -> dict[str, Any]:
        """Also which swaps there are, and how many shuffles."""
        details = {} if self.provenance is None else self.provenance.details
        said = {"apart": "distances that layers are swapped over", "draws": "numbers of shuffles"}
        return super().alike() | {words: str(details[name]) for name, words in said.items() if name in details}

    def compared(self) -> dict[str, pd.DataFrame]:
        """The table without what a head reads out, layers and orders as text."""
        tidy = self.tidy()
        return {TABLE: tidy[tidy["readout"] != HEAD].reset_index(drop=True)}

    def of_tables(self, tables: Tables) -> Self:
        """What a twin's representation suffers; tests and accuracy are of the model."""
        table = _with_layers(tables[TABLE], self.layers)
        return replace(self, table=table, tests={}, intact_accuracy=None, notes=(), null=None)

    def headlines(self, tables: Tables) -> dict[str, float]:
        """Of each kind and readout the mean relative error, within and across phases where both are."""
        return headlines(tables[TABLE], self.phases)

    def answer(self) -> str:
        """Whether swaps within a phase do less harm than across, and which block matters least and most."""
        readout = self.readouts[0]
        parts = []
        test = self.tests.get(readout)
        if test is not None:
            parts.append(
                f"swapping blocks changes {readout} by {test.within:.2f} within phases and {test.across:.2f} across "
                f"(relative error; {test.told()})"
            )
        for kind, words in WORDS.items():
            rows = self.rows(kind, readout).sort_values("mean")
            if len(rows) and not (kind == "swap" and test is not None):
                best, worst = rows.iloc[0], rows.iloc[-1]
                parts.append(
                    f"{words} changes {readout} least for {_named(best)} ({best['mean']:.2f}) and most for "
                    f"{_named(worst)} ({worst['mean']:.2f})"
                )
        if not parts:
            within, across = (self.rows(f"shuffle_{where}", readout)["mean"] for where in ("within", "across"))
            parts.append(
                f"shuffling blocks changes {readout} by {within.mean():.2f} within phases"
                + (f" and {across.mean():.2f} across a boundary" if len(across) else "")
            )
        return "; ".join(parts)

    def overview(self) -> list[dict[str, Any]]:
        """Relative errors of each kind of operation on each readout."""
        found = []
        for readout in self.readouts:
            for kind, words in SAID.items():
                rows = self.rows(kind, readout).sort_values("mean")
                if len(rows):
                    best, worst = rows.iloc[0], rows.iloc[-1]
                    paired = kind in PAIRED or kind == "delete"
                    found.append(
                        {
                            "operation": words,
                            "seen on": readout,
                            "mean error": float(rows["mean"].mean()),
                            "least": float(best["mean"]),
                            "of blocks": _named(best) if paired else "",
                            "most": float(worst["mean"]),
                            "of": _named(worst) if paired else "",
                        }
                    )
        return found

    def remarks(self) -> list[str]:
        """Tests, what the images are too few for, accuracy, what could not be measured, phases, twins."""
        lines = [
            f"swaps, {readout}: {line.strip()}"
            for readout, test in self.tests.items()
            if test is not None
            for line in test.lines()
        ]
        lines += self._too_few()
        if self.intact_accuracy is not None:
            lines.append(f"accuracy of the intact model: {self.intact_accuracy:.3f}")
        return [*lines, *self.notes, self.phases.describe(), *self.null_lines()]

    def _too_few(self) -> Iterator[str]:
        """Operations whose least and most harm their intervals do not tell apart."""
        found = []
        for readout in self.readouts:
            for kind, words in SAID.items():
                rows = self.rows(kind, readout)
                if len(rows) > 1 and not told_apart(rows["mean"], rows["low"], rows["high"]):
                    found.append(f"{words} seen on {readout}")
        if found:
            yield (
                "too few images to tell blocks apart (intervals of the least and the most harm meet, or there are "
                f"none): {'; '.join(found)}"
            )

    def brief(self) -> str:
        """Which operations, on how many layers."""
        return f"{', '.join(dict.fromkeys(self.table['kind']))}; {self.layers} layers"

    def tidy(self) -> pd.DataFrame:
        """The table with the layers of an operation, and the order it makes, as text: `3,5`."""
        written = {name: self.table[name].map(lambda layers: ",".join(map(str, layers))) for name in AS_TEXT}
        return self.table.assign(**written)

    @property
    def readouts(self) -> list[str]:
        """The readouts of the representation."""
        rows = self.table[self.table["measure"] == "relative_error"]
        return list(dict.fromkeys(rows["readout"]))

    def of_twins(self, kind: str) -> Self | None:
        """The mean over untrained twins of one kind of operation, as a result; None without twins."""
        if not self.null:
            return None
        rows = rows_of(self.null.tables[TABLE], KNOWN, kind=kind)
        keys = [name for name in rows.columns if name not in (*STATISTICS, TWIN)]
        return self.of_tables({TABLE: rows.groupby(keys, sort=False)["mean"].mean().reset_index()})

    def rows(self, kind: str, readout: str, measure: str = "relative_error") -> pd.DataFrame:
        """Rows of one kind of operation. Raises UsageError if there is no such kind, readout or measure."""
        return rows_of(self.table, KNOWN, kind=kind, readout=readout, measure=measure)

    def matrix(self, kind: str, readout: str, measure: str = "relative_error") -> np.ndarray:
        """Mean of a measure over pairs of layers, `(L, L)`: swaps, or replacements of a row's layer by a column's.

        The diagonal, where nothing is changed, is 0, or the intact model's value for predictions.
        """
        intact = {"agreement": 1.0, "accuracy": self.intact_accuracy}.get(measure, 0.0)
        found = np.full((self.layers, self.layers), np.nan)
        np.fill_diagonal(found, np.nan if intact is None else intact)
        rows = self.rows(kind, readout, measure)
        for (first, second), mean in zip(rows["layers"], rows["mean"], strict=True):
            found[first - 1, second - 1] = mean
            if kind == "swap":
                found[second - 1, first - 1] = mean
        return found


def _named(row: pd.Series) -> str:
    layers = row["layers"]
    return f"{layers[0]} by {layers[1]}" if row["kind"] == "replace" else " and ".join(map(str, layers))


def _with_layers(table: pd.DataFrame, depth: int) -> pd.DataFrame:
    """A tidy table with layers and orders as numbers."""
    numbers = {name: [_layers(text, depth) for text in table[name]] for name in AS_TEXT}
    return table.assign(
        **{name: pd.Series(values, index=table.index, dtype=object) for name, values in numbers.items()}
    )


def _layers(text: str, depth: int) -> tuple[int, ...]:
    """`3,5` as numbers of layers."""
    layers = tuple(map(int, text.split(",")))
    if not all(1 <= layer <= depth for layer in layers):
        raise ValueError(f"layers {text} are not from 1 to {depth}")
    return layers


def headlines(table: pd.DataFrame, phases: Phases) -> dict[str, float]:
    """Mean relative errors of a tidy table to tell beside those of other networks, by what they are."""
    found = {}
    errors = table[table["measure"] == "relative_error"]
    for (readout, kind), rows in errors.groupby(["readout", "kind"], sort=False):
        if kind in PAIRED:
            pairs = np.array([_layers(text, phases.layers) for text in rows["layers"]]) - 1
            same, means = np.equal(*phases.labels[pairs].T), rows["mean"].to_numpy()
            parts = {" within a phase": means[same], " across phases": means[~same]}
        else:
            parts = {"": rows["mean"].to_numpy()}
        for where, means in parts.items():
            if len(means):
                found[f"{readout}: relative error of {SAID[str(kind)]}{where}"] = float(means.mean())
    return found
