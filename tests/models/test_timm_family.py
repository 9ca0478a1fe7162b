"""timm adapters against timm's own forward passes, with every parameter random."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.beit import Beit

from brdyn.errors import BrdynError, UsageError
from brdyn.models import describe_model, list_models, load_model, positions, timm_family
from brdyn.models.base import check_image_size
from brdyn.models.loaded import Loaded
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.request import ModelRequest
from tests import reference
from tests.conftest import scramble

LAYOUTS = {
    "vit_tiny_patch16_224": {"cls": 1},
    "deit_tiny_distilled_patch16_224": {"cls": 1, "distillation": 1},
    "vit_xsmall_patch16_clip_224": {"cls": 1},
    "vit_base_patch16_siglip_224": {},
    "beit_base_patch16_224": {"cls": 1},
    "eva02_tiny_patch14_224": {"cls": 1},
    "vit_small_patch16_dinov3": {"cls": 1, "registers": 4},
    "vit_small_patch16_rope_mixed_224": {"cls": 1},
    "vit_small_patch14_reg4_dinov2": {"cls": 1, "registers": 4},
    "vit_relpos_small_patch16_224": {},
    "vit_srelpos_small_patch16_224": {},
    "vit_relpos_base_patch16_clsgap_224": {"cls": 1},
    "vit_wee_patch16_reg1_gap_256": {"registers": 1},
}
SIZE = 112


def shallow(name, size, layers=3, **options):
    """One of timm's architectures, untrained, of few layers."""
    return timm_family.load(ModelRequest(name, random=True, image_size=size, arguments=(("depth", layers),), **options))


def check_against_timm(model, images):
    backbone = model.backbone
    state = model.embed(images)
    states = []
    for block in model.blocks:
        state = block(state)
        states.append(state)
    assert torch.equal(model.norm(state), backbone.forward_features(images))
    assert torch.equal(model(images), backbone.forward_features(images))
    outputs = backbone.forward_intermediates(
        images,
        norm=False,
        output_fmt="NLC",
        intermediates_only=True,
        return_prefix_tokens=backbone.num_prefix_tokens > 0,
    )
    for mine, theirs in zip(states, outputs, strict=True):
        patches, prefix = theirs if isinstance(theirs, tuple) else (theirs, None)
        assert torch.equal(mine[:, model.tokens["patches"]], patches)
        if prefix is not None and prefix.numel():
            assert torch.equal(mine[:, : model.tokens["patches"].start], prefix)
    assert not torch.allclose(states[0], states[-1], atol=1e-3)


@pytest.mark.parametrize("name", LAYOUTS)
def test_stepping_equals_timms_forward(name):
    if name.startswith("beit") and not hasattr(Beit, "set_input_size"):
        pytest.skip("this timm version cannot resize BEiT")
    model = shallow(name, (SIZE, SIZE))
    scramble(model)
    model = type(model)(model.backbone, model.info, model.preprocessing)  # binds scrambled rotary tables
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        check_against_timm(model, images)
    prefix = {k: v for k, v in model.tokens.sizes().items() if k != "patches"}
    assert prefix == LAYOUTS[name]
    assert model.tokens.count == model.embed(images).shape[1]


def test_beit_with_a_bias_shared_by_all_blocks():
    backbone = Beit(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, use_shared_rel_pos_bias=True)
    scramble(backbone)
    model = timm_family.adapt(
        ModelRequest("beit"), "timm", Loaded(backbone), "test", positions.RELATIVE, Preprocessing((32, 32))
    )
    with torch.no_grad():
        check_against_timm(model, torch.randn(2, 3, 32, 32))
        shared = backbone.rel_pos_bias.relative_position_bias_table
        before = model(torch.ones(1, 3, 32, 32))
        shared.add_(1.0 + torch.randn_like(shared))
        changed = type(model)(backbone, model.info, model.preprocessing)(torch.ones(1, 3, 32, 32))
    assert not torch.allclose(before, changed)


@pytest.mark.parametrize("size", [(224, 224), (518, 518), (196, 280)], ids=["224", "518", "non-square"])
def test_dinov2_in_timm_follows_facebooks_positions(size):
    arch = "vit_small_patch14_dinov2"
    model, native = (shallow(arch, shown, seed=3) for shown in (size, None))
    table = native.backbone.pos_embed
    expected = positions.resample_with_prefix(table, model.tokens.grid, positions.FACEBOOK_DINOV2, prefix=1)
    torch.testing.assert_close(model.backbone.pos_embed, expected)
    assert model.info.position_rule == positions.FACEBOOK_DINOV2.description
    with torch.no_grad():
        images = torch.randn(1, 3, *size)
        assert torch.equal(model(images), model.backbone.forward_features(images))


@pytest.mark.parametrize("size", [(224, 224), (518, 518), (196, 280)], ids=["224", "518", "non-square"])
@pytest.mark.parametrize("registers", [False, True], ids=["plain", "registers"])
def test_dinov2_weights_in_timm_embed_as_facebook_does(size, registers, tmp_path):
    state = reference.facebook_dinov2_state("vits14", registers=registers)
    torch.save(state, tmp_path / "pretrain.pth")
    arch = f"vit_small_patch14_{'reg4_' if registers else ''}dinov2"
    model = load_model(arch, weights=tmp_path / "pretrain.pth", image_size=size)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.embed(images), reference.dinov2_embed(state, images), atol=2e-5, rtol=1e-4)


def test_an_untrained_dinov2_moves_its_states():
    model = load_model("vit_small_patch14_dinov2", init="random", image_size=56)
    state = first = model.embed(torch.randn(1, 3, 56, 56))
    for block in model.blocks:
        state = block(state)
    assert torch.cosine_similarity(state[0, 5], first[0, 5], dim=0) < 0.99


def test_other_timm_models_follow_timms_positions():
    model = load_model("vit_tiny_patch16_224", init="random", image_size=128)
    native = timm.create_model("vit_tiny_patch16_224")
    native.load_state_dict(load_model("vit_tiny_patch16_224", init="random").backbone.state_dict())
    native.set_input_size(img_size=(128, 128))
    torch.testing.assert_close(model.backbone.pos_embed, native.pos_embed)
    assert model.info.position_rule == positions.TIMM


def test_local_safetensors_and_pth_give_the_same_model_and_keep_the_head(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    scramble(source)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "model.pth")
    first = load_model("vit_tiny_patch16_224", weights=tmp_path / "model.safetensors")
    second = load_model("vit_tiny_patch16_224", weights=tmp_path / "model.pth")
    assert first.info.digest == second.info.digest != ""
    assert torch.equal(first.blocks[2].mlp.fc1.weight, source.blocks[2].mlp.fc1.weight)
    assert first.backbone.head.out_features == 7
    assert first.info.weights == f"file {tmp_path / 'model.safetensors'}"


def test_weights_that_do_not_fit_name_the_keys(tmp_path):
    state = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
    del state["blocks.3.attn.qkv.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(BrdynError, match=r"1 missing \(blocks\.3\.attn\.qkv\.weight\)"):
        load_model("vit_tiny_patch16_224", weights=tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "why"),
    {
        "resnet50": "convolves and has no tokens",
        "convnext_tiny": "convolves and has no tokens",
        "convmixer_768_32": "convolves and has no tokens",
        "mobilevit_s": "mix convolutions and attention",
        "levit_128": "fewer in each stage",
        "mixer_b16_224": "by perceptrons",
        "swin_tiny_patch4_window7_224": "merge between stages",
    }.items(),
)
def test_not_a_plain_vit(name, why):
    with pytest.raises(UsageError, match=f"'{name}' is not a plain ViT: .*{why}"):
        load_model(name, init="random")


@pytest.mark.parametrize("module", ["qwen3_vit", "deepseek_vit", "gemma4_vit", "convit"])
def test_of_a_vit_that_is_not_known_nothing_is_said_but_what_to_do(module):
    """The blocks of these keep the shape of a state; only how they are called is not known."""
    names = timm.list_models(module=module)
    if not names:
        pytest.skip(f"timm {timm.__version__} has no {module}")
    with pytest.raises(
        UsageError, match=r"no timm ViT that brdyn knows how to run.*same shape.*brdyn\.adapt"
    ) as caught:
        load_model(names[0], init="random")
    assert "not a plain ViT" not in str(caught.value)


def test_unknown_name_gets_close_matches():
    with pytest.raises(UsageError, match="did you mean dinov2_vits14"):
        load_model("dinov2_vits41")
    with pytest.raises(UsageError, match="brdyn models"):
        load_model("zzzzqqqq")


def test_an_image_of_exactly_one_patch_is_accepted():
    assert check_image_size("it", (16, 28), (16, 14)) == (1, 2)
    assert load_model("vit_tiny_patch16_224", init="random", image_size=16).tokens.grid == (1, 1)
    with pytest.raises(UsageError, match="15x16 pixels is smaller than one 16-pixel patch"):
        check_image_size("it", (15, 16), (16, 16))


def test_a_native_size_that_cuts_the_border_is_kept():
    model = describe_model("vit_so400m_patch14_siglip_384")
    assert model.info.image_size == (384, 384)
    assert model.tokens.sizes() == {"patches": 27 * 27}


def test_every_listed_name_of_a_family_can_be_described():
    listed = [name for family, name in list_models() if family == timm_family.FAMILY]
    assert len(listed) > 200
    for name in listed[::25]:
        model = describe_model(name)
        assert model.info.layers == model.depth
        assert model.device.type == "meta"
