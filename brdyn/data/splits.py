"""Which split a file of a data set belongs to, by the names that the hub gives: `data/test-00000-of-00002.parquet`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from brdyn.errors import UsageError

QUOTES = "'\""
SHARD = re.compile(r"(.+?)-\d{4,}-of-\d{4,}")
ALIASES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip


def split_of(name: str) -> str | None:
    """The split that a path below the folder names: by its file name, or else by the nearest folder; None for none."""
    *folders, file = name.split("/")
    stem = file.rsplit(".", 1)[0]
    shard = SHARD.match(stem)
    if shard:
        return canonical(shard[1])
    words = {ALIASES[word] for word in re.split(r"[^a-z]+", stem.lower()) if word in ALIASES}
    if len(words) == 1:
        return words.pop()
    return next((ALIASES[one.lower()] for one in reversed(folders) if one.lower() in ALIASES), None)


def canonical(split: str) -> str:
    """`val` and `dev` are `validation`, and so on; other names are themselves."""
    return ALIASES.get(split.lower(), split)


def in_split(names: Sequence[str], split: str | None, where: str) -> tuple[str | None, list[str]]:
    """The split to read of files, and those that are in it; the name of a single file (empty) says none.

    Raises
    ------
    UsageError
        As :func:`choose_split`.
    """
    found = {name: split_of(name) if name else None for name in names}
    chosen = choose_split(found.values(), split, where)
    return chosen, [name for name in names if split is None or found[name] == chosen]


def choose_split(there: Iterable[str | None], asked: str | None, where: str) -> str | None:
    """The split to read, of those that are there (None: files that name none).

    Raises
    ------
    UsageError
        If there are several and none was asked for, or not the one that was.
    """
    named = set(there)
    found = sorted(split for split in named if split is not None)
    if asked is None:
        if len(named) > 1:
            others = " and others" if None in named else ""
            raise UsageError(
                f"{where} holds the splits {', '.join(found)}{others}; choose one by `split`, or as "
                f"{where.strip(QUOTES)}@{found[0]}"
            )
        return found[0] if found else None
    if not found:
        raise UsageError(f"`split={asked}`: {where} has no splits; drop it")
    matching = [split for split in found if canonical(split) == canonical(asked)]
    if not matching:
        raise UsageError(f"{where} has no split {asked!r}; it has {', '.join(found)}")
    return matching[0]
