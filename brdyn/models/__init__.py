"""Load any plain ViT as a trunk of callable blocks with a known token layout."""

from brdyn.models.adapter import adapt
from brdyn.models.base import ModelInfo, TokenLayout, VisionTransformer
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.registry import describe_model, list_models, load_model
from brdyn.models.twins import untrained_twins

__all__ = [
    "ModelInfo",
    "Preprocessing",
    "TokenLayout",
    "VisionTransformer",
    "adapt",
    "describe_model",
    "list_models",
    "load_model",
    "untrained_twins",
]
