"""What a run that was killed has left in its folder, and whether there is something to go on with. Needs no torch."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from brdyn.errors import permitted
from brdyn.store import files

CHECKPOINTS = "checkpoints"  # their folder in that of a run
MARKER = "unfinished.json"  # says that a run has begun here and not ended
STATE = "state.json"  # of a checkpoint that is whole
NAME = re.compile("stage[0-9]+-[0-9]+")  # of a checkpoint
HALF = ".unfinished-"  # begins the name of a checkpoint that is not
TRACKER = "tracker"
LEFT = ("config.json", "model.safetensors")  # in a folder that a run may leave things in


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in the folder of a run's checkpoints."""
    return [path for path in folder.glob("stage*-*") if NAME.fullmatch(path.name) and (path / STATE).is_file()]


def has_checkpoints(folder: Path) -> bool:
    """Whether a run can be gone on with in its folder."""
    return bool(checkpoints(folder / CHECKPOINTS))


@permitted()
def goes_on(folder: Path, names: Iterable[str]) -> bool:
    """Whether one of these files is in a folder, or a checkpoint in `checkpoints`, which may be anybody's."""
    paths = [folder / name for name in names]
    return any(has_checkpoints(path.parent) if path.name == CHECKPOINTS else path.is_file() for path in paths)


def is_there(folder: Path) -> bool:
    """Whether a run has begun in a folder, or a run of a grid in one of its folders, and not ended."""
    return (folder / MARKER).is_file() or has_checkpoints(folder)


def only_leftovers(folder: Path) -> bool:
    """Whether a folder holds nothing but what killed runs have left, and nothing to go on with."""
    return _look(folder)[1]


def sweep(folder: Path, everything: bool = True) -> None:
    """Remove what killed runs have left half written; with `everything`, all they left if nothing else is there."""
    (left, alone), leaves = _look(folder), _leaves(folder)
    for path in left:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif files.is_unfinished(path) or (everything and alone):
            path.unlink(missing_ok=True)
    with suppress(OSError):  # not there, or not empty
        (folder / CHECKPOINTS).rmdir()
    if everything and alone:
        _prune(folder, leaves)


def _look(folder: Path) -> tuple[list[Path], bool]:
    """What killed runs have left in a folder, and whether there is nothing else."""
    leaves, left, alone = _leaves(folder), [], True
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if path.name == CHECKPOINTS:
                found = list(path.iterdir())
                half = [one for one in found if one.name.startswith(HALF)]
                inside, only = half, len(half) == len(found)
            elif path.name in leaves:
                inside, only = _look_inside(path)
            else:
                inside, only = [], False
            left += inside
            alone = alone and only
        elif files.is_left(path) or path.name == MARKER:
            left.append(path)
        else:
            alone = False
    return left, alone


def _look_inside(folder: Path) -> tuple[list[Path], bool]:
    """As :func:`_look`, in a folder in that of a run: of a kept classifier, a tracker, a run of a grid."""
    if (folder / MARKER).is_file():
        return _look(folder)
    there = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    left = [path for path in there if path.name in LEFT or ".tfevents." in path.name or files.is_left(path)]
    return left, len(left) == len(there)


def _prune(folder: Path, names: Iterable[str]) -> None:
    """Remove folders in which nothing is left."""
    for name in names:
        within = sorted((folder / name).rglob("*"), reverse=True)  # innermost first
        for path in (*within, folder / name):
            if path.is_dir():
                with suppress(OSError):  # not empty
                    path.rmdir()


def _leaves(folder: Path) -> set[str]:
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        return set(json.loads((folder / MARKER).read_bytes())["leaves"])
    return set()
