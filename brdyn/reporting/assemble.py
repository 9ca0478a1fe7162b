"""From the results of models to the report on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from brdyn.measures.dynamics import Dynamics
from brdyn.provenance import RunProvenance, run_provenance
from brdyn.reporting.found import Found
from brdyn.reporting.plan import ReportSettings
from brdyn.reporting.practice import advice, changes
from brdyn.reporting.result import ModelReport, Report
from brdyn.reporting.verdict import findings, verdict


def assemble(found: Sequence[Found], settings: ReportSettings, device: str) -> Report:
    """The verdicts on models, from what was measured.

    Parameters
    ----------
    found : sequence of Found
    settings : ReportSettings
    device : str
        The kind of device, for the provenance.
    """
    models = tuple(_report(one, _twin(one, found)) for one in found)
    return Report(models, asdict(settings), provenance=RunProvenance(details=run_provenance(device)))


def _report(one: Found, twin: Dynamics | None) -> ModelReport:
    costs, answers = changes(one), findings(one, twin)
    said = f"not measured: {one.failures['loading']}" if "loading" in one.failures else ""
    return ModelReport(
        name=one.name,
        folder=one.folder,
        label=one.label,
        untrained=one.untrained,
        verdict=said or verdict(answers, one.untrained),
        findings=tuple(answers),
        changes=tuple(costs),
        advice=tuple(advice(one, costs)),
        sections=tuple(one.results),
        failures=dict(one.failures),
        speed=one.speed,
    )


def _twin(one: Found, others: Sequence[Found]) -> Dynamics | None:
    """The dynamics of the untrained network of a model's architecture, where the report has it."""
    if one.untrained:
        return None
    found = next((other for other in others if other.untrained and other.name == one.name), None)
    return None if found is None else found.of("dynamics", Dynamics)
