"""Timing two things by turns, so that a noisy machine is fair to both; and the memory a process took."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brdyn.runtime import timed


def ratio(
    bare: Callable[[], None], measured: Callable[[], None], rounds: int, device: torch.device
) -> dict[str, Any]:
    """Median of the ratios of neighbouring timings with a bootstrap interval, and the median bare time."""
    bare()
    measured()
    pairs = np.empty((rounds, 2))
    for index in range(rounds):
        for which in (0, 1) if index % 2 == 0 else (1, 0):
            pairs[index, which] = timed((bare, measured)[which], device)
    ratios = pairs[:, 1] / pairs[:, 0]
    draws = ratios[np.random.default_rng(0).integers(0, rounds, (1000, rounds))]
    return {
        "bare_seconds": float(np.median(pairs[:, 0])),
        "ratio": float(np.median(ratios)),
        "ratio_interval_95": np.percentile(np.median(draws, axis=1), [2.5, 97.5]).tolist(),
    }


def own_peak() -> float:
    """Most memory this process has taken, MiB (Linux).

    A process inherits its parent's mark in `ru_maxrss`, but not in VmHWM.
    """
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
