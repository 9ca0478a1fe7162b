"""The page of a report: one file that opens from disk and asks the network for nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from brdyn.provenance import Provenance
from brdyn.reporting import charts
from brdyn.reporting.plan import SECTIONS
from brdyn.reporting.result import Found, ModelReport, Report
from brdyn.reporting.verdict import GUIDES, QUESTIONS
from brdyn.words import as_typed

# The result that a question is answered from, and the picture of it that lies beside.
BESIDE = {
    "phases": ("phases", "similarity"),
    "block": ("raptor-eval", "fidelity"),
    "converge": ("dynamics", "speed"),
    "repair": ("perturb", "growth"),
    "twins": ("dynamics", "convergence"),
}
USE = "use"


@dataclass(frozen=True)
class Chart:
    """A chart of the page: its number, heading, what it shows, and the model that it is of, where it is of one."""

    number: int
    heading: str
    words: str
    model: str = ""


class Specs:
    """The specifications of the charts, in order."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def add(self, spec: dict[str, Any] | None, heading: str, model: str = "") -> list[Chart]:
        """The chart in a list; nothing where there is no specification."""
        if spec is None:
            return []
        self.all.append(spec)
        return [Chart(len(self.all) - 1, heading, spec["description"], model)]

    def curves(self, rows: charts.Rows, heading: str, *, y: str, x: str, zero: bool = False) -> list[Chart]:
        """Curves over depth."""
        placed, axis = charts.on_one_depth(rows)
        words = f"{heading}, by model and token group"
        return self.add(charts.curve_chart(placed, words=words, y=y, x=axis or x, zero=zero), heading)


def render_page(report: Report, found: Sequence[Found]) -> bytes:
    """The page of a report.

    Parameters
    ----------
    report : Report
    found : sequence of Found
        What was measured, of the models in the report's order.
    """
    specs = Specs()
    pictures = _pictures(specs, found)
    environment = Environment(
        loader=PackageLoader("brdyn.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["typed"] = as_typed
    page = environment.get_template("report.html").render(
        models=report.models,
        questions=QUESTIONS,
        guides=GUIDES,
        answers={
            question: [next(one for one in model.findings if one.question == question) for model in report.models]
            for question in QUESTIONS
        },
        pictures=pictures,
        numbers={question: _numbers(report.models, found, question) for question in (*QUESTIONS, USE)},
        groups=list(dict.fromkeys(charts_groups(specs.all))),
        provenance=list(_provenance(report, found)),
        date=report.provenance.details["date"] if report.provenance else "",
        specs=_embedded(specs.all),
        scripts=Markup(_bundle()),
    )  # fmt: skip
    return page.encode()


def _pictures(specs: Specs, found: Sequence[Found]) -> dict[str, list[Chart]]:
    """The charts of each question, and of what can be done."""
    matrices = charts.similarity_charts(found)
    return {
        "phases": [
            chart for label, spec in matrices.items() for chart in specs.add(spec, label, label)
        ],
        "block": specs.curves(charts.fidelity_rows(found), "R² of the Raptor", y="R²", x="layer"),
        "converge": [
            *specs.curves(
                charts.motion_rows(found, "speed", 1), "Angle by which an update turns a token",
                y="angle (rad)", x="update",
            ),
            *specs.curves(
                charts.motion_rows(found, "convergence", 0), "Cosine of a state to the final one",
                y="cosine", x="state",
            ),
            *specs.curves(
                charts.motion_rows(found, "readout_agreement", 0),
                "Images whose final class the head reads from a state",
                y="share of images", x="state",
            ),
        ],
        "repair": specs.curves(
            charts.growth_rows(found), "Growth of noise from the state that gets it to the end",
            y="growth a layer (log)", x="state that gets noise", zero=True,
        ),
        "twins": specs.add(charts.twins_chart(found), "Numbers farthest from untrained twins"),
        USE: specs.curves(
            charts.deletion_rows(found), "Change of the representation without a block",
            y="relative error", x="block left out",
        ),
    }  # fmt: skip


def charts_groups(specs: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """The token groups that the charts know."""
    for spec in specs:
        for param in spec.get("params", ()):
            if param["name"] == "groups":
                yield from param["value"]


def _numbers(models: Sequence[ModelReport], found: Sequence[Found], question: str) -> list[dict[str, str]]:
    """Where the numbers of a question lie, and the picture beside them, by model; paths from the page."""
    section, picture = BESIDE.get(question, ("interventions", "layers"))
    file = next(one.file for one in SECTIONS if one.name == section)
    return [
        {
            "label": model.label,
            "json": f"{model.folder}/{section}/{file}",
            "picture": f"{model.folder}/{section}/{picture}",
        }
        for model, one in zip(models, found, strict=True)
        if section in one.results
    ]


def _provenance(report: Report, found: Sequence[Found]) -> Iterable[tuple[str, str]]:
    """Everything needed to make the report again, in words."""
    if report.provenance is not None:
        details = report.provenance.details
        yield "command", details["command"]
        yield "date", details["date"]
        yield "device", details["device"]
        yield "versions", ", ".join(f"{name} {version}" for name, version in details["versions"].items())
    yield "settings", ", ".join(f"{name} {value}" for name, value in report.settings.items())
    for one in found:
        for section, result in one.results.items():
            origin = result.provenance
            if isinstance(origin, Provenance):
                images, model = origin.details["images"], origin.details["model"]
                yield (
                    f"{one.label}: {section}",
                    f"{origin.n_images} of {images['in_source']} images of {images['source']!r} (digest "
                    f"{images['digest'][:12]}), {model['image_size'][0]}x{model['image_size'][1]} pixels, weights "
                    f"{origin.weights} (digest {model['digest'][:12] or 'none'}), {origin.details['dtype']}, "
                    f"{len(origin.skipped)} images skipped, {origin.details['seconds']:.1f} s",
                )


def _embedded(specs: Sequence[Mapping[str, Any]]) -> Markup:
    """JSON that can stand in a script element."""
    return Markup(json.dumps(specs, separators=(",", ":")).replace("<", "\\u003c"))


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed, which the package vl-convert-python carries."""
    import vl_convert

    return vl_convert.javascript_bundle(snippet="window.vegaEmbed = vegaEmbed;").replace(
        "</script", "<\\/script"
    )
