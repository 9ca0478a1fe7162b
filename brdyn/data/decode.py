"""From the bytes of any image file to an upright RGB picture."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

WHITE = (255, 255, 255)
SIXTEEN_BIT_MAX = 65535


def decode(data: bytes) -> Image.Image:
    """Decode an image file to RGB.

    The EXIF rotation is applied, transparency is laid on white, grey, palette, CMYK and 16-bit images are
    converted, and of an animation or a multi-page file the first frame is taken. Integer pixels beyond
    8 bits are scaled from 0..65535; float pixels from 0..1, or from their own range where they exceed it.

    Raises
    ------
    Exception
        Whatever Pillow raises on a file that it cannot read in full.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image: Image.Image = Image.open(io.BytesIO(data))
        image.load()
        return to_rgb(ImageOps.exif_transpose(image))


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
    pixels = np.asarray(image).astype(np.float64)
    if not np.isfinite(pixels).all():
        raise ValueError("pixels are not finite")
    low, high = float(pixels.min()), float(pixels.max())
    if image.mode == "F":
        low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    elif low >= 0 and high <= SIXTEEN_BIT_MAX:
        low, high = 0.0, float(SIXTEEN_BIT_MAX)
    scaled = (pixels - low) / (high - low) * 255 if high > low else np.zeros_like(pixels)
    return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")
