"""What loader processes run: an encoded image, and its target where there is one, made into tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from brdyn.data.augment import PairTransform
from brdyn.data.decode import check_least, decode
from brdyn.data.items import Item
from brdyn.data.labels import NO_LABEL
from brdyn.data.loading import in_words, is_of_the_file
from brdyn.data.sources import ImageSource, RawImage, Skipped
from brdyn.data.targets import Targets, check_turned
from brdyn.errors import BrdynError

Reading = Callable[[Image.Image, RawImage, int], tuple[Tensor, Tensor | None]]
"""The tensors of a decoded image, what it was decoded from, and its index in the source."""


@dataclass(frozen=True)
class Whole:
    """The image as the model takes it.

    Attributes
    ----------
    transform : callable
        PIL image to `(3, H, W)`.
    """

    transform: Callable[[Any], Tensor]

    def __call__(self, image: Image.Image, raw: RawImage, index: int) -> tuple[Tensor, None]:
        del raw, index
        return self.transform(image), None


@dataclass(frozen=True)
class Cropped:
    """A random part of the image, the same for the same index.

    Attributes
    ----------
    turn : PairTransform
    """

    turn: PairTransform

    def __call__(self, image: Image.Image, raw: RawImage, index: int) -> tuple[Tensor, None]:
        del raw
        return self.turn(image, None, index)[0], None


@dataclass(frozen=True)
class Paired:
    """The image and its target, turned alike.

    Attributes
    ----------
    targets : MaskTargets or DepthTargets
    turn : PairTransform
    """

    targets: Targets
    turn: PairTransform

    def __call__(self, image: Image.Image, raw: RawImage, index: int) -> tuple[Tensor, Tensor | None]:
        data = raw.target or b""
        check_turned(image, data, raw.name)
        return self.turn(image, self.targets.read(data, image.size, raw.name), index)


@dataclass(frozen=True, eq=False)
class Reader(Dataset[Item | Skipped]):
    """Decodes the image at a position.

    Attributes
    ----------
    source : ImageSource
    chosen : ndarray of int or range
        Indices into the source, by position.
    reading : callable
        What is made of each.
    smallest : int
        Side of an image, in pixels; smaller ones are skipped.
    """

    source: ImageSource
    chosen: np.ndarray | range
    reading: Reading
    smallest: int

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
            pixels, target = self.reading(image, raw, index)
            digest = int.from_bytes(hashlib.sha256(raw.data + (raw.target or b"")).digest(), "big")
            without = target is None and raw.label == NO_LABEL and self.source.labelled
            reason = Skipped(name, raw.no_label or "no label") if without else None
            return Item(position, pixels, raw.label, digest, reason, target)
        except BrdynError:
            raise
        except Exception as error:  # one bad file must not end a run of a million
            if not is_of_the_file(error):
                raise BrdynError(
                    f"cannot read {name!r}: {in_words(error)}; use fewer `workers` or a smaller `batch_size`"
                ) from error
            return Skipped(name, in_words(error))
