"""DINOv2 ViT-g/14: 40 layers, SwiGLU, 1.1 B parameters, from Facebook's key layout to phases.json."""

import json

import numpy as np
import pytest
import torch

from brdyn import load_images
from brdyn.models import Preprocessing
from tests import reference
from tests.forked import brdyn, process

GIB = 2**30

# VmHWM, unlike ru_maxrss, does not start at the parent's high-water mark.
REPORT_MEMORY = """
import re, sys
import brdyn.cli
from pathlib import Path
main = brdyn.cli.main
def reporting():
    try:
        main()
    finally:
        print("PEAK", re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
brdyn.cli.main = reporting
"""


def cosines(states):
    """Of the cls token and of the mean patch between layers, averaged over both and over images: (L, L)."""
    groups = [states[:, :, 0], states[:, :, 1:].mean(2)]  # (L, B, D)
    unit = torch.stack([group / group.norm(dim=-1, keepdim=True) for group in groups])
    return torch.einsum("glbd,gmbd->lm", unit, unit).div(2 * states.shape[1]).numpy()


def facebooks(noise_folder, path, expected):
    """Save weights in Facebook's layout, and the cosines between layers by Facebook's equations."""
    images = load_images(noise_folder, Preprocessing((56, 56)), n=2)
    pixels = next(iter(images.batches(2))).images
    state = reference.facebook_dinov2_state("vitg14")
    torch.save(state, path)
    states = [reference.dinov2_embed(state, pixels)]
    for index in range(40):
        states.append(reference.dinov2_block(state, index, states[-1], heads=24))
    np.save(expected, cosines(torch.stack(states[1:]).double()))


@pytest.mark.slow
def test_the_giant_runs_end_to_end_within_12_gib(tmp_path, noise_folder):
    """Its states are those of Facebook's equations; the peak is while 4.5 GB are copied into the model."""
    path, expected = tmp_path / "dinov2_vitg14_pretrain.pth", tmp_path / "expected.npy"
    running = process(facebooks, noise_folder, path, expected)  # of its own: other tests measure how this one grows
    running.start()
    running.join()
    assert running.exitcode == 0
    options = ["--image-size", "56", "-n", "2", "--workers", "0", "--out", tmp_path / "out"]
    try:
        done = brdyn(
            ["phases", "--model", "dinov2_vitg14", "--weights", path, "--images", noise_folder, *options],
            before=REPORT_MEMORY,
        )
    finally:
        path.unlink()  # 4.5 GB
    assert done.returncode == 0, done.stderr
    peak = int(done.stderr.split("PEAK")[1]) * 1024 / GIB
    assert peak < 12, f"{peak:.1f} GiB"
    content = json.loads((tmp_path / "out" / "phases.json").read_text())
    assert content["layers"] == 40
    assert content["n_images"] == 2
    np.testing.assert_allclose(content["similarity"]["matrix"], np.load(expected), atol=1e-5)
    assert content["provenance"]["model"]["parameters"] == pytest.approx(1.136e9, rel=0.01)
    assert len(content["segmentations"]["40"]["boundaries"]) == 39
