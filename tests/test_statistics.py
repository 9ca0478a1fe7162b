"""Numbers beside those of untrained twins, and several tests at once."""

import numpy as np
import pytest
from scipy import stats

from analyses.statistics import beyond_twins, holm

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


@pytest.mark.parametrize(
    ("draw", "most"), [("uniform", 0.065), ("heavy tails", 0.075), ("exponential", 0.12)]
)
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
