"""Where images come from: a folder, files, parquet, a hub data set, the packaged samples.

A source knows how many images it has and hands out the encoded bytes of one by index. Sources are
plain picklable objects, so that loader processes can hold their own copy.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brdyn import hub
from brdyn.errors import BrdynError, UsageError

EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".avif",
        ".tga",
    ]
)


@dataclass(frozen=True)
class RawImage:
    """One encoded image: its name for messages, its bytes, its class index where there is one."""

    name: str
    data: bytes
    label: int | None = None


class ImageSource(ABC):
    """A finite, indexable collection of encoded images.

    Attributes
    ----------
    description : str
        Written into results.
    label_names : list of str or None
        Class names; None where images have no labels.
    paths : sequence of Path
        The files it reads, where it knows them.
    """

    description: str
    label_names: list[str] | None = None
    paths: Sequence[Path] = ()

    @property
    def labelled(self) -> bool:
        """Whether images have class indices, named or not."""
        return self.label_names is not None

    @abstractmethod
    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """SHA-256 of the names, sizes and times of its files, or of its description where it knows none."""
        found = hashlib.sha256(self.description.encode() if not self.paths else b"")
        for path in self.paths:
            state = path.stat()
            found.update(f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
        return found.hexdigest()

    @abstractmethod
    def read(self, index: int) -> RawImage:
        """Return the encoded image at `index`; may raise `OSError`."""

    def name(self, index: int) -> str:
        """What to call the image at `index` when it cannot even be opened."""
        return f"{self.description}[{index}]"

    def at_random(self, chosen: np.ndarray) -> ImageSource:
        """The same images in a form that is quick to read in any order; only those `chosen` need be there."""
        return self


class LoadedSource(ImageSource):
    """Images of another source, encoded, in memory."""

    def __init__(self, source: ImageSource, images: dict[int, RawImage | str]) -> None:
        self.description, self.label_names = source.description, source.label_names
        self.images = images
        self._count, self._labelled = len(source), source.labelled

    def __len__(self) -> int:
        return self._count

    @property
    def labelled(self) -> bool:
        """As the other source."""
        return self._labelled

    def read(self, index: int) -> RawImage:
        """The image, or what was wrong with it."""
        image = self.images[index]
        if isinstance(image, str):
            raise OSError(image)
        return image


class FileSource(ImageSource):
    """Files on disk; classes are the first-level folders when every image is in one."""

    def __init__(self, root: Path, paths: list[Path]) -> None:
        self.root = root
        self.paths = paths
        self.description = str(root)
        parents = [path.relative_to(root).parts[:-1] for path in paths] if root.is_dir() else []
        if parents and all(parents):
            self.label_names = sorted({parts[0] for parts in parents})
        self._index = {label: index for index, label in enumerate(self.label_names or [])}

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> RawImage:
        """Read one file."""
        path = self.paths[index]
        label = self._index[path.relative_to(self.root).parts[0]] if self._index else None
        return RawImage(self.name(index), path.read_bytes(), label)

    def name(self, index: int) -> str:
        """The path, relative to the folder."""
        path = self.paths[index]
        return str(path.relative_to(self.root)) if path != self.root else str(path)


class HubSource(ImageSource):
    """A split of a data set on the Hugging Face hub or in its cache: `owner/name` or `owner/name:configuration`."""

    def __init__(self, name: str, split: str) -> None:
        import datasets

        self.description = f"{name}[{split}]"
        repository, _, configuration = name.partition(":")
        try:
            with hub.hub_access():
                rows = datasets.load_dataset(repository, configuration or None, split=split)
        except ValueError as error:
            if "split" in str(error).lower():
                raise UsageError(
                    f"{name!r} has no split {split!r} ({hub.first_line(error)}); name one: {name}@SPLIT"
                ) from error
            if "config name" in str(error).lower():
                raise UsageError(
                    f"{name!r} needs a configuration ({hub.first_line(error)}); "
                    f"give --images {repository}:CONFIGURATION"
                ) from error
            raise BrdynError(f"cannot load the data set {name!r} ({hub.first_line(error)})") from error
        except Exception as error:  # the hub raises a dozen kinds, all meaning "not to be had"
            raise BrdynError(
                f"cannot load the data set {name!r} ({hub.reason(error)}); check its name and the network, "
                "or give --images a folder, a parquet file or 'samples'"
            ) from error
        columns = [key for key, feature in rows.features.items() if isinstance(feature, datasets.Image)]
        if not columns:
            raise UsageError(
                f"the data set {name!r} has no image column among {', '.join(rows.column_names)}"
            )
        self._image = columns[0]
        self._rows = rows.cast_column(self._image, datasets.Image(decode=False))
        labels = [key for key, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)]
        self._label = labels[0] if labels else None
        self.label_names = list(rows.features[labels[0]].names) if labels else None

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> RawImage:
        """Read one row."""
        row = self._rows[index]
        cell = row[self._image]
        data = cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
        return RawImage(self.name(index), data, row[self._label] if self._label else None)


def find_source(images: str | Path, split: str | None = None) -> ImageSource:
    """The source a user means by `--images`.

    Parameters
    ----------
    images : str or path
        `samples`, a folder (searched recursively), an image, a parquet file, or a hub data set id (`owner/name`, with
        `:configuration` and `@split` where wanted).
    split : str, optional
        Split of a hub data set, where its id does not say; `train` when not given.

    Raises
    ------
    UsageError
        If nothing of the kind exists, or a folder holds no images.

    Examples
    --------
    >>> from brdyn.data import find_source
    >>> source = find_source("photos")
    >>> len(source), source.name(0), source.label_names
    (8, 'cat/0.png', ['cat', 'dog'])
    """
    from brdyn.data.parquet import ParquetSource
    from brdyn.data.samples import SampleSource

    text = str(images)
    path = Path(text).expanduser()
    if text == "samples":
        source: ImageSource = SampleSource()
    elif path.is_dir():
        source = _folder(path)
    elif path.is_file():
        source = ParquetSource(path, [path]) if path.suffix == ".parquet" else FileSource(path, [path])
    elif _looks_like_a_path(text):
        raise UsageError(f"no images at {text!r}: no such file or folder")
    else:
        name, _, own = text.partition("@")
        if own and split is not None:
            raise UsageError(f"{text!r} names a split already; drop --split")
        return HubSource(name, own or split or "train")
    if split is not None:
        raise UsageError(f"--split is for hub data sets, and {text!r} is not one; drop it")
    return source


def _looks_like_a_path(text: str) -> bool:
    suffix = Path(text).suffix.lower()
    return (
        text.startswith((".", "/", "~"))
        or text.count("/") > 1
        or suffix in EXTENSIONS | {".parquet"}
        or not text
    )


def _folder(root: Path) -> ImageSource:
    from brdyn.data.parquet import ParquetSource

    files = sorted(_walk(root))
    images = [path for path in files if path.suffix.lower() in EXTENSIONS]
    if images:
        return FileSource(root, images)
    shards = [path for path in files if path.suffix == ".parquet"]
    if shards:
        return ParquetSource(root, shards)
    raise UsageError(
        f"no images in {str(root)!r} (searched for {', '.join(sorted(EXTENSIONS)[:6])}, … and .parquet, recursively)"
    )


def _walk(root: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up the tree
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield from (Path(folder) / name for name in names if not name.startswith("."))
