"""The training room: one loop, exact resume, checkpoints. It knows nothing of what is trained."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brdyn.training.checkpoints import Checkpoints, Saved
    from brdyn.training.loop import train
    from brdyn.training.session import Session
    from brdyn.training.settings import TrainSettings
    from brdyn.training.task import History, Task

# Imported on first use: the command line reads settings without torch.
_HOMES = {
    "Checkpoints": "brdyn.training.checkpoints",
    "History": "brdyn.training.task",
    "Saved": "brdyn.training.checkpoints",
    "Session": "brdyn.training.session",
    "Task": "brdyn.training.task",
    "TrainSettings": "brdyn.training.settings",
    "train": "brdyn.training.loop",
}

__all__ = ["Checkpoints", "History", "Saved", "Session", "Task", "TrainSettings", "train"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
