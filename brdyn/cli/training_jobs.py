"""What `vitrm-train` and `vit-train` do once their options are read: a run in its folder, or a grid of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import typer
from accelerate import Accelerator
from matplotlib.figure import Figure

from brdyn import plots, runtime
from brdyn.classifiers.grid import Cell, rows_of, runs_of
from brdyn.classifiers.pixels import NAMED, PixelSet, check_classes, load_pixels
from brdyn.classifiers.recipe import BATCH
from brdyn.classifiers.training import ClassifierRun, finished
from brdyn.cli.run import open_folder, say_skipped
from brdyn.cli.train_options import TrainRequest
from brdyn.cli.training import checkpoint_to_resume, open_tracker, say_batch, to_go_on_with
from brdyn.errors import BrdynError, UsageError
from brdyn.provenance import run_provenance
from brdyn.store import OutputFolder
from brdyn.store.result_files import GRID_RESULT, TRAIN_RESULT
from brdyn.store.unfinished import CHECKPOINTS
from brdyn.training import Checkpoints, History, Saved
from brdyn.training.loop import make_accelerator


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
    ) -> dict[str, Any] | None:
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
            return run.train(
                self.images,
                folder,
                checkpoints,
                test=self.test,
                resume=saved,
                accelerator=self.accelerator,
                draw=partial(_pictures, run),
                formats=self.formats,
                report=report,
                progress=True,
            )

    def train_alone(self, run: ClassifierRun, out: Path, folder: OutputFolder | None) -> None:
        """One run to its end, and say how it went."""
        self.say_batch(run)
        content = self.train(run, out, folder)
        if content is not None:
            _summarise(content)
            kept = "".join(f", {name}/" for name in content["kept"])
            typer.echo(f"written to {out}: config.json, model.safetensors, train.json, train.png{kept}")

    def say_batch(self, run: ClassifierRun) -> None:
        """Tell the batch size of a run, where it is not the usual one."""
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
        whole = (GRID_RESULT, *cells) if cells else (TRAIN_RESULT,)
        folder = open_folder(
            stack, processes, request.out, whole[0], request.overwrite, to_go_on_with(resume, *whole)
        )
        images, test = load_sets(request)
        if processes.is_main:
            for part in (images, test) if test is not None else (images,):
                say_skipped(part.skipped, part.unlabelled)
        accelerator = make_accelerator(processes.device)
        yield Job(images, test, accelerator, processes, formats, resume, previous, tracker), folder


def load_sets(request: TrainRequest) -> tuple[PixelSet, PixelSet | None]:
    """Training and test images."""
    columns: dict[str, Any] = {"image_column": request.image_column, "label_column": request.label_column}
    images = load_pixels(
        request.data,
        request.image_size,
        n=request.n,
        seed=request.seed,
        workers=request.workers,
        split=request.split,
        **columns,
    )
    source = request.test or (request.data if request.data in NAMED else None)
    if source is None:
        return images, None
    test = load_pixels(
        source,
        request.image_size,
        train=False,
        workers=request.workers,
        columns_where_there=True,
        **columns,
    )
    check_classes(test, images.names, "the training images")
    return images, test


def train_grid(
    job: Job,
    run: ClassifierRun,
    cells: list[Cell],
    out: Path,
    folder: OutputFolder | None,
) -> None:
    """Every cell in a folder of its own; `grid.json` is written anew after each. One that fails does not stop the rest.

    Raises
    ------
    BrdynError
        At the end, if some failed.
    """
    runs = runs_of(run, cells)
    job.say_batch(run)
    if folder is not None:
        folder.begin(
            {name: job.checkpoints(one, out / name).options for name, one in runs.items()}, list(runs)
        )
        if not job.resume:
            _clear(folder, runs)
    done = {
        name: content
        for name, one in runs.items()
        if (content := finished(out / name, job.checkpoints(one, out / name)))
    }
    failed: dict[str, str] = {}
    for name, one in runs.items():
        if name not in done:
            try:
                with ExitStack() as stack:
                    # The folder is the grid's own.
                    own = open_folder(stack, job.processes, out / name, None, overwrite=True)
                    content = job.train(one, out / name, own, may_be_new=True)
            except UsageError:
                raise
            except BrdynError as error:
                failed[name] = str(error)
                content = None
            if content is not None:
                done[name] = content
        if folder is not None:
            said = failed.get(name) or "trained"
            if name in done and job.test is not None:
                said = f"accuracy {done[name]['accuracy']:.2%}"
            typer.echo(f"{name}: {said}")
            _write_grid(job, runs, done, failed, folder)
    if folder is not None:
        folder.end()
    if failed:
        raise BrdynError(
            f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)} ({next(iter(failed.values()))})"
        )
    if folder is not None:
        typer.echo(f"written to {out}: {GRID_RESULT} and a folder for each of {len(runs)} runs")


def _clear(folder: OutputFolder, runs: Iterable[str]) -> None:
    """Take away the results of another grid: not to be taken for this one's when it is resumed."""
    folder.discard(GRID_RESULT)
    for name in runs:
        if (folder.path / name).is_dir():
            with OutputFolder(folder.path / name, overwrite=True) as own:
                own.discard(TRAIN_RESULT)


def _write_grid(
    job: Job,
    runs: dict[str, ClassifierRun],
    done: dict[str, dict[str, Any]],
    failed: dict[str, str],
    folder: OutputFolder,
) -> None:
    """What is there so far."""
    rows = rows_of(runs, done)
    content = {
        "cells": rows,
        "asked": list(runs),
        "failed": failed,
        "test": None if job.test is None else job.test.identity(),
        "provenance": run_provenance(job.accelerator.device.type),
    }
    pictures = {"grid": plots.plot_grid(rows)} if job.test is not None and rows else {}
    folder.save(GRID_RESULT, content, pictures, job.formats)


def _pictures(run: ClassifierRun, history: History) -> dict[str, Figure]:
    """Losses, and what was watched."""
    watched = f"accuracy on {'held-out' if run.held_out else 'test'} images"
    return {"train": plots.plot_fit({1: history}, title=run.network, watched=watched)}


def _summarise(content: dict[str, Any]) -> None:
    options, history = content["options"], content["history"]
    typer.echo(f"{content['network']}: {content['parameters'] / 1e6:.2f} M parameters")
    typer.echo(
        f"{options['recipe']['epochs']:g} epochs of {options['data']['images']} images in {content['seconds']:.0f} s "
        f"({history['images_per_second']:.0f} images/s)"
    )
    if content["accuracy"] is not None:
        typer.echo(f"accuracy on {content['test']['images']} test images: {content['accuracy']:.2%}")
    for name, kept in content["kept"].items():
        shares = {"held-out" if options["held_out"] else "test": kept["watched"], "test": kept["accuracy"]}
        measured = [
            f"{share:.2%} of the {what} images" for what, share in shares.items() if share is not None
        ]
        typer.echo(
            ": ".join([f"{name} (epoch {kept['epoch']:.3g})", *([", ".join(measured)] if measured else [])])
        )
