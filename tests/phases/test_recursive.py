"""The public notebook's bisection against a plain transcription of its rules."""

from itertools import product

import networkx as nx
import numpy as np
import pytest

from brdyn.phases import recursive_bisection
from brdyn.phases.recursive import exhaustive_cut, local_search_cut


def plain_bisection(weights, eps, min_size=2):
    """The rules, one at a time: promise inherited by both halves, first best cut, small clusters left whole."""
    threshold = eps * sum(weights[a, b] for a in range(len(weights)) for b in range(a))
    clusters = {0: list(range(len(weights)))}
    promise = {0: float("inf")}
    while True:
        target = max(promise, key=lambda number: (promise[number], -number))
        if promise[target] <= threshold:
            break
        members = clusters[target]
        if len(members) < 2 * min_size:
            promise[target] = float("-inf")
            continue
        best, chosen = -float("inf"), None
        for sides in product((0, 1), repeat=len(members) - 1):
            side = (0, *sides)
            value = sum(
                weights[members[a], members[b]] for a in range(len(members)) for b in range(a) if side[a] != side[b]
            )
            if value > best:
                best, chosen = value, side
        if best <= threshold:
            promise[target] = float("-inf")
            continue
        clusters[target] = [m for m, s in zip(members, chosen, strict=True) if not s]
        clusters[len(clusters)] = [m for m, s in zip(members, chosen, strict=True) if s]
        promise[target] = promise[len(promise)] = best
    return sorted(tuple(m + 1 for m in cluster) for cluster in clusters.values())


def drifting(layers, seed, noise):
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.gamma(0.5, size=layers))
    weights = np.abs(steps[:, None] - steps[None]) + noise * rng.random((layers, layers))
    weights = (weights + weights.T) / 2
    np.fill_diagonal(weights, 0)
    return weights


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("eps", [0.2, 0.1, 0.03])
def test_equals_the_rules(seed, eps):
    weights = drifting(9, seed, noise=0.5 * (seed % 3))
    found = recursive_bisection(weights, eps)
    assert list(found.clusters) == plain_bisection(weights, eps)
    assert found.exact


def test_twenty_layers_are_still_cut_exactly():
    weights = drifting(20, 0, noise=0.0)
    value, side = exhaustive_cut(weights)
    graph = nx.from_numpy_array(weights)
    assert value == pytest.approx(nx.cut_size(graph, set(np.flatnonzero(side).tolist()), weight="weight"))
    assert recursive_bisection(weights, 0.1).exact
    for vertex in range(20):  # no single change is better
        flipped = side.copy()
        flipped[vertex] ^= True
        assert nx.cut_size(graph, set(np.flatnonzero(flipped).tolist()), weight="weight") <= value + 1e-9


def test_above_twenty_the_local_search_is_used_and_good():
    weights = drifting(21, 1, noise=0.3)
    exact, _ = exhaustive_cut(weights)
    value, side = local_search_cut(weights, seed=0)
    assert not side[0]
    assert exact * 0.98 <= value <= exact + 1e-9
    found = recursive_bisection(weights, 0.1)
    assert not found.exact
    assert recursive_bisection(weights, 0.1, seed=5).to_dict()["seed"] == 5
    assert "one_exchange, seed 0" in found.describe()
    assert sorted(layer for cluster in found.clusters for layer in cluster) == list(range(1, 22))


def test_scattered_clusters_are_reported():
    labels = np.array([0, 1, 0, 1, 0, 1])
    weights = (labels[:, None] != labels[None]).astype(float)
    found = recursive_bisection(weights, 0.5)
    assert found.clusters == ((1, 3, 5), (2, 4, 6))
    assert found.scattered == found.clusters
    assert found.boundaries is None
    assert found.to_dict()["scattered"] == [[1, 3, 5], [2, 4, 6]]


def test_contiguous_clusters_have_boundaries():
    labels = np.repeat([0, 1, 2], [7, 3, 2])
    weights = np.abs(labels[:, None] - labels[None]).astype(float)
    assert recursive_bisection(weights, 0.1).boundaries == (7, 10)
