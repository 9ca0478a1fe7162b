"""Encoded images in the cells of tables that strangers made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from brdyn.data.files import check_size, read_regular, shown
from brdyn.words import shortened


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
