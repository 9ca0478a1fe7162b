"""Half precision: every kind of block runs in it, and gives nearly the same."""

import pytest
import timm
import torch
from packaging.version import Version

import brdyn
from brdyn.classifiers import ClassifierRecipe
from brdyn.errors import UsageError
from brdyn.models import load_model
from brdyn.raptor import FitSettings
from brdyn.training import TrainSettings
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
    model = type(model)(model.backbone, model.info, model.preprocessing)
    images = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        full = model(images)
        half = model.to(dtype)(images.to(dtype))
    assert half.dtype == dtype
    assert torch.cosine_similarity(full.flatten(1), half.float().flatten(1)).min() > 0.99


def test_precisions_and_devices_by_name():
    def load(**where):
        return load_model(NAMES[0], init="random", image_size=32, **where)

    for name in ("float64", "torch.float64", torch.float64):
        assert load(dtype=name, device="cpu").dtype == torch.float64
    for wrong in (torch.int8, "int8", "double precision", torch.complex64, 5):
        with pytest.raises(UsageError, match=r"unknown dtype .*choose one of float32, float64, bfloat16, float16"):
            load(dtype=wrong)
    for wrong in ("gpu", "cuda:99", "cpu:x", 3.5):
        with pytest.raises(UsageError, match=r"device .* is unknown or not on this machine; give one"):
            load(device=wrong)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_a_precision_is_the_same_by_name_wherever_it_is_given(dtype, monkeypatch, tmp_path):
    for settings in (
        TrainSettings(steps=1, precision=dtype), FitSettings(precision=dtype), ClassifierRecipe(precision=dtype)
    ):  # fmt: skip
        assert settings.precision == "bfloat16"
    monkeypatch.setattr("brdyn.reporting.api.make_report", lambda models, open_model, *_, **__: open_model(models[0]))
    model = brdyn.report([NAMES[0]], "photos", tmp_path, init="random", image_size=32, device="cpu", dtype=dtype)
    assert model.dtype == torch.bfloat16
