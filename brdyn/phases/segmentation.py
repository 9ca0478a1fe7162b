"""Phases of a network's depth: the best segmentation for every k, how many, and how sure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from brdyn.errors import UsageError
from brdyn.phases.evidence import ALPHA, ROUNDING, Evidence, check_test, differ, phase_evidence
from brdyn.phases.maxcut import best_segmentations, k_best_segmentations, random_moments
from brdyn.phases.recursive import RecursiveClusters, recursive_bisection
from brdyn.phases.written import check_written
from brdyn.seeds import check_seed

MIN_GAIN = 0.05
ALTERNATIVES = 5
METHODS = ("contiguous", "recursive")
TEST = "test"
DEFAULT_EPS = 0.1


class Similarity(Protocol):
    """What :func:`segment` needs of a measured similarity."""

    @property
    def matrix(self) -> np.ndarray:
        """Shape (L, L)."""

    @property
    def replicates(self) -> np.ndarray | None:
        """Shape (R, L, L)."""


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


@dataclass(frozen=True)
class Segmentation:
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
                Alternative(tuple(other["boundaries"]), other["cut"], other["gap"])
                for other in values["alternatives"]
            ),
            z=values["z"],
        )


@dataclass(frozen=True)
class Phases:
    """How a network's L layers fall into phases.

    Attributes
    ----------
    layers : int
        L.
    k : int
        The number of phases chosen.
    k_rule : str
        How it was chosen.
    total : float
        Sum of D over all pairs of layers.
    min_size : int
        Fewest layers allowed in a phase.
    segmentations : dict of int to Segmentation
        The best one for every k.
    frequency : ndarray, shape (K, L - 1), or None
        `frequency[k - 1, l - 1]`: share of bootstrap samples whose best k-segmentation has a boundary after layer l.
    recursive : RecursiveClusters or None
        The public notebook's clusters, when asked for.
    evidence : Evidence or None
        Whether there are phases at all, and how many the data support; `evidence.k` may be 1 whatever `k` is. None
        where it was read from a file that has none.

    Examples
    --------
    >>> phases = brdyn.segment(np.kron(np.eye(2), np.ones((3, 3))))
    >>> phases.k, phases.boundaries, phases.intervals
    (2, (3,), [(1, 3), (4, 6)])
    >>> phases.labels.tolist()
    [0, 0, 0, 1, 1, 1]
    """

    layers: int
    k: int
    k_rule: str
    total: float
    min_size: int
    segmentations: dict[int, Segmentation]
    frequency: np.ndarray | None = None
    recursive: RecursiveClusters | None = None
    evidence: Evidence | None = None

    def __repr__(self) -> str:
        """Short: the boundaries of every k are long."""
        supported = f", evidence for k={self.evidence.k}" if self.evidence is not None else ""
        return f"Phases(layers={self.layers}, k={self.k}, boundaries={list(self.boundaries)}{supported})"

    def sentence(self) -> str:
        """What the data support, and the cut that is shown: two things."""
        cut = "all layers are one phase"
        if self.k > 1:
            places = ", ".join(map(str, self.boundaries))
            cut = f"the best cut into {self.k} is [{places}]"
        return f"{self.evidence.sentence()}; {cut}" if self.evidence is not None else cut

    @property
    def chosen(self) -> Segmentation:
        """The segmentation into the chosen number of phases."""
        return self.segmentations[self.k]

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Last layer of every phase but the last, for the chosen k."""
        return self.chosen.boundaries

    @property
    def stability(self) -> tuple[float, ...] | None:
        """Bootstrap frequency of each boundary, for the chosen k."""
        return self.chosen.stability

    @property
    def intervals(self) -> list[tuple[int, int]]:
        """First and last layer of each phase, for the chosen k."""
        edges = (0, *self.boundaries, self.layers)
        return [(start + 1, stop) for start, stop in pairwise(edges)]

    def with_k(self, k: int) -> Phases:
        """The same with another number of phases chosen."""
        check_request(k, self.layers, self.min_size)
        return replace(self, k=k, k_rule="given by the user")

    @property
    def labels(self) -> np.ndarray:
        """Phase (from 0) of each layer, shape (L,)."""
        return np.searchsorted(self.boundaries, np.arange(1, self.layers + 1), side="left")

    @property
    def evenness(self) -> float:
        """Entropy of the lengths of the phases over its largest, log k: 1 where all are as long; for the chosen k.

        One phase is even.
        """
        shares = np.diff((0, *self.boundaries, self.layers)) / self.layers
        return float(-(shares * np.log(shares)).sum() / np.log(self.k)) if self.k > 1 else 1.0

    @property
    def gain_curve(self) -> np.ndarray:
        """Share of the total dissimilarity that is cut by the best segmentation, for k = 1..K."""
        return np.array([self.segmentations[k].cut_share for k in sorted(self.segmentations)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "layers": self.layers,
            "k": self.k,
            "k_rule": self.k_rule,
            "total": self.total,
            "min_size": self.min_size,
            "segmentations": {str(k): self.segmentations[k].to_dict() for k in sorted(self.segmentations)},
            "boundary_frequency": self.frequency.tolist() if self.frequency is not None else None,
            "recursive": self.recursive.to_dict() if self.recursive is not None else None,
            "evidence": self.evidence.to_dict() if self.evidence is not None else None,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Phases:
        """Read what :meth:`to_dict` wrote, for instance the content of `phases.json`.

        Raises
        ------
        UsageError
            If it is not that, or its segmentations are not such as a network of that depth can have.
        """
        check_written(values)
        frequency, recursive = values.get("boundary_frequency"), values.get("recursive")
        evidence = values.get("evidence")
        return cls(
            layers=values["layers"],
            k=values["k"],
            k_rule=values["k_rule"],
            total=values["total"],
            min_size=values["min_size"],
            segmentations={
                int(k): Segmentation.from_dict(int(k), v) for k, v in values["segmentations"].items()
            },
            frequency=np.array(frequency) if frequency is not None else None,
            recursive=RecursiveClusters(
                tuple(tuple(cluster) for cluster in recursive["clusters"]),
                recursive["eps"],
                recursive["min_size"],
                recursive["exact"],
            )
            if recursive
            else None,
            evidence=Evidence.from_dict(evidence) if evidence else None,
        )


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
    for title, share in (("min_gain", min_gain), ("eps", eps)):
        if not 0 <= share <= 1:
            raise UsageError(f"{title}={share} is not a share of the dissimilarity, from 0 to 1")
    if min_size < 1:
        raise UsageError(f"min_size={min_size}: a phase has at least one layer")
    if min_size > layers:
        raise UsageError(f"min_size={min_size} is more than the {layers} layers of {name}")
    if k is None or k == TEST:
        return
    if isinstance(k, str):
        raise UsageError(f"k={k!r} is neither a number of phases nor {TEST!r}")
    if k < 1:
        raise UsageError(f"k={k} phases make no sense; use 1 to {layers // min_size}")
    if k * min_size > layers:
        each = f" of at least {min_size} layers" if min_size > 1 else ""
        raise UsageError(f"k={k} phases{each} need at least {k * min_size} layers; {name} has {layers}")


def segment(
    similarity: Similarity | np.ndarray,
    k: int | str | None = None,
    *,
    method: str = "contiguous",
    min_size: int = 1,
    min_gain: float = MIN_GAIN,
    eps: float = DEFAULT_EPS,
    seed: int = 0,
    alpha: float = ALPHA,
    calibration: str = "bonferroni",
) -> Phases:
    """Cut the depth of a network into phases by max-cut on D = 1 - S, and test whether there are any.

    The cut and the test are two things: max-cut cuts every network, a structureless one too. `evidence` says what the
    layers support.

    Parameters
    ----------
    similarity : LayerSimilarity or ndarray, shape (L, L)
        With bootstrap replicates, boundaries get a stability.
    k : int or "test", optional
        Number of phases; `test` takes the number that the evidence supports. Without it, by convention: the largest k
        up to which every further phase adds at least `min_gain` of the total dissimilarity to the cut.
    method : {"contiguous", "recursive"}
        `recursive` also runs the public notebook's bisection, and takes its number of clusters as k.
        Boundaries are those of the contiguous optimum either way.
    min_size : int
        Fewest layers in a phase (the notebook's bisection has its own limit of 2).
    min_gain : float
        Of the rule for k.
    eps, seed
        Of the recursive bisection.
    alpha, calibration
        Of the test; see :func:`brdyn.phases.phase_evidence`.

    Returns
    -------
    Phases

    Raises
    ------
    UsageError
        If the matrix is not square, symmetric and finite, or k or alpha is out of range.

    Examples
    --------
    >>> brdyn.segment(np.kron(np.eye(3), np.ones((2, 2)))).boundaries  # blocks of two layers that are alike
    (2, 4)
    >>> brdyn.segment(similarity, k=3).stability is not None  # of a model's layers, with bootstrap replicates
    True
    >>> depth = np.array([0, 1, 2, 3, 4, 5, 15, 16, 17, 18, 19, 20])  # a drift with one large step
    >>> brdyn.segment(np.exp(-abs(depth[:, None] - depth) / 20), k="test")
    Phases(layers=12, k=2, boundaries=[6], evidence for k=2)
    """
    check_test(alpha, calibration)
    matrix, replicates = _arrays(similarity)
    layers = len(matrix)
    check_request(k, layers, min_size, method, min_gain=min_gain, eps=eps)
    check_seed(seed)
    dissimilarity = 1.0 - matrix
    differing = differ(dissimilarity)
    frequency = (
        boundary_frequency(1.0 - replicates, min_size) if replicates is not None and differing else None
    )
    segmentations, total = _all_segmentations(dissimilarity, min_size, frequency)
    recursive = recursive_bisection(dissimilarity, eps, seed=seed) if method == "recursive" else None
    evidence = phase_evidence(dissimilarity, alpha, calibration)
    if isinstance(k, str):
        k = min(evidence.k, layers // min_size)
        rule = f"what the test supports at alpha {alpha:g}"
    elif k is not None:
        rule = "given by the user"
    elif layers == 1:
        k, rule = 1, "there is one layer"
    elif not differing:
        k, rule = 1, f"the layers do not differ (mean dissimilarity below {ROUNDING:g})"
    elif recursive is not None:
        found = len(recursive.clusters)
        k, rule = min(found, layers // min_size), f"clusters of the recursive bisection with eps={eps:g}"
    else:
        k = choose_k(segmentations, min_gain)
        rule = (
            f"by convention, the largest k up to which every further phase adds at least {min_gain:g} of the total "
            "dissimilarity"
        )
    return Phases(layers, k, rule, total, min_size, segmentations, frequency, recursive, evidence)


def _arrays(similarity: Similarity | np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    raw = similarity if isinstance(similarity, np.ndarray) else similarity.matrix
    matrix = np.asarray(raw, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
        raise UsageError(f"a similarity of shape {matrix.shape} is not a square matrix of layers")
    if not np.isfinite(matrix).all():
        raise UsageError("the similarity matrix has values that are not finite")
    if not np.allclose(matrix, matrix.T, atol=1e-6):
        raise UsageError("the similarity matrix is not symmetric")
    replicates = None if isinstance(similarity, np.ndarray) else similarity.replicates
    return matrix, replicates if replicates is not None and len(replicates) else None


def boundary_frequency(replicates: np.ndarray, min_size: int = 1) -> np.ndarray:
    """How often each layer ends a phase over bootstrap samples of D, `(R, L, L)` to `(K, L - 1)`.

    >>> from brdyn.phases import boundary_frequency
    >>> early, late = (1 - (parts[:, None] == parts) for parts in np.array([[0, 1, 1, 1], [0, 0, 1, 1]]))
    >>> boundary_frequency(np.stack([early, late, late, late]))[1].tolist()  # of two phases
    [0.25, 0.75, 0.0]
    """
    layers = replicates.shape[-1]
    _, boundaries = best_segmentations(replicates, min_size)
    frequency = np.zeros((len(boundaries), max(layers - 1, 0)))
    for row, chosen in zip(frequency, boundaries, strict=True):
        if chosen.size:
            row += np.bincount(chosen.ravel(), minlength=layers)[1:layers] / len(replicates)
    return frequency


def drift_reference(dissimilarity: np.ndarray) -> np.ndarray:
    """A structureless twin of D: every entry replaced by the mean of D at the same distance in depth.

    >>> from brdyn.phases import drift_reference
    >>> drift_reference(np.array([[0, 1, 4], [1, 0, 3], [4, 3, 0]])).tolist()
    [[0.0, 2.0, 4.0], [2.0, 0.0, 2.0], [4.0, 2.0, 0.0]]
    """
    layers = len(dissimilarity)
    means = np.array([np.diagonal(dissimilarity, offset).mean() for offset in range(layers)])
    distance = np.abs(np.arange(layers)[:, None] - np.arange(layers)[None])
    return means[distance]


def _all_segmentations(
    dissimilarity: np.ndarray, min_size: int, frequency: np.ndarray | None
) -> tuple[dict[int, Segmentation], float]:
    total = float(np.triu(dissimilarity, k=1).sum())
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
