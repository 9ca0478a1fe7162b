"""What dense heads make of patches: maps of classes, and maps of depth. BRH, method notes section 12.

Segmentation is a linear head on each patch, its logits brought to pixels bilinearly. Depth is a linear
head on each patch
beside cls, on features brought to four times the grid bilinearly: 256 linear bins, whose expectation is the depth.

Shapes: S heads (a layer, or several concatenated), K penalties, B images, N patches, F features, C outputs, P points.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from brdyn.arguments import checked
from brdyn.choices import check_least
from brdyn.data.targets import LEAST_DEPTH, VOID
from brdyn.errors import UsageError
from brdyn.probes.scores import DepthScore, OverlapScore, Score

UPSAMPLED = 4
BINS = 256
INVARIANCE, SCALE_WEIGHT = 0.85, 10.0
WITHIN = 1.25


@dataclass(frozen=True)
class Heads:
    """Linear heads.

    Attributes
    ----------
    weight, bias : Tensor
        `(S, F, K, C)` and `(S, K, C)`.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Outputs `(S, B, ..., K C)` of features `(S, B, ..., F)`."""
        flat = features.reshape(len(features), -1, features.shape[-1])
        found = torch.baddbmm(self.bias.flatten(1)[:, None], flat, self.weight.flatten(2))
        return found.reshape(*features.shape[:-1], -1)

    def __getitem__(self, heads: slice) -> Heads:
        return Heads(self.weight[heads], self.bias[heads])


@dataclass(frozen=True)
class Tokens:
    """Features of a batch as heads take them.

    Attributes
    ----------
    patches : Tensor
        `(S, B, N, F)`.
    answer : Tensor or None
        cls, `(S, B, F)`.
    grid : (int, int)
    """

    patches: Tensor
    answer: Tensor | None
    grid: tuple[int, int]

    def __getitem__(self, heads: slice) -> Tokens:
        return Tokens(self.patches[heads], None if self.answer is None else self.answer[heads], self.grid)


class DenseTask(ABC):
    """What a head gives for each place of an image, how it learns, and what is counted.

    Attributes
    ----------
    name : str
    outputs : int
        C.
    score : Score
    """

    name: str
    outputs: int
    score: Score

    def features(self, width: int, answer: bool) -> int:
        """F, for tokens of this width."""
        del answer
        return width

    @abstractmethod
    def cells(self, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the map that is trained, for images of a size."""

    @abstractmethod
    def at(self, tokens: Tokens, heads: Heads, points: Tensor) -> Tensor:
        """Outputs `(B, S, K, C, P)` at points `(B, P, 2)`, x and y from -1 to 1."""

    @abstractmethod
    def loss(self, outputs: Tensor, truth: Tensor, batch: Tensor) -> Tensor:
        """`(S, K)`, of outputs `(B, S, K, C, P)` and truth `(B, P)`: the share of these images in the loss of a batch.

        `batch` is the truth of all images of the batch; the shares of its parts sum to its loss.
        """

    @abstractmethod
    def answers(self, outputs: Tensor) -> Tensor:
        """Classes or metres `(B, S, K, P)`."""

    @abstractmethod
    def whole(self, tokens: Tokens, heads: Heads, size: tuple[int, int]) -> Tensor:
        """Classes or metres of every pixel, `(B, S, H, W)`, by heads of one penalty."""

    @abstractmethod
    def count(self, answers: Tensor, truth: Tensor) -> np.ndarray:
        """What the score counts, `(..., statistics)`, of answers `(..., P)` and truth that broadcasts to it."""

    @abstractmethod
    def known(self, truth: Tensor) -> Tensor:
        """Which pixels have a truth."""


@checked
class Segmentation(DenseTask):
    """A class for each pixel.

    Parameters
    ----------
    classes : sequence of str

    Examples
    --------
    >>> from brdyn.probes import Segmentation
    >>> task = Segmentation(["sky", "road"])
    >>> task.count(torch.tensor([0, 1, 1]), torch.tensor([0, 0, -1])).tolist()  # hits, predicted, true; void is out
    [1.0, 0.0, 1.0, 1.0, 2.0, 0.0]
    """

    name = "segmentation"

    def __init__(self, classes: list[str] | tuple[str, ...]) -> None:
        self.outputs = len(classes)
        self.score: OverlapScore = OverlapScore(classes)

    def cells(self, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
        """The pixels."""
        del grid
        return size

    def at(self, tokens: Tokens, heads: Heads, points: Tensor) -> Tensor:
        """Logits of the patches, brought to the points."""
        found = bilinear(heads(tokens.patches), tokens.grid, points)
        return found.unflatten(2, (-1, self.outputs))

    def loss(self, outputs: Tensor, truth: Tensor, batch: Tensor) -> Tensor:
        """Cross-entropy, void left out."""
        shape = outputs.shape[1:3]
        flat = outputs.movedim(0, 3).flatten(0, 1).flatten(2)  # (S K, C, B P)
        labels = truth.long().flatten().expand(len(flat), -1)
        every = functional.cross_entropy(flat, labels, ignore_index=VOID, reduction="none")
        return (every.sum(1) / self.known(batch).sum().clamp_min(1)).unflatten(0, shape)

    def answers(self, outputs: Tensor) -> Tensor:
        """The likeliest class."""
        return outputs.argmax(3)

    def whole(self, tokens: Tokens, heads: Heads, size: tuple[int, int]) -> Tensor:
        """The likeliest class by logits brought to pixels."""
        logits = heads(tokens.patches)
        rows = []
        for one in logits:
            grid = one.transpose(1, 2).unflatten(2, tokens.grid)
            rows.append(functional.interpolate(grid, size, mode="bilinear", align_corners=False).argmax(1))
        return torch.stack(rows, 1)

    def count(self, answers: Tensor, truth: Tensor) -> np.ndarray:
        """Hits, predicted and true pixels of each class."""
        lead, classes = answers.shape[:-1], self.outputs
        said, true = (
            answers.reshape(-1, answers.shape[-1]),
            truth.expand_as(answers).reshape(-1, answers.shape[-1]),
        )
        kept = true != VOID
        pairs = (torch.arange(len(said), device=said.device)[:, None] * classes + true) * classes + said
        found = torch.bincount(pairs[kept].long(), minlength=len(said) * classes**2)
        matrix = found.reshape(len(said), classes, classes).cpu().numpy().astype(float)
        parts = (matrix.diagonal(axis1=1, axis2=2), matrix.sum(1), matrix.sum(2))
        return np.concatenate(parts, 1).reshape(*lead, -1)

    def known(self, truth: Tensor) -> Tensor:
        """Not void."""
        return truth != VOID


@checked
class Depth(DenseTask):
    """Metres for each pixel.

    Parameters
    ----------
    most : float
        The end of the last bin, in metres.
    bins : int

    Examples
    --------
    >>> from brdyn.probes import Depth
    >>> task = Depth(most=10.0)
    >>> counted = task.count(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([1.0, 4.0, 0.0]))  # the last has no truth
    >>> counted.tolist()  # pixels, squared error, relative error, within a factor of 1.25
    [2.0, 4.0, 0.5, 1.0]
    """

    name = "depth"

    def __init__(self, most: float, bins: int = BINS) -> None:
        check_least(1, bins=bins)
        if not LEAST_DEPTH < most < float("inf"):
            raise UsageError(f"`most={most}` is no depth in metres above {LEAST_DEPTH}; use for instance 10")
        self.outputs, self.most, self.score = bins, most, DepthScore()
        edges = torch.linspace(LEAST_DEPTH, most, bins + 1)
        self.centres = (edges[1:] + edges[:-1]) / 2

    def features(self, width: int, answer: bool) -> int:
        """Each patch beside cls, where there is one."""
        return 2 * width if answer else width

    def cells(self, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
        """Four to a patch and side."""
        del size
        return UPSAMPLED * grid[0], UPSAMPLED * grid[1]

    def at(self, tokens: Tokens, heads: Heads, points: Tensor) -> Tensor:
        """Logits of features brought to the points."""
        count = tokens.patches.shape[0]
        features = bilinear(tokens.patches, tokens.grid, points).transpose(2, 3).transpose(0, 1)  # (S, B, P, F)
        found = self._logits(features, tokens.answer, heads)
        return found.permute(1, 0, 3, 2).reshape(len(points), count, -1, self.outputs, points.shape[1])

    def _logits(self, patches: Tensor, answer: Tensor | None, heads: Heads) -> Tensor:
        """`(S, B, P, K C)`. That of cls is the same at all points."""
        width = patches.shape[-1]
        own = Heads(heads.weight[:, :width], heads.bias)(patches)
        if answer is None:
            return own
        none = torch.zeros_like(heads.bias)
        return own + Heads(heads.weight[:, width:], none)(answer)[:, :, None]

    def loss(self, outputs: Tensor, truth: Tensor, batch: Tensor) -> Tensor:
        """Cross-entropy over bins and the scale-invariant term of each image, at points that have a depth."""
        known, among, shape = self.known(truth), self.known(batch), outputs.shape[1:3]
        flat = outputs.movedim(0, 3).flatten(0, 1)  # (S K, C, B, P)
        bins = self._bins(truth).expand(len(flat), -1, -1)
        every = functional.cross_entropy(flat, bins, reduction="none") * known
        entropy = every.sum((1, 2)) / among.sum().clamp_min(1)
        metres = self._metres(flat, 1).clamp_min(LEAST_DEPTH)
        apart = (metres.log() - truth.clamp_min(LEAST_DEPTH).log()) * known
        count = known.sum(1).clamp_min(1)
        invariant = apart.square().sum(2) / count - INVARIANCE * (apart.sum(2) / count).square()
        images = among.any(1).sum().clamp_min(1)
        return (entropy + SCALE_WEIGHT * invariant.sum(1) / images).unflatten(0, shape)

    def _bins(self, truth: Tensor) -> Tensor:
        place = (truth - LEAST_DEPTH) / (self.most - LEAST_DEPTH) * self.outputs
        return place.floor().long().clamp(0, self.outputs - 1)

    def _metres(self, logits: Tensor, axis: int) -> Tensor:
        centres = self.centres.to(logits.device).reshape(-1, *[1] * (logits.ndim - axis - 1))
        return (logits.softmax(axis) * centres).sum(axis)

    def answers(self, outputs: Tensor) -> Tensor:
        """The expectation over bins."""
        return self._metres(outputs, 3)

    def whole(self, tokens: Tokens, heads: Heads, size: tuple[int, int]) -> Tensor:
        """The expectation over bins, brought to pixels."""
        cells, found = self.cells(size, tokens.grid), []
        for number in range(len(tokens.patches)):
            part, own = tokens[number : number + 1], heads[slice(number, number + 1)]
            grid = part.patches[0].transpose(1, 2).unflatten(2, tokens.grid)
            large = functional.interpolate(grid, cells, mode="bilinear", align_corners=False)
            logits = self._logits(large.flatten(2).transpose(1, 2)[None], part.answer, own)[0]
            metres = self._metres(logits, 2).unflatten(1, cells)[:, None]
            found.append(functional.interpolate(metres, size, mode="bilinear", align_corners=False)[:, 0])
        return torch.stack(found, 1)

    def count(self, answers: Tensor, truth: Tensor) -> np.ndarray:
        """Pixels with depth, squared error, relative error, within a factor of 1.25."""
        known = self.known(truth).expand_as(answers)
        true = torch.where(known, truth.expand_as(answers), 1.0).double()
        said = torch.where(known, answers.double(), true)
        apart = said - true
        near = torch.maximum(said / true, true / said.clamp_min(LEAST_DEPTH)) < WITHIN
        parts = (known.double(), apart.square(), apart.abs() / true, (near & known).double())
        return torch.stack([part.sum(-1) for part in parts], -1).cpu().numpy()

    def known(self, truth: Tensor) -> Tensor:
        """Measured."""
        return truth > 0


def bilinear(maps: Tensor, grid: tuple[int, int], points: Tensor) -> Tensor:
    """Values `(B, S, X, P)` of maps over patches `(S, B, N, X)` at points, as bilinear upsampling has them there."""
    heads, images, _, width = maps.shape
    planes = maps.permute(1, 0, 3, 2).reshape(images, heads * width, *grid)
    found = functional.grid_sample(
        planes, points[:, :, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[..., 0].unflatten(1, (heads, width))


def drawn_points(
    images: int, count: int, cells: tuple[int, int], size: tuple[int, int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random cells of a map: their centres `(B, P, 2)`, and the pixels `(B, P)` of the truth that lie there.

    With as many points as cells or more, every cell is taken once.
    """
    total = cells[0] * cells[1]
    if count >= total:
        places = torch.arange(total).expand(images, -1)
    else:
        places = torch.randint(total, (images, count), generator=generator)
    row, column = (places // cells[1] + 0.5) / cells[0], (places % cells[1] + 0.5) / cells[1]
    pixels = (row * size[0]).long() * size[1] + (column * size[1]).long()
    return torch.stack((column, row), -1) * 2 - 1, pixels
