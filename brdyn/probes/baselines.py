"""What a probe has to beat: answers that know nothing of an image, only where its pixels lie.

Made of the training images in one stream over them, whose memory does not grow with their number: for depth the mean of
what was measured at each pixel, for segmentation the class that is most frequent there.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from brdyn.data.targets import VOID
from brdyn.probes.maps import DenseTask, Depth, Segmentation
from brdyn.probes.scores import Score
from brdyn.probes.stores import FeatureStore

BASELINE = ["score", "value", "low", "high"]
IMAGES = 16  # read at once
MOST_COUNTS = 2**22  # of classes at pixels, counted at once

NAMES = {
    "classification": "the most frequent class",
    "segmentation": "the most frequent training class at each pixel",
    "depth": "the mean training depth at each pixel",
}
"""What each task's baseline answers, whatever the image."""


def blind_map(task: DenseTask, store: FeatureStore) -> Tensor:
    """The answer at each pixel `(H, W)` that training images alone give: classes, or metres.

    Parameters
    ----------
    task : DenseTask
    store : FeatureStore
        Of the training images.
    """
    if isinstance(task, Depth):
        return mean_depths(store)
    assert isinstance(task, Segmentation)
    return frequent_classes(store, task.outputs)


def mean_depths(store: FeatureStore) -> Tensor:
    """The mean of the depths that were measured at each pixel; where none was, that of all pixels."""
    total, count = (np.zeros(store.size) for _ in range(2))
    for truth in parts(store):
        total += np.where(truth > 0, truth, 0).sum(0, dtype=float)
        count += (truth > 0).sum(0)
    mean = total.sum() / max(count.sum(), 1)
    return torch.from_numpy(np.divide(total, count, out=np.full(store.size, mean), where=count > 0)).float()


def frequent_classes(store: FeatureStore, classes: int) -> Tensor:
    """The class that is most often at each pixel, void left out; where all is void, the most frequent of all.

    Some rows of pixels at a time, so that many classes take no more memory than few.
    """
    height, width = store.size
    step = max(1, MOST_COUNTS // (classes * width))
    found, known = np.zeros(store.size, np.int64), np.zeros(store.size, bool)
    overall = np.zeros(classes, np.int64)
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        counts = np.zeros((classes, rows.stop - start, width), np.int64)
        for truth in parts(store, rows):
            place = np.broadcast_to(np.arange(counts[0].size).reshape(1, *counts[0].shape), truth.shape)
            kept = truth != VOID
            numbers = truth[kept].astype(np.int64) * counts[0].size + place[kept]
            counts += np.bincount(numbers, minlength=counts.size).reshape(counts.shape)
        found[rows], known[rows] = counts.argmax(0), counts.any(0)
        overall += counts.sum((1, 2))
    found[~known] = overall.argmax()
    return torch.from_numpy(found)


def parts(store: FeatureStore, rows: slice | None = None) -> Iterator[np.ndarray]:
    """The targets of some images at a time, of some rows of pixels."""
    for start in range(0, len(store), IMAGES):
        yield np.asarray(store.targets[start : min(start + IMAGES, len(store)), rows or slice(None)])
        store.release()


def count_blind(task: DenseTask, answer: Tensor, store: FeatureStore) -> np.ndarray:
    """What the score counts in each image `(n, statistics)` where every one is answered alike, `(H, W)`."""
    found = [
        task.count(answer.flatten(), torch.from_numpy(truth.copy()).flatten())
        for some in parts(store)
        for truth in some
    ]
    return np.stack(found)


def baseline_scores(score: Score, counted: np.ndarray, weights: np.ndarray) -> pd.DataFrame:
    """A row for each score: its value, and its interval over the same resampled test images as those of probes.

    Parameters
    ----------
    score : Score
    counted : ndarray
        `(n, statistics)`.
    weights : ndarray
        Bootstrap samples, `(count, n)`.
    """
    values, ends = score.values(counted.sum(0)), score.ends(counted[None], weights)
    rows = [(name, float(values[name]), *ends[name]) for name in score.words]
    return pd.DataFrame(rows, columns=BASELINE)
