"""A model of a report that is being made: what is loaded, what each section is to be of, and what failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brdyn.data import ImageSet
from brdyn.models import VisionTransformer
from brdyn.probes import LayerProbe
from brdyn.reporting.kept import damage, differs, is_there, keep
from brdyn.reporting.plan import RANDOM, Section, Subject
from brdyn.reporting.speed import Speed
from brdyn.result import Result


@dataclass
class Prepared:
    """A model of the report, loaded, with its images; or why it could not be."""

    subject: Subject
    folder: Path
    model: VisionTransformer | None = None
    images: ImageSet | None = None
    speed: Speed | None = None
    raptor: str = ""
    origins: dict[Section, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    probes: dict[str, LayerProbe] = field(default_factory=dict)  # that were given
    left_out: dict[Section, str] = field(default_factory=dict)  # what this model or these images do not allow
    damaged: dict[Section, str] = field(default_factory=dict)  # that are there and cannot be read
    untrained: bool = field(init=False)

    def __post_init__(self) -> None:
        """Untrained as asked for; a model that was given may be so besides."""
        self.untrained = self.subject.init == RANDOM

    def look(self) -> None:
        """Find which results in the folder are damaged."""
        self.damaged = {section: why for section in self.origins if (why := damage(self.folder, section))}

    def wants(self, section: Section) -> bool:
        """Whether the section has to be measured."""
        return section in self.origins and (
            section in self.damaged
            or not is_there(self.folder, section)
            or bool(differs(self.folder, section, self.origins[section]))
        )

    def keep(self, result: Result, section: Section, formats: tuple[str, ...]) -> None:
        """Write the result of a section, in the place of any that is there."""
        keep(result, self.folder, section, self.origins[section], formats)
        self.damaged.pop(section, None)
