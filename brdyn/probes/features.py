"""Frozen features of labelled images: the final cls token beside the mean patch. BRH, method notes section 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from brdyn.arguments import checked
from brdyn.compared import Compared
from brdyn.data import ImageSet
from brdyn.errors import UsageError
from brdyn.measures.engine import measure
from brdyn.measures.sampling import SamplingMetric
from brdyn.models import VisionTransformer
from brdyn.trajectory import Stream, Trajectory, check_normed

Readout = Callable[[Trajectory], Tensor]
PARTS = ("values", "labels", "positions")


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Features(Compared):
    """Features of labelled images, in the order of the images.

    Attributes
    ----------
    values : Tensor
        `(n, F)`, float32; F is 2 D, or D for a model without cls.
    labels : Tensor
        Class indices, `(n,)`.
    positions : Tensor or None
        Of the images in their set, `(n,)`, where they are of one.

    Examples
    --------
    >>> from brdyn.probes import Features
    >>> features = Features(torch.rand(4, 8), torch.tensor([0, 2, 1, 2]))
    >>> len(features), features.classes, len(features[:2])
    (4, 3, 2)
    """

    values: Tensor
    labels: Tensor
    positions: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse labels of other images."""
        if self.values.ndim != 2 or self.labels.shape != self.values.shape[:1]:
            raise UsageError(
                f"features of shape {tuple(self.values.shape)} and labels of shape {tuple(self.labels.shape)} do not "
                "go together; give (n, F) and (n,)"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """One more than the largest class index."""
        return int(self.labels.max()) + 1

    def __getitem__(self, rows: np.ndarray | Tensor) -> Features:
        positions = None if self.positions is None else self.positions[rows]
        return Features(self.values[rows], self.labels[rows], positions)


def check_width(features: Features, values: Tensor) -> None:
    """Refuse values that are not of as many features each.

    Raises
    ------
    UsageError
    """
    width = features.values.shape[1]
    if values.ndim != 2 or values.shape[1] != width:
        raise UsageError(
            f"features of shape {tuple(values.shape)} are not read as those of {width} in training; give (m, {width})"
        )


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

    Examples
    --------
    >>> from brdyn.probes import FeatureMetric
    >>> metric = FeatureMetric.of(model)
    >>> metric.update(brdyn.capture(model, next(images.batches(4))))
    >>> metric.result().values.shape  # cls beside the mean patch
    torch.Size([4, 384])
    """

    values: list[Tensor] | Tensor
    labels: list[Tensor] | Tensor
    positions: list[Tensor] | Tensor

    def __init__(self, readout: Readout, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.readout, self.width = readout, width
        self.add_rows("values", width)
        self.add_rows("labels", dtype=torch.long)
        self.add_rows("positions", dtype=torch.long)

    @classmethod
    def of(cls, model: VisionTransformer) -> FeatureMetric:
        """Of the model whose trajectories it is given."""
        return cls(lambda trajectory: read_out(model, trajectory.states[-1]), feature_width(model))

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a trajectory that have labels."""
        rows, device = trajectory.labelled, self.device
        for state, found in (
            (self.values, self.readout(trajectory).detach()),
            (self.labels, trajectory.labels),
            (self.positions, trajectory.positions),
        ):
            assert isinstance(state, list)
            state.append(found[rows.to(found.device)].to(device))

    def compute(self) -> dict[str, Tensor]:
        """Features, labels and positions of all processes, in the order of the images, on the CPU."""
        order = dim_zero_cat(self.positions).argsort()
        return {name: dim_zero_cat(getattr(self, name))[order].cpu() for name in PARTS}

    def result(self) -> Features:
        """All of them."""
        found = self.compute()  # of one number torchmetrics makes a scalar
        labels, positions = (found[name].reshape(-1) for name in PARTS[1:])
        return Features(found["values"].reshape(-1, self.width), labels, positions)


NO_LABELS = (
    "a probe needs images with labels, and these have none; give a folder of class folders, a parquet file or hub "
    "data set with a label column"
)


def check_labelled(images: ImageSet) -> None:
    """Raise a `UsageError` for images without labels."""
    if images.source.labels is None:
        why = f" ({images.source.no_labels})" if images.source.no_labels else ""
        raise UsageError(f"{NO_LABELS}{why}")


def feature_width(model: VisionTransformer) -> int:
    """F, the number of features."""
    return model.info.width * len(model.tokens.readouts)


@checked
def extract_features(
    model: VisionTransformer,
    images: ImageSet,
    metrics: Mapping[str, FeatureMetric] | None = None,
    stream: Stream | None = None,
) -> dict[str, Features]:
    """Features of all images that have a label, in one pass.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet
        With labels; those that have none are left out.
    metrics : mapping of str to FeatureMetric, optional
        What to read out. By default `model`, the features of the model.
    stream : Stream, optional
        How to go through the images.

    Raises
    ------
    UsageError
        If the images have no labels, or not one has.

    Examples
    --------
    >>> from brdyn.probes import extract_features
    >>> features = extract_features(model, images)["model"]
    >>> features.values.shape, features.labels.tolist()
    (torch.Size([8, 384]), [0, 0, 0, 0, 1, 1, 1, 1])
    """
    check_labelled(images)
    chosen = dict(metrics) if metrics is not None else {"model": FeatureMetric.of(model)}
    report = measure(model, images, chosen, stream=stream)
    if report.unlabelled.count == report.count:
        raise UsageError(
            f"a probe needs labels, and not one of the {report.count} images in {images.source.description!r} has one "
            f"({report.unlabelled.example()})"
        )
    found = {name: metric.result() for name, metric in chosen.items()}
    for features in found.values():
        check_normed(model, features.values)
    return found
