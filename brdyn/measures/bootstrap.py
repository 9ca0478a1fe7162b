"""A bootstrap that streams: each unit gets a Poisson(1) weight in every replicate.

Resampling n units with replacement gives each of them a multinomial count, which tends to independent
Poisson(1) counts (Oza and Russell 2001, online bagging). The weights depend only on the seed and on
the unit's position in its set, so that batch size and the number of processes do not change them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def poisson_weights(units: Tensor | list[int], replicates: int, seed: int) -> Tensor:
    """Weights of `units` in every replicate, `(len(units), replicates)`, float64."""
    rows = [
        np.random.Generator(np.random.Philox(key=[seed % 2**64, int(unit)])).poisson(1.0, replicates)
        for unit in units
    ]
    return torch.from_numpy(np.asarray(rows, dtype=np.float64))
