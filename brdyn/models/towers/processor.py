"""From a checkpoint's processor file to brdyn's preprocessing: what it says is done, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose
from typing import Annotated, Any

from brdyn.checked_json import Range, build, shown
from brdyn.choices import MOST_PIXELS
from brdyn.errors import UsageError
from brdyn.models.base import Size
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.towers.files import Source
from brdyn.models.towers.kinds import Kind

FILE, COMBINED, INNER = "preprocessor_config.json", "processor_config.json", "image_processor"
PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
NAMES = ("image_processor_type", "feature_extractor_type")
COLOURS = 3
BYTE = 255.0
Sides = dict[str, Any] | list[int] | int | None
Values = list[float] | float | None
HINTS: dict[str, Any] = {
    "do_resize": bool | None,
    "size": Sides,
    "resample": int | None,
    "do_center_crop": bool | None,
    "crop_size": Sides,
    "do_rescale": bool | None,
    "rescale_factor": Annotated[float | None, Range(1e-6, 1e6)],
    "do_normalize": bool | None,
    "image_mean": Values,
    "image_std": Annotated[Values, Range(1e-9, 1e6)],
    "do_flip_channel_order": bool | None,
    "crop_to_patches": bool | None,
}
NOT_DONE = {
    "do_flip_channel_order": "blue and red exchanged",
    "crop_to_patches": "images cut to several tiles",
}


@dataclass(frozen=True)
class Resized:
    """What an image is resized to: a height and a width, or (`square` false) its short side to both of them."""

    sides: Size
    square: bool


def read(source: Source, kind: Kind, size: Size) -> tuple[Preprocessing, tuple[str, ...]]:
    """How the images of a checkpoint are prepared, at a size, and what to note about it.

    Raises
    ------
    UsageError
        If its processor file has an entry of a wrong type or out of range, or asks for what brdyn does not do.
    """
    file = FILE
    settings = (source.optional(COMBINED) or {}).get(INNER)
    if settings is not None:
        file = COMBINED
    else:
        settings = source.optional(FILE)
    if settings is None:
        usual = Preprocessing(size, kind.crop_pct, mean=kind.mean, std=kind.std)
        return usual, (f"no {FILE}: images are prepared as {kind.model_class} was trained",)
    where = source.where(file)
    given = build({f"{name}?": hint for name, hint in HINTS.items()}, settings, where, more=True)
    named = next((settings[name] for name in NAMES if settings.get(name) is not None), kind.processor)
    found = _defaults(named, where) | {name: entry for name, entry in given.items() if entry is not None}
    for name, words in NOT_DONE.items():
        if found.get(name):
            raise UsageError(f"{where}: {name} asks for {words}, which brdyn does not do")
    mean, std = _normalisation(found, kind, where)
    crop_pct, crop_mode = _geometry(found, size, where)
    notes = () if found.get("do_resize", True) else (f"{where} does not resize; brdyn does, to {size[0]}x{size[1]}",)
    return (
        Preprocessing(
            image_size=size,
            crop_pct=crop_pct,
            crop_mode=crop_mode,
            interpolation=_filter(found.get("resample", 3), where),
            mean=mean,
            std=std,
        ),
        notes,
    )


def _defaults(named: Any, where: str) -> dict[str, Any]:
    """What a processor class of transformers does where the file says nothing."""
    import transformers

    name = str(named).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    processor = getattr(transformers, name, None) if name.endswith("ImageProcessor") else None
    if not isinstance(named, str) or not isinstance(processor, type):
        raise UsageError(f"{where} is of {shown(named)}, which is no image processor that transformers has")
    values = {name: getattr(processor, name, None) for name in (*HINTS, "default_to_square")}
    return {name: value for name, value in values.items() if value is not None}


def _filter(number: Any, where: str) -> str:
    if int(number) not in PIL_FILTERS:
        raise UsageError(f"{where}: resample is {number}, which is no filter of PIL (0 to {max(PIL_FILTERS)})")
    return PIL_FILTERS[int(number)]


def _normalisation(found: Mapping[str, Any], kind: Kind, where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation for values from 0 to 1, of what the file normalises at its own scale."""
    mean = _colours(found.get("image_mean", kind.mean), f"{where}: image_mean")
    std = _colours(found.get("image_std", kind.std), f"{where}: image_std")
    if not found.get("do_normalize", True):
        mean, std = (0.0,) * COLOURS, (1.0,) * COLOURS
    scale = BYTE * found.get("rescale_factor", 1 / BYTE) if found.get("do_rescale", True) else BYTE
    if isclose(scale, 1.0, rel_tol=1e-6):
        return mean, std
    return tuple(value / scale for value in mean), tuple(value / scale for value in std)


def _colours(values: Any, where: str) -> tuple[float, ...]:
    numbers = (float(values),) if isinstance(values, int | float) else tuple(float(value) for value in values)
    if len(numbers) not in (1, COLOURS):
        raise UsageError(f"{where} has {len(numbers)} numbers instead of {COLOURS}")
    return numbers * COLOURS if len(numbers) == 1 else numbers


def _geometry(found: Mapping[str, Any], size: Size, where: str) -> tuple[float, str]:
    """Crop fraction and mode of timm's vocabulary."""
    resized = _resized(found.get("size"), bool(found.get("default_to_square", True)), f"{where}: size") or Resized(
        size, square=True
    )
    mode = "squash" if resized.square else "center"
    if not found.get("do_center_crop", False):
        return 1.0, mode
    crop = _resized(found.get("crop_size"), square=True, where=f"{where}: crop_size") or Resized(size, square=True)
    fractions = [crop.sides[axis] / resized.sides[axis] for axis in (0, 1)]
    if max(fractions) > 1:
        raise UsageError(
            f"{where} crops {_by(crop.sides)} pixels of {_by(resized.sides)}, which pads; brdyn does not pad images"
        )
    if not isclose(*fractions, rel_tol=0.02):
        raise UsageError(
            f"{where} crops {_by(crop.sides)} pixels of {_by(resized.sides)}: brdyn crops both sides alike"
        )
    return fractions[0], mode


def _by(sides: Size) -> str:
    return f"{sides[0]}x{sides[1]}"


def _resized(entry: Any, square: bool, where: str) -> Resized | None:
    if entry is None:
        return None
    if isinstance(entry, int):
        return Resized(_pixels(entry, entry, where), square)
    if isinstance(entry, list | tuple):
        if len(entry) != 2:
            raise UsageError(f"{where} has {len(entry)} numbers instead of two")
        return Resized(_pixels(entry[0], entry[1], where), square=True)
    sides = {name: entry[name] for name in entry if entry[name] is not None}
    if set(sides) == {"height", "width"}:
        return Resized(_pixels(sides["height"], sides["width"], where), square=True)
    if set(sides) == {"shortest_edge"}:
        return Resized(_pixels(sides["shortest_edge"], sides["shortest_edge"], where), square=False)
    raise UsageError(
        f"{where} has {', '.join(map(shown, sides)) or 'nothing'}; brdyn resizes to a height and width, or to a "
        "shortest_edge"
    )


def _pixels(height: Any, width: Any, where: str) -> Size:
    for side in (height, width):
        if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= MOST_PIXELS:
            raise UsageError(f"{where} is {shown(side)} instead of 1 to {MOST_PIXELS} pixels")
    return height, width
