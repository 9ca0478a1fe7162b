"""Results of one kind held against each other, and drawn again, without computing."""

import csv
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import brdyn
from brdyn import UsageError, compare, segment
from brdyn.classifiers import ClassifierEvaluation, Grid
from brdyn.measures.dynamics import Dynamics
from brdyn.phases import LayerSimilarity
from brdyn.plots import draw, draw_comparison, themed
from brdyn.provenance import Provenance
from brdyn.reporting.rows import probe_rows
from tests.reporting.test_verdict import probed, splice
from tests.test_summaries import curve, grown, repair, surgery


def origin(model, layers=4, digest="a", size=(32, 32)):
    return Provenance(
        model=model, weights="a file", n_images=8, skipped=(), unlabelled={"count": 0, "first": []},
        details={
            "model": {"layers": layers, "width": 3, "position_rule": "none", "image_size": list(size)},
            "images": {"digest": digest}, "seconds": 2.0, "command": "brdyn it", "date": "today",
        },
    )  # fmt: skip


def similarity(blocks, model, **where):
    matrix = np.kron(np.eye(blocks), np.ones((2, 2)))
    return replace(segment(matrix, 2).similarity, provenance=origin(model, layers=2 * blocks, **where))


def phases(blocks, model, **where):
    found = similarity(blocks, model, **where)
    return replace(segment(found, 2), provenance=found.provenance)


def dynamics(speeds, model):
    rows = [*curve("speed", "cls", speeds, 1), *curve("norm", "cls", range(1, len(speeds) + 2))]
    rows += curve("turning", "cls", speeds[1:], 1)
    blocks = segment(np.eye(len(speeds)), 2)
    return Dynamics(pd.DataFrame(rows), blocks, {}, provenance=origin(model, layers=len(speeds)))


def test_a_table_has_a_column_for_each():
    found = compare(phases(2, "small"), phases(3, "large"))
    assert list(found.results) == ["small", "large"]
    rows = {row["number"]: (row["small"], row["large"]) for row in found.table()}
    assert rows["blocks"] == (4, 6)
    assert rows["images"] == (8, 8)
    assert rows["phases chosen"] == (2, 2)
    assert rows["boundaries after layer"] == ("2", "2")
    assert rows["best cut into 2: share cut"][0] == 1
    assert "model" not in rows
    assert found.notes() == []
    lines = found.summary().splitlines()
    assert lines[0] == f"small: {found.results['small'].answer()}"
    assert "phases chosen" in found.summary()


def test_what_differs_besides_is_said():
    found = compare(phases(2, "small"), phases(2, "large", digest="b", size=(64, 64)))
    assert found.notes() == [
        "the images are not the same: differences may be due to them",
        "the image sizes are not the same: differences may be due to them",
    ]


def told(result, **details):
    """The same with other details of its provenance, or images."""
    images = details.pop("images", None)
    found = replace(result, **({} if images is None else {"images": images}))
    where = origin("small")
    return replace(found, provenance=replace(where, details={**where.details, **details}))


@pytest.mark.parametrize(
    ("result", "first", "second", "what"),
    [
        (phases(2, "small"), {"dtype": "float32"}, {"dtype": "bfloat16"}, "precisions"),
        (surgery(("swap", (1, 2), 0.4)), {"apart": 1}, {"apart": None}, "distances that layers are swapped over"),
        (surgery(("shuffle", (1, 2), 0.4)), {"draws": 3}, {"draws": 5}, "numbers of shuffles"),
        (splice(0.5), {"calibration": {"digest": "a"}}, {"calibration": {"digest": "b"}},
         "images that maps were fitted to"),
        (probed(), {"images": {"test": {"digest": "a"}}}, {"images": {"test": {"digest": "b"}}}, "test images"),
        (probed(), {"protocol": "published"}, {"protocol": "held out"}, "protocols"),
    ],
)  # fmt: skip
def test_what_else_has_to_be_alike(result, first, second, what):
    said = f"the {what} are not the same: differences may be due to them"
    assert compare(told(result, **first), told(result, **second)).notes() == [said]
    assert compare(told(result, **first), told(result, **first)).notes() == []
    assert compare(told(result, **first), told(result)).notes() == []  # an earlier version did not write it


def test_classifiers_are_told_to_have_been_tested_on_other_images():
    scores = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "macro_f1": 0.45}
    one, other = (ClassifierEvaluation("resnet18", 1, "", {"images": 8, "digest": name}, scores) for name in "ab")
    grids = [Grid(pd.DataFrame(columns=["accuracy"]), (), test=result.test) for result in (one, other)]
    for first, second in ((one, other), grids):
        assert "the test images are not the same" in compare(first, second).notes()[0]
        assert compare(first, first).notes() == []


def test_runs_of_one_model_have_the_names_of_their_folders(tmp_path):
    for name in ("one", "two"):
        phases(2, "small").save(tmp_path / name)
    found = compare(tmp_path / "one", tmp_path / "two")
    assert list(found.results) == [str(tmp_path / "one"), str(tmp_path / "two")]
    assert found.table()[0]["number"] == "model"
    both = compare(phases(2, "small"), phases(2, "small"))
    assert list(both.results) == ["small 1", "small 2"]


def test_a_picture_of_several_names_the_model_the_images_and_their_size(tmp_path):
    """Of results that are told apart by their folders, too."""
    for name in ("one", "two"):
        phases(2, "small").save(tmp_path / name)
    pictures = draw_comparison(compare(tmp_path / "one", tmp_path / "two"))
    images = "small 8 images of 32 × 32 pixels"
    for axes, name in zip(pictures["similarity"].axes, ("one", "two"), strict=False):
        assert " ".join(axes.get_title().split()).endswith(f"{name}: {images}")
    said = [text.get_text() for text in pictures["steps"].legends[0].get_texts()]
    assert [one.partition(": ")[2] for one in said] == [images.replace(" ", ", ", 1)] * 2
    assert draw_comparison(compare(phases(2, "small"), phases(2, "large")))["similarity"].axes[0].get_title() == (
        "small\n8 images of 32 × 32 pixels"
    )


def test_numbers_of_curves_are_the_headlines():
    found = compare(dynamics([0.4, 0.2], "small"), dynamics([0.5, 0.3, 0.1], "large"))
    rows = {row["number"]: (row["small"], row["large"]) for row in found.table()}
    assert rows["cls: angular speed of the last update (radians)"] == (0.2, 0.1)
    assert rows["cls: norm at last"] == (3, 4)


def test_curves_lie_over_relative_depth_and_matrices_have_one_scale():
    speed, norm, turning = (
        draw_comparison(compare(dynamics([0.4, 0.2], "small"), dynamics([0.5, 0.3, 0.1, 0.2], "large")))[name]
        for name in ("speed", "norm", "turning")
    )
    small, large = speed.axes[0].lines
    assert small.get_xdata().tolist() == [0.5, 1]  # the update of block l at l / L
    assert large.get_xdata().tolist() == [0.25, 0.5, 0.75, 1]
    assert large.get_ydata().tolist() == [0.5, 0.3, 0.1, 0.2]
    assert norm.axes[0].lines[0].get_xdata().tolist() == [0, 0.5, 1]  # states
    assert turning.axes[0].lines[1].get_xdata().tolist() == [0.375, 0.625, 0.875]  # between two updates
    assert large.get_label() == "large, 8 images of 32 × 32 pixels"
    first, second = similarity(2, "small"), similarity(3, "large")
    second = replace(second, matrix=second.matrix - 0.5)
    drawn = draw_comparison(compare(first, second))["similarity"]
    assert {axes.images[0].get_clim() for axes in drawn.axes[:2]} == {(-0.5, 1)}


def test_probes_of_a_few_layers_lie_where_these_are_in_the_model():
    """Not where the last that was read lies."""
    first = replace(probed(), provenance=origin("small", layers=8))
    drawn = draw_comparison(compare(first, replace(first, provenance=origin("large", layers=12))))["probe"]
    small, large = drawn.axes[0].lines
    assert small.get_xdata().tolist() == [0.25, 0.375, 0.75]  # of layers 2, 3, 6
    assert large.get_xdata().tolist() == pytest.approx([1 / 6, 0.25, 0.5])
    assert {row["of"] for row in probe_rows("small", first)} == {8}
    assert probed().depth == 6  # not measured on a model


def test_growth_and_deletions_are_overlaid_and_swaps_lie_side_by_side():
    growth = draw_comparison(compare(repair(grown(0.2, "cls", [-1, -2])), repair(grown(0.2, "cls", [-3, -4, -5]))))
    assert [line.get_ydata().tolist() for line in growth["growth"].axes[0].lines] == [[-1, -2], [-3, -4, -5]]
    assert draw_comparison(compare(repair(grown(0.2, "cls", [1])), repair(grown(0.3, "cls", [1]), 0.3))) == {}
    rows = [("delete", (1,), 0.9), ("delete", (4,), 0.2), ("swap", (1, 2), 0.4)]
    pictures = draw_comparison(compare(surgery(*rows), surgery(*rows[:2])))
    assert set(pictures) == {"delete", "swap"}
    assert pictures["delete"].axes[0].lines[1].get_xdata().tolist() == [0.25, 1]
    assert len(pictures["swap"].axes) == 2  # one matrix, and the scale
    assert np.isnan(pictures["swap"].axes[0].images[0].get_array().filled(np.nan)[0, 0])  # with itself


def test_exchanges_lie_side_by_side_on_one_scale():
    drawn = draw_comparison(compare(splice(0.5), splice(1.5)))["exchange"]
    first, second = (axes.images[0] for axes in drawn.axes[:2])
    assert first.get_clim() == second.get_clim() == (0, 2)
    assert drawn.axes[0].get_xlabel() == "by the block of layer"
    assert drawn.axes[0].get_ylabel() == "replaced layer"
    assert drawn.axes[1].images[0].colorbar.extend == "neither"
    beyond = draw_comparison(compare(splice(0.5), splice(2.5)))["exchange"].axes[1].images[0]
    assert (beyond.get_clim(), beyond.colorbar.extend) == ((0, 2), "max")  # what is cut off is marked
    assert second.get_array().filled(np.nan)[0, 1] == pytest.approx(1.5)
    assert draw_comparison(compare(*[replace(splice(), table=splice().table.head(0))] * 2)) == {}


def test_probes_of_layers_are_overlaid():
    """Each layer alone, over relative depth; a panel for each task."""
    compared = compare(probed(), probed(), of_depth())
    classes, depth = draw_comparison(compared)["probe"].axes
    assert [line.get_ydata().tolist() for line in classes.lines] == [[0.4, 0.5, 0.7]] * 2
    assert classes.lines[0].get_xdata().tolist() == [2 / 6, 3 / 6, 1]
    assert [line.get_ydata().tolist() for line in depth.lines] == [[0.4, 0.5, 0.7]]
    assert [(one.get_ylabel(), one.get_title()) for one in (classes, depth)] == [
        ("accuracy", "classification, linear probe of each layer"), ("RMSE", "depth, linear probe of each layer")
    ]  # fmt: skip
    assert "what is measured is not the same (classification, depth)" in compared.notes()[-1]
    assert compare(probed(), probed()).notes() == []


def test_the_best_place_is_said_with_the_probe_that_found_it():
    both = pd.concat([probed().scores, probed().scores.assign(probe="knn")], ignore_index=True)
    assert "vit at layers 3+6 (phase ends) by linear: accuracy 80.0%" in replace(probed(), scores=both).answer()
    assert "vit at layers 3+6 (phase ends): accuracy 80.0%" in probed().answer()


def test_too_few_test_images_are_said_from_the_intervals():
    said = (
        "too few test images to tell layers apart (intervals of the largest and the least accuracy meet): vit, linear"
    )
    assert said in probed(half=0.2).remarks()
    assert said not in probed(half=0.1).remarks()


def of_depth():
    scores = probed().scores.assign(score="rmse")
    return replace(probed(), task="depth", words={"rmse": "RMSE"}, scores=scores)


def test_scores_of_a_layer_are_held_against_those_of_another_model():
    other = replace(probed(phase_ends=0.9), scores=probed(phase_ends=0.9).scores.assign(model="resnet"))
    rows = {row["number"]: list(row.values())[1:] for row in compare(probed(), other).table()}
    assert rows == {
        "linear, layer 2: accuracy": [0.4, 0.4], "linear, layer 3: accuracy": [0.5, 0.5],
        "linear, layer 6: accuracy": [0.7, 0.7], "linear, best single: accuracy": [0.7, 0.7],
        "linear, phase ends: accuracy": [0.8, 0.9],
        "linear, regular: accuracy": [pytest.approx(0.7), pytest.approx(0.8)],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([phases(2, "small")], "two results or more"),
        ([phases(2, "small"), dynamics([1.0, 2.0], "small")], "different kinds"),
        (["nowhere", "here"], "'nowhere' holds no result"),
    ],
)
def test_what_cannot_be_compared_is_refused(given, words):
    with pytest.raises(UsageError, match=words):
        compare(*given)


def test_a_comparison_is_written(tmp_path):
    found = compare(phases(2, "small"), phases(3, "large"))
    assert set(found.save(tmp_path / "out")) == {"compare.json", "compare.csv"}
    content = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert content["kind"] == "phases"
    assert content["results"]["large"]["answer"] == found.results["large"].answer()
    assert content["table"] == found.table()
    rows = list(csv.DictReader((tmp_path / "out" / "compare.csv").open()))
    assert rows[0] == {"number": "blocks", "small": "4", "large": "6"}
    with pytest.raises(UsageError, match="not empty"):
        found.save(tmp_path / "out")


def test_a_theme_changes_what_is_drawn_inside_and_nothing_after():
    def inks(figure):
        return {text.get_color() for text in figure.axes[0].get_xticklabels()}, figure.get_facecolor()

    found = phases(2, "small")
    before = draw(found)["gain_curve"]
    with themed("dark"):
        dark = draw(found)["gain_curve"]
    after = draw(found)["gain_curve"]
    assert inks(before) == inks(after) != inks(dark)
    assert sum(dark.get_facecolor()[:3]) < 0.5
    with themed("paper"):
        assert draw(found)["gain_curve"].axes[0].title.get_family() == ["serif"]
    with (
        pytest.raises(UsageError, match="unknown theme 'blue'; choose one of light, dark, paper"),
        themed("blue"),
    ):
        pass


@pytest.fixture
def folders(tmp_path):
    """Two folders of phases and one of dynamics."""
    phases(2, "small").save(tmp_path / "small")
    phases(3, "large").save(tmp_path / "large")
    dynamics([0.4, 0.2], "small").save(tmp_path / "dynamics")
    return tmp_path


def test_the_command_compares(run, folders, monkeypatch):
    monkeypatch.chdir(folders)
    done = run("compare", "small", "large")
    assert done.returncode == 0, done.stderr
    assert done.stdout == compare("small", "large").summary() + "\n"
    done = run("compare", "small", "large", "--out", "out", "--theme", "dark", "--format", "svg", "--json")
    said = json.loads(done.stdout)
    assert said["table"] == compare("small", "large").table()
    assert {path.name for path in (folders / "out").iterdir()} == set(said["files"])
    assert set(said["files"]) == {"compare.json", "compare.csv", "similarity.svg", "steps.svg"}
    for arguments, words in (
        (["small"], "two results or more"),
        (["small", "dynamics"], "'small' is one of brdyn phases and 'dynamics' is one of brdyn dynamics"),
        (["small", "large", "--theme", "blue"], "unknown theme 'blue'"),
        (["small", "large", "--format", "bmp"], "unknown picture format 'bmp'"),
        (["small", "large", "--out", "out"], "not empty"),
        (["small", "large", "--out", "small", "--overwrite"], "brdyn compare writes to a folder of its own"),
        (["small", "none"], "no such folder"),
    ):
        done = run("compare", *arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_command_draws_again(run, folders, monkeypatch):
    monkeypatch.chdir(folders)
    before = brdyn.read("small")
    done = run("plot", "small", "--format", "svg")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == before.answer()
    names = {"similarity.svg", "gain_curve.svg", "stability.svg", "steps.svg"}
    assert {path.name for path in (folders / "small").iterdir()} == {"phases.json", *names}
    assert names < set(json.loads((folders / "small" / "phases.json").read_text())["files"])
    assert brdyn.read("small") == before
    assert brdyn.read("small").provenance == before.provenance
    assert run("plot", "small/phases.json", "--theme", "dark", "--out", "slides").returncode == 0
    assert len(list((folders / "slides").iterdir())) == 4
    for arguments, words in (
        (["small", "--out", "slides"], "holds steps.png already"),
        (["small", "--format", "pdf", "--out", "large"], "holds phases.json already; choose another --out"),
        (["none"], "no such folder"),
        (["slides"], "holds no result"),
        (["small", "--theme", "blue"], "unknown theme 'blue'"),
        ([], "Missing argument"),
    ):
        done = run("plot", *arguments)
        assert done.returncode == 2
        assert words in done.stderr


def test_a_similarity_alone_is_compared_too():
    assert isinstance(compare(similarity(2, "small"), similarity(2, "large")).results["small"], LayerSimilarity)
