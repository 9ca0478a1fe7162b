"""Images as files: a folder of them, searched recursively, or one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from brdyn.data.files import Names, read_regular, shown
from brdyn.data.labels import Labels
from brdyn.data.sources import ImageSource, RawImage, Skipped
from brdyn.data.splits import ALIASES, choose_split, split_of
from brdyn.errors import UsageError
from brdyn.store.result_files import files_of_results

EXTENSIONS = frozenset(
    (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
        ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".tga", ".heic", ".heif", ".hif", ".jxl",
    )
)  # fmt: skip
"""Of images, also of kinds that no decoder may be here for: those are named instead of passed over."""


class FileSource(ImageSource):
    """Files on disk.

    Classes are the first-level folders when every image is in one. Where these are all named as splits are (train, val,
    test), or two of them are, they are splits, and classes are the folders in them.

    Parameters
    ----------
    root : Path
        The folder, or the one image.
    names : list of str
        Below it.
    split : str, optional
    unlisted : tuple of Skipped
    """

    files: Names

    def __init__(
        self, root: Path, names: list[str], split: str | None = None, unlisted: tuple[Skipped, ...] = ()
    ) -> None:
        self.description = shown(root)
        self.unlisted = unlisted
        first = {_first_folder(name) for name in names}
        places = {one: split_of(f"{one}/") for one in first}
        splits = {place for place in places.values() if place is not None}
        self._level = 0
        if {one.lower() for one in first} <= set(ALIASES) or len(splits) > 1 or split is not None:
            self.split = choose_split(places.values(), split, repr(self.description))
            names = [name for name in names if places[_first_folder(name)] == self.split]
            self._level = 1
        self.files = Names(root, names)
        folders = {self._class(name) for name in names}
        if "" not in folders:
            self.labels = Labels.named(sorted(folders))

    def __len__(self) -> int:
        return len(self.files.names)

    def read(self, index: int) -> RawImage:
        data = read_regular(self.files[index])
        if self.labels is None:
            return RawImage(self.name(index), data)
        return RawImage(self.name(index), data, *self.labels.read(self._class(self.files.names[index])))

    def name(self, index: int) -> str:
        """The path, relative to the folder."""
        return shown(self.files.names[index] or self.files.root)

    def _class(self, name: str) -> str:
        """The folder that names the class, empty for none."""
        parts = name.split("/", self._level + 1)
        return shown(parts[self._level]) if len(parts) > self._level + 1 else ""


def _first_folder(name: str) -> str:
    """Empty for a file in none."""
    return name.split("/", 1)[0] if "/" in name else ""


def walk(root: Path) -> tuple[list[str], list[Skipped], list[str]]:
    """The names of all files below a folder, sorted part by part, the folders that cannot be looked into, and brdyn's.

    Hidden ones are left out, and those that results of brdyn say are their own: figures are no photographs, and tables
    no images. Links are followed, and each folder is visited once, however many links lead to it.
    """
    names: list[str] = []
    unlisted: list[Skipped] = []
    of_results: list[str] = []
    seen: set[tuple[int, int]] = set()

    def entries(folder: str) -> Iterator[tuple[str, bool]]:
        start = f"{folder}/" if folder else ""
        try:
            state = os.stat(os.path.join(root, folder))
            if (
                state.st_dev,
                state.st_ino,
            ) in seen:  # a link back up the tree, or a second one to the same folder
                return iter(())
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(os.path.join(root, folder)) as found:
                every = {one.name: _is_folder(one) for one in found}
            own = files_of_results(Path(root, folder), every)
            listed = sorted(one for one in every.items() if one[0][0] != "." and one[0] not in own)
            of_results.extend(start + name for name in sorted(own))
        except OSError as error:
            unlisted.append(Skipped(shown(folder or root), f"the folder cannot be listed ({error.strerror})"))
            return iter(())
        return iter([(start + name, is_folder) for name, is_folder in listed])

    open_folders = [entries("")]
    while open_folders:
        for name, is_folder in open_folders[-1]:
            if is_folder:
                open_folders.append(entries(name))
                break
            names.append(name)
        else:
            open_folders.pop()
    return names, unlisted, of_results


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def no_such_kind(root: Path, names: list[str], kinds: str) -> UsageError:
    """What to say of a folder without images: what it holds instead."""
    endings: dict[str, int] = {}
    for name in names:
        ending = os.path.splitext(name)[1].lower() or "no ending"
        endings[ending] = endings.get(ending, 0) + 1
    most = sorted(endings, key=lambda ending: -endings[ending])[:5]
    holds = ", ".join(f"{endings[one]} {shown(one)}" for one in most) if most else "nothing"
    return UsageError(f"no images in {shown(root)!r}: it holds {holds}; searched recursively for {kinds}")
