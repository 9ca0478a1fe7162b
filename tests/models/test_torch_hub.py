"""DINO and DINOv3 under their torch-hub names, in Facebook's key layouts, against other implementations."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from brdyn.errors import BrdynError, UsageError
from brdyn.models import describe_model, load_model
from brdyn.models.dino import VARIANTS as DINO
from brdyn.models.dinov3 import VARIANTS as DINOV3
from tests import reference
from tests.conftest import scramble

WIDTH, LAYERS, HEADS = 384, 12, 6


def pictures(*size):
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))


def dino_state(patch=16, side=14, seed=0):
    """A random ViT-S in the layout of DINO's files."""
    state = reference.facebook_dinov2_state("vits14", seed=seed)
    normal = torch.Generator().manual_seed(seed + 1)
    state = {key: value for key, value in state.items() if ".ls" not in key and key != "mask_token"}
    state["patch_embed.proj.weight"] = torch.empty(WIDTH, 3, patch, patch).normal_(0, 0.05, generator=normal)
    state["pos_embed"] = torch.empty(1, 1 + side * side, WIDTH).normal_(generator=normal)
    return state


def dino_forward(state, images, patch, side):
    """DINO's interpolate_pos_encoding and blocks, from their definition."""
    tokens = functional.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    grid = tokens.shape[-2:]
    tokens = torch.cat([state["cls_token"], tokens.flatten(2).transpose(1, 2)], dim=1)
    square = state["pos_embed"][0, 1:].reshape(side, side, -1).double().numpy()
    if tuple(grid) != (side, side):
        square = reference.bicubic(square, grid, [(new + 0.1) / side for new in grid])
    table = torch.from_numpy(np.ascontiguousarray(square)).float().reshape(1, -1, WIDTH)
    x = tokens + torch.cat([state["pos_embed"][:, :1], table], dim=1)
    plain = dict(state)
    for index in range(LAYERS):
        for scale in ("ls1", "ls2"):
            plain[f"blocks.{index}.{scale}.gamma"] = torch.ones(WIDTH)
    for index in range(LAYERS):
        x = reference.dinov2_block(plain, index, x, heads=HEADS)
    return functional.layer_norm(x, (WIDTH,), state["norm.weight"], state["norm.bias"], 1e-6)


@pytest.mark.parametrize(
    ("name", "patch", "side", "size"),
    [
        ("dino_vits16", 16, 14, (224, 224)),
        ("dino_vits16", 16, 14, (96, 144)),
        ("dino_vits8", 8, 28, (64, 64)),
    ],
)
def test_dino_follows_facebook(tmp_path, name, patch, side, size):
    state = dino_state(patch, side)
    wrapped = {f"module.backbone.{key}": value for key, value in state.items()}
    wrapped |= {"module.head.mlp.0.weight": torch.ones(8, WIDTH)}
    teacher = {key.removeprefix("module."): value + 1 for key, value in wrapped.items()}
    torch.save({"student": wrapped, "teacher": teacher}, tmp_path / "checkpoint.pth")
    model = load_model(name, weights=tmp_path / "checkpoint.pth", weights_key="student", image_size=size)
    with torch.no_grad():
        expected = dino_forward(state, pictures(*size), patch, side)
        torch.testing.assert_close(model(pictures(*size)), expected, atol=2e-5, rtol=1e-4)
    assert model.info.weights.endswith("[student]")
    assert "Facebook DINO:" in model.info.position_rule
    assert "not used from checkpoint.pth: head, teacher" in model.info.notes  # their projectors


def test_dino_names_and_addresses():
    assert list(DINO) == ["dino_vits16", "dino_vits8", "dino_vitb16", "dino_vitb8"]
    assert DINO["dino_vits8"].url.endswith("/dino/dino_deitsmall8_pretrain/dino_deitsmall8_pretrain.pth")
    assert DINO["dino_vitb16"].url.endswith("/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth")
    assert describe_model("dino_vitb8").tokens.grid == (28, 28)


def transformers_dinov3(gated):
    """A random DINOv3 ViT-S of transformers, and its weights in Facebook's names."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    hidden = 1536
    theirs = DINOv3ViTModel(
        DINOv3ViTConfig(
            hidden_size=WIDTH, intermediate_size=hidden, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            num_register_tokens=4, image_size=64, use_gated_mlp=gated, hidden_act="silu" if gated else "gelu",
        )
    ).eval()  # fmt: skip
    scramble(theirs)
    old = {key.removeprefix("model."): value for key, value in theirs.state_dict().items()}
    new = {
        "cls_token": old["embeddings.cls_token"],
        "storage_tokens": old["embeddings.register_tokens"],
        "mask_token": old["embeddings.mask_token"][0],
        "rope_embed.periods": 100 ** (2 * torch.arange(16) / 32),
        "local_cls_norm.weight": torch.ones(WIDTH),
    }
    mlp = {"gate_proj": "w1", "up_proj": "w2", "down_proj": "w3"} if gated else {"up_proj": "fc1", "down_proj": "fc2"}
    for kind in ("weight", "bias"):
        new[f"patch_embed.proj.{kind}"] = old[f"embeddings.patch_embeddings.{kind}"]
        new[f"norm.{kind}"] = old[f"norm.{kind}"]
    for index in range(LAYERS):
        theirs_at, ours = f"layer.{index}", f"blocks.{index}"
        attention = f"{theirs_at}.attention"
        new[f"{ours}.attn.qkv.weight"] = torch.cat([old[f"{attention}.{part}_proj.weight"] for part in "qkv"])
        biases = [old[f"{attention}.q_proj.bias"], torch.ones(WIDTH), old[f"{attention}.v_proj.bias"]]
        new[f"{ours}.attn.qkv.bias"] = torch.cat(biases)
        new[f"{ours}.attn.qkv.bias_mask"] = torch.cat([torch.ones(WIDTH), torch.zeros(WIDTH), torch.ones(WIDTH)])
        for scale in (1, 2):
            new[f"{ours}.ls{scale}.gamma"] = old[f"{theirs_at}.layer_scale{scale}.lambda1"]
        for kind in ("weight", "bias"):
            new[f"{ours}.attn.proj.{kind}"] = old[f"{attention}.o_proj.{kind}"]
            new |= {f"{ours}.norm{n}.{kind}": old[f"{theirs_at}.norm{n}.{kind}"] for n in (1, 2)}
            new |= {f"{ours}.mlp.{to}.{kind}": old[f"{theirs_at}.mlp.{part}.{kind}"] for part, to in mlp.items()}
    return theirs, new


@pytest.mark.parametrize("name", ["dinov3_vits16", "dinov3_vits16plus", "vit_small_patch16_dinov3"])
@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_dinov3_follows_transformers(tmp_path, name, size):
    theirs, state = transformers_dinov3(gated="plus" in name)
    torch.save(state, tmp_path / "dinov3.pth")
    model = load_model(name, weights=tmp_path / "dinov3.pth", image_size=size)
    with torch.no_grad():
        expected = theirs(pictures(*size)).last_hidden_state
        torch.testing.assert_close(model(pictures(*size)), expected, atol=1e-5, rtol=1e-4)
    assert model.tokens.sizes() == {"cls": 1, "registers": 4, "patches": size[0] * size[1] // 256}
    assert "built with biases of queries and values, as the file is" in model.info.notes
    assert "not used from dinov3.pth: local_cls_norm, mask_token" in model.info.notes


def test_dinov3_biases_that_timm_cannot_have(tmp_path):
    _, state = transformers_dinov3(gated=False)
    unmasked = {key: value for key, value in state.items() if not key.endswith("bias_mask")}
    torch.save(unmasked, tmp_path / "dinov3.pth")
    with pytest.raises(BrdynError, match="moves the keys"):
        load_model("dinov3_vits16", weights=tmp_path / "dinov3.pth", image_size=64)
    zero = {key: torch.zeros_like(value) if key.endswith("qkv.bias") else value for key, value in unmasked.items()}
    torch.save(zero, tmp_path / "dinov3.pth")
    model = load_model("dinov3_vits16", weights=tmp_path / "dinov3.pth", image_size=64)
    assert not any("biases" in note for note in model.info.notes)


def test_another_rotary_base_is_refused(tmp_path):
    _, state = transformers_dinov3(gated=False)
    torch.save({**state, "rope_embed.periods": 10_000 ** (2 * torch.arange(16) / 32)}, tmp_path / "dinov3.pth")
    with pytest.raises(BrdynError, match=r"rope_embed.periods in .* are not those of the architecture"):
        load_model("dinov3_vits16", weights=tmp_path / "dinov3.pth", image_size=64)


def test_dinov3_names_and_preprocessing():
    assert list(DINOV3) == [
        f"dinov3_{size}" for size in ("vits16", "vits16plus", "vitb16", "vitl16", "vith16plus", "vit7b16")
    ]
    model = describe_model("dinov3_vit7b16")
    assert model.info.parameters == pytest.approx(6.7e9, rel=0.01)
    assert (model.info.layers, model.info.width, model.info.heads) == (40, 4096, 32)
    assert (model.preprocessing.image_size, model.preprocessing.crop_mode) == ((256, 256), "squash")
    with pytest.raises(BrdynError, match=r"no weights for 'dinov3_vits16' \(Meta gives"):
        load_model("dinov3_vits16")
    with pytest.raises(UsageError, match="not a multiple of the 16-pixel patch"):
        load_model("dinov3_vits16", init="random", image_size=100)
