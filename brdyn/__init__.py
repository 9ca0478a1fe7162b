"""brdyn: block-recurrent dynamics of pretrained Vision Transformers.

>>> import brdyn
>>> model = brdyn.load_model("imgfocus_vits14")
>>> images = brdyn.load_images("samples", model, n=4)
>>> similarity = brdyn.layer_similarity(model, images)
>>> phases = brdyn.segment(similarity)
>>> phases.layers
12

Other examples go on from here: `model`, `images`, `similarity` and `phases` are a ViT with 12 layers, eight pictures in
two class folders, and what is made of them; NumPy is `np`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brdyn.comparison import Comparison, compare
    from brdyn.data import load_images
    from brdyn.errors import BrdynError, UsageError
    from brdyn.interventions import layer_surgery, perturbation_repair, splice_skill
    from brdyn.measures import layer_similarity
    from brdyn.measures.dynamics import token_dynamics
    from brdyn.measures.null import with_null
    from brdyn.models import adapt, describe_model, list_models, load_model, untrained_twins
    from brdyn.phases import LayerSimilarity, Phases, segment
    from brdyn.probes import probe_images, probe_layers
    from brdyn.raptor import fit_raptor, raptor_ranks
    from brdyn.reporting import report
    from brdyn.result import Result, read
    from brdyn.trajectory import Stream, Trajectory, capture, trajectories

# Imported on first use: `brdyn --help` and `brdyn.phases` then need no torch.
_HOMES = {
    "BrdynError": "brdyn.errors",
    "Comparison": "brdyn.comparison",
    "LayerSimilarity": "brdyn.phases",
    "Phases": "brdyn.phases",
    "Result": "brdyn.result",
    "Stream": "brdyn.trajectory",
    "Trajectory": "brdyn.trajectory",
    "UsageError": "brdyn.errors",
    "adapt": "brdyn.models",
    "capture": "brdyn.trajectory",
    "compare": "brdyn.comparison",
    "describe_model": "brdyn.models",
    "fit_raptor": "brdyn.raptor",
    "layer_similarity": "brdyn.measures",
    "layer_surgery": "brdyn.interventions",
    "list_models": "brdyn.models",
    "load_images": "brdyn.data",
    "load_model": "brdyn.models",
    "perturbation_repair": "brdyn.interventions",
    "probe_images": "brdyn.probes",
    "probe_layers": "brdyn.probes",
    "raptor_ranks": "brdyn.raptor",
    "read": "brdyn.result",
    "report": "brdyn.reporting",
    "segment": "brdyn.phases",
    "splice_skill": "brdyn.interventions",
    "token_dynamics": "brdyn.measures.dynamics",
    "trajectories": "brdyn.trajectory",
    "untrained_twins": "brdyn.models",
    "with_null": "brdyn.measures.null",
}
_ROOMS = (
    "classifiers",
    "data",
    "interventions",
    "measures",
    "models",
    "phases",
    "plots",
    "probes",
    "raptor",
    "reporting",
    "training",
)

__all__ = [
    "BrdynError",
    "Comparison",
    "LayerSimilarity",
    "Phases",
    "Result",
    "Stream",
    "Trajectory",
    "UsageError",
    "adapt",
    "capture",
    "compare",
    "describe_model",
    "fit_raptor",
    "layer_similarity",
    "layer_surgery",
    "list_models",
    "load_images",
    "load_model",
    "perturbation_repair",
    "probe_images",
    "probe_layers",
    "raptor_ranks",
    "read",
    "report",
    "segment",
    "splice_skill",
    "token_dynamics",
    "trajectories",
    "untrained_twins",
    "with_null",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"brdyn.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'brdyn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
