"""Which runs a grid asks for."""

import pytest

from brdyn.classifiers.grid import cell_name, parse_grid, rows_of, runs_of
from brdyn.classifiers.recipe import ClassifierRecipe
from brdyn.classifiers.training import ClassifierRun
from brdyn.errors import UsageError


def test_every_combination_once():
    cells = parse_grid(["n=1,3,3", "n_sup=2,4"])
    assert cells == [{"n": n, "n_sup": n_sup} for n in (1, 3) for n_sup in (2, 4)]
    assert [cell_name(cell) for cell in cells] == ["n1_n_sup2", "n1_n_sup4", "n3_n_sup2", "n3_n_sup4"]
    assert parse_grid(["n_sup=2,4", "n=1,3"]) == cells  # the same runs, in the same folders
    assert parse_grid(["n_sup=5"]) == [{"n_sup": 5}]


def test_cells_differ_from_the_run_in_n_and_n_sup_alone_and_come_back_as_rows():
    run = ClassifierRun(
        network="vitrm",
        recipe=ClassifierRecipe(),
        image_size=8,
        built={"latent_steps": 3, "width": 12},
        n_sup=4,
    )
    runs = runs_of(run, [{"n": 1}, {"n": 2, "n_sup": 5}])
    assert {name: (one.built, one.n_sup) for name, one in runs.items()} == {
        "n1": ({"latent_steps": 1, "width": 12}, 4),
        "n2_n_sup5": ({"latent_steps": 2, "width": 12}, 5),
    }
    done = {"accuracy": 0.5, "parameters": 7, "history": {"seconds": 2.0, "images_per_second": 9.0}}
    assert rows_of(runs, {"n2_n_sup5": done}) == [
        {"n": 2, "n_sup": 5, "accuracy": 0.5, "parameters": 7, "train_seconds": 2.0, "images_per_second": 9.0}
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["n"], "`grid='n'` is not one of n=1,2,…"),
        (["depth=1"], "`grid='depth=1'` is not one of"),
        (["T=2"], "`grid='T=2'` is not one of"),
        (["n=1", "n=2"], "names n twice"),
        (["n=1,x"], "positive whole numbers, as in n=1,2,3"),
        (["n=0"], "positive whole numbers"),
        (["n="], "positive whole numbers"),
    ],
)
def test_a_grid_that_cannot_be(words, message):
    with pytest.raises(UsageError, match=message):
        parse_grid(words)
