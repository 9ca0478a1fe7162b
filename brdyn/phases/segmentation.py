"""Phases of a network's depth: the best segmentation for every k, how many, and how sure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from brdyn.arguments import checked
from brdyn.compared import Compared
from brdyn.errors import UsageError
from brdyn.phases.evidence import Evidence
from brdyn.phases.matrices import check_total, differ, of_layers
from brdyn.phases.maxcut import best_segmentations, check_size, k_best_segmentations, random_moments

MIN_GAIN = 0.05
ALTERNATIVES = 5
METHODS = ("contiguous", "recursive")
TEST = "test"
DEFAULT_EPS = 0.1


@dataclass(frozen=True)
class Alternative:
    """One of the best segmentations into k phases: its boundaries, its cut, and how far that is from the best.

    >>> found = brdyn.segment(np.kron(np.eye(2), np.ones((2, 2)))).chosen
    >>> [(other.boundaries, other.gap) for other in found.alternatives]
    [((2,), 0.0), ((1,), 2.0), ((3,), 2.0)]
    """

    boundaries: tuple[int, ...]
    cut: float
    gap: float


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation(Compared):
    """The best segmentation into k contiguous phases.

    Attributes
    ----------
    k : int
    boundaries : tuple of int
        Last layer (from 1) of every phase but the last.
    cut : float
        Sum of D over pairs of layers in different phases.
    cut_share : float
        The cut over the total of D.
    gain : float
        What the k-th phase adds to `cut_share`.
    drift_share : float
        `cut_share` of the best segmentation of a structureless drift with the same mean D at every distance.
    stability : tuple of float or None
        For each boundary, the share of bootstrap samples whose best k-segmentation has it at this very layer.
    alternatives : tuple of Alternative
        The best segmentations, this one first.
    z : float or None
        Standard deviations by which the cut exceeds the mean over all contiguous k-segmentations; None
        where there is only one, or all are equal.

    Examples
    --------
    >>> found = brdyn.segment(np.kron(np.eye(2), np.ones((3, 3)))).segmentations[2]
    >>> found.boundaries, found.cut, found.cut_share
    ((3,), 9.0, 1.0)
    """

    k: int
    boundaries: tuple[int, ...]
    cut: float
    cut_share: float
    gain: float
    drift_share: float
    stability: tuple[float, ...] | None
    alternatives: tuple[Alternative, ...]
    z: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "boundaries": list(self.boundaries),
            "cut": self.cut,
            "cut_share": self.cut_share,
            "gain": self.gain,
            "drift_share": self.drift_share,
            "stability": list(self.stability) if self.stability is not None else None,
            "alternatives": [
                {"boundaries": list(other.boundaries), "cut": other.cut, "gap": other.gap}
                for other in self.alternatives
            ],
            "z": self.z,
        }

    @classmethod
    def from_dict(cls, k: int, values: Mapping[str, Any]) -> Segmentation:
        """Read what :meth:`to_dict` wrote."""
        stability = values["stability"]
        return cls(
            k=k,
            boundaries=tuple(values["boundaries"]),
            cut=values["cut"],
            cut_share=values["cut_share"],
            gain=values["gain"],
            drift_share=values["drift_share"],
            stability=tuple(stability) if stability is not None else None,
            alternatives=tuple(
                Alternative(tuple(other["boundaries"]), other["cut"], other["gap"]) for other in values["alternatives"]
            ),
            z=values["z"],
        )


@checked
def check_request(
    k: int | str | None,
    layers: int,
    min_size: int = 1,
    method: str = "contiguous",
    name: str = "this model",
    *,
    min_gain: float = MIN_GAIN,
    eps: float = DEFAULT_EPS,
) -> None:
    """Refuse a segmentation that `layers` layers cannot have; cheap, so that it can be asked before any work.

    Raises
    ------
    UsageError
        Naming what would do.

    Examples
    --------
    >>> from brdyn.phases import check_request
    >>> check_request(3, layers=12)
    >>> check_request(15, layers=12, name="'dinov2_vits14'")
    Traceback (most recent call last):
    ...
    brdyn.errors.UsageError: k=15 phases need at least 15 layers; 'dinov2_vits14' has 12
    """
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    check_shares(min_gain, eps)
    check_size(min_size, layers, name)
    if k is None or k == TEST:
        return
    if isinstance(k, str):
        raise UsageError(f"k={k!r} is neither a number of phases nor {TEST!r}")
    if k < 1:
        raise UsageError(f"k={k} phases make no sense; use 1 to {layers // min_size}")
    if k * min_size > layers:
        each = f" of at least {min_size} layers" if min_size > 1 else ""
        raise UsageError(f"k={k} phases{each} need at least {k * min_size} layers; {name} has {layers}")


def check_shares(min_gain: float, eps: float) -> None:
    """Refuse what is no share of the dissimilarity."""
    for title, share in (("min_gain", min_gain), ("eps", eps)):
        if not 0 <= share <= 1:
            raise UsageError(f"{title}={share} is not a share of the dissimilarity, from 0 to 1")


@checked
def boundary_frequency(replicates: np.ndarray, min_size: int = 1) -> np.ndarray:
    """How often each layer ends a phase over bootstrap samples of D, `(R, L, L)` to `(K, L - 1)`.

    >>> from brdyn.phases import boundary_frequency
    >>> early, late = (1 - (parts[:, None] == parts) for parts in np.array([[0, 1, 1, 1], [0, 0, 1, 1]]))
    >>> boundary_frequency(np.stack([early, late, late, late]))[1].tolist()  # of two phases
    [0.25, 0.75, 0.0]
    """
    replicates = of_layers(replicates, "bootstrap replicates", leading=1)
    layers = replicates.shape[-1]
    _, boundaries = best_segmentations(replicates, min_size)
    frequency = np.zeros((len(boundaries), max(layers - 1, 0)))
    for row, chosen in zip(frequency, boundaries, strict=True):
        if chosen.size:
            row += np.bincount(chosen.ravel(), minlength=layers)[1:layers] / len(replicates)
    return frequency


@checked
def drift_reference(dissimilarity: np.ndarray) -> np.ndarray:
    """A structureless twin of D: every entry replaced by the mean of D at the same distance in depth.

    >>> from brdyn.phases import drift_reference
    >>> drift_reference(np.array([[0, 1, 4], [1, 0, 3], [4, 3, 0]])).tolist()
    [[0.0, 2.0, 4.0], [2.0, 0.0, 2.0], [4.0, 2.0, 0.0]]
    """
    dissimilarity = of_layers(dissimilarity, "dissimilarity")
    layers = len(dissimilarity)
    means = np.array([np.diagonal(dissimilarity, offset).mean() for offset in range(layers)])
    distance = np.abs(np.arange(layers)[:, None] - np.arange(layers)[None])
    return means[distance]


def all_segmentations(
    dissimilarity: np.ndarray, min_size: int, frequency: np.ndarray | None
) -> tuple[dict[int, Segmentation], float]:
    total = float(np.triu(dissimilarity, k=1).sum())
    check_total(total, len(dissimilarity))
    ranked = k_best_segmentations(dissimilarity, ALTERNATIVES, min_size)
    moments = random_moments(dissimilarity, min_size)
    drift, _ = best_segmentations(drift_reference(dissimilarity), min_size)
    scale = total if differ(dissimilarity) else 1.0
    segmentations: dict[int, Segmentation] = {}
    previous = 0.0
    for k, paths in enumerate(ranked, start=1):
        within, boundaries = paths[0]
        cut = total - within
        deviation = moments.std[k - 1]
        stability = None
        if frequency is not None:
            stability = tuple(float(frequency[k - 1, layer - 1]) for layer in boundaries)
        segmentations[k] = Segmentation(
            k=k,
            boundaries=boundaries,
            cut=cut,
            cut_share=cut / scale,
            gain=(cut - previous) / scale,
            drift_share=float((total - drift[k - 1]) / scale),
            stability=stability,
            alternatives=tuple(Alternative(other, total - value, value - within) for value, other in paths),
            z=float((moments.mean[k - 1] - within) / deviation) if deviation > 1e-6 * abs(scale) else None,
        )
        previous = cut
    return segmentations, total


def asked_k(k: int | str, evidence: Evidence | None, segmentations: Mapping[int, Segmentation]) -> tuple[int, str]:
    """How many phases were asked for, by number or as `test`, and the rule in words, with the boundaries of the test
    where the best cut into as many phases has others.

    Raises
    ------
    UsageError
        If the evidence was asked for, and there is none.
    """
    if not isinstance(k, str):
        return k, "given by the user"
    if evidence is None:
        raise UsageError(f"k={k!r} needs a test of these phases, which have none; give a number of phases")
    k, rule = min(evidence.k, max(segmentations)), f"as many as the test supports at alpha {evidence.alpha:g}"
    if evidence.layers == segmentations[k].boundaries:
        return k, rule
    places = ", ".join(map(str, evidence.layers))
    return k, f"{rule}, where the best cut has them; boundaries of the test: after layer {places}"


@checked
def choose_k(segmentations: Mapping[int, Segmentation], min_gain: float = MIN_GAIN) -> int:
    """The largest k up to which every further phase adds at least `min_gain` to the share that is cut.

    >>> from brdyn.phases import choose_k
    >>> choose_k(brdyn.segment(np.kron(np.eye(3), np.ones((2, 2)))).segmentations)
    3
    """
    k = 1
    while k + 1 in segmentations and segmentations[k + 1].gain >= min_gain:
        k += 1
    return k
