"""Cutting depth into phases. NumPy only: nothing here needs torch."""

from brdyn.phases.maxcut import best_segmentations, k_best_segmentations, random_moments
from brdyn.phases.recursive import RecursiveClusters, recursive_bisection
from brdyn.phases.segmentation import (
    Alternative,
    Phases,
    Segmentation,
    boundary_frequency,
    check_request,
    choose_k,
    drift_reference,
    segment,
)

__all__ = [
    "Alternative",
    "Phases",
    "RecursiveClusters",
    "Segmentation",
    "best_segmentations",
    "boundary_frequency",
    "check_request",
    "choose_k",
    "drift_reference",
    "k_best_segmentations",
    "random_moments",
    "recursive_bisection",
    "segment",
]
