"""Two processes, as torchrun starts them, give the numbers of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from brdyn.random_keys import one_in
from tests.forked import UNDRAWN, brdyn

ROOT = Path(__file__).resolve().parents[1]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def torchrun(options):
    """Run a command in two processes as users do."""
    return subprocess.run(
        [sys.executable, *TORCHRUN, "-m", "brdyn", *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def one_and_two(tmp_path, narrow_folder):
    """Run a command with one process and with two (`{run}` in an option: `one` or `two`); the folders of results."""

    def run(command, images, *extra, says="phases: layers", model=("--model", narrow_folder)):
        options = [
            command, *map(str, model),
            "--images", str(images), "--workers", "0", "--batch-size", "7", "--device", "cpu",
            *extra,
        ]  # fmt: skip
        for name, processes in {"one": 1, "two": 2}.items():
            named = [option.replace("{run}", name) for option in options]
            done = brdyn([*named, "--out", str(tmp_path / name)], processes=processes, before=UNDRAWN)
            assert done.returncode == 0, done.stderr
            assert done.stdout.count(says) == 1  # one process speaks
        return tmp_path / "one", tmp_path / "two"

    return run


@pytest.mark.parametrize("kind", ["cosine", "cka"])
def test_phases(one_and_two, kind, noise_folder):
    (noise_folder / "21.png").write_bytes(b"broken")  # one of the second process's images
    folders = one_and_two("phases", noise_folder, "--similarity", kind, "-n", "40")
    one, two = (json.loads((folder / "phases.json").read_text()) for folder in folders)
    assert two["provenance"]["processes"] == 2
    assert one["n_images"] == two["n_images"] == 39
    assert [s["name"] for s in two["skipped"]] == ["21.png"]
    assert one["provenance"]["images"]["digest"] == two["provenance"]["images"]["digest"]
    matrices = [np.array(result["similarity"]["matrix"]) for result in (one, two)]
    np.testing.assert_allclose(*matrices, atol=1e-6)
    np.testing.assert_allclose(one["boundary_frequency"], two["boundary_frequency"], atol=0.02)
    assert one["k"] == two["k"]
    assert one["segmentations"]["3"]["boundaries"] == two["segmentations"]["3"]["boundaries"]


def same(folders, name, keys, rtol=1e-4, atol=1e-6):
    """The same rows with the same numbers."""
    one, two = (pd.read_parquet(folder / name).sort_values(keys, ignore_index=True) for folder in folders)
    assert list(one.columns) == list(two.columns)
    for column in one.columns:
        if column in ("mean", "low", "high", "sd", "modulus"):
            np.testing.assert_allclose(one[column], two[column], rtol=rtol, atol=atol, err_msg=f"{name} {column}")
        elif one[column].dtype != float:
            assert one[column].equals(two[column]), (name, column)


@pytest.mark.parametrize("number", [14, 20])
def test_dynamics(one_and_two, noise_folder, tmp_path, number):
    """All measures, those that keep samples too; of 14 images the second process has none."""
    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted(noise_folder.iterdir())]
    labels = [index % 2 for index in range(len(cells))]
    pq.write_table(pa.table({"image": cells, "label": labels}), tmp_path / "labelled.parquet")
    every = ["--measures", "all,branches,spectra", "--krylov-steps", "1", "--tangents", "2"]
    folders = one_and_two("dynamics", tmp_path / "labelled.parquet", "-n", str(number), "--k", "3", *every)
    same(folders, "dynamics.parquet", ["statistic", "group", "layer"], rtol=1e-3, atol=1e-5)
    same(folders, "modes.parquet", ["phase", "group", "steps", "predictor", "measure"], rtol=1e-3, atol=1e-5)
    same(folders, "basins.parquet", ["position", "layer"])
    same(folders, "spectra.parquet", ["quantity", "index", "block"], rtol=1e-3, atol=1e-5)
    same(folders, "coupling.parquet", ["side", "block", "other"], rtol=1e-3, atol=1e-5)
    contents = [json.loads((folder / "dynamics.json").read_text()) for folder in folders]
    held = int(one_in(5, range(number), seed=0).sum())
    assert contents[0]["modes"]["n_fitted"] == contents[1]["modes"]["n_fitted"] == number - held
    assert contents[0]["basins"]["n_images"] == contents[1]["basins"]["n_images"] == number
    totals = [content["spectra"]["totals"] for content in contents]
    assert {row["n_images"] for row in totals[1]} == {number}
    for one, two in zip(*totals, strict=True):
        assert [one["mean"], one["sd"]] == pytest.approx([two["mean"], two["sd"]], rel=1e-3, abs=1e-5)
    assert contents[1]["provenance"]["processes"] == 2


def test_interventions_and_perturbations(one_and_two, noise_folder):
    shared = ["-n", "20", "--k", "3"]
    folders = one_and_two("perturb", noise_folder, *shared, "--eps", "0.2", "--tokens", "cls", "--layers", "3,9")
    same(folders, "perturb.parquet", ["start", "group", "layer"], rtol=1e-3, atol=1e-5)
    assert set(pd.read_parquet(folders[1] / "perturb.parquet")["n_images"]) == {20}
    for folder in folders:
        folder.rename(folder.with_name(f"{folder.name}-perturb"))
    folders = one_and_two("interventions", noise_folder, *shared, "--kinds", "delete,shuffle")
    same(
        folders,
        "interventions.parquet",
        ["kind", "phase", "order", "readout", "measure"],
        rtol=1e-3,
        atol=1e-5,
    )


def test_raptor_fit(one_and_two, noise_folder):
    """The same losses, weights and their average on the same global batch, whoever computes which part of it; at times
    a process can read none of its images."""
    for path in sorted(noise_folder.iterdir())[::2]:
        path.write_bytes(b"broken")
    folders = one_and_two(
        "raptor-fit", noise_folder, "--batch-size", "8", "--boundaries", "5", "--steps", "8",
        "--validation-images", "8", "--log-every", "1", "--sigma", "0", "--accumulate", "2", "--ema", "0.5",
        says="2 blocks for 12 layers",
    )  # fmt: skip
    one, two = (json.loads((folder / "fit.json").read_text())["stages"] for folder in folders)
    for stage in ("1", "2"):
        for first, second in zip(one[stage]["losses"], two[stage]["losses"], strict=True):
            assert first == pytest.approx(second, rel=1e-5)
    weights = [load_file(folder / "model.safetensors") for folder in folders]
    for name, value in weights[0].items():
        np.testing.assert_allclose(value, weights[1][name], atol=1e-5, err_msg=name)


def test_raptor_eval(one_and_two, noise_folder, tmp_path):
    """Fidelity and probes, and before them a fit from a cache that both processes fill."""
    one_and_two(
        "raptor-fit", noise_folder, "--boundaries", "5", "--steps", "2", "--cache", str(tmp_path / "cache-{run}"),
        says="activation cache",
    )  # fmt: skip
    raptor = (tmp_path / "one").rename(tmp_path / "raptor")
    (tmp_path / "two").rename(tmp_path / "other")
    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted(noise_folder.iterdir())]
    pq.write_table(pa.table({"image": cells, "label": [n % 2 for n in range(40)]}), tmp_path / "labelled.parquet")
    probes = ["--probe-train", str(tmp_path / "labelled.parquet"), "--seeds", "1"]
    folders = one_and_two("raptor-eval", noise_folder, *probes, says="R² on its own way", model=[raptor])
    same(folders, "fidelity.parquet", ["mode", "statistic", "group", "layer"], rtol=1e-4, atol=1e-5)
    one, two = (json.loads((folder / "raptor_eval.json").read_text())["probing"] for folder in folders)
    assert one["summary"] == two["summary"]


def test_raptor_rank(one_and_two, noise_folder):
    """Two images judge, and the second process has none."""
    folders = one_and_two(
        "raptor-rank", noise_folder, "-n", "10", "--k", "2", "--ranks", "0,4", "--partitions", "maxcut",
        says="maxcut: with corrections",
    )  # fmt: skip
    one, two = (pd.DataFrame(json.loads((folder / "raptor_rank.json").read_text())["table"]) for folder in folders)
    assert two["n_images"].tolist() == [2, 2]
    pd.testing.assert_frame_equal(one, two, rtol=1e-5)


def test_deep_supervision(tmp_path, noise_folder):
    """From the second step on, what the streams begin with has no gradient: it is left out, as in one process."""
    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted(noise_folder.iterdir())]
    table = pa.table({"image": cells, "label": [number % 2 for number in range(len(cells))]})
    pq.write_table(table, tmp_path / "labelled.parquet")
    options = [
        "vitrm-train", "--data", str(tmp_path / "labelled.parquet"), "--n-sup", "3", "--epochs", "1", "--batch-size",
        "8", "--accumulate", "2", "--image-size", "8", "--width", "8", "--heads", "1", "--hidden", "8", "--depth", "1",
        "--dropout", "0", "--no-flip", "--padding", "0", "--operations", "0", "--mixup", "0", "--cutmix", "0",
        "--log-every", "1", "--workers", "0", "--device", "cpu", "--out",
    ]  # fmt: skip
    runs = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        done = brdyn([*options, str(out)], processes=processes, before=UNDRAWN)
        assert done.returncode == 0, done.stderr
        losses = json.loads((out / "train.json").read_text())["history"]["losses"]
        runs.append((losses, load_file(out / "model.safetensors")))
    for first, second in zip(runs[0][0], runs[1][0], strict=True):
        assert first == pytest.approx(second, rel=1e-5)
    for name, value in runs[0][1].items():
        np.testing.assert_allclose(value, runs[1][1][name], atol=1e-5, err_msg=name)


def test_training_under_stochastic_depth(tmp_path, noise_folder):
    """A branch that a process drops for all of its images must not keep the others waiting."""
    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted(noise_folder.iterdir())]
    table = pa.table({"image": cells, "label": [number % 2 for number in range(len(cells))]})
    pq.write_table(table, tmp_path / "labelled.parquet")
    sizes = ["--width", "8", "--heads", "1", "--hidden", "8", "--depth", "4", "--image-size", "8"]
    options = [
        "vit-train", "--data", str(tmp_path / "labelled.parquet"), "--drop-path", "0.8", "--epochs", "2",
        "--batch-size", "8", "--keep", "0,best", "--workers", "0", "--device", "cpu", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    done = brdyn([*options, *sizes], processes=2, before=UNDRAWN)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "out" / "train.json").read_text())
    assert content["options"]["processes"] == 2
    assert list(content["kept"]) == ["epoch0", "best"]
    assert done.stdout.count("written to") == 1
    evaluated = brdyn(
        ["vitrm-eval", str(tmp_path / "out" / "best"), "--data", str(tmp_path / "labelled.parquet"),
         "--workers", "0", "--device", "cpu", "--out", str(tmp_path / "eval")], processes=2, before=UNDRAWN
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    assert evaluated.stdout.count("written to") == 1


FIT = [
    "raptor-fit", "--model", "vit_tiny_patch16_224", "--init", "random", "--image-size", "32", "--boundaries", "5",
    "--steps", "4", "--batch-size", "8", "--validation-images", "0", "--checkpoint-every", "1", "--workers", "0",
    "--device", "cpu",
]  # fmt: skip
STOPPED = (
    "import os, signal\n"
    "from brdyn.training import checkpoints\n"
    "save = checkpoints.Checkpoints.save\n"
    "def stopping(self, stage, step, *state):\n"
    "    save(self, stage, step, *state)\n"
    "    if stage == 2:\n"
    "        {}\n"
    "checkpoints.Checkpoints.save = stopping\n"
)


def test_a_resumed_fit_of_two_processes_counts_the_whole(tmp_path, noise_folder):
    """Both processes' images, in both sessions, and an image that both met unread once."""
    (noise_folder / "03.png").write_bytes(b"broken")
    options = [*FIT, "--images", str(noise_folder), "--steps", "12", "--out"]
    whole = brdyn([*options, str(tmp_path / "whole")], processes=2, before=UNDRAWN)
    assert whole.returncode == 0, whole.stderr
    kill = STOPPED.format("os.kill(os.getpid(), signal.SIGKILL)")
    stopped = brdyn([*options, str(tmp_path / "out")], processes=2, before=kill)
    assert stopped.returncode != 0
    done = brdyn([*options, str(tmp_path / "out"), "--resume"], processes=2, before=UNDRAWN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("resuming from stage2-00000001") == 1
    first, second = (json.loads((tmp_path / name / "fit.json").read_text()) for name in ("whole", "out"))
    assert second["provenance"]["images"] == first["provenance"]["images"]
    assert [[one["name"] for one in run["skipped"]] for run in (first, second)] == [["03.png"]] * 2
    unread = 12 * 8 - first["provenance"]["images"]["read"]
    assert unread in (2, 3)  # 96 of 40 images: twice, and perhaps once more
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "out")]
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name])


def test_what_one_process_refuses_ends_both(tmp_path, noise_folder):
    """The other neither waits nor tells it again."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    options = [*FIT, "--images", str(noise_folder), "--out"]
    done = torchrun([*options, str(tmp_path / "out")])
    assert done.returncode != 0
    assert done.stderr.count("brdyn: error: ") == done.stderr.count("is not empty") == 1
    assert "/brdyn/" not in done.stderr  # no traceback but torchrun's own
    full = STOPPED.format("raise checkpoints.BrdynError('cannot write: No space left on device')")
    done = brdyn([*options, str(tmp_path / "full")], processes=2, before=full)
    assert done.returncode != 0
    assert done.stderr.count("brdyn: error: cannot write: No space left on device") == 1
    assert "/brdyn/" not in done.stderr
