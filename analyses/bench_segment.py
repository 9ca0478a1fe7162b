"""How long segmentation takes: exact dynamic programming for all k, against exhaustive max-cut.

The public notebook's solver tries every subset of layers, one at a time, so that its time doubles with every layer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch

from analyses.bench import benchmark
from analyses.recording import Choice, parser
from brdyn import segment
from brdyn.phases import best_segmentations
from brdyn.runtime import timed

EXHAUSTIVE_LAYERS = range(8, 19, 2)
DYNAMIC_LAYERS = (12, 18, 24, 40, 64)


def matrix(layers: int) -> np.ndarray:
    """A drifting dissimilarity with noise, like a network's."""
    rng = np.random.default_rng(layers)
    steps = np.cumsum(rng.gamma(0.5, size=layers))
    values = np.abs(steps[:, None] - steps[None]) + 0.3 * rng.random((layers, layers))
    values = (values + values.T) / 2
    np.fill_diagonal(values, 0)
    return values


def plain_exhaustive(weights: np.ndarray) -> float:
    """Try every two-way cut, one after another."""
    sides = (np.array((False, *bits)) for bits in product((False, True), repeat=len(weights) - 1))
    return max(float(weights[side][:, ~side].sum()) for side in sides)


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    return float(np.median([1000 * timed(call, torch.device("cpu")) for _ in range(repeats)]))


def run(choice: Choice) -> dict[str, Any]:
    """Time everything, on a CPU in any case."""
    choice.device = "cpu"
    best_segmentations(matrix(12))  # first calls pay for imports
    drifts = {layers: matrix(layers) for layers in DYNAMIC_LAYERS}
    return {
        "all_k_ms": {layers: milliseconds(partial(best_segmentations, one), 30) for layers, one in drifts.items()},
        "segment_ms": {layers: milliseconds(partial(segment, 1 - one), 10) for layers, one in drifts.items()},
        "exhaustive_two_phases": {
            layers: {"plain_ms": milliseconds(partial(plain_exhaustive, matrix(layers)), 1)}
            for layers in EXHAUSTIVE_LAYERS
        },
    }


main = benchmark("bench_segment", run, parser(__doc__), __name__)
