"""Checkpoints that are whole or not there, and that know whose they are."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from brdyn.errors import BrdynError, UsageError
from brdyn.results import read_json, to_json
from brdyn.training.settings import check_same

TENSORS, STATE = "state.safetensors", "state.json"
UNFINISHED = ".unfinished-"


@dataclass(frozen=True)
class Saved:
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


class Checkpoints:
    """The checkpoints of one run.

    Each is a folder `stageS-STEP` with tensors (safetensors) and a JSON file, written beside and moved into place.

    Parameters
    ----------
    folder : path
    options : mapping
        What the run was asked for; a checkpoint of a run with other options is refused.
    keep : int
        How many of the newest are kept.
    anew : bool
        Take the place of another run: its checkpoints are not seen, and go when the first of this run is written.

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
        self, folder: str | Path, options: Mapping[str, Any], keep: int = 2, anew: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.anew = anew
        self.options = dict(options)
        self.keep = keep

    def paths(self) -> list[Path]:
        """Checkpoints in order, oldest first."""
        return [] if self.anew else self._found()

    def _found(self) -> list[Path]:
        found = [path for path in self.folder.glob("stage*-*") if (path / STATE).is_file()]
        return sorted(found, key=_place)

    def save(self, stage: int, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write a checkpoint and drop the oldest.

        Raises
        ------
        BrdynError
            If it cannot be written; earlier ones are left as they were.
        """
        path = self.folder / f"stage{stage}-{step:08d}"
        unfinished = self.folder / f"{UNFINISHED}{uuid.uuid4().hex}"
        data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
        content = {
            "stage": stage,
            "step": step,
            "digest": hashlib.sha256(data).hexdigest(),
            "options": self.options,
            "state": dict(state),
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            unfinished.mkdir()
            _write(unfinished / TENSORS, data)
            _write(unfinished / STATE, to_json(content))
            replaced = self._found() if self.anew else []
            if path.exists():
                shutil.rmtree(path)
            os.replace(unfinished, path)
            self.anew = False
            for old in replaced:
                if old != path:
                    shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise BrdynError(f"cannot write the checkpoint {str(path)!r} ({error.strerror})") from error
        for old in self.paths()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def _sweep(self) -> None:
        """Remove what a killed run left half written."""
        for left in self.folder.glob(f"{UNFINISHED}*"):
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
            other = f"; --previous goes on from {paths[-2].name}" if len(paths) > 1 else ""
            raise BrdynError(f"{error}{other}") from error

    def read(self, path: Path) -> Saved:
        """Read one checkpoint, and check that it is whole and of this run."""
        try:
            content = read_json(path / STATE, "the state of a checkpoint")
            stage, step, digest, options = (content[key] for key in ("stage", "step", "digest", "options"))
        except (UsageError, KeyError) as error:
            raise BrdynError(f"the checkpoint {str(path)!r} is damaged ({error})") from error
        check_same(options, self.options, path)
        try:
            data = (path / TENSORS).read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                raise ValueError("its checksum differs: it is cut short or altered")
            tensors = load(data)
        except (OSError, ValueError, SafetensorError) as error:
            raise BrdynError(f"the checkpoint {str(path)!r} is damaged ({error})") from error
        return Saved(path, stage, step, tensors, content["state"])


def _place(path: Path) -> tuple[int, int]:
    stage, step = path.name.removeprefix("stage").split("-")
    return int(stage), int(step)


def _write(path: Path, data: bytes) -> None:
    """Write a file through to the disk, so that the rename cannot overtake it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
