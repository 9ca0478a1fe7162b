"""DINOv2 under its torch-hub names, from Facebook's own checkpoints, in a timm trunk.

Facebook's rule for positions (method notes, section 8) is followed: bicubic by scale factor with an
offset of 0.1 and no antialias for the plain models, by size with antialias for those with registers.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import timm
import torch
from torch import Tensor, nn

from brdyn.errors import BrdynError
from brdyn.models import positions, timm_family, weights
from brdyn.models.base import VisionTransformer, check_image_size
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.request import ModelRequest

FAMILY = "dinov2 (torch hub)"
DEFAULT_IMAGE_SIZE = (224, 224)
NATIVE_GRID = 37
PATCH = 14
URL = "https://dl.fbaipublicfiles.com/dinov2/{size}/{name}_pretrain.pth"
SIZES = {"vits14": "small", "vitb14": "base", "vitl14": "large", "vitg14": "giant"}


@dataclass(frozen=True)
class Variant:
    """One of the eight published DINOv2 backbones."""

    name: str
    arch: str
    url: str
    registers: bool

    @property
    def rule(self) -> positions.PositionRule:
        """Facebook's resampling rule for this variant."""
        return positions.FACEBOOK_DINOV2_REGISTERS if self.registers else positions.FACEBOOK_DINOV2


def _variants() -> dict[str, Variant]:
    variants = {}
    for size, word in SIZES.items():
        for registers in (False, True):
            name = f"dinov2_{size}" + ("_reg" if registers else "")
            arch = f"vit_{word}_patch14_{'reg4_' if registers else ''}dinov2"
            url = URL.format(size=f"dinov2_{size}", name=f"dinov2_{size}" + ("_reg4" if registers else ""))
            variants[name] = Variant(name, arch, url, registers)
    return variants


VARIANTS = _variants()


def names() -> tuple[str, ...]:
    """The torch-hub names."""
    return tuple(VARIANTS)


def matches(name: str) -> bool:
    """Whether this is a torch-hub DINOv2 name."""
    return name in VARIANTS


def load(request: ModelRequest) -> VisionTransformer:
    """Load a DINOv2 backbone from Facebook's checkpoint, a file in its layout or timm's, or untrained."""
    variant = VARIANTS[request.name]
    size = request.image_size or DEFAULT_IMAGE_SIZE
    check_image_size(request.name, size, (PATCH, PATCH))
    if request.needs_weights:
        state = to_timm(_read(request, variant))
        digest = weights.digest(state)
        backbone = trunk_from(request, variant.arch, state, variant.rule, size)
    else:
        backbone, digest = untrained_trunk(request, variant.arch, variant.rule, size), ""
    info = timm_family.backbone_info(
        request, FAMILY, backbone, request.source(variant.url), digest, variant.rule.description
    )
    return timm_family.TimmPlain(backbone.eval(), info, Preprocessing(size))


def _read(request: ModelRequest, variant: Variant) -> weights.StateDict:
    if request.weights is not None:
        return weights.read_state_dict(request.weights, request.allow_pickle)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    cached = folder / variant.url.rsplit("/", 1)[1]
    if not cached.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(variant.url, str(cached), progress=sys.stderr.isatty())
        except HTTPError as error:
            raise weights.no_weights(request.name, f"{variant.url}: {error}", f"kept as {cached}") from error
        except (OSError, HTTPException) as error:
            reason = f"no network: {error.reason}" if isinstance(error, URLError) else f"no download: {error}"
            raise weights.no_weights(request.name, reason, f"the file is then kept as {cached}") from error
    try:
        return weights.read_state_dict(cached)
    except BrdynError as error:
        raise BrdynError(f"{error}; delete that file to download it again") from error


def create(arch: str, size: tuple[int, int]) -> Any:
    """The timm architecture without a head; LayerScale starts at 1 as in Facebook's hub configuration."""
    return timm.create_model(arch, pretrained=False, num_classes=0, img_size=size, init_values=1.0)


def untrained_trunk(
    request: ModelRequest, arch: str, rule: positions.PositionRule, size: tuple[int, int]
) -> nn.Module:
    """An untrained trunk, or one on the meta device, at the native grid and then resampled like a trained one."""
    side = NATIVE_GRID * PATCH
    with request.construction():
        backbone = create(arch, size if request.describe_only else (side, side))
    timm_family.set_image_size(backbone, size, rule)
    return backbone


def trunk_from(
    request: ModelRequest,
    arch: str,
    state: weights.StateDict,
    rule: positions.PositionRule,
    size: tuple[int, int],
) -> nn.Module:
    """Put a timm-layout state dict into the trunk without initialising or copying a weight."""
    grid = check_image_size(request.name, size, (PATCH, PATCH))
    with torch.device("meta"):
        native = create(arch, (NATIVE_GRID * PATCH, NATIVE_GRID * PATCH))
        backbone = create(arch, size)
    weights.check_fit(request.name, native.state_dict(), state, str(request.weights or request.name))
    prefix = 0 if backbone.no_embed_class else backbone.num_prefix_tokens
    resampled = positions.resample_with_prefix(state["pos_embed"], grid, rule, prefix)
    backbone.load_state_dict({**state, "pos_embed": resampled}, assign=True)
    return backbone


RENAMED = (("register_tokens", "reg_token"), (".mlp.w12.", ".mlp.fc1."), (".mlp.w3.", ".mlp.fc2."))
DROPPED = ("mask_token", "head.weight", "head.bias")


def to_timm(state: weights.StateDict) -> weights.StateDict:
    """Translate Facebook's key layout to timm's; a state dict already in timm's layout is left as it is.

    Facebook adds a position to the cls token at run time; timm's register models keep positions for
    patches only, so there it is added to the cls token once.
    """
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in DROPPED:
            continue
        new_key = _unchunk(key)
        for old, new in RENAMED:
            new_key = new_key.replace(old, new)
        converted[new_key] = value
    has_registers = "register_tokens" in state
    if has_registers and {"cls_token", "pos_embed"} <= converted.keys():
        table = converted["pos_embed"]
        converted["cls_token"] = converted["cls_token"] + table[:, :1]
        converted["pos_embed"] = table[:, 1:]
    return converted


def _unchunk(key: str) -> str:
    """`blocks.1.12.norm1.weight` of a training checkpoint in chunks is `blocks.12.norm1.weight`."""
    parts = key.split(".")
    if len(parts) > 3 and parts[0] == "blocks" and parts[1].isdigit() and parts[2].isdigit():
        del parts[1]
    return ".".join(parts)
