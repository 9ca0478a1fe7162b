"""Probes: how much of the classes can be read from frozen features."""

from brdyn.probes.by_layer import probe_layers
from brdyn.probes.features import FeatureMetric, Features, extract_features
from brdyn.probes.heads import Recipe
from brdyn.probes.knn import nearest_neighbours
from brdyn.probes.layer_choice import LayersAsked
from brdyn.probes.layer_result import LayerProbe
from brdyn.probes.linear import LinearProbe, fit_linear
from brdyn.probes.maps import Depth, Segmentation
from brdyn.probes.of_images import probe_images
from brdyn.probes.probing import Probing, Reading, compare, probe, read_classes
from brdyn.probes.scores import ClassScore, DepthScore, OverlapScore, Score

__all__ = [
    "ClassScore",
    "Depth",
    "DepthScore",
    "FeatureMetric",
    "Features",
    "LayerProbe",
    "LayersAsked",
    "LinearProbe",
    "OverlapScore",
    "Probing",
    "Reading",
    "Recipe",
    "Score",
    "Segmentation",
    "compare",
    "extract_features",
    "fit_linear",
    "nearest_neighbours",
    "probe",
    "probe_images",
    "probe_layers",
    "read_classes",
]
