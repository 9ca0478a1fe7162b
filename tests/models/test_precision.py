"""Half precision: every kind of block runs in it, and gives nearly the same."""

import pytest
import timm
import torch
from packaging.version import Version

from brdyn.models import load_model, timm_family
from tests.conftest import scramble

NAMES = (
    "vit_tiny_patch16_224",
    "eva02_tiny_patch14_224",
    "vit_small_patch16_dinov3",
    "vit_small_patch16_rope_mixed_224",
    "dinov2_vits14_reg",
)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_close(name, dtype):
    if "mixed" in name and Version(timm.__version__) < Version("1.0.31"):
        pytest.skip("this timm version computes mixed rotary positions in float32 only")
    model = load_model(name, init="random", image_size=112)
    scramble(model)
    model = timm_family.adapt(model.backbone, model.info, model.preprocessing)
    images = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        full = model(images)
        half = model.to(dtype)(images.to(dtype))
    assert half.dtype == dtype
    assert torch.cosine_similarity(full.flatten(1), half.float().flatten(1)).min() > 0.99
