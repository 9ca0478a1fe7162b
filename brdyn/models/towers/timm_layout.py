"""Folders and hub ids in timm's layout: a config.json that names an architecture of timm, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import timm

from brdyn.blank import on_meta
from brdyn.checked_json import Range, build, shown
from brdyn.choices import MOST_LAYERS, MOST_PIXELS
from brdyn.errors import BrdynError, UsageError
from brdyn.models import timm_family
from brdyn.models.base import VisionTransformer
from brdyn.models.checkpoints import count_numbers
from brdyn.models.request import ModelRequest
from brdyn.models.towers.config import MOST_CLASSES
from brdyn.models.towers.files import CONFIG, PICKLED, WEIGHTS, Source

Pixels = Annotated[int, Range(1, MOST_PIXELS)]
Chance = Annotated[float | None, Range(0, 1)]
ARGUMENTS: dict[str, Any] = {
    "in_chans?": Annotated[int, Range(1, 1_000)],
    "num_classes?": Annotated[int, Range(0, MOST_CLASSES)],
    "img_size?": Annotated[int | list[int], Range(1, MOST_PIXELS)],
    "patch_size?": Annotated[int | list[int], Range(1, MOST_PIXELS)],
    "embed_dim?": Annotated[int, Range(1, 65_536)],
    "depth?": Annotated[int, Range(1, MOST_LAYERS)],
    "num_heads?": Annotated[int, Range(1, 4_096)],
    "mlp_ratio?": Annotated[float, Range(0.01, 1_000)],
    "init_values?": Annotated[float | None, Range(0, 1_000)],
    "reg_tokens?": Annotated[int, Range(0, 10_000)],
    "global_pool?": str,
    "class_token?": bool,
    "no_embed_class?": bool,
    "pos_embed?": str,
    "qkv_bias?": bool,
    "qk_norm?": bool,
    "pre_norm?": bool,
    "final_norm?": bool,
    "fc_norm?": bool | None,
    "dynamic_img_size?": bool,
    "drop_rate?": Chance,
    "drop_path_rate?": Chance,
    "proj_drop_rate?": Chance,
    "attn_drop_rate?": Chance,
}
"""What a config may change in an architecture."""
COLOURS = 3
MODES = ("center", "squash", "border")
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """How images were prepared: timm's data configuration, where the config has it."""

    input_size: tuple[Pixels, Pixels, Pixels] | None = None
    mean: tuple[float, float, float] | None = None
    std: Annotated[tuple[float, float, float] | None, Range(1e-9, 1e6)] = None
    crop_pct: Annotated[float | None, Range(0.01, 1)] = None
    crop_mode: str | None = None
    interpolation: str | None = None

    def __post_init__(self) -> None:
        """Refuse what brdyn does not do."""
        for name, choices in (("crop_mode", MODES), ("interpolation", FILTERS)):
            if getattr(self, name) not in (None, *choices):
                raise UsageError(f"{name} is {shown(getattr(self, name))}; brdyn has {', '.join(choices)}")
        if self.input_size is not None:
            _check_channels(self.input_size[0])


def _check_channels(channels: int) -> None:
    if channels != COLOURS:
        raise UsageError(f"its images have {channels} channels; brdyn's have three colours")


def is_layout(content: Mapping[str, Any]) -> bool:
    """Whether a config.json is in timm's layout."""
    return isinstance(content.get("architecture"), str)


def load(request: ModelRequest, source: Source, content: Mapping[str, Any]) -> VisionTransformer:
    """Load it through timm, with the preprocessing it was trained with.

    Raises
    ------
    UsageError
        If the architecture is none of timm's plain ViTs, or an entry of the config is of a wrong type or out of range.
    BrdynError
        If the weights are not there or do not fit.
    """
    where = source.where(CONFIG)
    architecture = timm_family.architecture(content["architecture"])
    if not timm.is_model(architecture):
        raise UsageError(f"{where} names {shown(architecture)}, which is no architecture of timm {timm.__version__}")
    preset, told = content, ""  # in older configs all is in one object
    if content.get("pretrained_cfg") is not None:
        preset, told = content["pretrained_cfg"], "pretrained_cfg"
    prepared = build(Prepared, preset, where, told, more=True)
    arguments = build(ARGUMENTS, content.get("model_args") or {}, where, "model_args")
    _check_channels(arguments.pop("in_chans", COLOURS))
    arguments.pop("num_classes", None)  # the head in the file says
    if prepared.input_size is not None:
        arguments.setdefault("img_size", prepared.input_size[1:])
    weights = _weights(source) if request.needs_weights else None
    _check_size(request, architecture, arguments, weights, where)
    asked = replace(
        request,
        name=architecture,
        weights=weights,
        arguments=tuple({**arguments, **dict(request.arguments)}.items()),
    )
    model = timm_family.load(asked)
    place = f"folder {source.place}" if source.folder else f"timm hub: {source.place}"
    if weights is not None:
        model.info = replace(model.info, weights=place)
    model.info = replace(model.info, name=request.name, notes=(*model.info.notes, f"timm's {architecture}"))
    chosen = {name: value for name, value in vars(prepared).items() if value is not None and name != "input_size"}
    model.preprocessing = replace(model.preprocessing, **chosen)
    names = content.get("label_names", content.get("labels"))
    if isinstance(names, list) and len(names) == model.classes and all(isinstance(name, str) for name in names):
        model.class_names = tuple(names)
    return model


def _weights(source: Source) -> Any:
    for name in (WEIGHTS, PICKLED):
        path = source.find(name)
        if path is not None:
            return path
    raise source.none()


def _check_size(
    request: ModelRequest, architecture: str, arguments: Mapping[str, Any], weights: Any, where: str
) -> None:
    """Refuse an architecture that takes more than its weights do, before it is built."""
    if weights is None or weights.suffix != ".safetensors" or architecture not in timm_family.names():
        return
    try:
        with on_meta():
            model = timm.create_model(architecture, pretrained=False, num_classes=0, **arguments)
    except Exception as error:  # arguments of one architecture can break another anywhere
        raise UsageError(f"{where} describes no {architecture} ({error})") from error
    described = sum(value.numel() for name, value in model.named_parameters() if name.startswith("blocks."))
    held = count_numbers(weights)
    if described > held:
        raise BrdynError(
            f"the weights of {request.name!r} hold {held:,} numbers, and {where} describes {described:,} in the blocks "
            f"of {architecture}; check its architecture"
        )
