"""Labelled images decoded once and kept as pixels: small ones, that a training run sees hundreds of times."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from brdyn.arguments import checked
from brdyn.checked_json import expanded
from brdyn.choices import check_batch, check_least
from brdyn.compared import Compared
from brdyn.data import Batch, ImageSet, find_source
from brdyn.data.image_set import choose
from brdyn.data.labels import Unlabelled
from brdyn.data.shuffled import shuffled_positions
from brdyn.errors import BrdynError, UsageError
from brdyn.seeds import check_seed

NAMED = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
DECODED_AT_ONCE = 512


@checked
@dataclass(frozen=True, eq=False, repr=False)
class PixelSet(Compared):
    """Images of one size and their classes.

    Attributes
    ----------
    pixels : Tensor
        `(n, 3, H, W)`, uint8.
    labels : Tensor
        Class indices, `(n,)`.
    names : tuple of str
        Of the classes.
    description : str
        Where they come from.
    digest : str
        Sum of the SHA-256 of the files read, as in :class:`brdyn.data.ReadReport`, or of the pixels of a named data
        set; empty for pixels from elsewhere.
    skipped : tuple of (str, str)
        Images that could not be read, and why.
    unlabelled : Unlabelled
        Images that have no label and were left out.
    chosen : dict
        Columns and split that were chosen, of a table.

    Examples
    --------
    >>> from brdyn.classifiers import PixelSet
    >>> images = PixelSet(torch.zeros(10, 3, 8, 8, dtype=torch.uint8), torch.arange(10) % 2, ("cat", "dog"), "black")
    >>> [len(part) for part in images.split(held_out=3)]
    [7, 3]
    """

    pixels: Tensor
    labels: Tensor
    names: tuple[str, ...]
    description: str
    digest: str = ""
    skipped: tuple[tuple[str, str], ...] = ()
    unlabelled: Unlabelled = field(default_factory=Unlabelled)
    chosen: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse labels of other images."""
        if len(self.pixels) != len(self.labels):
            raise UsageError(
                f"{len(self.pixels)} images and {len(self.labels)} labels do not go together; give one label for each"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.names)

    def identity(self) -> dict[str, Any]:
        """Where they come from, how many, the digests of what they are and of their labels; ready for JSON."""
        labels = hashlib.sha256("\0".join(self.names).encode())
        labels.update(self.labels.cpu().numpy().astype("<i8").tobytes())
        return {
            "source": self.description,
            "images": len(self),
            "digest": self.digest or pixel_digest(self.pixels),
            "labels": labels.hexdigest(),
            **self.chosen,
        }

    def to(self, device: torch.device | str) -> PixelSet:
        """The same on another device."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def check_held_out(self, held_out: int) -> None:
        """Refuse to hold out all images, or none.

        Raises
        ------
        UsageError
            With how many can be.
        """
        if not 0 < held_out < len(self):
            raise UsageError(f"{held_out} of {len(self)} images cannot be held out; take 1 to {len(self) - 1}")

    @checked
    def split(self, held_out: int, seed: int = 0) -> tuple[PixelSet, PixelSet]:
        """Two parts, the second of `held_out` images drawn with the seed; the order stays.

        Raises
        ------
        UsageError
            If either would be empty.
        """
        self.check_held_out(held_out)
        order = torch.from_numpy(np.random.default_rng(check_seed(seed)).permutation(len(self)))
        parts = (order[held_out:].sort().values, order[:held_out].sort().values)
        learning, held = (replace(self, pixels=self.pixels[rows], labels=self.labels[rows]) for rows in parts)
        return learning, held

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, of values from 0 to 1."""
        counts = torch.stack(
            [torch.bincount(self.pixels[:, channel].flatten().cpu(), minlength=256) for channel in range(3)]
        ).double()
        values = torch.arange(256, dtype=torch.float64) / 255
        mean = (counts * values).sum(1) / counts.sum(1)
        spread = ((counts * values.square()).sum(1) / counts.sum(1) - mean.square()).clamp_min(0).sqrt()
        return mean.tolist(), spread.clamp_min(1e-3).tolist()


@checked
def load_pixels(
    data: str | Path,
    image_size: int,
    *,
    train: bool = True,
    n: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    root: str | Path = "~/.cache/brdyn",
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    columns_where_there: bool = False,
) -> PixelSet:
    """Decode a whole labelled set, resized to squares; images without a label are left out and counted.

    Parameters
    ----------
    data : str or path
        `cifar10` or `cifar100`, downloaded by torchvision where they are not in `root`; or images with labels, as
        :func:`brdyn.data.find_source` takes them.
    image_size : int
        Side in pixels.
    train : bool
        Which split of a named set.
    n, seed
        Use this many, drawn with the seed.
    workers : int, optional
        Loader processes.
    root : path
        Where named sets are kept.
    split, image_column, label_column, columns_where_there
        As in :func:`brdyn.data.find_source`.

    Raises
    ------
    UsageError
        If there are no labels, or not one that can be used.
    BrdynError
        If a named set cannot be downloaded, or no image can be read.

    Examples
    --------
    >>> from brdyn.classifiers import load_pixels
    >>> images = load_pixels("photos", image_size=8)
    >>> images.pixels.shape, images.names
    (torch.Size([8, 3, 8, 8]), ('cat', 'dog'))
    """
    check_least(1, image_size=image_size)
    if str(data) in NAMED:
        _refuse_choice(str(data), split, (image_column, label_column), columns_where_there)
        return _named(str(data), image_size, train, n, seed, expanded(root))
    source = find_source(
        data,
        split,
        image_column=image_column,
        label_column=label_column,
        columns_where_there=columns_where_there,
    )
    if source.labels is None:
        why = f" ({source.no_labels})" if source.no_labels else ""
        raise UsageError(
            f"{str(data)!r} has no labels{why}; give a folder of class folders, a table or data set with a label "
            "column, cifar10 or cifar100"
        )
    squares = v2.Compose([v2.PILToTensor(), v2.Resize((image_size, image_size), antialias=True)])
    images = ImageSet(source, squares, n=n, seed=seed, image_bytes=3 * image_size**2)
    pixels = torch.empty(len(images), 3, image_size, image_size, dtype=torch.uint8)
    labels = torch.empty(len(images), dtype=torch.long)
    count = 0
    for batch in images.batches(DECODED_AT_ONCE, workers=workers):
        usable = batch.labelled()
        rows = slice(count, count := count + len(usable))
        pixels[rows], labels[rows] = usable.images, usable.labels
    if not count:
        left_out = images.report.unlabelled
        raise UsageError(f"not one of the {left_out.count} images in {str(data)!r} has a label ({left_out.example()})")
    pixels, labels = pixels[:count], labels[:count]
    highest = int(labels.max()) if source.labels.highest is None else source.labels.highest
    names = source.label_names or _numbered(highest + 1)
    return PixelSet(
        pixels,
        labels,
        tuple(names),
        source.description,
        f"{images.report.digest:064x}",
        tuple(images.report.skipped),
        images.report.unlabelled,
        source.chosen() if source.image_column or source.split else {},
    )


def _numbered(count: int) -> list[str]:
    """Names of classes that have only numbers."""
    return [str(number) for number in range(count)]


def _refuse_choice(name: str, split: str | None, columns: tuple[str | None, ...], where_there: bool) -> None:
    if split is not None or (any(columns) and not where_there):
        raise UsageError(f"{name} has neither columns nor another split; drop `split` and the columns")


def pixel_digest(pixels: Tensor) -> str:
    """SHA-256 of images `(n, 3, H, W)`."""
    return hashlib.sha256(pixels.cpu().contiguous().numpy().data).hexdigest()


def check_classes(images: PixelSet, names: Sequence[str], whose: str) -> None:
    """Refuse images of other classes than those of `whose`; of numbered ones the last may be missing.

    Raises
    ------
    UsageError
        With both numbers of classes.
    """
    numbered = tuple(_numbered(len(names))) == tuple(names)
    if images.names != (tuple(names[: images.classes]) if numbered else tuple(names)):
        raise UsageError(
            f"{images.description!r} has {images.classes} classes ({images.names[0]}, …), and {whose} {len(names)} "
            f"({names[0]}, …); give images of the same classes"
        )


def _named(name: str, size: int, train: bool, n: int | None, seed: int, root: Path) -> PixelSet:
    import torchvision

    try:
        found = getattr(torchvision.datasets, NAMED[name])(root, train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise BrdynError(
            f"cannot get {name} ({str(error).splitlines()[0]}); give a parquet file or folder of it by `data`, or put "
            f"it in {str(root)!r}"
        ) from error
    pixels = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor(found.targets)
    if n is not None and n < len(labels):
        rows = torch.from_numpy(choose(len(labels), n, seed))
        pixels, labels = pixels[rows], labels[rows]
    digest = pixel_digest(pixels)  # of what was read: resizing differs between machines
    if pixels.shape[-1] != size:
        pixels = v2.functional.resize(pixels, [size, size], antialias=True)
    return PixelSet(pixels, labels, tuple(found.classes), name, digest)


@dataclass
class PixelBatches:
    """Shuffled batches of a set of pixels, as :class:`brdyn.data.shuffled.ShuffledBatches` has of files.

    Attributes
    ----------
    images : PixelSet
        On the device that trains.
    batch_size : int
        Images of a step over all processes.
    seed : int
    """

    images: PixelSet
    batch_size: int
    seed: int = 0

    report = None  # of what is read as it goes: everything was before

    def __post_init__(self) -> None:
        """Refuse a set that does not fill a batch."""
        check_batch(len(self.images), self.batch_size)

    def batches(
        self, start: int, stop: int, *, rank: int = 0, world: int = 1, pieces: int = 1, pin: bool = False
    ) -> Iterator[list[Batch]]:
        """The share of a process in steps `start` to `stop - 1`, each as `pieces` batches; nothing is to be pinned."""
        for step in range(start, stop):
            positions = shuffled_positions(len(self.images), self.batch_size, self.seed, step)[rank::world]
            yield [
                Batch(self.images.pixels[rows], rows, self.images.labels[rows])
                for part in np.array_split(positions, pieces)
                for rows in [torch.from_numpy(part).to(self.images.labels.device)]
                if len(part)
            ]
