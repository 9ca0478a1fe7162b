"""timm's plain ViTs: ViT, DeiT (and its distillation token), CLIP, SigLIP, MAE, BEiT, EVA-02, DINOv3, …"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import beit, eva
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn

from brdyn import hub
from brdyn.errors import BrdynError, UsageError
from brdyn.models import positions, weights
from brdyn.models.base import ModelInfo, Size, TokenLayout, VisionTransformer, check_image_size
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.request import ModelRequest

FAMILY = "timm"
PLAIN_MODULES = ("vision_transformer", "deit", "beit", "eva")
TEXT_MODELS = ("clip", "vit_pe_")  # their head projects to the space of the texts
IMAGENET_CLASSES = (1000, 11_821, 21_841, 21_843)
HEADS = ("head", "head_dist", "fc_norm", "attn_pool", "head_drop")


class TimmPlain(VisionTransformer):
    """Adapter of `timm.models.VisionTransformer`, with cls, distillation and register tokens or none."""

    def __init__(self, backbone: nn.Module, info: ModelInfo, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.info = info
        self.preprocessing = preprocessing
        self.tokens = token_layout(backbone)
        self.blocks = nn.ModuleList(self.step_blocks())
        self.norm = backbone.get_submodule("norm")

    def step_blocks(self) -> list[nn.Module]:
        """The blocks, each callable on the state alone."""
        return list(self.backbone.blocks)

    @property
    def classes(self) -> int:
        """Of timm's head, unless it is the projection of a model trained on text."""
        classes = int(self.backbone.num_classes)
        names = (
            self.info.name,
            (getattr(self.backbone, "pretrained_cfg", None) or {}).get("architecture") or "",
        )
        trained_on_text = any(part in name for part in TEXT_MODELS for name in names)
        return (
            0
            if self.info.family == FAMILY and trained_on_text and classes not in IMAGENET_CLASSES
            else classes
        )

    def logits(self, normed: Tensor) -> Tensor | None:
        """timm's own pooling and head."""
        return self.backbone.forward_head(normed) if self.classes else None

    def embed(self, images: Tensor) -> Tensor:
        """Patches, prefix tokens, positions and the pre-norm where there is one."""
        backbone = self.backbone
        return backbone.norm_pre(backbone.patch_drop(backbone._pos_embed(backbone.patch_embed(images))))


class BlockWithKeyword(nn.Module):
    """A block with one more tensor, fixed for the patch grid, bound to it by keyword."""

    def __init__(self, block: nn.Module, keyword: str, value: Tensor | None) -> None:
        super().__init__()
        self.block = block
        self.keyword = keyword
        self.register_buffer("value", value, persistent=False)

    def forward(self, state: Tensor) -> Tensor:
        """Apply the block."""
        return self.block(state, **{self.keyword: self.value})


class TimmBeit(TimmPlain):
    """Adapter of `timm.models.Beit`: cls token, relative position bias inside the blocks or shared by them."""

    def step_blocks(self) -> list[nn.Module]:
        """Blocks with the shared bias, if the model has one, bound to each."""
        shared = self.backbone.rel_pos_bias
        bias = None if shared is None else shared().detach()
        return [BlockWithKeyword(block, "shared_rel_pos_bias", bias) for block in self.backbone.blocks]

    def embed(self, images: Tensor) -> Tensor:
        """Patches, cls token, absolute positions where the model has them."""
        backbone = self.backbone
        patches = backbone.patch_embed(images)
        state = torch.cat([backbone.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        return state if backbone.pos_embed is None else state + backbone.pos_embed


class TimmEva(TimmPlain):
    """Adapter of `timm.models.Eva` (EVA, EVA-02, DINOv3, Perception Encoder): rotary positions in each block."""

    def step_blocks(self) -> list[nn.Module]:
        """Blocks with the rotary embedding of the patch grid bound to each (one per block where learned)."""
        backbone = self.backbone
        patch_embed = backbone.patch_embed
        with torch.no_grad():
            probe = torch.zeros(1, 3, *patch_embed.img_size).to(patch_embed.proj.weight)
            rope = backbone._pos_embed(patch_embed(probe))[1]
        mixed = rope is not None and getattr(backbone, "rope_mixed", False)
        return [
            BlockWithKeyword(block, "rope", rope[index] if mixed else rope)
            for index, block in enumerate(backbone.blocks)
        ]

    def embed(self, images: Tensor) -> Tensor:
        """Patches, prefix tokens, absolute positions where the model has them, and the pre-norm."""
        backbone = self.backbone
        return backbone.norm_pre(backbone._pos_embed(backbone.patch_embed(images))[0])


ADAPTERS: tuple[tuple[type[nn.Module], type[TimmPlain]], ...] = (
    (beit.Beit, TimmBeit),
    (eva.Eva, TimmEva),
    (TimmViT, TimmPlain),
)


@cache
def names() -> tuple[str, ...]:
    """Architectures of timm that are plain ViTs."""
    return tuple(sorted(name for module in PLAIN_MODULES for name in timm.list_models(module=module)))


def architecture(name: str) -> str:
    """The architecture of a timm name: `timm/vit_base_patch16_224.mae` to `vit_base_patch16_224`."""
    return name.removeprefix("timm/").split(".")[0]


def matches(name: str) -> bool:
    """Whether timm knows this name, as a plain ViT or not."""
    return timm.is_model(architecture(name))


def load(request: ModelRequest) -> VisionTransformer:
    """Load a timm model.

    Raises
    ------
    UsageError
        If the architecture is not a plain ViT, or the image size does not fit its patches.
    BrdynError
        If the weights are not to be had or do not fit.
    """
    arch = architecture(request.name)
    if arch not in names():
        raise UsageError(
            f"{request.name!r} is not a plain ViT (its blocks do not all map one token sequence to another "
            "of the same shape, as brdyn's phases need); `brdyn models` lists those that are"
        )
    backbone, source = _build(request)
    rule = _dinov2_rule(arch)
    digest = "" if request.describe_only else weights.digest(backbone.state_dict())
    config = resolve_model_data_config(backbone)
    native = tuple(backbone.patch_embed.img_size)
    size = request.image_size or native
    if size != native:  # some published models cut the border that does not fill a patch
        check_image_size(request.name, size, tuple(backbone.patch_embed.patch_size))
    set_image_size(backbone, size, rule)
    preprocessing = Preprocessing(
        image_size=size,
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
    )
    info = backbone_info(
        request, FAMILY, backbone, request.source(source), digest, position_rule(backbone, rule)
    )
    return adapt(backbone, info, preprocessing)


def adapt(backbone: nn.Module, info: ModelInfo, preprocessing: Preprocessing) -> VisionTransformer:
    """Wrap a timm backbone in the adapter of its class."""
    adapter = next(adapter for kind, adapter in ADAPTERS if isinstance(backbone, kind))
    return adapter(backbone.eval(), info, preprocessing)


def _build(request: ModelRequest) -> tuple[Any, str]:
    name = request.name.removeprefix("timm/")
    if not request.needs_weights or request.weights is not None:
        state = (
            weights.read_state_dict(request.weights, request.allow_pickle)
            if request.needs_weights and request.weights
            else None
        )
        options: dict[str, Any] = dict(request.arguments)
        if state is not None:
            options["num_classes"] = len(state["head.weight"]) if "head.weight" in state else 0
        elif "dinov2" in name:
            options["init_values"] = 1.0  # as Facebook's hub does; at timm's 1e-5 untrained blocks do nothing
        with request.construction():
            backbone = timm.create_model(name, pretrained=False, **options)
        if state is not None:
            _load_file(request, backbone, state)
        return backbone, _hub_source(backbone)
    try:
        with hub.hub_access():
            backbone = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm and the hub raise a dozen kinds, all meaning "no weights"
        published = timm.is_model_pretrained(name) if "." not in name else True
        why = hub.reason(error) if published else "timm publishes none for this architecture"
        raise weights.no_weights(request.name, why, hub.CACHE_HINT) from error
    return backbone, _hub_source(backbone)


def _load_file(request: ModelRequest, backbone: nn.Module, state: weights.StateDict) -> None:
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    try:
        converted = convert(state, backbone) if convert else state
    except Exception as error:  # a foreign file can break timm's conversion anywhere
        raise BrdynError(
            f"the weights in {request.weights} do not fit {request.name!r} ({hub.first_line(error)}); "
            "check --model against the file"
        ) from error
    weights.check_fit(request.name, backbone.state_dict(), converted, str(request.weights))
    backbone.load_state_dict(converted)


def _hub_source(backbone: Any) -> str:
    config = backbone.pretrained_cfg
    return f"timm hub: {config.get('hf_hub_id') or config.get('url') or 'none published'}"


def _dinov2_rule(arch: str) -> positions.PositionRule | None:
    if "dinov2" not in arch:
        return None
    return positions.FACEBOOK_DINOV2_REGISTERS if "reg" in arch else positions.FACEBOOK_DINOV2


def position_rule(backbone: Any, rule: positions.PositionRule | None) -> str:
    """Name how positions were fitted to the image size."""
    if rule is not None:
        return rule.description
    if getattr(backbone, "pos_embed", None) is not None:
        return f"{positions.TIMM}; and {positions.ROTARY}" if _rope(backbone) else positions.TIMM
    return positions.ROTARY if _rope(backbone) else positions.RELATIVE


def _rope(backbone: Any) -> bool:
    return getattr(backbone, "rope", None) is not None


def set_image_size(backbone: Any, size: Size, rule: positions.PositionRule | None) -> None:
    """Resample positions for another image size, by timm's rule or by the one given."""
    if size == tuple(backbone.patch_embed.img_size):
        return
    if rule is None:
        if not hasattr(backbone, "set_input_size"):
            native = "x".join(map(str, backbone.patch_embed.img_size))
            raise UsageError(
                f"timm {timm.__version__} cannot change the input size of {type(backbone).__name__} models; "
                f"use their own ({native}) or upgrade timm"
            )
        backbone.set_input_size(img_size=size)
        return
    prefix = 0 if backbone.no_embed_class else backbone.num_prefix_tokens
    table = backbone.pos_embed.detach()
    backbone.patch_embed.set_input_size(img_size=size)
    resampled = positions.resample_with_prefix(table, backbone.patch_embed.grid_size, rule, prefix)
    backbone.pos_embed = nn.Parameter(resampled)


def token_layout(backbone: Any) -> TokenLayout:
    """Where a timm backbone puts its cls, distillation and register tokens."""
    tokens = {"cls": "cls_token", "distillation": "dist_token", "registers": "reg_token"}
    prefix = {
        group: parameter.shape[1]
        for group, name in tokens.items()
        if (parameter := getattr(backbone, name, None)) is not None
    }
    if sum(prefix.values()) != backbone.num_prefix_tokens:
        raise BrdynError(f"{type(backbone).__name__} has prefix tokens that brdyn does not know")
    return TokenLayout.with_prefix(tuple(backbone.patch_embed.grid_size), prefix)


def backbone_info(
    request: ModelRequest,
    family: str,
    backbone: Any,
    source: str,
    digest: str,
    rule: str,
    notes: tuple[str, ...] = (),
) -> ModelInfo:
    """Describe a timm backbone."""
    trunk = [p for name, p in backbone.named_parameters() if name.split(".")[0] not in HEADS]
    attention = next(module for module in backbone.blocks[0].modules() if hasattr(module, "num_heads"))
    return ModelInfo(
        name=request.name,
        family=family,
        layers=len(backbone.blocks),
        width=backbone.embed_dim,
        heads=int(attention.num_heads),
        patch=backbone.patch_embed.patch_size[0],
        image_size=tuple(backbone.patch_embed.img_size),
        parameters=sum(parameter.numel() for parameter in trunk),
        position_rule=rule,
        weights=source,
        digest=digest,
        notes=notes,
    )
