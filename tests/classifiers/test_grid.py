"""Which runs a grid asks for."""

import pytest

from brdyn.classifiers import ClassifierRecipe, ClassifierRun, ClassifierTraining, train_grid
from brdyn.classifiers.grid import cell_name, parse_grid, rows_of, runs_of
from brdyn.errors import BrdynError, UsageError
from brdyn.training import History
from tests.classifiers.small import NETWORKS, pictures, recipe


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
    done = ClassifierTraining(None, History(seconds=2.0, images_per_second=9.0), {}, 7, 0.5)
    assert rows_of(runs, {"n2_n_sup5": done}) == [
        {"n": 2, "n_sup": 5, "accuracy": 0.5, "parameters": 7, "train_seconds": 2.0, "images_per_second": 9.0}
    ]
    assert runs_of(ClassifierRun(network="vitrm", recipe=ClassifierRecipe()), [{"n_sup": 2}])["n_sup2"].built == {
        "latent_steps": 3
    }


RUN = ClassifierRun(network="vitrm", recipe=recipe(epochs=1), image_size=8, built=NETWORKS["vitrm"])


def test_a_grid_is_trained_cell_by_cell():
    """Each as a run of its own would be; what is there so far is shown after each."""
    seen = []
    grid = train_grid(RUN, parse_grid(["n=1,2"]), pictures(), pictures(30), visit=lambda *shown: seen.append(shown))
    alone = runs_of(RUN, [{"n": 2}])["n2"].train(pictures(), pictures(30))
    assert grid.cells["n"].tolist() == [1, 2]
    assert grid.cells["accuracy"].iloc[1] == alone.accuracy
    assert [(name, len(so_far.cells), training.accuracy) for name, so_far, training in seen] == [
        ("n1", 1, grid.cells["accuracy"].iloc[0]),
        ("n2", 2, alone.accuracy),
    ]
    best = grid.cells["accuracy"].max()
    assert grid.summary().startswith(f"2 of 2 runs; the best accuracy is {best:.2%}, with n=")


def test_what_is_done_is_not_trained_again_and_what_fails_is_told():
    done = ClassifierTraining(None, History(seconds=2.0, images_per_second=9.0), {}, 7, None)

    def train(name, run):
        assert name != "n1"
        raise BrdynError("the loss is not finite")

    grid = train_grid(RUN, parse_grid(["n=1,2"]), pictures(), done={"n1": done}, train=train)
    assert grid.cells["parameters"].tolist() == [7]
    assert grid.failed == {"n2": "the loss is not finite"}
    assert grid.answer() == "1 of 2 runs"
    assert grid.remarks() == ["n2 failed: the loss is not finite"]

    def refuse(name, run):
        raise UsageError("too few")

    with pytest.raises(UsageError, match="too few"):
        train_grid(RUN, parse_grid(["n=1"]), pictures(), train=refuse)


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
