"""What runs of probes by layer have in common, of classes and of targets at each pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from brdyn.data import ImageSet
from brdyn.data.augment import PairTransform
from brdyn.models import VisionTransformer
from brdyn.probes.heads import Recipe
from brdyn.probes.layer_choice import CHOSEN, SINGLE, LayersAsked, Place, alternatives, called, greedy
from brdyn.probes.stores import Readout
from brdyn.trajectory import Stream, Trajectory, trajectories


@dataclass
class LayerRun:
    """One run of probes.

    Attributes
    ----------
    readouts : mapping of str to Readout
    train, test, val : ImageSet
        `val` may be None: a part of `train` is then held out to choose by.
    asked : LayersAsked
    recipe : Recipe or None
    seeds, seed : int
    augment : bool
        Crops and flips, with the backbone in the loop.
    ends : tuple of int or None
    stream : Stream
    """

    readouts: Mapping[str, Readout]
    train: ImageSet
    test: ImageSet
    val: ImageSet | None
    asked: LayersAsked
    recipe: Recipe | None
    seeds: int
    seed: int
    augment: bool
    ends: tuple[int, ...] | None
    stream: Stream
    runs: list[tuple[Any, ...]] = field(init=False, default_factory=list)
    sets: dict[str, str] = field(init=False, default_factory=dict)

    @property
    def first(self) -> VisionTransformer:
        """The model that is run on the images."""
        return next(iter(self.readouts.values())).model

    def choose(self, layers: Place, scores: Callable[[list[Place]], np.ndarray]) -> list[Place]:
        """The best layers of the first readout by what :func:`greedy` is given, and what people read instead: those of
        several layers."""
        best = greedy(layers, self.asked.choose, scores)
        instead = alternatives(self.first.depth, self.asked.choose, self.ends)
        others = {SINGLE: best[0], CHOSEN: best[-1], **instead}
        self.sets = {label: called(place) for label, place in others.items()}
        return [place for place in dict.fromkeys(others.values()) if len(place) > 1]

    def turned(
        self, seed: int, positions: Sequence[int], turn: Callable[[int], PairTransform]
    ) -> Callable[[int], Iterator[Trajectory]]:
        """Gives the images of an epoch by its number, turned anew for the backbone, in an order of their own."""
        assert self.recipe is not None
        images = self.train.in_memory()
        stream = replace(self.stream, batch_size=self.recipe.batch_size, progress=False)

        def epoch(number: int) -> Iterator[Trajectory]:
            order = np.random.default_rng([self.seed + seed, number]).permutation(positions)
            return trajectories(self.first, images.augmented(turn(number)).take(order), stream=stream)

        return epoch
