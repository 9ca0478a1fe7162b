"""How well a trained classifier does, and what recursion buys a ViTRM: accuracy, halting and speed by its steps.

Method notes, section 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import f1_score
from torch import Tensor
from torch.nn import functional

from brdyn.arguments import checked
from brdyn.choices import RECURSION_STEPS
from brdyn.classifiers.adaptive import GAIN, ROUNDS, adaptive_speed, share_right, stopped_at, timed_at_once
from brdyn.classifiers.pixels import PixelSet, check_classes
from brdyn.classifiers.saved import Classifier
from brdyn.classifiers.tasks import AT_ONCE
from brdyn.classifiers.vitrm import Streams, ViTRM
from brdyn.compared import Compared
from brdyn.errors import UsageError
from brdyn.measures import intervals
from brdyn.runtime import timed
from brdyn.store import records

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
BINS = 10


@checked
def class_scores(classifier: Classifier, images: PixelSet, steps: int = 1) -> Tensor:
    """Class scores `(n, classes)` of every image, on the CPU; a ViTRM takes `steps` recursion steps.

    >>> from brdyn.classifiers import Classifier, class_scores, load_pixels
    >>> images = load_pixels("photos", image_size=16)
    >>> classifier = Classifier.new("vit-tiny12", images.names, 16, *images.statistics())
    >>> class_scores(classifier, images).shape
    torch.Size([8, 2])
    """
    network = classifier.network
    device = next(network.parameters()).device
    found = []
    with torch.no_grad():
        for pixels in images.pixels.split(AT_ONCE):
            ready = classifier.normalised(pixels.to(device))
            found.append(classifier.architecture.scores(network, ready, steps).float().cpu())
    return torch.cat(found)


def accuracy_and_f1(guesses: Tensor, truth: Tensor) -> dict[str, float]:
    """Accuracy with its 95 % interval, and the mean F1 of the classes."""
    ours, theirs = guesses.cpu().numpy(), truth.cpu().numpy()
    return {**share_right(ours == theirs), "macro_f1": float(f1_score(theirs, ours, average="macro"))}


def accuracy(classifier: Classifier, images: PixelSet, steps: int = 1) -> float:
    """Share of the images that are classified right."""
    guesses = class_scores(classifier, images, steps).argmax(1)
    return float((guesses == images.labels.cpu()).double().mean())


SHARE = {"accuracy": float, "low": float, "high": float}
SCORES = {**SHARE, "macro_f1": float}
LATER = (  # unknown to the first versions
    "nll", "nll_low", "nll_high", "class_calibration_error", "step_norm", "step_norm_low", "step_norm_high",
    "gflop",
)  # fmt: skip
RECURSION: dict[str, Any] = {  # of :meth:`Recursion.to_dict`
    "n_images": int,
    "steps": [
        {
            "steps": int,
            **SCORES,
            **dict.fromkeys(("halting", "calibration_error", "latency_ms", "images_per_second"), float),
            **dict.fromkeys((f"{name}?" for name in LATER), (float, None)),
        }
    ],
    "halting": [{"steps": int, "images": int, "probability": float, "right": float}],
    "adaptive": [
        {
            "threshold": float,
            **SHARE,
            "mean_steps": float,
            **dict.fromkeys(map("{}?".format, GAIN), (float, None)),
        }
    ],
}


@dataclass(frozen=True, eq=False, repr=False)
class Recursion(Compared):
    """A trained ViTRM against the number of its steps.

    Attributes
    ----------
    steps : DataFrame
        One row per number of `steps` 1 to `most`: `accuracy` with a 95 % interval `low` to `high`, `macro_f1`, mean
        `halting` probability, `calibration_error` (expected, of the halting probability against being right, over ten
        bins), `class_calibration_error` (of the likeliest class's probability, likewise), `nll` of the label (nats) and
        `step_norm`, how far the step moved y and z over their norm, each with an interval (`nll_low`, …),
        `gflop` (10⁹ floating-point operations of one image, counted: :meth:`brdyn.classifiers.Classifier.flops`),
        `latency_ms` (one image) and `images_per_second` (a batch).
    halting : DataFrame
        One row per number of `steps` and bin of the halting probability: `images`, mean `probability`, share `right`.
    adaptive : DataFrame
        One row per `threshold`: `accuracy`, its interval, `mean_steps`, and the share of images that took 1, 2, …
        steps (`took_1`, …), of at most `most`; beside it `fixed`, the accuracy of as many steps for every image (of
        two numbers of steps, where the mean lies between), the `gain` over that, image by image, with its interval
        (`gain_low`, `gain_high`), and `images_per_second` of a batch whose images stop.
    n_images : int

    Examples
    --------
    >>> import pandas as pd
    >>> from brdyn.classifiers import Recursion
    >>> steps = pd.DataFrame({"steps": [1, 2], "accuracy": [0.7, 0.8]})
    >>> Recursion(steps, halting=pd.DataFrame(), adaptive=pd.DataFrame(), n_images=50).to_dict()["steps"]
    [{'steps': 1, 'accuracy': 0.7}, {'steps': 2, 'accuracy': 0.8}]
    """

    steps: pd.DataFrame
    halting: pd.DataFrame
    adaptive: pd.DataFrame
    n_images: int

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "n_images": self.n_images,
            "steps": records(self.steps),
            "halting": records(self.halting),
            "adaptive": records(self.adaptive),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Back from :meth:`to_dict`."""
        tables = [pd.DataFrame(content[name]) for name in ("steps", "halting", "adaptive")]
        steps, halting, adaptive = (
            table.astype({name: float for name in (*LATER, *GAIN) if name in table}) for table in tables
        )
        return cls(steps, halting, adaptive, content["n_images"])

    def overview(self) -> list[dict[str, Any]]:
        """A row for each number of steps."""
        shown = {
            "accuracy": "accuracy", "macro_f1": "macro F1", "nll": "NLL", "class_calibration_error": "ECE",
            "calibration_error": "ECE of halting", "step_norm": "step norm", "gflop": "GFLOP an image",
            "latency_ms": "ms an image", "images_per_second": "images/s",
        }  # fmt: skip
        return [
            {"steps": row["steps"], **{words: row[name] for name, words in shown.items() if name in row}}
            for row in records(self.steps)
        ]

    def remarks(self) -> list[str]:
        """A line for each threshold of halting."""
        return [_stopping(row) for row in records(self.adaptive)]


def _stopping(row: Mapping[Any, Any]) -> str:
    said = (
        f"halting above {row['threshold']:g}: accuracy {row['accuracy']:.2%} in {row['mean_steps']:.2f} steps on "
        "average"
    )
    if "gain" not in row:
        return said
    low, high = (row[name] for name in ("gain_low", "gain_high"))
    between = "" if low is None else f" [{100 * low:+.2f} to {100 * high:+.2f}]"
    return (
        f"{said}, {100 * row['gain']:+.2f} points{between} over as many fixed steps; "
        f"{row['images_per_second']:.0f} images/s"
    )


def evaluate_recursion(
    classifier: Classifier,
    images: PixelSet,
    *,
    most: int = RECURSION_STEPS,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Recursion:
    """Take up to `most` steps on every image.

    Parameters
    ----------
    classifier : Classifier
        With a ViTRM.
    images : PixelSet
        To test on.
    most : int
    thresholds : sequence of float
        Halting probabilities beyond which an image stops.

    Raises
    ------
    UsageError
        If the classifier is no ViTRM, or the images are of other classes.

    Examples
    --------
    >>> from brdyn.classifiers import Classifier, load_pixels
    >>> from brdyn.classifiers.evaluation import evaluate_recursion
    >>> images = load_pixels("photos", image_size=8)
    >>> classifier = Classifier.new("vitrm", images.names, 8, *images.statistics(), width=12, heads=2, hidden=16)
    >>> evaluate_recursion(classifier, images, most=2).steps["steps"].tolist()
    [1, 2]
    """
    network = classifier.network
    if not isinstance(network, ViTRM):
        raise UsageError(f"{classifier.name} has no recursion steps to evaluate")
    check_classes(images, classifier.names, "the classifier")
    after = _every_step(classifier, network, images, most)
    truth = images.labels.cpu().numpy()
    right, sure = after.scores.argmax(-1).numpy() == truth, after.halting.numpy()
    flops = classifier.flops()
    each = classifier.flops(2) - flops  # every step does the same
    rows, bins = [], []
    for step in range(most):
        table = reliability(sure[step], right[step])
        rows.append(
            {
                "steps": step + 1,
                **accuracy_and_f1(after.scores[step].argmax(-1), images.labels),
                "halting": float(sure[step].mean()),
                "calibration_error": calibration_error(table),
                **_of_classes(after.scores[step], images.labels.cpu(), right[step]),
                **_mean_of("step_norm", after.moved[step].numpy()),
                "gflop": (flops + step * each) / 1e9,
            }
        )
        bins.append(table.assign(steps=step + 1))
    speeds = pd.DataFrame(_speed(network, classifier.image_size, most))
    rates = adaptive_speed(classifier, network, images, thresholds, most)
    adaptive = [
        {**stopped_at(right, sure, threshold), "images_per_second": rate}
        for threshold, rate in zip(thresholds, rates, strict=True)
    ]
    return Recursion(
        pd.DataFrame(rows).merge(speeds, on="steps"),
        pd.concat(bins, ignore_index=True),
        pd.DataFrame(adaptive),
        len(truth),
    )


class After(NamedTuple):
    """What each step led to, on the CPU: class scores `(most, n, classes)`; halting probabilities and `|(y, z)_t -
    (y, z)_{t-1}| / |(y, z)_{t-1}|`, `(most, n)`."""

    scores: Tensor
    halting: Tensor
    moved: Tensor


def _every_step(classifier: Classifier, network: ViTRM, images: PixelSet, most: int) -> After:
    device = next(network.parameters()).device
    batches = []
    with torch.no_grad():
        for pixels in images.pixels.split(AT_ONCE):
            streams = network.begin(classifier.normalised(pixels.to(device)))
            after = []
            for _ in range(most):
                before, streams = streams, network.step(streams)
                found = network.read(streams)
                after.append((found.scores.float(), found.halting.float().sigmoid(), _moved(before, streams)))
            batches.append([torch.stack(parts).cpu() for parts in zip(*after, strict=True)])
    return After(*(torch.cat(parts, dim=1) for parts in zip(*batches, strict=True)))


def _moved(before: Streams, after: Streams) -> Tensor:
    """How far a step moves y and z together, over their norm, `(B,)`."""
    pairs = [(old.float().flatten(1), new.float().flatten(1)) for old, new in zip(before[1:], after[1:], strict=True)]
    old = torch.cat([old for old, _ in pairs], dim=1)
    return torch.linalg.vector_norm(torch.cat([new for _, new in pairs], dim=1) - old, dim=1) / (
        torch.linalg.vector_norm(old, dim=1)
    )


def _of_classes(scores: Tensor, labels: Tensor, right: np.ndarray) -> dict[str, float]:
    """Negative log-likelihood of the labels (nats), with its interval, and calibration of the likeliest class."""
    sure = scores.softmax(-1).amax(-1).numpy()
    losses = functional.cross_entropy(scores, labels, reduction="none").double().numpy()
    return {**_mean_of("nll", losses), "class_calibration_error": calibration_error(reliability(sure, right))}


def _mean_of(name: str, values: np.ndarray) -> dict[str, float]:
    """A mean over images with its 95 % interval; NaN of one image."""
    low, high = intervals.of_values(values)
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}


def reliability(probability: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """Images by how sure they are said to be right: mean probability, and share that is, by bin."""
    places = np.minimum((probability * BINS).astype(int), BINS - 1)
    table = pd.DataFrame({"bin": places, "probability": probability, "right": right})
    grouped = table.groupby("bin")
    return grouped.mean().assign(images=grouped.size()).reset_index()


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error, of what :func:`reliability` gives."""
    weights = table["images"] / table["images"].sum()
    return float((weights * (table["probability"] - table["right"]).abs()).sum())


def _speed(network: ViTRM, image_size: int, most: int) -> list[dict[str, float]]:
    """Latency of one image and throughput of a batch for each number of steps."""
    device = next(network.parameters()).device
    batch = timed_at_once(device)
    alone, together = (
        _seconds(network, torch.zeros(size, network.config.channels, image_size, image_size, device=device), most)
        for size in (1, batch)
    )
    return [
        {
            "steps": steps,
            "latency_ms": 1000 * alone[steps - 1],
            "images_per_second": batch / together[steps - 1],
        }
        for steps in range(1, most + 1)
    ]


@torch.no_grad()
def _seconds(network: ViTRM, images: Tensor, most: int) -> np.ndarray:
    """Until the class scores after each step, `(most,)`, medians: of one pass, a step after the other, each timed."""
    found, here = [], network.begin(images)

    def begin() -> None:
        nonlocal here
        here = network.begin(images)

    def step() -> None:
        nonlocal here
        here = network.step(here)

    for _ in range(1 + ROUNDS):  # the first warms up
        seconds = [timed(one, images.device) for one in (begin, *most * (step,))]
        found.append(np.cumsum(seconds)[1:] + timed(lambda: network.read(here), images.device))
    return np.median(found[1:], axis=0)
