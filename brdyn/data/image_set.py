"""A reproducible set of images, decoded in the background and handed out in batches."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from brdyn.data.decode import decode
from brdyn.data.sources import ImageSource, find_source
from brdyn.errors import BrdynError, UsageError
from brdyn.seeds import check_seed

SHARD = 16
"""Images are dealt to processes in runs of this many, whatever the batch size."""

DIGEST_MODULUS = 1 << 256
MAX_WORKERS = 8
MAX_BYTES_AHEAD = 2**30
SHARED_MEMORY = Path("/dev/shm")


class Skipped(NamedTuple):
    """An image that could not be read, and why."""

    name: str
    reason: str


class Item(NamedTuple):
    """One decoded and transformed image."""

    position: int
    image: Tensor
    label: int | None
    digest: int


class Loaded(NamedTuple):
    """What a loader process hands over for one batch: stacked there, so that this process only counts."""

    images: Tensor | None
    positions: Tensor
    labels: Tensor | None
    digest: int
    skipped: list[Skipped]


def stack(items: list[Item | Skipped]) -> Loaded:
    """Put the images of a batch that could be read together."""
    read = [item for item in items if isinstance(item, Item)]
    labels = [item.label for item in read]
    return Loaded(
        torch.stack([item.image for item in read]) if read else None,
        torch.tensor([item.position for item in read], dtype=torch.long),
        None if None in labels else torch.tensor(labels, dtype=torch.long),
        sum(item.digest for item in read) % DIGEST_MODULUS,
        [item for item in items if isinstance(item, Skipped)],
    )


@dataclass(frozen=True)
class Batch:
    """Images `(B, 3, H, W)`, their positions in the set, and their class indices where there are any."""

    images: Tensor
    positions: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.images)

    def split(self, size: int) -> Iterator[Batch]:
        """The same images in batches of at most `size`."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            labels = self.labels[part] if self.labels is not None else None
            yield Batch(self.images[part], self.positions[part], labels)


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
    """

    count: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    digest: int = 0

    def add(self, other: ReadReport) -> None:
        """Join the report of a batch or of another process."""
        self.count += other.count
        self.skipped += other.skipped
        self.digest = (self.digest + other.digest) % DIGEST_MODULUS


class _Decoder(Dataset[Item | Skipped]):
    """What runs in the loader processes."""

    def __init__(
        self, source: ImageSource, chosen: np.ndarray, transform: Callable[[Any], Tensor], smallest: int
    ) -> None:
        self.source = source
        self.chosen = chosen
        self.transform = transform
        self.smallest = smallest

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, position: int) -> Item | Skipped:
        index = int(self.chosen[position])
        name = self.source.name(index)
        try:
            raw = self.source.read(index)
            name = raw.name
            image = decode(raw.data)
            if min(image.size) < self.smallest:
                size = f"{image.width}x{image.height}"
                raise ValueError(f"{size} pixels are smaller than one {self.smallest}-pixel patch")
            digest = int.from_bytes(hashlib.sha256(raw.data).digest(), "big")
            return Item(position, self.transform(image), raw.label, digest)
        except Exception as error:  # one bad file must not end a run of a million
            text = str(error).strip().splitlines()
            reason = text[0] if text else type(error).__name__
            return Skipped(name, reason.replace("<_io.BytesIO object", "<the file")[:200])


class ImageSet:
    """A chosen subset of a source, in source order.

    Attributes
    ----------
    source : ImageSource
    chosen : ndarray of int
        Indices into the source.
    report : ReadReport
        What the last (or current) pass has read.
    """

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
            raise UsageError(f"--n {n}: at least one image is needed")
        check_seed(seed)
        total = len(source)
        if total == 0:
            raise BrdynError(f"no images in {source.description!r}")
        self.source = source
        self.transform = transform
        self.strict = strict
        self.seed = seed
        self.smallest = smallest
        self.image_bytes = image_bytes
        self.chosen = choose(total, n, seed)
        self.report = ReadReport()

    def __len__(self) -> int:
        return len(self.chosen)

    def split(self, count: int, seed: int) -> tuple[ImageSet, ImageSet | None]:
        """This set without `count` images drawn at random, and those; None for 0.

        Raises
        ------
        UsageError
            If nothing would be left.
        """
        if count >= len(self):
            raise UsageError(
                f"{count} images cannot be kept out of {len(self)}; give more images, or keep fewer out"
            )
        if not count:
            return self, None
        drawn = np.random.default_rng(seed).permutation(len(self))
        parts = []
        for places in (drawn[count:], drawn[:count]):
            part = copy(self)
            part.chosen, part.report = self.chosen[np.sort(places)], ReadReport()
            parts.append(part)
        return parts[0], parts[1]

    @property
    def label_names(self) -> list[str] | None:
        """Class names, where the source has them."""
        return self.source.label_names

    def reader(self, source: ImageSource | None = None) -> Dataset[Item | Skipped]:
        """What loader processes run: decodes the image at a position, from the source or a copy of it."""
        return _Decoder(source or self.source, self.chosen, self.transform, self.smallest)

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
            If `strict` and an image cannot be read, or (in a single process) if none can.
        """
        self.report = ReadReport()
        mine = share(len(self), rank, world)
        groups = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
        workers = default_workers() if workers is None else workers
        workers, ahead = background(min(workers, len(groups)), batch_size * self.image_bytes)
        loader = DataLoader(
            self.reader(),
            batch_sampler=groups,
            num_workers=workers,
            prefetch_factor=ahead,
            collate_fn=stack,
            pin_memory=pin,
        )
        for loaded in guarded(loader):
            self.count(loaded)
            if loaded.images is not None:
                yield Batch(loaded.images, loaded.positions, loaded.labels)
        if world == 1:
            self.require_some()

    def require_some(self) -> None:
        """Raise a `BrdynError` if the pass has read no image at all."""
        if self.report.count == 0:
            example = self.report.skipped[0] if self.report.skipped else None
            why = f"; the first, {example.name}: {example.reason}" if example else ""
            raise BrdynError(
                f"none of the {len(self)} images in {self.source.description!r} could be read{why}"
            )

    def count(self, loaded: Loaded) -> None:
        """Add what was read to the report.

        Raises
        ------
        BrdynError
            If some could not be read, and the set is strict.
        """
        if self.strict and loaded.skipped:
            name, reason = loaded.skipped[0]
            raise BrdynError(f"cannot read {name!r}: {reason} (--strict); remove it or drop --strict")
        self.report.add(ReadReport(len(loaded.positions), loaded.skipped, loaded.digest))


def choose(total: int, n: int | None, seed: int) -> np.ndarray:
    """The indices of a reproducible subset of `n` out of `total`, in ascending order; all when `n` is None."""
    if n is None or n >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, size=n, replace=False))


def share(count: int, rank: int, world: int) -> list[int]:
    """The positions that process `rank` of `world` takes: every `world`-th run of `SHARD`."""
    return [position for position in range(count) if position // SHARD % world == rank]


def default_workers() -> int:
    """Loader processes by default: one less than this process's share of the cores, between 1 and 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MAX_WORKERS, cores // here - 1))


def background(workers: int, batch_bytes: int) -> tuple[int, int | None]:
    """How many loader processes, and how many batches each may hold ready, within the memory they share."""
    room = MAX_BYTES_AHEAD
    if SHARED_MEMORY.is_dir():
        room = min(room, shutil.disk_usage(SHARED_MEMORY).free // 2)
    fitting = room // max(batch_bytes, 1)
    workers = min(workers, fitting)
    return (workers, min(2, fitting // workers)) if workers else (0, None)


def guarded(loader: Iterable[Loaded]) -> Iterator[Loaded]:
    """What a loader gives; its failures without the stack of the process they come from."""
    try:
        yield from loader
    except BrdynError as error:  # from a loader process it comes with that process's stack
        raise type(error)(
            str(error).strip().splitlines()[-1].removeprefix(f"{_full_name(error)}: ")
        ) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise BrdynError(
            "a loader process died, most often for lack of (shared) memory; use --workers 0 or a smaller --batch-size"
        ) from error


def _full_name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def load_images(
    images: str | Path,
    model: Any,
    *,
    n: int | None = None,
    seed: int = 0,
    split: str | None = None,
    strict: bool = False,
) -> ImageSet:
    """Find images and prepare them for a model.

    Parameters
    ----------
    images : str or path
        `samples`, a folder, an image, a parquet file, or a hub data set id.
    model : VisionTransformer
        Anything with a `transform`; its patch size is the smallest image side accepted.
    n, seed
        A reproducible subset; all images when `n` is None.
    split : str, optional
        Split of a hub data set.
    strict : bool
        Make an unreadable image an error instead of skipping it.

    Returns
    -------
    ImageSet

    Raises
    ------
    UsageError
        If there are no such images.
    """
    info = getattr(model, "info", None)
    return ImageSet(
        find_source(images, split),
        model.transform,
        n=n,
        seed=seed,
        strict=strict,
        smallest=getattr(info, "patch", 1),
        image_bytes=4 * 3 * prod(getattr(info, "image_size", (0, 0))),
    )
