"""What a run is doing, on stderr: a bar on a terminal; elsewhere a line at once, and again every ten seconds."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Task

EVERY = 10.0  # seconds between lines
WAKES = 1.0  # seconds between looks at the clock
STARTED = time.monotonic()  # of this process, nearly
CLEAR = "\r\x1b[2K"


class Advance(Protocol):
    """Tells how many more are done, and a word to show beside it from now on."""

    def __call__(self, count: int, note: str | None = None) -> None:
        """Move on."""


@dataclass
class Stage:
    """Something that takes a while.

    Attributes
    ----------
    description : str
    total : int or None
        How many images there are to do; None where nothing is counted.
    since : float
        By the clock of the teller.
    done : int
    note : str
    part : float
        How many more are done in parts.
    moved : callable or None
        To call when that changes.
    """

    description: str
    total: int | None = None
    since: float = 0.0
    done: int = 0
    note: str = ""
    part: float = 0.0
    moved: Callable[[], None] | None = None

    @property
    def reached(self) -> float:
        """What is done, in whole and in part."""
        return self.done + self.part

    def line(self, now: float) -> str:
        """Where it stands."""
        if self.total is None:
            return f"still {self.description}"
        words = [f"{self.description} {self.done}/{self.total} images"]
        if self.reached and now > self.since:
            speed = self.reached / (now - self.since)
            said = f"{speed:.1f}" if speed >= 1 else f"{speed:.2g}"
            words += [f"{said} images/s", f"{_clock((self.total - self.reached) / speed)} left"]
        return ", ".join([*words, self.note] if self.note else words)


class Teller:
    """Tells what a run is doing, in lines or on one line of a terminal that is written over.

    Parameters
    ----------
    write : callable
        Takes text for stderr.
    terminal : bool
    clock : callable
        Seconds.
    started : float
        When the process began, by that clock.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        terminal: bool = False,
        clock: Callable[[], float] = time.monotonic,
        started: float = STARTED,
    ) -> None:
        self.terminal, self.clock, self.quiet = terminal, clock, False
        self._write, self._started = write, started
        self._stages: list[Stage] = []
        self._last = clock()
        self._shown = False  # a line on a terminal
        self._lock = threading.Lock()

    def begin(self, stage: Stage, at_once: bool = True) -> None:
        """Something begins, inside what has begun before it."""
        stage.since = self.clock()
        with self._lock:
            self._stages.append(stage)
            self._clear()
            if at_once:
                count = "" if stage.total is None else f" {stage.total} images"
                self._say(f"{stage.description}{count}")

    def tell(self, text: str) -> None:
        """Something that is done, or comes: a line of its own."""
        with self._lock:
            self._clear()
            self._last = self.clock()
            if not self.quiet:
                self._write(f"[{_clock(self._last - self._started)}] {text}\n")

    def within(self, part: float) -> None:
        """The innermost has done so much of what it does next."""
        with self._lock:
            told = self._stages[-1] if self._stages else Stage("")
            told.part = part
        if told.moved is not None:
            told.moved()

    def end(self, stage: Stage) -> None:
        """It is over."""
        with self._lock:
            self._stages.remove(stage)
            self._clear()

    def beat(self) -> None:
        """Look at the clock: say where the innermost stands if nothing was said for long."""
        with self._lock:
            if self._stages and self.clock() - self._last >= EVERY:
                self._say(self._stages[-1].line(self.clock()))

    def clear(self) -> None:
        """Take the line off a terminal, for something else to be written there."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        if self._shown:
            self._write(CLEAR)
            self._shown = False

    def _say(self, text: str) -> None:
        self._last = self.clock()
        drawn = self.terminal and self._stages[-1].total is not None  # a bar is there
        if self.quiet or drawn:
            return
        line = f"[{_clock(self._last - self._started)}] {text}"
        self._clear()
        self._write(f"{line} …" if self.terminal else f"{line}\n")
        self._shown = self.terminal


_teller: Teller | None = None


@contextmanager
def telling() -> Iterator[Teller]:
    """Let this process tell on stderr what it does, until the end of this.

    Without it :func:`stage` says nothing, and :func:`progress_bar` only on a terminal.
    """
    global _teller
    teller = _teller = Teller(_to_stderr, terminal=_is_terminal())
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WAKES):
            teller.beat()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield teller
    finally:
        over.set()
        thread.join()
        teller.clear()
        _teller = None


def hush() -> None:
    """Say nothing more."""
    if _teller is not None:
        _teller.quiet = True


def tell(text: str) -> None:
    """Say once what is done, or comes."""
    if _teller is not None:
        _teller.tell(text)


def clear() -> None:
    """Make room on a terminal for something else that is printed."""
    if _teller is not None:
        _teller.clear()


def within(done: int, total: int, count: int) -> None:
    """Say how far the innermost is with the next `count` of its images, where those take long.

    Parameters
    ----------
    done, total : int
        Of the work on these.
    count : int

    Examples
    --------
    >>> from brdyn.progress import within
    >>> within(3, 12, count=8)  # a quarter of the work on eight images
    """
    if _teller is not None:
        _teller.within(count * done / total)


@contextmanager
def stage(description: str, *, at_once: bool = True) -> Iterator[None]:
    """Say that something goes on, such as `drawing`, and again while it lasts.

    Parameters
    ----------
    description : str
    at_once : bool
        Also at its begin; else only where it lasts.

    Examples
    --------
    >>> from brdyn.progress import stage
    >>> with stage("counting"):
    ...     total = sum(range(10))
    """
    with _told(Stage(description), at_once):
        yield


@contextmanager
def _told(told: Stage, at_once: bool = True) -> Iterator[Teller | None]:
    teller = _teller
    if teller is None:
        yield None
        return
    teller.begin(told, at_once)
    try:
        yield teller
    finally:
        teller.end(told)


@contextmanager
def progress_bar(description: str, total: int, show: bool) -> Iterator[Advance]:
    """Yield a function to call with the number of images that are done."""
    if not show or (_teller is not None and _teller.quiet):
        yield lambda count, note=None: None
        return
    told = Stage(description, total)
    with _told(told) as teller:
        if _is_terminal():
            with _bar(told) as advance:
                yield advance
            return

        def tell(count: int, note: str | None = None) -> None:
            told.done, told.part = told.done + count, 0.0
            told.note = told.note if note is None else note
            if teller is not None:
                teller.beat()

        yield tell


@contextmanager
def _bar(told: Stage) -> Iterator[Advance]:
    """A bar of rich."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class SpeedColumn(TextColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f} images/s" if speed else "– images/s", style="cyan")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        SpeedColumn(""),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True, force_terminal=True)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(told.description, total=told.total, note="")
        told.moved = lambda: progress.update(task, completed=told.reached)

        def advance(count: int, note: str | None = None) -> None:
            if note is not None:
                progress.update(task, note=note)
            told.done, told.part = told.done + count, 0.0
            progress.update(task, completed=told.done)

        yield advance


def _clock(seconds: float) -> str:
    """`1:05`, `2:00:00`."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _is_terminal() -> bool:
    return bool(sys.stderr is not None and sys.stderr.isatty())


def _to_stderr(text: str) -> None:
    """To the descriptor itself: a process that is forked meanwhile must not find a lock of the stream taken."""
    stream = sys.stderr
    with suppress(OSError, ValueError, AttributeError):
        try:
            number = stream.fileno()
        except (OSError, ValueError):  # a stream of somebody's own
            stream.write(text)
            return
        os.write(number, text.encode(stream.encoding, stream.errors or "replace"))
