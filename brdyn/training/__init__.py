"""The training room: one loop, exact resume, checkpoints. It knows nothing of what is trained."""

from brdyn.training.checkpoints import Checkpoints, Saved
from brdyn.training.loop import History, Task, train
from brdyn.training.settings import TrainSettings

__all__ = ["Checkpoints", "History", "Saved", "Task", "TrainSettings", "train"]
