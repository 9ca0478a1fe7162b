"""Phases of trained networks by the test, and the published ones of DINOv2."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from analyses import phase_test, published_matrix
from analyses.recording import OFFLINE, RESULTS
from analyses.rules import Numbers
from analyses.statistics import Estimate
from brdyn import Phases, read
from brdyn.phases import Evidence, phase_evidence
from brdyn.phases.evidence import LEAST_RATIO

DINOV2 = "DINOv2 ViT-B/14 with registers"
TWINS = tuple(f"{OFFLINE}_random{seed}" for seed in range(3))
LAYERS = 12


class Results(NamedTuple):
    """Recorded phases by network, trained and untrained, what is recorded of the published matrix, and how often the
    test finds blocks: rows of :mod:`analyses.phase_test`."""

    trained: dict[str, Phases]
    untrained: dict[str, Phases]
    published: dict[str, Any]
    power: list[dict[str, Any]]

    def found(self, jump: int) -> str:
        """How often the test finds blocks in 12 layers whose steps are so many times their neighbours: `60 to 70%`."""
        shares = [row["test"] for row in self.power if (row["layers"], row["jump"]) == (LAYERS, jump)]
        return f"{100 * min(shares):.0f} to {max(shares):.0%}"


def load() -> Results:
    published = published_matrix.read()
    trained = {OFFLINE: recorded(OFFLINE), DINOV2: published["phases"]}
    return Results(trained, {name: recorded(name) for name in TWINS}, published, phase_test.read_rows(phase_test.POWER))


def recorded(name: str) -> Phases:
    """Recorded phases, judged by the test as it is today."""
    found = read(RESULTS / "phases" / name)
    assert isinstance(found, Phases)
    assert found.similarity is not None
    return replace(found, evidence=phase_evidence(1 - found.similarity.matrix))


def evidence_of(phases: Phases) -> Evidence:
    assert phases.evidence is not None
    return phases.evidence


def supported(results: Results) -> Numbers:
    """How many phases the test supports, and what describes the cuts: more than a drift's, into 2 to 4."""
    evidence = {name: evidence_of(phases) for name, phases in results.trained.items()}
    return {
        "step": {name: tested(one) for name, one in evidence.items()},
        "k": {name: one.k for name, one in evidence.items()},
        "largest": {name: one.largest for name, one in evidence.items()},
        "points": {name: points(phases) for name, phases in results.trained.items()},
        "twins": sum(evidence_of(phases).k > 1 for phases in results.untrained.values()),
        "of": len(results.untrained), "rounding": results.published["rounding"],
    }  # fmt: skip


def tested(evidence: Evidence) -> Estimate:
    """The largest step, with the p-value of the test: 1 of one too small to end a phase, however little others vary."""
    largest = evidence.largest
    if largest is None:
        return Estimate(np.nan)
    return Estimate(largest.t, p_value=largest.p if largest.ratio >= LEAST_RATIO else 1.0)


def points(phases: Phases) -> dict[str, float]:
    """By how many points of the dissimilarity the best cuts into 2 to 4 exceed those of a drift."""
    cuts = {k: phases.segmentations[k] for k in (2, 3, 4)}
    return {f"k={k}": 100 * (one.cut_share - one.drift_share) for k, one in cuts.items()}


def published_boundaries(results: Results) -> Numbers:
    """Of DINOv2's published matrix, by the published algorithm."""
    return {**_cuts(results, "bisection"), "draws": results.published["draws"]}


def published_are_best(results: Results) -> Numbers:
    """Whether the published boundaries are those of the largest cut into contiguous phases."""
    behind = [
        Estimate(*(100 * value for value in (one["behind"], *one["behind_interval_95"])))
        for one in results.published["cuts"].values()
    ]
    found = _cuts(results, "exact")
    return {**found, "behind": max(behind, key=lambda one: one.value), "draws": results.published["draws"]}


def _cuts(results: Results, method: str) -> dict[str, Any]:
    cuts = {f"k={k}": one for k, one in results.published["cuts"].items()}
    return {
        "found": {k: one[method] for k, one in cuts.items()},
        "published": {k: one["published"] for k, one in cuts.items()},
        "same": {k: one[f"{method}_as_published"] for k, one in cuts.items()},
    }
