"""transformers adapters against transformers' own hidden states, from folders the tests write."""

import copy

import pytest
import torch
import transformers as hf

from brdyn.errors import BrdynError, UsageError
from brdyn.models import load_model, positions
from tests import reference
from tests.conftest import scramble

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}


def dino(config, **extra):
    keys = {k: v for k, v in SMALL.items() if k != "intermediate_size"}
    return config(**keys, mlp_ratio=2, image_size=37 * 14, patch_size=14, **extra)


BUILDERS = {
    "ViTModel": lambda: hf.ViTModel(hf.ViTConfig(**SMALL, image_size=64, patch_size=16), add_pooling_layer=False),
    "Dinov2Model": lambda: hf.Dinov2Model(dino(hf.Dinov2Config)),
    "Dinov2Model SwiGLU": lambda: hf.Dinov2Model(dino(hf.Dinov2Config, use_swiglu_ffn=True)),
    "Dinov2WithRegistersModel": lambda: hf.Dinov2WithRegistersModel(
        dino(hf.Dinov2WithRegistersConfig, num_register_tokens=4)
    ),
    "DINOv3ViTModel": lambda: hf.DINOv3ViTModel(
        hf.DINOv3ViTConfig(**SMALL, image_size=64, patch_size=16, num_register_tokens=4)
    ),
    "CLIPVisionModel": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**SMALL, image_size=64, patch_size=16)),
    "SiglipVisionModel": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**SMALL, image_size=64, patch_size=16)),
}
LAYOUTS = {
    "ViTModel": {"cls": 1, "patches": 16},
    "Dinov2Model": {"cls": 1, "patches": 1369},
    "Dinov2Model SwiGLU": {"cls": 1, "patches": 1369},
    "Dinov2WithRegistersModel": {"cls": 1, "registers": 4, "patches": 1369},
    "DINOv3ViTModel": {"cls": 1, "registers": 4, "patches": 16},
    "CLIPVisionModel": {"cls": 1, "patches": 16},
    "SiglipVisionModel": {"patches": 16},
}


@pytest.fixture(params=BUILDERS)
def saved(request, tmp_path):
    source = BUILDERS[request.param]().eval()
    scramble(source)
    source.save_pretrained(tmp_path / "model")
    return request.param, source, tmp_path / "model"


def test_stepping_equals_hidden_states(saved):
    kind, source, folder = saved
    model = load_model(str(folder))
    images = torch.randn(2, 3, *model.info.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = source(images, output_hidden_states=True)
        state = model.embed(images)
        states = [state]
        for block in model.blocks:
            state = block(state)
            states.append(state)
        for mine, theirs in zip(states, output.hidden_states, strict=True):
            assert torch.equal(mine, theirs)
        last = states[-1] if kind == "CLIPVisionModel" else model.norm(states[-1])
        assert torch.equal(last, output.last_hidden_state)
    assert model.tokens.sizes() == LAYOUTS[kind]
    assert model.info.heads == 4
    assert model.info.digest


@pytest.mark.parametrize("kind", ["Dinov2Model", "Dinov2WithRegistersModel"])
@pytest.mark.parametrize("size", [(224, 224), (518, 518), (196, 280)], ids=["224", "518", "non-square"])
def test_dinov2_follows_facebooks_positions(kind, size, tmp_path):
    source = BUILDERS[kind]().eval()
    scramble(source)
    source.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), image_size=size)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    embeddings = source.embeddings
    projection = embeddings.patch_embeddings.projection
    facebook = {
        "patch_embed.proj.weight": projection.weight,
        "patch_embed.proj.bias": projection.bias,
        "pos_embed": embeddings.position_embeddings,
        "cls_token": embeddings.cls_token,
    }
    if kind == "Dinov2WithRegistersModel":
        facebook["register_tokens"] = embeddings.register_tokens
    with torch.no_grad():
        expected = reference.dinov2_embed({k: v.detach() for k, v in facebook.items()}, images)
        torch.testing.assert_close(model.embed(images), expected, atol=1e-5, rtol=1e-4)
        mine, own = model(images), source(images).last_hidden_state
        if size == (518, 518):
            assert torch.equal(mine, own)
        elif kind == "Dinov2Model":
            assert not torch.allclose(mine, own, atol=1e-4)  # transformers' own rule differs
        else:
            torch.testing.assert_close(mine, own, atol=1e-4, rtol=1e-4)
    assert "Facebook" in model.info.position_rule


def test_a_copy_keeps_its_own_positions(tmp_path):
    BUILDERS["Dinov2Model"]().save_pretrained(tmp_path)
    model = load_model(str(tmp_path), image_size=28)
    twin = copy.deepcopy(model)
    images = torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        assert torch.equal(twin(images), model(images))
        twin.backbone.embeddings.resampled_positions.add_(1)
        assert not torch.equal(twin(images), model(images))


def test_other_sizes_use_transformers_own_interpolation(tmp_path):
    source = BUILDERS["ViTModel"]().eval()
    scramble(source)
    source.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), image_size=(96, 48))
    images = torch.randn(1, 3, 96, 48)
    with torch.no_grad():
        assert torch.equal(model(images), source(images, interpolate_pos_encoding=True).last_hidden_state)
    assert model.info.position_rule == positions.TRANSFORMERS


def test_a_clip_model_with_both_towers_gives_its_vision_tower(tmp_path):
    config = hf.CLIPConfig(
        vision_config={**SMALL, "image_size": 64, "patch_size": 16}, text_config={**SMALL, "vocab_size": 50}
    )
    source = hf.CLIPModel(config).eval()
    scramble(source)
    source.save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        hidden = source.vision_model(images, output_hidden_states=True).hidden_states
        state = model.embed(images)
        for block, expected in zip(model.blocks, hidden[1:], strict=True):
            state = block(state)
            torch.testing.assert_close(state, expected)


def test_weights_folder_option_and_random_twin(tmp_path):
    BUILDERS["Dinov2Model"]().save_pretrained(tmp_path)
    trained = load_model("facebook/dinov2-tiny", weights=tmp_path)
    with pytest.raises(UsageError, match="'dinov2_vits14' takes a file"):
        load_model("dinov2_vits14", weights=tmp_path)
    for wrong in (tmp_path / "model.safetensors", tmp_path / "nothing"):
        with pytest.raises(UsageError, match=r"a folder with its config\.json"):
            load_model("facebook/dinov2-tiny", weights=wrong)
    twin = load_model(str(tmp_path), init="random", seed=1)
    assert trained.info.weights == f"file {tmp_path}"
    assert twin.info.is_random
    assert trained.info.digest != twin.info.digest


def test_preprocessing_is_read_from_the_processor_file(tmp_path):
    BUILDERS["ViTModel"]().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "do_center_crop": true, "size": {"shortest_edge": 80},'
        ' "crop_size": {"height": 64, "width": 64}, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3],'
        ' "resample": 2}'
    )
    preprocessing = load_model(str(tmp_path)).preprocessing
    assert preprocessing.mean == (0.1, 0.2, 0.3)
    assert preprocessing.crop_pct == 0.8
    assert preprocessing.interpolation == "bilinear"


def test_not_a_plain_vit(tmp_path):
    hf.ResNetConfig().save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="'resnet' model, not a plain ViT"):
        load_model(str(tmp_path))


def test_missing_keys_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    BUILDERS["ViTModel"]().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    dropped = next(key for key in state if key.endswith("layernorm.weight"))
    del state[dropped]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BrdynError, match=r"layernorm\.weight"):
        load_model(str(tmp_path))
