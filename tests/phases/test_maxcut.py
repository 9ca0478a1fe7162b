"""Max-cut by dynamic programming against enumeration and networkx."""

from itertools import combinations, pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from brdyn.phases import best_segmentations, k_best_segmentations, random_moments
from brdyn.phases.maxcut import interval_costs


@st.composite
def dissimilarities(draw, largest=9):
    layers = draw(st.integers(1, largest))
    values = draw(arrays(np.float64, (layers, layers), elements=st.floats(-1, 2, width=32)))
    return (values + values.T) / 2


def enumerate_segmentations(matrix, k, min_size):
    """(sum within phases, boundaries) of every segmentation, by definition."""
    layers = len(matrix)
    found = []
    for boundaries in combinations(range(1, layers), k - 1):
        edges = (0, *boundaries, layers)
        phases = [range(start, stop) for start, stop in pairwise(edges)]
        if min(map(len, phases)) >= min_size:
            within = sum(matrix[a, b] for phase in phases for a, b in combinations(phase, 2))
            found.append((within, boundaries))
    return sorted(found)


@settings(max_examples=60, deadline=None)
@given(dissimilarities(), st.integers(1, 3))
def test_best_and_k_best_equal_enumeration(matrix, min_size):
    if min_size > len(matrix):
        return
    within, boundaries = best_segmentations(matrix, min_size)
    ranked = k_best_segmentations(matrix, 5, min_size)
    assert len(within) == len(boundaries) == len(ranked) == len(matrix) // min_size
    for k, (value, chosen, paths) in enumerate(zip(within, boundaries, ranked, strict=True), start=1):
        everything = enumerate_segmentations(matrix, k, min_size)
        costs = {edges: cost for cost, edges in everything}
        assert value == pytest.approx(everything[0][0], abs=1e-9)
        assert costs[tuple(chosen)] == pytest.approx(value, abs=1e-9)
        expected = [cost for cost, _ in everything[:5]]
        assert [cost for cost, _ in paths] == pytest.approx(expected, abs=1e-9)
        assert len({edges for _, edges in paths}) == len(paths)
        for cost, edges in paths:
            assert costs[edges] == pytest.approx(cost, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(dissimilarities(8), st.integers(1, 2))
def test_random_moments_equal_enumeration(matrix, min_size):
    if min_size > len(matrix):
        return
    moments = random_moments(matrix, min_size)
    for k, (mean, std) in enumerate(zip(*moments, strict=True), start=1):
        costs = [cost for cost, _ in enumerate_segmentations(matrix, k, min_size)]
        assert mean == pytest.approx(np.mean(costs), abs=1e-9)
        assert std == pytest.approx(np.std(costs), abs=1e-6)


def test_twelve_layers_equal_enumeration_for_every_k():
    rng = np.random.default_rng(0)
    matrix = rng.random((12, 12))
    matrix = (matrix + matrix.T) / 2
    within, boundaries = best_segmentations(matrix)
    for k in range(1, 13):
        cost, edges = enumerate_segmentations(matrix, k, 1)[0]
        assert within[k - 1] == pytest.approx(cost)
        assert tuple(boundaries[k - 1]) == edges


@settings(max_examples=30, deadline=None)
@given(dissimilarities(10))
def test_cut_equals_networkx(matrix):
    graph = nx.from_numpy_array(np.triu(matrix, 1))
    total = np.triu(matrix, 1).sum()
    within, boundaries = best_segmentations(matrix)
    if len(matrix) > 1:
        first = set(range(int(boundaries[1][0])))
        assert total - within[1] == pytest.approx(nx.cut_size(graph, first, weight="weight"), abs=1e-6)
    for k, chosen in enumerate(boundaries, start=1):
        parts = np.split(np.arange(len(matrix)), chosen)
        between = sum(
            nx.cut_size(graph, set(a.tolist()), set(b.tolist()), weight="weight") for a, b in combinations(parts, 2)
        )
        assert total - within[k - 1] == pytest.approx(between, abs=1e-6)


def test_batch_equals_one_by_one():
    rng = np.random.default_rng(1)
    batch = rng.random((3, 4, 7, 7))
    within, boundaries = best_segmentations(batch, min_size=2)
    for i in range(3):
        for j in range(4):
            alone, edges = best_segmentations(batch[i, j], min_size=2)
            np.testing.assert_allclose(within[:, i, j], alone)
            for k, edge in enumerate(edges):
                np.testing.assert_array_equal(boundaries[k][i, j], edge)


def test_interval_costs_by_hand():
    matrix = np.array([[9.0, 1, 2], [1, 9, 4], [2, 4, 9]])
    costs = interval_costs(matrix)
    assert costs[0, 1] == 0  # one layer: the diagonal does not count
    assert costs[0, 2] == 1
    assert costs[1, 3] == 4
    assert costs[0, 3] == 7


def test_of_equal_cuts_the_one_with_the_earliest_last_boundary():
    """Two ways to cut a circle of equal distances in two, and everything alike where nothing differs."""
    _, boundaries = best_segmentations(np.ones((5, 5)))
    assert boundaries[1].tolist() == [2]  # 1 + 3 pairs within, as with 3
    flat = np.zeros((6, 6))
    _, boundaries = best_segmentations(flat)
    assert [tuple(chosen) for chosen in boundaries] == [tuple(range(1, k)) for k in range(1, 7)]
    _, boundaries = best_segmentations(flat, min_size=2)
    assert [tuple(chosen) for chosen in boundaries] == [(), (2,), (2, 4)]
    for min_size in (1, 2):
        best = [tuple(chosen) for chosen in best_segmentations(flat, min_size)[1]]
        assert [paths[0][1] for paths in k_best_segmentations(flat, min_size=min_size)] == best
    assert [edges for _, edges in k_best_segmentations(flat)[1]] == [(1,), (2,), (3,), (4,), (5,)]


def test_block_structure_is_recovered():
    labels = np.repeat([0, 1, 2], [7, 3, 2])
    matrix = (labels[:, None] != labels[None]).astype(float)
    _, boundaries = best_segmentations(matrix)
    assert tuple(boundaries[2]) == (7, 10)
