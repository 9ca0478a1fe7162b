"""Shuffled batches for training: an endless stream whose batch at any step can be asked for without the ones before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from torch.utils.data import Dataset

from brdyn.choices import check_batch
from brdyn.data.augment import PairTransform
from brdyn.data.image_set import ImageSet
from brdyn.data.items import Batch, Item, ReadReport
from brdyn.data.labels import Unlabelled
from brdyn.data.loading import load
from brdyn.data.sources import Skipped


@dataclass
class ShuffledBatches:
    """Images in a new random order each epoch; what a step sees depends on the seed and the step alone.

    Batches run on over the end of an epoch, so that none is short.

    Attributes
    ----------
    images : ImageSet
        Sources that can only be read in order (parquet) are kept in memory, encoded.
    batch_size : int
        Images of a step over all processes.
    seed : int
    workers : int or None
    reader : Dataset, optional
        What to read in place of the images, by the same positions.
    item_bytes : int, optional
        Of one item of the reader in memory.
    turn : PairTransform, optional
        A crop and flip of each image, another one in each epoch.
    """

    images: ImageSet
    batch_size: int
    seed: int = 0
    workers: int | None = None
    reader: Dataset[Item | Skipped] | None = None
    item_bytes: int | None = None
    turn: PairTransform | None = None

    def __post_init__(self) -> None:
        """Refuse a set that does not fill a batch."""
        check_batch(len(self.images), self.batch_size)
        if self.reader is None and self.turn is not None:
            self.reader = Visits(self.images.in_memory(), self.turn)
        if self.reader is None:
            self.reader = self.images.items(at_random=True)

    @property
    def report(self) -> ReadReport:
        """What this process has read so far, in all steps."""
        return self.images.report

    def positions(self, step: int) -> np.ndarray:
        """Positions in the set that step `step` (from 0) sees, `(batch_size,)`."""
        return shuffled_positions(len(self.images), self.batch_size, self.seed, step)

    def asked(self, step: int) -> np.ndarray:
        """What the reader is asked for: those positions, or with `turn` the numbers of :class:`Visits`."""
        found = self.positions(step)
        if self.turn is None:
            return found
        count = len(self.images)
        return found + count * (np.arange(step * self.batch_size, (step + 1) * self.batch_size) // count)

    def batches(
        self, start: int, stop: int, *, rank: int = 0, world: int = 1, pieces: int = 1, pin: bool = False
    ) -> Iterator[list[Batch]]:
        """The share of a process in steps `start` to `stop - 1`, each as `pieces` batches one after another.

        Shares are disjoint; together they are the step's images, in any split. A piece whose images cannot be read
        is left out.
        """
        assert self.reader is not None
        loader = load(
            self.reader,
            self._parts(range(start, stop), rank, world, pieces),
            (stop - start) * pieces,
            workers=self.images.workers(self.workers),
            batch_bytes=self.batch_size * (self.item_bytes or self.images.image_bytes) // (world * pieces) + 1,
            pin=pin,
        )
        together: list[Batch] = []
        for number, loaded in enumerate(loader, 1):
            self.images.count(loaded._replace(unlabelled=Unlabelled()))  # nothing trained so needs labels
            if loaded.images is not None:
                together.append(Batch.of(loaded))
            if number % pieces == 0:
                yield together
                together = []

    def _parts(self, steps: range, rank: int, world: int, pieces: int) -> Iterator[list[int]]:
        """What the reader is asked for, for every piece of a process's share."""
        for step in steps:
            for piece in np.array_split(self.asked(step)[rank::world], pieces):
                yield [int(number) for number in piece]


@dataclass(frozen=True)
class Visits(Dataset[Item | Skipped]):
    """Images cropped anew at each visit: number `visit * n + position` is of the image at a position.

    Attributes
    ----------
    images : ImageSet
        That can be read in any order.
    turn : PairTransform
        With the augmentation of the first visit.
    """

    images: ImageSet
    turn: PairTransform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Item | Skipped:
        visit, position = divmod(number, len(self.images))
        assert self.turn.augmentation is not None
        turn = replace(self.turn, augmentation=replace(self.turn.augmentation, visit=visit))
        return self.images.augmented(turn).reader()[position]


@lru_cache(maxsize=4)
def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of `count` images in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def shuffled_positions(count: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Which of `count` images step `step` (from 0) sees, `(batch_size,)`; batches run on over the end of an epoch."""
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    found = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(places // count):
        here = places // count == epoch
        found[here] = epoch_order(count, seed, int(epoch))[places[here] % count]
    return found
