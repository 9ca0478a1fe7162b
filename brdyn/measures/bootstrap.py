"""A bootstrap that streams: each unit gets a Poisson(1) weight in every replicate.

Resampling n units with replacement gives each of them a multinomial count, which tends to independent
Poisson(1) counts (Oza and Russell 2001, online bagging). The weights depend only on the seed and on
the unit's position in its set, so that batch size and the number of processes do not change them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from brdyn.random_keys import random_keys

SHARES = np.cumsum([math.exp(-1) / math.factorial(number) for number in range(16)])
"""Of draws that are at most 0, 1, …; beyond the last lies less than a float64 tells from 1."""


def poisson_weights(units: Tensor | list[int], replicates: int, seed: int) -> Tensor:
    """Weights of `units` in every replicate, `(len(units), replicates)`, float64.

    Drawn all at once, by the inverse of the distribution from one random number each: a generator for every unit costs
    more than a GPU's forward.
    """
    starts = random_keys(np.asarray(units, dtype=np.int64).astype(np.uint64), seed)
    keys = random_keys(starts[:, None] + np.arange(replicates, dtype=np.uint64), seed)
    return torch.from_numpy(np.searchsorted(SHARES, keys / 2.0**64, side="right").astype(np.float64))
