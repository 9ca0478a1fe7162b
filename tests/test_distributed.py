"""Two processes under torchrun give the numbers of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
from safetensors.torch import save_file

from tests.conftest import scramble

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("kind", ["cosine", "cka"])
def test_two_processes_equal_one(kind, noise_folder, tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    scramble(model)
    save_file(model.state_dict(), tmp_path / "tiny.safetensors")
    (noise_folder / "21.png").write_bytes(b"broken")  # one of the second process's images
    options = [
        "phases", "--model", "vit_tiny_patch16_224", "--weights", str(tmp_path / "tiny.safetensors"),
        "--image-size", "48", "--images", str(noise_folder), "--similarity", kind, "--workers", "0",
        "--batch-size", "7", "--device", "cpu", "-n", "40",
    ]  # fmt: skip
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    results = {}
    for name, launcher in {"one": [], "two": torchrun}.items():
        out = tmp_path / name
        done = subprocess.run(
            [sys.executable, *launcher, "-m", "brdyn", *options, "--out", str(out)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("phases: layers") == 1  # one process speaks
        results[name] = json.loads((out / "phases.json").read_text())
    one, two = results["one"], results["two"]
    assert two["provenance"]["processes"] == 2
    assert one["n_images"] == two["n_images"] == 39
    assert [s["name"] for s in two["skipped"]] == ["21.png"]
    assert one["provenance"]["images"]["digest"] == two["provenance"]["images"]["digest"]
    matrices = [np.array(result["similarity"]["matrix"]) for result in (one, two)]
    np.testing.assert_allclose(*matrices, atol=1e-6)
    np.testing.assert_allclose(one["boundary_frequency"], two["boundary_frequency"], atol=0.02)
    assert one["k"] == two["k"]
    assert one["segmentations"]["3"]["boundaries"] == two["segmentations"]["3"]["boundaries"]
