"""Signals that end a run: what was begun is cleaned up, and what must be done in one go is done first."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # no SIGHUP on Windows


class Interrupted(BaseException):
    """A signal has come that ends the run; :func:`heard` tells which."""


_depth = 0
_heard: list[int] = []


def heard() -> int | None:
    """The signal that ends this run, whatever came of it."""
    return _heard[0] if _heard else None


@contextmanager
def listening() -> Iterator[None]:
    """Let signals raise :class:`Interrupted` in this process, a second one end it at once.

    A signal that is ignored stays so, as SIGHUP under nohup. Only a main thread can hear any.
    """
    alone = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in ENDING} if alone else {}
    _heard.clear()
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    finally:
        if not _heard:  # afterwards a second one ends it at once
            for number, handler in before.items():
                signal.signal(number, handler)


def _interrupt(number: int, _: FrameType | None) -> None:
    _default()
    if hasattr(signal, "SIGCHLD"):  # loader processes that were told as well are no news to torch
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _heard.append(number)
    if not _depth:
        raise Interrupted


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
    if _heard and not _depth:
        raise Interrupted


def _leave_to_parent() -> None:
    """A loader process is told by its parent, also of what a terminal sends to both."""
    if any(signal.getsignal(number) is _interrupt for number in ENDING):
        _default()
        with suppress(ValueError):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.excepthook = _silent  # of its thread that hands files over, when the parent ends in the middle of that


def _silent(*_: object) -> None:
    """Errors that matter are handed to the parent."""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
