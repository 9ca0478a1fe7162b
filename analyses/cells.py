"""What studies of many cells share: a cell is skipped if its result was asked for alike, and one that fails does not
stop the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from analyses.training_runs import OutOfTime
from brdyn.errors import UsageError
from brdyn.store import read_json, to_json


def digest_of(asked: Mapping[str, Any]) -> str:
    """SHA-256 of what a cell was asked for. Files that have a digest are the same where it is, wherever they lie."""
    return hashlib.sha256(to_json(_without_places(asked))).hexdigest()


def _without_places(asked: Any) -> Any:
    if isinstance(asked, Mapping):
        named = {"source"} if asked.get("digest") else set()
        return {key: _without_places(value) for key, value in asked.items() if key not in named}
    return [_without_places(one) for one in asked] if isinstance(asked, list | tuple) else asked


def recorded(path: Path, digest: str) -> dict[str, Any] | None:
    """A cell's result, if it is there, was asked for alike and did not fail."""
    if not path.is_file():
        return None
    before = read_json(path, "a cell of this study", ("digest",))
    return before if before["digest"] == digest and "failed" not in before else None


def attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` returns, or the error as `failed`: also where it cannot be written.

    To be out of time, or a usage error, is of the study and not of this cell: it is raised.
    """
    try:
        found = work()
        to_json(found)
        return found
    except (OutOfTime, UsageError):  # neither is of this cell alone
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
