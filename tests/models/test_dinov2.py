"""DINOv2 in Facebook's key layout against a forward pass written from its definition."""

from urllib.error import URLError

import pytest
import torch

from brdyn.errors import BrdynError, UsageError
from brdyn.models import describe_model, layouts, load_model, timm_trunks
from brdyn.models.dinov2 import VARIANTS
from tests import reference


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "registers"])
def checkpoint(request, tmp_path_factory):
    state = reference.facebook_dinov2_state("vits14", registers=request.param)
    path = tmp_path_factory.mktemp("facebook") / "pretrain.pth"
    torch.save(state, path)
    return ("dinov2_vits14_reg" if request.param else "dinov2_vits14"), path, state


@pytest.mark.parametrize("size", [(224, 224), (518, 518), (196, 280)], ids=["224", "518", "non-square"])
def test_embedding_follows_facebook(checkpoint, size):
    name, path, state = checkpoint
    model = load_model(name, weights=path, image_size=size)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.embed(images), reference.dinov2_embed(state, images), atol=2e-5, rtol=1e-4)
    assert "Facebook" in model.info.position_rule


def test_whole_forward_follows_facebook(checkpoint, images):
    name, path, state = checkpoint
    model = load_model(name, weights=path)
    expected = reference.dinov2_embed(state, images)
    stepped = model.embed(images)
    for index, block in enumerate(model.blocks):
        expected = reference.dinov2_block(state, index, expected, heads=6)
        stepped = block(stepped)
        torch.testing.assert_close(stepped, expected, atol=1e-4, rtol=1e-4)
    assert model.tokens.sizes() == (
        {"cls": 1, "registers": 4, "patches": 256} if "reg" in name else {"cls": 1, "patches": 256}
    )


def test_chunked_training_checkpoints_load(tmp_path):
    state = reference.facebook_dinov2_state("vits14")
    chunked = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "blocks":
            parts.insert(1, str(int(parts[1]) // 3))
        chunked["backbone." + ".".join(parts)] = value
    chunked["dino_head.weight"] = torch.zeros(3)
    torch.save({"teacher": chunked}, tmp_path / "teacher.pth")
    torch.save(state, tmp_path / "plain.pth")
    first = load_model("dinov2_vits14", weights=tmp_path / "teacher.pth")
    second = load_model("dinov2_vits14", weights=tmp_path / "plain.pth")
    assert first.info.digest == second.info.digest


def test_names_and_addresses():
    assert len(VARIANTS) == 8
    assert VARIANTS["dinov2_vitb14_reg"].url.endswith("/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth")
    assert VARIANTS["dinov2_vitg14"].url.endswith("/dinov2_vitg14/dinov2_vitg14_pretrain.pth")


def test_weights_of_another_variant_are_refused_by_key(tmp_path):
    torch.save(reference.facebook_dinov2_state("vits14", registers=True), tmp_path / "reg.pth")
    with pytest.raises(BrdynError, match=r"do not fit 'dinov2_vits14'.*reg_token"):
        load_model("dinov2_vits14", weights=tmp_path / "reg.pth")
    with pytest.raises(BrdynError, match=r"\(1, 1, 384\) instead of \(1, 1, 768\)"):
        load_model("dinov2_vitb14_reg", weights=tmp_path / "reg.pth")


def test_size_must_fit_the_patch():
    with pytest.raises(UsageError, match="use for instance 224 or 238"):
        load_model("dinov2_vits14", init="random", image_size=225)
    with pytest.raises(UsageError, match="smaller than one 14-pixel patch"):
        load_model("dinov2_vits14", init="random", image_size=8)


def test_other_size_at_run_time_is_refused():
    model = load_model("dinov2_vits14", init="random", image_size=28)
    with pytest.raises(UsageError, match="loaded for 28x28"):
        model(torch.zeros(1, 3, 56, 56))


def test_timm_layout_is_left_alone():
    state = {
        "cls_token": torch.ones(1, 1, 2),
        "pos_embed": torch.ones(1, 1369, 2),
        "reg_token": torch.ones(1, 4, 2),
    }
    trunk = timm_trunks.create("vit_small_patch14_reg4_dinov2")
    renamed = layouts.to_timm(state, layouts.TIMM, trunk)
    assert renamed.keys() == state.keys()
    assert torch.equal(renamed["cls_token"], state["cls_token"])


def a_head(width, classes=1000, inputs=2):
    generator = torch.Generator().manual_seed(1)
    return {
        "weight": torch.randn(classes, inputs * width, generator=generator) / width,
        "bias": torch.randn(classes, generator=generator),
    }


def test_the_linear_head_reads_cls_and_the_mean_patch(checkpoint, images, tmp_path, monkeypatch):
    """Facebook's `layers=1` head, on normed tokens without the registers, against the definition."""
    name, path, _ = checkpoint
    head, file = a_head(384), f"{name}_linear_head.pth".replace("_reg_", "_reg4_")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints" if "reg" in name else path.parent  # beside the backbone
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(head, folder / file)
    model = load_model(f"{name}_lc", weights=path)
    (folder / file).unlink()
    normed = model(images)
    registers = 4 if "reg" in name else 0
    read = torch.cat([normed[:, 0], normed[:, 1 + registers :].mean(1)], dim=1)
    torch.testing.assert_close(model.logits(normed), read @ head["weight"].T + head["bias"])
    torch.testing.assert_close(normed, load_model(name, weights=path)(images))
    assert model.classes == 1000
    assert model.info.digest == load_model(name, weights=path).info.digest  # Raptors of the one are of the other
    assert any(f"linear head {file}" in note for note in model.info.notes)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (None, r"no weights for 'dinov2_vits14_lc'.*dinov2_vits14_linear_head\.pth"),
        (
            a_head(384, inputs=5),
            r"do not fit 'dinov2_vits14_lc'.*weight is \(1000, 1920\) instead of \(1000, 768\)",
        ),
        ({"bias": torch.zeros(1000)}, r"do not fit 'dinov2_vits14_lc': 1 missing \(weight\)"),
        ({**a_head(384), "bias": torch.full((1000,), torch.nan)}, "values that are not finite numbers"),
    ],
)
def test_heads_that_are_none(tmp_path, monkeypatch, head, words):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    torch.save(reference.facebook_dinov2_state("vits14"), tmp_path / "pretrain.pth")
    if head is not None:
        torch.save(head, tmp_path / "dinov2_vits14_linear_head.pth")
    with pytest.raises(BrdynError, match=words):
        load_model("dinov2_vits14_lc", weights=tmp_path / "pretrain.pth")


def no_network(url, *_, **__):
    raise URLError(f"no route to {url}")


def test_an_untrained_head_is_drawn_by_its_seed():
    one, again, other = (load_model("dinov2_vits14_lc", init="random", seed=seed, image_size=28) for seed in (1, 1, 2))
    assert torch.equal(one.head.weight, again.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)
    assert one.head.weight.std() == pytest.approx(0.01, rel=0.02)
    assert describe_model("dinov2_vitg14_reg_lc").classes == 1000


def test_an_untrained_head_leaves_the_numbers_of_others_alone():
    before = torch.get_rng_state()
    load_model("dinov2_vits14_lc", init="random", image_size=28)
    assert torch.equal(torch.get_rng_state(), before)
