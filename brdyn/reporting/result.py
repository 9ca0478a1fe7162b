"""The report itself as a result: the verdicts, their evidence, and where the numbers are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from brdyn.provenance import RunProvenance
from brdyn.reporting.finding import QUESTIONS, Finding
from brdyn.reporting.plan import REPORT
from brdyn.reporting.practice import Change
from brdyn.reporting.speed import Speed
from brdyn.result import Result
from brdyn.words import as_typed, counted


@dataclass(frozen=True)
class ModelReport:
    """What a report says of one model.

    Attributes
    ----------
    name, folder, label : str
        As typed, the folder of its results in that of the report, and what pictures call it.
    untrained : bool
    verdict : str
    findings : tuple of Finding
        One for each of the questions.
    changes : tuple of Change
        Blocks that are left out or shared at least cost.
    advice : tuple of str
        What can be done with it.
    sections : tuple of str
        The results there are.
    failures : dict of str to str
        Of sections that failed, why.
    speed : Speed or None

    Examples
    --------
    >>> from brdyn.reporting import ModelReport
    >>> one = ModelReport("vit", "vit", "vit", False, "not shown to be block-recurrent", ())
    >>> one.sections, one.failures
    ((), {})
    """

    name: str
    folder: str
    label: str
    untrained: bool
    verdict: str
    findings: tuple[Finding, ...]
    changes: tuple[Change, ...] = ()
    advice: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    speed: Speed | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Report(Result):
    """What :func:`brdyn.report` found, as its page tells it.

    Attributes
    ----------
    models : tuple of ModelReport
    settings : dict
        What was asked for.
    beside : mapping of str to bytes
        report.html and the pictures of its charts, where it was just made; empty where the result was read.

    Examples
    --------
    >>> from brdyn.reporting import Finding, ModelReport, Report
    >>> finding = Finding("phases", "no", "none", "a smooth drift explains all steps", "another similarity")
    >>> found = Report((ModelReport("vit", "vit", "vit", False, "not shown to be block-recurrent", (finding,)),))
    >>> print(found.summary())
    vit: not shown to be block-recurrent
    <BLANKLINE>
    model  question                          answer
    vit    Does its depth fall into phases?  none
    """

    FILE: ClassVar[str] = REPORT
    ORIGIN: ClassVar[type[RunProvenance]] = RunProvenance
    SHAPE: ClassVar[Mapping[str, Any]] = {"settings": dict, "models": [ModelReport]}

    models: tuple[ModelReport, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, bytes] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """Verdicts with their evidence, and what was asked for."""
        return {"settings": dict(self.settings), "models": [asdict(one) for one in self.models]}

    def others(self) -> Mapping[str, bytes]:
        """The page and the pictures of its charts."""
        return self.beside

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from a report.json; the page lies beside it."""
        del folder
        return cls(tuple(content["models"]), content["settings"])

    def answer(self) -> str:
        """The verdict on each model, a line for each."""
        return "\n".join(f"{one.label}: {one.verdict}" for one in self.models)

    def overview(self) -> list[dict[str, Any]]:
        """The answer to each question, of each model."""
        return [
            {"model": one.label, "question": QUESTIONS[found.question], "answer": found.short}
            for one in self.models
            for found in one.findings
        ]

    def remarks(self) -> list[str]:
        """What can be done with each, and what failed."""
        return [
            f"{one.label}: {line}"
            for one in self.models
            for line in (
                *map(as_typed, one.advice),
                *(f"failed: {section} ({why})" for section, why in one.failures.items()),
            )
        ]

    @property
    def failed(self) -> list[str]:
        """Models of which something failed."""
        return [f"{one.label} ({'; '.join(one.failures.values())})" for one in self.models if one.failures]

    def brief(self) -> str:
        """How many models."""
        return counted(len(self.models), "model")
