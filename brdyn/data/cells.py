"""Tables that strangers made: which columns are read, and encoded images in their cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from brdyn.data.columns import Asked, Column, choose_image, choose_label, choose_target, make_labels
from brdyn.data.files import check_size, read_regular, shown
from brdyn.data.labels import NO_LABEL
from brdyn.data.sources import ImageSource, RawImage
from brdyn.errors import UsageError
from brdyn.words import shortened


class TableSource(ImageSource):
    """Base of the sources that choose among columns, and make images of rows."""

    image_column: str

    def choose(
        self, columns: Sequence[Column], asked: Asked, where: str, arrays: Callable[[str], Iterable[Any]]
    ) -> None:
        """Choose the columns of images, targets and labels; `arrays` gives the Arrow arrays of one by its name."""
        self.image_column = choose_image(columns, asked, where).name
        target = choose_target(columns, asked, where)
        self.target_column = None if target is None else target.name
        self.choose_labels(columns, asked, where, arrays)

    def choose_labels(
        self, columns: Sequence[Column], asked: Asked, where: str, arrays: Callable[[str], Iterable[Any]]
    ) -> None:
        """Choose the column of labels, and make its classes.

        Raises
        ------
        UsageError
            If the one asked for cannot hold labels.
        """
        label, self.no_labels = choose_label(columns, asked, where)
        if label is None:
            return
        self.labels, self.no_labels = make_labels(label, lambda: arrays(label.name))
        if self.labels is not None:
            self.label_column = label.name
        elif asked.label == label.name:
            raise UsageError(f"{self.no_labels}; choose another `label_column`")

    def columns_read(self) -> list[str]:
        """The names of those that were chosen, each once."""
        read = (self.image_column, self.label_column, self.target_column)
        return list(dict.fromkeys(name for name in read if name is not None))

    def raw(self, index: int, cell: Callable[[str], Any], folders: Sequence[Path]) -> RawImage:
        """The image of a row, whose cells are given by their column."""
        data, path = picture(cell(self.image_column), folders)
        label, why = NO_LABEL, ""
        if self.labels is not None and self.label_column is not None:
            label, why = self.labels.read(cell(self.label_column).as_py())
        target = None if self.target_column is None else picture(cell(self.target_column), folders)[0]
        return RawImage(f"{self.name(index)} {path}" if path else self.name(index), data, label, why, target)


def picture(cell: Any, folders: Sequence[Path]) -> tuple[bytes, str]:
    """The bytes of an image and the path that is noted beside them (empty for none).

    Parameters
    ----------
    cell : pyarrow Scalar
        Bytes, or a struct of bytes and path.
    folders : sequence of Path
        Where null bytes may be read by their path: below these, nowhere else.

    Raises
    ------
    OSError
        If the cell holds no image, or too large a one.
    """
    whole = not hasattr(cell, "keys")
    data = cell if whole else (cell["bytes"] if cell.is_valid else None)
    path = "" if whole or not cell.is_valid or "path" not in cell else cell["path"].as_py() or ""
    if data is not None and data.is_valid:
        check_size(data.as_buffer().size)
        return data.as_py(), shown(str(path))
    if not path:
        raise OSError("the row holds no image")
    return read_regular(inside(str(path), folders)), shown(str(path))


def inside(path: str, folders: Sequence[Path]) -> Path:
    """The file that a path in somebody's table means.

    Raises
    ------
    OSError
        If it leads out of these folders. Links in them lead where whoever made them wants.
    """
    asked = PurePosixPath(path)
    if ".." not in asked.parts and "\0" not in path:
        for folder in folders:
            if not asked.is_absolute() or asked.is_relative_to(folder):
                return folder / asked
    raise OSError(
        f"its path {shortened(shown(path), 80)!r} leads out of the folder of the data set and is not followed"
    )
