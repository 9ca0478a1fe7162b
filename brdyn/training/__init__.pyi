from .checkpoints import Checkpoints as Checkpoints
from .checkpoints import Saved as Saved
from .loop import train as train
from .session import Session as Session
from .settings import TrainSettings as TrainSettings
from .task import History as History
from .task import Task as Task
