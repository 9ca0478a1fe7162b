"""A teacher's states on disk, for teachers so slow that running them beside the student costs more than reading.

Shards of consecutive images, in bfloat16, each a safetensors file that is whole or not there. They are memory-mapped,
and each image's states are checked against a checksum when they are read. An interrupted cache is filled further when
it is asked for again.
"""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import Dataset

from brdyn import checked_json
from brdyn.data import ImageSet
from brdyn.data.items import DIGEST_MODULUS, Item
from brdyn.data.sources import Skipped
from brdyn.errors import BrdynError, UsageError
from brdyn.models import VisionTransformer
from brdyn.progress import progress_bar
from brdyn.runtime import Processes
from brdyn.store import read_json, to_json, write_atomically
from brdyn.training.settings import differences
from brdyn.trajectory import Stream, trajectories
from brdyn.words import bytes_in_words, first_line

FORMAT = "brdyn activation cache"
INDEX = "cache.json"
SHARD_BYTES = 256 * 2**20
LARGEST_SHARD = 512
BYTES = 2  # of a bfloat16
UNFINISHED = (".states-", f".{INDEX}.")
ABANDONED = 600.0  # seconds
REMEDY = "remove the file, and run again to make it anew"


@dataclass
class ActivationCache:
    """The states `a_0 .. a_L` of every image of a set.

    Attributes
    ----------
    folder : Path
    teacher : VisionTransformer
    images : ImageSet

    Examples
    --------
    >>> from pathlib import Path
    >>> from brdyn.raptor import ActivationCache
    >>> cache = ActivationCache(Path("cache"), model, images)
    >>> cache.shape, cache.image_bytes
    ((13, 5, 192), 24960)
    >>> cache.prepare()
    >>> cache.fill()
    >>> cache.missing()
    []
    """

    folder: Path
    teacher: VisionTransformer
    images: ImageSet
    _open: dict[int, _Shard] = field(default_factory=dict, repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image's states: `(L + 1, N, D)`."""
        return self.teacher.depth + 1, self.teacher.tokens.count, self.teacher.info.width

    @property
    def image_bytes(self) -> int:
        """On disk, for one image."""
        return BYTES * prod(self.shape)

    @property
    def total_bytes(self) -> int:
        """On disk, for all of them."""
        return self.image_bytes * len(self.images)

    @property
    def shard_images(self) -> int:
        """Images in a shard."""
        return max(1, min(LARGEST_SHARD, SHARD_BYTES // self.image_bytes))

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-len(self.images) // self.shard_images)

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"states-{shard:05d}.safetensors"

    def missing(self) -> list[int]:
        """Shards that are not there yet."""
        return [shard for shard in range(self.shards) if not self.path(shard).is_file()]

    def images_in(self, shards: Iterable[int]) -> int:
        """Number of images in some shards; the last shard may have fewer than the others."""
        return sum(min(self.shard_images, len(self.images) - one * self.shard_images) for one in shards)

    def describe(self) -> str:
        """Its size, before it is made."""
        one, whole = bytes_in_words(self.image_bytes), bytes_in_words(self.total_bytes)
        there = self.shards - len(self.missing())
        return (
            f"activation cache in {str(self.folder)!r}: {len(self.images)} images x {one} = {whole}; {there} of "
            f"{self.shards} parts are there"
        )

    def index(self) -> dict[str, Any]:
        """What it is a cache of."""
        info = self.teacher.info
        chosen = hashlib.sha256(np.ascontiguousarray(self.images.chosen, dtype="<i8").tobytes()).hexdigest()
        return {
            "format": FORMAT,
            "teacher": {"name": info.name, "digest": info.digest, "image_size": list(info.image_size)},
            "images": {
                "source": self.images.source.description, "in_source": len(self.images.source),
                "files": self.images.source.fingerprint(), "chosen": len(self.images), "indices": chosen,
            },
            "preprocessing": self.teacher.preprocessing.to_dict(),
            "shape": list(self.shape),
            "dtype": "bfloat16",
            "shard_images": self.shard_images,
        }  # fmt: skip

    def prepare(self) -> None:
        """Make the folder, or check that what is there is of this teacher and these images.

        Raises
        ------
        UsageError
            If it is of others; the differences are listed.
        BrdynError
            If the disk is too small or the folder cannot be written.
        """
        self.check(self.teacher, self.images)
        path = self.folder / INDEX
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the cache folder {str(self.folder)!r} ({error.strerror})") from error
        self._sweep()
        others = [one for one in self.folder.iterdir() if not one.name.startswith(UNFINISHED)]
        if not path.is_file() and others:
            raise UsageError(f"{str(self.folder)!r} holds other files; choose an empty folder as `cache`")
        needed = self.images_in(self.missing()) * self.image_bytes
        free = psutil.disk_usage(str(self.folder)).free
        if needed > free:
            raise BrdynError(
                f"an activation cache of {bytes_in_words(self.total_bytes)} does not fit in {str(self.folder)!r}, "
                f"where {bytes_in_words(free)} are free; use fewer images (`n`), another `cache`, or none"
            )
        if not path.is_file():
            write_atomically(path, to_json(self.index()))

    def check(self, teacher: VisionTransformer, images: ImageSet) -> None:
        """Refuse to stand for another teacher or other images, by what this is of and by what is there.

        Raises
        ------
        UsageError
            With the differences.
        """
        path, now = self.folder / INDEX, ActivationCache(self.folder, teacher, images).index()
        kept = [read_json(path, "the index of an activation cache")] if path.is_file() else []
        own = [] if teacher is self.teacher and images is self.images else [self.index()]
        for before in (*kept, *own):
            if changed := differences(before, now):
                raise UsageError(
                    f"{str(self.folder)!r} is a cache of something else ({'; '.join(changed)}); choose another `cache`"
                )

    def _sweep(self) -> None:
        """Remove what runs that were killed have left half written; a run beside this one may still be writing."""
        for prefix in UNFINISHED:
            for left in self.folder.glob(f"{prefix}*"):
                if time.time() - left.stat().st_mtime > ABANDONED:
                    left.unlink(missing_ok=True)

    def fill(self, *, workers: int | None = None, processes: Processes | None = None, progress: bool = False) -> None:
        """Make what is missing. Every process has shards of its own; when this returns, all are there.

        Raises
        ------
        BrdynError
            If the disk is full or an image makes a state that is not finite.
        """
        processes = processes or Processes(self.teacher.device)
        mine = [
            shard for shard in range(processes.rank, self.shards, processes.world) if not self.path(shard).is_file()
        ]
        show = progress and processes.is_main
        with progress_bar("activation cache: writing", self.images_in(mine), show) as advance:
            for shard in mine:
                self._make(shard, workers)
                advance(self.images_in([shard]))
        processes.wait()
        left = self.missing()
        if left:
            raise BrdynError(f"the cache in {str(self.folder)!r} lacks {self.path(left[0]).name}; run again to make it")

    def _make(self, shard: int, workers: int | None) -> None:
        start = shard * self.shard_images
        part = self.images.take(slice(start, start + self.shard_images))
        states = [torch.empty(0, *self.shape, dtype=torch.bfloat16)]
        positions, labels = ([torch.empty(0, dtype=torch.long)] for _ in range(2))
        try:
            for trajectory in trajectories(self.teacher, part, stream=Stream(workers=workers)):
                states.append(torch.stack(trajectory.states, dim=1).to("cpu", torch.bfloat16))
                positions.append(trajectory.positions.cpu() + start)
                labels.append(trajectory.labels.cpu())
                del trajectory
        except BrdynError:
            if part.report.count or not part.report.skipped:
                raise
            # None of these few can be read: they are skipped like any others.
        tensors = {
            "states": torch.cat(states), "positions": torch.cat(positions), "labels": torch.cat(labels)
        }  # fmt: skip
        tensors["checksums"] = torch.tensor([checksum(one) for one in tensors["states"]], dtype=torch.long)
        metadata = {
            "digest": f"{part.report.digest:064x}",
            "skipped": json.dumps([list(skipped) for skipped in part.report.skipped]),
        }
        write_atomically(self.path(shard), save(tensors, metadata))

    def digest(self) -> int:
        """Of the images that the states were made from, as in :class:`brdyn.data.ReadReport`."""
        found = (self._shard(shard).digest for shard in range(self.shards))
        return sum(found) % DIGEST_MODULUS

    def reader(self, images: ImageSet) -> CachedStates:
        """The states of some of the images, as a data set whose items are states instead of pictures."""
        places = {int(index): place for place, index in enumerate(self.images.chosen)}
        return CachedStates(self, np.array([places[int(index)] for index in images.chosen]))

    def read(self, place: int) -> tuple[Tensor, int] | Skipped:
        """States `(L + 1, N, D)` and label (or `NO_LABEL`) of an image by its position in the set.

        Raises
        ------
        BrdynError
            If the shard is missing, cut short or altered.
        """
        name = self.images.source.name(int(self.images.chosen[place]))
        return self._shard(place // self.shard_images).read(place, name)

    def _shard(self, number: int) -> _Shard:
        if number not in self._open:
            self._open[number] = _Shard(self.path(number))
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        """Loader processes open the files for themselves, and need no teacher."""
        return {**self.__dict__, "_open": {}, "teacher": _Outline(self.teacher)}


class _Outline:
    """What a cache needs to know of a teacher, without its weights."""

    def __init__(self, teacher: VisionTransformer) -> None:
        self.info, self.tokens, self.depth = teacher.info, teacher.tokens, teacher.depth


class _Shard:
    """An open file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = safe_open(path, framework="pt")
            metadata = self.file.metadata()
            rows, self.checksums, self.labels = (
                self.file.get_tensor(name).tolist() for name in ("positions", "checksums", "labels")
            )
            self.states = self.file.get_slice("states")
            skipped = checked_json.parse(metadata["skipped"].encode())
            checked_json.take(skipped, [[str]])
            self.skipped: dict[str, str] = dict(skipped)
            self.digest = int(metadata["digest"], 16)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise BrdynError(
                f"cannot read the cached states in {str(path)!r} ({first_line(error)}); {REMEDY}"
            ) from error
        self.rows = {position: row for row, position in enumerate(rows)}

    def read(self, place: int, name: str) -> tuple[Tensor, int] | Skipped:
        """The states and the label of an image."""
        if place not in self.rows:
            return Skipped(name, self.skipped.get(name, "unreadable when the cache was made"))
        row = self.rows[place]
        states = self.states[row : row + 1][0]
        if checksum(states) != self.checksums[row]:
            raise BrdynError(f"the cached states in {str(self.path)!r} are altered (checksum); {REMEDY}")
        return states, self.labels[row]


class CachedStates(Dataset[Item | Skipped]):
    """What runs in the loader processes instead of the decoder."""

    def __init__(self, cache: ActivationCache, places: np.ndarray) -> None:
        self.cache, self.places = cache, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, position: int) -> Item | Skipped:
        found = self.cache.read(int(self.places[position]))
        return found if isinstance(found, Skipped) else Item(position, found[0], found[1], 0)


def checksum(states: Tensor) -> int:
    """CRC-32 of the bytes of a tensor."""
    return zlib.crc32(states.contiguous().view(torch.uint8).numpy().data)
