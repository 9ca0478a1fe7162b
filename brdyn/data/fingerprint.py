"""What files hold, as one number that a copy of them elsewhere has too."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from brdyn.data.files import Names, evenly, read_regular

READ_AT_MOST = 256 * 2**20
BLOCK = 2**16
LOOKED_AT = 2**17
OPENED = 2**11


def fingerprint(files: Names) -> str:
    """SHA-256 of the names, sizes and contents of files. Neither where they are nor when they were made counts.

    All contents are read up to 256 MiB in total; above that blocks of 64 KiB, evenly spaced over evenly spaced files
    (and of more than 131 072 files only so many sizes), so that it takes a second or two. Files that cannot be read
    count by their names.
    """
    named = hashlib.sha256()
    for name in files.names:
        named.update(os.fsencode(name) + b"\0")
    return _held(files, named)


def contents(files: Names) -> str:
    """The same without the names: of files in this order, whatever they are called."""
    return _held(files, hashlib.sha256())


def _held(files: Names, found: Any) -> str:
    """Add sizes and contents to a digest."""
    looked_at = evenly(len(files), LOOKED_AT).tolist()
    sizes = {index: _size(files[index]) for index in looked_at}
    found.update(repr(list(sizes.values())).encode())
    if len(sizes) == len(files) and sum(sizes.values()) <= READ_AT_MOST:
        for index, size in sizes.items():
            _add(found, files[index], 0, size)
        return found.hexdigest()
    opened = evenly(len(files), OPENED).tolist()
    blocks = READ_AT_MOST // BLOCK // len(opened)
    for index in opened:
        size = sizes[index] if index in sizes else _size(files[index])
        for block in evenly(-(-size // BLOCK), blocks).tolist():
            _add(found, files[index], block * BLOCK, min(BLOCK, size - block * BLOCK))
    return found.hexdigest()


def _size(path: Path) -> int:
    """In bytes; -1 for what is not there."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _add(found: Any, path: Path, offset: int, size: int) -> None:
    try:
        found.update(read_regular(path, offset, max(size, 0), limit=READ_AT_MOST))
    except OSError:
        found.update(b"unreadable")
