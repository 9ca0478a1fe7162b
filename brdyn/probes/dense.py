"""From a model and pairs of images and targets to what dense heads read at each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from brdyn.data import DenseSet, MaskTargets
from brdyn.data.augment import Augmentation, PairTransform
from brdyn.data.targets import DepthTargets
from brdyn.errors import UsageError
from brdyn.probes.baselines import baseline_scores, blind_map, count_blind, parts
from brdyn.probes.counts import Counts
from brdyn.probes.heads import (
    FittedHeads,
    Pairs,
    Recipe,
    count_images,
    fit_heads,
    fit_ridge,
    maps_of,
    split_images,
)
from brdyn.probes.layer_choice import called
from brdyn.probes.layer_result import AUGMENTED, CLASSES, OPTIMISTIC, RUNS, LayerProbe
from brdyn.probes.layer_run import LayerRun
from brdyn.probes.maps import DenseTask, Depth, Segmentation
from brdyn.probes.of_images import described as images_described
from brdyn.probes.scores import measured
from brdyn.probes.stores import (
    Features,
    FeatureStore,
    Place,
    check_patches,
    check_room,
    described,
    extract_stores,
    image_bytes,
)

CHOOSING_EPOCHS = 5
SHORTLISTED = 3  # of the examples
ABSENT_SHOWN = 10
WORDS = {"test": "test", "val": "validation"}
Rows = tuple[FeatureStore, np.ndarray]


@dataclass
class DenseRun(LayerRun):
    """One run of dense probes; `say` is told how large their features are."""

    train: DenseSet
    test: DenseSet
    val: DenseSet | None
    recipe: Recipe
    say: Callable[[str], None]
    task: DenseTask = field(init=False)
    stores: dict[str, dict[str, FeatureStore]] = field(init=False, default_factory=dict)
    fitted: dict[str, FittedHeads] = field(init=False, default_factory=dict)

    def probed(self, folder: Path) -> LayerProbe:
        """Extract, fit, test; features lie in the folder."""
        layers = self._extract(folder)
        stores = {name: next(iter(found.values())) for name, found in self.stores.items()}
        self.task = made_task(self.train, stores)
        counts, places = Counts(self.task.score), [(layer,) for layer in layers]
        for model in self.readouts:
            for seed in range(self.seeds):
                self._read(counts, model, places, seed)
        if self.asked.choose:
            self._read_sets(counts, layers)
        return self._result(counts, places)

    def _extract(self, folder: Path) -> Place:
        models = [readout.model for readout in self.readouts.values()]
        for model in models:
            check_patches(model)
        layers = self.asked.of(models[0].depth, repr(models[0].info.name))
        sets = {"train": self.train, "test": self.test, **({} if self.val is None else {"val": self.val})}
        count, one = sum(map(len, sets.values())), image_bytes(models, layers, self.train.targets.kind)
        check_room(folder, count, one)
        self.say(described(folder, count, one))
        for name, images in sets.items():
            self.stores[name] = extract_stores(self.readouts, images, layers, folder / name, self.stream)
        return layers

    def _parts(self, model: str, seed: int) -> tuple[Rows, Rows]:
        """Images to fit on, and images to choose penalty and epoch by."""
        store = self.stores["train"][model]
        every = np.arange(len(store))
        others = "test" if self.recipe.on_test else "val" if self.val is not None else None
        if others is not None:
            chooser = self.stores[others][model]
            return (store, every), (chooser, np.arange(len(chooser)))
        fitting, choosing = split_images(len(store), self.seed + seed)
        return (store, fitting), (store, choosing)

    def _read(self, counts: Counts, model: str, places: Sequence[Place], seed: int) -> None:
        fitting, choosing = self._parts(model, seed)
        epochs = self._live(model, fitting, seed) if self.augment else None
        fits = {"linear": fit_heads(self.task, fitting, choosing, places, self.recipe, self.seed + seed, epochs)}
        # Images to choose by that are given leave no chance in it.
        drawn = seed == 0 or self.val is None
        if isinstance(self.task, Segmentation) and not self.recipe.on_test and drawn:
            fits["ridge"] = fit_ridge(self.task, fitting, choosing, places)
        for probe, fitted in fits.items():
            counted = count_images(self.task, fitted, self.stores["test"][model])
            held_out = np.full(len(places), np.nan) if self.recipe.on_test else fitted.held_out(self.task)
            chosen = zip(fitted.penalty, fitted.epoch, held_out, strict=True)
            for place, own, how in zip(places, counted, chosen, strict=True):
                counts.add(model, called(place), probe, own)
                self.runs.append((model, called(place), probe, seed, *map(float, how)))
        if seed == 0 and len(places[0]) == 1:
            self.fitted[model] = fits["linear"]

    def _live(self, model: str, fitting: Rows, seed: int) -> Callable[[int], Pairs]:
        """Crops and flips made anew for each epoch, with the backbone in the loop."""
        store, rows = fitting
        readout, depth = self.readouts[model], isinstance(self.task, Depth)
        scale = (0.5, 2.0) if depth else (0.5, 1.0)

        def turn(number: int) -> PairTransform:
            how = Augmentation(scale=scale, jitter=depth, seed=self.seed + seed, visit=number)
            return replace(self.train.turn, augmentation=how)

        turned = self.turned(seed, [store.positions[row] for row in rows], turn)

        def epoch(number: int) -> Iterator[tuple[Features, Tensor]]:
            for trajectory in turned(number):
                assert trajectory.targets is not None
                values = readout.features(trajectory, store.layers).cpu()
                yield values.__getitem__, trajectory.targets

        return epoch

    def _read_sets(self, counts: Counts, layers: Place) -> None:
        """The best layers by score on images that choose, and what people read instead."""
        model = next(iter(self.readouts))
        fitting, choosing = self._parts(model, 0)
        quick = replace(self.recipe, epochs=min(CHOOSING_EPOCHS, self.recipe.epochs))
        quick = replace(quick, penalties=quick.penalties[:1])

        def scores(places: list[Place]) -> np.ndarray:
            return fit_heads(self.task, fitting, choosing, places, quick, self.seed).chosen

        new = self.choose(layers, scores)
        for count in sorted({len(place) for place in new}):
            same = [place for place in new if len(place) == count]
            for seed in range(self.seeds):
                self._read(counts, model, same, seed)

    def _result(self, counts: Counts, places: Sequence[Place]) -> LayerProbe:
        weights = counts.weights(self.seed)
        fitting, choosing = self._parts(next(iter(self.readouts)), 0)
        store = next(iter(self.stores["test"].values()))
        blind = blind_map(self.task, next(iter(self.stores["train"].values())))
        classes = self._classes(counts)
        return LayerProbe(
            task=self.task.name,
            scores=counts.scores(weights),
            pairs=counts.pairs(weights, self.sets),
            runs=pd.DataFrame(self.runs, columns=RUNS),
            classes=classes,
            sets=self.sets,
            words=dict(self.task.score.words),
            notes=tuple(self._notes(counts)),
            sizes={
                "fit": len(fitting[1]),
                "choose": 0 if self.recipe.on_test else len(choosing[1]),
                "test": len(store),
            },
            counted=counts.table(store.positions),
            baseline=baseline_scores(self.task.score, count_blind(self.task, blind, store), weights),
            ends=self.ends,
            examples=self._examples(counts, places),
            images=images_described(self.train, self.test),
        )

    def _classes(self, counts: Counts) -> pd.DataFrame:
        rows = []
        if isinstance(self.task, Segmentation):
            for key in counts.found:
                totals = counts.of(key).sum(1)
                each = self.task.score.by_class(totals).mean(0)
                pixels = totals[0, 2 * self.task.outputs :]
                rows += [
                    (*key, name, float(one), float(count))
                    for name, one, count in zip(self.task.score.classes, each, pixels, strict=True)
                ]
        return pd.DataFrame(rows, columns=CLASSES)

    def _notes(self, counts: Counts) -> Iterator[str]:
        if self.recipe.on_test:
            yield OPTIMISTIC
        if self.augment:
            yield AUGMENTED
        totals = next(iter(counts.found.values()))[0]
        if isinstance(self.task, Segmentation):
            ignored = self.train.targets.ignore if isinstance(self.train.targets, MaskTargets) else None
            yield "no pixel is void" if ignored is None else f"pixels of {ignored} are void and do not count"
            true = totals[:, 2 * self.task.outputs :].sum(0)
            absent = [
                name
                for number, (name, count) in enumerate(zip(self.task.score.classes, true, strict=True))
                if not count and number != ignored
            ]
            if absent:
                more = ", …" if len(absent) > ABSENT_SHOWN else ""
                yield f"no test image holds {', '.join(absent[:ABSENT_SHOWN])}{more}: left out of the mean"
        else:
            if isinstance(self.test.targets, DepthTargets) and self.test.targets.eigen_crop:
                yield "depth is scored inside the crop of Eigen et al. alone"
            totals = totals[:, :1]
        empty = int((totals.sum(1) == 0).sum())
        if empty:
            yield f"{empty} test images hold no pixel with a truth"

    def _examples(self, counts: Counts, places: Sequence[Place]) -> dict[str, np.ndarray]:
        """The worst, middle and best test image by the deepest layer of the first model."""
        model = next(iter(self.readouts))
        store, place = self.stores["test"][model], len(places) - 1
        each = counts.found[model, called(places[place]), "linear"][0]
        known = np.flatnonzero(np.isfinite(self.task.score.better(each)))
        order = known[self.task.score.better(each[known]).argsort(kind="stable")]
        shown = order[[0, len(order) // 2, -1]] if len(order) >= SHORTLISTED else order
        found: dict[str, np.ndarray] = {
            "image": np.stack([self.test.pixels(store.positions[row]) for row in shown]),
            "truth": np.stack([np.asarray(store.targets[row]) for row in shown]),
            "score": measured(self.task.score, each[shown][None].swapaxes(0, 1))[self.task.score.main],
        }
        for name, fitted in self.fitted.items():
            maps = [maps_of(self.task, fitted, self.stores["test"][name], int(row))[0][place].numpy() for row in shown]
            found[f"said {name}"] = np.stack(maps).astype(found["truth"].dtype)
        return found


def made_task(train: DenseSet, stores: Mapping[str, FeatureStore]) -> DenseTask:
    """What is to be read from these images.

    Parameters
    ----------
    train : DenseSet
    stores : mapping of str to FeatureStore
        Of `train`, `test` and, where it is given, `val`.

    Raises
    ------
    UsageError
        If images to choose by or to test hold a class that training images cannot teach, or nothing at all.
    """
    others = {WORDS[name]: store for name, store in stores.items() if name != "train"}
    if isinstance(train.targets, DepthTargets):
        for name, store in others.items():
            if not any((part > 0).any() for part in parts(store)):
                raise UsageError(f"not one pixel of the {name} images has a depth; check `depth_unit` and `max_depth`")
        return Depth(train.targets.most)
    count = train.targets.classes or _most(stores["train"]) + 1
    for name, store in others.items():
        most = _most(store)
        if most < 0:
            raise UsageError(f"all pixels of the {name} images are void; check `ignore_index`")
        if most >= count:
            raise UsageError(
                f"the {name} masks hold class {most}, and the training masks only 0 to {count - 1}; give more "
                "training images, or `classes`"
            )
    names = train.targets.names or [str(number) for number in range(count)]
    return Segmentation(list(names))


def _most(store: FeatureStore) -> int:
    """The largest class."""
    return max(int(part.max()) for part in parts(store))
