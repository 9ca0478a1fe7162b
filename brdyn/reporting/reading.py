"""Which layers of a model to read: probes of each, of one a phase, and of as many at regular spacing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from brdyn.data import ImageSet
from brdyn.errors import UsageError
from brdyn.models import VisionTransformer
from brdyn.phases import Phases
from brdyn.probes import LayerProbe, probe_layers
from brdyn.probes.features import feature_width
from brdyn.probes.layer_choice import CHOSEN, PHASE_ENDS, REGULAR, SINGLE, by_held_out
from brdyn.probes.layer_result import ERRORS
from brdyn.reporting.blocks import shown_instead
from brdyn.reporting.finding import roughness
from brdyn.reporting.plan import READ, ReportSettings, heads_seconds
from brdyn.result import read
from brdyn.trajectory import Stream
from brdyn.words import interval

CLASSES = 10  # where nobody says how many
ONLY, FAVOURED = "only", "best on test"
WORDS = {
    REGULAR: "as many at regular spacing",
    CHOSEN: "the best together by held-out images",
    SINGLE: "the best alone by held-out images",
    ONLY: "the only one",
    FAVOURED: "the best alone on the test images (optimistic)",
}

# What is told of each task, before the layers: of layers side by side.
TOLD = {
    "classification": "classes read right by a linear probe of layers side by side",
    "segmentation": "mean IoU of masks by a linear head on layers side by side",
    "depth": "error of depth (RMSE, m; less is better) by a linear head on layers side by side",
}


@dataclass(frozen=True)
class Reading:
    """Some layers, and what a linear head reads from them side by side.

    Attributes
    ----------
    what : str
        How they were picked: `phase ends`, `regular`, …
    words : str
        The same for readers.
    layers : str
        `3+6+12`
    value, low, high : float
        The main score of the task, with its interval over test images.
    against : tuple of float or None
        By how much more than at regular spacing, on the same images, with the interval of the difference.
    score : str
        `accuracy`, `miou`, or an error of which less is better.
    """

    what: str
    words: str
    layers: str
    value: float
    low: float
    high: float
    against: tuple[float, float, float] | None = None
    score: str = "accuracy"

    @property
    def said(self) -> tuple[str, str]:
        """The value and its interval: `80.0%`, `[78.0%, 82.0%]`."""
        form = ".3f" if self.score in ERRORS else ".1%"
        return f"{self.value:{form}}", interval(self.low, self.high, form)

    @property
    def difference(self) -> tuple[str, str] | None:
        """To regular spacing, with its interval, in percentage points where the score is a share."""
        if self.against is None:
            return None
        times, form = (1, "+.3f") if self.score in ERRORS else (100, "+.1f")
        mean, low, high = (times * one for one in self.against)
        return f"{mean:{form}}", interval(low, high, form)


def cannot_be_probed(images: ImageSet, depth: int) -> str:
    """Why images say nothing of which of so many layers to read; empty where they may."""
    if depth == 1:
        return "of a single layer there is nothing to choose"
    if images.source.labels is None:
        return "it needs labels: images in class folders, or with a label column"
    return ""


def seconds_to_probe(model: VisionTransformer, images: ImageSet, settings: ReportSettings) -> float:
    """About how long heads take, on features that are there."""
    names = images.label_names
    classes = len(names) if names else CLASSES
    return heads_seconds(
        len(images), feature_width(model), min(classes, len(images)), model.depth, settings.of_size.probes
    )


def probe_for(
    model: VisionTransformer, images: ImageSet, phases: Phases, settings: ReportSettings, stream: Stream
) -> LayerProbe:
    """Classes by linear probes of every layer, of the best few, of one a phase, and of regular spacing.

    Raises
    ------
    UsageError
        If there are too few images of a class.
    """
    many = phases.k > 1
    found = probe_layers(
        model,
        images,
        layers=f"choose:{phases.k if many else min(READ, model.depth)}",
        phases=phases if many else None,
        seeds=settings.of_size.probes,
        seed=settings.seed,
        stream=stream,
    )
    if found is None:
        raise UsageError("probes for a report are fitted in one process; drop torchrun")
    return found


def given_probes(folders: Sequence[str], models: Sequence[VisionTransformer]) -> list[dict[str, LayerProbe]]:
    """The probes of each model, by the folder that they were read from.

    Raises
    ------
    UsageError
        If one is no result of probes of layers, or of none of the models.
    """
    found: list[dict[str, LayerProbe]] = [{} for _ in models]
    for folder in folders:
        probe = read(folder)
        if not isinstance(probe, LayerProbe):
            raise UsageError(
                f"{folder!r} is no result of probes of layers; give the folder of `brdyn probe --layers all` as `probe`"
            )
        origin = probe.provenance
        digest = None if origin is None else origin.details["model"]["digest"]
        of = [number for number, model in enumerate(models) if model.info.digest == digest]
        if not of:
            raise UsageError(
                f"the probes in {folder!r} are of {probe.models[0]!r}, which is none of the models of the report, or "
                "has other weights there; give its `model` too"
            )
        found[of[0]][folder] = probe
    return found


def words_of(what: str, phases: Phases, ends: Sequence[int] | None = None) -> str:
    """How layers were picked; the ends of a cut are not called phases where the test found none, or others.

    `ends` are those that a probe was given, where they may be of other phases.
    """
    if what != PHASE_ENDS:
        return WORDS.get(what, f"the {what}")
    if ends is not None and tuple(ends) != tuple(phases.boundaries):
        return f"the ends of the phases it was given ({', '.join(map(str, ends))})"
    shown = shown_instead(phases)
    if shown is None:
        return "the last layers of the phases"
    words = "no phases" if shown == 1 else f"{shown} phases"
    return f"the ends of the best cut into {phases.k} ({words} were shown)"


def readings(probe: LayerProbe, phases: Phases) -> list[Reading]:
    """What was compared, one a phase first; the best single layer alone where no sets of layers were."""
    rows = linear_rows(probe)
    scores = rows.set_index("place")
    sets = dict(probe.sets) or _best_alone(probe, rows[rows["place"].str.isdecimal()])
    first = (PHASE_ENDS, REGULAR, CHOSEN, SINGLE)
    found = []
    for what in sorted(sets, key=lambda what: first.index(what) if what in first else len(first)):
        layers = sets[what]
        value, low, high = (float(scores.loc[layers, name]) for name in ("value", "low", "high"))
        against = None if layers == sets.get(REGULAR) else _against(probe.pairs, what)
        found.append(Reading(what, words_of(what, phases, probe.ends), layers, value, low, high, against, probe.main))
    return found


def _best_alone(probe: LayerProbe, rows: pd.DataFrame) -> dict[str, str]:
    """The layer that held-out images choose; where they chose none, that which the test images favour."""
    if len(rows) == 1:
        return {ONLY: rows.iloc[0]["place"]}
    chosen = by_held_out(rows, probe.runs, probe.sign)
    if chosen is not None:
        return {SINGLE: chosen["place"]}
    return {FAVOURED: rows.loc[(probe.sign * rows["value"]).idxmax(), "place"]}


def linear_rows(probe: LayerProbe) -> pd.DataFrame:
    """The main score of linear heads on the model, by place."""
    scores = probe.scores
    own = scores["model"] == probe.models[0]
    return scores[own & (scores["score"] == probe.main) & (scores["probe"] == "linear")]


def _against(pairs: pd.DataFrame, what: str) -> tuple[float, float, float] | None:
    """The difference to regular spacing, where it was measured."""
    wanted = {"kind": "set", "first": REGULAR, "second": what, "probe": "linear"}
    rows = pairs[(pairs[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    if not len(rows):
        return None
    mean, low, high = (float(rows.iloc[0][name]) for name in ("difference", "low", "high"))
    return mean, low, high


def said(probe: LayerProbe, phases: Phases) -> str:
    """Which layers to read, in a sentence."""
    parts = [
        f"{one.words} {one.layers}: {' '.join(filter(None, one.said))}{_said(one)}"
        for one in readings(probe, phases)
        if one.what in (PHASE_ENDS, *WORDS)
    ]
    fit, test = probe.sizes["fit"] + probe.sizes.get("choose", 0), probe.sizes["test"]
    rough = f" ({warning})" if (warning := roughness(test)) else ""
    return f"{TOLD[probe.task]}, {fit} images to fit and {test} to test{rough}: {'; '.join(parts)}"


def _said(one: Reading) -> str:
    if one.against is None or one.difference is None:
        return ""
    mean, between = one.difference
    unit = "" if one.score in ERRORS else " points"
    verdict = "" if one.against[1] > 0 or one.against[2] < 0 else ", not told apart"
    return f" ({' '.join(filter(None, (mean + unit, between)))} against regular spacing{verdict})"
