"""What studies of many cells share: a cell is skipped if its result was asked for alike, and one that fails does not
stop the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from brdyn.classification.run import OutOfTime
from brdyn.errors import UsageError
from brdyn.results import read_json, to_json


def digest_of(asked: Mapping[str, Any]) -> str:
    """SHA-256 of what a cell was asked for."""
    return hashlib.sha256(to_json(asked)).hexdigest()


def recorded(path: Path, digest: str) -> dict[str, Any] | None:
    """A cell's result, if it is there, was asked for alike and did not fail."""
    if not path.is_file():
        return None
    before = read_json(path, "a cell of this study", ("digest",))
    return before if before["digest"] == digest and "failed" not in before else None


def attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` returns, or the error as `failed`; running out of time is no failure."""
    try:
        return work()
    except OutOfTime:
        raise
    except Exception as error:  # whatever it is, the other cells are worth their time
        return {"failed": f"{type(error).__name__}: {error}"}


def share_of(text: str) -> tuple[int, int]:
    """`0/2` as two numbers.

    Raises
    ------
    UsageError
        If it is not one of so many shares.
    """
    first, _, every = text.partition("/")
    if not (first.isdigit() and every.isdigit() and int(first) < int(every)):
        raise UsageError(f"--share {text!r} is not i/n with i from 0 to n - 1")
    return int(first), int(every)
