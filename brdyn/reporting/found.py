"""What was measured on one model of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from brdyn.measures.null import BesideTwins
from brdyn.probes import LayerProbe
from brdyn.reporting.plan import UNTRAINED
from brdyn.reporting.speed import Speed
from brdyn.result import Result

Kind = TypeVar("Kind", bound=Result)


@dataclass(frozen=True)
class Found:
    """What was measured on one model of a report: its results by section, and why others failed.

    `probes` are those that were given, by their folders.
    `left_out` says why a section was not measured that its images, its blocks or the size of the report do not allow.
    """

    name: str
    folder: str
    untrained: bool
    results: Mapping[str, Result]
    failures: Mapping[str, str]
    speed: Speed | None
    left_out: Mapping[str, str] = field(default_factory=dict)
    probes: Mapping[str, LayerProbe] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """For pictures and tables; untrained networks are marked."""
        return f"{self.folder.removesuffix(UNTRAINED)} (untrained)" if self.untrained else self.folder

    @property
    def beside_twins(self) -> list[BesideTwins]:
        """The results that untrained twins can stand beside."""
        return [one for one in self.results.values() if isinstance(one, BesideTwins)]

    def of(self, section: str, kind: type[Kind]) -> Kind | None:
        """The result of a section, which is of that kind; None where there is none."""
        result = self.results.get(section)
        return result if isinstance(result, kind) else None

    def why_not(self, section: str) -> str:
        """Why a section failed or was left out; empty where it did not and was not."""
        return self.failures.get(section) or self.left_out.get(section, "")
