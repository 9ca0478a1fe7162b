"""Probes of every layer, for each task: what is read from a model, where, and how well."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from brdyn.choices import SEEDS
from brdyn.data import DenseSet, ImageSet
from brdyn.errors import UsageError
from brdyn.models import VisionTransformer
from brdyn.phases import Phases
from brdyn.probes.baselines import baseline_scores
from brdyn.probes.counts import Counts
from brdyn.probes.dense import DenseRun
from brdyn.probes.features import FeatureMetric, Features, extract_features, feature_width, read_out
from brdyn.probes.heads import Recipe
from brdyn.probes.layer_choice import CHOSEN, SINGLE, LayersAsked, Place, alternatives, called, greedy
from brdyn.probes.layer_result import CLASSES, RUNS, LayerProbe
from brdyn.probes.linear import fit_linear
from brdyn.probes.of_images import TEST_SHARE, check_apart, described, train_and_test
from brdyn.probes.probing import numbered, read_classes, split_rows
from brdyn.probes.scores import ClassScore
from brdyn.probes.stores import Readout
from brdyn.provenance import Provenance, Stopwatch
from brdyn.trajectory import Stream

CHOOSING_PENALTIES = (1e-3, 1e-2, 1e-1)
MODEL = "model"


def probe_layers(
    model: VisionTransformer,
    images: ImageSet,
    test: ImageSet | None = None,
    *,
    layers: str = "all",
    val: ImageSet | None = None,
    phases: Phases | None = None,
    seeds: int = SEEDS,
    seed: int = 0,
    recipe: Recipe | None = None,
    published: bool = False,
    augment: bool = False,
    cache: str | Path | None = None,
    readouts: Mapping[str, Readout] | None = None,
    stream: Stream | None = None,
    say: Callable[[str], None] | None = None,
) -> LayerProbe | None:
    """How well classes, masks or depth are read from the layers of a model.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet or DenseSet
        To fit heads on: with labels for classification, of :func:`brdyn.data.load_dense` for segmentation and depth.
    test : ImageSet or DenseSet, optional
        By default a fifth of the images, drawn by `seed`.
    layers : str
        `last`, `all`, some as `3,7,12`, or `choose:4`: the best four together by score on held-out images, beside the
        last four, four at regular distances, and the ends of the phases, on the same test images.
    val : DenseSet, optional
        To choose penalty and epoch by; by default a fifth of the training images for each seed.
    phases : Phases, optional
        Whose ends are marked, and read by `choose`.
    seeds, seed : int
        How many splits and first weights, and where they start.
    recipe : Recipe, optional
        How dense heads are trained; by default that of the task.
    published : bool
        The published protocol, which chooses the epoch on the test images: optimistic, for comparison alone.
    augment : bool
        Random crops and flips, with the backbone in the loop.
    cache : path, optional
        Where features lie until the end of the run; by default a temporary folder.
    readouts : mapping of str to Readout, optional
        Several models in one pass over the images, such as a teacher and its Raptor.
    stream : Stream, optional
    say : callable, optional
        Told the size of the features before they are made.

    Returns
    -------
    LayerProbe
        None in processes other than the main one.

    Raises
    ------
    UsageError
        If there are no such layers, images are in two sets, or nothing can be read from them.

    Examples
    --------
    >>> from brdyn.data import load_dense
    >>> from brdyn.probes import Recipe, probe_layers
    >>> learning, testing = load_dense("streets", model, "segmentation").split(1, seed=0)
    >>> quick = Recipe(epochs=2, penalties=(0.1,))
    >>> found = probe_layers(model, learning, testing, layers="6,12", seeds=1, recipe=quick)
    >>> found.task, found.sizes, found.table("miou").index.tolist()
    ('segmentation', {'fit': 2, 'choose': 1, 'test': 1}, ['6', '12'])
    """
    watch, stream = Stopwatch(), stream or Stream()
    asked = LayersAsked.parse(layers)
    given = dict(readouts or {model.info.name if readouts is None else MODEL: Readout(model)})
    ends = None if phases is None else phases.boundaries
    if not isinstance(images, DenseSet):
        if val is not None or published or augment:
            raise UsageError("`val`, `published` and `augment` go with `task=segmentation` or `task=depth`")
        learning, testing = train_and_test(images, test, seed)
        found = _classified(given, learning, testing, asked, ends, seeds, seed, stream)
    else:
        if not stream.is_alone:
            raise UsageError("dense probes run in one process; start brdyn without torchrun")
        if seeds < 1:
            raise UsageError(f"{seeds} seeds are none; at least one is needed")
        if published and val is not None:
            raise UsageError("the published protocol chooses by the test images, so `val` goes without it")
        learning, testing = _dense_sets(images, test, val, seed)
        assert isinstance(learning, DenseSet)
        assert isinstance(testing, DenseSet)
        task = "depth" if learning.targets.kind == "depth" else "segmentation"
        run = DenseRun(
            given, learning, testing, val if isinstance(val, DenseSet) else None, asked,
            recipe or Recipe.of(task, published), seeds, seed, augment, ends, stream, say or (lambda _: None),
        )  # fmt: skip
        with tempfile.TemporaryDirectory(dir=_folder(cache), prefix="brdyn-features-") as folder:
            found = run.probed(Path(folder))
    if found is None:
        return None
    origin = Provenance.of(model, learning, watch, stream.processes, seed=seed)
    return replace(found, provenance=origin)


def _folder(cache: str | Path | None) -> Path | None:
    if cache is None:
        return None
    try:
        Path(cache).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder of features {str(cache)!r} ({error.strerror})") from error
    return Path(cache)


def _dense_sets(
    images: DenseSet, test: ImageSet | None, val: ImageSet | None, seed: int
) -> tuple[ImageSet, ImageSet]:
    for name, other in (("test", test), ("val", val)):
        if other is not None and not isinstance(other, DenseSet):
            raise UsageError(f"`{name}` holds no targets; load it by brdyn.data.load_dense")
    if test is None:
        learning, held_out = images.split(max(1, round(TEST_SHARE * len(images))), seed)
        assert held_out is not None
        return learning, held_out
    check_apart(images, test)
    if val is not None:
        check_apart(val, test)
    return images, test


def _classified(
    readouts: Mapping[str, Readout],
    train: ImageSet,
    test: ImageSet,
    asked: LayersAsked,
    ends: tuple[int, ...] | None,
    seeds: int,
    seed: int,
    stream: Stream,
) -> LayerProbe | None:
    """Classes, by the probes of :mod:`brdyn.probes.probing` at each layer."""
    first = next(iter(readouts.values())).model
    layers = asked.of(first.depth, repr(first.info.name))
    keys = [(name, layer) for name in readouts for layer in layers]
    learnt, tested = (
        extract_features(
            first, part, {f"{name}/{layer}": _metric(readouts[name], layer) for name, layer in keys}, stream
        )
        for part in (train, test)
    )
    if not stream.is_main:
        return None
    counts, runs, sizes = Counts(ClassScore()), [], {}
    places: dict[str, list[Place]] = {name: [(layer,) for layer in layers] for name in readouts}
    sets: dict[str, str] = {}
    if asked.choose:
        name = next(iter(readouts))
        own = {layer: learnt[f"{name}/{layer}"] for layer in layers}
        best = greedy(layers, asked.choose, _scores(own, seed, first.device))
        others = {SINGLE: best[0], CHOSEN: best[-1], **alternatives(first.depth, asked.choose, ends)}
        sets = {label: called(place) for label, place in others.items()}
        places[name] += [place for place in dict.fromkeys(others.values()) if len(place) > 1]
    for name, own_places in places.items():
        for place in own_places:
            parts = [beside([some[f"{name}/{layer}"] for layer in place]) for some in (learnt, tested)]
            reading = read_classes(*parts, seeds=seeds, device=first.device)
            sizes = {"fit": reading.n_train, "test": len(reading.truth)}
            frequent = (reading.truth == reading.truth.mode().values).numpy().astype(float)
            for probe, hits in reading.hits.items():
                for number, right in enumerate(hits.numpy().astype(float)):
                    counts.add(name, called(place), probe, np.stack([right, np.ones(len(right))], -1))
                    penalty = reading.penalties[number] if probe == "linear" else np.nan
                    runs.append((name, called(place), probe, number, penalty, np.nan))
    weights = counts.weights(seed)
    return LayerProbe(
        task="classification",
        scores=counts.scores(weights),
        pairs=counts.pairs(weights, sets),
        runs=pd.DataFrame(runs, columns=RUNS),
        classes=pd.DataFrame(columns=CLASSES),
        sets=sets,
        words=dict(ClassScore.words),
        notes=(),
        sizes=sizes,
        counted=counts.table(range(sizes["test"])),
        baseline=baseline_scores(ClassScore(), np.stack([frequent, np.ones(len(frequent))], -1), weights),
        ends=ends,
        images=described(train, test),
    )


def _metric(readout: Readout, layer: int) -> FeatureMetric:
    return FeatureMetric(
        lambda trajectory: read_out(readout.model, readout.states(trajectory)[layer]),
        feature_width(readout.model),
    )


def beside(parts: Sequence[Features]) -> Features:
    """Features of several layers, side by side."""
    return Features(torch.cat([part.values for part in parts], 1), parts[0].labels)


def _scores(
    features: Mapping[int, Features], seed: int, device: torch.device
) -> Callable[[list[Place]], np.ndarray]:
    """Accuracy on held-out training images, of heads on these layers side by side."""

    def scores(places: list[Place]) -> np.ndarray:
        found = []
        for place in places:
            whole = beside([features[layer] for layer in place])
            whole, _ = numbered(whole, whole)
            fitting, choosing = split_rows(whole.labels, seed)
            best = fit_linear(whole[fitting], whole[choosing], penalties=CHOOSING_PENALTIES, device=device)
            found.append(best.held_out_accuracy)
        return np.array(found)

    return scores
