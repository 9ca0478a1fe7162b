"""Results own their format: what is saved comes back, whoever wrote it, and what is no result is said in a line."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import brdyn
from brdyn.classifiers import (
    Classifier,
    ClassifierRecipe,
    ClassifierRun,
    evaluate_classifier,
    load_pixels,
    parse_grid,
    train_grid,
)
from brdyn.data import load_images
from brdyn.errors import UsageError
from brdyn.measures.dynamics import Dynamics, token_dynamics
from brdyn.measures.norm import TokenNorm
from brdyn.measures.null import Null
from brdyn.plots import draw
from brdyn.probes import probe_layers
from brdyn.raptor import FitSettings, evaluate, fit_raptor, raptor_ranks
from brdyn.reporting import ReportSettings
from brdyn.reporting.assemble import assemble
from brdyn.reporting.found import Found
from brdyn.reporting.speed import Speed
from brdyn.result import READABLE, Result, result_class
from brdyn.trajectory import Stream
from tests.conftest import tiny_vit

STREAM = Stream(workers=0)
CLASSIFIERS = ("train.json", "vitrm_eval.json", "grid.json")
OF_NONE = (*CLASSIFIERS, "report.json")  # whose provenance names no images
SETTINGS = FitSettings(stage1_steps=2, stage2_steps=1, batch_size=4, mlp="gelu", mlp_ratio=1.0, validation_images=0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes of ten pictures each."""
    from PIL import Image

    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    for name in ("a", "b"):
        (root / name).mkdir()
        for index in range(10):
            low = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(low).resize((36, 36)).save(root / name / f"{index}.png")
    return root


def run_of(network, **built):
    """A short training of a small network."""
    recipe = ClassifierRecipe(epochs=1, batch_size=10, operations=0, validate_every=1)
    built = {"width": 8, "depth": 1, "heads": 1, "hidden": 8, **built}
    return ClassifierRun(network=network, recipe=recipe, image_size=8, built=built)


@pytest.fixture(scope="module")
def results(pictures):
    """One result of every kind, by the name of its file."""
    pixels = load_pixels(pictures, 8, workers=0)
    training = run_of("vitrm").train(pixels, pixels)
    model = tiny_vit()
    images = load_images(pictures, model)
    similarity = brdyn.layer_similarity(model, images, replicates=20, stream=STREAM)
    phases = brdyn.segment(similarity, 2, method="recursive")
    fit = fit_raptor(model, images, phases, SETTINGS, workers=0)
    speed = Speed(10.0, 4, 0.01, (0.25,) * 4)
    one = Found("tiny", "tiny", False, {"phases": phases}, {"perturb": "why"}, speed)
    found = [
        assemble([one], ReportSettings(size="fast"), "cpu"),
        similarity,
        phases,
        brdyn.token_dynamics(model, images, phases, stream=STREAM),
        brdyn.perturbation_repair(model, images, phases, eps=[0.1], stream=STREAM),
        brdyn.layer_surgery(model, images, phases, stream=STREAM),
        brdyn.splice_skill(model, images, phases, stream=STREAM),
        brdyn.probe_images(model, images, seeds=2, stream=STREAM),
        fit,
        evaluate(fit.raptor, images, *images.split(5, 0), seeds=1, stream=STREAM, beyond=2),
        raptor_ranks(model, images, {"halves": [0, 0, 1, 1]}, [0, 16], stream=STREAM),
        probe_layers(model, *images.split(5, 0), layers="2,4", seeds=1, stream=STREAM),
        training,
        evaluate_classifier(training.classifier, pixels, most=2, beyond=2),
        train_grid(run_of("vitrm"), parse_grid(["n=1,2"]), pixels, pixels),
    ]
    return {one.FILE: one for one in found}


def test_there_is_one_of_every_kind(results):
    assert set(results) == set(READABLE)
    assert all(result_class(name) is type(result) for name, result in results.items())


@pytest.mark.parametrize("name", sorted(READABLE))
def test_what_is_saved_comes_back(name, results, tmp_path):
    """The numbers, where they come from, what is printed, and the pictures that can be drawn."""
    result = results[name]
    result.save(tmp_path / "out", figures=draw(result), formats=("svg",))
    again = brdyn.read(tmp_path / "out")
    assert type(again) is type(result)
    assert again == result
    assert again.provenance.header() == json.loads(json.dumps(result.provenance.header()))
    assert again.summary() == result.summary()
    assert brdyn.compare(result, again).notes() == []
    assert set(draw(again)) == set(draw(result))
    content = json.loads((tmp_path / "out" / name).read_text())
    assert content["schema"] == type(result).SCHEMA
    assert content["files"] == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert content["provenance"]["command"]
    assert name in OF_NONE or content["provenance"]["images"]["read"] > 0
    assert type(result).read(tmp_path / "out" / name) == result


@pytest.mark.parametrize("name", sorted(READABLE))
def test_two_results_are_equal_where_their_numbers_are(name, results):
    result = results[name]
    others = [other for file, other in results.items() if file != name]
    assert result == result
    assert all(result != other for other in others)
    assert result != "a word"
    assert len(repr(result)) < 200
    assert repr(result).startswith(f"{type(result).__name__}(")


@pytest.mark.parametrize("name", sorted(READABLE))
def test_no_number_of_a_comparison_stands_for_another(name, results):
    """Rows that are told apart by a number alone, such as a rank, are rows of a comparison, too."""
    result = results[name]
    if type(result).numbers is Result.numbers:
        told = [value for row in result.overview() for name, value in row.items()
                if not isinstance(value, str) and name not in result.ROW_OF]  # fmt: skip
        assert list(result.numbers().values()) == pytest.approx(told, nan_ok=True)


def test_rows_of_a_comparison_say_which_they_are(results):
    numbers = {name: list(result.numbers()) for name, result in results.items()}
    assert {"steps 1: accuracy", "steps 2: accuracy"} <= set(numbers["vitrm_eval.json"])
    assert "n 2, n sup 1: accuracy" in numbers["grid.json"]
    assert "halves, fitted False, rank 16: skill" in numbers["raptor_rank.json"]
    assert "stage 1, block 1: loss" in numbers["fit.json"]


@pytest.mark.parametrize(("entry", "what"), [("data", "images"), ("test", "test images")])
def test_trainings_on_other_images_are_told(entry, what, results):
    training = results["train.json"]
    other = {**training.options, entry: {**training.options[entry], "digest": "another"}}
    said = f"the {what} are not the same: differences may be due to them"
    assert brdyn.compare(training, replace(training, options=other)).notes() == [said]


def test_another_k_is_another_result(results):
    phases = results["phases.json"]
    assert phases.with_k(3) != phases
    assert phases.with_k(3).with_k(2).boundaries == phases.boundaries


@pytest.mark.parametrize("name", sorted(READABLE))
def test_a_folder_of_the_first_version_reads(name, results, tmp_path):
    """It had neither `schema` nor a word on its kind."""
    results[name].save(tmp_path / "out")
    path = tmp_path / "out" / name
    content = json.loads(path.read_text())
    del content["schema"]
    path.write_text(json.dumps(content))
    assert brdyn.read(tmp_path / "out") == results[name]


def test_updates_that_were_counted_from_0_are_read_from_1(results, tmp_path):
    """In the table of the model and in that of its twins, as schema 1 of dynamics has them."""
    found = results["dynamics.json"]
    depth = found.phases.layers
    assert found.table.query("statistic == 'speed' and group == 'cls'")["layer"].tolist() == [*range(1, depth + 1)]
    assert found.table.query("statistic == 'norm' and group == 'cls'")["layer"].tolist() == [*range(depth + 1)]
    found = replace(found, null=Null(("random",), {"dynamics": found.table.assign(twin=1)}))
    found.save(tmp_path / "out")
    path = tmp_path / "out" / "dynamics.json"
    content = json.loads(path.read_text())
    first = found.table.groupby("statistic")["layer"].min()
    of_updates = {name for name in first[first == 1].index if not name.startswith("estimation")}
    for one in content["table"]:
        one["layer"] -= one["statistic"] in of_updates
    path.write_text(json.dumps({**content, "schema": 1}))
    twins = pd.read_parquet(path.with_name("null_dynamics.parquet"))
    twins.assign(layer=twins["layer"] - twins["statistic"].isin(of_updates)).to_parquet(
        path.with_name("null_dynamics.parquet")
    )
    again = brdyn.read(tmp_path / "out")
    assert again == found
    assert again.null.tables["dynamics"]["layer"].tolist() == found.table["layer"].tolist()


def test_a_raptor_is_loaded_from_its_folder_when_it_is_asked_for(results, tmp_path, monkeypatch):
    fit = results["fit.json"]
    fit.save(tmp_path / "out")
    again = brdyn.read(tmp_path / "out")
    asked = []

    def load(name):
        asked.append(name)
        return fit.raptor

    monkeypatch.setattr("brdyn.raptor.fit.load_model", load)
    assert again.histories == fit.histories
    assert not asked
    assert again.raptor is again.raptor
    assert asked == [str(tmp_path / "out")]


def test_a_classifier_is_loaded_from_its_folder_when_it_is_asked_for(results, tmp_path, monkeypatch):
    training, asked = results["train.json"], []
    training.save(tmp_path / "out")
    read = Classifier.from_pretrained
    monkeypatch.setattr(Classifier, "from_pretrained", lambda place: asked.append(place) or read(place))
    again = brdyn.read(tmp_path / "out")
    assert again.history == training.history
    assert not asked
    again.save(tmp_path / "copy")
    assert asked == [str(tmp_path / "out")]
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (
        tmp_path / "out" / "model.safetensors"
    ).read_bytes()
    assert json.loads((tmp_path / "copy" / "config.json").read_text())["trained"] == training.options


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_what_is_written_of_classifiers(name, results, tmp_path):
    """Where the entries stand that other programs read; numbers are those of the result."""
    result = results[name]
    result.save(tmp_path / "out")
    content = json.loads((tmp_path / "out" / name).read_text())
    assert list(content["provenance"]) == ["command", "date", "versions", "device"]
    for entry in ("schema", "files", "provenance"):
        del content[entry]
    if name == "train.json":
        assert list(content) == ["network", "parameters", "flops", "test", "accuracy", "kept", "skipped",
                                 "unlabelled", "options", "history", "seconds"]  # fmt: skip
        assert content["accuracy"] == result.accuracy
        assert content["flops"] == result.classifier.flops()
        assert content["seconds"] == round(result.history.seconds, 1)
        assert content["test"] == content["options"]["test"]
        assert [row["step"] for row in content["history"]["validation"]] == [1, 2]
    elif name == "grid.json":
        assert list(content) == ["cells", "asked", "failed", "test"]
        assert [row["n"] for row in content["cells"]] == [1, 2]
        assert content["asked"] == ["n1", "n2"]
    else:
        assert list(content) == ["network", "parameters", "digest", "flops", "test", "skipped", "unlabelled",
                                 "n_images", "steps", "halting", "adaptive", "beyond"]  # fmt: skip
        assert [row["steps"] for row in content["steps"]] == [1, 2]
        assert [row["gflop"] > 0 for row in content["steps"]] == [True, True]


def test_a_classifier_without_recursion_comes_back(pictures, tmp_path):
    pixels = load_pixels(pictures, 8, workers=0)
    found = evaluate_classifier(run_of("vit-tiny12").untrained(pixels), pixels)
    found.save(tmp_path / "out", figures=draw(found))
    again = brdyn.read(tmp_path / "out")
    assert again == found
    assert again.recursion is None
    assert again.scores == found.scores
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["vitrm_eval.json"]
    path = tmp_path / "out" / "vitrm_eval.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "accuracy": "much"}))
    with pytest.raises(UsageError, match='accuracy is "much" instead of a number'):
        brdyn.read(tmp_path / "out")


def test_a_grid_that_is_not_done_comes_back(results, tmp_path):
    whole = results["grid.json"]
    none = type(whole)(whole.cells[:0], whole.asked, {"n1": "the loss is not finite"})
    none.save(tmp_path / "out", figures=draw(none))
    again = brdyn.read(tmp_path / "out")
    assert again == none
    assert list(again.cells) == list(whole.cells)
    assert draw(again) == {}
    assert again.summary() == "0 of 2 runs\n\nn1 failed: the loss is not finite"


def test_what_is_no_result(results, tmp_path):
    for name in ("phases.json", "dynamics.json"):
        results[name].save(tmp_path / name.split(".")[0])
    phases, dynamics = tmp_path / "phases", tmp_path / "dynamics"
    with pytest.raises(UsageError, match=r"holds no result of brdyn dynamics but one of brdyn phases \(phases.json\)"):
        Dynamics.read(phases)
    with pytest.raises(UsageError, match=r"is a result of brdyn phases, and one of brdyn dynamics is expected"):
        Dynamics.read(phases / "phases.json")
    with pytest.raises(UsageError, match="there is no such folder"):
        brdyn.read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"holds no result of brdyn$"):
        brdyn.read(tmp_path / "empty")
    shutil.copy(phases / "phases.json", dynamics)
    with pytest.raises(UsageError, match=r"several results \(phases.json, dynamics.json\); give the file of one"):
        brdyn.read(dynamics)
    assert brdyn.read(dynamics / "dynamics.json") == results["dynamics.json"]


def test_a_result_that_may_not_be_looked_at(results, tmp_path, forbid):
    results["phases.json"].save(tmp_path / "runs" / "phases")
    forbid(tmp_path / "runs")
    for place in (
        tmp_path / "runs",
        tmp_path / "runs" / "phases",
        tmp_path / "runs" / "phases" / "phases.json",
    ):
        for read in (brdyn.read, type(results["phases.json"]).read):
            with pytest.raises(UsageError, match=r"runs.*permission denied"):
                read(place)


@pytest.mark.usefixtures("undrawn")
def test_half_removed_and_newer(results, tmp_path):
    results["dynamics.json"].save(tmp_path / "out", figures=draw(results["dynamics.json"]))
    out = tmp_path / "out"
    for picture in out.glob("*.png"):  # that can be drawn again
        picture.unlink()
    assert brdyn.read(out) == results["dynamics.json"]
    (out / "spectrum.parquet").unlink()
    with pytest.raises(UsageError, match=r"dynamics in '.*out' is half removed: .* names spectrum.parquet"):
        brdyn.read(out)
    (out / "dynamics.json").unlink()
    with pytest.raises(UsageError, match=r"\(basins.parquet is there, but not the JSON file that it belongs to\)"):
        brdyn.read(out)
    results["phases.json"].save(tmp_path / "newer")
    path = tmp_path / "newer" / "phases.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(UsageError, match=r"written by a newer brdyn \(schema 99, and this one reads up to 1\)"):
        brdyn.read(tmp_path / "newer")


def test_a_folder_with_a_result_is_not_written_over(results, tmp_path):
    similarity = results["similarity.json"]
    similarity.save(tmp_path / "out")
    with pytest.raises(UsageError, match="not empty"):
        similarity.save(tmp_path / "out")
    similarity.save(tmp_path / "out", overwrite=True)
    with pytest.raises(UsageError, match=r"holds the result of brdyn.layer_similarity"):
        results["phases.json"].save(tmp_path / "out", overwrite=True)
    with pytest.raises(UsageError, match="unknown picture format 'gif'"):
        similarity.save(tmp_path / "other", formats=("gif",))
    assert brdyn.read(tmp_path / "out") == similarity
    assert not (tmp_path / "other").exists()


class Sparsity(TokenNorm):
    """A measure from outside the library: the share of units below zero, of cls alone."""

    def statistics(self):
        return (type(super().statistics()[0])("sparsity", "share of units below zero", 0, self.depth + 1),)

    def groups(self):
        return ("cls",)

    def per_image(self, trajectory):
        states = torch.stack([state[:, 0] for state in trajectory.states])
        return {("sparsity", "cls"): (states < 0).double().mean(-1)}

    @classmethod
    def missing(cls, images):
        return "sparsity needs four images" if len(images) < 4 else None


def test_a_measure_is_one_class_and_one_line(pictures, monkeypatch, tmp_path, capfd):
    """Registered from here, it is in the command's table, JSON, pictures, summary, and says what it needs."""
    import sys

    from brdyn import choices
    from brdyn.cli import main

    monkeypatch.setitem(choices.MEASURES, "sparsity", "tests.test_result:Sparsity")
    model = tiny_vit()
    images = load_images(pictures, model)
    found = token_dynamics(model, images, measures=["sparsity"], k=2, stream=STREAM)
    states = brdyn.capture(model, next(images.batches(20, workers=0))).states
    expected = [float((state[:, 0] < 0).double().mean()) for state in states]
    assert found.curve("sparsity", "cls") == pytest.approx(np.array(expected))
    with pytest.raises(UsageError, match="sparsity needs four images"):
        token_dynamics(model, load_images(pictures, model, n=3), measures=["sparsity"], stream=STREAM)
    few = token_dynamics(model, load_images(pictures, model, n=3), stream=STREAM)
    assert few.left_out["sparsity"] == "sparsity needs four images"

    out = tmp_path / "out"
    arguments = ["dynamics", "--model", "vit_tiny_patch16_224", "--init", "random", "--image-size", "32"]
    arguments += ["--images", pictures, "--measures", "sparsity", "--k", "2", "--workers", "0", "--out", out]
    monkeypatch.setattr(sys, "argv", ["brdyn", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    answer, row, *_ = (line for line in capfd.readouterr().out.splitlines() if line.startswith("sparsity"))
    assert answer.startswith("sparsity at last: cls 0.")
    assert row.split()[:2] == ["sparsity", "cls"]
    assert "state " in row
    content = json.loads((out / "dynamics.json").read_text())
    assert len(content["sparsity"]["cls"]) == 13
    assert (out / "sparsity.png").is_file()


def test_results_are_public(results):
    assert all(isinstance(result, Result) for result in results.values())
    assert {"read", "Result", "Stream", "raptor", "classifiers", "probes"} <= set(dir(brdyn))
