"""Which layers of a model to read: probes of each, of one a phase, and of as many at regular spacing."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from brdyn.data import ImageSet
from brdyn.errors import UsageError
from brdyn.models import VisionTransformer
from brdyn.phases import Phases
from brdyn.probes import LayerProbe, probe_layers
from brdyn.probes.features import feature_width
from brdyn.probes.layer_choice import CHOSEN, PHASE_ENDS, REGULAR, SINGLE
from brdyn.reporting.finding import FEW
from brdyn.reporting.plan import READ, ReportSettings, heads_seconds
from brdyn.trajectory import Stream

CLASSES = 10  # where nobody says how many
WORDS = {
    REGULAR: "as many at regular spacing",
    CHOSEN: "the best together by held-out images",
    SINGLE: "the best alone",
}


@dataclass(frozen=True)
class Reading:
    """Some layers, and how many classes a linear probe reads right from them side by side.

    Attributes
    ----------
    what : str
        How they were picked: `phase ends`, `regular`, …
    words : str
        The same for readers.
    layers : str
        `3+6+12`
    accuracy, low, high : float
        A share, with its interval over test images.
    against : tuple of float or None
        By how much more than at regular spacing, on the same images, with the interval of the difference.
    """

    what: str
    words: str
    layers: str
    accuracy: float
    low: float
    high: float
    against: tuple[float, float, float] | None = None


def cannot_be_probed(images: ImageSet) -> str:
    """Why images say nothing of which layers to read; empty where they may."""
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


def words_of(what: str, phases: Phases) -> str:
    """How layers were picked; the ends of a cut are not called phases where the test found none, or others."""
    if what != PHASE_ENDS:
        return WORDS.get(what, f"the {what}")
    evidence = phases.evidence
    if evidence is None or [one.layer for one in evidence.boundaries] == list(phases.boundaries):
        return "the last layers of the phases"
    shown = "no phases" if evidence.k == 1 else f"{evidence.k} phases"
    return f"the ends of the best cut into {phases.k} ({shown} were shown)"


def readings(probe: LayerProbe, phases: Phases) -> list[Reading]:
    """What was compared, one a phase first."""
    scores = linear_rows(probe).set_index("place")
    first = (PHASE_ENDS, REGULAR, CHOSEN, SINGLE)
    found = []
    for what in sorted(probe.sets, key=lambda what: first.index(what) if what in first else len(first)):
        layers = probe.sets[what]
        value, low, high = (float(scores.loc[layers, name]) for name in ("value", "low", "high"))
        against = None if layers == probe.sets[REGULAR] else _against(probe.pairs, what)
        found.append(Reading(what, words_of(what, phases), layers, value, low, high, against))
    return found


def linear_rows(probe: LayerProbe) -> pd.DataFrame:
    """The accuracy of linear probes, by place."""
    scores = probe.scores
    return scores[(scores["score"] == probe.main) & (scores["probe"] == "linear")]


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
        f"{one.words} {one.layers}: {one.accuracy:.1%} [{one.low:.1%}, {one.high:.1%}]{_said(one.against)}"
        for one in readings(probe, phases)
        if one.what in (PHASE_ENDS, *WORDS)
    ]
    fit, test = (probe.sizes[name] for name in ("fit", "test"))
    rough = " (intervals are rough)" if test < FEW else ""
    return (
        f"classes read right by a linear probe of layers side by side, {fit} images to fit and {test} to test{rough}: "
        f"{'; '.join(parts)}"
    )


def _said(against: tuple[float, float, float] | None) -> str:
    if against is None:
        return ""
    mean, low, high = (100 * value for value in against)
    verdict = "" if low > 0 or high < 0 else ", not told apart"
    return f" ({mean:+.1f} points [{low:+.1f}, {high:+.1f}] against regular spacing{verdict})"
