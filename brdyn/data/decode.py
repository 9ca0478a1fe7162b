"""From the bytes of any image file to an upright RGB picture."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

UPRIGHT = 1
TURNED = range(2, 9)  # the other orientations that EXIF has
ORIENTATION = "orientation"
"""In the `info` of a decoded picture: that of its file."""
WHITE = (255, 255, 255)
SIXTEEN_BIT_MAX = 65535
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA")
LARGEST_PIXELS = 2**27
LONGEST_RATIO = 100
"""A thinner picture, whose short side is scaled up to a model's, would become too long for any memory."""
STRIP_PIXELS = 2**20
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
JXL_STARTS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")


def decode(data: bytes) -> Image.Image:
    """Decode an image file to RGB.

    Only raster formats are opened (`FORMATS`, and HEIC where pillow-heif is installed), whatever a file is called. The
    EXIF rotation is applied and noted (`info["orientation"]`), transparency is laid on white, grey, palette, CMYK and
    16-bit images are converted, and of an animation or a multi-page file the first frame is taken. Integer pixels
    beyond 8 bits are scaled from 0..65535; float pixels from 0..1, or from their own range where they exceed it.

    Raises
    ------
    OSError
        If it is of another format, or is said to have more than `LARGEST_PIXELS` pixels or one side more than
        `LONGEST_RATIO` times the other; it is then not decoded.
    Exception
        Whatever Pillow raises on a file that it cannot read in full.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image: Image.Image = Image.open(io.BytesIO(data), formats=formats())
        except UnidentifiedImageError:
            raise OSError(_why_not(data)) from None
        except Image.DecompressionBombError:
            raise OSError(f"it is said to have {_too_many()}") from None
        check_shape(*image.size)
        image.load()
        upright = to_rgb(ImageOps.exif_transpose(image))
        upright.info[ORIENTATION] = orientation(image)
        return upright


def orientation(image: Image.Image) -> int:
    """How a loaded picture says by EXIF that it is to be turned, from 1 (not at all, or nothing known) to 8."""
    said = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    return int(said) if said in TURNED else UPRIGHT


@cache
def formats() -> tuple[str, ...]:
    """What is opened here."""
    if find_spec("pillow_heif") is None:
        return FORMATS
    import pillow_heif

    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def check_least(image: Image.Image, patch: int) -> None:
    """Refuse an image that has a side smaller than a patch.

    Raises
    ------
    ValueError
        With its size.
    """
    if min(image.size) < patch:
        raise ValueError(f"{image.width}x{image.height} pixels are smaller than one {patch}-pixel patch")


def check_shape(width: int, height: int) -> None:
    """Raise an `OSError` for a picture too large or too thin to be decoded."""
    if width * height > LARGEST_PIXELS:
        raise OSError(f"{width}x{height} pixels are {_too_many()}")
    if max(width, height) > LONGEST_RATIO * min(width, height):
        raise OSError(f"{width}x{height} pixels: one side is over {LONGEST_RATIO} times the other")


def _too_many() -> str:
    return f"more than the {LARGEST_PIXELS / 1e6:.0f} million that are decoded"


def _why_not(data: bytes) -> str:
    """Why a file is of none of the formats."""
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        return "HEIC, for which no decoder is installed: pip install pillow-heif, or convert it to JPEG"
    if data[4:8] == b"ftyp" and data[8:12] in AVIF_BRANDS:
        return "AVIF, for which this Pillow has no decoder: upgrade Pillow, or convert it to JPEG"
    if data.startswith(JXL_STARTS):
        return "JPEG XL, which is not read: convert it to JPEG or PNG"
    return "cannot identify it as an image (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, JPEG 2000, AVIF or TGA)"


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded picture of any mode to RGB."""
    if image.mode.startswith(("I", "F")):
        return _from_deep(image)
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        background = Image.new("RGB", image.size, WHITE)
        background.paste(image, mask=image.getchannel("A"))
        return background
    return image.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """A strip at a time: as float64 the whole takes eight times the memory."""
    low, high = _range(image)
    if image.mode == "F":
        low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    elif low >= 0 and high <= SIXTEEN_BIT_MAX:
        low, high = 0.0, float(SIXTEEN_BIT_MAX)
    grey = np.zeros((image.height, image.width), dtype=np.uint8)
    for top, pixels in _strips(image):
        if high > low:
            grey[top : top + len(pixels)] = ((pixels - low) / (high - low) * 255).round()
    return Image.fromarray(grey).convert("RGB")


def _range(image: Image.Image) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for _, pixels in _strips(image):
        if not np.isfinite(pixels).all():
            raise ValueError("pixels are not finite")
        low, high = min(low, float(pixels.min())), max(high, float(pixels.max()))
    return low, high


def _strips(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(image.height, top + rows))
        yield top, np.asarray(image.crop(box)).astype(np.float64)
