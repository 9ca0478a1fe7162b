"""Training the heads of all layers at once, and which penalty and which epoch each keeps.

BRH's recipe (method notes, section 12) with what a laptop needs: features are extracted once, each step looks at some
random points of each image instead of all pixels (the same loss, in expectation), and the penalty and the epoch are
those that are best on a held-out part of the training images. The published protocol chooses the epoch on the test
images, which is optimistic, and is there for comparison alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import cos, pi, prod

import numpy as np
import torch
from torch import Tensor

from brdyn.arguments import checked
from brdyn.errors import UsageError
from brdyn.probes.maps import DenseTask, Heads, Tokens, drawn_points
from brdyn.probes.stores import Features, FeatureStore, Place, Standard
from brdyn.runtime import with_gradients
from brdyn.words import are

HELD_OUT = 0.2
CHOOSING_POINTS = 4  # of each held-out image, for each of a step
MOST_WARM = 100  # steps
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # over the mean square of a feature
BATCH = 16  # images whose maps are counted at once
MOST_VALUES = 2**26  # of features and maps that are computed at once, unless one image at one place has more

Pairs = Iterable[tuple[Features, Tensor]]


@checked
@dataclass(frozen=True)
class Recipe:
    """How heads are trained that take more than one pass.

    Attributes
    ----------
    epochs, batch_size : int
    lr : float
    penalties : tuple of float
        Weight decays of AdamW, of which the held-out images choose.
    points : int
        Of each image in each step; as many as there are cells or more for all of them.
    fading : bool
        A cosine to 1 % of the learning rate, after a warm-up; else it is constant.
    standard : bool
        Features are standardised.
    on_test : bool
        The epoch is chosen on the test images, as published: optimistic.

    Examples
    --------
    >>> from brdyn.probes import Recipe
    >>> Recipe.of("depth").fading, Recipe.of("segmentation").fading, Recipe.of("depth", published=True).on_test
    (False, True, True)
    """

    epochs: int = 20
    batch_size: int = 16
    lr: float = 1e-3
    penalties: tuple[float, ...] = (1e-3, 1e-1, 1.0)
    points: int = 256
    fading: bool = True
    standard: bool = True
    on_test: bool = False

    @classmethod
    @checked
    def of(cls, task: str, published: bool = False) -> Recipe:
        """The default for a task, or the published one."""
        if published and task == "depth":
            every = 10**9
            return cls(25, 128, 1e-3, (1e-3,), every, fading=False, standard=False, on_test=True)
        if published and task == "classification":
            return cls(15, 512, 1e-4, (1e-2,), 10**9, fading=True, standard=False, on_test=True)
        if published:
            return cls(10, 32, 1e-3, (1e-2,), 10**9, fading=True, standard=False, on_test=True)
        return cls(epochs=15, penalties=(1e-3, 1e-1), points=64, fading=False) if task == "depth" else cls()

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, from 0; past the last of all `steps` it stays where it ended."""
        if not self.fading:
            return self.lr
        warm = min(MOST_WARM, max(1, steps // 10))
        if step < warm:
            return self.lr * (step + 1) / warm
        return self.lr * (0.01 + 0.99 * (1 + cos(pi * min(1.0, (step - warm) / max(1, steps - warm)))) / 2)


@dataclass(frozen=True)
class FittedHeads:
    """Heads, one for each place, and how each was chosen.

    Attributes
    ----------
    places : sequence of tuple of int
    heads : Heads
        Of one penalty.
    standard : Standard
    penalty, epoch, chosen : ndarray
        `(S,)`: the penalty and epoch kept, and their score on the images that chose, turned so that more is better.
    """

    places: Sequence[Place]
    heads: Heads
    standard: Standard
    penalty: np.ndarray
    epoch: np.ndarray
    chosen: np.ndarray

    def held_out(self, task: DenseTask) -> np.ndarray:
        """The main score on the images that chose, `(S,)`; NaN where it cannot be told."""
        return np.where(np.isfinite(self.chosen), task.score.sign * self.chosen, np.nan)


@dataclass
class Reader:
    """What heads give at points of images.

    Attributes
    ----------
    task : DenseTask
    store : FeatureStore
    standard : Standard
    places : sequence of tuple of int
    """

    task: DenseTask
    store: FeatureStore
    standard: Standard
    places: Sequence[Place]

    def outputs(self, features: Features, heads: Heads, points: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        """Some images, some places, and their outputs `(b, s, K, C, P)`, `MOST_VALUES` at a time."""
        width, (_, penalties, outputs) = heads.weight.shape[1], heads.bias.shape
        one = (points.shape[1] + prod(self.store.grid)) * (penalties * outputs + width)
        places = max(1, min(len(self.places), MOST_VALUES // one))
        images = max(1, MOST_VALUES // (places * one))
        for first in range(0, len(points), images):
            some = slice(first, first + images)
            values = features(some).float()
            for place in range(0, len(self.places), places):
                own = slice(place, place + places)
                tokens = _tokens(self.store, self.standard, values, self.places[own])
                yield some, own, self.task.at(tokens, heads[own], points[some])


@dataclass
class Chooser(Reader):
    """Scores heads on held-out images, at points of each that stay the same.

    Attributes
    ----------
    rows : ndarray
    points : int
        Of each image.
    """

    rows: np.ndarray
    points: int

    def scores(self, heads: Heads) -> np.ndarray:
        """`(S, K)`, more is better."""
        generator = torch.Generator().manual_seed(0)
        total = np.zeros((*heads.bias.shape[:2], len(self.task.score.statistics)))
        cells = self.task.cells(self.store.size, self.store.grid)
        with torch.no_grad():
            for features, targets in self.store.pairs(self.rows, BATCH):
                points, pixels = drawn_points(len(targets), self.points, cells, self.store.size, generator)
                truth = targets.flatten(1).gather(1, pixels)[:, None, None]
                for some, own, outputs in self.outputs(features, heads, points):
                    total[own] += self.task.count(self.task.answers(outputs), truth[some]).sum(0)
        return self.task.score.better(total)


def _tokens(store: FeatureStore, standard: Standard, values: Tensor, places: Sequence[Place]) -> Tokens:
    return standard.tokens(values, store.layers, places, store.grid, store.answer)


def split_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on, and a fifth to choose by.

    Raises
    ------
    UsageError
        If there are fewer than two.
    """
    held = max(1, round(HELD_OUT * count))
    if held >= count:
        raise UsageError(f"{are(count, 'training image')} to fit heads on and to choose a penalty by; give at least 2")
    drawn = np.random.default_rng(seed).permutation(count)
    return np.sort(drawn[held:]), np.sort(drawn[:held])


@with_gradients
def fit_heads(
    task: DenseTask,
    fitting: tuple[FeatureStore, np.ndarray],
    choosing: tuple[FeatureStore, np.ndarray],
    places: Sequence[Place],
    recipe: Recipe,
    seed: int = 0,
    epochs: Callable[[int], Pairs] | None = None,
) -> FittedHeads:
    """Train the heads of all places and penalties in one pass over the images an epoch.

    Parameters
    ----------
    task : DenseTask
    fitting, choosing : (FeatureStore, ndarray)
        Rows to fit on, and rows whose score chooses penalty and epoch.
    places : sequence of tuple of int
        Of as many layers each.
    recipe : Recipe
    seed : int
        Of the order, the points and the first weights.
    epochs : callable, optional
        Batches of features and targets of an epoch, where these are made anew for each.

    Raises
    ------
    UsageError
        If no training image holds anything to learn.
    """
    store, rows = fitting
    standard = Standard.of(store, rows) if recipe.standard else Standard.none(store)
    chooser = Chooser(task, choosing[0], standard, places, choosing[1], CHOOSING_POINTS * recipe.points)
    generator = torch.Generator().manual_seed(seed)
    training = _Training(Reader(task, store, standard, places), recipe, generator, len(rows))
    best = _Best(len(places), recipe)
    for epoch in range(recipe.epochs):
        order = rows[torch.randperm(len(rows), generator=generator).numpy()]
        training.run(store.pairs(order, recipe.batch_size) if epochs is None else epochs(epoch))
        best.keep(training.heads(), chooser.scores(training.heads()), epoch + 1)
    if not training.learnt:
        raise UsageError(
            f"no point that was drawn in the {len(rows)} training images has a truth, so there is nothing to learn; "
            "check what is void or has no depth, or take more training images"
        )
    return best.fitted(places, standard)


class _Training:
    """Weights of all heads, and their steps: Adam with decoupled decay, a decay of its own for each penalty."""

    def __init__(self, reader: Reader, recipe: Recipe, generator: torch.Generator, images: int) -> None:
        self.reader, self.recipe, self.generator = reader, recipe, generator
        task, store, places = reader.task, reader.store, reader.places
        width = task.features(store.width * len(places[0]), store.answer)
        penalties, outputs = len(recipe.penalties), task.outputs
        first = torch.randn(len(places), width, 1, outputs, generator=generator, dtype=torch.float32) * 0.01
        self.weight = first.expand(-1, -1, penalties, -1).clone().requires_grad_(True)
        self.bias = torch.zeros(len(places), penalties, outputs, dtype=torch.float32, requires_grad=True)
        self.decay = torch.tensor(recipe.penalties, dtype=torch.float32)[:, None]
        self.optimizer = torch.optim.Adam([self.weight, self.bias], lr=recipe.lr)
        self.steps, self.step = recipe.epochs * -(-images // recipe.batch_size), 0
        self.learnt = False

    def heads(self) -> Heads:
        return Heads(self.weight.detach(), self.bias.detach())

    def run(self, pairs: Pairs) -> None:
        """One epoch."""
        task, size = self.reader.task, self.reader.store.size
        cells = task.cells(size, self.reader.store.grid)
        for features, targets in pairs:
            points, pixels = drawn_points(len(targets), self.recipe.points, cells, size, self.generator)
            truth = targets.flatten(1).gather(1, pixels)
            self.learnt |= bool(task.known(truth).any())
            rate = self.recipe.rate(self.step, self.steps)
            self.optimizer.param_groups[0]["lr"] = rate
            self.optimizer.zero_grad()
            for some, _, outputs in self.reader.outputs(features, Heads(self.weight, self.bias), points):
                task.loss(outputs, truth[some], truth).sum().backward()
            with torch.no_grad():
                self.weight *= 1 - rate * self.decay
                self.bias *= 1 - rate * self.decay
            self.optimizer.step()
            self.step += 1


class _Best:
    """The best heads so far, of each place by its own score."""

    def __init__(self, places: int, recipe: Recipe) -> None:
        self.recipe = recipe
        self.score = np.full(places, -np.inf)
        self.penalty, self.epoch = np.full(places, recipe.penalties[0]), np.zeros(places, int)
        self.weight: list[Tensor | None] = [None] * places
        self.bias: list[Tensor | None] = [None] * places

    def keep(self, heads: Heads, scores: np.ndarray, epoch: int) -> None:
        """Keep what is better, or the first."""
        for place, own in enumerate(scores):
            which = int(own.argmax())
            if self.weight[place] is None or own[which] > self.score[place]:
                self.score[place], self.epoch[place] = own[which], epoch
                self.penalty[place] = self.recipe.penalties[which]
                self.weight[place] = heads.weight[place, :, which].clone()
                self.bias[place] = heads.bias[place, which].clone()

    def fitted(self, places: Sequence[Place], standard: Standard) -> FittedHeads:
        weight, bias = ([one for one in part if one is not None] for part in (self.weight, self.bias))
        heads = Heads(torch.stack(weight)[:, :, None], torch.stack(bias)[:, None])
        return FittedHeads(places, heads, standard, self.penalty, self.epoch, self.score)


def fit_ridge(
    task: DenseTask,
    fitting: tuple[FeatureStore, np.ndarray],
    choosing: tuple[FeatureStore, np.ndarray],
    places: Sequence[Place],
) -> FittedHeads:
    """The baseline in closed form: ridge regression of each patch's shares of classes on its features.

    Parameters
    ----------
    task : Segmentation
    fitting, choosing, places
        As of :func:`fit_heads`; the score on the images that choose takes the penalty, relative to the mean square of a
        feature.
    """
    store, rows = fitting
    standard = Standard.of(store, rows)
    width = store.width * len(places[0]) + 1
    gram = torch.zeros(len(places), width, width, dtype=torch.float64)
    cross = torch.zeros(len(places), width, task.outputs, dtype=torch.float64)
    for values, targets in store.batches(rows, BATCH):
        patches = _tokens(store, standard, values, places).patches.flatten(1, 2)
        shares, weight = shares_of_patches(targets, store.grid, task.outputs)
        ones = torch.ones(*patches.shape[:2], 1, dtype=patches.dtype)
        design = torch.cat([patches, ones], 2)
        heavy = (design * weight.flatten()[:, None]).transpose(1, 2)
        gram += heavy @ design
        cross += heavy @ shares.flatten(0, 1)
    free = torch.eye(width, dtype=torch.float64)
    free[-1, -1] = 0  # the constant is not penalised
    size = gram.diagonal(dim1=1, dim2=2)[:, :-1].mean(1).clamp_min(1e-12)
    tiny = 1e-9 * size[:, None, None] * torch.eye(width, dtype=torch.float64)
    found = [torch.linalg.solve(gram + tiny + one * size[:, None, None] * free, cross) for one in RIDGES]
    solved = torch.stack(found, 2).float()  # (S, F + 1, K, C)
    heads = Heads(solved[:, :-1].contiguous(), solved[:, -1].contiguous())
    recipe = replace(Recipe(), penalties=RIDGES)
    best = _Best(len(places), recipe)
    chooser = Chooser(task, choosing[0], standard, places, choosing[1], CHOOSING_POINTS * recipe.points)
    best.keep(heads, chooser.scores(heads), 0)
    return best.fitted(places, standard)


def shares_of_patches(targets: Tensor, grid: tuple[int, int], classes: int) -> tuple[Tensor, Tensor]:
    """Shares of classes in each patch `(B, N, C)`, void left out, and the share of it that is not void `(B, N)`."""
    rows, columns = (size // parts for size, parts in zip(targets.shape[1:], grid, strict=True))
    parts = targets[:, : rows * grid[0], : columns * grid[1]].long()
    parts = parts.unflatten(2, (grid[1], columns)).unflatten(1, (grid[0], rows)).transpose(2, 3)
    flat = parts.flatten(3).flatten(1, 2)  # (B, N, pixels)
    counts = torch.stack([(flat == one).sum(2) for one in range(classes)], 2).float()
    known = counts.sum(2)
    return counts / known.clamp_min(1)[..., None], known / flat.shape[2]


def count_images(task: DenseTask, fitted: FittedHeads, store: FeatureStore) -> np.ndarray:
    """What the score counts in each image, over all pixels: `(S, n, statistics)`."""
    pairs = (maps_of(task, fitted, store, row) for row in range(len(store)))
    return np.stack([task.count(maps.flatten(1), targets.flatten(1)) for maps, targets in pairs], 1)


@torch.no_grad()
def maps_of(task: DenseTask, fitted: FittedHeads, store: FeatureStore, row: int) -> tuple[Tensor, Tensor]:
    """What the heads say of an image, `(S, H, W)`, and its targets, `(1, H, W)`."""
    values, targets = store.read(np.array([row]))
    tokens = _tokens(store, fitted.standard, values, fitted.places)
    return task.whole(tokens, fitted.heads, store.size)[0], targets
