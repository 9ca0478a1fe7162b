"""What every command that trains something shares: trackers, checkpoints, going on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brdyn.errors import UsageError
from brdyn.words import first_line

if TYPE_CHECKING:
    from brdyn.training import Checkpoints, Saved

PANEL = "Training"
TRACKERS = ("none", "tensorboard", "wandb")

Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.", rich_help_panel=PANEL)
]
Previous = Annotated[
    bool,
    typer.Option(
        "--previous", help="With --resume: from the one before where it is damaged.", rich_help_panel=PANEL
    ),
]
Tracker = Annotated[str, typer.Option(help="none, tensorboard or wandb.", rich_help_panel=PANEL)]
Report = Callable[[int, int, dict[str, float]], None]


def check_resume(resume: bool, previous: bool) -> None:
    """Refuse one without the other."""
    if previous and not resume:
        raise UsageError("--previous goes with --resume")


def checkpoint_to_resume(
    out: Path, result: str, checkpoints: Checkpoints, resume: bool, previous: bool, *, say: bool
) -> Saved | None:
    """The checkpoint to go on from, if any.

    Raises
    ------
    UsageError
        If the run is finished (its `result` file is there and no checkpoint), or there is nothing of it.
    """
    if not resume:
        return None
    saved = checkpoints.latest(previous=previous)
    if saved is None and (out / result).is_file():
        raise UsageError(f"the run in {str(out)!r} is finished; there is nothing to resume")
    if saved is None:
        raise UsageError(f"there is no checkpoint in {str(out)!r} to resume from; run without --resume")
    if say:
        typer.echo(f"resuming from {saved.path.name}")
    return saved


def check_tracker(name: str) -> None:
    """Refuse a tracker that is unknown or not installed."""
    if name not in TRACKERS:
        raise UsageError(f"unknown tracker {name!r}; choose one of {', '.join(TRACKERS)}")
    if name != "none" and find_spec(name) is None:
        raise UsageError(f"--tracker {name} needs the package {name}: pip install {name}")


@contextmanager
def open_tracker(
    name: str, out: Path, before: Mapping[int, int], *, is_main: bool
) -> Iterator[Report | None]:
    """A function that hands stage, step and numbers to a tracker, which is closed at the end; None for none.

    Parameters
    ----------
    name : {"none", "tensorboard", "wandb"}
    out : Path
        The run's folder.
    before : mapping of int to int
        Steps before each stage: trackers count on.
    is_main : bool
        Whether this process writes.

    Raises
    ------
    UsageError
        If there is no such tracker, or it cannot start.
    """
    check_tracker(name)
    if name == "none" or not is_main:
        yield None
        return
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    tracker: Any = (
        TensorBoardTracker(run_name="fit", logging_dir=out / "tracker")
        if name == "tensorboard"
        else WandBTracker(run_name=f"brdyn {out.name}")
    )
    try:
        tracker.start()
    except Exception as error:  # each tracker has errors of its own
        raise UsageError(
            f"--tracker {name} cannot start ({first_line(error)}); is it set up? "
            "(wandb login, or WANDB_MODE=offline)"
        ) from error

    def report(stage: int, step: int, row: dict[str, float]) -> None:
        tracker.log(
            {f"stage {stage}/{key}": value for key, value in row.items() if key != "step"},
            step=before[stage] + step,
        )

    try:
        yield report
    finally:
        tracker.finish()
