"""Cutting depth into phases. NumPy only: nothing here needs torch."""

from brdyn.phases.evidence import Boundary, Evidence, layer_steps, phase_evidence
from brdyn.phases.given import as_assignment, as_phases
from brdyn.phases.maxcut import best_segmentations, k_best_segmentations, random_moments
from brdyn.phases.phases import Phases, segment
from brdyn.phases.recursive import RecursiveClusters, recursive_bisection
from brdyn.phases.segmentation import (
    Alternative,
    Segmentation,
    boundary_frequency,
    check_request,
    choose_k,
    drift_reference,
)
from brdyn.phases.similarity import LayerSimilarity

__all__ = [
    "Alternative",
    "Boundary",
    "Evidence",
    "LayerSimilarity",
    "Phases",
    "RecursiveClusters",
    "Segmentation",
    "as_assignment",
    "as_phases",
    "best_segmentations",
    "boundary_frequency",
    "check_request",
    "choose_k",
    "drift_reference",
    "k_best_segmentations",
    "layer_steps",
    "phase_evidence",
    "random_moments",
    "recursive_bisection",
    "segment",
]
