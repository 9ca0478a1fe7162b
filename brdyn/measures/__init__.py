"""Measures of a trajectory: one file each, streaming, summed over processes."""

from brdyn.measures.cka import LinearCKA
from brdyn.measures.cosine import CosineSimilarity, TokenCosineSimilarity
from brdyn.measures.engine import SIMILARITIES, layer_similarity, measure, similarity_metric
from brdyn.measures.procrustes import Procrustes
from brdyn.measures.similarity import SimilarityMetric
from brdyn.phases import LayerSimilarity

__all__ = [
    "SIMILARITIES",
    "CosineSimilarity",
    "LayerSimilarity",
    "LinearCKA",
    "Procrustes",
    "SimilarityMetric",
    "TokenCosineSimilarity",
    "layer_similarity",
    "measure",
    "similarity_metric",
]
