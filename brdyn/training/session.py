"""How a training is run, whatever is trained: where it is kept and goes on from, on what device, and who is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from brdyn.compared import Compared
from brdyn.errors import UsageError
from brdyn.training.checkpoints import Checkpoints, Saved
from brdyn.training.settings import check_same, differences

Report = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Session(Compared):
    """A sitting of a training: it decides nothing of the result.

    Attributes
    ----------
    checkpoints : Checkpoints or None
        Where to keep them, as often as the settings say and at the end.
    resume : Saved or None
        A checkpoint of this very training to go on from.
    accelerator : Accelerator or None
        By default one on the device of what is trained.
    report : callable or None
        Gets stage, step and numbers of every logged step: a tracker.
    progress : bool
        Show a progress bar on a terminal.

    Examples
    --------
    >>> from brdyn.raptor import FitSettings, fit_options
    >>> from brdyn.training import Checkpoints, Session
    >>> settings = FitSettings(stage1_steps=2, stage2_steps=0, batch_size=4, mlp_ratio=1.0, log_every=1)
    >>> checkpoints, steps = Checkpoints("sitting", fit_options(model, images, [0] * 12, settings)), []
    >>> first = Session(checkpoints=checkpoints, report=lambda stage, step, row: steps.append(step))
    >>> fit = brdyn.fit_raptor(model, images, [0] * 12, settings, session=first)
    >>> later = Session(checkpoints=checkpoints, resume=checkpoints.latest())
    >>> again = brdyn.fit_raptor(model, images, [0] * 12, settings, session=later)  # nothing is left to do
    >>> steps, again.histories[1].losses == fit.histories[1].losses
    ([1, 2], True)
    """

    checkpoints: Checkpoints | None = None
    resume: Saved | None = None
    accelerator: Accelerator | None = None
    report: Report | None = None
    progress: bool = False

    def on(self, device: torch.device | None = None) -> Accelerator:
        """Its accelerator, or a new one for this device."""
        return self.accelerator or make_accelerator(device)

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse checkpoints that say of another training that they are of it.

        Raises
        ------
        UsageError
            With the options that differ.
        """
        if self.resume is not None:
            check_same(self.resume.options, options, self.resume.path)
        other = [] if self.checkpoints is None else differences(self.checkpoints.options, options)
        if other:
            raise UsageError(
                f"checkpoints have the options of their training, and these are others ({'; '.join(other)}); give "
                "`Checkpoints` those of this one: `fit_options(…)` of a Raptor, `run.options(…)` of a classifier"
            )


def make_accelerator(device: torch.device | None = None) -> Accelerator:
    """An accelerator; on the CPU where the device is one.

    Precision is left to the settings of each training: accelerate allows a process only one, the caller's own where
    there is one, and nothing that is asked of it here has any. So it does of devices: unless processes share the work,
    what it holds from an earlier training elsewhere is let go.
    """
    cpu = device is not None and device.type == "cpu"
    held = PartialState._shared_state.get("device")
    best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    there = "cpu" if cpu or best is None else best.type
    if held is not None and held.type != there and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=cpu)
