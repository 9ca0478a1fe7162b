"""transformers' plain ViTs: ViT, DINOv2 (with and without registers), DINOv3, CLIP and SigLIP vision towers.

Models are loaded through `from_pretrained` only; modules are found by role, not by checkpoint key,
because transformers renames them between versions.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from brdyn import hub
from brdyn.errors import BrdynError, UsageError
from brdyn.models import positions, weights
from brdyn.models.base import ModelInfo, Size, TokenLayout, VisionTransformer, check_image_size
from brdyn.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from brdyn.models.request import ModelRequest

FAMILY = "transformers"
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class Kind:
    """How one transformers model type is put together.

    Attributes
    ----------
    model_class : str
        The class in `transformers` that holds the vision trunk.
    norm : tuple of str
        Names its final norm has had.
    cls : bool
        Whether it has a cls token.
    pre_norm : tuple of str
        Names of the norm between embedding and blocks, if there is one.
    interpolates : bool
        Whether its embedding takes `interpolate_pos_encoding`.
    rule : PositionRule or None
        Facebook's rule for DINOv2; None leaves transformers' own.
    rotary : bool
        Whether positions are rotary, handed to each block.
    mean, std, crop_pct
        Preprocessing where the checkpoint has no processor file.
    """

    model_class: str
    norm: tuple[str, ...]
    cls: bool = True
    pre_norm: tuple[str, ...] = ()
    interpolates: bool = False
    rule: positions.PositionRule | None = None
    rotary: bool = False
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop_pct: float = 1.0


CLIP = Kind(
    "CLIPVisionModel",
    ("post_layernorm",),
    pre_norm=("pre_layrnorm", "pre_layernorm"),
    interpolates=True,
    mean=CLIP_MEAN,
    std=CLIP_STD,
)
SIGLIP = Kind("SiglipVisionModel", ("post_layernorm",), cls=False, interpolates=True, mean=HALF, std=HALF)
KINDS: dict[str, Kind] = {
    "vit": Kind("ViTModel", ("layernorm",), interpolates=True, mean=HALF, std=HALF),
    "dinov2": Kind("Dinov2Model", ("layernorm",), rule=positions.FACEBOOK_DINOV2, crop_pct=0.875),
    "dinov2_with_registers": Kind(
        "Dinov2WithRegistersModel", ("layernorm",), rule=positions.FACEBOOK_DINOV2_REGISTERS, crop_pct=0.875
    ),
    "dinov3_vit": Kind("DINOv3ViTModel", ("norm",), rotary=True),
    "clip": CLIP,
    "clip_vision_model": CLIP,
    "siglip": SIGLIP,
    "siglip_vision_model": SIGLIP,
}


class TransformersBlock(nn.Module):
    """A transformers layer callable on the state alone, with the rotary embedding of the grid bound to it."""

    def __init__(self, layer: nn.Module, rotary: tuple[Tensor, Tensor] | None) -> None:
        super().__init__()
        self.layer = layer
        # Some layers require a mask argument, others of earlier versions do not know it.
        masked = "attention_mask" in inspect.signature(layer.forward).parameters
        self.extra = {"attention_mask": None} if masked else {}
        self.register_buffer("cos", rotary[0] if rotary else None, persistent=False)
        self.register_buffer("sin", rotary[1] if rotary else None, persistent=False)

    def forward(self, state: Tensor) -> Tensor:
        """Apply the layer; older versions return a tuple."""
        rotary = {} if self.cos is None else {"position_embeddings": (self.cos, self.sin)}
        output = self.layer(state, **self.extra, **rotary)
        return output[0] if isinstance(output, tuple) else output


class TransformersViT(VisionTransformer):
    """Adapter of one transformers vision trunk."""

    def __init__(self, backbone: Any, kind: Kind, info: ModelInfo, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.backbone = backbone
        self.kind = kind
        self.info = info
        self.preprocessing = preprocessing
        grid = info.image_size[0] // info.patch, info.image_size[1] // info.patch
        prefix = {"cls": int(kind.cls), "registers": getattr(backbone.config, "num_register_tokens", 0) or 0}
        self.tokens = TokenLayout.with_prefix(grid, prefix)
        self.pre_norm = _child(backbone, kind.pre_norm) if kind.pre_norm else nn.Identity()
        self.norm = _child(backbone, kind.norm)
        rotary = self._rotary() if kind.rotary else None
        self.blocks = nn.ModuleList(TransformersBlock(layer, rotary) for layer in find_layers(backbone))
        if kind.rule is not None and self.device.type != "meta":
            self._follow(kind.rule, grid)

    def embed(self, images: Tensor) -> Tensor:
        """The trunk's own embedding, and its pre-norm where there is one."""
        extra = {"interpolate_pos_encoding": True} if self.kind.interpolates else {}
        return self.pre_norm(self.backbone.embeddings(images, **extra))

    def _rotary(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            cos, sin = self.backbone.rope_embeddings(
                torch.zeros(1, 3, *self.info.image_size, device=self.device)
            )
        return cos, sin

    def _follow(self, rule: positions.PositionRule, grid: Size) -> None:
        """Give the embedding Facebook's positions instead of transformers' own resampling."""
        embeddings = self.backbone.embeddings
        table = positions.resample_with_prefix(embeddings.position_embeddings.detach(), grid, rule, prefix=1)
        embeddings.register_buffer("resampled_positions", table, persistent=False)
        embeddings.interpolate_pos_encoding = MethodType(_resampled_positions, embeddings)


def _resampled_positions(embeddings: Any, *_: Any) -> Tensor:
    return embeddings.resampled_positions


def _child(backbone: nn.Module, candidates: tuple[str, ...]) -> nn.Module:
    for name in candidates:
        if hasattr(backbone, name):
            return getattr(backbone, name)
    raise BrdynError(
        f"{type(backbone).__name__} of this transformers version has none of {', '.join(candidates)}; "
        "brdyn supports transformers 5"
    )


def find_layers(backbone: nn.Module) -> list[nn.Module]:
    """The trunk's blocks: its only module list as long as its configuration says."""
    depth = backbone.config.num_hidden_layers  # type: ignore[union-attr]
    lists = [m for m in backbone.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if len(lists) != 1:
        raise BrdynError(
            f"could not tell the blocks of {type(backbone).__name__} in this transformers version"
        )
    return list(lists[0])


def names() -> tuple[str, ...]:
    """Examples of ids; any id or folder of the supported classes loads."""
    return (
        "google/vit-base-patch16-224",
        "facebook/dinov2-base",
        "facebook/dinov2-with-registers-base",
        "facebook/dinov3-vits16-pretrain-lvd1689m",
        "openai/clip-vit-base-patch32",
        "google/siglip-base-patch16-224",
    )


def matches(name: str) -> bool:
    """Whether this looks like a hub id (`owner/name`) or is a transformers folder."""
    return is_folder(Path(name)) or (name.count("/") == 1 and not name.startswith((".", "/", "~")))


def is_folder(path: Path) -> bool:
    """Whether a local folder holds a transformers model."""
    return (path / "config.json").is_file()


def load(request: ModelRequest) -> VisionTransformer:
    """Load a transformers vision trunk from the hub, its cache or a folder.

    Raises
    ------
    UsageError
        If the configuration is not of a plain ViT that brdyn knows, or the image size does not fit.
    BrdynError
        If the weights are not to be had.
    """
    import transformers

    if request.weights is not None and not is_folder(request.weights):
        raise UsageError(
            f"the weights of a transformers model are a folder with its config.json, and {str(request.weights)!r} is "
            "not one; give --weights such a folder"
        )
    location = str(request.weights) if request.weights is not None else request.name
    config, kind = _configuration(request, location)
    model_class = getattr(transformers, kind.model_class)
    if request.needs_weights:
        backbone = _from_pretrained(request, model_class, location)
    else:
        with request.construction():
            backbone = model_class(config)
    backbone = getattr(backbone, "vision_model", backbone)
    native = _square(config.image_size)
    size = request.image_size or native
    patch = _square(config.patch_size)
    if size != native:  # some published models cut the border that does not fill a patch
        check_image_size(request.name, size, patch)
    default = f"folder {location}" if is_folder(Path(location)) else f"transformers hub: {location}"
    info = ModelInfo(
        name=request.name,
        family=FAMILY,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        patch=patch[0],
        image_size=size,
        parameters=_trunk_parameters(backbone),
        position_rule=_rule_name(kind),
        weights=request.source(default),
        digest="" if request.describe_only else weights.digest(backbone.state_dict()),
    )
    return TransformersViT(backbone.eval(), kind, info, _preprocessing(location, kind, size))


def _configuration(request: ModelRequest, location: str) -> tuple[Any, Kind]:
    from transformers import AutoConfig

    try:
        with hub.hub_access():
            config = AutoConfig.from_pretrained(location)
    except Exception as error:  # the hub raises a dozen kinds, all meaning "not to be had"
        raise weights.no_weights(
            request.name, _reason(error, location), hub.CACHE_HINT, architecture=False
        ) from error
    kind = KINDS.get(config.model_type)
    if kind is None:
        raise UsageError(
            f"{request.name!r} is a {config.model_type!r} model, not a plain ViT that brdyn knows "
            f"({', '.join(sorted({kind.model_class for kind in KINDS.values()}))})"
        )
    return getattr(config, "vision_config", config), kind


def _from_pretrained(request: ModelRequest, model_class: Any, location: str) -> Any:
    extra = {"add_pooling_layer": False} if model_class.__name__ == "ViTModel" else {}
    with hub.hub_access():
        try:
            backbone, report = model_class.from_pretrained(location, output_loading_info=True, **extra)
        except Exception as error:
            raise weights.no_weights(request.name, _reason(error, location), hub.CACHE_HINT) from error
    trunk = {
        name.split(".", 1)[-1] if name.startswith("vision_model.") else name
        for name in report["missing_keys"]
    }
    missing = sorted(name for name in trunk if not name.startswith(("pooler", "head")))
    if missing or report.get("mismatched_keys"):
        keys = missing or [str(key) for key in report["mismatched_keys"]]
        raise BrdynError(
            f"the weights in {location} do not fit {model_class.__name__}: {len(keys)} keys missing or of another "
            f"shape ({', '.join(keys[: weights.SHOWN_KEYS])}); check its config.json"
        )
    return backbone


def _reason(error: Exception, location: str) -> str:
    return hub.first_line(error) if is_folder(Path(location)) else hub.reason(error)


def _rule_name(kind: Kind) -> str:
    if kind.rule is not None:
        return kind.rule.description
    return positions.ROTARY if kind.rotary else positions.TRANSFORMERS


def _trunk_parameters(backbone: Any) -> int:
    outside = ("pooler", "head")
    return sum(p.numel() for name, p in backbone.named_parameters() if not name.startswith(outside))


def _square(value: Any) -> Size:
    if isinstance(value, int):
        return value, value
    height, width = value
    return int(height), int(width)


def _preprocessing(location: str, kind: Kind, size: Size) -> Preprocessing:
    """Read the checkpoint's processor file; fall back on what the family was trained with."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        with hub.hub_access():
            settings, _ = ImageProcessingMixin.get_image_processor_dict(location)
    except Exception:  # no processor file, or no network to look for one
        return Preprocessing(size, kind.crop_pct, mean=kind.mean, std=kind.std)
    crops = settings.get("do_center_crop", False)
    return Preprocessing(
        image_size=size,
        crop_pct=_crop_fraction(settings) if crops else 1.0,
        crop_mode="center" if crops or "shortest_edge" in _as_dict(settings.get("size")) else "squash",
        interpolation=PIL_FILTERS.get(settings.get("resample", 3), "bicubic"),
        mean=tuple(settings.get("image_mean") or kind.mean),
        std=tuple(settings.get("image_std") or kind.std),
    )


def _crop_fraction(settings: dict[str, Any]) -> float:
    resized, crop = _as_dict(settings.get("size")), _as_dict(settings.get("crop_size"))
    short = resized.get("shortest_edge") or resized.get("height")
    side = crop.get("height") or crop.get("shortest_edge") or short
    return float(side / short) if short and side else 1.0


def _as_dict(value: Any) -> dict[str, int]:
    if isinstance(value, int):
        return {"shortest_edge": value}
    return dict(value) if value else {}
