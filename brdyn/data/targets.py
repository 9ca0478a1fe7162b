"""What dense probes are to read: masks of classes and maps of depth, from any encoded picture to an array.

Nothing is guessed. Which number is void comes from the option or from the file's own metadata, and so does
the unit of a
depth; where it is missing and the values say that it is needed, that is asked for. Inside, a void pixel is
`VOID`, and a
pixel without depth is 0; depths are metres.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageOps

from brdyn import checked_json
from brdyn.arguments import checked
from brdyn.data.decode import ORIENTATION, UPRIGHT, check_shape, formats, orientation
from brdyn.errors import UsageError

MASK, DEPTH = "mask", "depth"
VOID = -1
USUAL_VOID = 255
EIGEN = (slice(45, 471), slice(41, 601))  # rows and columns of the crop of Eigen et al. (2014)
EIGEN_SIZE = (640, 480)
UNITS = {"m": 1.0, "cm": 100.0, "mm": 1000.0}
LEAST_DEPTH, MOST_DEPTH = 1e-3, 10.0  # metres, of the published bins
MOST_CLASSES = 4096
SIDEWAYS = range(5, 9)  # orientations of EXIF that exchange width and height
PLAIN = ("1", "L", "P", "I", "F")
COLOURS_SHOWN = 3


@checked
@dataclass(frozen=True)
class MaskTargets:
    """How masks are read.

    Attributes
    ----------
    names : tuple of str or None
        Of the classes, by number.
    ignore : int or None
        The number of void pixels.
    classes : int or None
        How many there can be; None to take what the masks hold.
    palette : tuple of (int, int, int)
        The colour of each class, of masks in colour.

    Examples
    --------
    >>> from brdyn.data import MaskTargets
    >>> MaskTargets(names=("sky", "road", "void"), ignore=2).classes
    3
    """

    names: tuple[str, ...] | None = None
    ignore: int | None = None
    classes: int | None = None
    palette: tuple[tuple[int, int, int], ...] = ()
    kind: str = field(default=MASK, init=False)

    def __post_init__(self) -> None:
        counts = {len(one) for one in (self.names, self.palette or None) if one is not None}
        if self.classes is not None:
            counts.add(self.classes)
        if len(counts) > 1:
            raise UsageError(
                f"{' and '.join(map(str, sorted(counts)))} classes are said; let `classes`, the palette and the "
                "file's own names agree"
            )
        if counts:
            object.__setattr__(self, "classes", counts.pop())

    def completed(self, metadata: Mapping[str, Any], where: str) -> MaskTargets:
        """With what the file says of itself, where nothing was asked for."""
        names, ignore = self.names, self.ignore
        if names is None and "classes" in metadata and self.classes is None:
            names = tuple(map(str, _said(metadata, "classes", [str], where)))
        if ignore is None and "ignore_index" in metadata:
            ignore = int(_said(metadata, "ignore_index", int, where))
        return replace(self, names=names, ignore=ignore)

    def read(self, data: bytes, size: tuple[int, int], name: str) -> np.ndarray:
        """Class numbers `(H, W)`, int16; `VOID` where there is none.

        Raises
        ------
        UsageError
            If it is in colour and no palette is given, of another size than its image, or holds a class that there
            cannot be.
        """
        image = open_target(data)
        check_size(image, size, name)
        mask = self._numbers(image, name).astype(np.int64)
        void = np.zeros(mask.shape, bool) if self.ignore is None else mask == self.ignore
        there = mask[~void]
        least, most = int(there.min(initial=0)), int(there.max(initial=0))
        if self.classes is None and self.ignore is None and most == USUAL_VOID:
            raise UsageError(
                f"{name!r}: its mask holds {USUAL_VOID}, which mostly means void; say so by "
                f"`ignore_index={USUAL_VOID}`, "
                f"or that it is a class by `classes={USUAL_VOID + 1}`"
            )
        limit = MOST_CLASSES if self.classes is None else self.classes
        if most >= limit or least < 0:
            wrong = most if most >= limit else least
            raise UsageError(
                f"{name!r}: its mask holds {wrong}, and the classes are 0 to {limit - 1}; give `classes`, or "
                f"`ignore_index={wrong}` if that is void"
            )
        return np.where(void, VOID, mask).astype(np.int16)

    def _numbers(self, image: Image.Image, name: str) -> np.ndarray:
        if self.palette:
            return from_colours(image, self.palette, name)
        if image.mode not in PLAIN and not image.mode.startswith("I;16"):
            colours = image.convert("RGB").getcolors(1 << 24) or []
            most = sorted(colours, reverse=True)[:COLOURS_SHOWN]
            shown = ", ".join(str(list(cast(Any, colour))) for _, colour in most)
            raise UsageError(
                f"{name!r}: its mask is in colour ({image.mode}; most often {shown}), and which colour is "
                f"which class is "
                "needed: give `palette`, a JSON file of [red, green, blue] by class"
            )
        return np.asarray(image)


@checked
@dataclass(frozen=True)
class DepthTargets:
    """How maps of depth are read.

    Attributes
    ----------
    per_metre : float or None
        Of the numbers in the file: 1000 for millimetres; None to take what its metadata says.
    most : float
        Metres; what is deeper counts as not measured.
    eigen_crop : bool
        Only what is inside the crop of Eigen et al. (2014) counts as measured, of maps of 640 x 480 (NYUv2).

    Examples
    --------
    >>> from brdyn.data import DepthTargets
    >>> DepthTargets.of("mm").per_metre, DepthTargets.of("25.5").per_metre
    (1000.0, 25.5)
    """

    per_metre: float | None = None
    most: float = MOST_DEPTH
    eigen_crop: bool = False
    kind: str = field(default=DEPTH, init=False)

    @classmethod
    def of(cls, unit: str | None, most: float = MOST_DEPTH) -> DepthTargets:
        """From a unit, or how many of the numbers make a metre."""
        if not LEAST_DEPTH < most < float("inf"):
            raise UsageError(f"`max_depth={most}` is not a number of metres above {LEAST_DEPTH}")
        return cls(None if unit is None else in_metres(unit), most)

    def completed(self, metadata: Mapping[str, Any], where: str) -> DepthTargets:
        """With the unit that the file says, where none was asked for."""
        if self.per_metre is None and "depth_unit" in metadata:
            said = _said(metadata, "depth_unit", (str, int, float), where)
            return replace(self, per_metre=in_metres(str(said)))
        return self

    def read(self, data: bytes, size: tuple[int, int], name: str) -> np.ndarray:
        """Metres `(H, W)`, float32; 0 where nothing was measured, or beyond `most`.

        Raises
        ------
        UsageError
            If it is in colour, or of another size than its image or its crop.
        """
        assert self.per_metre is not None
        metres = numbers_of_depth(data, size, name) / np.float32(self.per_metre)
        found = np.where((metres >= LEAST_DEPTH) & (metres <= self.most), metres, np.float32(0))
        if not self.eigen_crop:
            return found
        self.check_crop(size, name)
        inside = np.zeros_like(found)
        inside[EIGEN] = found[EIGEN]
        return inside

    def check_crop(self, size: tuple[int, int], name: str) -> None:
        """Refuse a map of another size, `(width, height)`, than that which the crop is of."""
        if self.eigen_crop and size != EIGEN_SIZE:
            raise UsageError(
                f"{name!r} is {size[0]} x {size[1]}, and the Eigen crop is of maps of 640 x 480; drop `eigen_crop`"
            )

    def check(self, seen: Sequence[np.ndarray], where: str) -> None:
        """Refuse a unit that is missing, or that the first maps contradict.

        Parameters
        ----------
        seen : sequence of ndarray
            Numbers as they are stored.
        """
        there = np.concatenate([one[one > 0].ravel() for one in seen]) if seen else np.zeros(0)
        if not len(there):
            raise UsageError(f"the depth maps of {where} hold no depth: all of the first {len(seen)} are 0")
        middle, largest = float(np.median(there)), float(there.max())
        likely = next((unit for unit, count in UNITS.items() if 0.3 <= middle / count <= 10), None)
        advice = f"as {likely} would: give `depth_unit={likely}`" if likely else "give `depth_unit`"
        if self.per_metre is None:
            raise UsageError(
                f"the depth maps of {where} have no unit in their metadata; their values reach {largest:g} (median "
                f"{middle:g}), {advice}" + (" if it is that" if likely else ", as m, mm or how many make a metre")
            )
        if not 0.01 * self.most <= middle / self.per_metre <= self.most:
            said = f"{advice}, or another `max_depth`"
            if likely and UNITS[likely] == self.per_metre:
                said = "give another `max_depth`"
            raise UsageError(
                f"the depth maps of {where} would have a median of {middle / self.per_metre:g} m ({middle:g} at "
                f"{self.per_metre:g} a metre), outside {0.01 * self.most:g} to {self.most:g} m; {said}"
            )


Targets = MaskTargets | DepthTargets


def in_metres(unit: str) -> float:
    """How many of a unit make a metre: `mm` is 1000, and so is `1000`."""
    if unit in UNITS:
        return UNITS[unit]
    try:
        count = float(unit)
    except ValueError:
        count = float("nan")
    if not 0 < count < float("inf"):
        raise UsageError(f"`depth_unit={unit}` is none of {', '.join(UNITS)}, nor how many make a metre, as 1000")
    return count


def open_target(data: bytes) -> Image.Image:
    """An upright picture whose numbers are kept as they are."""
    image = Image.open(io.BytesIO(data), formats=formats())
    check_shape(*image.size)
    image.load()
    return ImageOps.exif_transpose(image)


def check_turned(image: Image.Image, target: bytes, name: str) -> None:
    """Refuse a decoded image that EXIF turns beside a target of which cannot be told whether it is upright already.

    Raises
    ------
    UsageError
        If the target's EXIF says nothing, and its size neither.
    """
    turned = image.info[ORIENTATION]
    sizes_tell = turned in SIDEWAYS and image.width != image.height
    if turned == UPRIGHT or sizes_tell:
        return
    with Image.open(io.BytesIO(target), formats=formats()) as picture:
        if orientation(picture) == UPRIGHT:
            raise UsageError(
                f"{name!r} is turned by its EXIF orientation ({turned}) and its target has none, so that they may not "
                "lie on each other; save the image as it lies on its target, without EXIF"
            )


def check_size(image: Image.Image, size: tuple[int, int], name: str) -> None:
    """Refuse a target of another size than its image, `(width, height)`."""
    if image.size != size:
        raise UsageError(
            f"{name!r} has {size[0]}x{size[1]} pixels and its target {image.size[0]}x{image.size[1]}; give "
            f"pairs of one "
            "size"
        )


def numbers_of_depth(data: bytes, size: tuple[int, int], name: str) -> np.ndarray:
    """The numbers of a map of depth as they are stored, float32; 0 where there is none."""
    image = open_target(data)
    check_size(image, size, name)
    if image.mode not in ("L", "I", "F") and not image.mode.startswith("I;16"):
        raise UsageError(
            f"{name!r}: its depth is a picture in {image.mode}, and not one number a pixel; give 8 or "
            f"16-bit grey PNG, or "
            "float TIFF"
        )
    values = np.asarray(image).astype(np.float32)
    return np.where(np.isfinite(values) & (values > 0), values, np.float32(0))


def from_colours(image: Image.Image, palette: Sequence[tuple[int, int, int]], name: str) -> np.ndarray:
    """Class numbers of a mask in colour."""
    codes = _codes(np.asarray(image.convert("RGB")))
    known = _codes(np.array(palette))
    order = known.argsort()
    places = np.searchsorted(known[order], codes).clip(0, len(known) - 1)
    numbers = order[places]
    strange = codes[known[numbers] != codes]
    if len(strange):
        colour = [int(strange[0]) >> 16, int(strange[0]) >> 8 & 255, int(strange[0]) & 255]
        raise UsageError(f"{name!r}: its mask holds the colour {colour}, which is not in the palette")
    return numbers


def _codes(colours: np.ndarray) -> np.ndarray:
    return colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])


@checked
def read_palette(path: str | Path) -> tuple[tuple[int, int, int], ...]:
    """The colours of classes from a JSON file: a list of [red, green, blue].

    Raises
    ------
    UsageError
        If it is not that.

    Examples
    --------
    >>> from pathlib import Path
    >>> from brdyn.data import read_palette
    >>> _ = Path("palette.json").write_text("[[128, 64, 128], [0, 0, 0]]")
    >>> read_palette("palette.json")
    ((128, 64, 128), (0, 0, 0))
    """
    try:
        found = checked_json.read(checked_json.expanded(path))
        checked_json.take(found, [[int]])
    except ValueError as error:
        raise UsageError(f"the palette {str(path)!r} is no list of [red, green, blue] ({error})") from error
    if not found or any(len(one) != 3 or not all(0 <= part <= 255 for part in one) for one in found):
        raise UsageError(f"the palette {str(path)!r} is no list of [red, green, blue], each from 0 to 255")
    if len({tuple(one) for one in found}) < len(found):
        raise UsageError(f"the palette {str(path)!r} has one colour for two classes")
    return tuple((one[0], one[1], one[2]) for one in found)


def _said(metadata: Mapping[str, Any], name: str, shape: Any, where: str) -> Any:
    """A value that a file's metadata holds as JSON."""
    try:
        found = checked_json.parse(str(metadata[name]).encode())
    except checked_json.JsonError:
        found = str(metadata[name])
    try:
        checked_json.take(found, shape)
    except ValueError as error:
        raise UsageError(
            f"{where} says {name} of itself as {metadata[name]!r}, which it cannot be ({error})"
        ) from error
    return found
