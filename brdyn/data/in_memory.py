"""Images decoded once and kept in memory: a training would decode them in every epoch, and a study for every fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import psutil
from torch.utils.data import Dataset

from brdyn.data.items import Item, Loaded
from brdyn.data.loading import load
from brdyn.data.sources import Skipped
from brdyn.errors import UsageError
from brdyn.progress import progress_bar

DECODED_AT_ONCE = 256

Decoded = Mapping[int, Item | Skipped]


def decode_all(
    reader: Dataset[Item | Skipped],
    count: int,
    image_bytes: int,
    *,
    count_in: Callable[[Loaded], None],
    workers: int | None,
    progress: bool = False,
) -> list[Item | Skipped]:
    """Every image of a set by its position, read in the background.

    Parameters
    ----------
    reader : Dataset
        Gives an `Item` or `Skipped` for a position.
    count, image_bytes : int
        How many there are, and how large one is.
    count_in : callable
        Is shown every batch; what it raises ends the reading.
    workers : int or None
        Loader processes.
    progress : bool
        Show a progress bar on a terminal.

    Raises
    ------
    UsageError
        If they do not fit in memory.
    BrdynError
        If reading fails for a reason that is not of one image.
    """
    free = psutil.virtual_memory().available
    if count * image_bytes > free:
        raise UsageError(
            f"{count} decoded images of {image_bytes / 1e6:.2f} MB do not fit in memory, where {free / 1e9:.1f} GB are "
            "free; use fewer images (`n`), smaller ones, or do not keep them (`in_memory`)"
        )
    groups = [list(range(start, min(start + DECODED_AT_ONCE, count))) for start in range(0, count, DECODED_AT_ONCE)]
    found: list[Item | Skipped] = []
    loader = load(reader, groups, len(groups), workers=workers, batch_bytes=DECODED_AT_ONCE * image_bytes, pin=False)
    with progress_bar("decoding images", count, progress) as advance:
        for group, loaded in zip(groups, loader, strict=True):
            count_in(loaded)
            advance(len(group))
            rows = {int(position): row for row, position in enumerate(loaded.positions)}
            without = {position: Skipped(name, reason) for position, name, reason in loaded.unlabelled.first}
            skipped = iter(loaded.skipped)
            images = None if loaded.images is None else loaded.images.clone()  # shared memory is let go
            for position in group:
                if position not in rows:
                    found.append(next(skipped))
                    continue
                assert images is not None
                row = rows[position]
                item = Item(position, images[row], int(loaded.labels[row]), loaded.digests[row], without.get(position))
                found.append(item if loaded.targets is None else item._replace(target=loaded.targets[row].clone()))
    return found


class FromMemory(Dataset[Item | Skipped]):
    """What is read in place of the files.

    Parameters
    ----------
    decoded : mapping of int to Item or Skipped
        By index into the source.
    chosen : ndarray of int
        The index of each position.
    """

    def __init__(self, decoded: Decoded, chosen: np.ndarray) -> None:
        self.decoded, self.chosen = decoded, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, position: int) -> Item | Skipped:
        found = self.decoded[int(self.chosen[position])]
        return found if isinstance(found, Skipped) else found._replace(position=position)
