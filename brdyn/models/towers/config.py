"""The config.json of a transformers model: what of it describes the vision trunk, checked before anything is built.

Nothing else of it is used. So no code, attention implementation, kernel, quantizer or precision that it names is
fetched, imported or run: attention is torch's own (:data:`ATTENTION`), in the precision that brdyn is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from brdyn.checked_json import Range, build, shown
from brdyn.choices import MOST_LAYERS, MOST_PIXELS
from brdyn.errors import UsageError
from brdyn.models.towers.files import CONFIG, Source
from brdyn.models.towers.kinds import KINDS, NOT_PLAIN, VISION_PARTS, Kind
from brdyn.words import first_line

ATTENTION = "sdpa"
MOST_CLASSES = 1_000_000
RANGES = {
    "hidden_size": Range(1, 65_536),
    "num_hidden_layers": Range(1, MOST_LAYERS),
    "num_attention_heads": Range(1, 4_096),
    "intermediate_size": Range(1, 1_000_000),
    "mlp_ratio": Range(1, 1_000),
    "image_size": Range(1, MOST_PIXELS),
    "patch_size": Range(1, MOST_PIXELS),
    "num_channels": Range(1, 1_000),
    "num_register_tokens": Range(0, 10_000),
    "num_registers": Range(0, 10_000),
    "n_cls_tokens": Range(1, 10_000),
    "num_cls_tokens": Range(1, 10_000),
    "max_img_size": Range(1, MOST_PIXELS),
    "layer_norm_eps": Range(0, 1),
    "rms_norm_eps": Range(0, 1),
    "rope_theta": Range(1e-6, 1_000_000),
}
# Of training, of heads and decoders that are not of the trunk, or of a backbone in another framework.
ELSEWHERE = re.compile(
    r"_?out_|pool_scales|pooler_|.*auxiliary|semantic_|decoder_|norm_pix|encoder_stride|vocab_size|add_fpn|mask_ratio"
    r"|reshape_|apply_|drop_path|projection_dim|.*dropout|pos_embed_(shift|jitter)"
)
CHANNELS = (1, 3)


@dataclass(frozen=True)
class Described:
    """What a config.json describes.

    Attributes
    ----------
    kind : Kind
    config : Any
        transformers' own, of the vision trunk.
    classes : tuple of str
        Names of the classes of a head, where they are told.
    part : str
        The model of images and text that the trunk is a part of; empty where it is none.
    attention : str
        The attention implementation that it names where that is another than brdyn's; it is not used.
    """

    kind: Kind
    config: Any
    classes: tuple[str, ...]
    part: str = ""
    attention: str = ""


def describe(source: Source, content: Mapping[str, Any]) -> Described:
    """The trunk that a config.json describes.

    Raises
    ------
    UsageError
        If it is of no plain ViT that brdyn knows, needs code of its own or quantized weights, or an entry is of a
        wrong type or out of range.
    """
    import transformers

    where = source.where(CONFIG)
    model_type = content.get("model_type")
    if not isinstance(model_type, str):
        raise UsageError(f"{where} has no model_type (it is {shown(model_type)}): it is not of a transformers model")
    part, vision = _vision_part(content, model_type, where)
    kind = KINDS.get(part)
    if kind is None:
        raise _not_plain(content, part, where)
    if content.get("quantization_config") is not None:
        raise UsageError(f"{where} says that the weights are quantized; give those in full precision")
    model_class = getattr(transformers, kind.model_class, None)
    if model_class is None:
        raise UsageError(f"{where} is of a {part!r}, which transformers {transformers.__version__} does not have")
    config = _configuration(model_class.config_class, vision, where)
    return Described(
        kind,
        config,
        class_names(content, where),
        part="" if vision is content else model_type,
        attention=_attention(content),
    )


def _attention(content: Mapping[str, Any]) -> str:
    named = [content.get(name) for name in ("_attn_implementation", "attn_implementation")]
    return next((shown(name) for name in named if name not in (None, ATTENTION, "eager")), "")


def _vision_part(content: Mapping[str, Any], model_type: str, where: str) -> tuple[str, Mapping[str, Any]]:
    """The type of the vision trunk, and the config of it."""
    if model_type in KINDS:
        return model_type, content
    # Old CLIP configs say what differs from CLIP's own a second time, and the second time counts.
    found = content.get("vision_config_dict") or content.get("vision_config")
    if found is None and model_type not in VISION_PARTS:
        return model_type, content
    vision = {} if found is None else found
    if not isinstance(vision, Mapping):
        raise UsageError(f"{where}: vision_config is {shown(vision)} instead of an object")
    inner = vision.get("model_type", "")
    inner = inner if inner in KINDS else VISION_PARTS.get(model_type, inner)
    if not isinstance(inner, str):
        raise UsageError(f"{where}: vision_config: model_type is {shown(inner)} instead of a text")
    return (inner or model_type), vision


def _not_plain(content: Mapping[str, Any], model_type: str, where: str) -> UsageError:
    if model_type in NOT_PLAIN:
        return UsageError(f"{where} is of a {model_type!r} model, not a plain ViT: {NOT_PLAIN[model_type]}")
    if content.get("auto_map"):
        return UsageError(
            f"{where} asks for code of its own (auto_map), which brdyn does not run; where transformers has the model "
            "itself, give a folder in its layout"
        )
    return UsageError(
        f"{where} is of a {shown(model_type)} model, not a plain ViT that brdyn knows; in Python give its vision trunk "
        "to brdyn.adapt (docs: a model of your own)"
    )


def _configuration(config_class: Any, content: Mapping[str, Any], where: str) -> Any:
    from transformers import PreTrainedConfig

    everywhere = {field.name for field in fields(PreTrainedConfig)}
    values = {}
    for field in fields(config_class):
        if field.name in everywhere or ELSEWHERE.match(field.name) or field.name not in content:
            continue
        hint = field.type
        if field.name in RANGES:
            if content[field.name] is None:
                raise UsageError(f"{where}: {field.name} is null instead of a number")
            hint = Annotated[hint, RANGES[field.name]]
        values[field.name] = build(hint, content[field.name], where, field.name)
    _check_names(values, where)
    try:
        config = config_class(**values)
    except Exception as error:  # its own checks raise many kinds
        raise UsageError(f"{where} describes no model ({first_line(error)})") from error
    _check_sizes(config, where)
    config._attn_implementation = ATTENTION
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0
    return config


def _check_names(values: Mapping[str, Any], where: str) -> None:
    from transformers.activations import ACT2FN

    for name, choices in (("hidden_act", ACT2FN), ("norm_type", ("layer_norm", "rms_norm"))):
        if name in values and values[name] not in choices:
            raise UsageError(f"{where}: {name} is {shown(values[name])}, which is none that transformers has")


def _check_sizes(config: Any, where: str) -> None:
    for name in ("image_size", "patch_size"):
        size = getattr(config, name)
        if not isinstance(size, int) and len(size) != 2:
            raise UsageError(f"{where}: {name} has {len(size)} numbers instead of one or two")
    patch = config.patch_size
    if not isinstance(patch, int) and patch[0] != patch[1]:
        raise UsageError(f"{where}: patches of {patch[0]}x{patch[1]} pixels are not square, as brdyn needs them")
    if min(square(config.image_size)) < square(patch)[0]:
        raise UsageError(f"{where}: an image of {config.image_size} pixels is smaller than a patch of {patch}")
    if config.hidden_size % config.num_attention_heads:
        raise UsageError(
            f"{where}: width {config.hidden_size} cannot be split among {config.num_attention_heads} heads"
        )
    if config.num_channels not in CHANNELS:
        raise UsageError(
            f"{where}: it takes images of {config.num_channels} channels; brdyn's images have three colours or are grey"
        )


def square(size: Any) -> tuple[int, int]:
    """Height and width of an entry that may be one number."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def class_names(content: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The names of the classes in `id2label`, in order; none where they are only numbered.

    Raises
    ------
    UsageError
        If they are not one for each class from 0.
    """
    named = content.get("id2label")
    if named is None:
        return ()
    if not isinstance(named, Mapping) or not all(isinstance(name, str) for name in named.values()):
        raise UsageError(f"{where}: id2label is not a name for each class")
    wanted = [str(number) for number in range(len(named))]
    if set(named) != set(wanted):
        raise UsageError(f"{where}: id2label does not number the classes 0, 1, …")
    names = tuple(named[number] for number in wanted)
    return () if all(name == f"LABEL_{number}" for number, name in enumerate(names)) else names
