"""Features of every layer and the targets beside them, extracted once and kept in memory-mapped files.

Peak memory does not grow with the number of images: a batch is written as it comes, and training reads
back what a step
needs. Features are kept in float16, in which the tokens of a final norm are exact to three digits.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from brdyn.checked_json import expanded
from brdyn.data import DenseSet
from brdyn.data.targets import DEPTH, MASK
from brdyn.errors import BrdynError, UsageError
from brdyn.models import TokenLayout, VisionTransformer
from brdyn.probes.maps import Tokens
from brdyn.store import reserve, unwritable
from brdyn.trajectory import Stream, Trajectory, trajectories
from brdyn.words import bytes_in_words

BYTES = 2  # of a float16
KINDS = {MASK: np.int16, DEPTH: np.float32}
SPARED = 2**30  # bytes of the disk that are left free
STANDARD_IMAGES = 64
NARROWEST = 1e-4

Place = tuple[int, ...]
"""Layers whose features a head reads, side by side."""
Features = Callable[[slice], Tensor]
"""Gives those of some images of a batch, `(b, layers, T, D)`."""


@dataclass(frozen=True)
class Readout:
    """Where the states of a model come from, in a pass over images.

    Attributes
    ----------
    model : VisionTransformer
        Whose final norm is applied to the state of each layer.
    states : callable
        `a_0 .. a_L` of a trajectory of the pass.
    """

    model: VisionTransformer
    states: Callable[[Trajectory], Sequence[Tensor]] = lambda trajectory: trajectory.states

    def features(self, trajectory: Trajectory, layers: Sequence[int]) -> Tensor:
        """cls, where there is one (the mean of several), and patches, normed: `(B, layers, T, D)`, float16."""
        states, tokens, found = self.states(trajectory), self.model.tokens, []
        for layer in layers:
            with torch.no_grad():
                normed = self.model.norm(states[layer])
            parts = [normed[:, tokens[tokens.spatial]]]
            if tokens.answer is not None:
                parts.insert(0, normed[:, tokens[tokens.answer]].mean(1, keepdim=True))
            found.append(torch.cat(parts, 1))
        return torch.stack(found, 1).half()


def check_patches(model: VisionTransformer) -> TokenLayout:
    """The layout of a model whose spatial tokens tile the image.

    Raises
    ------
    UsageError
        If they do not, so that nothing can be read for each place.
    """
    tokens = model.tokens
    if tokens.spatial not in tokens or tokens.sizes()[tokens.spatial] != prod(tokens.grid):
        raise UsageError(
            f"{model.info.name!r} has no patches that tile the image, so masks and depth cannot be read from it; "
            "choose another `model`"
        )
    return tokens


@dataclass
class FeatureStore:
    """Features and targets of images, on disk.

    Attributes
    ----------
    values : ndarray
        `(n, layers, T, D)`, float16: cls, where there is one, and the patches.
    targets : ndarray
        `(n, H, W)`.
    positions : list of int
        Of the images in their set.
    layers : tuple of int
    grid : (int, int)
    answer : bool
        Whether the first token is cls.
    """

    values: np.ndarray
    targets: np.ndarray
    layers: Place
    grid: tuple[int, int]
    answer: bool
    positions: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the targets."""
        return self.targets.shape[1], self.targets.shape[2]

    @property
    def width(self) -> int:
        """D."""
        return self.values.shape[-1]

    def add(self, values: Tensor, targets: Tensor, positions: Tensor) -> None:
        """Write the images of a batch."""
        start = len(self)
        self.values[start : start + len(values)] = values.cpu().numpy()
        self.targets[start : start + len(values)] = targets.cpu().numpy()
        self.positions += positions.tolist()
        self.release()

    def read(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features `(B, layers, T, D)`, float32, and targets `(B, H, W)`."""
        return self.features(rows), self.truth(rows)

    def features(self, rows: np.ndarray) -> Tensor:
        """Those of some rows, `(B, layers, T, D)`, float32."""
        found = torch.from_numpy(self.values[rows]).float()
        self.release()
        return found

    def truth(self, rows: np.ndarray) -> Tensor:
        """Targets of some rows, `(B, H, W)`."""
        found = torch.from_numpy(self.targets[rows])
        self.release()
        return found

    def release(self) -> None:
        """Let go of the pages of the files that were looked at: they would count as this process's memory."""
        for one in (self.values, self.targets):
            mapped = getattr(one, "_mmap", None)
            if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)  # what was written stays in the file

    def batches(self, rows: np.ndarray, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Those rows, some at a time."""
        for start in range(0, len(rows), size):
            yield self.read(rows[start : start + size])

    def pairs(self, rows: np.ndarray, size: int) -> Iterator[tuple[Features, Tensor]]:
        """Those rows, some at a time: what reads the features of some of these, and the targets of all."""
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            yield partial(self._some, batch), self.truth(batch)

    def _some(self, rows: np.ndarray, some: slice) -> Tensor:
        return self.features(rows[some])


def stored_tokens(tokens: TokenLayout) -> int:
    """T: cls, where there is one, and the patches."""
    return (tokens.answer is not None) + prod(tokens.grid)


def image_bytes(models: Sequence[VisionTransformer], layers: Sequence[int], kind: str) -> int:
    """On disk, for one image: its features of each model, and its target of this kind."""
    features = sum(stored_tokens(model.tokens) * model.info.width for model in models)
    return BYTES * len(layers) * features + np.dtype(KINDS[kind]).itemsize * prod(models[0].info.image_size)


def described(folder: Path, images: int, one: int) -> str:
    """The size of stores, before they are made."""
    return (
        f"features and targets in {str(folder)!r} until the end of the run: {images} images x {bytes_in_words(one)} = "
        f"{bytes_in_words(images * one)}"
    )


@contextmanager
def scratch(cache: str | Path | None) -> Iterator[Path]:
    """A folder for stores, in `cache` or where the system has such; it goes at the end, also of a failure.

    Raises
    ------
    UsageError
        If it cannot be made.
    """
    try:
        if cache is not None:
            expanded(cache).mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=None if cache is None else expanded(cache), prefix="brdyn-features-")
    except OSError as error:
        where = "among the temporary files" if cache is None else repr(str(cache))
        raise UsageError(
            f"cannot make the folder of features {where} ({error.strerror}); choose another `cache`"
        ) from error
    with folder as path:
        yield Path(path)


def check_room(folder: Path, images: int, one: int) -> None:
    """Refuse features that the disk does not hold.

    Raises
    ------
    UsageError
        With what would do.
    """
    free = psutil.disk_usage(str(folder)).free - SPARED
    if images * one > free:
        raise UsageError(
            f"features and targets of {images} images take {bytes_in_words(images * one)}, and "
            f"{bytes_in_words(max(free, 0))} are free in {str(folder)!r}; use fewer `layers` or images (`n`), or "
            "another `cache`"
        )


def extract_stores(
    readouts: Mapping[str, Readout],
    images: DenseSet,
    layers: Place,
    folder: Path,
    stream: Stream | None = None,
) -> dict[str, FeatureStore]:
    """Features of all images, of several models in one pass; their targets lie in one file.

    Parameters
    ----------
    readouts : mapping of str to Readout
        By model; the first is run on the images.
    images : DenseSet
    layers : tuple of int
    folder : Path
        Where the files go.
    stream : Stream, optional

    Raises
    ------
    BrdynError
        If a feature is not finite in float16, no image can be read, or the disk is full.
    """
    first = next(iter(readouts.values())).model
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    shape = (len(images), *first.info.image_size)
    targets = _mapped(folder / "targets", KINDS[images.targets.kind], shape)
    stores = {  # a model may be called by a path, so that files have numbers
        name: _empty(one.model, targets, layers, folder / f"{number}.features")
        for number, (name, one) in enumerate(readouts.items())
    }
    for trajectory in trajectories(first, images, stream=stream):
        assert trajectory.targets is not None
        for name, readout in readouts.items():
            values = readout.features(trajectory, layers)
            if not values.isfinite().all():
                raise BrdynError(
                    f"the final norm of {readout.model.info.name!r} gives values that float16 cannot hold; read fewer "
                    "`layers`"
                )
            stores[name].add(values, trajectory.targets, trajectory.positions)
        del trajectory
    return stores


def _mapped(path: Path, kind: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A file of zeros in memory; a disk that is full is told now, and would end the process later (SIGBUS)."""
    reserve(path, prod(shape) * np.dtype(kind).itemsize)
    return np.memmap(path, kind, "r+", shape=shape)


def _empty(model: VisionTransformer, targets: np.ndarray, layers: Place, path: Path) -> FeatureStore:
    tokens = check_patches(model)
    shape = (len(targets), len(layers), stored_tokens(tokens), model.info.width)
    values = _mapped(path, np.float16, shape)
    return FeatureStore(values, targets, layers, tokens.grid, tokens.answer is not None)


@dataclass(frozen=True)
class Standard:
    """Mean and spread of each feature of each layer over some training images, cls apart from patches.

    A linear head is no other for it, but one learning rate then suits every layer.

    Attributes
    ----------
    mean, scale : Tensor
        `(layers, 2, D)`: of cls (0 and 1 where there is none), of patches.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, store: FeatureStore, rows: np.ndarray) -> Standard:
        """Over at most `STANDARD_IMAGES` of these rows, evenly spaced."""
        chosen = np.unique(rows[np.linspace(0, len(rows) - 1, min(len(rows), STANDARD_IMAGES)).astype(int)])
        first = int(store.answer)
        sums = torch.zeros(2, 2, len(store.layers), store.width, dtype=torch.float64)
        for values, _ in store.batches(chosen, 8):
            for place, part in enumerate((values[:, :, :first], values[:, :, first:])):
                sums[0, place] += part.double().sum((0, 2))
                sums[1, place] += part.double().square().sum((0, 2))
        counts = torch.tensor([max(first, 1), store.values.shape[2] - first]) * len(chosen)
        mean, square = (one.movedim(0, 1) / counts[None, :, None] for one in sums)
        scale = (square - mean.square()).clamp_min(0).sqrt()
        if not first:
            scale[:, 0] = 1
        return cls(mean.float(), torch.where(scale > NARROWEST, scale, 1.0).float())

    @classmethod
    def none(cls, store: FeatureStore) -> Standard:
        """Features as they are."""
        shape = (len(store.layers), 2, store.width)
        return cls(torch.zeros(shape, dtype=torch.float32), torch.ones(shape, dtype=torch.float32))

    def tokens(
        self,
        values: Tensor,
        store_layers: Place,
        places: Sequence[Place],
        grid: tuple[int, int],
        answer: bool,
    ) -> Tokens:
        """What heads read at these places (as many layers each), of features `(B, layers, T, D)`."""
        index = torch.tensor([[store_layers.index(layer) for layer in place] for place in places])
        first = int(answer)

        def side_by_side(part: Tensor, which: int) -> Tensor:
            normed = (part - self.mean[:, which][:, None]) / self.scale[:, which][:, None]
            return normed[:, index].permute(1, 0, 3, 2, 4).flatten(3)  # (S, B, T, m D)

        patches = side_by_side(values[:, :, first:], 1)
        return Tokens(patches, side_by_side(values[:, :, :first], 0)[:, :, 0] if answer else None, grid)
