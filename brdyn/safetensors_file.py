"""What is wrong with a safetensors file, in words: the library says only that it could not be read."""

from __future__ import annotations

import json
from pathlib import Path

LENGTH_BYTES = 8  # of the length of the header, which comes first
POINTER = b"version https://git-lfs"
MOST_HEADER = 100_000_000  # as the library has it


def whole_size(path: Path) -> int | None:
    """Bytes that a file has to have by its own header; None where the header cannot be read.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if length > MOST_HEADER:
            return None
        header = file.read(length)
    if len(header) < length:
        return LENGTH_BYTES + length
    try:
        ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
        return LENGTH_BYTES + length + max(ends, default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def fault(path: Path, error: Exception) -> str:
    """Why a file cannot be read, `truncated: 10 of 24 bytes` or the library's words, and what to do."""
    try:
        size, whole = path.stat().st_size, whole_size(path)
        with path.open("rb") as file:
            is_pointer = file.read(len(POINTER)) == POINTER
    except OSError as unreadable:
        return unreadable.strerror or str(unreadable)
    if is_pointer:
        return "it is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
    if size < LENGTH_BYTES:
        return f"truncated: only {size} bytes are there; download or copy it again"
    if whole is not None and size < whole:
        return f"truncated: {size:,} of {whole:,} bytes are there; download or copy it again"
    words = str(error).strip().splitlines() or [type(error).__name__]
    return words[0].removeprefix("Error while deserializing: ") + "; download or copy it again"
