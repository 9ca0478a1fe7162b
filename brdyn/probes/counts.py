"""What was counted in each test image, and the scores with intervals that are made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from brdyn.probes.layer_choice import CHOSEN, PHASE_ENDS, REGULAR
from brdyn.probes.scores import Score, measured, ratio

SCORES = ["model", "place", "probe", "score", "value", "low", "high", "sd", "seeds"]
PAIRS = [
    *("kind", "first", "second", "place", "probe", "score"),
    *("difference", "low", "high", "ratio", "ratio_low", "ratio_high"),
]
Key = tuple[str, str, str]
"""Model, place, probe."""


@dataclass
class Counts:
    """What was counted in each test image, as it comes.

    Attributes
    ----------
    score : Score
    found : dict of Key to ndarray
        `(seeds, images, statistics)`.
    """

    score: Score
    found: dict[Key, list[np.ndarray]] = field(default_factory=dict)

    def add(self, model: str, place: str, probe: str, counted: np.ndarray) -> None:
        """What one seed counted, `(images, statistics)`."""
        self.found.setdefault((model, place, probe), []).append(counted)

    def of(self, key: Key) -> np.ndarray:
        """Of all seeds."""
        return np.stack(self.found[key])

    def weights(self, seed: int) -> np.ndarray:
        """Bootstrap samples of the test images, the same for all; none, of a score that needs none."""
        images = next(iter(self.found.values()))[0].shape[0]
        return self.score.weights(images, seed)

    def scores(self, weights: np.ndarray) -> pd.DataFrame:
        """The rows of :attr:`LayerProbe.scores`."""
        rows = []
        for model, place, probe in self.found:
            counted = self.of((model, place, probe))
            values, ends = measured(self.score, counted), self.score.ends(counted, weights)
            for name in self.score.words:
                low, high = ends[name]
                own = values[name]
                sd = float(own.std(ddof=1)) if len(own) > 1 else np.nan
                rows.append((model, place, probe, name, float(own.mean()), low, high, sd, float(len(own))))
        return pd.DataFrame(rows, columns=SCORES)

    def pairs(self, weights: np.ndarray, sets: Mapping[str, str]) -> pd.DataFrame:
        """The rows of :attr:`LayerProbe.pairs`.

        Models against the first; the chosen layers against others, and one a phase against regular spacing.
        """
        models, rows = list(dict.fromkeys(key[0] for key in self.found)), []
        for model, place, probe in self.found:
            if model != models[0] and (models[0], place, probe) in self.found:
                pair = self._pair((models[0], place, probe), (model, place, probe), weights)
                rows.append(["model", models[0], model, place, probe, *pair])
        held = [(label, CHOSEN) for label in sets if label != CHOSEN and CHOSEN in sets]
        held += [(REGULAR, PHASE_ENDS)] if {REGULAR, PHASE_ENDS} <= {*sets} else []
        for first, second in held:
            for probe in dict.fromkeys(key[2] for key in self.found):
                keys = [(models[0], sets[label], probe) for label in (first, second)]
                if keys[0] in self.found and keys[1] in self.found:
                    pair = self._pair(keys[0], keys[1], weights)
                    rows.append(["set", first, second, sets[second], probe, *pair])
        return pd.DataFrame(rows, columns=PAIRS)

    def _pair(self, first: Key, second: Key, weights: np.ndarray) -> list[Any]:
        name = self.score.main
        one, other = (self.of(key) for key in (first, second))
        values = [measured(self.score, part)[name].mean() for part in (one, other)]
        difference, kept = self.score.paired_ends(one, other, weights)
        return [name, values[1] - values[0], *difference, float(ratio(values[1], values[0])), *kept]

    def table(self, positions: Sequence[int]) -> pd.DataFrame:
        """Everything, a row for each image, place and repetition, whose number from 0 is its `seed`."""
        parts = []
        for (model, place, probe), seeds in self.found.items():
            for seed, counted in enumerate(seeds):
                part = pd.DataFrame(counted, columns=list(self.score.statistics))
                head = {
                    "model": model,
                    "place": place,
                    "probe": probe,
                    "seed": seed,
                    "image": list(positions),
                }
                parts.append(pd.concat([pd.DataFrame(head), part], axis=1))
        return pd.concat(parts, ignore_index=True)
