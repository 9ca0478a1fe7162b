"""What probes read at each layer: scores with intervals over test images, pairs on the same images, and examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from brdyn.errors import BrdynError
from brdyn.measures.intervals import told_apart
from brdyn.probes.baselines import BASELINE, NAMES
from brdyn.probes.counts import PAIRS, SCORES
from brdyn.probes.layer_choice import CHOSEN, KEY, by_held_out
from brdyn.provenance import Provenance, images_of, skipped_of
from brdyn.result import Result
from brdyn.safetensors_file import fault
from brdyn.store import read_table, records, rows_of
from brdyn.words import counted as number_of

NUMBER = (float, None)
RUNS = [*KEY, "seed", "penalty", "epoch", "held_out"]
CLASSES = [*KEY, "class", "iou", "pixels"]
COUNTED, EXAMPLES = "per_image.parquet", "examples.safetensors"
FEWEST = 6  # images: of fewer, even if all are for it, a two-sided sign test never gets below 5 %
OPTIMISTIC = (
    "the epoch was chosen on the test images, as in the published protocol: these scores are optimistic, and for "
    "comparison with published ones alone"
)
AUGMENTED = "heads were trained on random crops and flips, with the backbone in the loop"
ERRORS = ("rmse", "absrel")  # of which less is better


@dataclass(frozen=True, eq=False, repr=False)
class LayerProbe(Result):
    """What probes read from the layers of one or several models.

    Attributes
    ----------
    task : {"classification", "segmentation", "depth"}
    scores : DataFrame
        A row for each `model`, `place` (layers: `7`, or `4+8+12` side by side), `probe` and `score`: its `value`, mean
        over seeds; `low` and `high`, its 95 % interval over test images (Wilson's of accuracies, else of a Bayesian
        bootstrap); `sd` over seeds.
    pairs : DataFrame
        Two models at one place, or two places of one model, on the same test images: `difference` and `ratio` of the
        main score, second to first, with intervals; no ratio to a score of 0.
    runs : DataFrame
        The `penalty` and `epoch` of each repetition (`seed`: its number from 0; its seed is that of the run plus
        this), and `held_out`, the main score on the images that chose: NaN of k-NN, in old results, and of test images.
    classes : DataFrame
        IoU of each class, of segmentation.
    sets : mapping of str to str
        Places that were compared, by what they are (`chosen`, `last 4`, `regular`, `phase ends`).
    words : mapping of str to str
        What scores are called; the main one is first.
    notes : tuple of str
        What a reader has to know, such as that the protocol is optimistic.
    sizes : mapping of str to int
        Images to `fit`, to `choose` by, to `test`.
    ends : tuple of int or None
        Boundaries of phases, to mark.
    counted : DataFrame
        What was counted in each test image; `seed` as in `runs`.
    examples : mapping of str to ndarray
        The worst, the middle and the best test image of the first model: `image`, `truth`, and what each model says.
    images : mapping
        Which images were for `train` and `test`.
    baseline : DataFrame
        What knowing nothing of an image gets on the test images, :data:`brdyn.probes.baselines.NAMES`: a row for each
        `score`, its `value`, and its interval, `low` and `high`. Empty in results of earlier versions.

    Examples
    --------
    >>> from brdyn.probes import probe_layers
    >>> learning, testing = images.split(2, seed=0)
    >>> found = probe_layers(model, learning, testing, layers="3,12", seeds=1)
    >>> found.table("accuracy").index.tolist(), found.sizes
    (['3', '12'], {'fit': 6, 'test': 2})
    """

    FILE: ClassVar[str] = "layer_probe.json"
    SHAPE: ClassVar[Mapping[str, Any]] = {
        "task": str,
        "scores": [dict.fromkeys(SCORES[:4], str) | dict.fromkeys(SCORES[4:], NUMBER)],
        "pairs": [dict.fromkeys(PAIRS[:6], str) | dict.fromkeys(PAIRS[6:], NUMBER)],
        "runs": [dict.fromkeys(KEY, str) | {"seed": int, "penalty": NUMBER, "epoch": NUMBER, "held_out?": NUMBER}],
        "classes": [dict.fromkeys(CLASSES[:4], str) | dict.fromkeys(CLASSES[4:], NUMBER)],
        "sets": {str: str},
        "words": {str: str},
        "notes": [str],
        "baseline?": [{"score": str} | dict.fromkeys(BASELINE[1:], NUMBER)],
        "sizes": {str: int},
        "ends": ([int], None),
        "probe_images": dict,
    }
    TIMED: ClassVar[bool] = False
    RUN_ON: ClassVar[str] = "training"

    task: str
    scores: pd.DataFrame
    pairs: pd.DataFrame
    runs: pd.DataFrame
    classes: pd.DataFrame
    sets: Mapping[str, str]
    words: Mapping[str, str]
    notes: tuple[str, ...]
    sizes: Mapping[str, int]
    counted: pd.DataFrame
    ends: tuple[int, ...] | None = None
    examples: Mapping[str, np.ndarray] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)
    baseline: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=BASELINE))

    @property
    def depth(self) -> int:
        """The number of layers of the model; the last layer that was read alone where that is not known."""
        if isinstance(self.provenance, Provenance):
            return int(self.provenance.details["model"]["layers"])
        return max(map(int, filter(str.isdecimal, self.scores["place"])), default=0)

    def content(self) -> dict[str, Any]:
        """Everything but the tables and examples in files of their own."""
        tables = {name: records(getattr(self, name)) for name in ("scores", "pairs", "runs", "classes")}
        return {
            "task": self.task,
            "sizes": dict(self.sizes),
            "notes": list(self.notes),
            "words": dict(self.words),
            "sets": dict(self.sets),
            "ends": None if self.ends is None else list(self.ends),
            **tables,
            "baseline": records(self.baseline),
            "probe_images": dict(self.images),
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """What was counted in each test image."""
        return {COUNTED: self.counted}

    def others(self) -> dict[str, bytes]:
        """The examples."""
        if not self.examples:
            return {}
        return {EXAMPLES: save({name: torch.from_numpy(one).contiguous() for name, one in self.examples.items()})}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from a layer_probe.json and the files beside it."""
        columns = {"scores": SCORES, "pairs": PAIRS, "runs": RUNS, "classes": CLASSES}
        tables = {name: pd.DataFrame(content[name], columns=wanted) for name, wanted in columns.items()}
        for name, plain in (("scores", 4), ("pairs", 6), ("runs", 4), ("classes", 4)):
            tables[name] = tables[name].astype(dict.fromkeys(columns[name][plain:], float))
        baseline = pd.DataFrame(content.get("baseline", []), columns=BASELINE)
        return cls(
            task=content["task"],
            **tables,
            sets=content["sets"],
            words=content["words"],
            notes=tuple(content["notes"]),
            sizes=content["sizes"],
            counted=read_table(folder / COUNTED, "a table of counts by image", KEY),
            baseline=baseline.astype(dict.fromkeys(BASELINE[1:], float)),
            ends=None if content["ends"] is None else tuple(content["ends"]),
            examples=_examples(folder / EXAMPLES),
            images=content["probe_images"],
        )

    @property
    def caption(self) -> str:
        """On how many images heads were fitted and tested, and whether that is optimistic."""
        origin = self.provenance
        size = None if origin is None else origin.details["model"]["image_size"]
        learnt = self.sizes["fit"] + self.sizes.get("choose", 0)
        chosen = "; optimistic: chosen on the test images" if self.optimistic else ""
        return f"fitted on {learnt:,} and tested on {images_of(self.sizes['test'], size)}{chosen}"

    @property
    def optimistic(self) -> bool:
        """Whether epochs were chosen on the test images, as in the published protocol."""
        return OPTIMISTIC in self.notes

    @property
    def main(self) -> str:
        """The score by which things are compared."""
        return next(iter(self.words))

    @property
    def models(self) -> list[str]:
        """In the order they were given."""
        return list(dict.fromkeys(self.scores["model"]))

    @property
    def probes(self) -> list[str]:
        """Kinds of heads."""
        return list(dict.fromkeys(self.scores["probe"]))

    def table(self, score: str, probe: str = "linear", model: str | None = None) -> pd.Series:
        """A score by place, of a model (the first by default). Raises UsageError if there is no such score, probe or
        model."""
        return self._rows(score, probe, model).set_index("place")["value"]

    def value(self, score: str, place: str, probe: str = "linear", model: str | None = None) -> float:
        """A score of a model (the first by default) at a place. Raises UsageError if there is none."""
        return float(rows_of(self._rows(score, probe, model), place=place)["value"].iloc[0])

    def _rows(self, score: str, probe: str, model: str | None) -> pd.DataFrame:
        chosen = self.models[0] if model is None else model
        return rows_of(self.scores, model=chosen, score=score, probe=probe)

    def answer(self) -> str:
        """The place that held-out images chose, by the main score on the test images, and what these favour.

        Last what knowing nothing of an image gets.
        """
        rows = self.scores[self.scores["score"] == self.main]
        held, favoured, alone = [], [], True
        for model in self.models:
            own = rows[rows["model"] == model]
            alone &= len(own) == 1
            best = own.loc[(self.sign * own["value"]).idxmax()]
            if model == self.models[0] and CHOSEN in self.sets:  # by linear heads
                own = own[(own["place"] == self.sets[CHOSEN]) & (own["probe"] == "linear")]
            if (chosen := by_held_out(own, self.runs, self.sign)) is not None:
                held.append(self._at(chosen))
            if chosen is None or chosen["value"] != best["value"]:
                favoured.append(self._at(best))
        task = f"{self.task} (optimistic)" if self.optimistic else self.task
        parts = [f"{task}, {number_of(len(self._places()), 'place')}" if len(self._places()) > 1 else task]
        if held:
            parts[0] += f"{'' if alone else ', chosen on held-out images'}: {'; '.join(held)}"
        if favoured:
            parts.append(f"the best on the test images (optimistic): {'; '.join(favoured)}")
        if not self.baseline.empty:
            parts.append(f"{NAMES[self.task]} alone gets {self._number(self.main, self._blind)}")
        return "; ".join(parts)

    @property
    def sign(self) -> int:
        """1 where more of the main score is better, -1 where less is."""
        return -1 if self.main in ERRORS else 1

    def _at(self, row: pd.Series) -> str:
        """Where, by what, and how well."""
        by = f" by {row['probe']}" if len(self.probes) > 1 else ""
        return f"{row['model']} at {self._named(row['place'])}{by}: {self._scored(row)}"

    def overview(self) -> list[dict[str, Any]]:
        """Every place of every model, with every score."""
        rows = []
        for (model, probe, place), own in self.scores.groupby(["model", "probe", "place"], sort=False):
            row: dict[str, Any] = {"model": model, "probe": probe, "place": self._named(str(place))}
            values = own.set_index("score")
            row |= {words: float(values.loc[score, "value"]) for score, words in self.words.items()}
            main = values.loc[self.main]
            rows.append(row | {"from": float(main["low"]), "to": float(main["high"])})
        return rows

    def numbers(self) -> dict[str, Any]:
        """The main score of each layer and of each set of layers, so that those of other models stand beside it."""
        found = {}
        for row in self.scores[self.scores["score"] == self.main].to_dict(orient="records"):
            place = str(row["place"])
            labels = [label for label, own in self.sets.items() if own == place]
            model = [row["model"]] if len(self.models) > 1 else []
            for where in [f"layer {place}", *labels] if place.isdecimal() else labels or [f"layers {place}"]:
                found[f"{', '.join([*model, row['probe'], where])}: {self.words[self.main]}"] = row["value"]
        if not self.baseline.empty:
            found[f"{NAMES[self.task]} alone: {self.words[self.main]}"] = self._blind
        return found

    def alike(self) -> dict[str, Any]:
        """Also the images that were tested on, and what chose how long heads were trained."""
        details = {} if self.provenance is None else self.provenance.details
        tested = self.images.get("test", {})
        return super().alike() | {"test images": tested.get("digest"), "protocols": details.get("protocol")}

    @property
    def measured(self) -> str:
        """The task."""
        return self.task

    def remarks(self) -> list[str]:
        """How many images, what was compared, and what to know of the scores."""
        sets = {"train": self.RUN_ON, "test": "test"}
        if self.provenance is not None:  # which names what was skipped of these
            del sets["train"]
        parts = ((self.images.get(name) or {}, images) for name, images in sets.items())
        lines = [line for part, images in parts for line in skipped_of(part, images)]
        sizes = self.sizes
        by = f", {sizes['choose']} to choose penalty and epoch by" if sizes.get("choose") else ""
        lines.append(f"{sizes['fit']} images to fit heads on{by}, {sizes['test']} test images")
        if not self.baseline.empty:
            lines += self._against_baseline()
        if open_ := [one for one in self._layers_alone() if not told_apart(*one[1])]:
            said = "; ".join(name for name, _ in open_)
            lines.append(
                "too few test images to tell layers apart (intervals of the largest and the least "
                f"{self.words[self.main]} meet): {said}"
            )
        lines += [f"note: {note}" for note in self.notes]
        return lines + [self._compared(row) for row in self.pairs.to_dict(orient="records")]

    @property
    def _blind(self) -> float:
        """The main score of the baseline."""
        return float(self.baseline.set_index("score").loc[self.main, "value"])

    def beats_baseline(self, place: str, probe: str = "linear", model: str | None = None) -> bool:
        """Whether the whole interval of a place's main score is better than what knowing nothing of an image gets.

        False also of fewer than `FEWEST` test images, and of results of earlier versions, which have no baseline.
        """
        if self.baseline.empty or self.sizes["test"] < FEWEST:
            return False
        row = rows_of(self._rows(self.main, probe, model), place=place).iloc[0]
        end = row["high" if self.main in ERRORS else "low"]
        worst = end if np.isfinite(end) else row["value"]  # of images that are all alike
        return bool(self.sign * worst > self.sign * self._blind)

    def _against_baseline(self) -> Iterator[str]:
        """All scores of the baseline, and which heads are not shown to be above it."""
        scores = ", ".join(self._scored(row) for row in self.baseline.to_dict(orient="records"))
        yield f"{NAMES[self.task]}, whatever the image: {scores}"
        said = []
        for model in self.models:
            for probe in self.probes:
                own = self._rows(self.main, probe, model)["place"].tolist()
                places = [place for place in own if not self.beats_baseline(place, probe, model)]
                if places:
                    where = "every place" if len(places) == len(own) else ", ".join(map(self._named, places))
                    said.append(f"{model}, {probe} at {where}")
        if said:
            yield f"not shown to be better than that: {'; '.join(said)}"

    def _layers_alone(self) -> Iterator[tuple[str, list[pd.Series]]]:
        """Each model and probe of several layers: the main score of each alone, with its interval."""
        for model in self.models:
            for probe in self.probes:
                rows = self._rows(self.main, probe, model)
                rows = rows[rows["place"].str.isdecimal()]
                if len(rows) > 1:
                    yield f"{model}, {probe}", [rows[name] for name in ("value", "low", "high")]

    def _places(self) -> list[str]:
        return list(dict.fromkeys(self.scores["place"]))

    def _named(self, place: str) -> str:
        labels = [label for label, own in self.sets.items() if own == place]
        what = "layers" if "+" in place else "layer"
        return f"{what} {place}" + (f" ({', '.join(labels)})" if labels else "")

    def _scored(self, row: Mapping[Any, Any]) -> str:
        """A score in words, with its interval where there is one."""
        value, *ends = (self._number(row["score"], row[name]) for name in ("value", "low", "high"))
        interval = f" ({' to '.join(ends)})" if np.isfinite(row["low"]) else ""
        return f"{self.words[row['score']]} {value}{interval}"

    def _number(self, score: str, value: float) -> str:
        return f"{value:.3f}" if score in ERRORS else f"{value:.1%}"

    def _compared(self, row: Mapping[Any, Any]) -> str:
        words = self.words[row["score"]]
        if row["kind"] == "model":
            who = f"{row['second']} at layer {row['place']} ({row['probe']})"
            if not np.isfinite(row["ratio"]):
                return f"{who}: no share of the {words} of {row['first']}, which is 0"
            low, high = row["ratio_low"], row["ratio_high"]
            ends = f" ({low:.1%} to {high:.1%})" if np.isfinite(low) else ""
            return f"{who}: {words} {row['ratio']:.1%} of that of {row['first']}{ends}"
        low, high = (self._points(row["score"], row[name]) for name in ("low", "high"))
        ends = f" ({low} to {high})" if np.isfinite(row["low"]) else ""
        return (
            f"{row['second']} ({row['place']}, {row['probe']}) against {row['first']}: {words} "
            f"{self._points(row['score'], row['difference'])}{ends}"
        )

    def _points(self, score: str, value: float) -> str:
        return f"{value:+.3f}" if score in ERRORS else f"{100 * value:+.1f} points"

    def brief(self) -> str:
        """Task, models, layers."""
        places = self._places()
        return f"{self.task} of {', '.join(self.models)} at {', '.join(places)}"


def _examples(path: Path) -> dict[str, np.ndarray]:
    """What :meth:`LayerProbe.others` wrote, where it did."""
    if not path.is_file():
        return {}
    try:
        return {name: one.numpy() for name, one in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise BrdynError(f"cannot read {str(path)!r} as safetensors ({fault(path, error)})") from error
