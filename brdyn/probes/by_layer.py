"""Probes of every layer, for each task: what is read from a model, where, and how well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from brdyn.arguments import checked
from brdyn.choices import SEEDS
from brdyn.data import DenseSet, ImageSet
from brdyn.errors import UsageError
from brdyn.measures.found_phases import given_phases
from brdyn.models import VisionTransformer
from brdyn.phases import Phases
from brdyn.probes.classes import ClassRun
from brdyn.probes.dense import DenseRun
from brdyn.probes.features import check_labelled
from brdyn.probes.heads import Recipe
from brdyn.probes.layer_choice import LayersAsked
from brdyn.probes.layer_result import LayerProbe
from brdyn.probes.of_images import TEST_SHARE, check_alike, check_apart, check_choosing, train_and_test
from brdyn.probes.stores import Readout, scratch
from brdyn.provenance import Provenance, Stopwatch
from brdyn.trajectory import Stream

MODEL = "model"


@checked
def probe_layers(
    model: VisionTransformer,
    images: ImageSet,
    test: ImageSet | None = None,
    *,
    layers: str | int | Sequence[int] = "all",
    val: ImageSet | None = None,
    phases: Phases | Sequence[int] | None = None,
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
    layers : str, int or sequence of int
        Some as `[3, 7, 12]` or `3,7,12`, `last`, `all`, or `choose:4`: the best four together by score on held-out
        images, beside the last four, four at regular distances, and the ends of the phases, on the same test images.
    val : ImageSet or DenseSet, optional
        To choose penalty and epoch by; by default a fifth of the training images for each seed.
    phases : Phases or sequence of int, optional
        Whose ends are marked, and read by `choose`; or their boundaries, as of :func:`brdyn.phases.as_phases`.
    seeds, seed : int
        How many splits and first weights, and where they start.
    recipe : Recipe, optional
        How heads are trained; by default that of the task. Of classes with `published` alone.
    published : bool
        The published protocol, which chooses the epoch on the test images: optimistic, for comparison alone. Of classes
        its heads begin as the model's own classifier, where that is linear in what they read and labels are of it.
    augment : bool
        Random crops and flips, with the backbone in the loop; of classes with `published` alone.
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
    found_ends = given_phases(model, phases)
    ends = None if found_ends is None else found_ends.boundaries
    if seeds < 1:
        raise UsageError(f"{seeds} seeds are none; at least one is needed")
    if published and val is not None:
        raise UsageError("the published protocol chooses by the test images, so `val` goes without it")
    if not isinstance(images, DenseSet):
        if not published and (augment or recipe is not None):
            raise UsageError("of classes `augment` and `recipe` go with `published`, whose heads are trained in epochs")
        if augment and not stream.is_alone:
            raise UsageError("probes with `augment` run in one process; start brdyn without torchrun")
        learning, testing = train_and_test(images, test, seed)
        if val is not None:
            check_labelled(val)
            check_alike(images, val)
            check_choosing(learning, val, testing)
        how = (recipe or Recipe.of("classification", published=True)) if published else None
        found = ClassRun(given, learning, testing, val, asked, how, seeds, seed, augment, ends, stream).probed()
    else:
        if not stream.is_alone:
            raise UsageError("dense probes run in one process; start brdyn without torchrun")
        learning, testing = _dense_sets(images, test, val, seed)
        assert isinstance(learning, DenseSet)
        assert isinstance(testing, DenseSet)
        task = "depth" if learning.targets.kind == "depth" else "segmentation"
        run = DenseRun(
            given, learning, testing, val if isinstance(val, DenseSet) else None, asked,
            recipe or Recipe.of(task, published), seeds, seed, augment, ends, stream, say or (lambda _: None),
        )  # fmt: skip
        with scratch(cache) as folder:
            found = run.probed(folder)
    if found is None:
        return None
    protocol = "published" if published else "held out"
    origin = Provenance.of(model, learning, watch, stream.processes, seed=seed, protocol=protocol)
    return replace(found, provenance=origin)


def _dense_sets(images: DenseSet, test: ImageSet | None, val: ImageSet | None, seed: int) -> tuple[ImageSet, ImageSet]:
    for name, other in (("test", test), ("val", val)):
        if other is None:
            continue
        if not isinstance(other, DenseSet):
            raise UsageError(f"`{name}` holds no targets; load it by brdyn.data.load_dense")
        if other.targets.kind != images.targets.kind:
            raise UsageError(
                f"`{name}` has a {other.targets.kind} for each image, and the images to fit heads on have a "
                f"{images.targets.kind}; load all for one task"
            )
        check_alike(images, other)
    learning: ImageSet = images
    if test is None:
        learning, held_out = images.split(max(1, round(TEST_SHARE * len(images))), seed)
        assert held_out is not None
        test = held_out
    check_apart(learning, test)
    if val is not None:
        check_choosing(learning, val, test)
    return learning, test
