"""timm's plain ViTs: ViT, DeiT (and its distillation token), CLIP, SigLIP, MAE, BEiT, EVA-02, DINOv3, …"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from timm.layers import RelPosBias, RelPosMlp
from timm.models import beit, eva, vision_transformer_relpos
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn

from brdyn import hub
from brdyn.errors import BrdynError, UsageError
from brdyn.models import layouts, positions, timm_trunks, weights
from brdyn.models.base import ModelInfo, TokenLayout, VisionTransformer
from brdyn.models.loaded import Loaded
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.request import ModelRequest

FAMILY = "timm"
PLAIN_MODULES = ("vision_transformer", "vision_transformer_relpos", "deit", "beit", "eva")
TEXT_MODELS = ("clip", "vit_pe_")  # their head projects to the space of the texts
IMAGENET_CLASSES = (1000, 11_821, 21_841, 21_843)
IMAGENET_NOTE = (
    "the file is in another layout than timm's; images are prepared with ImageNet's mean and deviation, as by"
)
NOT_PLAIN = {  # by timm's module, the first that is in its name: what of it is no sequence of tokens through blocks
    **dict.fromkeys(("convmixer", "densenet", "vgg", "inception"), "it convolves and has no tokens"),
    "mobilevit": "its stages mix convolutions and attention, and its states change shape",
    "swin": "its windows of tokens merge between stages, so its states change shape",
    **dict.fromkeys(("convnext", "resnet", "efficientnet", "regnet", "mobilenet"), "it convolves and has no tokens"),
    "hybrid": "its patches come from a convolutional network whose layers are no blocks of tokens",
    **dict.fromkeys(("levit", "pvt", "davit"), "its tokens are fewer in each stage, so its states change shape"),
    **dict.fromkeys(("mvit", "hiera", "pit"), "its tokens are pooled between stages, so its states change shape"),
    **dict.fromkeys(("cait", "xcit"), "its cls token joins only in the last blocks, so its states change shape"),
    "crossvit": "it has two sequences of tokens at two scales",
    "coat": "its tokens are at several scales",
    "volo": "its tokens are fewer after the first stage, so its states change shape",
    "maxxvit": "its stages mix convolutions and windows, and its states change shape",
    "sam": "its blocks keep windows in rows and columns instead of one sequence of tokens",
    "mixer": "its blocks mix tokens by perceptrons and have no attention",
    "naflexvit": "its number of tokens differs from image to image",
}
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
        # A trunk that timm's factory did not make has no configuration.
        configured = getattr(self.backbone, "pretrained_cfg", None) or {}
        names = (self.info.name, configured.get("architecture") or "")
        trained_on_text = any(part in name for part in TEXT_MODELS for name in names)
        return 0 if self.info.family == FAMILY and trained_on_text and classes not in IMAGENET_CLASSES else classes

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


class TimmRelPos(TimmPlain):
    """Adapter of `timm.models.VisionTransformerRelPos`: relative position bias in each block or shared by them."""

    def step_blocks(self) -> list[nn.Module]:
        """Blocks with the shared bias, if the model has one, bound to each."""
        shared = self.backbone.shared_rel_pos
        bias = None if shared is None else shared.get_bias().detach()
        return [BlockWithKeyword(block, "shared_rel_pos", bias) for block in self.backbone.blocks]

    def embed(self, images: Tensor) -> Tensor:
        """Patches, and a cls token where the model has one."""
        backbone = self.backbone
        patches = backbone.patch_embed(images)
        if backbone.cls_token is None:
            return patches
        return torch.cat([backbone.cls_token.expand(len(patches), -1, -1), patches], dim=1)


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
    (vision_transformer_relpos.VisionTransformerRelPos, TimmRelPos),
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


def _refused(name: str, arch: str) -> UsageError:
    """What to say of a timm model that is not loaded: what keeps it from being a plain ViT, where that is known."""
    module = timm.models.model_entrypoint(arch).__module__.rsplit(".", 1)[-1]
    why = next((why for part, why in NOT_PLAIN.items() if part in module), None)
    if why is None:
        return UsageError(
            f"{name!r} is no timm ViT that brdyn knows how to run (`brdyn models` lists those); if its blocks map a "
            "state of tokens to one of the same shape, give it to brdyn.adapt in Python (docs: a model of your own)"
        )
    return UsageError(f"{name!r} is not a plain ViT: {why}; `brdyn models` lists those that are")


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
        raise _refused(request.name, arch)
    rule = _dinov2_rule(arch)
    name = request.name.removeprefix("timm/")
    if request.needs_weights and request.weights is not None:
        loaded = timm_trunks.from_file(
            request, name, request.weights, size=request.image_size, rule=rule, **dict(request.arguments)
        )
        preprocessing, notes = preprocessing_of_file(loaded, name)
        loaded = replace(loaded, notes=notes)
    else:
        backbone = _published(request, name) if request.needs_weights else _untrained(request, name)
        loaded = Loaded(backbone, "" if request.describe_only else weights.digest(backbone.state_dict()))
        timm_trunks.resize(request.name, backbone, request.image_size, rule)
        preprocessing = _preprocessing(backbone)
    source, described = _hub_source(loaded.backbone), position_rule(loaded.backbone, rule)
    return adapt(request, FAMILY, loaded, source, described, preprocessing)


def adapt(
    request: ModelRequest, family: str, loaded: Loaded, source: str, rule: str, preprocessing: Preprocessing
) -> VisionTransformer:
    """Wrap a timm backbone in the adapter of its class.

    Parameters
    ----------
    request : ModelRequest
    family : str
    loaded : Loaded
    source : str
        Where its weights are from, unless the request says otherwise.
    rule : str
        How positions were fitted to the image size.
    preprocessing : Preprocessing
    """
    backbone = loaded.backbone
    trunk = [p for name, p in backbone.named_parameters() if name.split(".")[0] not in HEADS]
    attention = next(module for module in backbone.blocks[0].modules() if hasattr(module, "num_heads"))
    info = ModelInfo(
        name=request.name,
        family=family,
        layers=len(backbone.blocks),
        width=backbone.embed_dim,
        heads=int(attention.num_heads),
        patch=backbone.patch_embed.patch_size[0],
        image_size=tuple(backbone.patch_embed.img_size),
        parameters=sum(parameter.numel() for parameter in trunk),
        position_rule=rule,
        weights=request.source(source, loaded.chosen.label),
        digest=loaded.digest,
        notes=loaded.notes,
    )
    adapter = next(adapter for kind, adapter in ADAPTERS if isinstance(backbone, kind))
    model = adapter(backbone.eval(), info, preprocessing)
    model.built = loaded.built
    return model


def _untrained(request: ModelRequest, name: str) -> Any:
    # As Facebook's hub does; at timm's 1e-5 the untrained blocks of DINOv2 do nothing.
    options = {"init_values": 1.0} if "dinov2" in name else {}
    return timm_trunks.untrained(request, name, **{**options, **dict(request.arguments)})


def _published(request: ModelRequest, name: str) -> Any:
    try:
        with hub.hub_access():
            return timm.create_model(name, pretrained=True)
    except Exception as error:  # timm and the hub raise a dozen kinds, all meaning "no weights"
        published = timm.is_model_pretrained(name) if "." not in name else True
        why = hub.reason(error) if published else "timm publishes none for this architecture"
        raise weights.no_weights(request.name, why, hub.CACHE_HINT) from error


def _preprocessing(backbone: Any) -> Preprocessing:
    """As timm's configuration of these weights, or of the architecture's first, says."""
    config = resolve_model_data_config(backbone)
    return Preprocessing(
        image_size=tuple(backbone.patch_embed.img_size),
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
    )


def preprocessing_of_file(loaded: Loaded, name: str) -> tuple[Preprocessing, tuple[str, ...]]:
    """How images were prepared for weights in a file, and its notes with what is not certain of that.

    A layout that only one code base writes says it; else it is what timm's name has, and where the tags of that
    architecture differ and none was named, a note says so.
    """
    own, size = _preprocessing(loaded.backbone), tuple(loaded.backbone.patch_embed.img_size)
    if loaded.chosen.layout == layouts.TORCHVISION:
        return Preprocessing(size, interpolation="bilinear"), (*loaded.notes, f"{IMAGENET_NOTE} torchvision")
    if isinstance(loaded.backbone, TimmViT) and loaded.is_self_supervised:
        return Preprocessing(size), (*loaded.notes, f"{IMAGENET_NOTE} DINO, iBOT, MAE and MoCo v3")
    tags = {tag: timm.models.get_pretrained_cfg(tag) for tag in timm.list_pretrained(f"{name}.*")}
    if "." in name or len({tuple(config.mean) for config in tags.values() if config}) < 2:
        return own, loaded.notes
    mean = ", ".join(f"{value:g}" for value in own.mean)
    first = loaded.backbone.pretrained_cfg.get("tag")
    doubt = (
        f"images are normalised with the mean {mean}, as timm's {name}.{first} needs; other weights of this "
        "architecture need others, which `model` takes with their tag"
    )
    return own, (*loaded.notes, doubt)


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
    there = {
        positions.TIMM: getattr(backbone, "pos_embed", None) is not None,
        positions.RELATIVE: any(map(_is_relative, backbone.modules())),
        positions.ROTARY: getattr(backbone, "rope", None) is not None,
    }
    return "; and ".join(name for name, has in there.items() if has) or positions.NONE


def _is_relative(module: nn.Module) -> bool:
    return getattr(module, "relative_position_bias_table", None) is not None or isinstance(
        module, RelPosBias | RelPosMlp
    )


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
