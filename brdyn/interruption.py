"""Signals that end a run: what was begun is cleaned up, and what must be done in one go is done first."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # no SIGHUP on Windows


class Interrupted(BaseException):
    """A signal has come.

    Attributes
    ----------
    number : int
    code : int
        What the process ends with.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.code = number, 128 + number


_depth = 0
_waiting: list[int] = []
_heard: list[int] = []


def heard() -> int | None:
    """The signal that ends this run, whatever came of it."""
    return _heard[0] if _heard else None


def listen() -> None:
    """Let signals raise :class:`Interrupted` in this process, a second one end it at once.

    A signal that is ignored stays so, as SIGHUP under nohup.
    """
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, _: FrameType | None) -> None:
    _default()
    _heard.append(number)
    if _depth:
        _waiting.append(number)
        return
    raise Interrupted(number)


def _default() -> None:
    for number in ENDING:
        if signal.getsignal(number) is _interrupt:
            with suppress(ValueError):  # a fork from another thread; its main thread is that one
                signal.signal(number, signal.SIG_DFL)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Do this to its end before a signal is heard."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _waiting and not _depth:
            raise Interrupted(_waiting.pop())


def _leave_to_parent() -> None:
    """A loader process is told by its parent, also of what a terminal sends to both."""
    if any(signal.getsignal(number) is _interrupt for number in ENDING):
        _default()
        with suppress(ValueError):
            signal.signal(signal.SIGINT, signal.SIG_IGN)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
