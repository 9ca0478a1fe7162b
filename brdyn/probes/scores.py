"""Scores of probes, made of what is counted in each image: so that intervals can be over test images.

Each task counts some numbers in an image, and each of its scores is a function of their sums over images: mean IoU is
of one confusion matrix over all pixels, as published, and RMSE is over all pixels with truth. Intervals are Bayesian
bootstraps (Rubin 1981), in which every image has some weight, so that no class is ever missing; those of accuracies,
of which a bootstrap of few images knows nothing at 0 and 1, are Wilson's and Newcombe's.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from brdyn.arguments import checked
from brdyn.measures import intervals

RESAMPLES = 1000
INTERVAL = (0.025, 0.975)
ALIKE = 1e-12  # of rounding

Ends = tuple[float, float]


class Score(ABC):
    """What is counted in an image, and what is made of the sums.

    Attributes
    ----------
    main : str
        The score by which things are chosen and compared.
    words : mapping of str to str
        Each score, as pictures and sentences call it.
    sign : int
        1 where more is better, -1 where less is.
    statistics : tuple of str
        What is counted.

    Examples
    --------
    >>> from brdyn.probes import DepthScore
    >>> score = DepthScore()
    >>> float(score.values(np.array([4.0, 1.0, 0.4, 3.0]))["rmse"])  # 4 pixels, squared errors of 1 in all
    0.5
    """

    main: ClassVar[str]
    words: ClassVar[Mapping[str, str]]
    sign: ClassVar[int] = 1
    statistics: tuple[str, ...]

    def weights(self, images: int, seed: int) -> np.ndarray:
        """Bootstrap samples of as many images, `(count, images)`; none, where no interval is made of them."""
        return resamples(images, seed=seed)

    @abstractmethod
    def values(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Scores `(...)` of sums `(..., S)`; NaN where nothing was counted."""

    def better(self, totals: np.ndarray) -> np.ndarray:
        """The main score, turned so that more is better; what cannot be told is worst."""
        return np.nan_to_num(self.sign * self.values(totals)[self.main], nan=-np.inf)

    def ends(self, counted: np.ndarray, weights: np.ndarray) -> dict[str, Ends]:
        """The 95 % interval of each score, mean over seeds; NaN of a single image.

        Parameters
        ----------
        counted : ndarray
            `(seeds, images, S)`.
        weights : ndarray
            Of :func:`resamples`, `(count, images)`.
        """
        return {name: spread(again) for name, again in resampled(self, counted, weights).items()}

    def paired_ends(self, first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> tuple[Ends, Ends]:
        """The 95 % intervals of the difference and of the ratio of the main score, second to first, on one set of
        images."""
        one, other = (resampled(self, counted, weights)[self.main] for counted in (first, second))
        return spread(other - one), spread(ratio(other, one))


class ClassScore(Score):
    """Accuracy of classes.

    Examples
    --------
    >>> from brdyn.probes import ClassScore
    >>> float(ClassScore().values(np.array([3.0, 4.0]))["accuracy"])
    0.75
    """

    main = "accuracy"
    words: ClassVar[Mapping[str, str]] = {"accuracy": "accuracy"}
    statistics = ("right", "images")

    def weights(self, images: int, seed: int) -> np.ndarray:
        """None: its intervals are of shares."""
        return np.empty((0, images))

    def values(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Of right answers and images."""
        return {"accuracy": ratio(totals[..., 0], totals[..., 1])}

    def ends(self, counted: np.ndarray, weights: np.ndarray) -> dict[str, Ends]:
        """Wilson's."""
        right = self._right(counted)
        if len(right) < 2:
            return {"accuracy": (np.nan, np.nan)}
        return {"accuracy": intervals.of_share(float(right.mean()), len(right))}

    def paired_ends(self, first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> tuple[Ends, Ends]:
        """Newcombe's."""
        one, other = self._right(first), self._right(second)
        if len(one) < 2:
            return (np.nan, np.nan), (np.nan, np.nan)
        return intervals.of_paired_shares(one, other)

    def _right(self, counted: np.ndarray) -> np.ndarray:
        """Of each image, the share of seeds that are right."""
        return self.values(counted)["accuracy"].mean(0)


@checked
class OverlapScore(Score):
    """Mean intersection over union of the classes that the images hold.

    A class without a pixel of truth is left out of the mean. Void pixels are not among the sums.

    Parameters
    ----------
    classes : sequence of str
        Names by number.

    Examples
    --------
    >>> from brdyn.probes import OverlapScore
    >>> score = OverlapScore(["sky", "road", "cow"])
    >>> sums = np.array([3.0, 2, 0, 4, 2, 0, 3, 3, 0])  # hits, predicted, true: no cow
    >>> score.by_class(sums).round(3).tolist(), float(score.values(sums)["miou"].round(3))
    ([0.75, 0.667, nan], 0.708)
    """

    main = "miou"
    words: ClassVar[Mapping[str, str]] = {"miou": "mean IoU", "pixel_accuracy": "pixel accuracy"}

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.statistics = tuple(f"{what} {one}" for what in ("hits", "predicted", "true") for one in self.classes)

    def by_class(self, totals: np.ndarray) -> np.ndarray:
        """IoU `(..., C)` of each class; NaN for one that is not there."""
        hits, predicted, true = np.split(np.asarray(totals, dtype=float), 3, axis=-1)
        return np.where(true > 0, ratio(hits, predicted + true - hits), np.nan)

    def values(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Mean over classes, and the share of pixels that are right."""
        hits, _, true = np.split(np.asarray(totals, dtype=float), 3, axis=-1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the mean of no class is NaN
            mean = np.nanmean(self.by_class(totals), axis=-1)
        return {"miou": mean, "pixel_accuracy": ratio(hits.sum(-1), true.sum(-1))}


class DepthScore(Score):
    """Errors of depth over the pixels that have one.

    Examples
    --------
    >>> from brdyn.probes import DepthScore
    >>> {name: float(value) for name, value in DepthScore().values(np.array([4.0, 1.0, 0.4, 3.0])).items()}
    {'rmse': 0.5, 'delta1': 0.75, 'absrel': 0.1}
    """

    main = "rmse"
    sign = -1
    words: ClassVar[Mapping[str, str]] = {"rmse": "RMSE (m)", "delta1": "δ1", "absrel": "AbsRel"}
    statistics = ("pixels", "squared", "relative", "within")

    def values(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """RMSE in metres, share of pixels within a factor of 1.25, mean relative error."""
        count, squared, relative, within = np.moveaxis(np.asarray(totals, dtype=float), -1, 0)
        return {
            "rmse": np.sqrt(ratio(squared, count)),
            "delta1": ratio(within, count),
            "absrel": ratio(relative, count),
        }


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)


def resamples(images: int, count: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How much each image weighs in each sample of a Bayesian bootstrap, 1 on average: `(count, images)`."""
    return np.random.default_rng(seed).dirichlet(np.ones(images), size=count) * images


def spread(values: np.ndarray) -> Ends:
    """The 95 % interval of bootstrap samples; NaN where none can be told, as of images that are all alike."""
    known = values[np.isfinite(values)]
    if not len(known) or np.ptp(known) <= ALIKE * max(1, abs(known[0])):
        return np.nan, np.nan
    low, high = np.quantile(known, INTERVAL)
    return float(low), float(high)


def resampled(score: Score, counted: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Scores `(count,)` of bootstrap samples, mean over seeds; NaN of a single image, which cannot vary.

    Parameters
    ----------
    score : Score
    counted : ndarray
        `(seeds, images, S)`.
    weights : ndarray
        `(count, images)`.
    """
    if weights.shape[1] < 2:
        return {name: np.full(len(weights), np.nan) for name in score.words}
    found = [score.values(weights @ one) for one in counted]
    return {name: np.mean([one[name] for one in found], axis=0) for name in found[0]}


def measured(score: Score, counted: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of all images, for each seed `(seeds,)`."""
    return score.values(counted.sum(1))
