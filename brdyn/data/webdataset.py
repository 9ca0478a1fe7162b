"""Images in tar files as the webdataset library reads them: `0001.jpg` beside `0001.cls`, `0001.json` or `0001.txt`.

A first pass notes where every image lies, so that they can be read in any order. The files are never unpacked.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from brdyn.data.cells import TableSource
from brdyn.data.columns import LABEL_COLUMNS, Asked, Column, arrow_column, choose_image
from brdyn.data.files import Names, check_regular, read_regular, shown
from brdyn.data.folders import EXTENSIONS
from brdyn.data.labels import NO_LABEL
from brdyn.data.sources import RawImage
from brdyn.data.splits import in_split
from brdyn.errors import BrdynError, UsageError
from brdyn.words import first_line

ENDINGS = (".tar",)
LARGEST_NOTE = 2**20
PLAIN = "image"
WHOLE = re.compile(r"-?\d{1,18}")


class TarSource(TableSource):
    """Images of tar files.

    Columns are what follows the first dot of a name: `seg.png` is column `seg`, and plain `jpg` or `png` is column
    `image`; `cls` and `txt` are columns, and so are the keys of `json`.

    Parameters
    ----------
    root : Path
        The folder, or the one file.
    names : list of str
        Files below it.
    split : str, optional
        Where files name several.
    asked : Asked, optional
        Columns.

    Raises
    ------
    UsageError
        If columns or a split are not to be had as asked.
    BrdynError
        If a file is no tar, or is cut short.
    """

    files: Names

    def __init__(self, root: Path, names: list[str], split: str | None = None, asked: Asked | None = None) -> None:
        self.description = shown(root)
        asked, where = asked or Asked(), repr(self.description)
        self.split, names = in_split(names, split, where)
        self.files = Names(root, names)
        index = _Index(asked.label)
        for number, path in enumerate(self.files):
            index.add(number, path)
        index.number()
        columns = index.columns()
        self.image_column = choose_image(columns, asked, where).name
        self._keys, self._places = index.images(self.image_column)
        self.choose_labels(columns, asked, where, lambda name: [as_arrow(list(index.notes[name].values()))])
        cells = index.notes[self.label_column] if self.label_column is not None else {}
        places = zip(self._places[:, 0].tolist(), self._keys, strict=True)
        self._cells = [cells.get(place) for place in places] if cells else []

    def __len__(self) -> int:
        return len(self._keys)

    def read(self, index: int) -> RawImage:
        number, offset, size = self._places[index].tolist()
        data = read_regular(self.files[number], offset, size)
        label, why = NO_LABEL, ""
        if self.labels is not None:
            label, why = self.labels.read(self._cells[index])
        return RawImage(self.name(index), data, label, why)

    def name(self, index: int) -> str:
        """File and key."""
        file = self.files[int(self._places[index, 0])]
        return f"{shown(file.name)} {shown(self._keys[index])}"


class _Index:
    """What lies where in tar files."""

    def __init__(self, asked_label: str | None) -> None:
        self.wanted = {*LABEL_COLUMNS, asked_label}
        self.pictures: dict[str, dict[tuple[int, str], tuple[int, int]]] = {}
        self.notes: dict[str, dict[tuple[int, str], Any]] = {}

    def add(self, number: int, path: Path) -> None:
        """The members of a file."""
        for member, data in members(path):
            folder, _, base = member.name.rpartition("/")
            stem, _, ending = base.partition(".")
            if not stem or not ending or base.startswith("."):
                continue
            key, ending = (number, f"{folder}/{stem}" if folder else stem), ending.lower()
            last = f".{ending.rpartition('.')[2]}"
            if last in EXTENSIONS:
                column = ending.rpartition(".")[0] or PLAIN
                there = self.pictures.setdefault(column, {})
                if key in there:
                    raise UsageError(
                        f"{shown(path)!r} holds two images of {shown(key[1])!r}; one of them needs a name of its own, "
                        f"as {shown(stem)}.mask{last}"
                    )
                there[key] = (member.offset_data, member.size)
            elif data is not None:
                self._note(key, ending, data)

    def _note(self, key: tuple[int, str], ending: str, data: bytes) -> None:
        text = data.decode("utf-8", "replace").strip()
        if ending in ("cls", "txt") and ending in self.wanted:
            self.notes.setdefault(ending, {})[key] = text
        if ending == "json":
            try:
                content = json.loads(text)
            except (ValueError, RecursionError):
                return  # an image without label
            for name, value in content.items() if isinstance(content, dict) else ():
                if name in self.wanted:
                    self.notes.setdefault(name, {})[key] = value

    def number(self) -> None:
        """Make numbers of `cls` and `txt` where all of them are some."""
        for ending in ("cls", "txt"):
            cells = self.notes.get(ending, {})
            if cells and all(WHOLE.fullmatch(text) for text in cells.values()):
                self.notes[ending] = {key: int(text) for key, text in cells.items()}

    def columns(self) -> list[Column]:
        """Of all files."""
        import pyarrow as pa

        pictures = [arrow_column(name, pa.binary()) for name in sorted(self.pictures)]
        return pictures + [
            arrow_column(name, as_arrow(list(cells.values())).type) for name, cells in self.notes.items()
        ]

    def images(self, column: str) -> tuple[list[str], np.ndarray]:
        """Keys, and file number, offset and size `(n, 3)`, in the order of the files."""
        there = self.pictures[column]
        places = [(key[0], *place) for key, place in there.items()]
        return [key[1] for key in there], np.array(places, dtype=np.int64).reshape(-1, 3)


def as_arrow(cells: list[Any]) -> Any:
    """The values of a column, null for numbers beyond any type; lists, which hold no labels, where kinds differ."""
    import pyarrow as pa

    try:
        return pa.array([None if isinstance(cell, int) and abs(cell) >= 2**63 else cell for cell in cells])
    except (pa.ArrowException, OverflowError, ValueError):
        return pa.array([[]])


def members(path: Path) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """The regular members of a tar file, with the contents of small ones that are no images.

    Raises
    ------
    BrdynError
        If it is no tar file, is compressed, or ends before its end mark.
    """
    try:
        size = check_regular(path).st_size
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isreg() and not member.issparse():
                    ending = os.path.splitext(member.name)[1].lower()
                    small = ending in (".cls", ".txt", ".json") and member.size <= LARGEST_NOTE
                    yield member, read_regular(path, member.offset_data, member.size) if small else None
            end = archive.offset
        if end >= size or any(read_regular(path, end, min(size - end, tarfile.BLOCKSIZE))):
            raise tarfile.ReadError("no end mark")
    except (tarfile.TarError, OSError, ValueError, RecursionError) as error:
        raise BrdynError(
            f"cannot read {shown(path)!r} as an uncompressed tar file ({shown(first_line(error))}); is the copy "
            "complete, and is it compressed?"
        ) from error
