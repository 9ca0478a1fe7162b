"""Images on their way: one by one in the loader processes, then in batches. An image and its label go together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from brdyn.data.labels import NO_LABEL, Unlabelled
from brdyn.data.sources import Skipped
from brdyn.errors import BrdynError, UsageError

DIGEST_MODULUS = 1 << 256
PATIENCE = 100_000
"""Unreadable images after which a pass ends, if they are more than the readable ones."""


class Item(NamedTuple):
    """One decoded and transformed image, its label or `NO_LABEL`, and why it has none in a labelled set."""

    position: int
    image: Tensor
    label: int
    digest: int
    no_label: Skipped | None = None
    target: Tensor | None = None


class Failure(NamedTuple):
    """An error that ends the run, in words: exceptions do not all survive the way between processes."""

    message: str
    of_request: bool

    def error(self) -> BrdynError:
        """As the exception it was."""
        return (UsageError if self.of_request else BrdynError)(self.message)


class Loaded(NamedTuple):
    """What a loader process hands over for one batch: stacked there, so that this process only counts.

    What is small is no tensor: each of those takes an open file until it is let go.
    """

    images: Tensor | None
    positions: np.ndarray
    labels: np.ndarray
    digests: list[int]
    skipped: list[Skipped]
    unlabelled: Unlabelled
    failure: Failure | None
    targets: Tensor | None = None

    @property
    def digest(self) -> int:
        """Of all images, as in :class:`ReadReport`."""
        return sum(self.digests) % DIGEST_MODULUS


def stack(items: list[Item | Skipped | Failure]) -> Loaded:
    """Put the images of a batch that could be read together."""
    read = [item for item in items if isinstance(item, Item)]
    targets = [item.target for item in read if item.target is not None]
    without = [(item.position, *item.no_label) for item in read if item.no_label is not None]
    return Loaded(
        torch.stack([item.image for item in read]) if read else None,
        np.array([item.position for item in read], dtype=np.int64),
        np.array([item.label for item in read], dtype=np.int64),
        [item.digest for item in read],
        [item for item in items if isinstance(item, Skipped)],
        Unlabelled(len(without), without),
        next((item for item in items if isinstance(item, Failure)), None),
        torch.stack(targets) if targets else None,
    )


class Batch:
    """Images with their positions in the set and their labels.

    Attributes
    ----------
    images : Tensor
        `(B, 3, H, W)`.
    positions : Tensor
        `(B,)`.
    labels : Tensor
        Numbers of classes, `NO_LABEL` for an image that has none, `(B,)`. All have none when they are not given.
    targets : Tensor or None
        Masks or maps of depth, `(B, H, W)`, of a set that has them.

    Raises
    ------
    ValueError
        If these are not of as many images.

    Examples
    --------
    >>> batch = next(images.batches(6))
    >>> batch.images.shape, batch.positions.tolist(), batch.labels.tolist()
    (torch.Size([6, 3, 32, 32]), [0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 1, 1])
    >>> [len(part) for part in batch.split(4)]
    [4, 2]
    """

    def __init__(
        self, images: Tensor, positions: Tensor, labels: Tensor | None = None, targets: Tensor | None = None
    ) -> None:
        self.images, self.positions, self.targets = images, positions, targets
        self.labels = without_labels(positions) if labels is None else labels
        if not len(images) == len(positions) == len(self.labels):
            raise ValueError(
                f"{len(images)} images, {len(positions)} positions and {len(self.labels)} labels do not go together"
            )
        if targets is not None and len(targets) != len(images):
            raise ValueError(f"{len(images)} images and {len(targets)} targets do not go together")

    @classmethod
    def of(cls, loaded: Loaded) -> Batch:
        """What a loader process has handed over."""
        assert loaded.images is not None
        return cls(loaded.images, torch.from_numpy(loaded.positions), torch.from_numpy(loaded.labels), loaded.targets)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor | slice) -> Batch:
        targets = None if self.targets is None else self.targets[rows]
        return Batch(self.images[rows], self.positions[rows], self.labels[rows], targets)

    def labelled(self) -> Batch:
        """The images that have a label."""
        return self[self.labels != NO_LABEL]

    def split(self, size: int) -> Iterator[Batch]:
        """The same images in batches of at most `size`."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def without_labels(positions: Tensor) -> Tensor:
    """Labels of images that have none."""
    return torch.full_like(positions, NO_LABEL)


@dataclass
class ReadReport:
    """What one pass over a set has read.

    Attributes
    ----------
    count : int
        Images that were read.
    skipped : list of Skipped
        Images that were not.
    digest : int
        Sum modulo 2^256 of the SHA-256 of each file read: independent of order and of how the work was split.
    unlabelled : Unlabelled
        Of a labelled set: images read that have no label.

    Examples
    --------
    >>> batches = list(images.batches(4))
    >>> images.report.count, images.report.skipped
    (8, [])
    """

    count: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    digest: int = 0
    unlabelled: Unlabelled = field(default_factory=Unlabelled)

    def add(self, other: ReadReport) -> None:
        """Join the report of a batch or of another process."""
        self.count += other.count
        self.skipped += other.skipped
        self.digest = (self.digest + other.digest) % DIGEST_MODULUS
        self.unlabelled.add(other.unlabelled)
