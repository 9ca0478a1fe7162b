"""Phases of a network's depth: cut by max-cut, and tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from brdyn.arguments import checked
from brdyn.checked_json import JsonError, take
from brdyn.choices import METHOD
from brdyn.phases.evidence import ALPHA, CALIBRATION, Evidence, check_test, phase_evidence
from brdyn.phases.matrices import ROUNDING, differ
from brdyn.phases.recursive import RecursiveClusters, recursive_bisection
from brdyn.phases.segmentation import (
    DEFAULT_EPS,
    MIN_GAIN,
    Segmentation,
    all_segmentations,
    asked_k,
    boundary_frequency,
    check_request,
    choose_k,
)
from brdyn.phases.similarity import LayerSimilarity, checked_similarity
from brdyn.phases.written import check_written
from brdyn.provenance import Provenance
from brdyn.result import Result
from brdyn.seeds import check_seed
from brdyn.words import counted


@dataclass(frozen=True, eq=False, repr=False)
class Phases(Result):
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
    similarity : LayerSimilarity or None
        What was cut; None where these are the phases that another result refers to.

    Examples
    --------
    >>> phases = brdyn.segment(np.kron(np.eye(2), np.ones((3, 3))))
    >>> phases.k, phases.boundaries, phases.intervals
    (2, (3,), [(1, 3), (4, 6)])
    >>> phases.labels.tolist()
    [0, 0, 0, 1, 1, 1]
    """

    FILE: ClassVar[str] = "phases.json"

    layers: int
    k: int
    k_rule: str
    total: float
    min_size: int
    segmentations: dict[int, Segmentation]
    frequency: np.ndarray | None = None
    recursive: RecursiveClusters | None = None
    evidence: Evidence | None = None
    similarity: LayerSimilarity | None = None

    def brief(self) -> str:
        """The boundaries of every k would be long."""
        supported = f", evidence for k={self.evidence.k}" if self.evidence is not None else ""
        return f"layers={self.layers}, k={self.k}, boundaries={list(self.boundaries)}{supported}"

    def sentence(self) -> str:
        """What the data support, and the cut that is chosen: two things."""
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

    @checked
    def with_k(self, k: int | str) -> Phases:
        """The same with another number of phases chosen, or with `test` what the evidence supports."""
        check_request(k, self.layers, self.min_size)
        chosen, rule = asked_k(k, self.evidence, self.segmentations)
        return replace(self, k=chosen, k_rule=rule)

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
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
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
            segmentations={int(k): Segmentation.from_dict(int(k), v) for k, v in values["segmentations"].items()},
            frequency=np.array(frequency) if frequency is not None else None,
            recursive=RecursiveClusters(
                tuple(tuple(cluster) for cluster in recursive["clusters"]),
                recursive["eps"],
                recursive["min_size"],
                recursive["exact"],
                recursive.get("seed"),
            )
            if recursive
            else None,
            evidence=Evidence.from_dict(evidence) if evidence else None,
        )

    def content(self) -> dict[str, Any]:
        """Of phases.json: the similarity, and everything of :meth:`to_dict`."""
        return {**(self.similarity.content() if self.similarity is not None else {}), **self.to_dict()}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from a phases.json."""
        found = cls.from_dict(content)
        if "similarity" not in content:
            return found
        take(content, LayerSimilarity.SHAPE)
        similarity = LayerSimilarity.from_content(content, folder)
        if len(similarity.matrix) != found.layers:
            raise JsonError(f"similarity.matrix is of {len(similarity.matrix)} layers and not of {found.layers}")
        return replace(found, similarity=replace(similarity, provenance=Provenance.from_content(content)))

    def describe(self) -> str:
        """`phases: layers 1-2, 3-6 (rule)`."""
        return f"phases: layers {self._spans()} ({self.k_rule})"

    @property
    def measured(self) -> str:
        """Which similarity of which tokens they are of, where that is kept."""
        return "" if self.similarity is None else self.similarity.measured

    def answer(self) -> str:
        """What the data support, and the cut that is chosen."""
        return self.sentence()

    def overview(self) -> list[dict[str, Any]]:
        """The best cut for every k, and which is chosen."""
        return [self._row(k) for k in range(2, min(max(self.segmentations), max(6, self.k + 1)) + 1)]

    def numbers(self) -> dict[str, Any]:
        """The verdict of the test, the cut that is chosen, and what the best cuts into 2 and 3 share out."""
        found: dict[str, Any] = {}
        if self.evidence is not None and not self.evidence.untested:
            largest = self.evidence.largest
            assert largest is not None
            found |= {
                "phases by the test": self.evidence.k,
                "largest step after layer": largest.layer,
                "its t": float(largest.t),
                "its p": float(largest.p),
            }
        found |= {
            "phases chosen": self.k,
            "boundaries after layer": ", ".join(map(str, self.boundaries)) or "none",
        }
        for k in (2, 3):
            if k in self.segmentations:
                found[f"best cut into {k}: after layer"] = ", ".join(map(str, self.segmentations[k].boundaries))
                found[f"best cut into {k}: share cut"] = float(self.segmentations[k].cut_share)
        return found

    def remarks(self) -> list[str]:
        """What was chosen and by which rule, and where the images are too few to place a boundary."""
        measured = self.similarity
        lines = [
            f"{counted(self.k, 'phase')}: layers {self._spans()}",
            f"  k: {self.k_rule}; phases of at least {counted(self.min_size, 'layer')}",
            *self._unsteady(),
        ]
        if measured is not None:
            lines.append(f"similarity: {measured.kind} of {measured.tokens}")
        if self.stability is None and measured is not None and self.frequency is None:
            lines.append(f"  stability is not known; resampled: {measured.unit}")
        if self.recursive is not None:
            lines.append(f"  recursive bisection: {self.recursive.describe()}")
        return lines

    def _spans(self) -> str:
        return ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in self.intervals)

    def _unsteady(self) -> list[str]:
        """Boundaries that a 95 % interval over resampled images does not hold in one place."""
        unsteady = [
            f"{layer} ({share:.0%})"
            for layer, share in zip(self.boundaries, self.stability or (), strict=False)
            if share < 1 - ALPHA
        ]
        if not unsteady:
            return []
        return [
            f"  too few images to place the boundary after layer {', '.join(unsteady)}: that is how many of the "
            "resampled sets of images have it there"
        ]

    def _row(self, k: int) -> dict[str, Any]:
        found = self.segmentations[k]
        others = found.alternatives[1:]
        return {
            "chosen": "*" if k == self.k else "",
            "phases": k,
            "boundaries after layer": ", ".join(map(str, found.boundaries)),
            "stability": " ".join(f"{share:.2f}" for share in found.stability or ()) or "–",
            "share cut": float(found.cut_share),
            "gain": float(found.gain),
            "ahead of the 2nd best": float(others[0].gap / self.total) if others and self.total else None,
        }


@checked
def segment(
    similarity: LayerSimilarity | np.ndarray,
    k: int | str | None = None,
    *,
    method: str = METHOD,
    min_size: int = 1,
    min_gain: float = MIN_GAIN,
    eps: float = DEFAULT_EPS,
    seed: int = 0,
    alpha: float = ALPHA,
    calibration: str = CALIBRATION,
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
    measured = checked_similarity(similarity)
    matrix, replicates = measured.matrix, measured.replicates
    layers = len(matrix)
    check_request(k, layers, min_size, method, min_gain=min_gain, eps=eps)
    check_seed(seed)
    dissimilarity = 1.0 - matrix
    differing = differ(dissimilarity)
    frequency = boundary_frequency(1.0 - replicates, min_size) if replicates is not None and differing else None
    segmentations, total = all_segmentations(dissimilarity, min_size, frequency)
    recursive = recursive_bisection(dissimilarity, eps, seed=seed) if method == "recursive" else None
    evidence = phase_evidence(dissimilarity, alpha, calibration)
    if k is not None:
        k, rule = asked_k(k, evidence, segmentations)
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
    return Phases(
        layers,
        k,
        rule,
        total,
        min_size,
        segmentations,
        frequency,
        recursive,
        evidence,
        measured,
        provenance=measured.provenance,
    )
