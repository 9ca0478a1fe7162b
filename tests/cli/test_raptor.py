"""`brdyn raptor-fit`, `raptor-eval` and `probe` as a user meets them."""

import hashlib
import json
import shutil

import pandas as pd
import pyarrow.parquet as pq
import pytest
import timm
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from brdyn.models import load_model
from brdyn.raptor import Evaluation
from tests.cli.commands import assert_one_line_error
from tests.forked import UNDRAWN, brdyn


@pytest.fixture
def fit_options(tiny_options):
    return [
        *tiny_options, "--image-size", "32", "--boundaries", "5", "--steps", "6", "--batch-size", "8",
        "--validation-images", "8", "--checkpoint-every", "2", "--log-every", "1", "--validate-every", "3",
    ]  # fmt: skip


@pytest.fixture
def narrow_options(narrow_folder, fit_options):
    """The same of a teacher that is narrower, for what does not hang on its weights' file."""
    return ["--model", narrow_folder, *fit_options[6:], "--image-size", "48"]


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


def test_raptor_fit_writes_what_it_says(run, fit_options, tmp_path):
    done = run("raptor-fit", *fit_options, "--tracker", "tensorboard")
    assert done.returncode == 0, done.stderr
    assert "2 blocks for 12 layers" in done.stdout
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "config.json", "model.safetensors", "fit.json", "fit.png", "tracker"
    }  # fmt: skip
    content = json.loads((out / "fit.json").read_text())
    assert [row["step"] for row in content["stages"]["1"]["losses"]] == [1, 2, 3]
    assert set(content["stages"]["2"]["validation"][-1]) == {
        "step", "r2 layer 5", "r2 layer 12", "skill layer 5", "skill layer 12"
    }  # fmt: skip
    assert content["options"]["recipe"]["stage1_steps"] == 3
    assert (content["n_images"], content["images_seen"]) == (40, 48)
    again = [*fit_options, "--resume"]
    assert_one_line_error(run("raptor-fit", *again), 2, "is finished")
    assert_one_line_error(run("raptor-fit", *fit_options), 2, "--overwrite")

    events = EventAccumulator(str(out / "tracker" / "fit")).Reload()
    assert [event.step for event in events.Scalars("stage 1/block 1")] == [1, 2, 3]
    assert [event.step for event in events.Scalars("stage 2/raptor")] == [4, 5, 6]  # counted on

    described = run("models", out)
    assert described.returncode == 0, described.stderr
    parameters = json.loads((out / "fit.json").read_text())["raptor"]["parameters"]
    assert "2 blocks shared by 12 layers" in described.stdout
    assert f"{parameters / 1e6:.1f} M" in described.stdout
    assert "float16 " not in run("raptor-fit", "--help").stdout.replace("bfloat16", "")

    teacher = fit_options[2:4]  # --weights FILE
    images = fit_options[6:8]
    images = [*images, "-n", "4", "--workers", "0", "--bootstrap", "0"]
    seen = run("phases", "--model", out, *teacher, *images, "--out", tmp_path / "phases", drawn=False)
    assert seen.returncode == 0, seen.stderr
    assert json.loads((tmp_path / "phases" / "phases.json").read_text())["layers"] == 12
    again = run("phases", "--model", out, *images, "--out", tmp_path / "p2", drawn=False)
    assert again.returncode == 0, again.stderr
    other = tmp_path / "other.safetensors"
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    save_file(model.state_dict(), other)
    wrong = ["--model", out, "--weights", other, *images, "--out", tmp_path / "p3"]
    assert_one_line_error(run("phases", *wrong), 2, "give the same weights")


def test_home_is_found_after_an_equals_sign(run, narrow_options, tmp_path, monkeypatch):
    """Where a shell leaves `~`: a finished fit is not begun again, and nothing lies in a folder of that name."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    options = [*narrow_options, "--out=~/fit", "--cache=~/states"]
    assert run("raptor-fit", *options, drawn=False).returncode == 0
    fit = (tmp_path / "home" / "fit" / "fit.json").read_bytes()
    assert_one_line_error(run("raptor-fit", *options, "--resume"), 2, "is finished")
    assert_one_line_error(run("raptor-fit", *options), 2, "is not empty")
    assert (tmp_path / "home" / "fit" / "fit.json").read_bytes() == fit
    drawn = run("plot", "~/fit", "--format", "svg", rendered=False)
    assert (drawn.returncode, (tmp_path / "home" / "fit" / "fit.svg").exists()) == (0, True), drawn.stderr
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["fit", "states"]
    assert not (tmp_path / "~").exists()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("killed_at", [1, 4])
def test_a_killed_raptor_fit_resumes_bit_for_bit(run, narrow_options, tmp_path, killed_at):
    """Kill -9 right after a checkpoint was written, in either stage; then go on."""
    assert brdyn(["raptor-fit", *narrow_options], before=UNDRAWN).returncode == 0
    expected = weights_of(tmp_path / "out")
    kill = (
        "import os, signal\n"
        "from brdyn.training import checkpoints\n"
        "save, count = checkpoints.Checkpoints.save, [0]\n"
        "def killing(*arguments):\n"
        "    save(*arguments)\n"
        "    count[0] += 1\n"
        f"    if count[0] == {killed_at}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoints.Checkpoints.save = killing\n"
    )
    killed = [*narrow_options, "--out", tmp_path / "killed"]
    assert brdyn(["raptor-fit", *killed], before=kill).returncode == -9
    kept = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").iterdir())
    assert kept == (["stage1-00000002"] if killed_at == 1 else ["stage2-00000002", "stage2-00000003"])
    changed = [*killed, "--resume", "--lr", "0.5"]
    assert_one_line_error(run("raptor-fit", *changed), 2, "recipe.lr: None before, 0.5 now")
    if killed_at == 4:
        state = tmp_path / "killed" / "checkpoints" / "stage2-00000003" / "state.safetensors"
        state.write_bytes(state.read_bytes()[:1000])
        assert_one_line_error(run("raptor-fit", *killed, "--resume"), 1, "damaged", "--previous goes on")
    # On as many threads as the killed process, whose sums were split alike.
    resumed = brdyn(["raptor-fit", *killed, "--resume", *(["--previous"] if killed_at == 4 else [])], before=UNDRAWN)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming from stage" in resumed.stdout
    assert weights_of(tmp_path / "killed") == expected


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--boundaries", "7,5"], ["boundaries 7, 5 do not increase"]),
        (["--boundaries", "a"], ["--boundaries 'a'"]),
        (["--boundaries", "3", "--k", "2"], ["drop --k"]),
        (["--partition", "best"], ["unknown partition 'best'"]),
        (["--batch-size", "64"], ["too few for a batch of 64"]),
        (["--validation-images", "40"], ["cannot be kept out of 40"]),
        (["--steps", "0"], ["--steps"]),
        (["--stage1-steps", "0", "--stage2-steps", "0"], ["at least one stage"]),
        (["--mlp", "relu"], ["unknown MLP 'relu'"]),
        (["--loss", "l1"], ["unknown loss 'l1'"]),
        (["--previous"], ["--previous goes with --resume"]),
        (["--tracker", "paper"], ["unknown tracker 'paper'"]),
        (["--dtype", "float16"], ["float16"]),
        (["--warmup", "2"], ["warmup 2.0 is not a share"]),
    ],
)
def test_fits_that_cannot_be(run, fit_options, tmp_path, extra, words):
    assert_one_line_error(run("raptor-fit", *fit_options, *extra), 2, *words)
    assert not (tmp_path / "out").exists()


def test_one_phase_cannot_lie_elsewhere(run, tiny_options):
    done = run("raptor-fit", *tiny_options, "--partition", "random-contiguous", "--k", "1")
    assert_one_line_error(done, 2, "1 phase of 12 layers can be placed in one way alone; use another k")


@pytest.fixture(scope="session")
def fitted(narrow_folder, tmp_path_factory):
    """A folder with a Raptor of the narrow model."""
    from brdyn.raptor.block import BlockConfig
    from brdyn.raptor.model import untrained

    teacher = load_model(str(narrow_folder))
    raptor = untrained(teacher, [0] * 5 + [1] * 7, BlockConfig(width=32, heads=2, layer_scale=0.1), seed=0)
    folder = tmp_path_factory.mktemp("fitted") / "raptor"
    raptor.save_pretrained(folder)
    return folder


def test_raptor_eval_writes_what_it_says(run, fitted, narrow_folder, noise_folder, labelled, tmp_path):
    out = tmp_path / "out"
    options = [fitted, "--images", noise_folder, "--workers", "0", "--out", out]
    probes = ["--probe-train", labelled, "--probe-n", "30", "--seeds", "2"]
    done = run("raptor-eval", *options, *probes)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for words in (
        "autoregressive  cls",
        "one-step        cls",
        "R² on its own way: cls ",
        "GFLOP",
        "raptor keeps",
        "by the k-NN probe",
    ):
        assert words in done.stdout
    assert {path.name for path in out.iterdir()} == {
        "raptor_eval.json",
        "fidelity.parquet",
        "fidelity.png",
        "skill.png",
    }
    content = json.loads((out / "raptor_eval.json").read_text())
    assert content["assignment"] == [0] * 5 + [1] * 7
    assert content["teacher"] == str(narrow_folder)
    found = Evaluation.read(out)
    table = pd.read_parquet(out / "fidelity.parquet")
    pd.testing.assert_frame_equal(found.fidelity.table, table, check_dtype=False)
    assert set(table["group"]) == {"cls", "patches", "all"}
    teacher, raptor = load_model(str(narrow_folder)), load_model(str(fitted))
    for blocks, said in (
        (raptor.shared, found.cost.block_parameters),
        (teacher.blocks, found.cost.teacher_block_parameters),
    ):
        assert said == sum(value.numel() for value in blocks.parameters())
    assert (found.probing.n_train, found.probing.n_test, found.probing.classes) == (24, 6, 3)
    assert len(found.probing.table) == 6
    assert_one_line_error(run("raptor-eval", *options), 2, "--overwrite")
    assert run("raptor-eval", *options, "--overwrite", drawn=False).returncode == 0
    assert Evaluation.read(out).probing is None


def test_evaluations_that_cannot_be(run, fitted, noise_folder, labelled, tmp_path):
    out = ["--images", noise_folder, "--workers", "0", "--out", tmp_path / "out"]
    assert_one_line_error(run("raptor-eval"), 2, "Missing argument 'RUN'")
    assert_one_line_error(run("raptor-eval", tmp_path / "none", *out), 2, "none")
    assert_one_line_error(run("raptor-eval", "vit_tiny_patch16_224", "--init", "random", *out), 2, "not a Raptor")
    assert_one_line_error(run("raptor-eval", fitted, *out, "--probe-test", labelled), 2, "go with --probe-train")
    assert_one_line_error(run("raptor-eval", fitted, *out, "--seeds", "0"), 2, "--seeds", "(it is '0')")
    assert_one_line_error(run("raptor-eval", fitted, *out, "--probe-train", noise_folder), 2, "images with labels")
    both = ["--probe-train", labelled, "--probe-test", noise_folder]
    assert_one_line_error(run("raptor-eval", fitted, *out, *both), 2, "images with labels")
    config = json.loads((fitted / "config.json").read_text())
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
    (tmp_path / "copy" / "model.safetensors").write_bytes((fitted / "model.safetensors").read_bytes()[:5000])
    assert_one_line_error(run("raptor-eval", tmp_path / "copy", *out), 1, "is the copy complete?")
    assert not (tmp_path / "out").exists()


def test_probe_writes_what_it_says(run, tiny_options, labelled, noise_folder, tmp_path):
    options = [*tiny_options, "--images", labelled]
    done = run("probe", *options, "--seeds", "1")
    assert done.returncode == 0, done.stderr
    assert "model  k-NN" in done.stdout
    content = json.loads((tmp_path / "out" / "probe.json").read_text())
    assert (content["probing"]["n_train"], content["probing"]["n_test"]) == (32, 8)
    assert content["n_images"] == 32
    other = tmp_path / "other.parquet"
    rows = pq.read_table(labelled)
    pq.write_table(rows.take(list(reversed(range(len(rows))))), other)
    again = run("probe", *options, "--test", other, "--test-n", "12", "--overwrite")
    assert again.returncode == 0, again.stderr
    second = json.loads((tmp_path / "out" / "probe.json").read_text())
    probing = second["probing"]
    assert (probing["n_train"], probing["n_test"]) == (40, 12)
    assert [second["images"][part]["read"] for part in ("train", "test")] == [40, 12]
    assert second["images"]["test"]["digest"] != second["images"]["train"]["digest"] != "0" * 64
    assert [row["seeds"] for row in probing["summary"]] == [1, 3]
    over = [*options, "--overwrite"]
    assert_one_line_error(run("probe", *over, "--test-n", "3"), 2, "--test-n goes with --test")
    assert_one_line_error(run("probe", *over, "--test", labelled), 2, "40 images are both to fit the probe and to test")
    assert_one_line_error(run("probe", *tiny_options, "--overwrite"), 2, "images with labels")
    assert_one_line_error(run("probe", *over, "-n", "1"), 2, "cannot be kept out")
    for place, name in (("one", "a"), ("one", "b"), ("two", "a"), ("two", "c")):
        shutil.copytree(noise_folder, tmp_path / place / name)
    folders = ["--images", tmp_path / "one", "--test", tmp_path / "two"]
    assert_one_line_error(run("probe", *over, *folders), 2, "name different classes")


@pytest.mark.usefixtures("undrawn")
def test_a_refused_fit_leaves_the_interrupted_one(run, narrow_options, tmp_path):
    """--overwrite takes the place of a run only when there is something to put there."""
    kept = tmp_path / "out" / "checkpoints" / "stage1-00000002"
    kept.mkdir(parents=True)
    (kept / "state.json").write_text("{}")
    again = [*narrow_options, "--overwrite"]
    assert_one_line_error(run("raptor-fit", *again, "--batch-size", "64"), 2, "too few for a batch")
    assert kept.is_dir()
    assert run("raptor-fit", *again).returncode == 0
    assert not kept.exists()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_raptor_in_half_precision(run, fitted, noise_folder, tmp_path, dtype):
    options = ["--images", noise_folder, "-n", "10", "--workers", "0", "--dtype", dtype]
    done = run("raptor-eval", fitted, *options, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    half = Evaluation.read(tmp_path / "out").fidelity.curve("cosine", mode="one-step")
    assert run("raptor-eval", fitted, *options[:-2], "--out", tmp_path / "full").returncode == 0
    full = Evaluation.read(tmp_path / "full").fidelity.curve("cosine", mode="one-step")
    assert (half - full).abs().max() < 0.02
    assert run("phases", "--model", fitted, *options, "--out", tmp_path / "phases").returncode == 0


def test_a_raptor_that_runs_away_is_no_result(run, fitted, noise_folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(fitted, broken)
    weights = load_file(broken / "model.safetensors")
    weights["1.mlp.fc2.weight"] *= 1e30
    save_file(weights, broken / "model.safetensors")
    config = json.loads((broken / "config.json").read_text())
    config["digest"] = hashlib.sha256((broken / "model.safetensors").read_bytes()).hexdigest()
    (broken / "config.json").write_text(json.dumps(config))
    options = ["--images", noise_folder, "--workers", "0", "--out", tmp_path / "out"]
    assert_one_line_error(run("raptor-eval", broken, *options), 1, "the Raptor runs away", "layer")


@pytest.mark.usefixtures("undrawn")
def test_a_fit_from_a_cache(run, narrow_options, tmp_path):
    cache = tmp_path / "cache"
    done = run("raptor-fit", *narrow_options, "--cache", cache)
    assert done.returncode == 0, done.stderr
    assert "40 images x 8.32 kB" in done.stdout
    first = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert first["options"]["cached"] is True
    again = run("raptor-fit", *narrow_options, "--cache", cache, "--overwrite")
    assert "1 of 1 parts are there" in again.stdout
    second = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert second["stages"]["2"]["losses"] == first["stages"]["2"]["losses"]
    fewer = [*narrow_options, "--cache", cache, "--overwrite", "-n", "20"]
    assert_one_line_error(run("raptor-fit", *fewer), 2, "cache of something else", "chosen: 40 before, 20 now")
    file = tmp_path / "file"
    file.write_text("")
    assert_one_line_error(run("raptor-fit", *narrow_options, "--overwrite", "--cache", file), 2, "cache folder")


@pytest.mark.usefixtures("undrawn")
def test_a_fit_from_memory_is_the_same(run, narrow_options, tmp_path):
    first, second = tmp_path / "out", tmp_path / "again"
    assert run("raptor-fit", *narrow_options).returncode == 0
    done = run("raptor-fit", *narrow_options, "--in-memory", "--out", second)
    assert done.returncode == 0, done.stderr
    assert weights_of(second) == weights_of(first)
    one, other = (json.loads((folder / "fit.json").read_text()) for folder in (first, second))
    assert other["provenance"]["images"]["digest"] == one["provenance"]["images"]["digest"]
    both = [*narrow_options, "--in-memory", "--cache", tmp_path / "cache", "--overwrite"]
    assert_one_line_error(run("raptor-fit", *both), 2, "drop one")
    for option in (["--in-memory"], ["--cache", tmp_path / "cache"]):
        both = [*narrow_options, "--augment", *option, "--overwrite"]
        assert_one_line_error(run("raptor-fit", *both), 2, f"--augment sees each image anew, and {option[0]} keeps")
