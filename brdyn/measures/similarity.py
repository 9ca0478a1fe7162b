"""How similar the layers are: what all similarity measures share, and their result.

S[l, m] for blocks l, m in 1..L (method notes, section 2). Every measure is a torchmetrics `Metric`
fed with trajectories; its state does not grow with the number of images, and it is summed over
processes. Uncertainty comes from a Poisson bootstrap kept up while streaming (see
:mod:`brdyn.measures.bootstrap`).
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from brdyn.arguments import checked
from brdyn.choices import check_least
from brdyn.errors import BrdynError, UsageError
from brdyn.measures.bootstrap import poisson_weights
from brdyn.models import TokenLayout
from brdyn.phases.similarity import LayerSimilarity
from brdyn.trajectory import Trajectory

FEWEST_UNITS = 2
"""Of one unit every bootstrap sample is the same, which would look like certainty."""


def select_groups(tokens: str | Sequence[str] | None, layout: TokenLayout) -> list[str]:
    """The token groups meant by a name such as `cls+patches`, `registers` or `all`, or by several names.

    None is what an image is read out from: cls, where there is one, and patches; of a ViTRM, y and z.

    Raises
    ------
    UsageError
        If the model has no such tokens.
    """
    if tokens is None:
        return list(layout.readouts)
    names = tokens.split("+") if isinstance(tokens, str) else list(tokens)
    if not names:
        raise UsageError(f"`tokens` names no group; choose from {', '.join(layout.groups)}, all")
    for name in names:
        if name != "all":
            layout[name]
    if len(set(names)) != len(names):
        raise UsageError(f"`tokens={tokens!r}` names a group twice")
    return names


@checked
class SimilarityMetric(Metric):
    """Base of the similarity measures.

    Parameters
    ----------
    layout : TokenLayout
    depth : int
        L, the number of blocks.
    tokens : str or sequence of str, optional
        Token groups, in one text joined by `+`, or `all` (see :func:`select_groups`); the measure is averaged over
        them.
    replicates : int
        R, bootstrap samples; 0 for none.
    seed : int
        Of the bootstrap.

    Examples
    --------
    >>> from brdyn.measures import SIMILARITIES, SimilarityMetric
    >>> [kind for kind, measure in SIMILARITIES.items() if issubclass(measure, SimilarityMetric)]
    ['cosine', 'token-cosine', 'cka', 'procrustes']
    """

    kind: str
    unit = "image"
    needs = "had no image to compute from"
    count: Tensor
    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    def __init__(
        self,
        layout: TokenLayout,
        depth: int,
        tokens: str | Sequence[str] | None = None,
        replicates: int = 200,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_least(1, depth=depth)
        check_least(0, replicates=replicates)
        self.groups = select_groups(tokens, layout)
        self.depth = depth
        self.replicates = replicates
        self.seed = seed
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        # Totals over all processes, as of the last `compute`.
        self.seen: Tensor | float = 0
        self.resampled: Tensor | float = 0

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Return `matrix` (L, L) and, where the measure has a bootstrap, `replicates` (R, L, L)."""

    def result(self) -> LayerSimilarity:
        """Compute over all processes, as NumPy arrays."""
        with warnings.catch_warnings():  # of torchmetrics: a process may have had no images of its own
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            computed = self.compute()
        values = {name: value.double().cpu().numpy() for name, value in computed.items()}
        images = int(self.seen)
        if images == 0:
            raise BrdynError(f"{self.kind} {self.needs}; use more images")
        matrix = values["matrix"].reshape(self.depth, self.depth)  # torchmetrics makes a scalar of one layer's
        matrix = (matrix + matrix.T) / 2
        if not np.isfinite(matrix).all():
            layer = int(np.argwhere(~np.isfinite(np.diag(matrix))).flatten()[0]) + 1
            raise BrdynError(f"{self.kind} is not defined at layer {layer}: {self.undefined(images)}")
        replicates, unit = values.get("replicates"), self.unit
        if not self.replicates:
            unit = "none (not asked for)"
        elif replicates is not None and self.resampled < FEWEST_UNITS:
            replicates, unit = None, f"none (only {int(self.resampled)} {self.unit})"
        elif replicates is not None:
            replicates = replicates.reshape(-1, self.depth, self.depth)
        return LayerSimilarity(self.kind, "+".join(self.groups), matrix, replicates, unit, images)

    def undefined(self, images: int) -> str:
        """Why there is no similarity to a layer, and what to do."""
        them = f"{images} images" if images > 1 else "one image"
        return f"its features hardly vary over {them}; use more images, or the similarity cosine"

    def features(self, trajectory: Trajectory) -> Tensor:
        """Mean token of every selected group after every block, `(G, L, B, D)` in float32."""
        return torch.stack([trajectory.mean(group)[1:] for group in self.groups])


class MeanSimilarity(SimilarityMetric):
    """A similarity that is a mean over images of one matrix each."""

    total: Tensor
    boot_total: Tensor
    boot_count: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        shape = (self.depth, self.depth)
        zeros = torch.zeros
        self.add_state("total", zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("boot_total", zeros(self.replicates, *shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("boot_count", zeros(self.replicates, dtype=torch.float64), dist_reduce_fx="sum")

    def undefined(self, images: int) -> str:
        """Directions of tokens alone can be missing."""
        return "the tokens of an image are all zero there and have no direction; check the weights and the images"

    @abstractmethod
    def per_image(self, trajectory: Trajectory) -> Tensor:
        """One similarity matrix per image, `(B, L, L)`."""

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a trajectory."""
        matrices = self.per_image(trajectory).to(self.total.device).double()
        self.count += len(matrices)
        self.total += matrices.sum(0)
        if self.replicates:
            weights = poisson_weights(trajectory.positions, self.replicates, self.seed).to(matrices.device)
            self.boot_count += weights.sum(0)
            self.boot_total += (weights.T @ matrices.flatten(1)).view_as(self.boot_total)

    def compute(self) -> dict[str, Tensor]:
        """Mean over images, and over each bootstrap sample of them."""
        self.seen = self.resampled = self.count
        values = {"matrix": self.total / self.count}
        if self.replicates:
            drawn = self.boot_count > 0
            values["replicates"] = self.boot_total[drawn] / self.boot_count[drawn, None, None]
        return values
