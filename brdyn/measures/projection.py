"""Directions on a plane, to be looked at."""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor


def on_principal_plane(
    directions: Tensor, labels: Tensor, positions: Tensor
) -> tuple[pd.DataFrame, tuple[float, float]]:
    """Directions of images at every layer, on the first two principal components of those at the last.

    Parameters
    ----------
    directions : Tensor
        `(n, L + 1, D)`.
    labels, positions : Tensor
        `(n,)`.

    Returns
    -------
    (DataFrame, (float, float))
        A row for each image and layer, its place `x`, `y`; and the share of the variance at layer L that each axis has.
    """
    last = directions[:, -1].cpu().double().numpy()
    centre = last.mean(0)
    _, sizes, axes = np.linalg.svd(last - centre, full_matrices=False)
    axes = np.resize(axes, (2, axes.shape[1])) if len(axes) < 2 else axes[:2]
    places = (directions.cpu().double().numpy() - centre) @ axes.T
    images, layers = places.shape[:2]
    share = np.zeros(2)
    share[: len(sizes[:2])] = sizes[:2] ** 2 / max((sizes**2).sum(), np.finfo(float).tiny)
    frame = pd.DataFrame(
        {
            "position": np.repeat(positions.cpu().numpy(), layers),
            "label": np.repeat(labels.cpu().numpy(), layers),
            "layer": np.tile(np.arange(layers), images),
            "x": places[..., 0].ravel(),
            "y": places[..., 1].ravel(),
        }
    )
    return frame, (float(share[0]), float(share[1]))
