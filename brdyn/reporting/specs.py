"""The specifications of a page's charts, each numbered, with what it is of and its pictures beside the page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brdyn.reporting import charts, rows
from brdyn.reporting.found import Found
from brdyn.reporting.stills import still

SHOWN = ("png", "svg")  # what a page can show where its charts are not drawn


@dataclass(frozen=True)
class Chart:
    """A chart of the page.

    Attributes
    ----------
    number : int
    heading : str
    words : str
        What it shows.
    files : tuple of str
        The pictures of it beside the page.
    of : tuple of str
        On how many images of which size, of each model.
    model : str
        The one that it is of, where it is of one; the page has its name as heading.
    title : str
        What the picture beside the page is called, where not as the heading.
    """

    number: int
    heading: str
    words: str
    files: tuple[str, ...]
    of: tuple[str, ...]
    model: str = ""
    title: str = ""

    @property
    def picture(self) -> str:
        """The file to show where charts are not drawn; empty where there is none."""
        return next((name for name in self.files if name.endswith(SHOWN)), "")


class Specs:
    """The specifications of the charts, in order.

    Parameters
    ----------
    found : sequence of Found
    formats : tuple of str
        Of the pictures beside the page.
    """

    def __init__(self, found: Sequence[Found], formats: tuple[str, ...]) -> None:
        self.found, self.formats = found, formats
        self.all: list[dict[str, Any]] = []
        self.charts: list[Chart] = []

    def add(
        self,
        spec: dict[str, Any] | None,
        heading: str,
        name: str,
        section: str,
        model: str = "",
        shown: Collection[str] | None = None,
        title: str = "",
        of: tuple[str, ...] = (),
    ) -> list[Chart]:
        """The chart in a list, of the models that it shows (default: all); nothing where there is no specification.

        `of` says what it is of, where that is no section.
        """
        if spec is None:
            return []
        of = of or tuple(
            f"{one.label}: {one.results[section].caption}"
            for one in self.found
            if section in one.results and (shown is None or one.label in shown)
        )
        files = tuple(f"{name}.{kind}" for kind in self.formats)
        self.all.append(spec)
        self.charts.append(Chart(len(self.charts), heading, spec["description"], files, of, model, title))
        return self.charts[-1:]

    def curves(
        self,
        drawn: rows.Rows,
        heading: str,
        name: str,
        section: str,
        *,
        y: str,
        x: str,
        by: str = "token group",
        zero: bool = False,
        log: bool = False,
    ) -> list[Chart]:
        """Curves over depth."""
        placed, axis = rows.on_one_depth(drawn)
        words = f"{heading}, by model and {by}"
        spec = charts.curve_chart(placed, words=words, y=y, x=axis or x, zero=zero, log=log)
        return self.add(spec, heading, name, section, shown={row["model"] for row in drawn})

    def matrices(
        self, drawn: Mapping[str, dict[str, Any]], title: str, name: str, section: str, side: str = ""
    ) -> list[Chart]:
        """A matrix of each model that has one, by label; of one side of the layers, where it says so."""
        return [
            chart
            for one in self.found
            if one.label in drawn
            for chart in self.add(
                drawn[one.label],
                f"{one.label}{side}",
                f"{name}_{one.folder}",
                section,
                one.label,
                {one.label},
                title,
            )
        ]

    def pictures(self) -> dict[str, bytes]:
        """The files of all charts."""
        found = {}
        for one in self.charts:
            title = one.title or one.heading
            for file in one.files:
                found[file] = still(self.all[one.number], title, one.of, file.rpartition(".")[2])
        return found
