"""Files on disk that are whole or not there, and a folder that one run at a time writes to.

A file is written beside its place, through to the disk, and moved. Files that belong together have a JSON file that
says they are whole: it goes first and comes last.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from brdyn.errors import BrdynError, UsageError
from brdyn.interruption import uninterrupted

UNFINISHED = ".unfinished"  # ends the name of a file that is being written
REPLACED = ".replaced"  # ends that of an old JSON file while what it speaks of is replaced


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file or nothing.

    Raises
    ------
    BrdynError
        If the disk is full or the folder has gone.
    """
    replace_together(path.parent, {path.name: data})


def replace_together(folder: Path, files: Mapping[str, bytes], stale: Iterable[str] = ()) -> None:
    """Put files into a folder, all of them or none.

    A kill at any moment leaves the old files, or the new ones, or a mixture that no JSON file speaks for: those of the
    same names are set aside before anything else is touched and written after everything else.

    Parameters
    ----------
    folder : path
        It is there.
    files : mapping of str to bytes
        By name; where there are several JSON files, each speaks for those before it.
    stale : iterable of str
        Other files there, that go with the old ones.

    Raises
    ------
    BrdynError
        If the disk is full or the folder has gone.
    """
    order, stale = sorted(files, key=_speaks), set(stale) - set(files)
    speaking = [folder / name for name in order if _speaks(name) and len(order) + len(stale) > 1]
    prepared: dict[str, Path] = {}
    name = order[0]
    try:
        for name in order:
            prepared[name] = folder / f".{name}.{uuid.uuid4().hex[:8]}{UNFINISHED}"
            write_through(prepared[name], files[name])
        with uninterrupted():
            for path in reversed(speaking):
                set_aside(path)
                sync(folder)
            for name in stale:
                (folder / name).unlink(missing_ok=True)
            for name in order:
                if folder / name in speaking:
                    sync(folder)
                os.replace(prepared[name], folder / name)
                del prepared[name]
            sync(folder)
            for path in speaking:
                aside(path).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(folder / name, error) from error
    finally:
        for left in prepared.values():
            left.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> BrdynError:
    """The error of a file that cannot be written, with what to do."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "make room there" if full else "see that its folder is there and may be written to"
    return BrdynError(f"cannot write {str(path)!r} ({error.strerror}); {remedy}")


def reserve(path: Path, size: int) -> None:
    """Make a file of zeros that has its place on the disk, so that writing to a map of it later does not fail.

    Where the system cannot reserve, only its size is set.

    Raises
    ------
    BrdynError
        If the disk is full or the folder has gone; nothing is left of the file.
    """
    try:
        with path.open("wb") as file:
            file.truncate(size)
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
            return
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def _speaks(name: str) -> bool:
    return name.endswith(".json")


def aside(path: Path) -> Path:
    """Where an old JSON file is kept until what it speaks of is replaced."""
    return path.with_name(f".{path.name}{REPLACED}")


def set_aside(path: Path) -> None:
    """Take away the word of a JSON file, if it is there; what it says can still be read."""
    with suppress(FileNotFoundError):
        os.replace(path, aside(path))


def is_unfinished(path: Path) -> bool:
    """Whether this is a file that a killed run has left half written."""
    return path.name.startswith(".") and path.name.endswith(UNFINISHED)


def is_left(path: Path) -> bool:
    """Whether this is such a file, or an old one that it has set aside."""
    return is_unfinished(path) or (path.name.startswith(".") and path.name.endswith(REPLACED))


def write_through(path: Path, data: bytes) -> None:
    """Make a new file that is through to the disk, so that a rename cannot overtake it."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """See that what was renamed in a folder outlives a power cut, where the system can do that for folders."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


_locks: set[int] = set()


def lock(folder: Path) -> Callable[[], None]:
    """Keep other runs out of a folder until the function that is returned is called, or this process ends.

    Where the file system has no locks, nothing is kept out.

    Raises
    ------
    UsageError
        If another run is in it.
    """
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return lambda: None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UsageError(
            f"another run is writing to {str(folder)!r}; wait for its end, or choose another `out`"
        ) from None
    except OSError:
        os.close(handle)
        return lambda: None
    _locks.add(handle)

    def unlock() -> None:
        if handle in _locks:
            _locks.remove(handle)
            os.close(handle)

    return unlock


def _leave_to_parent() -> None:
    """A loader process that outlives a killed run for a moment must not keep its lock."""
    for handle in _locks:
        os.close(handle)
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
