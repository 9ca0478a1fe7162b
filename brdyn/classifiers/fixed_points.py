"""A ViTRM's recursion step past those that it was trained for. Method notes, section 10."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from brdyn.classifiers.pixels import PixelSet
from brdyn.classifiers.saved import Classifier
from brdyn.classifiers.vitrm import Streams, ViTRM
from brdyn.measures.fixed_points import FixedPointMetric, Repeated
from brdyn.measures.found_fixed_points import FixedPoints
from brdyn.models import TokenLayout
from brdyn.trajectory import Trajectory

READ = {"accuracy": "accuracy", "halting": "mean halting probability"}
NAME = "recursion step"
AT_ONCE = 64  # images: products with a Jacobian write attention out


class StepPastTraining(FixedPointMetric):
    """Follows y and z through recursion steps; x, the image, stays as it is and is no part of the state.

    Parameters
    ----------
    vitrm : ViTRM
    applications : int
        Recursion steps.
    seed : int
    """

    def __init__(self, vitrm: ViTRM, applications: int, seed: int = 0) -> None:
        config = vitrm.config
        side = config.image_size // config.patch
        layout = TokenLayout(
            {"y": slice(0, 1), "z": slice(1, 1 + config.patches)}, (side, side), answer="y", spatial="z"
        )
        super().__init__(layout, applications, READ, seed)
        self._held = (vitrm,)

    def begin(self, trajectory: Trajectory) -> Repeated:
        """A recursion step, from the streams `[x; y; z]` that are the first state."""
        patches = self._held[0].config.patches
        first = trajectory.states[0]
        x, start = first[:, :patches], first[:, patches:]
        return Repeated(start, partial(self.applied, x), partial(self.reading, x, trajectory.labels))

    def applied(self, x: Tensor, state: Tensor, number: int) -> Tensor:
        """The state after a recursion step."""
        del number  # every step is the same
        after = self._held[0].step(Streams(x, state[:, :1], state[:, 1:]))
        return torch.cat((after.y, after.z), dim=1)

    def reading(self, x: Tensor, labels: Tensor, state: Tensor, number: int) -> Mapping[str, Tensor]:
        """What the heads make of it."""
        del number
        found = self._held[0].read(Streams(x, state[:, :1], state[:, 1:]))
        right = found.scores.argmax(1) == labels.to(found.scores.device)
        return {"accuracy": right.double(), "halting": found.halting.sigmoid()}


def recursion_past_training(
    classifier: Classifier, images: PixelSet, factor: int, trained: int = 1, seed: int = 0
) -> FixedPoints:
    """Take `factor` times as many recursion steps as a ViTRM was trained for.

    Parameters
    ----------
    classifier : Classifier
        With a ViTRM.
    images : PixelSet
    factor : int
        At least 2.
    trained : int
        Steps that it was trained for.
    seed : int

    Examples
    --------
    >>> from brdyn.classifiers import Classifier, load_pixels
    >>> from brdyn.classifiers.fixed_points import recursion_past_training
    >>> images = load_pixels("photos", image_size=8)
    >>> classifier = Classifier.new("vitrm", images.names, 8, *images.statistics(), width=12, heads=2, hidden=16)
    >>> recursion_past_training(classifier, images, factor=4).lengths
    {'recursion step': 1}
    """
    vitrm = classifier.network
    assert isinstance(vitrm, ViTRM)
    device = next(vitrm.parameters()).device
    metric = StepPastTraining(vitrm, factor * trained, seed)
    metric.to(torch.device("cpu") if device.type == "mps" else device)
    positions = torch.arange(len(images.pixels))
    for pixels, labels, places in zip(
        images.pixels.split(AT_ONCE), images.labels.split(AT_ONCE), positions.split(AT_ONCE), strict=True
    ):
        with torch.no_grad():
            state = torch.cat(vitrm.begin(classifier.normalised(pixels.to(device))), dim=1)
        metric.update(Trajectory((state,), metric.layout, places, labels))
    return FixedPoints.of(factor, {NAME: metric})
