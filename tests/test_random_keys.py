"""Random choices by position: reproducible, uniform, independent of how the positions come."""

import numpy as np

from brdyn.random_keys import one_in, random_keys, random_tokens


def test_keys_depend_on_unit_and_seed_alone():
    whole = random_keys(np.arange(1000), 3)
    np.testing.assert_array_equal(random_keys(np.arange(500, 510), 3), whole[500:510])
    assert len(set(whole.tolist())) == 1000
    assert (whole != random_keys(np.arange(1000), 4)).all()


def test_keys_are_uniform():
    shares = random_keys(np.arange(20_000), 0) / 2**64
    counts = np.histogram(shares, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square, 19 degrees, p = 0.001
    assert abs(np.corrcoef(shares[:-1], shares[1:])[0, 1]) < 0.03


def test_tokens_are_drawn_without_repetition_and_evenly():
    tokens = random_tokens(np.arange(4000), 10, 3, 0)
    assert tokens.shape == (4000, 3)
    assert (np.diff(tokens, axis=1) > 0).all()
    counts = np.bincount(tokens.ravel(), minlength=10)
    assert abs(counts - 1200).max() < 5 * np.sqrt(4000 * 0.3 * 0.7)
    np.testing.assert_array_equal(random_tokens(np.array([7]), 10, 3, 0)[0], tokens[7])
    np.testing.assert_array_equal(random_tokens(np.arange(2), 3, 5, 0), [[0, 1, 2], [0, 1, 2]])


def test_one_in_every_run_of_positions():
    """Exactly one of each five, by chance and by the seed, and the same whoever asks."""
    positions = np.arange(5000)
    drawn = one_in(5, positions, seed=3)
    assert (drawn.reshape(-1, 5).sum(1) == 1).all()
    counts = drawn.reshape(-1, 5).sum(0)
    assert abs(counts - 200).max() < 5 * (1000 * 0.2 * 0.8) ** 0.5
    np.testing.assert_array_equal(one_in(5, positions[::-7], seed=3), drawn[::-7])
    assert 0.1 < (drawn & one_in(5, positions, seed=4)).sum() / 1000 < 0.3
