"""`brdyn vitrm-train` as a user meets it."""

import json

import pytest

from brdyn.classifiers.saved import Classifier
from brdyn.errors import BrdynError
from brdyn.store import OutputFolder
from brdyn.training import Checkpoints
from tests.cli.commands import assert_one_line_error

SMALL = ["--width", "8", "--heads", "1", "--hidden", "8", "--depth", "1"]


@pytest.fixture
def train_options(labelled, tmp_path):
    return [
        "--data", labelled, "--test", labelled, "--image-size", "8", "--epochs", "1.5", "--batch-size", "10",
        "--workers", "0", "--checkpoint-every", "2", "--log-every", "1", "--out", tmp_path / "out",
    ]  # fmt: skip


@pytest.mark.parametrize("model", ["vitrm", "resnet18"])
def test_vitrm_train_writes_what_it_says(run, train_options, tmp_path, model):
    train_options += SMALL if model == "vitrm" else ["--shared-stages"]
    done = run("vitrm-train", "--model", model, *train_options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "config.json", "model.safetensors", "train.json", "train.png"
    }  # fmt: skip
    content = json.loads((out / "train.json").read_text())
    assert [row["step"] for row in content["history"]["losses"]] == [1, 2, 3, 4, 5, 6]
    assert 0 <= content["accuracy"] <= 1
    trained, config = Classifier.from_pretrained(out), json.loads((out / "config.json").read_text())
    for found in (content, config):
        assert (found["parameters"], found["flops"]) == (trained.parameters, trained.flops())
    assert config["options"].get("shared_stages", False) == (model == "resnet18")
    assert f"{trained.flops() / 1e9:.3g} GFLOP an image" in done.stdout
    assert content["options"]["recipe"]["ema"] == (0.999 if model == "vitrm" else 0)
    assert content["provenance"]["command"].startswith("brdyn vitrm-train")
    assert f"accuracy {content['accuracy']:.2%} on 40 test images" in done.stdout
    assert_one_line_error(run("vitrm-train", "--model", model, *train_options), 2, "--overwrite")
    assert_one_line_error(run("vitrm-train", "--model", model, *train_options, "--resume"), 2, "is finished")


@pytest.mark.parametrize(
    ("extra", "code", "words"),
    [
        (["--model", "vit-smal"], 2, ["unknown network 'vit-smal'"]),
        (
            ["--image-size", "30"],
            2,
            ["30x30 is not a multiple of the 4-pixel patch", "28 or 32"],
        ),
        (["--batch-size", "64"], 2, ["too few for a batch of 64"]),
        (
            ["--model", "resnet18", "--accumulate", "8"],
            2,
            ["two images at once", "a batch of 10 in 8 pieces", "--batch-size", "--accumulate"],
        ),
        (["--model", "resnet18", "--n-sup", "2"], 2, ["--n-sup and --recursion-steps are of vitrm"]),
        (["--previous"], 2, ["--previous goes with --resume"]),
        (["--data", "nowhere.parquet"], 2, ["no images at 'nowhere.parquet'"]),
        (["--magnitude", "40"], 2, ["magnitude 40"]),
        (["--dtype", "float16"], 2, ["float16"]),
        (["--epochs", "-1"], 2, ["epochs -1"]),
    ],
)
def test_training_that_cannot_be(run, train_options, tmp_path, extra, code, words):
    assert_one_line_error(run("vitrm-train", *train_options, *extra), code, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("undrawn")
def test_images_that_cannot_be_read_are_named(run, noise_folder, train_options, tmp_path):
    for number, path in enumerate(sorted(noise_folder.iterdir())):
        folder = tmp_path / "set" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes()
        (folder / path.name).write_bytes(data[: len(data) // 3] if number == 4 else data)
    options = [
        *train_options,
        *SMALL,
        "--data",
        tmp_path / "set",
        "--test",
        tmp_path / "set",
        "--epochs",
        "0.5",
    ]
    done = run("vitrm-train", *options)
    assert done.returncode == 0, done.stderr
    assert "skipped" in done.stdout
    assert "04.png" in done.stdout
    content = json.loads((tmp_path / "out" / "train.json").read_text())
    assert content["options"]["data"]["images"] == 39
    assert [name.endswith("04.png") for name, _ in content["skipped"]] == [True, True]


def test_images_without_labels(run, train_options, noise_folder):
    assert_one_line_error(run("vitrm-train", *train_options, "--data", noise_folder), 2, "has no labels")


@pytest.mark.parametrize("model", ["vitrm", "resnet18"])
def test_vitrm_eval_writes_what_it_says(run, train_options, labelled, tmp_path, model):
    train_options += SMALL if model == "vitrm" else []
    assert run("vitrm-train", "--model", model, *train_options, "--epochs", "0.5").returncode == 0
    options = [tmp_path / "out", "--data", labelled, "--workers", "0", "--out", tmp_path / "eval"]
    done = run("vitrm-eval", *options, *(["--most", "2"] if model == "vitrm" else []))
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "eval" / "vitrm_eval.json").read_text())
    names = {path.name for path in (tmp_path / "eval").iterdir()}
    if model == "vitrm":
        assert names == {"vitrm_eval.json", "recursion.png", "halting.png"}
        assert [row["steps"] for row in content["steps"]] == [1, 2]
        assert "halting above 0.5" in done.stdout
    else:
        assert names == {"vitrm_eval.json"}
        assert 0 <= content["low"] <= content["accuracy"] <= content["high"] <= 1
    assert_one_line_error(run("vitrm-eval", *options), 2, "--overwrite")
    elsewhere = [tmp_path / "eval", *options[1:-1], tmp_path / "other"]
    assert_one_line_error(run("vitrm-eval", *elsewhere), 2, "cannot read")
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_grid_goes_on_where_it_stopped(run, train_options, tmp_path):
    options = [*train_options, *SMALL, "--epochs", "0.5", "--grid", "n=1,2", "n_sup=1,2"]
    options += [
        "--seed",
        "1",
    ]  # of which the halting head is not sure from the start, and would end after one step
    done = run("vitrm-train", *options)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    names = [f"n{n}_n_sup{n_sup}" for n in (1, 2) for n_sup in (1, 2)]
    assert {path.name for path in out.iterdir()} == {"grid.json", "grid.png", *names}
    first = json.loads((out / "grid.json").read_text())
    assert [(row["n"], row["n_sup"]) for row in first["cells"]] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert (first["asked"], first["failed"]) == (names, {})
    weights = {name: (out / name / "model.safetensors").read_bytes() for name in names}
    assert len(set(weights.values())) == 4
    assert_one_line_error(run("vitrm-train", *options), 2, "--overwrite")

    for name in ("grid.json", "n2_n_sup1/train.json"):
        (out / name).unlink()
    kept = (out / names[0] / "train.json").stat().st_mtime_ns
    done = run("vitrm-train", *options, "--resume")
    assert done.returncode == 0, done.stderr
    assert (out / names[0] / "train.json").stat().st_mtime_ns == kept
    assert json.loads((out / "grid.json").read_text())["cells"][2]["accuracy"] == first["cells"][2]["accuracy"]
    assert weights["n2_n_sup1"] == (out / "n2_n_sup1" / "model.safetensors").read_bytes()
    changed = run("vitrm-train", *options, "--resume", "--lr", "0.1")
    assert_one_line_error(changed, 2, "recipe.lr: 0.0003 before, 0.1 now")
    fewer = run("vitrm-train", *options, "--resume", "--test", tmp_path / "noise")
    assert_one_line_error(fewer, 2, "has no labels")


@pytest.mark.usefixtures("undrawn")
def test_a_grid_takes_the_place_of_another(run, train_options, tmp_path):
    """Cells go that the other names and this one has not, but for what is nobody's result; no other folder goes."""
    out, options = tmp_path / "out", [*train_options, *SMALL, "--epochs", "0.5"]
    (tmp_path / "n9").mkdir()
    for name in ("n1_n_sup1", "n1_n_sup2", "n1"):
        with OutputFolder(out / name) as folder:
            folder.save("train.json", {"name": name}, others={"model.safetensors": b""})
            Checkpoints(out / name / "checkpoints", {}).save(1, 1, {}, {})
    (out / "n1_n_sup2" / "note.txt").write_text("mine")
    content = {"asked": ["n1_n_sup1", "n1_n_sup2", "../n9", 3]}
    (out / "grid.json").write_text(json.dumps({**content, "files": ["grid.json"]}))
    assert run("vitrm-train", *options, "--grid", "n=2", "--overwrite").returncode == 0
    assert {path.name for path in out.iterdir()} == {"grid.json", "grid.png", "n1", "n2", "n1_n_sup2"}
    assert [path.name for path in (out / "n1_n_sup2").iterdir()] == ["note.txt"]
    assert (out / "n1" / "train.json").is_file()
    assert (tmp_path / "n9").is_dir()


@pytest.mark.usefixtures("undrawn")
def test_a_cell_that_fails_does_not_stop_the_grid(run, train_options, tmp_path, monkeypatch):
    from brdyn.classifiers.training import ClassifierRun

    train = ClassifierRun.train

    def diverge(self, *arguments, **options):
        if self.built["latent_steps"] == 1:
            raise BrdynError("the loss is not finite")
        return train(self, *arguments, **options)

    options = [*train_options, *SMALL, "--epochs", "0.5", "--grid", "n=1,2"]
    monkeypatch.setattr(ClassifierRun, "train", diverge)
    assert_one_line_error(run("vitrm-train", *options), 1, "1 of 2 runs failed: n1 (the loss is not finite)")
    content = json.loads((tmp_path / "out" / "grid.json").read_text())
    assert [row["n"] for row in content["cells"]] == [2]
    assert content["failed"] == {"n1": "the loss is not finite"}
    monkeypatch.setattr(ClassifierRun, "train", train)
    assert run("vitrm-train", *options, "--resume").returncode == 0
    content = json.loads((tmp_path / "out" / "grid.json").read_text())
    assert ([row["n"] for row in content["cells"]], content["failed"]) == ([1, 2], {})


@pytest.mark.usefixtures("undrawn")
def test_a_run_begun_over_a_finished_one_is_gone_on_with(run, train_options, tmp_path, monkeypatch):
    options = [*train_options, *SMALL]
    assert run("vitrm-train", *options).returncode == 0
    expected = (tmp_path / "out" / "model.safetensors").read_bytes()
    save = Checkpoints.save

    def killed(self, stage, step, *state):
        save(self, stage, step, *state)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", killed)
    assert run("vitrm-train", *options, "--overwrite").returncode == 130
    monkeypatch.setattr(Checkpoints, "save", save)
    done = run("vitrm-train", *options, "--resume")
    assert done.returncode == 0, done.stderr
    assert "resuming from stage1-00000002" in done.stdout
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == expected
    history = json.loads((tmp_path / "out" / "train.json").read_text())["history"]
    assert history["images"] == 60
    assert history["images_per_second"] == pytest.approx(60 / history["seconds"])


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--grid", "n=0"], "positive whole numbers"),
        (["n_sup=2"], "takes no argument ('n_sup=2')"),
        (["--model", "vit-small", "--grid", "n=1"], "--grid is of vitrm"),
        (["--model", "resnet18", "--width", "8"], "--width: a resnet18 comes in one size"),
        (["--width", "10"], "width 10 cannot be split among 6 heads"),
        (["--model", "vit-smal"], "choose one of vitrm, vit-small"),
        (["--model", "vit-small", "--latent-steps", "2"], "--latent-steps and --no-sees-image are of vitrm"),
        (["--model", "resnet18", "--no-sees-image"], "--latent-steps and --no-sees-image are of vitrm"),
        (["--model", "resnet18", "--dropout", "0.2"], "--dropout: a resnet18 has none"),
        (["--shared-stages"], "--shared-stages is of ResNets, and this is vitrm"),
    ],
)
def test_sizes_and_grids_that_cannot_be(run, train_options, tmp_path, extra, words):
    assert_one_line_error(run("vitrm-train", *train_options, *extra), 2, words)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_trained_vitrm_in_the_other_commands(run, train_options, labelled, tmp_path):
    assert run("vitrm-train", *train_options, *SMALL, "--epochs", "0.5", "--n-sup", "2").returncode == 0
    model = ["--model", tmp_path / "out", "--images", labelled, "--workers", "0"]
    found = {}
    for command, extra in {
        "phases": [],
        "dynamics": ["--measures", "speed,turning,update"],
        "perturb": ["--n", "4", "--eps", "0.1"],
        "interventions": ["--n", "4", "--kinds", "delete"],
    }.items():
        done = run(command, *model, *extra, "--out", tmp_path / command)
        assert done.returncode == 0, done.stderr
        found[command] = json.loads((tmp_path / command / f"{command}.json").read_text())
    fit = ["--k", "2", "--steps", "2", "--batch-size", "4", "--out", tmp_path / "raptor"]
    assert run("raptor-fit", *model, *fit).returncode == 0
    again = ["--model", tmp_path / "raptor", *model[2:], "--out", tmp_path / "again"]
    assert run("phases", *again).returncode == 0
    assert found["phases"]["similarity"]["tokens"] == "y+z"
    assert len(found["phases"]["similarity"]["matrix"]) == 8  # two steps of three updates of z and one of y
    assert found["dynamics"]["speed"]["x"] == [0] * 8
    rank = found["dynamics"]["effective_rank"]
    assert [value is None for value in rank] == ([False] * 3 + [True]) * 2
