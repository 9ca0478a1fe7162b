"""What every command that trains something shares: trackers, checkpoints, going on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brdyn.cli import output
from brdyn.errors import BrdynError, UsageError
from brdyn.store.result_files import TRAIN_RESULT
from brdyn.store.unfinished import CHECKPOINTS, MARKER, TRACKER
from brdyn.training.settings import lacks_digests
from brdyn.words import first_line

if TYPE_CHECKING:
    from brdyn.training import Checkpoints, Saved
    from brdyn.training.session import Report

PANEL = "Training"
TRACKERS = ("none", "tensorboard", "wandb")
EARLIER_VERSION = (
    "note: the checkpoint is of an earlier version, which did not note what the images are: that they are the same is "
    "not checked"
)

Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on from the last checkpoint in --out, or begin where there is none.",
        rich_help_panel=PANEL,
    ),
]
Previous = Annotated[
    bool,
    typer.Option("--previous", help="With --resume: from the one before where it is damaged.", rich_help_panel=PANEL),
]
Tracker = Annotated[str, typer.Option(help="none, tensorboard or wandb.", rich_help_panel=PANEL)]


def check_resume(resume: bool, previous: bool) -> None:
    """Refuse one without the other."""
    if previous and not resume:
        raise UsageError("--previous goes with --resume")


def checkpoint_to_resume(
    out: Path, result: str, checkpoints: Checkpoints, resume: bool, previous: bool, *, say: bool
) -> Saved | None:
    """The checkpoint to go on from; None where the run is to begin.

    The seconds of the run are counted on.

    Raises
    ------
    UsageError
        If the run is finished: its `result` file is there, no checkpoint, and no run was begun since. If it has other
        options.
    """
    if not resume:
        return None
    saved, notes = checkpoints.latest(previous=previous), []
    if saved is not None:
        checkpoints.watch.earlier = saved.elapsed
        notes = [f"resuming from {saved.path.name}"]
        if lacks_digests(saved.options, checkpoints.options):
            notes += [EARLIER_VERSION]
    elif not (out / MARKER).is_file():
        if (out / result).is_file():
            raise UsageError(
                f"the run in {str(out)!r} is finished; there is nothing to resume. To train longer, give another "
                "--out, or --overwrite"
            )
        notes = [f"there is no checkpoint in {str(out)!r} to resume from; the run begins"]
    else:
        notes = [f"the run in {str(out)!r} was killed before its first checkpoint; it begins again"]
    if say:
        output.mention("\n".join(notes))
    return saved


def to_go_on_with(resume: bool, result: str, cells: Iterable[str] = ()) -> tuple[str, ...]:
    """What of which one thing is in the folder of a run that `--resume` goes on with, or in that of a grid's cell."""
    own = (CHECKPOINTS, MARKER, result)
    of_cells = (f"{cell}/{name}" for cell in cells for name in (CHECKPOINTS, MARKER, TRAIN_RESULT))
    return (*own, *of_cells) if resume else ()


def say_batch(batch_size: int, usual: int, given: int | None) -> None:
    """Tell a batch size that is the default for few images."""
    if given is None and batch_size != usual:
        output.mention(f"batch size reduced to {batch_size}, the number of training images")


def check_tracker(name: str) -> None:
    """Refuse a tracker that is unknown or not installed."""
    if name not in TRACKERS:
        raise UsageError(f"unknown tracker {name!r}; choose one of {', '.join(TRACKERS)}")
    if name != "none" and find_spec(name) is None:
        raise UsageError(f"--tracker {name} needs the package {name}: pip install {name}")


@contextmanager
def open_tracker(name: str, out: Path, before: Mapping[int, int], *, is_main: bool) -> Iterator[Report | None]:
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
        TensorBoardTracker(run_name="fit", logging_dir=out / TRACKER)
        if name == "tensorboard"
        else WandBTracker(run_name=f"brdyn {out.name}")
    )
    try:
        tracker.start()
    except Exception as error:  # each tracker has errors of its own
        raise UsageError(
            f"--tracker {name} cannot start ({first_line(error)}); is it set up? (wandb login, or WANDB_MODE=offline)"
        ) from error

    def report(stage: int, step: int, row: dict[str, float]) -> None:
        values = {f"stage {stage}/{key}": value for key, value in row.items() if key != "step"}
        try:
            tracker.log(values, step=before[stage] + step)
        except Exception as error:
            raise BrdynError(
                f"--tracker {name} failed ({first_line(error)}); --resume --tracker none goes on without it"
            ) from error

    try:
        yield report
    finally:
        tracker.finish()
