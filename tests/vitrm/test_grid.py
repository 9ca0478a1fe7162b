"""Which runs a grid asks for."""

import pytest

from brdyn.errors import UsageError
from brdyn.vitrm.grid import cell_name, parse_grid


def test_every_combination_once():
    cells = parse_grid(["n=1,3,3", "n_sup=2,4"])
    assert cells == [{"n": n, "n_sup": n_sup} for n in (1, 3) for n_sup in (2, 4)]
    assert [cell_name(cell) for cell in cells] == ["n1_n_sup2", "n1_n_sup4", "n3_n_sup2", "n3_n_sup4"]
    assert parse_grid(["n_sup=2,4", "n=1,3"]) == cells  # the same runs, in the same folders
    assert parse_grid(["n_sup=5"]) == [{"n_sup": 5}]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["n"], "'n' is not one of n=1,2,…"),
        (["depth=1"], "'depth=1' is not one of"),
        (["T=2"], "'T=2' is not one of"),
        (["n=1", "n=2"], "names n twice"),
        (["n=1,x"], "positive whole numbers, as in n=1,2,3"),
        (["n=0"], "positive whole numbers"),
        (["n="], "positive whole numbers"),
    ],
)
def test_a_grid_that_cannot_be(words, message):
    with pytest.raises(UsageError, match=message):
        parse_grid(words)
