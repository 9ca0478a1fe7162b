"""Similarities that tests make up."""

import numpy as np

from brdyn.phases import LayerSimilarity


def similarity_of(matrix: np.ndarray, replicates: np.ndarray | None = None) -> LayerSimilarity:
    """Of nothing that was measured."""
    return LayerSimilarity("cosine", "cls", matrix, replicates, "image", 0)
