"""Reports: everything about a few models in one folder, with a page that says what it means."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brdyn.reporting.api import report
    from brdyn.reporting.finding import Finding
    from brdyn.reporting.plan import ReportSettings
    from brdyn.reporting.result import ModelReport, Report

# Imported on first use: `brdyn report --help` then needs no torch.
_HOMES = {
    "Finding": "brdyn.reporting.finding",
    "ModelReport": "brdyn.reporting.result",
    "Report": "brdyn.reporting.result",
    "ReportSettings": "brdyn.reporting.plan",
    "report": "brdyn.reporting.api",
}

__all__ = ["Finding", "ModelReport", "Report", "ReportSettings", "report"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
