"""Angular basins: do the images of a class end up in one region of the sphere? Method notes, section 6.

The direction of an image in a token group is that of the group's mean token. Directions of a bounded sample of the
images are kept, so that every pair can be compared at every layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.utilities import dim_zero_cat

from brdyn.checked_json import take
from brdyn.compared import Compared
from brdyn.data import ImageSet
from brdyn.errors import UsageError
from brdyn.measures.bootstrap import poisson_weights
from brdyn.measures.contract import COLUMNS, Asked, DepthMeasure
from brdyn.measures.projection import on_principal_plane
from brdyn.measures.sampling import SamplingMetric, rows_in
from brdyn.models import TokenLayout, VisionTransformer
from brdyn.random_keys import random_keys
from brdyn.store import read_table
from brdyn.trajectory import Trajectory

NEIGHBOURS = 10
STILL = 1e-4  # radians: directions nearer than this at a layer are one direction, up to rounding

NO_LABELS = (
    "angular basins need images with labels, and these have none; give a folder of class folders, a parquet file or "
    "hub data set with a label column, or leave basins out"
)
UNITS = {
    "within_class_angle": "angle within a class (radians)",
    "between_class_angle": "angle between classes (radians)",
    "basin_ratio": "within / between angle",
    "knn_purity": "neighbours of the same class (share)",
}
POSSIBLE = {  # the least and the largest value there can be
    "within_class_angle": (0, np.pi),
    "between_class_angle": (0, np.pi),
    "basin_ratio": (0, np.inf),
    "knn_purity": (0, 1),
}

PROJECTION = ("position", "label", "layer", "x", "y")
SHAPE = {  # in dynamics.json
    "neighbours": int,
    "chance_purity": float,
    "n_images": int,
    "n_classes": int,
    "projected_group": str,
    "explained_variance": [float],
    "classes?": {str: str},
}


@dataclass(frozen=True, eq=False, repr=False)
class Basins(Compared):
    """Class-conditional spread of directions.

    Attributes
    ----------
    table : DataFrame
        Rows like those of the other measures: `within_class_angle`, `between_class_angle`, `basin_ratio`,
        `knn_purity` by token group and layer 0..L. `low` and `high` are a 95 % bootstrap interval over images,
        within classes where all have as many, cut off where no value can be: the bias of the draws is taken off, which
        of few images moves an end past 0 or 1, and what is cut off never holds the true value. `sd` is the spread of
        the images' own values. Where all directions coincide, as those of cls do in the embedding, there is neither
        ratio nor purity (NaN).
    projection : DataFrame
        One row per image and layer: `position`, `label`, `layer`, `x`, `y`, the directions of one token group on
        the first two principal components of its directions at layer L.
    explained : tuple of float
        Share of the variance at layer L along each of the two.
    projected_group : str
    neighbours : int
        Number of nearest neighbours of the purity.
    chance : float
        Purity expected of directions that know nothing of the class.
    n_images, n_classes : int
        Of the sample.
    names : mapping of int to str
        Of the classes of the sample by their label; empty where the images have none.
    """

    table: pd.DataFrame
    projection: pd.DataFrame
    explained: tuple[float, float]
    projected_group: str
    neighbours: int
    chance: float
    n_images: int
    n_classes: int
    names: Mapping[int, str] = field(default_factory=dict)

    @property
    def rows(self) -> pd.DataFrame:
        """For the table of all measures."""
        return self.table

    def to_dict(self) -> dict[str, Any]:
        """What is not in the tables, ready for JSON."""
        return {
            "neighbours": self.neighbours,
            "chance_purity": self.chance,
            "n_images": self.n_images,
            "n_classes": self.n_classes,
            "projected_group": self.projected_group,
            "explained_variance": list(self.explained),
            "classes": {str(label): name for label, name in self.names.items()},
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """The projection."""
        return {"basins.parquet": self.projection}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], table: pd.DataFrame, folder: Path) -> Basins:
        """Back from a result of `brdyn dynamics`.

        Raises
        ------
        UsageError
            If the projection is not there.
        """
        take(content, SHAPE, "basins")
        return cls(
            table=table[table["statistic"].isin(UNITS)].reset_index(drop=True),
            projection=read_table(folder / "basins.parquet", "the projection of basins", PROJECTION),
            explained=tuple(content["explained_variance"]),
            projected_group=content["projected_group"],
            neighbours=content["neighbours"],
            chance=content["chance_purity"],
            n_images=content["n_images"],
            n_classes=content["n_classes"],
            names={int(label): name for label, name in content.get("classes", {}).items()},
        )


class AngularBasins(SamplingMetric, DepthMeasure):
    """Keeps the directions of up to `max_images` labelled images of up to `max_classes` classes.

    Classes, and images within a class, are drawn at random by `seed`; every class has as many places.

    Parameters
    ----------
    layout : TokenLayout
    depth, width : int
        L and D.
    max_images, max_classes : int
    replicates, seed : int
        Of the bootstrap; the seed also draws the sample.
    label_names : sequence of str or None
        Of all classes, by label.
    """

    DETAILS = Basins

    directions: list[Tensor] | Tensor
    labels: list[Tensor] | Tensor
    positions: list[Tensor] | Tensor

    def __init__(
        self,
        layout: TokenLayout,
        depth: int,
        width: int,
        *,
        max_images: int = 1000,
        max_classes: int = 50,
        replicates: int = 200,
        seed: int = 0,
        label_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layout, self.depth, self.width = layout, depth, width
        self.max_images, self.max_classes = max_images, max_classes
        self.replicates, self.seed, self.label_names = replicates, seed, label_names
        self.add_rows("directions", depth + 1, len(layout.groups), width)
        self.add_rows("labels", dtype=torch.long)
        self.add_rows("positions", dtype=torch.long)

    @classmethod
    def missing(cls, images: ImageSet) -> str | None:
        """Labels."""
        report = images.report
        if not images.source.labelled:
            return "; ".join(filter(None, (NO_LABELS, images.source.no_labels)))
        if report.count and report.unlabelled.count == report.count:
            return (
                f"angular basins need labels, and not one of the {report.count} images has one "
                f"({report.unlabelled.example()})"
            )
        return None

    @classmethod
    def make(cls, model: VisionTransformer, asked: Asked) -> Self:
        return cls(model.tokens, model.depth, model.info.width, seed=asked.seed, label_names=asked.label_names)

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a trajectory, those that have labels."""
        rows = trajectory.labelled
        if not rows.any():
            return
        means = torch.stack([trajectory.mean(group) for group in self.layout.groups], dim=2).to(self.device)
        assert isinstance(self.directions, list)
        assert isinstance(self.labels, list)
        assert isinstance(self.positions, list)
        means = means.transpose(0, 1)[rows.to(means.device)]  # (B, L + 1, G, D)
        self.directions.append(functional.normalize(means, dim=-1))
        self.labels.append(trajectory.labels[rows].to(means.device))
        self.positions.append(trajectory.positions[rows].to(means.device))
        if rows_in(self.labels) > 2 * self.max_images:
            directions, labels, positions = self.sample()
            self.directions, self.labels, self.positions = [directions], [labels], [positions]

    def sample(self) -> tuple[Tensor, Tensor, Tensor]:
        """Directions `(n, L + 1, G, D)`, labels and positions of the images kept, ordered by position."""
        if not rows_in(self.labels):
            raise UsageError(NO_LABELS)
        directions, labels, positions = map(dim_zero_cat, (self.directions, self.labels, self.positions))
        keep = choose(labels.cpu().numpy(), positions.cpu().numpy(), self.max_images, self.max_classes, self.seed)
        chosen = torch.from_numpy(keep).to(labels.device)
        return directions[chosen], labels[chosen], positions[chosen]

    def compute(self) -> dict[str, Tensor]:
        """The sample: `directions` `(n, L + 1, G, D)`, `labels` and `positions`."""
        return dict(zip(("directions", "labels", "positions"), self.sample(), strict=True))

    def details(self, boundaries: Sequence[int] = ()) -> Basins:
        """Compare every pair of images of the sample, whatever the phases.

        Raises
        ------
        UsageError
            If the images have no labels, or fewer than two classes have two images.
        """
        del boundaries
        directions, labels, positions = self.compute().values()
        labels, positions = labels.reshape(-1), positions.reshape(-1)  # torchmetrics makes a scalar of one
        classes, members, counts = labels.unique(return_inverse=True, return_counts=True)
        many = counts[members] > 1
        directions, labels, positions = directions[many], labels[many], positions[many]
        if int((counts > 1).sum()) < 2:
            raise UsageError(
                "angular basins need at least two classes with two images each (labelled images: "
                f"{len(many)}, classes: {len(classes)}, of them with two images: {int((counts > 1).sum())}); give more "
                "images per class, or leave basins out"
            )
        same = labels[:, None] == labels[None]
        weights = resampled(labels, positions, self.replicates, self.seed)
        neighbours = min(NEIGHBOURS, int(counts[counts > 1].min()) - 1)
        rows = [
            row
            for index, group in enumerate(self.layout.groups)
            for layer in range(directions.shape[1])
            for row in _rows(directions[:, layer, index], same, weights, neighbours, group, layer)
        ]
        group = self.layout.readouts[0]
        place = list(self.layout.groups).index(group)
        projection, explained = on_principal_plane(directions[:, :, place], labels, positions)
        return Basins(
            table=pd.DataFrame(sorted(rows, key=lambda row: list(UNITS).index(row[0])), columns=list(COLUMNS)),
            projection=projection,
            explained=explained,
            projected_group=group,
            neighbours=neighbours,
            chance=float((same.sum(1) - 1).double().mean() / (len(labels) - 1)),
            n_images=len(labels),
            n_classes=int((counts > 1).sum()),
            names={label: name for label, name in enumerate(self.label_names or ()) if (labels == label).any()},
        )


def choose(labels: np.ndarray, positions: np.ndarray, max_images: int, max_classes: int, seed: int) -> np.ndarray:
    """Indices of a sample with equal places for each class, in order of position.

    Choosing among what earlier choices kept gives the choice among all: batches may come in any order.
    """
    classes = np.unique(labels)
    kept = classes[random_keys(classes, seed + 1).argsort(kind="stable")[:max_classes]]
    places = max(1, max_images // len(kept))
    keys = random_keys(positions, seed)
    members = (np.flatnonzero(labels == label) for label in kept)
    chosen = np.concatenate([index[keys[index].argsort(kind="stable")[:places]] for index in members])
    return chosen[positions[chosen].argsort(kind="stable")]


def resampled(labels: Tensor, positions: Tensor, replicates: int, seed: int) -> Tensor:
    """Weights of images in every bootstrap sample, `(R, n)`, float64.

    Classes keep their sizes where all have as many: they were drawn so, and would not vary between such samples.
    """
    weights = poisson_weights(positions.cpu().tolist(), replicates, seed).T
    _, members, counts = labels.cpu().unique(return_inverse=True, return_counts=True)
    if counts.unique().numel() == 1:
        drawn = weights @ functional.one_hot(members).double()
        weights = weights * (counts / drawn.clamp_min(1))[:, members]
    return weights


def angles_between(directions: Tensor) -> Tensor:
    """Angles between unit vectors `(n, D)`, `(n, n)`, float64, by the chord: good to 1e-7 for small ones."""
    exact = functional.normalize(directions.double(), dim=-1)
    half_chord = ((1 - exact @ exact.T) / 2).clamp(0, 1).sqrt()
    return 2 * half_chord.asin()


def _rows(
    directions: Tensor, same: Tensor, weights: Tensor, neighbours: int, group: str, layer: int
) -> list[tuple[Any, ...]]:
    """The columns `COLUMNS` of one group and layer."""
    directions, same = directions.cpu(), same.cpu()
    angles = angles_between(directions)
    others = (~torch.eye(len(same), dtype=torch.bool)).double()
    pairs = {"within_class_angle": same.double() * others, "between_class_angle": (~same).double()}
    values = {name: _means(angles, pair, weights) for name, pair in pairs.items()}
    within, between = values.values()
    nearest = angles.masked_fill(others == 0, torch.inf).topk(neighbours, largest=False).indices
    near = torch.zeros_like(angles).scatter_(1, nearest, 1.0)
    values["basin_ratio"] = tuple(inner / outer for inner, outer in zip(within, between, strict=True))
    values["knn_purity"] = _means(same.double(), near, weights)
    if angles.max() <= STILL:
        for name in ("basin_ratio", "knn_purity"):
            values[name] = tuple(torch.full_like(value, torch.nan) for value in values[name])
    rows = []
    for name, (whole, each, draws) in values.items():
        mean = float(whole)
        low = high = np.nan
        if np.isfinite(mean):
            # Samples have fewer pairs within a class, as no image pairs with itself: that bias goes.
            ends = np.nanpercentile(draws, [2.5, 97.5]) + mean - float(draws.nanmean())
            low, high = ends.clip(*POSSIBLE[name])
        rows.append((name, UNITS[name], group, layer, mean, low, high, float(each.std()), len(same)))
    return rows


def _means(values: Tensor, pairs: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """Mean of values `(n, n)` over pairs of images: of all, of each image, `(n,)`, and of every sample, `(R,)`."""
    chosen = values * pairs
    drawn = ((weights @ chosen) * weights).sum(1) / ((weights @ pairs) * weights).sum(1)
    return chosen.sum() / pairs.sum(), chosen.sum(1) / pairs.sum(1), drawn
