"""Estimates of numbers that share something, numbers beside those of untrained twins, and several tests at once."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from analyses.statistics import (
    Estimate,
    Side,
    across_over_within,
    against_draws,
    beyond_twins,
    contrast,
    holm,
    largest,
    mean_difference,
    placed,
    rank_correlation,
    with_errors,
)

DRAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "uniform": lambda rng, shape: rng.random(shape),
    "heavy tails": lambda rng, shape: rng.standard_t(3, shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
}


def size(draw, twins, runs=10_000):
    """How often a network that is one more twin is found beyond the others."""
    values = DRAWS[draw](np.random.default_rng(0), (runs, twins + 1))
    return np.mean([beyond_twins(row[0], row[1:]) <= 0.05 for row in values])


@pytest.mark.parametrize("draw", DRAWS)
def test_with_19_twins_the_size_is_right_whatever_their_distribution(draw):
    assert size(draw, 19) == pytest.approx(0.05, abs=0.0075)  # over three standard errors


@pytest.mark.parametrize("twins", [2, 3, 5, 10, 18])
def test_with_fewer_the_size_is_right_for_normal_numbers(twins):
    assert size("normal", twins) == pytest.approx(0.05, abs=0.0075)


@pytest.mark.parametrize(("draw", "most"), [("uniform", 0.065), ("heavy tails", 0.075), ("exponential", 0.12)])
def test_with_five_it_is_near_for_others(draw, most):
    assert size(draw, 5) <= most


def test_power():
    """A network six standard deviations off is found by five twins nearly always, and never on the other side."""
    values = np.random.default_rng(0).standard_normal((300, 5))
    assert np.mean([beyond_twins(6, row) <= 0.05 for row in values]) > 0.95
    assert not any(beyond_twins(-6, row) <= 0.05 for row in values)


def test_by_hand():
    assert beyond_twins(4, [-1, 0, 1]) == pytest.approx(stats.t.sf(4 / (4 / 3) ** 0.5, 2))
    assert beyond_twins(17.5, np.arange(19)) == 2 / 20  # one of them is larger
    assert beyond_twins(18, np.arange(19)) == 2 / 20  # or as large
    assert beyond_twins(20, np.arange(19)) == 1 / 20
    assert (beyond_twins(1, [0, 0, 0]), beyond_twins(0, [0, 0, 0])) == (0, 1)


@pytest.mark.parametrize(("value", "twins"), [(1, []), (1, [0]), (np.nan, [0, 1, 2]), (1, [0, np.nan, 2])])
def test_what_cannot_be_compared(value, twins):
    assert np.isnan(beyond_twins(value, twins))


def test_holm_by_hand():
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1; the last is no less than the one before."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.5]), [1, 1])
    np.testing.assert_allclose(holm([0.02]), [0.02])
    assert holm([]).shape == (0,)


def test_differences_by_hand():
    found, half = mean_difference([1.0, 2.0, 3.0]), 4.302653 / 3**0.5
    assert (found.value, found.low, found.high, found.df) == pytest.approx((2, 2 - half, 2 + half, 2))
    assert mean_difference([1.0, 2.0, 3.0]).against(0) is None
    assert mean_difference([2.0, 2.1, 2.2]).against(0) is True
    assert mean_difference([-2.0, -2.1, -2.2]).against(0) is False
    assert mean_difference([5.0]) == Estimate(5)
    assert mean_difference([5.0]).say() == "+5.00 (no interval)"
    assert mean_difference([1.0, 3.0]).say("+.1f") == "+2.0 [-10.7, +14.7]"
    assert mean_difference([np.nan, 1.0]).say() == "not recorded"


def test_what_shares_a_cluster_is_one():
    """Six networks of two seeds, whose differences are their seed's: means 1 and 3, of which t has one degree."""
    values, seeds = [1.0, 1.1, 0.9, 3.0, 3.1, 2.9], [0, 0, 0, 1, 1, 1]
    alone, together = mean_difference(values), mean_difference(values, seeds)
    assert alone.against(0) is True
    assert together.against(0) is None
    assert (together.value, together.low, together.high) == pytest.approx((2, 2 - 12.7062, 2 + 12.7062), abs=1e-3)


def test_p_values_are_of_the_interval_own_t():
    """2 with standard error 1 and one degree: arctan makes it .295, where a normal number would have .046."""
    found = mean_difference([1.0, 3.0])
    assert found.p_above(0) == pytest.approx(1 - 2 * np.arctan(2) / np.pi)
    assert found.p_above(0) == pytest.approx(stats.ttest_1samp([1.0, 3.0], 0).pvalue)
    assert (found.p_above(2), (-found).p_above(0), Estimate(np.nan).p_above(0)) == (1, 1, 1)
    assert Estimate(1.96, 0, 3.92).p_above(0) == pytest.approx(0.05, abs=1e-4)


def test_errors_add_in_square_with_their_degrees():
    """3 and 4 make 5; of degrees inf and 2, (9 + 16)^2 / (16^2 / 2) = 4.88."""
    found = with_errors(1.0, [(3.0, np.inf), (4.0, 2)])
    assert found.df == pytest.approx(4.8828125)
    assert found.high - 1 == pytest.approx(5 * stats.t.ppf(0.975, 4.8828125))
    assert with_errors(1.0, [(3.0, np.inf)]).high == pytest.approx(1 + 3 * 1.959964)
    assert with_errors(1.0, [(np.nan, 0)]) == Estimate(1.0)


def test_ranks_are_permuted_within_clusters():
    """Of 3 in order one of 6 orders is as good; of two such clusters one of 36. Between clusters nothing counts."""
    one = rank_correlation([1, 2, 3], [1, 8, 27], [0, 0, 0])
    assert (one.value, one.p_value, one.p_below) == (pytest.approx(1), pytest.approx(1 / 6, abs=0.015), 1)
    two = rank_correlation([1, 2, 3, 1, 2, 3], [1, 8, 27, 101, 108, 127], [0, 0, 0, 1, 1, 1])
    assert (two.value, two.p_value) == (pytest.approx(1), pytest.approx(1 / 36, abs=0.006))
    falling = rank_correlation([1, 2, 3, 11, 12, 13], [3, 2, 1, 13, 12, 11], [0, 0, 0, 1, 1, 1])
    assert (falling.value, falling.p_below) == (pytest.approx(-1), pytest.approx(1 / 36, abs=0.006))
    between = rank_correlation([1, 1.1, 2, 2.1, 3, 3.1], [1.1, 1, 2.1, 2, 3.1, 3], [0, 0, 1, 1, 2, 2])
    assert between.value == pytest.approx(-1)  # though over all of them it is .83
    assert np.isnan(rank_correlation([1, 1, 1], [3, 2, 1], [0, 0, 0]).value)
    assert rank_correlation([1, 2, 3], [3, np.nan, 1], [0, 0, 0]).p_value is None
    assert two.say() == f"+1.00 (p = {two.p_value:.2g})"


def test_networks_that_share_a_seed_make_no_trend():
    """Size of the test where what is shared by a seed is far larger than what is not."""
    rng = np.random.default_rng(0)
    p, seeds = np.tile(np.arange(5), 2), np.repeat([0, 1], 5)
    found = [rank_correlation(p, 10 * rng.standard_normal(2)[seeds] + rng.standard_normal(10), seeds).p_value
             for _ in range(400)]  # fmt: skip
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.035)


def test_a_statistic_among_its_draws():
    assert against_draws(2.0, [1, 2, 3]) == Estimate(2.0, p_value=3 / 4, p_below=3 / 4)
    assert against_draws(9.0, [1, 2, 3]) == Estimate(9.0, p_value=1 / 4, p_below=1)


def test_what_reaches_as_far_is_compared_by_hand():
    """Five layers, a boundary after 2: neighbours (2, 3) cross it and make 5, others 1; so do no other placements. Of
    what reaches over 3 layers, all cross it or none: (3, 5) makes 2, (1, 3) and (2, 4) 4 and 6."""
    spans = [(1, 2), (2, 3), (3, 4), (4, 5), (4, 5)]
    near = across_over_within(spans, [1, 5, 1, 0, 2], [2], 5)
    assert (near.value, near.p_value) == (pytest.approx(4), pytest.approx(1 / 4))
    far = across_over_within([*spans, (1, 3), (2, 4), (3, 5)], [1, 5, 1, 0, 2, 4, 6, 2], [2], 5)
    assert far.value == pytest.approx((4 * 3 / 4 + 3 * 2 / 3) / (3 / 4 + 2 / 3))
    assert np.isnan(across_over_within([(2, 3)], [5], [2], 5).value)
    other = across_over_within(spans, [1, 5, 1, 0, 2], [3], 5)
    assert (other.value, other.p_value) == (
        pytest.approx(1 - 7 / 3),
        1,
    )  # the least of all four, with two others


def test_operations_across_phases_keep_their_level():
    """Evenly spaced boundaries, too, of which the difference alone would call every ninth chance p < .05."""
    rng, spans = np.random.default_rng(0), list(combinations(range(1, 13), 2))
    found = [across_over_within(spans, rng.normal(size=66), [3, 6, 9], 12).p_value for _ in range(600)]
    assert np.mean(np.array(found) < 0.05) < 0.075


def drawn_fits(rng, fits, images, of_image, luck):
    """Which images fits name right, of one difficulty each, where fits differ by their luck."""
    return (rng.random((fits, images)) < of_image + luck * rng.standard_normal((fits, 1))).astype(float)


def test_a_contrast_covers_its_difference():
    """Two sides of three fits of one difficulty by image: their difference is 0, and the interval has it in 95 % of
    cases. Without the images, which both sides share, it would too; without the luck of fits in few."""
    rng, covered, by_images = np.random.default_rng(0), [], []
    for _ in range(2000):
        of_image = rng.uniform(0.2, 0.8, 500)
        one, other = (drawn_fits(rng, 3, 500, of_image, 0.03) for _ in range(2))
        covered.append(contrast(Side(1, one), Side(-1, other)).against(0) is None)
        paired = one.mean(0) - other.mean(0)
        by_images.append(abs(paired.mean()) < 1.96 * paired.std(ddof=1) / 500**0.5)
    assert np.mean(covered) == pytest.approx(0.965, abs=0.02)
    assert np.mean(by_images) < 0.75


def test_a_contrast_by_hand():
    """2 (mean of .5, .7) - .4 = .8; images 2 times .1 and once .2: .08; luck 4 (.02 / 2), and .01 of 8 degrees."""
    found = contrast(Side(2, [0.5, 0.7], 0.1), Side(-1, [0.4], 0.2, (0.01, 8)))
    variance = 4 * 0.01 + 0.04 + 4 * 0.02 / 2 + 0.01
    df = variance**2 / (0.04**2 / 1 + 0.01**2 / 8)
    assert found.value == pytest.approx(0.8)
    assert found.high - 0.8 == pytest.approx(stats.t.ppf(0.975, df) * variance**0.5)
    assert contrast(Side(1, [0.4])).against(0) is None  # one fit, whose luck is not known
    assert contrast(Side(1, [[0.0, 1.0]], luck=(0.0, np.inf))).value == 0.5


def test_the_largest_of_several_is_one_of_so_many():
    """Of three whose best is 3 standard errors above 0: three times its p, and the interval of .95 for all."""
    found = largest([Estimate(0, -1.959964, 1.959964), Estimate(3, 3 - 1.959964, 3 + 1.959964), Estimate(-9, -10, -8)])
    assert (found.value, found.p_value) == (3, pytest.approx(6 * stats.norm.sf(3), rel=1e-4))
    assert found.high - 3 == pytest.approx(stats.norm.ppf(1 - 0.025 / 3), rel=1e-4)
    assert largest([Estimate(0.1)]).p_above(0) == 1
    assert np.isnan(largest([]).value)


def test_a_share_of_placements_tells_both_sides():
    """Of 5 placements the second largest: .4 give as much, .8 as little."""
    assert placed(1.0, 0.4, 5) == Estimate(1.0, p_value=0.4, p_below=pytest.approx(0.8))
    assert placed(1.0, 0.2, 5).p_below == 1
