"""What is different from untrained twins: as often as not by chance, and surely where all numbers are."""

import numpy as np
import pytest

from brdyn.reporting.apart import of_twins


class Beside:
    """A result of these numbers: of the model in the first column, of its twins in the others."""

    def __init__(self, values):
        self.values = values

    def beside(self):
        """Each number by its row."""
        return {str(number): (row[0], row[1:]) for number, row in enumerate(self.values)}


def drawn(rng, numbers, twins, shared):
    """Numbers of networks that are drawn alike: correlated among each other by `shared`."""
    common, own = rng.standard_normal((1, twins + 1)), rng.standard_normal((numbers, twins + 1))
    return 10 + np.sqrt(shared) * common + np.sqrt(1 - shared) * own


@pytest.mark.parametrize("shared", [0, 0.5, 0.9])
@pytest.mark.parametrize(("numbers", "twins"), [(20, 19), (60, 19), (40, 39)])
def test_an_untrained_network_is_different_once_in_twenty(numbers, twins, shared):
    """At most, and within 3 standard errors of 400 draws."""
    rng = np.random.default_rng(0)
    answers = [of_twins([Beside(drawn(rng, numbers, twins, shared))]).answer for _ in range(400)]
    assert answers.count("yes") / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_one_that_is_far_off_is_different():
    """In all numbers; by too few twins nothing is told."""
    values = drawn(np.random.default_rng(0), 20, 19, 0.5)
    values[:, 0] += 9
    assert of_twins([Beside(values)]).answer == "yes"
    few = of_twins([Beside(values[:, :19])])
    assert (few.answer, few.change) == ("unclear", "more twins: 19 are the fewest for p = .05")


def test_a_number_that_several_share_is_outside_of_none():
    values = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 2.0, 3.0]])
    found = of_twins([Beside(values)])
    assert found.short == "2 of 3 outside"
    assert "and 2 at most of a twin outside all other networks: p = 0.67" in found.sentence
