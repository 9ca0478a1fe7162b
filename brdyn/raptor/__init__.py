"""Raptor: one shared block for each phase of a ViT. BRH (arXiv 2512.19941)."""

from brdyn.raptor.block import BlockConfig, RaptorBlock
from brdyn.raptor.fit import Fit, FitSettings, fit_raptor
from brdyn.raptor.model import Raptor, Span

__all__ = ["BlockConfig", "Fit", "FitSettings", "Raptor", "RaptorBlock", "Span", "fit_raptor"]
