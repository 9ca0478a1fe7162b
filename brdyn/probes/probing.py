"""The same probes on the features of one or several models: accuracy, and what one keeps of another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from brdyn.errors import UsageError
from brdyn.measures.per_image import CONFIDENCE_Z
from brdyn.probes.features import Features
from brdyn.probes.knn import NEIGHBOURS, TEMPERATURE, nearest_neighbours
from brdyn.probes.linear import HELD_OUT, PENALTIES, fit_linear
from brdyn.results import records

SEEDS = 3
REPLICATES = 1000
RATIOS = ["model", "probe", "ratio", "low", "high", "sd"]


@dataclass(frozen=True)
class Probing:
    """How well the classes are read from features.

    Attributes
    ----------
    table : DataFrame
        One row per `model`, `probe` (`knn`, `linear`) and `seed`: `accuracy` on the test images, the `penalty` chosen.
        A seed draws which training images fit a linear probe and which choose its penalty, the same for every model;
        k-NN draws nothing and has one row, seed 0.
    ratios : DataFrame
        For each model but the first and each probe: `ratio` of its mean accuracy to the first's, `low` and `high` its
        95 % bootstrap interval over test images, `sd` over seeds (NaN for one).
    n_train, n_test, classes : int
    most_frequent : float
        Share of the most frequent class of the test images: what knowing nothing gets.
    """

    table: pd.DataFrame
    ratios: pd.DataFrame
    n_train: int
    n_test: int
    classes: int
    most_frequent: float

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Probing:
        """Back from :meth:`to_dict`."""
        table = pd.DataFrame(content["runs"]).astype({"penalty": float})
        ratios = pd.DataFrame(content["ratios"], columns=RATIOS).astype({"sd": float})
        return cls(
            table, ratios, *(content[name] for name in ("n_train", "n_test", "classes", "most_frequent"))
        )

    def accuracy(self, model: str, kind: str) -> float:
        """Mean over seeds."""
        rows = self.table[(self.table["model"] == model) & (self.table["probe"] == kind)]
        return float(rows["accuracy"].mean())

    def summary(self) -> pd.DataFrame:
        """One row per model and probe: mean accuracy, its `sd` over seeds, and a 95 % interval over test images."""
        grouped = self.table.groupby(["model", "probe"], sort=False)["accuracy"]
        found = grouped.agg(accuracy="mean", sd="std", seeds="size").reset_index()
        half = CONFIDENCE_Z * (found["accuracy"] * (1 - found["accuracy"]) / self.n_test) ** 0.5
        return found.assign(low=found["accuracy"] - half, high=found["accuracy"] + half)

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "n_train": self.n_train,
            "n_test": self.n_test,
            "classes": self.classes,
            "most_frequent": self.most_frequent,
            "knn": {"neighbours": NEIGHBOURS, "temperature": TEMPERATURE},
            "linear": {"penalties": list(PENALTIES), "held_out": HELD_OUT},
            "summary": records(self.summary()),
            "ratios": records(self.ratios),
            "runs": records(self.table),
        }


def probe(
    train: Mapping[str, Features],
    test: Mapping[str, Features],
    *,
    seeds: int = SEEDS,
    device: torch.device | str = "cpu",
) -> Probing:
    """Fit a k-NN and linear probes on the features of each model, alike.

    Parameters
    ----------
    train, test : mapping of str to Features
        By model; the same images for each.
    seeds : int
        Splits of the training images for the linear probe: four fifths fit it, the rest choose its penalty.
    device : torch.device

    Raises
    ------
    UsageError
        If there are too few training images, or test images of classes that training images lack.
    """
    if seeds < 1:
        raise UsageError(f"{seeds} seeds are none; at least one is needed")
    first = next(iter(train))
    labels, truth = train[first].labels, test[first].labels
    _check(labels, truth)
    rows, right = [], {}
    for name, features in train.items():
        guesses = nearest_neighbours(features, test[name].values, device=device)
        right[name, "knn"] = [guesses == truth]
        rows.append(
            {
                "model": name,
                "probe": "knn",
                "seed": 0,
                "accuracy": _share(guesses == truth),
                "penalty": np.nan,
            }
        )
        right[name, "linear"] = []
        for seed in range(seeds):
            fitting, choosing = split_rows(labels, seed)
            found = fit_linear(features[fitting], features[choosing], device=device)
            hits = found.predict(test[name].values) == truth
            right[name, "linear"].append(hits)
            rows.append(
                {
                    "model": name,
                    "probe": "linear",
                    "seed": seed,
                    "accuracy": _share(hits),
                    "penalty": found.penalty,
                }
            )
    frequent = float(truth.bincount().max()) / len(truth)
    return Probing(
        pd.DataFrame(rows),
        _ratios(right, list(train)),
        len(labels),
        len(truth),
        len(labels.unique()),
        frequent,
    )


def split_rows(labels: Tensor, seed: int, share: float = HELD_OUT) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows to keep out: `share` of each class (at least one row of it stays to fit on)."""
    rng = np.random.default_rng(seed)
    fitting, kept = [], []
    for label in labels.unique():
        own = rng.permutation(np.flatnonzero(labels.numpy() == int(label)))
        count = min(round(share * len(own)), len(own) - 1)
        kept.append(own[:count])
        fitting.append(own[count:])
    held_out = np.sort(np.concatenate(kept))
    if not len(held_out):
        raise UsageError(
            "a probe needs at least three images of some class, to choose its penalty; give more images"
        )
    return np.sort(np.concatenate(fitting)), held_out


def _check(train: Tensor, test: Tensor) -> None:
    strange = sorted(set(test.tolist()) - set(train.tolist()))
    if strange:
        names = ", ".join(map(str, strange[:5])) + (", …" if len(strange) > 5 else "")
        raise UsageError(
            f"the test images are of classes that no training image has (number {names}); give more training images, "
            "or test images of the same classes"
        )


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())


def _ratios(right: Mapping[tuple[str, str], Sequence[Tensor]], names: Sequence[str]) -> pd.DataFrame:
    """What each model keeps of the accuracy of the first, with a paired bootstrap over test images."""
    rows = []
    rng = np.random.default_rng(0)
    for name in names[1:]:
        for kind in ("knn", "linear"):
            ours, theirs = (
                torch.stack(list(right[model, kind])).double().numpy() for model in (name, names[0])
            )
            ratio = ours.mean() / max(theirs.mean(), 1e-12)
            again = []
            for _ in range(REPLICATES):
                weights = np.bincount(rng.integers(0, ours.shape[1], ours.shape[1]), minlength=ours.shape[1])
                again.append((weights @ ours.mean(0)) / max(weights @ theirs.mean(0), 1e-12))
            low, high = np.quantile(again, (0.025, 0.975))
            by_seed = ours.mean(1) / np.maximum(theirs.mean(1), 1e-12)
            sd = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else np.nan
            rows.append(
                {"model": name, "probe": kind, "ratio": float(ratio), "low": low, "high": high, "sd": sd}
            )
    return pd.DataFrame(rows, columns=RATIOS)
