"""Loader processes: how many, what they run, and an end in one line for whatever happens to one."""

from __future__ import annotations

import errno
import multiprocessing.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from torch.utils.data import DataLoader, Dataset

from brdyn.choices import check_least
from brdyn.data.files import shown
from brdyn.data.items import Failure, Item, Loaded, stack
from brdyn.data.sources import Skipped
from brdyn.errors import BrdynError, UsageError
from brdyn.words import first_line

MAX_WORKERS = 8
MAX_BYTES_AHEAD = 2**30
SHARED_MEMORY = Path("/dev/shm")
SOCKET_NAME = 107  # bytes of the name of a Unix socket
FOLDER, LISTENER = len("/pymp-xxxxxxxx"), len("/listener-xxxxxxxx")
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
FILES_KEPT, FILES_OF_WORKER = 32, 8
NOT_OF_THE_FILE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
LOST = ("DataLoader worker", "open files", "ancdata", "shared memory", "mmap")


def load(
    reader: Dataset[Any],
    groups: Iterable[Sequence[int]],
    count: int,
    *,
    workers: int | None,
    batch_bytes: int,
    pin: bool,
) -> Iterator[Loaded]:
    """Read groups of positions in the background, in order.

    Parameters
    ----------
    reader : Dataset
        Gives an `Item` or `Skipped` for a position.
    groups : iterable of sequences of int
        Positions of each batch.
    count : int
        How many there are.
    workers : int or None
        Loader processes; 0 reads in this one. Fewer are used where what they hold ready does not fit.
    batch_bytes : int
        Of one batch.
    pin : bool
        Use page-locked memory, for faster copies to a GPU.

    Raises
    ------
    BrdynError
        If reading fails for a reason that is not of one image, or a process dies or cannot hand over a batch.
    """
    check_least(0, workers=0 if workers is None else workers)
    wanted = default_workers() if workers is None else workers
    wanted, ahead = background(min(wanted, count), batch_bytes)
    if wanted and not short_sockets():
        wanted, ahead = 0, None
    loader: DataLoader[Any] = DataLoader(
        Contained(reader),
        batch_sampler=cast(Any, groups),
        num_workers=wanted,
        prefetch_factor=ahead,
        collate_fn=stack,
        pin_memory=pin,
        worker_init_fn=die_when_mute,
        generator=torch.Generator(),  # else it would draw from the caller's
    )
    for loaded in guarded(loader):
        if loaded.failure is not None:
            raise loaded.failure.error()
        yield loaded


class Contained(Dataset[Any]):
    """Makes a :class:`Failure` of every error of a reader, so that each can be handed over."""

    def __init__(self, reader: Dataset[Any]) -> None:
        self.reader = reader

    def __getitem__(self, position: int) -> Item | Skipped | Failure:
        try:
            return cast("Item | Skipped", self.reader[position])
        except BrdynError as error:
            return Failure(str(error), isinstance(error, UsageError))
        except Exception as error:
            return Failure(f"cannot read image {position}: {in_words(error)}", False)


def in_words(error: BaseException) -> str:
    """An error in one line."""
    return shown(first_line(error))


def is_of_the_file(error: BaseException) -> bool:
    """Whether an error in reading an image is a fault of that image, and not that the machine lacks something."""
    return not isinstance(error, MemoryError) and getattr(error, "errno", None) not in NOT_OF_THE_FILE


def die_when_mute(_: int) -> None:
    """In a loader process: end it when a batch cannot be handed over. It would be waited for without end."""

    def end(*_: object) -> None:
        os._exit(1)

    Queue._on_queue_feeder_error = staticmethod(end)  # type: ignore[attr-defined]


def short_sockets() -> bool:
    """See to it that the temporary folder of loader processes, which they inherit, leaves room for a socket's name.

    It would be in `TMPDIR`, however long that is. False if none can be had.
    """
    for folder in (tempfile.gettempdir(), *SHORT_FOLDERS):
        if len(os.fsencode(folder)) + FOLDER + LISTENER <= SOCKET_NAME and os.access(folder, os.W_OK):
            with patch.object(tempfile, "tempdir", folder):
                made = multiprocessing.util.get_temp_dir()  # once a process
            return len(os.fsencode(made)) + LISTENER <= SOCKET_NAME
    return False


def default_workers() -> int:
    """Loader processes by default: one less than this process's share of the cores, between 1 and 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MAX_WORKERS, cores // here - 1))


def background(workers: int, batch_bytes: int) -> tuple[int, int | None]:
    """How many loader processes, and how many batches each may hold ready, within shared memory and open files."""
    room = MAX_BYTES_AHEAD
    if SHARED_MEMORY.is_dir():
        room = min(room, shutil.disk_usage(SHARED_MEMORY).free // 2)
    elif sys.platform == "linux":
        room = 0
    fitting = room // max(batch_bytes, 1)
    workers = min(workers, fitting, max(0, free_files() - FILES_KEPT) // FILES_OF_WORKER)
    return (workers, min(2, fitting // workers)) if workers else (0, None)


def free_files() -> int:
    """How many more files this process may open."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return limit - len(os.listdir("/proc/self/fd")) if limit >= 0 else 2**20
    except (ImportError, OSError):
        return 2**10


def guarded(loader: Iterable[Loaded]) -> Iterator[Loaded]:
    """What a loader gives; its failures in one line."""
    try:
        yield from loader
    except (
        RuntimeError,
        OSError,
        EOFError,
    ) as error:  # the latter two where a process ended while it was listened to
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in LOST):
            raise
        raise BrdynError(
            "a loader process died or could not hand over its images, most often for lack of (shared) memory or open "
            "files; use `workers=0`, or a smaller `batch_size`"
        ) from error
