"""Reading files that strangers made: regular ones, of a size that an image can have, under names that can be shown."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

LARGEST_FILE = 256 * 2**20
"""Bytes of an encoded image: files and table cells that are larger are skipped unread."""

KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO (named pipe)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def shown(name: str | os.PathLike[str]) -> str:
    """A name for messages and results: what is not UTF-8 or not printable (a line break, an escape) is escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def check_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """The state of a regular file, links followed. It is not opened: opening a FIFO would wait, a device act.

    Raises
    ------
    OSError
        If it is something else, is not there or may not be looked at.
    """
    state = os.stat(path)
    _refuse_others(state.st_mode)
    return state


def _refuse_others(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((words for test, words in KINDS if test(mode)), "something else")
        raise OSError(f"{kind}, not a regular file")


def read_regular(
    path: str | os.PathLike[str], offset: int = 0, size: int | None = None, limit: int = LARGEST_FILE
) -> bytes:
    """The bytes of a regular file, or `size` of them from `offset`.

    Raises
    ------
    OSError
        If it is no regular file, is larger than `limit` bytes, ends too early or cannot be read.
    """
    check_regular(path)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with open(handle, "rb") as file:
        state = os.fstat(handle)
        _refuse_others(state.st_mode)  # should it have been exchanged meanwhile
        wanted = state.st_size if size is None else size
        check_size(wanted, limit)
        file.seek(offset)
        data = file.read(wanted if size is not None else limit + 1)
    check_size(len(data), limit)  # a file of /proc says 0 bytes
    if size is not None and len(data) < size:
        raise OSError("the file ends too early; is the copy complete?")
    return data


def check_size(size: int, limit: int = LARGEST_FILE) -> None:
    """Raise an `OSError` for more bytes than an image has."""
    if size > limit:
        raise OSError(f"{size / 2**20:.0f} MiB encoded are more than the {limit / 2**20:.0f} MiB that are read")


class Names:
    """The names of many files below a folder, two thirds smaller than `Path`s; `/` between their parts."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self.root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Path:
        return self.root / self.names[index]

    def __iter__(self) -> Iterator[Path]:
        return (self.root / name for name in self.names)


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` places, evenly spaced, with the first and the last."""
    if count < 1:
        return np.empty(0, dtype=np.int64)
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
