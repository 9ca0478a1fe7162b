"""Images with a mask or a map of depth each: read together, and turned by one geometric transform."""

from __future__ import annotations

import hashlib
from copy import copy
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from brdyn.data.decode import check_least, decode
from brdyn.data.find import find_source
from brdyn.data.image_set import ImageSet
from brdyn.data.items import Item
from brdyn.data.loading import in_words, is_of_the_file
from brdyn.data.sources import ImageSource, Skipped
from brdyn.data.targets import DEPTH, DepthTargets, MaskTargets, Targets, numbers_of_depth
from brdyn.errors import BrdynError, UsageError

LOOKED_AT = 8
"""Targets that are read before anything is run, to find what is wrong with all of them."""


@dataclass(frozen=True)
class Augmentation:
    """What the published recipes do to training images: a crop of random size, a flip, and for depth the colours.

    Attributes
    ----------
    scale : (float, float)
        Of the area of the crop.
    jitter : bool
    seed : int
        The same seed and position give the same crop.

    Examples
    --------
    >>> from brdyn.data.dense import Augmentation
    >>> Augmentation().scale
    (0.5, 1.0)
    """

    scale: tuple[float, float] = (0.5, 1.0)
    jitter: bool = False
    seed: int = 0


@dataclass(frozen=True)
class PairTransform:
    """Turns an image and its target alike: to the model's size, or to a random crop of it.

    Attributes
    ----------
    size : (int, int)
        Height and width of the result.
    mean, std : tuple of float
    augmentation : Augmentation or None

    Examples
    --------
    >>> from PIL import Image
    >>> from brdyn.data.dense import PairTransform
    >>> turn = PairTransform((2, 4), (0.5,) * 3, (0.5,) * 3)
    >>> image, mask = turn(Image.new("RGB", (8, 4)), np.arange(32, dtype=np.int16).reshape(4, 8), 0)
    >>> image.shape, mask.tolist()
    (torch.Size([3, 2, 4]), [[9, 11, 13, 15], [25, 27, 29, 31]])
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation | None = None

    def __call__(self, image: Image.Image, target: np.ndarray, position: int) -> tuple[Tensor, Tensor]:
        """The normalised image `(3, H, W)` and the target `(H, W)`."""
        from torchvision import tv_tensors
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional

        pair: Any = (tv_tensors.Image(image), tv_tensors.Mask(torch.from_numpy(target)))
        if self.augmentation is not None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(_mixed(self.augmentation.seed, position))
                pair = self._augmented(pair, self.augmentation)
        size = list(self.size)
        pixels = functional.resize(
            pair[0].as_subclass(Tensor), size, InterpolationMode.BICUBIC, antialias=True
        )
        pixels = functional.to_dtype(pixels, torch.float32, scale=True)
        # As a mask it would be taken at the corner of each new pixel, half a pixel beside the image.
        turned = functional.resize(pair[1].as_subclass(Tensor)[None], size, InterpolationMode.NEAREST_EXACT)[
            0
        ]
        return functional.normalize(pixels, list(self.mean), list(self.std)), turned

    def _augmented(self, pair: Any, how: Augmentation) -> Any:
        """A part of both, perhaps flipped; it is brought to size with all others."""
        from torchvision.transforms import v2

        ratio = self.size[1] / self.size[0]
        crop = v2.RandomResizedCrop(self.size, scale=how.scale, ratio=(0.75 * ratio, ratio / 0.75))
        at = crop.make_params([pair[0]])
        pair = tuple(v2.functional.crop(part, **at) for part in pair)
        pair = v2.RandomHorizontalFlip()(*pair)
        return v2.ColorJitter(0.4, 0.4, 0.4, 0.1)(*pair) if how.jitter else pair


def _mixed(seed: int, position: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{position}".encode()).digest()[:7], "big")


class _PairDecoder(Dataset[Item | Skipped]):
    """What runs in the loader processes."""

    def __init__(self, images: DenseSet, source: ImageSource) -> None:
        self.source, self.chosen, self.smallest = source, images.chosen, images.smallest
        self.targets, self.turn = images.targets, images.turn

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, position: int) -> Item | Skipped:
        index = int(self.chosen[position])
        name = self.source.name(index)
        try:
            raw = self.source.read(index)
            name = raw.name
            image = decode(raw.data)
            check_least(image, self.smallest)
            target = self.targets.read(raw.target or b"", image.size, name)
            pixels, turned = self.turn(image, target, index)
            digest = int.from_bytes(hashlib.sha256(raw.data + (raw.target or b"")).digest(), "big")
            return Item(position, pixels, raw.label, digest, None, turned)
        except BrdynError:
            raise
        except Exception as error:
            if not is_of_the_file(error):
                raise BrdynError(
                    f"cannot read {name!r}: {in_words(error)}; use fewer `workers` or a smaller `batch_size`"
                ) from error
            return Skipped(name, in_words(error))


class DenseSet(ImageSet):
    """Images with a mask or a map of depth each.

    Attributes
    ----------
    targets : MaskTargets or DepthTargets
        How those are read.
    turn : PairTransform
        What is done to both.

    Examples
    --------
    >>> from brdyn.data import load_dense
    >>> pairs = load_dense("streets", model, "segmentation")
    >>> batch = next(pairs.batches(2))
    >>> batch.images.shape, batch.targets.shape, batch.targets.unique().tolist()
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 32, 32]), [0, 1])
    """

    targets: Targets
    turn: PairTransform

    def reader(self, source: ImageSource | None = None) -> Dataset[Item | Skipped]:
        """What loader processes run: decodes the pair at a position, from the source or a copy of it."""
        return _PairDecoder(self, source or self.source)

    def in_memory(self) -> DenseSet:
        """The same images, encoded in memory where that is needed to read them in any order."""
        other = copy(self)
        other.source = self.source.at_random(self.chosen)
        return other

    def augmented(self, how: Augmentation) -> DenseSet:
        """The same images, each by a crop and flip of its own."""
        other = copy(self)
        other.turn, other.memory = replace(self.turn, augmentation=how), None
        return other

    def pixels(self, position: int) -> np.ndarray:
        """An image as it is seen by the model, `(H, W, 3)`, uint8."""
        batch = next(self.take(np.array([position])).batches(1, workers=0))
        mean, std = (torch.tensor(one)[:, None, None] for one in (self.turn.mean, self.turn.std))
        found = (batch.images[0].float() * std + mean).clamp(0, 1) * 255
        return found.round().to(torch.uint8).permute(1, 2, 0).numpy()


def load_dense(
    images: str | Path,
    model: Any,
    task: str,
    *,
    targets: Targets | None = None,
    n: int | None = None,
    seed: int = 0,
    split: str | None = None,
    strict: bool = False,
    image_column: str | None = None,
    target_column: str | None = None,
) -> DenseSet:
    """Find images with masks or maps of depth, and prepare both for a model.

    Parameters
    ----------
    images : str or path
        A parquet file, a hub data set or a folder; see :mod:`brdyn.data.pairs` for the layouts of folders.
    model : VisionTransformer
    task : {"segmentation", "depth"}
    targets : MaskTargets or DepthTargets, optional
        How the targets are read; what it leaves open is taken from the file's metadata, and else asked for.
    n, seed, split, strict, image_column
        As of :func:`brdyn.load_images`.
    target_column : str, optional
        Of masks or depth.

    Returns
    -------
    DenseSet

    Raises
    ------
    UsageError
        If there are no such pairs, or the first of them cannot be read as asked: masks in colour without a palette,
        depth without a unit, or in another one than was said.

    Examples
    --------
    >>> from brdyn.data import load_dense
    >>> pairs = load_dense("streets", model, "segmentation", n=2)
    >>> len(pairs), pairs.targets.ignore
    (2, None)
    """
    how: Targets = targets or (DepthTargets() if task == DEPTH else MaskTargets())
    source = find_source(
        images, split, image_column=image_column, target=how.kind, target_column=target_column
    )
    how = how.completed(source.metadata, repr(source.description))
    preprocessing, info = model.preprocessing, model.info
    found = DenseSet(
        source,
        model.transform,
        n=n,
        seed=seed,
        strict=strict,
        smallest=info.patch,
        image_bytes=4 * 4 * prod(info.image_size),
    )
    found.targets = how
    found.turn = PairTransform(info.image_size, preprocessing.mean, preprocessing.std)
    _look_at(found)
    return found


def _look_at(images: DenseSet) -> None:
    """Read the first few pairs, to refuse at once what all of them would be refused for."""
    seen, where = [], repr(images.source.description)
    for index in images.indices()[:LOOKED_AT]:
        try:
            raw = images.source.read(int(index))
            size = decode(raw.data).size
            if isinstance(images.targets, DepthTargets):
                seen.append(numbers_of_depth(raw.target or b"", size, raw.name))
            else:
                images.targets.read(raw.target or b"", size, raw.name)
        except UsageError:
            raise
        except Exception as error:  # one bad pair is skipped when its turn comes
            if not is_of_the_file(error):
                raise
    if isinstance(images.targets, DepthTargets):
        images.targets.check(seen, where)
