"""What Raptors keep of the masks, the depth and the classes that are read from a ViT; and which layers to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyses.recording import OFFLINE, RESULTS, SMALL_VIT
from analyses.rules import Numbers
from analyses.statistics import Estimate, with_errors
from brdyn.probes import ClassScore, DepthScore, LayerProbe, OverlapScore, Score
from brdyn.probes.layer_choice import PHASE_ENDS, REGULAR
from brdyn.probes.scores import measured, resampled, resamples
from brdyn.raptor import Evaluation
from brdyn.raptor.evaluation import RAPTOR, TEACHER

KS = (2, 3, 4)
CLASSES, DENSE = "classes", ("masks", "depth")
DATA = {CLASSES: "caltech101", "masks": "camvid", "depth": "kitchen"}
LINEAR, LAYERS = "linear", 12


class Results(NamedTuple):
    """What is recorded: of each task and k a Raptor beside its teacher, of each task the teacher's layers; and those of
    the packaged network, which no rule judges."""

    raptors: dict[tuple[str, int], Evaluation]
    layers: dict[str, LayerProbe]
    packaged: LayerProbe | None = None

    @property
    def probed(self) -> dict[tuple[str, int], LayerProbe]:
        """What is read from the layers of each Raptor and its teacher."""
        return {key: one.layers for key, one in self.raptors.items() if one.layers is not None}


def load() -> Results:
    home, tasks = RESULTS / "probes", DATA.items()
    return Results(
        {(task, k): Evaluation.read(home / f"{OFFLINE}_k{k}_{data}") for task, data in tasks for k in KS},
        {task: LayerProbe.read(home / f"{OFFLINE}_layers_{data}") for task, data in tasks},
        LayerProbe.read(home / f"{SMALL_VIT}_layers_cifar10"),
    )


class Share(NamedTuple):
    """A score over another one of the same test images, below 1 where it is worse, also of errors: of each seed of the
    heads, of bootstrap samples of the images, and where it is a mean over Raptors of each of those."""

    seeds: np.ndarray
    again: np.ndarray
    fits: np.ndarray | None = None

    @property
    def value(self) -> float:
        return float(self.seeds.mean())

    @property
    def errors(self) -> list[tuple[float, float]]:
        """Over test images, and over seeds: standard errors and degrees of freedom."""
        return [(float(self.again.std(ddof=1)), np.inf), of_mean(self.seeds)]

    @property
    def estimate(self) -> Estimate:
        return with_errors(self.value, self.errors)

    def less(self, other: Share) -> Estimate:
        """The difference to one of other test images, of the same Raptors, whose luck is in it where they are several.

        What k does to the difference counts as luck too.
        """
        errors = [*self.errors, *other.errors]
        if self.fits is not None and other.fits is not None:
            errors.append(of_mean(self.fits - other.fits))
        return with_errors(self.value - other.value, errors)


def of_mean(values: np.ndarray) -> tuple[float, int]:
    """The standard error of a mean, which one value does not have, and its degrees of freedom."""
    return (float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else np.nan), len(values) - 1


def score_of(found: LayerProbe) -> Score:
    """By which its counts are judged."""
    if found.task == "segmentation":
        return OverlapScore([name[5:] for name in found.counted.columns if name.startswith("hits ")])
    return DepthScore() if found.task == "depth" else ClassScore()


def share(
    found: LayerProbe, one: tuple[str, str], other: tuple[str, str], probe: str = LINEAR, nothing: float = 0
) -> Share:
    """The main score of a model and place over that of another, from what was counted in each test image; of scores
    that grow both less what knowing `nothing` of an image gets."""
    score, images, parts = score_of(found), found.sizes["test"], []
    keys, weights = found.counted.set_index(["model", "place", "probe"]).sort_index(), resamples(images)
    for key in (one, other):
        rows = keys.loc[[(*key, probe)]].sort_values(["seed", "image"])
        counted = rows[list(score.statistics)].to_numpy(float).reshape(-1, images, len(score.statistics))
        parts.append((measured(score, counted)[score.main], resampled(score, counted, weights)[score.main]))
    return Share(*(((above - nothing) / (below - nothing)) ** score.sign for above, below in zip(*parts, strict=True)))


def kept(results: Results, task: str, k: int, probe: str = LINEAR, *, above_nothing: bool = False) -> Share:
    """What a Raptor keeps of the teacher's score at the last layer, or of what it has beyond knowing nothing of an
    image."""
    found = results.probed[task, k]
    place, nothing = last_of(found), nothing_of(found) if above_nothing else 0.0
    return share(found, (RAPTOR, place), (TEACHER, place), probe, nothing)


def last_of(found: LayerProbe) -> str:
    """The last place that was read."""
    return str(found.scores["place"].iloc[-1])


def nothing_of(found: LayerProbe) -> float:
    """What knowing nothing of an image gets."""
    return float(found.baseline.set_index("score")["value"].get(found.main, np.nan))


def mean_kept(results: Results, *tasks: str, above_nothing: bool = False) -> dict[str, Share]:
    """Of tasks, mean over k."""
    found = {task: [kept(results, task, k, above_nothing=above_nothing) for k in KS] for task in tasks}
    return {
        task: Share(
            np.mean([one.seeds for one in parts], 0),
            np.mean([one.again for one in parts], 0),
            np.array([one.value for one in parts]),
        )
        for task, parts in found.items()
    }


def beyond_nothing(results: Results) -> Numbers:
    """What is kept, mean over k, of what masks and classes have beyond knowing nothing of an image, and by how much
    masks lose more: a score that is had for nothing is kept whatever is lost."""
    found = mean_kept(results, CLASSES, "masks", above_nothing=True)
    return {
        "kept": {task: one.estimate for task, one in found.items()},
        "more": found[CLASSES].less(found["masks"]),
        "had": {task: nothing_of(results.probed[task, KS[0]]) for task in found},
    }


def blind(results: Results) -> list[str]:
    """Tasks whose heads on the teacher's last layer are not shown to get more than knowing nothing of an image does:
    what is kept of that tells nothing of what is kept of the teacher."""
    found = {task: one for (task, _), one in results.probed.items()}
    return [task for task, one in found.items() if not one.beats_baseline(last_of(one), LINEAR, TEACHER)]


def judged(
    name: str, shown: Mapping[str, Estimate], unseen: Sequence[str], hidden: Sequence[str] = (), **more: Any
) -> Numbers:
    """Numbers by task as they are `shown`, and by a name for the rule, without those of tasks whose heads may know
    nothing of an image, which are said after them, and of `hidden` ones."""
    told = f"; heads of {', '.join(unseen)} are not shown to beat knowing nothing of an image"
    seeing = {task: Estimate(np.nan) if task in (*unseen, *hidden) else one for task, one in shown.items()}
    return {name: seeing, "shown": shown, "blind": told if unseen else "", **more}


def dense_loses_more(results: Results) -> Numbers:
    """The share of the teacher's score that is lost on a dense task less that lost of accuracy, mean over k: of none
    where heads of classes see nothing."""
    mean, unseen = mean_kept(results, CLASSES, *DENSE), blind(results)
    shown = {task: mean[CLASSES].less(mean[task]) for task in DENSE}
    lost = {task: 1 - one.value for task, one in mean.items()}
    return judged("excess", shown, unseen, DENSE if CLASSES in unseen else (), lost=lost)


def four_over_three(results: Results) -> Numbers:
    """What k = 4 keeps beyond k = 3 on the dense tasks, and of classes: of one fit each, whose luck no interval has."""
    gain = {task: Estimate(kept(results, task, 4).value - kept(results, task, 3).value) for task in DATA}
    of_classes = gain.pop(CLASSES)
    return judged("gain", gain, blind(results), of_classes=of_classes)


def phase_ends(results: Results) -> Numbers:
    """The score read from the ends of phases over that of as many layers at regular distances, less 1."""
    shown, unseen = {}, []
    for task, found in results.layers.items():
        ends, regular = ((found.models[0], found.sets[name]) for name in (PHASE_ENDS, REGULAR))
        shown[task] = _over(share(found, ends, regular))
        if not any(found.beats_baseline(place, LINEAR, model) for model, place in (ends, regular)):
            unseen.append(task)
    places = results.layers[CLASSES].sets
    return judged("gain", shown, unseen, ends=places[PHASE_ENDS], regular=places[REGULAR])


def table(results: Results) -> list[dict[str, Any]]:
    """Of each task and k that is recorded: how faithful the Raptor is on images of the task, what it and its teacher
    get, and what is kept."""
    rows = []
    for (task, k), found in results.probed.items():
        place, fidelity = last_of(found), results.raptors[task, k].fidelity
        r2 = float(fidelity.curve("r2", "all").iloc[-1])
        of_fit = {"task": task, "k": k, "r2": r2, "score": found.words[found.main]}
        for probe in found.probes:
            scores = {name: found.value(found.main, place, probe, name) for name in (TEACHER, RAPTOR)}
            rows.append({**of_fit, "probe": probe, **scores, "kept": kept(results, task, k, probe).estimate})
    return rows


class Read(NamedTuple):
    """What was read from the layers of a network: by whom, of what."""

    network: str
    task: str
    found: LayerProbe

    @property
    def score(self) -> str:
        return self.found.words[self.found.main]

    @property
    def nothing(self) -> float:
        return nothing_of(self.found)

    @property
    def values(self) -> list[float]:
        """Scores of linear heads on each layer alone."""
        return [self.found.value(self.found.main, place) for place in map(str, range(1, LAYERS + 1))]

    @property
    def best(self) -> int:
        """The layer of the best, from 1."""
        return 1 + int(np.argmax(score_of(self.found).sign * np.array(self.values)))

    @property
    def sets(self) -> list[dict[str, Any]]:
        """Layers that were read together, the chosen ones and what people read instead, each over regular ones."""
        found, model = self.found, self.found.models[0]
        sets = {label: place for label, place in found.sets.items() if "+" in place}
        over = {
            label: _over(share(found, (model, place), (model, found.sets[REGULAR])))
            for label, place in sets.items() if label != REGULAR
        }  # fmt: skip
        return [
            {"label": label, "place": place, "value": found.value(found.main, place), "over": over.get(label)}
            for label, place in sets.items()
        ]


def _over(one: Share) -> Estimate:
    return Share(one.seeds - 1, one.again - 1).estimate


def read(results: Results) -> list[Read]:
    """Everything that was read layer by layer."""
    rows = [Read(OFFLINE, task, found) for task, found in results.layers.items()]
    return rows + ([Read(SMALL_VIT, "CIFAR-10", results.packaged)] if results.packaged else [])


def by_class(results: Results) -> pd.DataFrame:
    """IoU of each class on the masks: a row for each, columns for the teacher and each Raptor."""
    columns = {}
    for (task, k), found in results.probed.items():
        if task == "masks":
            rows = found.classes.query("probe == @LINEAR and pixels > 0").set_index("class")
            for model, name in ((TEACHER, TEACHER), (RAPTOR, f"k = {k}")):
                columns[name] = rows.loc[rows["model"] == model, "iou"]
    return pd.DataFrame(columns)
