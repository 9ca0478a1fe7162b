"""Raptor: one shared block for each phase of a ViT. BRH (arXiv 2512.19941)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brdyn.raptor.block import BlockConfig, RaptorBlock
    from brdyn.raptor.cache import ActivationCache
    from brdyn.raptor.copied import CopyConfig
    from brdyn.raptor.evaluation import Evaluation, evaluate
    from brdyn.raptor.fit import Fit, fit_options, fit_raptor
    from brdyn.raptor.model import Raptor, Span
    from brdyn.raptor.official import read_official
    from brdyn.raptor.ranks import RankCurve, raptor_ranks
    from brdyn.raptor.recipe import FitSettings

# Imported on first use: the command line reads the recipe without torch.
_HOMES = {
    "ActivationCache": "brdyn.raptor.cache",
    "Evaluation": "brdyn.raptor.evaluation",
    "evaluate": "brdyn.raptor.evaluation",
    "BlockConfig": "brdyn.raptor.block",
    "CopyConfig": "brdyn.raptor.copied",
    "Fit": "brdyn.raptor.fit",
    "FitSettings": "brdyn.raptor.recipe",
    "Raptor": "brdyn.raptor.model",
    "RaptorBlock": "brdyn.raptor.block",
    "RankCurve": "brdyn.raptor.ranks",
    "Span": "brdyn.raptor.model",
    "fit_options": "brdyn.raptor.fit",
    "fit_raptor": "brdyn.raptor.fit",
    "raptor_ranks": "brdyn.raptor.ranks",
    "read_official": "brdyn.raptor.official",
}

__all__ = [
    "ActivationCache",
    "BlockConfig",
    "CopyConfig",
    "Evaluation",
    "Fit",
    "FitSettings",
    "RankCurve",
    "Raptor",
    "RaptorBlock",
    "Span",
    "evaluate",
    "fit_options",
    "fit_raptor",
    "raptor_ranks",
    "read_official",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
