"""From a model and labelled images to what probes of classes read at each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from brdyn.data.augment import Augmentation, PairTransform
from brdyn.probes.baselines import baseline_scores
from brdyn.probes.class_heads import ClassHead, Epoch, fit_class_head
from brdyn.probes.counts import Counts
from brdyn.probes.features import FeatureMetric, Features, extract_features, feature_width, read_out
from brdyn.probes.layer_choice import Place, called
from brdyn.probes.layer_result import AUGMENTED, CLASSES, OPTIMISTIC, RUNS, LayerProbe
from brdyn.probes.layer_run import LayerRun
from brdyn.probes.linear import fit_linear, split
from brdyn.probes.of_images import described
from brdyn.probes.probing import numbered, read_classes
from brdyn.probes.scores import ClassScore
from brdyn.probes.stores import Readout

CHOOSING_PENALTIES = (1e-3, 1e-2, 1e-1)
CROPS = (0.08, 1.0)  # of the area, as published


@dataclass
class ClassRun(LayerRun):
    """One run of probes of classes. Its images have labels.

    The recipe is of the published protocol, which alone can have `augment`; None for k-NN and linear probes whose
    penalty held-out images choose.
    """

    learnt: dict[str, Features] = field(init=False, default_factory=dict)
    tested: dict[str, Features] = field(init=False, default_factory=dict)
    choosing: dict[str, Features] = field(init=False, default_factory=dict)
    notes: list[str] = field(init=False, default_factory=list)

    def probed(self) -> LayerProbe | None:
        """Extract, fit, test; None in processes other than the main one."""
        layers = self.asked.of(self.first.depth, repr(self.first.info.name))
        self._extract(layers)
        if not self.stream.is_main:
            return None
        places: dict[str, list[Place]] = {name: [(layer,) for layer in layers] for name in self.readouts}
        if self.asked.choose:
            name = next(iter(self.readouts))
            places[name] += self._choose(name, layers)
        counts = Counts(ClassScore())
        starts = self._starts() if self.recipe is not None else {}
        for name, own_places in places.items():
            for place in own_places:
                train, test = (self._features(some, name, place) for some in (self.learnt, self.tested))
                if self.recipe is None:
                    self._read(counts, name, place, train, test)
                else:
                    self._read_published(counts, name, place, train, test, starts.get(name))
        return self._result(counts)

    def _extract(self, layers: Place) -> None:
        sets = ((self.train, self.learnt), (self.test, self.tested), (self.val, self.choosing))
        for images, found in sets:
            if images is None:
                continue
            metrics = {
                f"{name}/{layer}": _metric(readout, layer)
                for name, readout in self.readouts.items()
                for layer in layers
            }
            found |= extract_features(self.first, images, metrics, self.stream)

    def _features(self, some: Mapping[str, Features], name: str, place: Place) -> Features:
        return beside([some[f"{name}/{layer}"] for layer in place])

    def _choose(self, name: str, layers: Place) -> list[Place]:
        """The best layers by score on held-out training images, and what people read instead."""
        own = {layer: self.learnt[f"{name}/{layer}"] for layer in layers}
        by = {layer: self.choosing[f"{name}/{layer}"] for layer in layers} if self.choosing else None
        return self.choose(layers, _scores(own, by, self.seed, self.first.device))

    def _read(self, counts: Counts, name: str, place: Place, train: Features, test: Features) -> None:
        """By k-NN, and by linear probes whose penalty held-out images choose."""
        val = self._features(self.choosing, name, place) if self.choosing else None
        device = self.readouts[name].model.device
        reading = read_classes(train, test, val=val, seeds=self.seeds, seed=self.seed, device=device)
        for probe, hits in reading.hits.items():
            for number, right in enumerate(hits):
                _count(counts, (name, called(place), probe), right)
                chose = probe == "linear"
                penalty, held_out = (
                    part[number] if chose else np.nan for part in (reading.penalties, reading.held_out)
                )
                self.runs.append((name, called(place), probe, number, penalty, np.nan, held_out))

    def _starts(self) -> dict[str, ClassHead]:
        """The classifiers that heads begin as, and what is to be said of it."""
        first = self.first
        every = torch.cat([next(iter(some.values())).labels for some in (self.learnt, self.tested)])
        theirs = first.takes_labels(self.train.label_names) and int(every.max()) < first.classes
        found = {name: ClassHead.of(one.model) for name, one in self.readouts.items()} if theirs else {}
        starts = {name: one for name, one in found.items() if one is not None}
        self.notes.append(OPTIMISTIC)
        if len(starts) == len(self.readouts):
            self.notes.append(f"heads of single layers began as the classifier of {first.info.name}")
        else:
            why = (
                "has no classifier"
                if not first.classes
                else "has one that is not linear in cls and the mean patch"
                if theirs
                else "has one of other classes"
            )
            self.notes.append(f"heads began at zero, as {first.info.name} {why}")
        return starts if len(starts) == len(self.readouts) else {}

    def _read_published(
        self,
        counts: Counts,
        name: str,
        place: Place,
        train: Features,
        test: Features,
        start: ClassHead | None,
    ) -> None:
        """By a head that begins as the model's own classifier."""
        assert self.recipe is not None
        among = train.labels.unique()  # the classes, where they are not those of a classifier
        own = numbered(train, test)  # refuses classes that training images lack
        begins = start is not None and len(place) == 1
        begun = start if start is not None and begins else ClassHead.zero(len(among), train.values.shape[1])
        train, test = (train, test) if begins else own
        for seed in range(self.seeds):
            live = self._live(name, place, None if begins else among, seed) if self.augment else None
            device = self.readouts[name].model.device
            found = fit_class_head(train, test, begun, self.recipe, seed=self.seed + seed, epochs=live, device=device)
            _count(counts, (name, called(place), "linear"), found.head.predict(test.values) == test.labels)
            penalty, epoch = self.recipe.penalties[0], float(found.epoch)
            self.runs.append((name, called(place), "linear", seed, penalty, epoch, np.nan))

    def _live(self, name: str, place: Place, among: Tensor | None, seed: int) -> Callable[[int], Epoch]:
        """Crops and flips made anew for each epoch, with the backbone in the loop."""
        readout, seen = self.readouts[name], self.first.preprocessing
        positions = self.learnt[f"{name}/{place[0]}"].positions
        assert positions is not None

        def turn(number: int) -> PairTransform:
            how = Augmentation(CROPS, seed=self.seed + seed, visit=number)
            return PairTransform(seen.image_size, seen.mean, seen.std, how)

        turned = self.turned(seed, positions.tolist(), turn)

        def epoch(number: int) -> Iterator[tuple[Tensor, Tensor]]:
            for trajectory in turned(number):
                rows, states = trajectory.labelled, readout.states(trajectory)
                values = torch.cat([read_out(readout.model, states[layer]) for layer in place], 1)
                labels = trajectory.labels[rows]
                if len(labels):
                    yield (
                        values[rows.to(values.device)],
                        labels if among is None else torch.searchsorted(among, labels),
                    )

        return epoch

    def _result(self, counts: Counts) -> LayerProbe:
        weights = counts.weights(self.seed)
        train, test = (next(iter(some.values())) for some in (self.learnt, self.tested))
        assert test.positions is not None
        truth = numbered(train, test)[1].labels
        frequent = (truth == truth.mode().values).double()
        if self.augment:
            self.notes.append(AUGMENTED)
        return LayerProbe(
            task="classification",
            scores=counts.scores(weights),
            pairs=counts.pairs(weights, self.sets),
            runs=pd.DataFrame(self.runs, columns=RUNS),
            classes=pd.DataFrame(columns=CLASSES),
            sets=self.sets,
            words=dict(ClassScore.words),
            notes=tuple(self.notes),
            sizes={"fit": len(train), "test": len(test)}
            | ({"choose": len(next(iter(self.choosing.values())))} if self.choosing else {}),
            counted=counts.table(test.positions.tolist()),
            baseline=baseline_scores(ClassScore(), _counted(frequent), weights),
            ends=self.ends,
            images=described(self.train, self.test),
        )


def _count(counts: Counts, key: tuple[str, str, str], right: Tensor) -> None:
    counts.add(*key, _counted(right))


def _counted(right: Tensor) -> np.ndarray:
    """Of each image: right or not, and one."""
    hits = right.numpy().astype(float)
    return np.stack([hits, np.ones(len(hits))], -1)


def _metric(readout: Readout, layer: int) -> FeatureMetric:
    return FeatureMetric(
        lambda trajectory: read_out(readout.model, readout.states(trajectory)[layer]),
        feature_width(readout.model),
    )


def beside(parts: Sequence[Features]) -> Features:
    """Features of several layers, side by side."""
    return replace(parts[0], values=torch.cat([part.values for part in parts], 1))


def _scores(
    features: Mapping[int, Features], by: Mapping[int, Features] | None, seed: int, device: torch.device
) -> Callable[[list[Place]], np.ndarray]:
    """Accuracy on held-out training images, of heads on these layers side by side."""

    def scores(places: list[Place]) -> np.ndarray:
        found = []
        for place in places:
            whole = beside([features[layer] for layer in place])
            if by is None:
                fitting, choosing = split(numbered(whole, whole)[0], seed)
            else:
                fitting, choosing = numbered(whole, beside([by[layer] for layer in place]), "validation")
            best = fit_linear(fitting, choosing, penalties=CHOOSING_PENALTIES, device=device)
            found.append(best.held_out_accuracy)
        return np.array(found)

    return scores
