"""A reproducible set of images, decoded in the background and handed out in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from brdyn.arguments import checked
from brdyn.choices import check_least
from brdyn.data.augment import PairTransform
from brdyn.data.find import find_source
from brdyn.data.in_memory import Decoded, FromMemory, decode_all
from brdyn.data.items import PATIENCE, Batch, Item, Loaded, ReadReport
from brdyn.data.loading import load
from brdyn.data.reader import Cropped, Reader, Reading, Whole
from brdyn.data.sources import ImageSource, Skipped
from brdyn.errors import BrdynError, UsageError
from brdyn.seeds import check_seed
from brdyn.words import counted

SHARD = 16
"""Images are dealt to processes in runs of this many, whatever the batch size."""

MOST_IMAGES = 200_000_000


class ImageSet:
    """A chosen subset of a source, in source order.

    Attributes
    ----------
    source : ImageSource
    chosen : ndarray of int or range
        Indices into the source.
    report : ReadReport
        What the last (or current) pass has read.
    memory : mapping or None
        Decoded images by index, where they are kept; see :meth:`decoded`.
    turn : PairTransform or None
        What is done to each in place of the model's own transform.

    Examples
    --------
    >>> images = brdyn.load_images("photos", model)
    >>> len(images), images.label_names
    (8, ['cat', 'dog'])
    >>> learning, held_out = images.split(2, seed=0)
    >>> len(learning), len(held_out)
    (6, 2)
    """

    turn: PairTransform | None = None

    def __init__(
        self,
        source: ImageSource,
        transform: Callable[[Any], Tensor],
        *,
        n: int | None = None,
        seed: int = 0,
        strict: bool = False,
        smallest: int = 1,
        image_bytes: int = 0,
    ) -> None:
        if n is not None and n < 1:
            raise UsageError(f"`n={n}`: at least one image is needed")
        seed = check_seed(seed)
        total = len(source)
        if total == 0:
            raise BrdynError(f"no images in {source.description!r}")
        if min(total, total if n is None else n) > MOST_IMAGES:
            raise UsageError(
                f"{source.description!r} has {total} images; at most {MOST_IMAGES} are gone through: use fewer with `n`"
            )
        if strict and source.unlisted:
            raise BrdynError(_stop(source.unlisted[0]))
        self.source = source
        self.transform = transform
        self.strict = strict
        self.seed = seed
        self.smallest = smallest
        self.image_bytes = image_bytes
        self.chosen = choose(total, n, seed)
        self.memory: Decoded | None = None
        self.report = self.nothing_read()

    def __len__(self) -> int:
        return len(self.chosen)

    def indices(self) -> np.ndarray:
        """Those into the source, as an array: all of them, where `chosen` may be a range."""
        return np.arange(len(self)) if isinstance(self.chosen, range) else self.chosen

    @checked
    def take(self, places: Sequence[int] | np.ndarray | slice) -> ImageSet:
        """Only the images at these positions."""
        part = copy(self)
        part.chosen = self.indices()[places if isinstance(places, np.ndarray | slice) else list(places)]
        part.report = part.nothing_read()
        return part

    @checked
    def split(self, count: int, seed: int) -> tuple[ImageSet, ImageSet | None]:
        """This set without `count` images drawn at random, and those; None for 0.

        Raises
        ------
        UsageError
            If nothing would be left.
        """
        check_least(0, count=count)
        if count >= len(self):
            raise UsageError(
                f"{counted(count, 'image')} cannot be kept out of {len(self)}; give more images, or keep fewer out"
            )
        if not count:
            return self, None
        drawn = np.random.default_rng(check_seed(seed)).permutation(len(self))
        return self.take(np.sort(drawn[count:])), self.take(np.sort(drawn[:count]))

    @checked
    def some(self, most: int, seed: int) -> ImageSet:
        """This set, or `most` (at least 1) of its images drawn at random where it has more."""
        check_least(1, most=most)
        return self if len(self) <= most else self.split(most, seed)[1] or self

    def shared_with(self, other: ImageSet) -> int:
        """How many images are in both sets, where both are of the same files, whatever these are called."""
        both = np.intersect1d(self.indices(), other.indices()) if len(self.source) == len(other.source) else ()
        return len(both) if len(both) and self.source.contents() == other.source.contents() else 0

    def identity(self) -> dict[str, Any]:
        """Where the images come from, how many, and the digests of what they are and which are chosen; for JSON."""
        indices = np.ascontiguousarray(self.indices(), dtype="<i8").tobytes()
        return {
            "source": self.source.description,
            "in_source": len(self.source),
            **self.source.chosen(),
            "chosen": len(self),
            "digest": self.source.fingerprint(),
            "indices": hashlib.sha256(indices).hexdigest(),
        }

    def settings(self) -> dict[str, Any]:
        """How what lies beside images is read, ready for JSON."""
        return {}

    @property
    def label_names(self) -> list[str] | None:
        """Class names, where the source has them."""
        return self.source.label_names

    def reader(self, source: ImageSource | None = None) -> Dataset[Item | Skipped]:
        """What loader processes run: decodes the image at a position, from the source or a copy of it."""
        return Reader(source or self.source, self.chosen, self.reading(), self.smallest)

    def reading(self) -> Reading:
        """What is made of each image."""
        return Whole(self.transform) if self.turn is None else Cropped(self.turn)

    def augmented(self, turn: PairTransform) -> Self:
        """The same images, each turned by this: by a crop and flip of its own."""
        other = copy(self)
        other.turn, other.memory = turn, None
        return other

    def in_memory(self) -> Self:
        """The same images, encoded in memory where that is needed to read them in any order."""
        other = copy(self)
        other.source = self.source.at_random(self.chosen)
        return other

    def items(self, *, at_random: bool = False) -> Dataset[Item | Skipped]:
        """What is read at each position: from memory where the images are there, and else by :meth:`reader`.

        Sources that can only be read in order are held in memory, encoded, where positions are asked for at random.
        """
        if self.memory is not None:
            return FromMemory(self.memory, self.indices())
        return self.reader(self.source.at_random(self.chosen) if at_random else None)

    def decoded(self, workers: int | None = None, *, progress: bool = False) -> Self:
        """The same images, decoded now and kept in memory: for a training that sees each many times.

        What they give is the same; they are read in this process from then on, and so are parts of them.

        Raises
        ------
        UsageError
            If they do not fit in memory.
        BrdynError
            If `strict` and an image cannot be read, or if by far too many cannot.

        Examples
        --------
        >>> kept = images.decoded(workers=0)
        >>> kept.workers(4), images.workers(4)
        (0, 4)
        >>> all(torch.equal(a.images, b.images) for a, b in zip(kept.batches(4), images.batches(4)))
        True
        """
        part = copy(self)
        part.report = part.nothing_read()
        found = decode_all(
            self.reader(),
            len(self),
            self.image_bytes,
            count_in=part.count,
            workers=workers,
            progress=progress,
        )
        part.memory = dict(zip(map(int, self.indices()), found, strict=True))
        part.report = part.nothing_read()
        return part

    def workers(self, asked: int | None) -> int | None:
        """Loader processes, where so many are asked for: none for images that are in memory."""
        return asked if self.memory is None else 0

    @checked
    def batches(
        self, batch_size: int, *, workers: int | None = None, rank: int = 0, world: int = 1, pin: bool = False
    ) -> Iterator[Batch]:
        """Decode in the background and yield batches, in order.

        Parameters
        ----------
        batch_size : int
            Images in a batch; fewer where some could not be read.
        workers : int, optional
            Loader processes; 0 decodes in this one. Default: one less than the cores, at most 8. Fewer are
            used where the batches they would hold ready do not fit in shared memory.
        rank, world : int
            Which share of the images this process takes. Shares are disjoint and cover the set: nothing
            is padded.
        pin : bool
            Use page-locked memory, for faster copies to a GPU.

        Raises
        ------
        BrdynError
            If `strict` and an image cannot be read, if by far too many cannot or (in a single process) none can, or if
            a loader process dies.
        """
        check_least(1, batch_size=batch_size)
        self.report = self.nothing_read() if rank == 0 else ReadReport()
        loader = load(
            self.items(),
            batched(share(len(self), rank, world), batch_size),
            -(-len(self) // batch_size),
            workers=self.workers(workers),
            batch_bytes=batch_size * self.image_bytes,
            pin=pin,
        )
        for loaded in loader:
            self.count(loaded)
            if loaded.images is not None:
                yield Batch.of(loaded)
        if world == 1:
            self.require_some()

    def nothing_read(self) -> ReadReport:
        """The report before a pass: it names folders that could not be looked into."""
        return ReadReport(skipped=list(self.source.unlisted))

    def require_some(self) -> None:
        """Raise a `BrdynError` if the pass has read no image at all."""
        if self.report.count == 0:
            example = self.report.skipped[0] if self.report.skipped else None
            why = f"; the first, {example.name}: {example.reason}" if example else ""
            raise BrdynError(f"none of the {len(self)} images in {self.source.description!r} could be read{why}")

    def count(self, loaded: Loaded) -> None:
        """Add what was read to the report.

        Raises
        ------
        BrdynError
            If some could not be read and the set is strict, or if by far too many could not.
        """
        if self.strict and loaded.skipped:
            raise BrdynError(_stop(loaded.skipped[0]))
        self.report.add(ReadReport(len(loaded.positions), loaded.skipped, loaded.digest, loaded.unlabelled))
        unreadable = len(self.report.skipped)
        if unreadable > max(PATIENCE, self.report.count):
            name, reason = self.report.skipped[0]
            raise BrdynError(
                f"of {unreadable + self.report.count} images in {self.source.description!r} {unreadable} could not be "
                f"read; the first, {name}: {reason}"
            )


def _stop(skipped: Skipped) -> str:
    return f"cannot read {skipped.name!r}: {skipped.reason} (`strict`); remove it or drop `strict`"


def choose(total: int, n: int | None, seed: int) -> np.ndarray | range:
    """The indices of a reproducible subset of `n` out of `total`, in ascending order; all when `n` is None."""
    if n is None or n >= total:
        return range(total)
    return np.sort(np.random.default_rng(seed).choice(total, size=n, replace=False))


def share(count: int, rank: int, world: int) -> Iterator[int]:
    """The positions that process `rank` of `world` takes: every `world`-th run of `SHARD`."""
    for start in range(rank * SHARD, count, world * SHARD):
        yield from range(start, min(start + SHARD, count))


def batched(positions: Iterator[int], size: int) -> Iterator[list[int]]:
    """Lists of at most `size` of them."""
    while group := list(islice(positions, size)):
        yield group


@runtime_checkable
class HasTransform(Protocol):
    """What images are prepared for: a model, or anything else with a transform of pictures."""

    @property
    def transform(self) -> Callable[[Any], Tensor]: ...


@checked
def load_images(
    images: str | Path,
    model: HasTransform,
    *,
    n: int | None = None,
    seed: int = 0,
    split: str | None = None,
    strict: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
    columns_where_there: bool = False,
) -> ImageSet:
    """Find images and prepare them for a model.

    Parameters
    ----------
    images : str or path
        `samples`, a folder, an image, a parquet or tar file, a data set saved to disk, or a hub data set id.
    model : VisionTransformer
        Anything with a `transform`; its patch size is the smallest image side accepted.
    n, seed
        A reproducible subset; all images when `n` is None.
    split : str, optional
        Of what holds several.
    strict : bool
        Make an unreadable image an error instead of skipping it.
    image_column, label_column : str, optional
        Of tables; see :mod:`brdyn.data.columns` for the choice without.
    columns_where_there : bool
        Go by that choice where the set has no such columns, instead of refusing it.

    Returns
    -------
    ImageSet

    Raises
    ------
    UsageError
        If there are no such images, columns or split.

    Examples
    --------
    >>> images = brdyn.load_images("photos", model, n=4, seed=1)  # a folder
    >>> [batch.images.shape for batch in images.batches(2)]
    [torch.Size([2, 3, 32, 32]), torch.Size([2, 3, 32, 32])]
    """
    info = getattr(model, "info", None)
    source = find_source(
        images,
        split,
        image_column=image_column,
        label_column=label_column,
        columns_where_there=columns_where_there,
    )
    return ImageSet(
        source,
        model.transform,
        n=n,
        seed=seed,
        strict=strict,
        smallest=getattr(info, "patch", 1),
        image_bytes=4 * 3 * prod(getattr(info, "image_size", (0, 0))),
    )
