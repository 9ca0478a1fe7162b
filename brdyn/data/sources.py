"""What a source of images is.

A source knows how many images it has and hands out the encoded bytes of one by index. Sources are plain picklable
objects, so that loader processes can hold their own copy.
"""

from __future__ import annotations

import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from brdyn.data.files import Names
from brdyn.data.fingerprint import contents, fingerprint
from brdyn.data.labels import NO_LABEL, Labels


class Skipped(NamedTuple):
    """An image that could not be read, and why.

    >>> from brdyn.data import Skipped
    >>> Skipped("cat/3.png", "cut short").reason
    'cut short'
    """

    name: str
    reason: str


@dataclass(frozen=True)
class RawImage:
    """One encoded image.

    Attributes
    ----------
    name : str
        For messages.
    data : bytes
    label : int
        Number of its class, or `NO_LABEL`.
    no_label : str
        Why it has none, in a labelled set.
    target : bytes or None
        Its encoded mask or map of depth, where those are read.
    """

    name: str
    data: bytes
    label: int = NO_LABEL
    no_label: str = ""
    target: bytes | None = None


class ImageSource(ABC):
    """A finite, indexable collection of encoded images.

    Attributes
    ----------
    description : str
        Written into results.
    labels : Labels or None
        The classes; None where images have no labels.
    no_labels : str
        Why they have none, where there is more to say.
    image_column, label_column, split : str or None
        Which of several were chosen.
    files : Names or None
        That it reads, where it knows them.
    unlisted : tuple of Skipped
        Folders that could not be looked into.
    target_column : str or None
        Of masks or maps of depth, where those are read from a table.
    metadata : mapping
        What the files say of themselves beside their columns.
    """

    description: str
    labels: Labels | None = None
    no_labels: str = ""
    image_column: str | None = None
    label_column: str | None = None
    split: str | None = None
    files: Names | None = None
    unlisted: tuple[Skipped, ...] = ()
    target_column: str | None = None
    metadata: Mapping[str, str] = MappingProxyType({})

    @property
    def label_names(self) -> list[str] | None:
        """Class names; None without labels or names."""
        return self.labels.names if self.labels is not None else None

    @property
    def labelled(self) -> bool:
        """Whether images have labels, with names or without."""
        return self.labels is not None

    @abstractmethod
    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """What its files hold, the same for a copy of them (:mod:`brdyn.data.fingerprint`); else of its description."""
        if self.files is None:
            return hashlib.sha256(f"{self.description}\0{len(self)}".encode()).hexdigest()
        return fingerprint(self.files)

    def contents(self) -> str:
        """What its files hold, the same under other names; where it knows no files, its fingerprint."""
        return self.fingerprint() if self.files is None else contents(self.files)

    def chosen(self) -> dict[str, Any]:
        """Which columns and split, ready for JSON."""
        return {
            "image_column": self.image_column,
            "label_column": self.label_column,
            "split": self.split,
            **({} if self.target_column is None else {"target_column": self.target_column}),
        }

    @abstractmethod
    def read(self, index: int) -> RawImage:
        """Return the encoded image at `index`; may raise `OSError`."""

    def name(self, index: int) -> str:
        """What to call the image at `index` when it cannot even be opened."""
        return f"{self.description}[{index}]"

    def at_random(self, chosen: np.ndarray | range) -> ImageSource:
        """The same images in a form that is quick to read in any order; only those `chosen` need be there."""
        return self


class LoadedSource(ImageSource):
    """Images of another source, encoded, in memory."""

    def __init__(self, source: ImageSource, images: dict[int, RawImage | str]) -> None:
        for name in inspect.get_annotations(ImageSource):
            setattr(self, name, getattr(source, name))
        self.images = images
        self._count = len(source)

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> RawImage:
        """The image, or what was wrong with it."""
        image = self.images[index]
        if isinstance(image, str):
            raise OSError(image)
        return image
