"""Weights that are no numbers any more, though every loss is one: never validated, kept or written."""

import pytest
import torch

from brdyn.errors import DivergedError
from brdyn.training import Checkpoints, Session, train
from brdyn.training.optimization import all_finite
from tests.training.test_loop import Means, batches, settings

__all__ = ["batches"]  # a fixture


class Spoilt(Means):
    """The gradient of one step is infinite; its loss is not."""

    def __init__(self, at):
        super().__init__()
        self.at, self.seen, self.validated = at, 0, 0
        self.parts["images"].weight.register_hook(self._spoil)

    def _spoil(self, gradient):
        self.seen += 1
        return gradient * (torch.inf if self.seen == self.at else 1)

    def validate(self):
        self.validated += 1
        return super().validate()


@pytest.mark.parametrize(("at", "validated", "kept"), [(6, 0, [4]), (8, 1, [4]), (12, 1, [4, 8])])
def test_a_step_after_a_finite_loss(at, validated, kept, batches, tmp_path):
    """Of twelve steps with a checkpoint every four and a validation every six."""
    task, shown = Spoilt(at), []
    checkpoints = Checkpoints(tmp_path, {})
    words = rf"weights are not finite after step {at} of stage 1; the last good checkpoint is .*{kept[-1]}; try a"
    with pytest.raises(DivergedError, match=words):
        train(
            task, batches, settings(clip=0.0), session=Session(checkpoints=checkpoints),
            visit=lambda step, found: shown.append(step),
        )  # fmt: skip
    assert task.validated == validated
    assert shown[-1] == at - 1
    assert [checkpoints.read(path).step for path in checkpoints.paths()] == kept
    assert all(all_finite(checkpoints.read(path).tensors.values()) for path in checkpoints.paths())


def test_a_run_without_checkpoints_does_not_end_with_them(batches):
    with pytest.raises(DivergedError, match="there is no checkpoint yet"):
        train(Spoilt(12), batches, settings(clip=0.0))
