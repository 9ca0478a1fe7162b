"""Checkpoints that are whole or not there, and that know whose they are."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from brdyn.compared import Compared
from brdyn.errors import BrdynError, UsageError
from brdyn.provenance import Stopwatch
from brdyn.store import read_json, sync, to_json, unfinished, unwritable, write_through
from brdyn.store.unfinished import HALF, STATE
from brdyn.training.settings import check_same
from brdyn.training.task import History

TENSORS = "state.safetensors"
ROWS = [{str: (float, None)}]
SHAPE = {  # of the state of a checkpoint
    "stage": int,
    "step": int,
    "digest": str,
    "options": dict,
    "state": {
        "losses?": ROWS,
        "validation?": ROWS,
        "images?": int,
        "seconds?": float,
        "earlier?": {str: History},
    },
}


@dataclass(frozen=True, eq=False, repr=False)
class Saved(Compared):
    """A checkpoint that was read.

    Attributes
    ----------
    path : Path
    stage : int
        From 1.
    step : int
        Optimizer steps done in that stage.
    tensors : dict of str to Tensor
    state : dict
        What was saved besides.
    options : dict
        What its run was asked for.
    elapsed : float
        Seconds of its run until then.

    Examples
    --------
    >>> from brdyn.training import Checkpoints
    >>> path = Checkpoints("kept", {"lr": 0.1}).save(1, 500, {"weight": torch.ones(2)}, {"note": "early"})
    >>> saved = Checkpoints("kept", {"lr": 0.1}).read(path)
    >>> saved.stage, saved.step, saved.tensors["weight"].tolist(), saved.state
    (1, 500, [1.0, 1.0], {'note': 'early'})
    """

    path: Path
    stage: int
    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    options: dict[str, Any]
    elapsed: float = 0.0


class Checkpoints:
    """The checkpoints of one run.

    Each is a folder `stageS-STEP` with tensors (safetensors) and a JSON file, written beside, through to the disk, and
    moved into place before another is given up.

    Parameters
    ----------
    folder : path
    options : mapping
        What the run was asked for; a checkpoint of a run with other options is refused.
    keep : int
        How many of the newest are kept.
    anew : bool
        Take the place of another run: its checkpoints are not seen, and go when the first of this run is written.
    watch : Stopwatch, optional
        Counts the seconds of the run, by default from now on.

    Examples
    --------
    >>> from brdyn.training import Checkpoints
    >>> checkpoints = Checkpoints("checkpoints", {"lr": 0.1}, keep=2)
    >>> for step in (10, 20, 30):
    ...     path = checkpoints.save(1, step, {"weight": torch.full((2,), float(step))}, {})
    >>> [path.name for path in checkpoints.paths()], checkpoints.latest().step
    (['stage1-00000020', 'stage1-00000030'], 30)
    """

    def __init__(
        self,
        folder: str | Path,
        options: Mapping[str, Any],
        keep: int = 2,
        anew: bool = False,
        watch: Stopwatch | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.anew = anew
        self.options = dict(options)
        self.keep = keep
        self.watch = watch or Stopwatch()

    def paths(self) -> list[Path]:
        """Checkpoints in order, oldest first."""
        return [] if self.anew else self._found()

    def _found(self) -> list[Path]:
        return sorted(unfinished.checkpoints(self.folder), key=_place)

    def save(self, stage: int, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write a checkpoint and drop the oldest.

        Raises
        ------
        BrdynError
            If it cannot be written; earlier ones are left as they were.
        """
        path = self.folder / f"stage{stage}-{step:08d}"
        half = self._beside()
        data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
        content = {
            "stage": stage,
            "step": step,
            "digest": hashlib.sha256(data).hexdigest(),
            "elapsed": self.watch.seconds,
            "options": self.options,
            "state": dict(state),
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            sync(self.folder.parent)
            self._sweep()
            half.mkdir()
            write_through(half / TENSORS, data)
            write_through(half / STATE, to_json(content))
            sync(half)
            replaced = [old for old in self._found() if old != path] if self.anew else []
            if path.exists():
                os.replace(path, self._beside())
            os.replace(half, path)
            sync(self.folder)
        except OSError as error:
            raise unwritable(path, error) from error
        finally:
            self._sweep()
        self.anew = False
        for old in replaced or self.paths()[: -self.keep]:
            self._drop(old)
        return path

    def remove(self) -> None:
        """Give all of them up, the newest last: the run has its result. What else is in their folder stays there."""
        for path in self._found():
            self._drop(path)
        self._sweep()
        with suppress(OSError):  # not empty
            self.folder.rmdir()

    def _drop(self, path: Path) -> None:
        """Give one up, which is whole to the last."""
        half = self._beside()
        with suppress(OSError):
            os.replace(path, half)
        shutil.rmtree(half, ignore_errors=True)

    def _beside(self) -> Path:
        return self.folder / f"{HALF}{uuid.uuid4().hex}"

    def _sweep(self) -> None:
        """Remove what was left half written, by this run or a killed one."""
        for left in self.folder.glob(f"{HALF}*"):
            shutil.rmtree(left, ignore_errors=True)

    def latest(self, *, previous: bool = False) -> Saved | None:
        """The newest checkpoint, or the one before it where the newest is damaged and `previous` is set.

        Raises
        ------
        UsageError
            If it is of a run with other options; they are listed.
        BrdynError
            If it is damaged.
        """
        paths = self.paths()
        if not paths:
            return None
        try:
            return self.read(paths[-1])
        except UsageError:
            raise
        except BrdynError as error:
            if previous and len(paths) > 1:
                return self.read(paths[-2])
            other = f"; `previous=True` goes on from {paths[-2].name}" if len(paths) > 1 else ""
            raise BrdynError(f"{error}{other}") from error

    def read(self, path: Path) -> Saved:
        """Read one checkpoint, and check that it is whole and of this run."""
        try:
            content = read_json(path / STATE, "the state of a checkpoint", SHAPE)
        except UsageError as error:
            raise BrdynError(f"the checkpoint {str(path)!r} is damaged ({error})") from error
        check_same(content["options"], self.options, path)
        try:
            data = (path / TENSORS).read_bytes()
            if hashlib.sha256(data).hexdigest() != content["digest"]:
                raise ValueError("its checksum differs: it is cut short or altered")
            tensors = load(data)
        except (OSError, ValueError, SafetensorError) as error:
            raise BrdynError(f"the checkpoint {str(path)!r} is damaged ({error})") from error
        return Saved(
            path,
            content["stage"],
            content["step"],
            tensors,
            content["state"],
            content["options"],
            content.get("elapsed", 0.0),
        )


def _place(path: Path) -> tuple[int, int]:
    stage, step = path.name.removeprefix("stage").split("-")
    return int(stage), int(step)
