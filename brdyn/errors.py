"""The ways a brdyn call can go wrong; the command line turns them into exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class BrdynError(Exception):
    """A run that could not be completed (exit code 1): unreadable data, missing weights, a non-finite layer.

    >>> issubclass(brdyn.UsageError, brdyn.BrdynError)  # `except brdyn.BrdynError` catches both
    True
    """


class DivergedError(BrdynError):
    """A training whose loss is no number any more.

    >>> issubclass(brdyn.errors.DivergedError, brdyn.BrdynError)
    True
    """


class UsageError(BrdynError, ValueError):
    """A request that cannot be served as asked (exit code 2): a wrong name, a value out of range.

    >>> brdyn.segment(np.eye(3), k=5)
    Traceback (most recent call last):
    ...
    brdyn.errors.UsageError: k=5 phases need at least 5 layers; this model has 3
    """


@contextmanager
def permitted() -> Iterator[None]:
    """While paths that were given are looked at: one that may not be is refused in one line. Decorates functions, too.

    Raises
    ------
    UsageError
        With the path that the system has named.

    >>> from brdyn.errors import permitted
    >>> with permitted():
    ...     raise PermissionError(13, "Permission denied", "/root/runs")
    Traceback (most recent call last):
    ...
    brdyn.errors.UsageError: may not look at '/root/runs' (permission denied); check its permissions, or give another
    """
    try:
        yield
    except PermissionError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(
            f"may not look at {str(error.filename)!r} ({why}); check its permissions, or give another"
        ) from error


def exit_code(error: BrdynError) -> int:
    """What the command line ends with."""
    return 2 if isinstance(error, UsageError) else 1
