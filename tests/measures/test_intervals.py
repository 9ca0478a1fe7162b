"""Intervals of means of few values."""

import numpy as np
import pytest
import torch
from scipy import stats

from brdyn.measures.intervals import of_mean
from brdyn.raptor.ranks import skill_of


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_intervals_of_few_normal_values_cover_their_mean_as_often_as_said(n):
    draws = np.random.default_rng(n).normal(size=(20_000, n))
    low, high = of_mean(draws.mean(1), draws.std(1, ddof=1), n)
    assert ((low <= 0) & (high >= 0)).mean() == pytest.approx(0.95, abs=0.006)


def test_numbers_arrays_and_tensors_have_the_same_interval():
    n = np.array([2.0, 9.0])
    expected = stats.t.ppf(0.975, n - 1) / n**0.5
    np.testing.assert_allclose([of_mean(0.0, 1.0, int(one))[1] for one in n], expected)
    np.testing.assert_allclose(of_mean(np.zeros(2), np.ones(2), n)[1], expected)
    np.testing.assert_allclose(of_mean(torch.zeros(2), torch.ones(2), torch.from_numpy(n))[1], expected)


def test_fewer_than_two_values_have_no_interval():
    assert np.isnan(of_mean(1.0, 0.0, 1)).all()
    assert np.isnan(of_mean(np.full(2, np.nan), np.full(2, np.nan), np.array([0.0, 1.0]))).all()


def test_the_skill_of_few_images_has_the_interval_of_few():
    error, nothing = torch.tensor([1.0, 2.0, 3.0]), torch.full((3,), 4.0)
    half = stats.t.ppf(0.975, 2) * np.std([1, 2, 3], ddof=1) / 3**0.5 / 4
    assert skill_of(error, nothing) == pytest.approx((0.5, half))
