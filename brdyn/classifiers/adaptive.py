"""Images of a ViTRM that stop by themselves, against as many fixed steps for all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from brdyn.classifiers.pixels import PixelSet
from brdyn.classifiers.saved import Classifier
from brdyn.classifiers.tasks import AT_ONCE
from brdyn.classifiers.vitrm import ViTRM
from brdyn.measures import intervals
from brdyn.runtime import timed

GAIN = ("fixed", "gain", "gain_low", "gain_high", "images_per_second")
ROUNDS = 5


def share_right(right: np.ndarray) -> dict[str, float]:
    """Accuracy with its 95 % interval (Wilson's score)."""
    value = float(right.mean())
    low, high = intervals.of_share(value, len(right))
    return {"accuracy": value, "low": low, "high": high}


def stopped_at(right: np.ndarray, sure: np.ndarray, threshold: float) -> dict[str, float]:
    """What happens if every image stops at its first step that is sure enough, or at the last.

    This is what :meth:`brdyn.classifiers.ViTRM.adaptive` does, from steps that were taken by all images.

    Parameters
    ----------
    right : ndarray
        Whether the answer is right, bool `(steps, n)`.
    sure : ndarray
        Halting probabilities, `(steps, n)`.
    threshold : float

    Returns
    -------
    dict of str to float
        As a row of :attr:`brdyn.classifiers.Recursion.adaptive`, without its speed.

    Examples
    --------
    >>> from brdyn.classifiers.adaptive import stopped_at
    >>> right = np.array([[True, False], [False, True]])  # of two images, after one step and after two
    >>> sure = np.array([[0.9, 0.2], [0.9, 0.9]])
    >>> found = stopped_at(right, sure, 0.5)
    >>> found["accuracy"], found["mean_steps"], found["fixed"], found["gain"]
    (1.0, 1.5, 0.5, 0.5)
    """
    stops = sure > threshold
    stops[-1] = True
    taken = stops.argmax(0)
    own = right[taken, np.arange(len(taken))]
    whole, part = divmod(float(taken.mean()), 1)
    before, after = right[int(whole)], right[min(int(whole) + 1, len(right) - 1)]
    fixed = (1 - part) * before + part * after
    gain = own - fixed
    low, high = intervals.of_values(gain)
    return {
        "threshold": threshold,
        **share_right(own),
        "mean_steps": float(taken.mean() + 1),
        **{f"took_{step + 1}": float((taken == step).mean()) for step in range(len(right))},
        "fixed": float(fixed.mean()),
        "gain": float(gain.mean()),
        "gain_low": low,
        "gain_high": high,
    }


def timed_at_once(device: torch.device) -> int:
    """Images of a batch whose speed is measured, by fixed steps as by adaptive ones."""
    return AT_ONCE if device.type == "cuda" else 32


def adaptive_speed(
    classifier: Classifier, network: ViTRM, images: PixelSet, thresholds: Sequence[float], most: int
) -> list[float]:
    """Images per second of a batch whose images stop, for each threshold: medians. Few images are repeated."""
    device = next(network.parameters()).device
    places = torch.arange(timed_at_once(device), device=images.pixels.device) % len(images.pixels)
    batch = classifier.normalised(images.pixels[places].to(device))
    rates = []
    for threshold in thresholds:
        run = partial(network.adaptive, batch, threshold, most)
        with torch.no_grad():
            run()
            seconds = float(np.median([timed(run, device) for _ in range(ROUNDS)]))
        rates.append(len(batch) / seconds)
    return rates
