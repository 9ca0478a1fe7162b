"""Several results of one kind held against each other, without computing anything anew."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brdyn.arguments import checked
from brdyn.errors import UsageError
from brdyn.provenance import Provenance
from brdyn.result import Result, read
from brdyn.store import OutputFolder, check_formats, to_json
from brdyn.store.result_files import KINDS
from brdyn.words import cell, table_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE, TABLE = "compare.json", "compare.csv"


@dataclass(frozen=True)
class Comparison:
    """Results of one kind, by what tells them apart: the model's name where that does, else the folder.

    Attributes
    ----------
    results : mapping of str to Result

    Examples
    --------
    >>> cosine, cka = (brdyn.layer_similarity(model, images, kind) for kind in ("cosine", "cka"))
    >>> comparison = brdyn.compare(brdyn.segment(cosine, 2), brdyn.segment(cka, 3))
    >>> [list(row.values()) for row in comparison.table() if row["number"] == "phases chosen"]
    [['phases chosen', 2, 3]]
    """

    results: Mapping[str, Result]

    @property
    def kind(self) -> str:
        """Of the results: `phases`, `dynamics`, …"""
        return Path(next(iter(self.results.values())).FILE).stem

    def table(self) -> list[dict[str, Any]]:
        """A row for each number, a column for each result; None where it has no such number."""
        numbers = {name: {**_origin(result), **result.numbers()} for name, result in self.results.items()}
        rows = dict.fromkeys(number for found in numbers.values() for number in found)
        if all(found.get("model") == name for name, found in numbers.items()):
            del rows["model"]  # the columns say it
        return [{"number": number, **{name: found.get(number) for name, found in numbers.items()}} for number in rows]

    def notes(self) -> list[str]:
        """What else differs than the models."""
        every = [one.alike() for one in self.results.values()]
        found = []
        for what in dict.fromkeys(name for alike in every for name in alike):
            if len({to_json({what: alike[what]}) for alike in every if alike.get(what) is not None}) > 1:
                found.append(f"the {what} are not the same: differences may be due to them")
        measured = dict.fromkeys(one.measured for one in self.results.values() if one.measured)
        if len(measured) > 1:
            found.append(f"what is measured is not the same ({', '.join(measured)}): differences may be due to that")
        return found

    def summary(self) -> str:
        """What each says, the table, and what else differs, to print."""
        answers = [f"{name}: {result.answer()}" for name, result in self.results.items()]
        shown = [{name: cell(value) for name, value in row.items()} for row in self.table()]
        return "\n\n".join("\n".join(part) for part in (answers, table_lines(shown), self.notes()) if part)

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "kind": self.kind,
            "results": {
                name: {
                    "answer": result.answer(),
                    "provenance": {} if result.provenance is None else result.provenance.short(),
                }
                for name, result in self.results.items()
            },
            "table": [{name: None if value != value else value for name, value in row.items()} for row in self.table()],
            "notes": self.notes(),
        }

    @checked
    def save(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        figures: Mapping[str, Figure] | None = None,
        formats: tuple[str, ...] = ("png",),
    ) -> list[str]:
        """Write compare.json, compare.csv and pictures, such as :func:`brdyn.plots.draw_comparison` makes.

        Returns
        -------
        list of str
            The names of the files.

        Raises
        ------
        UsageError
            As of :meth:`brdyn.Result.save`.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, ["number", *self.results], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.table())
        formats = check_formats(",".join(formats))
        with OutputFolder(folder, overwrite, result=FILE) as out:
            return out.save(FILE, self.to_dict(), figures, formats, {TABLE: text.getvalue().encode()})


@checked
def compare(*results: Result | str | Path) -> Comparison:
    """Hold results of one kind against each other.

    Parameters
    ----------
    *results : Result or path
        Two or more: what was measured, or the folders that it was written to.

    Raises
    ------
    UsageError
        If there are fewer than two, one is no result, or they are not of one kind.

    Examples
    --------
    >>> phases.save("runs/two"), brdyn.segment(similarity, 3).save("runs/three")
    (None, None)
    >>> list(brdyn.compare("runs/two", "runs/three").results)
    ['runs/two', 'runs/three']
    """
    if len(results) < 2:
        raise UsageError("a comparison takes two results or more")
    found = [one if isinstance(one, Result) else read(one) for one in results]
    of = {KINDS[one.FILE].writer: _said(given) for one, given in zip(found, results, strict=True)}
    if len(of) > 1:
        said = " and ".join(f"{given} is one of {writer}" for writer, given in of.items())
        raise UsageError(f"results of different kinds cannot be compared: {said}")
    return Comparison(dict(zip(_names(results, found), found, strict=True)))


def _said(given: Result | str | Path) -> str:
    return repr(given if isinstance(given, Result) else str(given))


def _names(given: tuple[Result | str | Path, ...], found: list[Result]) -> list[str]:
    """What tells results apart: their models, their folders, or their numbers."""
    titles = [one.title for one in found]
    if all(titles) and len(set(titles)) == len(titles):
        return titles
    folders = [None if isinstance(one, Result) else str(one) for one in given]
    if all(folders) and len(set(folders)) == len(folders):
        return [str(one) for one in folders]
    return [f"{title or 'result'} {number}" for number, title in enumerate(titles, 1)]


def _origin(result: Result) -> dict[str, Any]:
    """What it was measured on."""
    origin = result.provenance
    if not isinstance(origin, Provenance):
        return {}
    return {"model": origin.title, "blocks": origin.details["model"]["layers"], "images": origin.n_images}
