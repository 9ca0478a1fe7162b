"""The same probes on the features of one or several models: accuracy, and what one keeps of another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from brdyn.arguments import checked
from brdyn.choices import SEEDS
from brdyn.compared import Compared
from brdyn.errors import UsageError
from brdyn.measures import intervals
from brdyn.probes.features import Features
from brdyn.probes.knn import NEIGHBOURS, TEMPERATURE, nearest_neighbours
from brdyn.probes.linear import HELD_OUT, PENALTIES, fit_linear, split
from brdyn.probes.scores import ratio
from brdyn.provenance import skipped_of
from brdyn.result import Result
from brdyn.store import records, rows_of

RATIOS = ["model", "probe", "ratio", "low", "high", "sd"]
NUMBER = (float, None)
NAMES = {"knn": "k-NN", "linear": "linear"}
SHAPE: dict[str, Any] = {  # of :meth:`Probing.to_dict`
    "n_train": int,
    "n_test": int,
    "classes": int,
    "most_frequent": float,
    "runs": [{"model": str, "probe": str, "seed": int, "accuracy": float, "penalty": NUMBER}],
    "ratios": [{"model": str, "probe": str, **dict.fromkeys(RATIOS[2:], NUMBER)}],
}


@dataclass(frozen=True, eq=False, repr=False)
class Probing(Result):
    """How well the classes are read from features.

    Attributes
    ----------
    table : DataFrame
        One row per `model`, `probe` (`knn`, `linear`) and `seed`: `accuracy` on the test images, the `penalty` chosen.
        `seed` is the number of the split, from 0; its seed is that of the run plus this. A split says which training
        images fit a linear probe and which choose its penalty, the same for every model; k-NN draws nothing and has
        one row, number 0, as has the linear probe whose penalty other images chose.
    ratios : DataFrame
        For each model but the first and each probe: `ratio` of its mean accuracy to the first's, `low` and `high` its
        95 % interval over test images by Donner and Zou, `sd` over seeds (NaN for one). All are NaN where the first has
        0.
    n_train, n_test, classes : int
    most_frequent : float
        Share of the most frequent class of the test images: what knowing nothing gets.
    images : mapping or None
        Which images were for `train` and `test`, where the features were read from images here.

    Examples
    --------
    >>> from brdyn.probes import Features, probe
    >>> features = Features(torch.eye(2).repeat(5, 1), torch.tensor([0, 1] * 5))
    >>> probing = probe({"a ViT": features}, {"a ViT": features}, seeds=1)
    >>> probing.most_frequent, probing.means()["accuracy"].tolist()
    (0.5, [1.0, 1.0])
    """

    FILE: ClassVar[str] = "probe.json"
    SHAPE: ClassVar[Mapping[str, Any]] = {"probing": SHAPE, "images": {"train": dict, "test": dict}}
    TIMED: ClassVar[bool] = False
    RUN_ON: ClassVar[str] = "training"

    table: pd.DataFrame
    ratios: pd.DataFrame
    n_train: int
    n_test: int
    classes: int
    most_frequent: float
    images: Mapping[str, Any] | None = None

    def content(self) -> dict[str, Any]:
        """Which images, and everything of :meth:`to_dict`."""
        return {"images": self.images, "probing": self.to_dict()}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from a probe.json."""
        del folder
        return replace(cls.from_dict(content["probing"]), images=content["images"])

    def answer(self) -> str:
        """What each probe of each model reads, and what knowing nothing of an image gets."""
        said = [
            f"{row['model']}: {row['accuracy']:.1%} ({row['low']:.1%} to {row['high']:.1%}) of the test images by a "
            f"{NAMES.get(row['probe'], row['probe'])} probe"
            for row in self.means().to_dict(orient="records")
        ]
        return f"{'; '.join(said)}; the most frequent of {self.classes} classes alone gets {self.most_frequent:.1%}"

    def alike(self) -> dict[str, Any]:
        """Also the images that were tested on."""
        return super().alike() | {"test images": (self.images or {}).get("test", {}).get("digest")}

    def overview(self) -> list[dict[str, Any]]:
        """Accuracies with their interval over test images and their spread over seeds."""
        of = {"accuracy": "accuracy", "low": "low", "high": "high", "sd": "sd over seeds"}
        return [
            {"model": str(row["model"]), "probe": NAMES.get(row["probe"], str(row["probe"]))}
            | {words: float(row[name]) for name, words in of.items()}
            for row in self.means().to_dict(orient="records")
        ]

    def remarks(self) -> list[str]:
        """Images, ratios, and what the test images are too few for."""
        test = (self.images or {}).get("test")
        lines = skipped_of(test or {}, "test")
        lines.append(f"{self.n_train} training and {self.n_test} test images of {self.classes} classes")
        lines += [
            f"{row['model']} keeps "
            + (
                f"{row['ratio']:.1%} ({row['low']:.1%} to {row['high']:.1%})"
                if np.isfinite(row["ratio"])
                else "no share of an accuracy of 0"
            )
            + f" by the {NAMES.get(row['probe'], row['probe'])} probe"
            for row in self.ratios.to_dict(orient="records")
        ]
        open_ = [
            f"{row['model']}, {NAMES.get(row['probe'], row['probe'])}"
            for row in self.means().to_dict(orient="records")
            if row["low"] <= self.most_frequent <= row["high"]
        ]
        if open_:
            lines.append(
                "too few test images to tell from the most frequent class alone, which lies in the interval: "
                + "; ".join(open_)
            )
        return lines + [
            f"note: a linear probe of {model} chose the strongest or weakest penalty it could"
            for model in self.at_the_end()
        ]

    def brief(self) -> str:
        """Models, images, classes."""
        models = ", ".join(dict.fromkeys(self.table["model"]))
        return f"{models}; {self.n_train} training and {self.n_test} test images of {self.classes} classes"

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Back from :meth:`to_dict`."""
        table = pd.DataFrame(content["runs"], columns=list(SHAPE["runs"][0])).astype({"penalty": float})
        ratios = pd.DataFrame(content["ratios"], columns=RATIOS).astype(dict.fromkeys(RATIOS[2:], float))
        return cls(table, ratios, *(content[name] for name in ("n_train", "n_test", "classes", "most_frequent")))

    def accuracy(self, model: str, kind: str) -> float:
        """Mean over seeds. Raises UsageError if there is no such model or probe."""
        rows = rows_of(self.table, model=model, probe=kind)
        return float(rows["accuracy"].mean())

    def means(self) -> pd.DataFrame:
        """One row per model and probe: mean accuracy, its `sd` over seeds, and a 95 % interval over test images."""
        grouped = self.table.groupby(["model", "probe"], sort=False)["accuracy"]
        found = grouped.agg(accuracy="mean", sd="std", seeds="size").reset_index()
        low, high = intervals.of_share(found["accuracy"], self.n_test)
        return found.assign(low=low, high=high)

    def at_the_end(self) -> list[str]:
        """Models of which a linear probe chose the strongest or weakest penalty: a better one may lie beyond."""
        ends = self.table["penalty"].isin((PENALTIES[0], PENALTIES[-1]))
        return list(dict.fromkeys(self.table.loc[ends, "model"]))

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "n_train": self.n_train,
            "n_test": self.n_test,
            "classes": self.classes,
            "most_frequent": self.most_frequent,
            "knn": {"neighbours": NEIGHBOURS, "temperature": TEMPERATURE},
            "linear": {"penalties": list(PENALTIES), "held_out": HELD_OUT},
            "summary": records(self.means()),
            "ratios": records(self.ratios),
            "runs": records(self.table),
        }


@dataclass(frozen=True, eq=False, repr=False)
class Reading(Compared):
    """What probes read from the features of one model.

    Attributes
    ----------
    hits : dict of str to Tensor
        By probe (`knn`, `linear`): which test images were right, a row for each seed, `(seeds, m)`.
    penalties : tuple of float
        That the linear probes chose.
    truth : Tensor
        Classes of the test images, `(m,)`.
    n_train, classes : int
        Of the training images.
    held_out : tuple of float
        Accuracy of the linear probes on the images that chose; empty where it was not kept.

    Examples
    --------
    >>> from brdyn.probes import Features, read_classes
    >>> features = Features(torch.eye(2).repeat(5, 1), torch.tensor([0, 1] * 5))
    >>> reading = read_classes(features, features, seeds=2)
    >>> reading.hits["linear"].shape, reading.hits["knn"].shape  # seeds, test images
    (torch.Size([2, 10]), torch.Size([1, 10]))
    """

    hits: Mapping[str, Tensor]
    penalties: tuple[float, ...]
    truth: Tensor
    n_train: int
    classes: int
    held_out: tuple[float, ...] = ()


@checked
def read_classes(
    train: Features,
    test: Features,
    *,
    val: Features | None = None,
    seeds: int = SEEDS,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Reading:
    """Fit a k-NN and linear probes on features, and test them.

    Parameters
    ----------
    train, test : Features
    val : Features, optional
        To choose the penalty of the linear probe by, which is then fitted to all training images, and once: no chance
        is in it.
    seeds, seed : int
        How many splits of the training images for the linear probe, and the seed of the first: four fifths fit it, the
        rest choose its penalty.
    device : torch.device

    Raises
    ------
    UsageError
        If there are too few training images, or test images of classes that training images lack.

    Examples
    --------
    >>> from brdyn.probes import Features, read_classes
    >>> features = Features(torch.eye(2).repeat(5, 1), torch.tensor([0, 1] * 5))
    >>> read_classes(features, features, seeds=1).hits["linear"].all().item()
    True
    """
    if seeds < 1:
        raise UsageError(f"{seeds} seeds are none; at least one is needed")
    chooser = None if val is None else numbered(train, val, "validation")[1]
    train, test = numbered(train, test)
    near = nearest_neighbours(train, test.values, device=device) == test.labels
    linear, probes = [], []
    for number in range(seeds if chooser is None else 1):
        fitting, choosing = (train, chooser) if chooser is not None else split(train, seed + number)
        found = fit_linear(fitting, choosing, device=device)
        linear.append(found.predict(test.values) == test.labels)
        probes.append(found)
    return Reading(
        {"knn": near[None], "linear": torch.stack(linear)},
        tuple(one.penalty for one in probes),
        test.labels,
        len(train),
        len(train.labels.unique()),
        tuple(one.held_out_accuracy for one in probes),
    )


@checked
def compare(readings: Mapping[str, Reading]) -> Probing:
    """Accuracies, and what each model keeps of the first's.

    Parameters
    ----------
    readings : mapping of str to Reading
        By model; of the same images.

    Raises
    ------
    UsageError
        If there is none, or test images are not of the same classes, one by one.

    Examples
    --------
    >>> from brdyn.probes import Features, compare, read_classes
    >>> features = Features(torch.eye(2).repeat(5, 1), torch.tensor([0, 1] * 5))
    >>> reading = read_classes(features, features, seeds=1)
    >>> compare({"a ViT": reading, "another": reading}).ratios["ratio"].tolist()
    [1.0, 1.0]
    """
    if not readings:
        raise UsageError("there is nothing to compare; give a reading for each model")
    rows = [
        {
            "model": name,
            "probe": kind,
            "seed": seed,
            "accuracy": float(right.double().mean()),
            "penalty": reading.penalties[seed] if kind == "linear" else np.nan,
        }
        for name, reading in readings.items()
        for kind, hits in reading.hits.items()
        for seed, right in enumerate(hits)
    ]
    (of, first), *others = readings.items()
    for name, reading in others:
        if not torch.equal(reading.truth.cpu(), first.truth.cpu()):
            raise UsageError(f"{name!r} was tested on other images than {of!r}; read both from the same")
    frequent = float(first.truth.bincount().max()) / len(first.truth)
    return Probing(pd.DataFrame(rows), _ratios(readings), first.n_train, len(first.truth), first.classes, frequent)


@checked
def probe(
    train: Mapping[str, Features],
    test: Mapping[str, Features],
    *,
    seeds: int = SEEDS,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Probing:
    """:func:`read_classes` for each model, alike, and :func:`compare`.

    Parameters
    ----------
    train, test : mapping of str to Features
        By model; the same images for each.
    seeds, seed, device
        As in :func:`read_classes`.

    Examples
    --------
    >>> from brdyn.probes import extract_features, probe
    >>> features = extract_features(model, images)
    >>> probing = probe(features, features, seeds=1)
    >>> probing.n_train, probing.classes
    (8, 2)
    """
    if train.keys() != test.keys():
        fitted, tested = (", ".join(part) or "none" for part in (train, test))
        raise UsageError(f"features to fit are of {fitted}, and to test of {tested}; give both of each model")
    return compare(
        {name: read_classes(train[name], test[name], seeds=seeds, seed=seed, device=device) for name in train}
    )


def numbered(train: Features, test: Features, called: str = "test") -> tuple[Features, Features]:
    """The same with classes numbered from 0 as they are met in training, so that large numbers cost nothing.

    Raises
    ------
    UsageError
        If training images are of one class, or test images of classes that training images lack.
    """
    classes = train.labels.unique()
    strange = sorted(set(test.labels.tolist()) - set(classes.tolist()))
    if len(classes) < 2:
        raise UsageError(
            f"a probe needs images of at least two classes, and the {len(train)} training images are all of one "
            f"(number {int(classes[0])})"
        )
    if strange:
        names = ", ".join(map(str, strange[:5])) + (", …" if len(strange) > 5 else "")
        raise UsageError(
            f"the {called} images are of classes that no training image has (number {names}); give more training "
            f"images, or {called} images of the same classes"
        )
    first, second = (replace(part, labels=torch.searchsorted(classes, part.labels)) for part in (train, test))
    return first, second


def _ratios(readings: Mapping[str, Reading]) -> pd.DataFrame:
    """What each model keeps of the accuracy of the first, with an interval over test images."""
    rows = []
    first, *others = readings
    for name in others:
        for kind in (one for one in readings[name].hits if one in readings[first].hits):
            ours, theirs = (readings[model].hits[kind].double().numpy() for model in (name, first))
            _, (low, high) = intervals.of_paired_shares(theirs.mean(0), ours.mean(0))
            by_seed = ratio(ours.mean(1), theirs.mean(1)) if len(ours) == len(theirs) else np.empty(0)
            sd = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else np.nan
            rows.append((name, kind, float(ratio(ours.mean(), theirs.mean())), low, high, sd))
    return pd.DataFrame(rows, columns=RATIOS)
