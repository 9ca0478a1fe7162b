"""Within against across phases: by hand, by enumeration, and what distance alone does."""

from itertools import combinations

import numpy as np
import pytest

from brdyn.interventions.operations import straddling_windows
from brdyn.interventions.within_across import within_against_across


def blocks(*sizes):
    own = np.repeat(np.arange(len(sizes)), sizes)
    return (own[:, None] != own[None]).astype(float)


def test_perfect_phases_are_the_one_best_placement():
    found = within_against_across(blocks(3, 4, 5), (3, 7))
    assert (found.within, found.across) == (0, 1)
    assert found.placements == 55
    assert found.p_contiguous == pytest.approx(1 / 55)
    assert found.p_shuffled < 0.01
    assert found.matched_excess == pytest.approx(1)
    assert found.p_matched == pytest.approx(1 / 55)
    assert found.exact


def test_distance_alone_is_seen_through():
    """Harm that grows with distance and knows of no phase: shuffled labels call it significant, the others do not."""
    layers = np.arange(12)
    distance = np.abs(layers[:, None] - layers[None]).astype(float)
    found = within_against_across(distance, (4, 8))
    assert found.across > found.within
    assert found.p_shuffled < 0.01
    assert found.matched_excess == pytest.approx(0, abs=1e-12)
    assert found.p_matched == 1


def test_against_enumeration():
    rng = np.random.default_rng(0)
    matrix = rng.random((7, 7))
    matrix = matrix + matrix.T
    found = within_against_across(matrix, (2, 4))

    def excess(boundaries, match):
        own = [sum(layer > b for b in boundaries) for layer in range(1, 8)]
        pairs = [(matrix[i, j], own[i] == own[j], j - i) for i, j in combinations(range(7), 2)]
        if not match:
            return np.mean([v for v, s, _ in pairs if not s]) - np.mean([v for v, s, _ in pairs if s])
        total = weight = 0.0
        for apart in range(1, 7):
            inside = [v for v, s, d in pairs if s and d == apart]
            outside = [v for v, s, d in pairs if not s and d == apart]
            if inside and outside:
                w = len(inside) * len(outside) / (len(inside) + len(outside))
                total += w * (np.mean(outside) - np.mean(inside))
                weight += w
        return total / weight

    for match, p in ((False, found.p_contiguous), (True, found.p_matched)):
        others = [excess(places, match) for places in combinations(range(1, 7), 2)]
        assert p == pytest.approx(np.mean([value >= excess((2, 4), match) - 1e-12 for value in others]))
    assert found.across - found.within == pytest.approx(excess((2, 4), False))
    assert found.matched_excess == pytest.approx(excess((2, 4), True))


def test_sampled_placements_keep_their_level():
    rng = np.random.default_rng(1)
    values = []
    for _ in range(40):
        matrix = rng.random((40, 40))
        values.append(within_against_across(matrix + matrix.T, (5, 11, 19, 27, 33), permutations=300).p_contiguous)
    assert 0.3 < np.mean(values) < 0.7
    assert not within_against_across(matrix, (5, 11, 19, 27, 33), permutations=300).exact


def test_where_there_is_nothing_to_compare():
    assert within_against_across(np.ones((4, 4)), ()) is None
    assert within_against_across(np.ones((3, 3)), (1, 2)) is None


def test_windows_across_boundaries():
    assert straddling_windows((2, 4), 6, 2) == [(2, 3), (4, 5)]
    assert straddling_windows((3,), 6, 3) == [(2, 3, 4), (3, 4, 5)]
    assert straddling_windows((), 6, 3) == []
