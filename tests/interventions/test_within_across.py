"""Within against across phases: by hand, by enumeration, and what distance alone does."""

from itertools import combinations

import numpy as np
import pytest

from brdyn.interventions.operations import straddling_windows
from brdyn.interventions.within_across import within_against_across
from brdyn.measures.coupling import placement_test


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
    """Harm that grows with distance and knows of no phase: shuffled labels, and other phases alone where boundaries are
    evenly spaced, call it significant; pairs at equal distance do not."""
    layers = np.arange(12)
    distance = np.abs(layers[:, None] - layers[None]) ** 0.5
    found = within_against_across(distance, (4, 8))
    assert found.across > found.within
    assert found.p_shuffled < 0.01
    assert found.p_contiguous < 0.05
    assert found.matched_excess == pytest.approx(0, abs=1e-12)
    assert found.p_matched == found.p_matched_below == 1
    assert found.told() == "at equal distance not told from other cuts into as many phases, p = 1.000"


def test_what_is_told():
    """More than elsewhere; of the best of 11 cuts, whose p can be no less; of what has no two pairs to compare."""
    assert within_against_across(blocks(3, 4, 5), (3, 7)).told() == (
        "at equal distance more across than for other cuts into as many phases, p = 0.018"
    )
    assert within_against_across(blocks(6, 6), (6,)).told() == (
        "11 cuts into as many phases are too few to tell, p = 0.091"
    )
    alone = within_against_across(blocks(2, 1), (2,))
    assert (alone.p_matched, alone.p_matched_below) == (0.5, 1.0)
    none = within_against_across(blocks(1, 1, 1, 2), (1, 2, 3))
    assert none.told() == "4 cuts into as many phases are too few to tell, p = 0.250"


@pytest.mark.parametrize("boundaries", [(4, 8), (3, 6, 9), (2, 6, 9, 11)])
def test_the_test_at_equal_distance_keeps_its_level(boundaries):
    """Evenly spaced boundaries, too, of which the difference alone calls every ninth chance p < .05."""
    rng = np.random.default_rng(0)
    found = [placement_test(rng.normal(size=66), 12, boundaries, 0) for _ in range(600)]
    for told in ([one.p_value for one in found], [one.p_below for one in found]):
        assert np.mean(np.array(told) < 0.05) < 0.075  # .05, and three standard errors


def test_against_enumeration():
    rng = np.random.default_rng(0)
    matrix = rng.random((7, 7))
    matrix = matrix + matrix.T
    found = within_against_across(matrix, (2, 4))

    def excess(boundaries, match):
        own = [sum(layer > b for b in boundaries) for layer in range(1, 8)]
        pairs = [(matrix[i, j], own[i] == own[j], j - i) for i, j in combinations(range(7), 2)]
        if not match:
            return (np.mean([v for v, s, _ in pairs if not s]) - np.mean([v for v, s, _ in pairs if s]),) * 2
        total = weight = 0.0
        for apart in range(1, 7):
            inside = [v for v, s, d in pairs if s and d == apart]
            outside = [v for v, s, d in pairs if not s and d == apart]
            if inside and outside:
                w = len(inside) * len(outside) / (len(inside) + len(outside))
                total += w * (np.mean(outside) - np.mean(inside))
                weight += w
        return total / weight, total / weight**0.5  # the difference, and over its standard error

    for match, p in ((False, found.p_contiguous), (True, found.p_matched)):
        others = [excess(places, match)[1] for places in combinations(range(1, 7), 2)]
        assert p == pytest.approx(np.mean([value >= excess((2, 4), match)[1] - 1e-12 for value in others]))
    assert found.across - found.within == pytest.approx(excess((2, 4), False)[0])
    assert found.matched_excess == pytest.approx(excess((2, 4), True)[0])
    below = np.mean([value <= excess((2, 4), True)[1] + 1e-12 for value in others])
    assert found.p_matched_below == pytest.approx(below)


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
