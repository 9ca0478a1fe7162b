"""transformers' plain ViTs (:mod:`brdyn.models.towers.kinds`), and folders in timm's layout, by hub id or folder.

Models are built through `from_pretrained` only, from a config that was checked and tensors that were read; modules are
found by role, not by checkpoint key, because transformers renames them between versions.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from brdyn.checked_json import expanded
from brdyn.errors import UsageError
from brdyn.models import weights
from brdyn.models.base import ModelInfo, VisionTransformer, check_image_size
from brdyn.models.request import ModelRequest
from brdyn.models.towers import config, processor, timm_layout, trunk
from brdyn.models.towers.adapter import TransformersViT, position_rule
from brdyn.models.towers.files import CONFIG, Source
from brdyn.models.towers.heads import HEADS, Head, find_head, shapes

FAMILY = "transformers"


def names() -> tuple[str, ...]:
    """Examples of ids; any id or folder of the supported classes loads."""
    return (
        "google/vit-base-patch16-224",
        "facebook/deit-base-distilled-patch16-224",
        "microsoft/beit-base-patch16-224",
        "facebook/data2vec-vision-base",
        "facebook/vit-mae-base",
        "facebook/vit-msn-base",
        "facebook/ijepa_vith14_1k",
        "facebook/dinov2-base",
        "facebook/dinov2-with-registers-base",
        "facebook/dinov3-vits16-pretrain-lvd1689m",
        "openai/clip-vit-base-patch32",
        "facebook/metaclip-b32-400m",
        "facebook/metaclip-2-worldwide-huge-quickgelu",
        "google/siglip-base-patch16-224",
        "apple/aimv2-large-patch14-224",
        "OpenGVLab/InternVL3-1B-hf",
        "nvidia/C-RADIOv4-H",
        "facebook/pixio-huge",
    )


def matches(name: str) -> bool:
    """Whether this is a folder with a config.json, or looks like a hub id (`owner/name`) and is nothing here."""
    path = expanded(name)
    return is_folder(path) or (re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None and not path.exists())


def is_folder(path: Path) -> bool:
    """Whether a local folder holds a transformers model."""
    return (path / CONFIG).is_file()


def load(request: ModelRequest) -> VisionTransformer:
    """Load a vision trunk from the hub, its cache or a folder.

    Raises
    ------
    UsageError
        If the configuration is not of a plain ViT that brdyn knows, or the image size does not fit.
    BrdynError
        If the weights are not to be had, do not fit, are quantised, or are not all finite.
    """
    if request.weights is not None and not is_folder(request.weights):
        raise UsageError(
            f"the weights of a transformers model are a folder with its config.json, and {str(request.weights)!r} is "
            "not one; give `weights` such a folder"
        )
    source = Source(request.name, str(request.weights) if request.weights is not None else request.name)
    content = source.config()
    if timm_layout.is_layout(content):
        return timm_layout.load(request, source, content)
    described = config.describe(source, content)
    native, patch = config.square(described.config.image_size), config.square(described.config.patch_size)
    size = request.image_size or native
    if size != native:  # some published models cut the border that does not fill a patch
        check_image_size(request.name, size, patch)
    preprocessing, notes = processor.read(source, described.kind, size)
    backbone, head, left = _build(request, source, described)
    default = f"folder {source.place}" if source.folder else f"transformers hub: {source.place}"
    info = ModelInfo(
        name=request.name,
        family=FAMILY,
        layers=described.config.num_hidden_layers,
        width=described.config.hidden_size,
        heads=described.config.num_attention_heads,
        patch=patch[0],
        image_size=size,
        parameters=trunk.parameters(backbone),
        position_rule=position_rule(backbone, described.kind),
        weights=request.source(default),
        digest="" if request.describe_only else weights.digest(backbone.state_dict()),
        notes=(*_notes(described, left, _pooler_norm(backbone) is not None), *notes),
    )
    model = TransformersViT(backbone.eval(), described.kind, info, preprocessing, head)
    model.built = shapes(head)
    if len(described.classes) == model.classes:
        model.class_names = described.classes
    return model


def _build(
    request: ModelRequest, source: Source, described: config.Described
) -> tuple[Any, Head | None, tuple[str, ...]]:
    """The trunk, its head (none of an untrained model, but for a twin), and what is left out of the file."""
    besides: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    if request.needs_weights:
        state = source.state(request)
        tower, outside = trunk.tower_of(state)
        heads = {key: value for key, value in state.items() if key.split(".")[0] in HEADS}
        # Indices, such as position_ids, stand beside the weights; what is quantised has fewer bits.
        numbers = {key: value for key, value in (tower | heads).items() if value.dtype != torch.int64}
        weights.check_numbers(numbers, source.place)
        backbone, besides = trunk.load(request.name, described, tower)
    else:
        backbone, state = trunk.untrained(request, described)
    pooler = _pooler_norm(backbone)
    pool = "patches" if pooler is not None else described.kind.pool
    before = sum(described.kind.before(described.config).values())
    head = find_head(state, pool, before, described.config.hidden_size, pooler)
    served = HEADS if head is not None else ()
    left = [name for name in (*besides, *outside) if name not in served]
    return backbone, head, tuple(dict.fromkeys(left))


def _pooler_norm(backbone: Any) -> Any | None:
    """The norm of the mean of the patches, where a trunk has one in the place of a norm of its states."""
    return getattr(getattr(backbone, "pooler", None), "layernorm", None)


def _notes(described: config.Described, left: tuple[str, ...], norms_mean: bool) -> tuple[str, ...]:
    notes = [described.kind.note] if described.kind.note else []
    if (classes := described.kind.before(described.config).get("cls", 0)) > 1:
        notes.append(f"has {classes} class tokens; what is read out of an image takes their mean")
    if described.part:
        notes.append(f"the vision part of a {described.part!r} model")
    if left:
        shown = ", ".join(left[: trunk.SHOWN_GROUPS]) + (", …" if len(left) > trunk.SHOWN_GROUPS else "")
        notes.append(f"left out of the file, as not of the trunk: {shown}")
    if described.attention:
        notes.append(f"attention is torch's own ({config.ATTENTION}), not {described.attention} that its config names")
    if described.config.num_channels == 1:
        notes.append("takes grey images: colours are weighted as PIL does (ITU-R 601)")
    if getattr(described.config, "use_mean_pooling", False):
        instead = ": it norms the mean of its patches instead" if norms_mean else ""
        notes.append(f"has no norm after its last block{instead}")
    return tuple(notes)
