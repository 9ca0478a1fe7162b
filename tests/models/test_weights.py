"""Weights in a file: built as the file has them, resampled at most once, and nothing dropped without a word."""

import re

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import resample_abs_pos_embed

from brdyn.errors import BrdynError, UsageError
from brdyn.models import checkpoints, load_model, timm_family, timm_trunks
from brdyn.models.loaded import Loaded
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.request import ModelRequest
from tests import reference
from tests.conftest import scramble

TINY = "vit_tiny_patch16_224"


def network(name=TINY, seed=0, **options):
    """One of timm's architectures with every parameter random."""
    built = timm.create_model(name, **{"num_classes": 0} | options)
    scramble(built, seed)
    return built.eval()


def pictures(*size, count=1):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))


def saved(tmp_path, content, name="file.pth"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def same_stepped(found, backbone, images):
    """Through the adapter's own steps, and timm's forward."""
    preprocessing = Preprocessing(images.shape[-2:])
    adapted = timm_family.adapt(ModelRequest("x"), "timm", Loaded(found), "test", "none", preprocessing)
    return same(adapted, backbone, images)


def same(model, backbone, images):
    with torch.no_grad():
        return torch.equal(model(images), backbone.forward_features(images))


@pytest.fixture(scope="module")
def tiny():
    return network()


@pytest.fixture
def images():
    return pictures(224, 224)


@pytest.mark.parametrize("size", [(384, 384), (224, 336)], ids=["square", "not square"])
def test_positions_that_fit_are_not_touched(tmp_path, size):
    backbone = network(img_size=size)
    model = load_model(TINY, weights=saved(tmp_path, backbone.state_dict()), image_size=size)
    assert torch.equal(model.backbone.pos_embed, backbone.pos_embed)
    assert same(model, backbone, pictures(*size))
    assert not any("resampled" in note for note in model.info.notes)


def test_positions_are_resampled_once_from_the_files_own_table(tmp_path):
    backbone = network(img_size=384)
    path = saved(tmp_path, backbone.state_dict())
    expected = resample_abs_pos_embed(backbone.pos_embed, (14, 14), (24, 24))
    for options in ({"image_size": 224}, {}):  # the architecture's own size by default
        model = load_model(TINY, weights=path, **options)
        assert torch.equal(model.backbone.pos_embed, expected)
        assert any(
            "24x24 patches, as for images of 384x384 pixels, and were resampled for 224x224" in note
            for note in model.info.notes
        )
    assert model.info.digest == load_model(TINY, weights=path, image_size=384).info.digest


@pytest.mark.parametrize("asked", [None, 224, (336, 224)])
def test_positions_of_no_square_need_their_size(tmp_path, asked):
    path = saved(tmp_path, network(img_size=(224, 384)).state_dict())
    with pytest.raises(UsageError, match=r"the 336 positions in .* of no square of patches; give .*HEIGHTxWIDTH"):
        load_model(TINY, weights=path, image_size=asked)


def test_a_square_of_as_many_patches_as_asked_for_is_said_to_be_read_as_one(tmp_path):
    path = saved(tmp_path, network(img_size=256).state_dict())
    model = load_model(TINY, weights=path, image_size=(128, 512))
    assert "its 256 positions are taken to be of 16x16 patches" in model.info.notes
    assert model.tokens.grid == (8, 32)


@pytest.mark.parametrize("side", [37, 16])
@pytest.mark.parametrize("size", [(224, 224), (140, 196)])
def test_facebooks_rule_starts_from_the_files_own_table(tmp_path, side, size):
    state = reference.facebook_dinov2_state("vits14")
    state["pos_embed"] = torch.randn(1, 1 + side * side, 384, generator=torch.Generator().manual_seed(0))
    model = load_model("dinov2_vits14", weights=saved(tmp_path, state), image_size=size)
    grid = (size[0] // 14, size[1] // 14)
    square = state["pos_embed"][0, 1:].reshape(side, side, -1).double().numpy()
    if grid != (side, side):
        square = reference.bicubic(square, grid, [(new + 0.1) / side for new in grid])
    found = model.backbone.pos_embed[0, 1:].reshape(*grid, -1)
    torch.testing.assert_close(found, torch.from_numpy(square).float(), atol=2e-5, rtol=1e-4)


def test_a_table_without_a_position_of_the_cls_token(tmp_path, images):
    backbone = network(no_embed_class=True)
    model = load_model(TINY, weights=saved(tmp_path, backbone.state_dict()))
    assert same(model, backbone, images)
    assert "built with positions of patches only, as the file has them" in model.info.notes


def test_a_position_of_the_cls_token_where_the_architecture_has_none(tmp_path, images):
    name = "deit3_small_patch16_224"
    backbone = network(name, no_embed_class=False)
    state = {re.sub(r"ls([12])\.gamma", r"gamma_\1", key): value for key, value in backbone.state_dict().items()}
    model = load_model(name, weights=saved(tmp_path, {"model": state}))  # in DeiT-3's own names
    with torch.no_grad():
        torch.testing.assert_close(model(images), backbone.forward_features(images), atol=1e-5, rtol=1e-5)
    assert any("position of the cls token was added to it" in note for note in model.info.notes)


@pytest.mark.parametrize(
    "name",
    ["beit_base_patch16_224", "vit_relpos_small_patch16_224", "vit_srelpos_small_patch16_224",
     "vit_relpos_base_patch16_clsgap_224", "vit_relpos_base_patch32_plus_rpn_256"],
)  # fmt: skip
def test_relative_positions_of_another_size_fit_as_they_are(tmp_path, name):
    step = 32 if "patch32" in name else 16
    for sides in ((6, 6), (4, 6)):
        size = (sides[0] * step, sides[1] * step)
        backbone = network(name, img_size=size, depth=2)
        path = saved(tmp_path, backbone.state_dict())
        request = ModelRequest(name, weights=path, image_size=size)
        loaded = timm_trunks.from_file(request, name, path, size=size, depth=2)
        assert same_stepped(loaded.backbone, backbone, pictures(*size))
    if any(key.endswith("relative_position_bias_table") for key in backbone.state_dict()):
        with pytest.raises(UsageError, match="of no square of patches"):  # others compute theirs by a small network
            timm_trunks.from_file(ModelRequest(name, weights=path), name, path, depth=2)


def test_rotary_models_have_no_table_to_resample(tmp_path):
    backbone = network("vit_small_patch16_dinov3", img_size=64)
    path = saved(tmp_path, backbone.state_dict())
    model = load_model("vit_small_patch16_dinov3", weights=path, image_size=64)
    assert same(model, backbone, pictures(64, 64))
    assert not any("resampled" in note for note in model.info.notes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"patch_size": 32},
            r"patch_embed.proj.weight in .* is \(192, 3, 32, 32\), .* as \(192, 3, 16, 16\)",
        ),
        ({"in_chans": 1}, r"patch_embed.proj.weight is \(192, 1, 16, 16\) instead of \(192, 3, 16, 16\)"),
        ({"in_chans": 4}, r"patch_embed.proj.weight is \(192, 4, 16, 16\) instead of \(192, 3, 16, 16\)"),
        ({"init_values": 1.0}, r"24 unexpected \(blocks.0.ls1.gamma"),
        ({"depth": 13}, r"12 unexpected \(blocks.12"),
        ({"reg_tokens": 4}, r"1 unexpected \(reg_token\)"),
        ({"qkv_bias": False}, r"12 missing \(blocks.0.attn.qkv.bias"),
    ],
)
def test_what_is_of_another_architecture_is_refused_by_name_and_shape(tmp_path, change, words):
    path = saved(tmp_path, network(**change).state_dict())
    with pytest.raises(BrdynError, match=words):
        load_model(TINY, weights=path)


def test_a_file_of_a_distilled_model_is_not_taken_for_another(tmp_path):
    path = saved(tmp_path, network("deit_tiny_distilled_patch16_224").state_dict())
    with pytest.raises(BrdynError, match=r"unexpected \(dist_token"):
        load_model("deit_tiny_patch16_224", weights=path)


def test_a_linear_patch_embedding_is_the_same_convolution(tmp_path, tiny, images):
    state = dict(tiny.state_dict())
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1)
    assert same(load_model(TINY, weights=saved(tmp_path, state)), tiny, images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_said(tmp_path, tiny, dtype):
    state = {key: value.to(dtype) for key, value in tiny.state_dict().items()}
    model = load_model(TINY, weights=saved(tmp_path, state))
    assert torch.equal(model.blocks[3].mlp.fc1.weight, state["blocks.3.mlp.fc1.weight"].float())
    assert f"stored as {str(dtype).removeprefix('torch.')} and read as float32" in model.info.notes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensor: (tensor * 100).to(torch.int8), "blocks.2.norm1.weight in .* is int8: quantised"),
        (
            lambda tensor: tensor.masked_fill(torch.arange(192) == 5, torch.nan),
            "norm1.weight in .* has 1 values",
        ),
        (
            lambda tensor: tensor.masked_fill(torch.arange(192) < 2, torch.inf),
            "norm1.weight in .* has 2 values",
        ),
    ],
)
def test_weights_that_are_no_numbers_are_refused(tmp_path, tiny, change, words):
    state = dict(tiny.state_dict())
    state["blocks.2.norm1.weight"] = change(state["blocks.2.norm1.weight"])
    with pytest.raises(BrdynError, match=words):
        load_model(TINY, weights=saved(tmp_path, state))
    state["blocks.2.norm1.weight"] = torch.full((192,), 3e38)  # the sum overflows, the values do not
    load_model(TINY, weights=saved(tmp_path, state))


@pytest.mark.parametrize(
    ("wrappers", "taken", "other"),
    [
        (("model", "model_ema"), "model_ema", "model"),
        (("state_dict", "state_dict_ema"), "state_dict_ema", "state_dict"),
        (("student", "teacher"), "teacher", "student"),
        (("encoder", "target_encoder"), "target_encoder", "encoder"),
        (("model", "state_dict"), "state_dict", "model"),
    ],
)
def test_of_several_sets_the_average_is_taken_and_said(tmp_path, wrappers, taken, other):
    sets = {name: network(seed=seed).state_dict() for seed, name in enumerate(wrappers)}
    path = saved(tmp_path, sets)
    model = load_model(TINY, weights=path)
    assert torch.equal(model.backbone.cls_token, sets[taken]["cls_token"])
    assert model.info.weights == f"file {path} [{taken}]"
    assert any(f"{taken} was taken" in note for note in model.info.notes)
    model = load_model(TINY, weights=path, weights_key=other)
    assert torch.equal(model.backbone.cls_token, sets[other]["cls_token"])
    assert model.info.weights == f"file {path} [{other}]"
    again = ModelRequest("raptor").of_teacher(TINY, (224, 224), model.info.weights)
    assert (again.weights, again.weights_key) == (path, other)


def test_which_set_must_be_clear(tmp_path, tiny):
    path = saved(tmp_path, {"a": tiny.state_dict(), "b": network(seed=1).state_dict()})
    with pytest.raises(UsageError, match="several sets of weights; say which with `weights_key`: a, b"):
        load_model(TINY, weights=path)
    with pytest.raises(UsageError, match=r"`weights_key='c'` is not in .*; it holds: a, b"):
        load_model(TINY, weights=path, weights_key="c")
    with pytest.raises(UsageError, match="give that file by `weights`"):
        load_model(TINY, weights_key="a")
    path = saved(tmp_path, {"a": tiny.state_dict(), "b": network("vit_small_patch16_224").state_dict()})
    assert load_model(TINY, weights=path).info.weights.endswith("[a]")  # the other is of another width


def test_a_teachers_file_whose_name_looks_like_a_key(tmp_path):
    (tmp_path / "run [1]").touch()
    request = ModelRequest("raptor").of_teacher(TINY, (224, 224), f"file {tmp_path / 'run [1]'}")
    assert (request.weights, request.weights_key) == (tmp_path / "run [1]", None)
    request = ModelRequest("raptor", weights=tmp_path / "mine.pth")
    assert request.of_teacher(TINY, (224, 224), "file x.pth [teacher]").weights_key is None


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "model.", "module.", "net.", "student.", "teacher.", "backbone.", "encoder.", "module.base_encoder.",
     "module._orig_mod.backbone.", "model.net.encoder.module."],
)  # fmt: skip
def test_prefixes_in_any_combination(tmp_path, tiny, images, prefix):
    state = {f"{prefix}{key}": value for key, value in tiny.state_dict().items()}
    beside = {} if prefix == "_orig_mod." else {"criterion.centre": torch.zeros(3), "optimizer_step": torch.ones(1)}
    model = load_model(TINY, weights=saved(tmp_path, {"state_dict": state | beside, "epoch": 3}))
    assert same(model, tiny, images)
    assert not beside or "not used from file.pth: criterion, optimizer_step" in model.info.notes
    assert model.info.weights == f"file {tmp_path / 'file.pth'}"


def test_compiled_and_sharded_blocks(tmp_path, tiny, images):
    state = {key.replace("blocks.3.", "blocks.3._orig_mod."): value for key, value in tiny.state_dict().items()}
    state = {key.replace("blocks.5.", "blocks.5._fsdp_wrapped_module."): value for key, value in state.items()}
    assert same(load_model(TINY, weights=saved(tmp_path, state)), tiny, images)


def test_masked_autoencoders_keep_their_encoder(tmp_path, tiny, images):
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 197, 8),
               "decoder_blocks.0.norm1.weight": torch.ones(8)}  # fmt: skip
    model = load_model(TINY, weights=saved(tmp_path, {"model": {**tiny.state_dict(), **decoder}}))
    assert same(model, tiny, images)
    assert any("decoder_blocks, decoder_pos_embed, mask_token" in note for note in model.info.notes)
    assert model.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))


def test_a_fine_tuned_masked_autoencoder_pools_before_its_norm(tmp_path, images):
    backbone = network(global_pool="avg", num_classes=5)
    model = load_model(TINY, weights=saved(tmp_path, backbone.state_dict()))
    with torch.no_grad():
        assert torch.equal(model.logits(model(images)), backbone(images))
    assert isinstance(model.norm, torch.nn.Identity)
    assert any("fc_norm" in note for note in model.info.notes)


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "eva02_tiny_patch14_224"])
def test_a_pretrained_norm_is_not_moved_behind_the_pooling(tmp_path, name):
    backbone = network(name, img_size=112, global_pool="token", depth=2)
    path = saved(tmp_path, backbone.state_dict() | {"mask_token": torch.zeros(1, 1, backbone.embed_dim)})
    loaded = timm_trunks.from_file(ModelRequest(name, weights=path), name, path, size=(112, 112), depth=2)
    assert same_stepped(loaded.backbone, backbone, pictures(112, 112))
    assert isinstance(loaded.backbone.norm, torch.nn.LayerNorm)


@pytest.mark.parametrize("extra", ["masked_embed", "mask_token", "head.mlp.0.weight", "head.last_layer.weight_g"])
def test_what_only_training_uses_is_left_out_with_a_word(tmp_path, tiny, images, extra):
    model = load_model(TINY, weights=saved(tmp_path, {**tiny.state_dict(), extra: torch.ones(1, 192)}))
    assert same(model, tiny, images)
    assert any(f"not used from file.pth: {extra.split('.')[0]}" in note for note in model.info.notes)


def test_a_head_behind_a_layer_that_timm_lacks_goes_with_it(tmp_path, images):
    backbone = network(num_classes=7)
    state = {**backbone.state_dict(), "pre_logits.fc.weight": torch.ones(192, 192)}
    model = load_model(TINY, weights=saved(tmp_path, state))
    assert model.classes == 0
    assert same(model, backbone, images)
    assert any("head (2), pre_logits" in note for note in model.info.notes)


def test_moco_takes_the_base_encoder_with_its_twelve_heads(tmp_path, images):
    base, momentum = (network("vit_small_patch16_224", seed=seed, num_heads=12) for seed in (0, 1))
    state = {f"module.base_encoder.{key}": value for key, value in base.state_dict().items()}
    state |= {f"module.momentum_encoder.{key}": value for key, value in momentum.state_dict().items()}
    state |= {f"module.{one}_encoder.head.0.weight": torch.ones(8, 384) for one in ("base", "momentum")}
    model = load_model("vit_small_patch16_224", weights=saved(tmp_path, {"state_dict": state}))
    assert same(model, base, images)
    assert model.info.heads == 12
    assert model.info.weights.endswith("[base_encoder]")


def test_torchvisions_vit(tmp_path, images):
    from torchvision.models import VisionTransformer

    theirs = VisionTransformer(224, 16, 12, 3, 192, 768, num_classes=6).eval()
    scramble(theirs)
    model = load_model(TINY, weights=saved(tmp_path, theirs.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(model.logits(model(images)), theirs(images), atol=1e-5, rtol=1e-4)
    assert model.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))
    assert model.preprocessing.interpolation == "bilinear"


def clip_file(path, quick):
    """OpenAI's CLIP ViT of width 64, and its forward, from transformers; named as OpenAI names it."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=256, intermediate_size=1024, num_hidden_layers=10, num_attention_heads=4, image_size=224,
        patch_size=16, projection_dim=512, hidden_act="quick_gelu" if quick else "gelu",
    )  # fmt: skip
    theirs = CLIPVisionModelWithProjection(config).eval()
    scramble(theirs)
    state = {key.removeprefix("vision_model."): value for key, value in theirs.state_dict().items()}
    named = {
        "class_embedding": state["embeddings.class_embedding"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "conv1.weight": state["embeddings.patch_embedding.weight"],
        "proj": state["visual_projection.weight"].T,
    }
    for kind in ("weight", "bias"):
        named[f"ln_pre.{kind}"], named[f"ln_post.{kind}"] = (
            state[f"pre_layrnorm.{kind}"],
            state[f"post_layernorm.{kind}"],
        )
        for layer in range(10):
            old, new = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
            parts = [state[f"{old}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            named[f"{new}.attn.in_proj_{kind}"] = torch.cat(parts)
            pairs = (("self_attn.out_proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
                     ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"))  # fmt: skip
            named |= {f"{new}.{ours}.{kind}": state[f"{old}.{hf}.{kind}"] for hf, ours in pairs}
    return theirs, {f"visual.{key}": value for key, value in named.items()} | {"logit_scale": torch.ones(())}


def test_clip_in_its_own_names(tmp_path, images):
    name = "vit_xsmall_patch16_clip_224"
    theirs, state = clip_file(tmp_path, quick=False)
    model = load_model(name, weights=saved(tmp_path, {"state_dict": {f"module.{k}": v for k, v in state.items()}}))
    with torch.no_grad():
        torch.testing.assert_close(model.backbone(images), theirs(images).image_embeds, atol=1e-5, rtol=1e-4)
        last = theirs(images).last_hidden_state
        torch.testing.assert_close(model(images), theirs.vision_model.post_layernorm(last), atol=1e-5, rtol=1e-4)
    assert any("CLIP files do not say their activation" in note for note in model.info.notes)
    marked = state | {key: torch.tensor(1) for key in ("input_resolution", "context_length", "vocab_size")}
    with pytest.raises(UsageError, match=r"OpenAI's CLIP weights, which need QuickGELU; use `model` .*quickgelu"):
        load_model(name, weights=saved(tmp_path, marked))


def test_the_activation_of_openais_clip(tmp_path, images):
    theirs, state = clip_file(tmp_path, quick=True)
    path = saved(
        tmp_path,
        state | {key: torch.tensor(1) for key in ("input_resolution", "context_length", "vocab_size")},
    )
    request = ModelRequest("clip", weights=path)
    loaded = timm_trunks.from_file(request, "vit_xsmall_patch16_clip_224", path, act_layer="quick_gelu")
    with torch.no_grad():
        found = loaded.backbone.eval()(images)
        torch.testing.assert_close(found, theirs(images).image_embeds, atol=1e-5, rtol=1e-4)


def google_file(path, backbone, head=True, heads=3):
    """A ViT of timm's in the arrays of Google's checkpoints."""
    state = {key: value.numpy() for key, value in backbone.state_dict().items()}
    arrays = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
    }
    if head:
        arrays |= {"head/kernel": state["head.weight"].T, "head/bias": state["head.bias"]}
    width = backbone.embed_dim
    for index in range(len(backbone.blocks)):
        old, new = f"blocks.{index}", f"Transformer/encoderblock_{index}"
        for number, norm in ((0, "norm1"), (2, "norm2")):
            arrays[f"{new}/LayerNorm_{number}/scale"] = state[f"{old}.{norm}.weight"]
            arrays[f"{new}/LayerNorm_{number}/bias"] = state[f"{old}.{norm}.bias"]
        attention = f"{new}/MultiHeadDotProductAttention_1"
        for part, name in enumerate(("query", "key", "value")):
            rows = slice(part * width, (part + 1) * width)
            arrays[f"{attention}/{name}/kernel"] = state[f"{old}.attn.qkv.weight"][rows].T.reshape(width, heads, -1)
            arrays[f"{attention}/{name}/bias"] = state[f"{old}.attn.qkv.bias"][rows].reshape(heads, -1)
        arrays[f"{attention}/out/kernel"] = state[f"{old}.attn.proj.weight"].T.reshape(heads, -1, width)
        arrays[f"{attention}/out/bias"] = state[f"{old}.attn.proj.bias"]
        for number, name in enumerate(("fc1", "fc2")):
            arrays[f"{new}/MlpBlock_3/Dense_{number}/kernel"] = state[f"{old}.mlp.{name}.weight"].T
            arrays[f"{new}/MlpBlock_3/Dense_{number}/bias"] = state[f"{old}.mlp.{name}.bias"]
    np.savez(path, **arrays)
    return arrays


def test_googles_own_files(tmp_path):
    backbone = network(img_size=96, num_classes=4)
    path = tmp_path / "google.npz"
    arrays = google_file(path, backbone)
    model = load_model(TINY, weights=path, image_size=96)
    with torch.no_grad():
        assert torch.equal(model.logits(model(pictures(96, 96))), backbone(pictures(96, 96)))
    native = load_model(TINY, weights=path)
    torch.testing.assert_close(native.backbone.pos_embed, resample_abs_pos_embed(backbone.pos_embed, (14, 14), (6, 6)))
    assert native.info.digest == model.info.digest
    np.savez(path, **arrays, **{"pre_logits/kernel": np.ones((192, 192))})
    model = load_model(TINY, weights=path, image_size=96)
    assert model.classes == 0
    assert any("not used from google.npz: head (2), pre_logits" in note for note in model.info.notes)


@pytest.mark.parametrize(
    ("change", "heads", "words"),
    [
        ({"depth": 13}, 3, "blocks 13 instead of 12"),
        ({}, 6, "attention heads 6 instead of 3"),
        ({"patch_size": 32}, 3, r"embedding/kernel \(32, 32, 3, 192\) instead of \(16, 16, 3, 192\)"),
        ({"in_chans": 1}, 3, r"embedding/kernel \(16, 16, 1, 192\) instead of \(16, 16, 3, 192\)"),
    ],
)
def test_what_timm_would_not_notice_of_googles_files_is_refused(tmp_path, change, heads, words):
    google_file(tmp_path / "google.npz", network(**change), head=False, heads=heads)
    with pytest.raises(BrdynError, match=words):
        load_model(TINY, weights=tmp_path / "google.npz")


def test_openais_archives_need_a_word(tmp_path, tiny, images):
    scripted = torch.jit.trace(tiny, images)
    scripted.save(str(tmp_path / "model.pt"))
    with pytest.raises(BrdynError, match=r"is a TorchScript archive: .*`allow_pickle=True`"):
        load_model(TINY, weights=tmp_path / "model.pt")
    model = load_model(TINY, weights=tmp_path / "model.pt", allow_pickle=True)
    assert same(model, tiny, images)


def test_a_pickled_network_is_read_by_its_weights(tmp_path, tiny, images):
    path = saved(tmp_path, {"model": tiny})
    with pytest.raises(BrdynError, match="holds pickled Python objects"):
        load_model(TINY, weights=path)
    assert same(load_model(TINY, weights=path, allow_pickle=True), tiny, images)


def test_arguments_and_numbers_of_a_training_script_are_no_code(tmp_path, tiny, images):
    from argparse import Namespace

    content = {
        "model": tiny.state_dict(),
        "args": Namespace(lr=0.1),
        "best": np.float64(0.5),
        "epoch": np.int64(3),
    }
    assert same(load_model(TINY, weights=saved(tmp_path, content)), tiny, images)


def test_what_a_file_is_is_told_from_its_content(tmp_path, tiny, images):
    save_file(tiny.state_dict(), tmp_path / "wrong.pth")
    assert same(load_model(TINY, weights=tmp_path / "wrong.pth"), tiny, images)
    torch.save(tiny.state_dict(), tmp_path / "wrong.safetensors")
    assert same(load_model(TINY, weights=tmp_path / "wrong.safetensors"), tiny, images)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pth", b"", "is empty"),
        ("a.pth", LFS, "Git LFS pointer.*git lfs pull"),
        ("a.safetensors", LFS, "Git LFS pointer"),
        ("a.pth", b"\n<!DOCTYPE html><html>404</html>", "is a web page"),
        (
            "model.safetensors.index.json",
            b'{"metadata": {}, "weight_map": {}}',
            "checkpoint in several files",
        ),
        ("a.json", b'{"a": 1}', "text in JSON"),
        ("a.onnx", b"\x08\x08\x12\x07pytorch", "ONNX graph"),
        ("a.npy", b"\x93NUMPY\x01\x00", "one NumPy array"),
        ("a.h5", b"\x89HDF\r\n", "HDF5"),
        ("a.pth.gz", b"\x1f\x8b\x08\x00", "gzip; unpack it"),
        ("a.txt", b"some words", "no torch checkpoint"),
        ("a.pth", b"some words", "is the download complete"),
        ("a.pth", b"PK\x03\x04" + bytes(40), "is the download complete"),
        ("a.safetensors", b"\xff" * 40, r"as safetensors \(.*; download or copy it again\)"),
    ],
)
def test_other_files_are_called_what_they_are(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BrdynError, match=words) as raised:
        load_model(TINY, weights=tmp_path / name)
    assert "\n" not in str(raised.value)


def test_archives_and_folders_are_called_what_they_are(tmp_path):
    import tarfile
    import zipfile

    (tmp_path / "x.txt").write_text("x")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "x.txt", "x.txt")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "x.txt", "x.txt")
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    for name, words in {
        "x.tar": "tar archive",
        "x.zip": "zip archive of 1 files",
        "x.npz": "no ViT of Google's",
    }.items():
        with pytest.raises(BrdynError, match=words):
            load_model(TINY, weights=tmp_path / name)
    with pytest.raises(UsageError, match="is a folder"):
        load_model(TINY, weights=tmp_path)
    with pytest.raises(BrdynError, match="which only timm's own ViT names can take"):
        load_model("dinov2_vits14", weights=tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({0: torch.ones(2), ("a", 1): torch.ones(2)}, "a mapping of int to Tensor, tuple to Tensor"),
        ([torch.ones(2), [torch.ones(2)]], r"a list of 2 \(Tensor, list\)"),
        (torch.ones(2, 3), r"one tensor of shape \(2, 3\)"),
        ({}, "an empty mapping"),
        ({"epoch": 3}, "a mapping of str to int"),
        ({"a.weight": torch.ones(2)}, r"holds no ViT: none of its 1 tensors .* \(a.weight"),
        (
            {"embeddings.patch_embeddings.projection.weight": torch.ones(192, 3, 16, 16)},
            "in transformers' layout",
        ),
    ],
)
def test_checkpoints_of_something_else(tmp_path, content, words):
    with pytest.raises(BrdynError, match=words):
        load_model(TINY, weights=saved(tmp_path, content))


def test_names_that_are_no_text_stand_beside_the_weights(tmp_path, tiny, images):
    content = {
        "state_dict": tiny.state_dict(),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}},
        5: torch.ones(1),
    }
    assert same(load_model(TINY, weights=saved(tmp_path, content)), tiny, images)


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "224", (224,), (224, 0)])
def test_sizes_that_are_none(size):
    with pytest.raises(UsageError, match="neither a number of pixels nor"):
        load_model(TINY, init="random", image_size=size)


@pytest.mark.parametrize("name", [TINY, "dinov2_vits14", "dinov3_vits16", "imgfocus_vits14"])
@pytest.mark.parametrize("size", [10**9, 2**25])
def test_sizes_that_no_memory_holds(name, size):
    with pytest.raises(UsageError, match="GiB, more than this machine has; use a smaller `image_size`"):
        load_model(name, init="random", image_size=size)


def test_names_of_files_and_folders(tmp_path, monkeypatch, tiny):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "old").mkdir(parents=True)
    (tmp_path / "runs" / "old" / "phases.json").touch()
    path = saved(tmp_path, tiny.state_dict(), "runs/tiny.pth")
    for name in ("runs/old", "~/runs/old", str(tmp_path / "runs" / "old")):
        with pytest.raises(UsageError, match=r"holds results of brdyn \(phases.json\), not a model"):
            load_model(name)
    for name in ("runs/tiny.pth", "~/runs/tiny.pth"):
        with pytest.raises(UsageError, match="is a file of weights; name its architecture"):
            load_model(name)
    assert load_model(TINY, weights="~/runs/tiny.pth").info.weights == f"file {path}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("swin_tiny_patch4_window7_224", "windows of tokens merge"),
        ("resnet50", "convolves"),
        ("vit_base_r50_s16_224", "patches come from a convolutional network"),
        ("pvt_v2_b0", "fewer in each stage"),
        ("samvit_base_patch16", "windows in rows and columns"),
    ],
)
def test_what_is_no_plain_vit_says_which_part_is_not(name, words):
    with pytest.raises(UsageError, match=f"not a plain ViT: its .*{words}|not a plain ViT: it {words}"):
        load_model(name, init="random")


def test_where_tags_differ_the_preprocessing_is_said(tmp_path):
    name = "vit_small_patch16_224"
    path = saved(tmp_path, network(name, depth=1).state_dict())
    loaded = timm_trunks.from_file(ModelRequest(name, weights=path), name, path, depth=1)
    _, notes = timm_family.preprocessing_of_file(loaded, name)
    assert any("normalised with the mean 0.5" in note for note in notes)
    _, notes = timm_family.preprocessing_of_file(loaded, f"{name}.dino")
    assert not any("normalised" in note for note in notes)


@pytest.mark.parametrize(
    ("own", "asked", "said"),
    [
        ((64, 96), (64, 96), "taken to be of 4x6 patches, not 6x4"),
        ((64, 96), (96, 64), "taken to be of 6x4 patches, not 4x6"),
        ((80, 208), (80, 208), "its 228 relative positions are taken to be of 8x8 patches"),
    ],
)
def test_relative_positions_of_no_square(tmp_path, own, asked, said):
    """Taken for images of the size asked for, which is said; where a square has as many, they are of that."""
    small = {"depth": 1, "embed_dim": 24, "num_heads": 2}
    name = "beit_base_patch16_224"
    whole = network(name, img_size=own, **small)
    path = saved(tmp_path, whole.state_dict())
    request = ModelRequest(name, weights=path, image_size=asked)
    loaded = timm_trunks.from_file(request, name, path, size=asked, **small)
    assert any(said in note for note in loaded.notes), loaded.notes
    if own == asked and own != (80, 208):
        assert same_stepped(loaded.backbone, whole, pictures(*own))
    for other in (None, (64, 64)):
        if own != (80, 208):
            with pytest.raises(UsageError, match="are of no square of patches; give the image size they were"):
                timm_trunks.from_file(ModelRequest(name, image_size=other), name, path, size=other, **small)


def test_a_key_chooses_nothing_in_googles_files(tmp_path):
    google_file(tmp_path / "google.npz", network(), head=False)
    with pytest.raises(UsageError, match=r"`weights_key='ema'` is not in .*google.npz.*; it holds one set"):
        load_model(TINY, weights=tmp_path / "google.npz", weights_key="ema")


def test_a_pickled_network_under_a_wrong_name_is_read_like_any_other(tmp_path, tiny, images):
    path = saved(tmp_path, {"model": tiny}).rename(tmp_path / "model.safetensors")
    with pytest.raises(BrdynError, match="holds pickled Python objects"):
        load_model(TINY, weights=path)
    assert same(load_model(TINY, weights=path, allow_pickle=True), tiny, images)


def test_numbers_of_a_file_are_counted_by_its_header(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(()), "c": torch.zeros(0, 5)}, path)
    assert checkpoints.count_numbers(path) == 13
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(
        BrdynError, match=r"x.safetensors' as safetensors \(truncated: 20 of .* download or copy it again\)"
    ):
        checkpoints.count_numbers(path)
