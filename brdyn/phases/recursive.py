"""The public notebook's own segmentation: recursive bisection by unrestricted max-cut, for comparison.

Starting from all layers, the cluster that promises most is split in two by a max-cut over *all* subsets
of its layers, until no split gains more than `eps` times the total dissimilarity. Clusters need not be
contiguous. Up to 20 layers a cluster is cut exactly, by trying every subset; above, by networkx's
`one_exchange` local search from several starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from brdyn.arguments import checked
from brdyn.phases.matrices import of_layers

EXHAUSTIVE_UP_TO = 20  # layers: a second and a third of a GB
STARTS = 20
NOTEBOOK_MIN_SIZE = 2


@dataclass(frozen=True)
class RecursiveClusters:
    """The clusters found by recursive bisection.

    Attributes
    ----------
    clusters : tuple of tuple of int
        Layers (from 1) of each cluster, ordered by their first layer.
    eps : float
        Smallest gain worth a split, as a share of the total dissimilarity.
    min_size : int
        Clusters of fewer than twice as many layers are not split.
    exact : bool
        Whether every split was found exhaustively.
    seed : int or None
        Of the starts of the local search; None in files of earlier versions.

    Examples
    --------
    >>> from brdyn.phases import recursive_bisection
    >>> found = recursive_bisection(1 - np.kron(np.eye(2), np.ones((3, 3))), eps=0.1)
    >>> found.clusters, found.boundaries, found.exact
    (((1, 2, 3), (4, 5, 6)), (3,), True)
    """

    clusters: tuple[tuple[int, ...], ...]
    eps: float
    min_size: int
    exact: bool
    seed: int | None = None

    @property
    def scattered(self) -> tuple[tuple[int, ...], ...]:
        """Clusters that are not runs of consecutive layers."""
        return tuple(cluster for cluster in self.clusters if cluster[-1] - cluster[0] + 1 != len(cluster))

    @property
    def boundaries(self) -> tuple[int, ...] | None:
        """Last layer of every phase but the last; None when a cluster is not contiguous."""
        return None if self.scattered else tuple(cluster[-1] for cluster in self.clusters[:-1])

    def describe(self) -> str:
        """Every cluster, and how it was found."""
        clusters = " ".join("{" + ",".join(map(str, cluster)) + "}" for cluster in self.clusters)
        seed = "" if self.seed is None else f", seed {self.seed}"
        how = "exhaustive" if self.exact else f"one_exchange{seed}"
        warning = f"; {len(self.scattered)} of them NOT contiguous" if self.scattered else ""
        return f"{clusters} ({how}, eps {self.eps:g}{warning})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "clusters": [list(cluster) for cluster in self.clusters],
            "scattered": [list(cluster) for cluster in self.scattered],
            "boundaries": list(self.boundaries) if self.boundaries is not None else None,
            "eps": self.eps,
            "min_size": self.min_size,
            "exact": self.exact,
            "seed": self.seed,
        }


@checked
def recursive_bisection(
    dissimilarity: np.ndarray, eps: float, min_size: int = NOTEBOOK_MIN_SIZE, seed: int = 0
) -> RecursiveClusters:
    """Split layers recursively, as the public notebook of BRH does.

    A split is kept when its cut is above `eps` times the total; both halves then inherit that cut as
    their promise, and the most promising cluster is tried next.

    Parameters
    ----------
    dissimilarity : ndarray, shape (L, L)
    eps : float
        The notebook's 0.2, 0.10 and 0.09 gave 2, 3 and 4 phases for DINOv2 ViT-B/14 with registers.
    min_size : int
        Clusters of fewer than `2 * min_size` layers are left whole.
    seed : int
        Of the starts of the local search.

    Examples
    --------
    >>> from brdyn.phases import recursive_bisection
    >>> odd = np.arange(1, 5) % 2
    >>> recursive_bisection(np.abs(odd[:, None] - odd), eps=0.1).scattered
    ((1, 3), (2, 4))
    """
    weights = of_layers(dissimilarity, "dissimilarity")
    weights = (weights + weights.T) / 2
    threshold = eps * np.triu(weights, k=1).sum()
    clusters = [np.arange(len(weights))]
    promises = [np.inf]
    exact = True
    while max(promises) > threshold:
        target = int(np.argmax(promises))
        members = clusters[target]
        if len(members) < 2 * min_size:
            promises[target] = -np.inf
            continue
        part = weights[np.ix_(members, members)]
        if len(members) <= EXHAUSTIVE_UP_TO:
            gain, side = exhaustive_cut(part)
        else:
            gain, side = local_search_cut(part, seed)
            exact = False
        if gain <= threshold:
            promises[target] = -np.inf
            continue
        clusters[target] = members[~side]
        clusters.append(members[side])
        promises[target] = gain
        promises.append(gain)
    ordered = sorted(tuple(int(layer) + 1 for layer in cluster) for cluster in clusters)
    return RecursiveClusters(tuple(ordered), eps, min_size, exact, seed)


def exhaustive_cut(weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The best of all two-way cuts of a small graph: (value, side), the first vertex on side False.

    Costs double with every vertex. Of equal cuts the first in lexicographic order is taken.
    """
    count = len(weights)
    codes = np.arange(1 << (count - 1))
    shifts = np.arange(count - 2, -1, -1)
    bits = (codes[:, None] >> shifts & 1).astype(np.float64)
    sides = np.concatenate([np.zeros((len(codes), 1)), bits], axis=1)
    values = ((sides @ weights) * (1 - sides)).sum(1)
    best = int(values.argmax())
    return float(values[best]), sides[best].astype(bool)


def local_search_cut(weights: np.ndarray, seed: int) -> tuple[float, np.ndarray]:
    """The best cut of networkx's `one_exchange` from several random starts, the first vertex on side False."""
    import networkx as nx
    from networkx.algorithms.approximation import one_exchange

    graph = nx.from_numpy_array(np.triu(weights, k=1))
    rng = np.random.default_rng(seed)
    best_value, best_set = -np.inf, set[int]()
    for start in range(STARTS):
        initial = set(np.flatnonzero(rng.integers(0, 2, len(weights))).tolist())
        value, (chosen, _) = one_exchange(graph, initial_cut=initial, seed=seed + start, weight="weight")
        if value > best_value:
            best_value, best_set = value, set(chosen)
    side = np.isin(np.arange(len(weights)), list(best_set))
    return float(best_value), ~side if side[0] else side
