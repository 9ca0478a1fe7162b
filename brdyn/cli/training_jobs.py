"""What `vitrm-train` and `vit-train` do once their options are read: a run in its folder, or a grid of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from brdyn import runtime
from brdyn.classifiers.grid import Cell, Grid, is_cell, runs_of, train_grid
from brdyn.classifiers.pixels import NAMED, PixelSet, check_classes, load_pixels
from brdyn.classifiers.recipe import BATCH
from brdyn.classifiers.training import ClassifierRun, finished
from brdyn.classifiers.training_result import ClassifierTraining
from brdyn.cli import output
from brdyn.cli.run import finish, open_folder, say_skipped, write_drawn
from brdyn.cli.train_options import TrainRequest
from brdyn.cli.training import checkpoint_to_resume, open_tracker, say_batch, to_go_on_with
from brdyn.errors import BrdynError, UsageError
from brdyn.progress import stage
from brdyn.store import OutputFolder
from brdyn.store.result_files import GRID_RESULT, TRAIN_RESULT, read_plain
from brdyn.store.unfinished import CHECKPOINTS
from brdyn.training import Checkpoints, Saved, Session
from brdyn.training.session import make_accelerator


@dataclass(frozen=True)
class Job:
    """What the runs of one command share."""

    images: PixelSet
    test: PixelSet | None
    accelerator: Accelerator
    processes: runtime.Processes
    formats: tuple[str, ...]
    resume: bool
    previous: bool
    tracker: str

    def train(
        self, run: ClassifierRun, out: Path, folder: OutputFolder | None, *, may_be_new: bool = False
    ) -> ClassifierTraining | None:
        """One run to its end.

        Parameters
        ----------
        run : ClassifierRun
        out : Path
        folder : OutputFolder or None
            At `out`; None in a process that does not write.
        may_be_new : bool
            When resuming, a run without a checkpoint begins.
        """
        checkpoints = self.checkpoints(run, out)
        saved: Saved | None = None
        if not may_be_new or checkpoints.paths():
            saved = checkpoint_to_resume(
                out, TRAIN_RESULT, checkpoints, self.resume, self.previous, say=folder is not None
            )
        if folder is not None:
            folder.begin(checkpoints.options, run.leaves())
        with open_tracker(self.tracker, out, {1: 0}, is_main=folder is not None) as report:
            session = Session(
                checkpoints=checkpoints,
                resume=saved,
                accelerator=self.accelerator,
                report=report,
                progress=True,
            )
            return run.train(self.images, self.test, folder=folder, session=session)

    def train_alone(self, run: ClassifierRun, out: Path, folder: OutputFolder | None) -> None:
        """One run to its end, and say how it went."""
        self.say_batch(run)
        training = self.train(run, out, folder)
        if training is not None and folder is not None:
            kept = [f"{name}/" for name in training.kept]
            finish(training, folder, self.formats, kept, end=partial(self.end, run, folder))

    def train_cell(self, out: Path, name: str, run: ClassifierRun) -> ClassifierTraining | None:
        """One run of a grid to its end, in a folder of its own in the grid's."""
        with ExitStack() as stack:
            # The folder is the grid's own.
            folder = open_folder(stack, self.processes, out / name, None, overwrite=True)
            training = self.train(run, out / name, folder, may_be_new=True)
            if training is not None and folder is not None:
                write_drawn(training, folder, self.formats)
                self.end(run, folder)
            return training

    def end(self, run: ClassifierRun, folder: OutputFolder) -> None:
        """The run has its result: it is over, and its checkpoints go."""
        folder.end()
        self.checkpoints(run, folder.path).remove()

    def say_batch(self, run: ClassifierRun) -> None:
        """Tell the batch size of a run, where it is not the usual one."""
        if run.held_out:
            self.images.check_held_out(run.held_out)
        if self.processes.is_main:
            say_batch(run.recipe.batch_of(len(self.images) - run.held_out), BATCH, run.recipe.batch_size)

    def checkpoints(self, run: ClassifierRun, out: Path) -> Checkpoints:
        """Those of a run in a folder."""
        options = run.options(self.images, self.test, self.processes.world)
        return Checkpoints(out / CHECKPOINTS, options, anew=not self.resume)


@contextmanager
def open_job(
    request: TrainRequest,
    formats: tuple[str, ...],
    resume: bool,
    previous: bool,
    tracker: str,
    cells: Sequence[str] = (),
) -> Iterator[tuple[Job, OutputFolder | None]]:
    """Start the processes, open the output folder and load the images; clean up when the command fails.

    With the folders of the `cells` of a grid, that is what is resumed.
    """
    with ExitStack() as stack:
        processes = stack.enter_context(runtime.start_processes(request.device))
        result = GRID_RESULT if cells else TRAIN_RESULT
        go_on_with = to_go_on_with(resume, result, cells)
        folder = open_folder(stack, processes, request.out, result, request.overwrite, go_on_with)
        with stage(f"reading images: {request.data}"):
            images, test = load_sets(request)
        if processes.is_main:
            for name, part in {"training": images, "test": test}.items():
                if part is not None:
                    say_skipped(part.skipped, part.unlabelled, name)
        accelerator = make_accelerator(processes.device)
        with stage("computing", at_once=False):
            yield Job(images, test, accelerator, processes, formats, resume, previous, tracker), folder


def load_sets(request: TrainRequest) -> tuple[PixelSet, PixelSet | None]:
    """Training and test images."""
    source = request.test or (request.data if request.data in NAMED else None)
    if source is None and request.test_n is not None:
        raise UsageError("--test-n goes with --test")
    images = load_pixels(request.data, request.image_size, workers=request.workers, **request.images_options())
    if source is None:
        return images, None
    test = load_pixels(
        source,
        request.image_size,
        train=False,
        workers=request.workers,
        columns_where_there=True,
        **request.images_options(n=request.test_n, split=None),
    )
    check_classes(test, images.names, "the training images")
    return images, test


def run_grid(job: Job, run: ClassifierRun, cells: list[Cell], out: Path, folder: OutputFolder | None) -> None:
    """Every cell in a folder of its own; `grid.json` is written anew after each. One that fails does not stop the rest.

    Raises
    ------
    BrdynError
        At the end, if some failed.
    """
    runs = runs_of(run, cells)
    job.say_batch(run)
    checkpoints = {name: job.checkpoints(one, out / name) for name, one in runs.items()}
    if folder is not None:
        folder.begin({name: one.options for name, one in checkpoints.items()}, list(runs))
        if not job.resume:
            _clear(folder, runs)
    done = {name: training for name, one in checkpoints.items() if (training := finished(out / name, one))}

    def say(name: str, grid: Grid, training: ClassifierTraining | None) -> None:
        if folder is None:
            return
        said = grid.failed.get(name) or "trained"
        if training is not None and training.accuracy is not None:
            said = f"accuracy {training.accuracy:.2%}"
        write_drawn(grid, folder, job.formats)
        output.mention(f"{name}: {said}")

    train = partial(job.train_cell, out)
    grid = train_grid(
        run,
        cells,
        job.images,
        job.test,
        done=done,
        train=train,
        visit=say,
        session=Session(accelerator=job.accelerator),
    )
    if folder is not None:
        folder.end()
    if grid.failed:
        why = next(iter(grid.failed.values()))
        raise BrdynError(f"{len(grid.failed)} of {len(runs)} runs failed: {', '.join(grid.failed)} ({why})")
    finish(grid, folder, job.formats, [f"a folder for each of {len(runs)} runs"])


def _clear(folder: OutputFolder, runs: Iterable[str]) -> None:
    """Take away the results of another grid: not to be taken for this one's when it is resumed, nor to lie beside."""
    earlier = read_plain(folder.path / GRID_RESULT).get("asked")
    named = {name for name in earlier if is_cell(name)} if isinstance(earlier, list) else set()
    folder.discard(GRID_RESULT)
    for name in {*runs, *named}:
        place = folder.path / name
        if place.is_dir() and not place.is_symlink():
            with OutputFolder(place, overwrite=True) as own:
                own.discard(TRAIN_RESULT)
                own.end()
            Checkpoints(place / CHECKPOINTS, {}).remove()
            with suppress(OSError):  # not empty
                place.rmdir()
