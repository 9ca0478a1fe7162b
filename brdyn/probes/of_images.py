"""From a model and labelled images to what probes read: features, split, probes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from brdyn.arguments import checked
from brdyn.choices import SEEDS
from brdyn.data import ImageSet
from brdyn.errors import UsageError
from brdyn.models import VisionTransformer
from brdyn.probes.features import check_labelled, extract_features
from brdyn.probes.probing import Probing, probe
from brdyn.provenance import Provenance, Stopwatch, image_provenance
from brdyn.trajectory import Stream
from brdyn.words import counted

TEST_SHARE = 0.2


@checked
def probe_images(
    model: VisionTransformer,
    images: ImageSet,
    test: ImageSet | None = None,
    *,
    seeds: int = SEEDS,
    seed: int = 0,
    stream: Stream | None = None,
) -> Probing | None:
    """How much of the classes a k-NN and linear probes read from a model's features: cls and mean patch.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet
        With labels, to fit the probes on.
    test : ImageSet, optional
        To test them; by default a fifth of the images, drawn by `seed`.
    seeds, seed : int
        How many linear probes, each on its own split of the training images, and the seed of the first.
    stream : Stream, optional
        How to go through the images.

    Returns
    -------
    Probing
        None in processes other than the main one.

    Raises
    ------
    UsageError
        If images have no labels or are in both sets, or the two name different classes.

    Examples
    --------
    >>> from brdyn.probes import probe_images
    >>> probing = probe_images(model, images, images.split(4, 0)[0], seeds=1)
    Traceback (most recent call last):
    ...
    brdyn.errors.UsageError: 4 images are both to fit the probe and to test it
    """
    watch, stream = Stopwatch(), stream or Stream()
    learning, testing = train_and_test(images, test, seed)
    train = extract_features(model, learning, stream=stream)
    tested = extract_features(model, testing, stream=stream)
    if not stream.is_main:
        return None
    found = probe(train, tested, seeds=seeds, seed=seed, device=model.device)
    origin = Provenance.of(model, learning, watch, stream.processes, seed=seed)
    return replace(found, images=described(learning, testing), provenance=origin)


def train_and_test(images: ImageSet, test: ImageSet | None, seed: int) -> tuple[ImageSet, ImageSet]:
    """Labelled images to fit probes on, and to test them.

    Raises
    ------
    UsageError
        If either has no labels, some are in both, or they name different classes.
    """
    check_labelled(images)
    if test is None:
        learning, held_out = images.split(max(1, round(TEST_SHARE * len(images))), seed)
        assert held_out is not None
        return learning, held_out
    check_labelled(test)
    check_alike(images, test)
    check_apart(images, test)
    return images, test


def check_alike(images: ImageSet, other: ImageSet) -> None:
    """Refuse two sets that name different classes.

    Raises
    ------
    UsageError
        With where they are from.
    """
    first, second = images.label_names, other.label_names
    if first and second and first != second:
        raise UsageError(f"{images.source.description!r} and {other.source.description!r} name different classes")


def check_choosing(images: ImageSet, val: ImageSet, test: ImageSet) -> None:
    """Refuse images to choose by that are to fit or to test, too.

    Raises
    ------
    UsageError
        With how many they are.
    """
    check_apart(images, val, "fit the probe and to choose by")
    check_apart(val, test, "choose by and to test it")


def check_apart(images: ImageSet, test: ImageSet, uses: str = "fit the probe and to test it") -> None:
    """Refuse images that are in both sets, which are for two uses.

    Raises
    ------
    UsageError
        With how many they are.
    """
    if both := images.shared_with(test):
        raise UsageError(f"{counted(both, 'image')} {'is' if both == 1 else 'are'} both to {uses}")


def described(train: ImageSet, test: ImageSet) -> dict[str, Any]:
    """Which images were read, and which could not be, ready for JSON."""
    return {
        name: {
            **image_provenance(images),
            "skipped": [skipped._asdict() for skipped in images.report.skipped],
            "unlabelled": images.report.unlabelled.to_dict(),
        }
        for name, images in (("train", train), ("test", test))
    }
