"""Frozen features of labelled images: the final cls token beside the mean patch. BRH, method notes section 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from brdyn.data import ImageSet
from brdyn.errors import UsageError
from brdyn.measures.engine import measure
from brdyn.measures.sampling import SamplingMetric
from brdyn.models import VisionTransformer
from brdyn.trajectory import Trajectory, check_normed

Readout = Callable[[Trajectory], Tensor]


@dataclass(frozen=True)
class Features:
    """Features of images, in the order of the images.

    Attributes
    ----------
    values : Tensor
        `(n, F)`, float32; F is 2 D, or D for a model without cls.
    labels : Tensor
        Class indices, `(n,)`.
    """

    values: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """One more than the largest class index."""
        return int(self.labels.max()) + 1

    def __getitem__(self, rows: np.ndarray | Tensor) -> Features:
        return Features(self.values[rows], self.labels[rows])


def read_out(model: VisionTransformer, state: Tensor) -> Tensor:
    """cls and the mean patch (of a ViTRM, y and the mean z) of the normed state `(B, N, D)`, side by side, float32."""
    normed = model.norm(state).float()
    parts = [normed[:, model.tokens[group]].mean(1) for group in model.tokens.readouts]
    return torch.cat(parts, dim=-1)


class FeatureMetric(SamplingMetric):
    """Collects the features of every image of a pass.

    Parameters
    ----------
    readout : callable
        Features `(B, F)` of a trajectory.
    width : int
        F.
    """

    values: list[Tensor] | Tensor
    labels: list[Tensor] | Tensor
    positions: list[Tensor] | Tensor

    def __init__(self, readout: Readout, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.readout, self.width = readout, width
        for name in ("values", "labels", "positions"):
            self.add_state(name, [], dist_reduce_fx="cat")

    @classmethod
    def of(cls, model: VisionTransformer) -> FeatureMetric:
        """Of the model whose trajectories it is given."""
        return cls(lambda trajectory: read_out(model, trajectory.states[-1]), feature_width(model))

    def no_rows(self) -> Mapping[str, Tensor]:
        """Empty features, labels and positions."""
        none = torch.empty(0, dtype=torch.long)
        return {"values": torch.empty(0, self.width), "labels": none, "positions": none}

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a trajectory."""
        if trajectory.labels is None:
            raise UsageError(NO_LABELS)
        device = self.device
        for state, found in (
            (self.values, self.readout(trajectory).detach()),
            (self.labels, trajectory.labels),
            (self.positions, trajectory.positions),
        ):
            assert isinstance(state, list)
            state.append(found.to(device))

    def compute(self) -> dict[str, Tensor]:
        """Features and labels of all processes, in the order of the images, on the CPU."""
        order = dim_zero_cat(self.positions).argsort()
        return {name: dim_zero_cat(getattr(self, name))[order].cpu() for name in ("values", "labels")}

    def result(self) -> Features:
        """All of them."""
        found = self.compute()  # of one number torchmetrics makes a scalar
        return Features(found["values"].reshape(-1, self.width), found["labels"].reshape(-1))


NO_LABELS = (
    "a probe needs images with labels, and these have none; give a folder of class folders, a parquet file or hub "
    "data set with a label column"
)


def feature_width(model: VisionTransformer) -> int:
    """F, the number of features."""
    return model.info.width * len(model.tokens.readouts)


def extract_features(
    model: VisionTransformer,
    images: ImageSet,
    metrics: Mapping[str, FeatureMetric] | None = None,
    **options: Any,
) -> dict[str, Features]:
    """Features of all images, in one pass.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet
        With labels.
    metrics : mapping of str to FeatureMetric, optional
        What to read out. By default `model`, the features of the model.
    **options
        Of :func:`brdyn.measures.engine.measure`.

    Raises
    ------
    UsageError
        If the images have no labels.
    """
    if not images.source.labelled:
        raise UsageError(NO_LABELS)
    chosen = dict(metrics) if metrics is not None else {"model": FeatureMetric.of(model)}
    measure(model, images, chosen, **options)
    found = {name: metric.result() for name, metric in chosen.items()}
    for features in found.values():
        check_normed(model, features.values)
    return found
