"""The page of a report: one file that opens from disk and asks the network for nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

import brdyn
from brdyn.interventions import Splice
from brdyn.measures.dynamics import Dynamics
from brdyn.phases import Phases
from brdyn.probes import LayerProbe
from brdyn.provenance import Provenance
from brdyn.raptor import Evaluation
from brdyn.reporting import charts, rows
from brdyn.reporting.finding import GUIDES, QUESTIONS
from brdyn.reporting.found import Found
from brdyn.reporting.plan import PAGE, SECTIONS
from brdyn.reporting.reading import TOLD, Reading, readings
from brdyn.reporting.result import Report
from brdyn.reporting.specs import Chart, Specs
from brdyn.reporting.splicing import whole_phases
from brdyn.words import as_typed, interval

USE = "use"
# The results that a question is answered from.
SOURCES = {
    "phases": ("phases",),
    "block": ("raptor-eval",),
    "work": ("splice",),
    "stretch": ("spectra",),
    "converge": ("dynamics",),
    "repair": ("perturb",),
    "twins": ("dynamics", "perturb", "interventions", "splice", "spectra"),
    USE: ("probe", "interventions", "splice"),
}
DRAWN = ("readout", "branches")  # measures that not every model gives


def render_page(report: Report, found: Sequence[Found], out: Path, formats: tuple[str, ...] = ()) -> dict[str, bytes]:
    """The page of a report, and its charts as pictures, by the names of their files.

    Parameters
    ----------
    report : Report
    found : sequence of Found
        What was measured, of the models in the report's order.
    out : Path
        The folder that it will lie in.
    formats : tuple of str
        Of the pictures.
    """
    specs = Specs(found, formats)
    shown = _charts(specs, found)
    environment = Environment(
        loader=PackageLoader("brdyn.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["typed"] = as_typed
    environment.globals["interval"] = interval
    page = environment.get_template("report.html").render(
        models=report.models,
        questions=QUESTIONS,
        guides={question: (name, guide_page(name, out)) for question, name in GUIDES.items()},
        answers={
            question: [next(one for one in model.findings if one.question == question) for model in report.models]
            for question in QUESTIONS
        },
        charts=shown,
        readings={one.label: _readings(one) for one in found},
        whole={one.label: replaced for one in found if (replaced := whole_phases(one))},
        notes={question: _notes(found, question) for question in QUESTIONS},
        numbers={question: _numbers(found, question, out) for question in (*QUESTIONS, USE)},
        groups=list(dict.fromkeys(charts_groups(specs.all))),
        provenance=list(_provenance(report, found)),
        date=report.provenance.details["date"] if report.provenance else "",
        specs=_embedded(specs.all),
        scripts=Markup(_bundle()),
    )  # fmt: skip
    return {PAGE: page.encode(), **specs.pictures()}


def guide_page(name: str, out: Path) -> str:
    """A page of the guide as a path from a folder: the site where it was built, else its text.

    Empty where the package lies somewhere without its documents.
    """
    docs = Path(brdyn.__file__).resolve().parents[1] / "docs"
    pages = (docs / "_build" / "html" / "guide" / f"{name}.html", docs / "guide" / f"{name}.md")
    found = next((page for page in pages if page.is_file()), None)
    return "" if found is None else quote(Path(os.path.relpath(found, out.resolve())).as_posix())


def _charts(specs: Specs, found: Sequence[Found]) -> dict[str, list[Chart]]:
    """The charts of each question, and of what can be done."""
    return {
        "phases": specs.matrices(
            charts.similarity_charts(found), "Similarity between layers", "similarity", "phases"
        ),
        "block": [
            *specs.curves(
                rows.fidelity_rows(found), "R² of the Raptor", "fidelity", "raptor-eval", y="R²", x="layer"
            ),
            *specs.curves(
                rows.beyond_rows(found), "How far a Raptor's block moves the state, past its phase too", "beyond",
                "raptor-eval", y="step over the state's norm (log)", x="applications, in lengths of the phase",
                by="block", log=True,
            ),
        ],
        "work": specs.matrices(
            charts.exchange_charts(found), "Another layer's block in the place of a layer's", "exchange", "splice"
        ),
        "stretch": [
            *(
                chart
                for side, drawn in charts.coupling_charts(found).items()
                for chart in specs.matrices(
                    drawn, f"Directions {side} two layers", f"coupling_{side}", "spectra", f", {side}"
                )
            ),
            *specs.curves(
                rows.stretch_rows(found), "Growth of a small change and of the tokens", "stretch", "spectra",
                y="log growth (nats)", x="block", by="what grows", zero=True,
            ),
        ],
        "converge": [
            *specs.curves(
                rows.motion_rows(found, "speed"), "Angle by which an update turns a token", "speed",
                "dynamics", y="angle (rad)", x="update",
            ),
            *specs.curves(
                rows.motion_rows(found, "convergence"), "Cosine of a state to the final one", "convergence",
                "dynamics", y="cosine", x="state",
            ),
            *specs.curves(
                rows.motion_rows(found, "readout_agreement"),
                "Images whose final class the head reads from a state", "readout", "dynamics",
                y="share of images", x="state",
            ),
            *specs.curves(
                rows.motion_rows(found, "attention_share"), "Share of attention in what a block adds",
                "branches", "dynamics", y="attention / (attention + MLP)", x="block",
            ),
        ],
        "repair": specs.curves(
            rows.growth_rows(found), "Growth of noise from the state that gets it to the end", "growth", "perturb",
            y="growth a layer (log)", x="state that gets noise", zero=True,
        ),
        "twins": specs.add(
            charts.twins_chart(found), "Numbers farthest from untrained twins", "twins", "dynamics"
        ),
        USE: [
            *specs.curves(
                rows.reading_rows(found), "Classes that a linear probe reads right from a layer", "reading",
                "probe", y="accuracy", x="layer",
            ),
            *_probed(specs, found),
            *specs.curves(
                rows.deletion_rows(found), "Change of the representation without a block", "deletion",
                "interventions", y="relative error", x="block left out",
            ),
        ],
    }  # fmt: skip


def charts_groups(specs: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """The token groups that the charts know."""
    for spec in specs:
        for param in spec.get("params", ()):
            if param["name"] == "groups":
                yield from param["value"]


def _probes(found: Found) -> Iterable[LayerProbe]:
    """What was probed for the report, and what was given to it."""
    own = found.of("probe", LayerProbe)
    yield from [] if own is None else [own]
    yield from found.probes.values()


def _readings(found: Found) -> list[tuple[str, list[Reading]]]:
    """Of each probe of a model what it is of, and the layers that were compared."""
    phases = found.of("phases", Phases)
    if phases is None:
        return []
    return [(f"{TOLD[one.task]}, {one.caption}", readings(one, phases)) for one in _probes(found)]


def _probed(specs: Specs, found: Sequence[Found]) -> Iterable[Chart]:
    """A chart for each probe that was given."""
    for one in found:
        for number, probe in enumerate(one.probes.values(), 1):
            drawn = rows.probe_rows(one.label, probe)
            words = f"{probe.words[probe.main]}, {probe.task} by a linear head on a layer"
            spec = charts.curve_chart(drawn, words=words, y=probe.words[probe.main], x="layer") if drawn else None
            name = f"probe_{one.folder}_{number}_{probe.task}"
            yield from specs.add(spec, words, name, "", of=(f"{one.label}: {probe.caption}",))


def _numbers(found: Sequence[Found], question: str, out: Path) -> list[tuple[str, str]]:
    """Where the numbers of a question lie, as words and paths from the page."""
    sections, files = SOURCES[question], {one.name: one.file for one in SECTIONS}
    own = [
        (
            f"{one.label} ({section})" if len(sections) > 1 else one.label,
            quote(f"{one.folder}/{section}/{files[section]}"),
        )
        for one in found
        for section in sections
        if section in one.results
    ]
    given = [
        (f"{one.label} ({probe.task})", quote(Path(os.path.relpath(folder, out.resolve())).as_posix()))
        for one in found
        for folder, probe in one.probes.items()
    ]
    return own + (given if question == USE else [])


def _notes(found: Sequence[Found], question: str) -> list[tuple[str, str]]:
    """What else there is to say in a question's section, such as what could not be measured: of which models."""
    of: dict[str, list[str]] = {}
    for one in found:
        splice, evaluation = one.of("splice", Splice), one.of("raptor-eval", Evaluation)
        dynamics, stretched = one.of("dynamics", Dynamics), one.of("spectra", Dynamics)
        notes: list[str] = []
        if question == "work" and splice is not None:
            notes = list(splice.notes)
        if question == "block" and evaluation is not None and evaluation.beyond is not None:
            notes = evaluation.beyond.remarks()
        if question == "stretch" and stretched is not None and stretched.spectra is not None:
            notes = [stretched.spectra.settling]
        if question == "converge" and dynamics is not None:
            notes = [f"no {name}: {why}" for name, why in dynamics.left_out.items() if name in DRAWN]
        for note in notes:
            of.setdefault(note, []).append(one.label)
    return [(", ".join(labels), note) for note, labels in of.items()]


def _provenance(report: Report, found: Sequence[Found]) -> Iterable[tuple[str, str]]:
    """Everything needed to make the report again, in words."""
    if report.provenance is not None:
        details = report.provenance.details
        yield "command", details["command"]
        yield "date", details["date"]
        yield "device", details["device"]
        yield "versions", ", ".join(f"{name} {version}" for name, version in details["versions"].items())
    given = {name: value for name, value in report.settings.items() if value not in (None, ())}
    yield "settings", ", ".join(f"{name} {value}" for name, value in given.items())
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
    text = json.dumps(_finite(specs), separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON has not."""
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed, which the package vl-convert-python carries."""
    import vl_convert

    return vl_convert.javascript_bundle(snippet="window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
