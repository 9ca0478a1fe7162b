"""Crops, flips and colours of training images, done to an image and to its mask or depth alike."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

INTERPOLATION = "bicubic"


@dataclass(frozen=True)
class Augmentation:
    """What published recipes do to training images: a crop of random size, a flip, and for depth the colours.

    Attributes
    ----------
    scale : (float, float)
        Of the area of the crop.
    jitter : bool
    seed, visit : int
        The same seed, visit and image give the same crop.

    Examples
    --------
    >>> from brdyn.data.augment import Augmentation
    >>> Augmentation().scale
    (0.5, 1.0)
    """

    scale: tuple[float, float] = (0.5, 1.0)
    jitter: bool = False
    seed: int = 0
    visit: int = 0

    def number(self, image: int) -> int:
        """That chance begins from at an image, by its index."""
        text = f"{self.seed}/{self.visit}/{image}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


@dataclass(frozen=True)
class PairTransform:
    """Turns an image, and its target alike: to the model's size, or to a random crop of it.

    Attributes
    ----------
    size : (int, int)
        Height and width of the result.
    mean, std : tuple of float
    augmentation : Augmentation or None

    Examples
    --------
    >>> from PIL import Image
    >>> from brdyn.data.augment import PairTransform
    >>> turn = PairTransform((2, 4), (0.5,) * 3, (0.5,) * 3)
    >>> image, mask = turn(Image.new("RGB", (8, 4)), np.arange(32, dtype=np.int16).reshape(4, 8), 0)
    >>> image.shape, mask.tolist()
    (torch.Size([3, 2, 4]), [[9, 11, 13, 15], [25, 27, 29, 31]])
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation | None = None

    def __call__(self, image: Image.Image, target: np.ndarray | None, position: int) -> tuple[Tensor, Tensor | None]:
        """The normalised image `(3, H, W)` and the target `(H, W)`, where there is one."""
        from torchvision import tv_tensors
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional

        pair: Any = (tv_tensors.Image(image),)
        if target is not None:
            pair = (*pair, tv_tensors.Mask(torch.from_numpy(target)))
        if self.augmentation is not None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(self.augmentation.number(position))
                pair = self._augmented(pair, self.augmentation)
        size = list(self.size)
        pixels = functional.resize(pair[0].as_subclass(Tensor), size, InterpolationMode(INTERPOLATION), antialias=True)
        pixels = functional.to_dtype(pixels, torch.float32, scale=True)
        normalised = functional.normalize(pixels, list(self.mean), list(self.std))
        if target is None:
            return normalised, None
        # As a mask it would be taken at the corner of each new pixel, half a pixel beside the image.
        other = pair[1].as_subclass(Tensor)[None]
        return normalised, functional.resize(other, size, InterpolationMode.NEAREST_EXACT)[0]

    def to_dict(self) -> dict[str, Any]:
        """What is done, in the words of :meth:`brdyn.models.Preprocessing.to_dict`."""
        whole = {"crop_pct": 1.0, "crop_mode": "squash"}
        crops = whole if self.augmentation is None else {"augmentation": asdict(self.augmentation)}
        values = {"image_size": self.size, "interpolation": INTERPOLATION, "mean": self.mean, "std": self.std}
        return values | crops

    def _augmented(self, pair: Any, how: Augmentation) -> Any:
        """A part of all, perhaps flipped; it is brought to size with all others."""
        from torchvision.transforms import v2

        ratio = self.size[1] / self.size[0]
        crop = v2.RandomResizedCrop(self.size, scale=how.scale, ratio=(0.75 * ratio, ratio / 0.75))
        at = crop.make_params([pair[0]])
        pair = tuple(v2.functional.crop(part, **at) for part in pair)
        flip: Any = v2.RandomHorizontalFlip()
        changes = [flip, v2.ColorJitter(0.4, 0.4, 0.4, 0.1)] if how.jitter else [flip]
        for change in changes:
            turned = change(*pair)  # of one alone torchvision makes no tuple
            pair = turned if len(pair) > 1 else (turned,)
        return pair
