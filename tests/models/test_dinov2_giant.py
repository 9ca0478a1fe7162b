"""DINOv2 ViT-g/14: 40 layers, SwiGLU, 1.1 B parameters, from Facebook's key layout to phases.json."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from brdyn.models import load_model
from tests import reference

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30

# VmHWM, unlike ru_maxrss, does not start at the parent's high-water mark.
RUN_AND_REPORT_MEMORY = """
import re, sys
from pathlib import Path
from brdyn.cli import main
try:
    main()
finally:
    print("PEAK", re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


@pytest.mark.slow
def test_the_giant_runs_end_to_end_within_24_gib(tmp_path, noise_folder):
    images = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    state = reference.facebook_dinov2_state("vitg14")
    path = tmp_path / "dinov2_vitg14_pretrain.pth"
    torch.save(state, path)
    expected = [reference.dinov2_embed(state, images)]
    for index in (0, 39):
        expected.append(reference.dinov2_block(state, index, expected[-1], heads=24))
    del state
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                RUN_AND_REPORT_MEMORY,
                "phases",
                "--model",
                "dinov2_vitg14",
                "--weights",
                str(path),
                "--images",
                str(noise_folder),
                "--n",
                "2",
                "--out",
                str(tmp_path / "out"),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        peak = int(done.stderr.split("PEAK")[1]) * 1024 / GIB
        assert peak < 24, f"{peak:.1f} GiB"
        print(f"peak {peak:.1f} GiB")

        model = load_model("dinov2_vitg14", weights=path, image_size=56)
        found = [model.embed(images)]
        for index in (0, 39):
            found.append(model.blocks[index](found[-1]))
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)
    finally:
        path.unlink()  # 4.5 GB
    content = json.loads((tmp_path / "out" / "phases.json").read_text())
    assert content["layers"] == 40
    assert content["n_images"] == 2
    assert np.isfinite(content["similarity"]["matrix"]).all()
    assert content["provenance"]["model"]["parameters"] == pytest.approx(1.136e9, rel=0.01)
    assert len(content["segmentations"]["40"]["boundaries"]) == 39
