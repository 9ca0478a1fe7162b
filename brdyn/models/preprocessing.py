"""From a PIL image to the tensor a model was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from brdyn.arguments import checked

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@checked
@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop and normalise, in the vocabulary of timm's data configuration.

    Attributes
    ----------
    image_size : (int, int)
        Height and width of the result in pixels.
    crop_pct : float
        The image is resized to `image_size / crop_pct` before the crop.
    crop_mode : str
        ``center`` (short side resized, centre crop), ``squash`` (aspect ratio given up) or ``border``.
    interpolation : str
        PIL resampling filter.
    mean, std : tuple of float
        Per-channel normalisation of values in [0, 1].

    Examples
    --------
    >>> from PIL import Image
    >>> from brdyn.models import Preprocessing
    >>> Preprocessing((32, 48)).transform(Image.new("RGB", (100, 80))).shape
    torch.Size([3, 32, 48])
    """

    image_size: tuple[int, int]
    crop_pct: float = 0.875
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @cached_property
    def transform(self) -> Callable[[Any], Tensor]:
        """The torchvision transform, PIL image to `(3, H, W)`."""
        from timm.data import create_transform

        return create_transform(
            input_size=(3, *self.image_size),
            is_training=False,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
        )

    def at(self, size: tuple[int, int]) -> Preprocessing:
        """The same for another image size."""
        return replace(self, image_size=size)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)
