"""A progress bar on stderr: images, images/s, time left, and a word. Silent when stderr is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Advance(Protocol):
    """Tells the bar how many images more are done, and a word to show beside it from now on."""

    def __call__(self, count: int, note: str | None = None) -> None:
        """Move on."""


class _SpeedColumn(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} images/s" if speed else "– images/s", style="cyan")


@contextmanager
def progress_bar(description: str, total: int, show: bool) -> Iterator[Advance]:
    """Yield a function to call with the number of images done."""
    if not (show and sys.stderr.isatty()):
        yield lambda count, note=None: None
        return
    console = Console(stderr=True, force_terminal=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _SpeedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(description, total=total, note="")

        def advance(count: int, note: str | None = None) -> None:
            if note is not None:
                progress.update(task, note=note)
            progress.advance(task, count)

        yield advance
