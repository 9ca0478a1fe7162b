"""Untrained twins: the model's own architecture, every family's, with weights of a seed."""

from dataclasses import replace

import pytest
import timm
import torch
import transformers as hf

import brdyn
from brdyn.errors import BrdynError, UsageError
from brdyn.models import load_model, twins, untrained_twins
from brdyn.raptor import BlockConfig
from brdyn.raptor.model import untrained
from tests.classifiers.small import new
from tests.conftest import needs_offline, scramble, tiny_vit
from tests.models.own_vit import adapted
from tests.models.test_timm_layout import saved as timm_folder
from tests.models.test_transformers_family import SMALL

TINY = "vit_tiny_patch16_224"


def tensors(model):
    return {name: value for name, value in model.state_dict().items() if "head" not in name and "pooler" not in name}


def check_twins(model):
    """Two twins: each of the model's shapes, positions, tokens and preprocessing, and no weight is the model's."""
    first, second = untrained_twins(model, 2, seed=4)
    wanted = {name: value.shape for name, value in tensors(model).items()}
    for twin, seed in ((first, 5), (second, 6)):
        assert {name: value.shape for name, value in tensors(twin).items()} == wanted
        assert twin.preprocessing == model.preprocessing
        assert twin.tokens == model.tokens
        assert (twin.info.name, twin.info.heads) == (model.info.name, model.info.heads)
        assert twin.info.weights == f"random (untrained, seed {seed})"
        assert not twin.training
        assert not any(parameter.requires_grad for parameter in twin.parameters())
    drawn = [name for name, value in tensors(first).items() if value.ndim > 1]
    assert not all(torch.equal(tensors(first)[name], tensors(model)[name]) for name in drawn)
    assert not all(torch.equal(tensors(first)[name], tensors(second)[name]) for name in drawn)
    images = torch.randn(1, 3, *model.info.image_size).to(model.dtype)
    assert first(images).shape == model(images).shape
    return first


def test_a_twin_is_what_loading_untrained_gives(tmp_path):
    torch.save(timm.create_model(TINY).state_dict(), tmp_path / "file.pth")
    model = load_model(TINY, weights=tmp_path / "file.pth", image_size=32, dtype=torch.bfloat16)
    twin = check_twins(model)
    same = load_model(TINY, init="random", seed=5, image_size=32, dtype=torch.bfloat16)
    assert all(torch.equal(value, tensors(same)[name]) for name, value in tensors(twin).items())


@pytest.mark.parametrize(
    "options", [{"global_pool": "avg", "num_classes": 5}, {"img_size": 64}], ids=["pooled", "other grid"]
)
def test_a_twin_has_the_parts_that_the_file_has(tmp_path, options):
    torch.save(timm.create_model(TINY, **{"num_classes": 0, **options}).state_dict(), tmp_path / "file.pth")
    model = load_model(TINY, weights=tmp_path / "file.pth")
    assert isinstance(check_twins(model).norm, type(model.norm))


def test_a_twin_sees_images_as_the_weights_do(tmp_path):
    """Those of a masked autoencoder are prepared otherwise than timm's name says."""
    state = timm.create_model(TINY, num_classes=0).state_dict() | {"masked_embed": torch.zeros(1, 192)}
    torch.save(state, tmp_path / "file.pth")
    model = load_model(TINY, weights=tmp_path / "file.pth", image_size=32)
    assert model.preprocessing != load_model(TINY, init="random", image_size=32).preprocessing
    check_twins(model)


def test_a_twin_has_moco_s_heads(tmp_path):
    state = timm.create_model("vit_small_patch16_224", num_classes=0, num_heads=12).state_dict()
    torch.save({f"module.base_encoder.{key}": value for key, value in state.items()}, tmp_path / "file.pth")
    model = load_model("vit_small_patch16_224", weights=tmp_path / "file.pth", image_size=32)
    (twin,) = untrained_twins(model, 1)
    assert (model.info.heads, twin.info.heads, twin.blocks[0].attn.num_heads) == (12, 12, 12)


def test_of_facebooks_file(tmp_path):
    small = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=28, init_values=1.0)
    torch.save(small.state_dict(), tmp_path / "file.pth")
    check_twins(load_model("dinov2_vits14", weights=tmp_path / "file.pth", image_size=42))
    twin = check_twins(load_model("dinov2_vits14", weights=tmp_path / "file.pth", image_size=28))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        own = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=28, init_values=1.0)
    assert torch.equal(twin.backbone.pos_embed, own.pos_embed)  # of the file's grid, which was not resampled either


def test_of_transformers_and_timm_s_folders(tmp_path):
    backbone = hf.ViTModel(hf.ViTConfig(**SMALL, image_size=32, patch_size=16), add_pooling_layer=False)
    scramble(backbone)
    backbone.save_pretrained(tmp_path / "theirs")
    check_twins(load_model(str(tmp_path / "theirs"), image_size=48))
    check_twins(load_model("owner/name", weights=tmp_path / "theirs"))  # its config is with the weights
    timm_folder(tmp_path / "timm")
    check_twins(load_model(str(tmp_path / "timm"), image_size=32))
    timm_folder(tmp_path / "pooled", global_pool="avg", num_classes=5)  # which its config does not say
    twin = check_twins(load_model(str(tmp_path / "pooled"), image_size=32))
    assert isinstance(twin.norm, torch.nn.Identity)


@needs_offline
def test_of_the_offline_model():
    check_twins(load_model("imgfocus_vits14", image_size=28))


def test_of_what_was_trained_here(tmp_path):
    new("vit-tiny12").save_pretrained(tmp_path / "vit")
    check_twins(load_model(str(tmp_path / "vit")))
    new("vitrm").save_pretrained(tmp_path / "vitrm")
    twin = check_twins(load_model(f"{tmp_path / 'vitrm'}@3"))
    assert twin.depth == load_model(f"{tmp_path / 'vitrm'}@3").depth
    check_twins(load_model("cifar_vit12"))


def test_of_a_raptor_blocks_and_teacher_are_drawn(tmp_path):
    teacher = load_model("cifar_vit12")
    raptor = untrained(teacher, [0] * 6 + [1] * 6, BlockConfig(width=96, heads=3, mlp_ratio=1.0), seed=9)
    raptor.save_pretrained(tmp_path / "raptor")
    for model in (raptor.eval().requires_grad_(False), load_model(str(tmp_path / "raptor"))):
        twin = check_twins(model)
        assert twin.assignment == raptor.assignment
        assert twin.teacher.info.weights == "random (untrained, seed 5)"
        assert not torch.equal(twin.teacher.backbone.pos_embed, teacher.backbone.pos_embed)
        assert float(twin.shared[0].scale1.gamma.min()) == 1  # at 1e-5, where fits start, blocks do nothing


def test_twins_of_an_untrained_model_are_others():
    model = load_model(TINY, init="random", seed=2, image_size=32)
    assert untrained_twins(model, 3).seeds == (1, 3, 4)
    assert untrained_twins(model, 3, seed=2).seeds == (3, 4, 5)
    assert untrained_twins(model, 2, seed=2**63 - 1).seeds == (0, 1)  # seeds end there


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (-1, "`null=-1` is not a number of untrained twins from 0 to 1000"),
        (10**6, "`null=1000000` is not a number of untrained twins from 0 to 1000"),
        (1.5, r"`n=1\.5` is not a whole number"),
        (True, "`n=True` is not a whole number"),
    ],
)
def test_a_number_that_is_none(number, said):
    with pytest.raises(UsageError, match=said):
        untrained_twins(tiny_vit(), number)


@pytest.mark.parametrize("model", [adapted(), tiny_vit()], ids=["adapted", "by hand"])
def test_a_module_that_nothing_initialises(model):
    assert len(untrained_twins(model, 0)) == 0
    with pytest.raises(UsageError, match=f"nothing is known that initialises '{model.info.name}'.*drop `null`"):
        untrained_twins(model, 1)


def test_a_raptor_of_such_a_module_has_no_twins_either():
    raptor = untrained(tiny_vit(), [0, 0, 1, 1], BlockConfig(width=16, heads=2), seed=0)
    with pytest.raises(UsageError, match="nothing is known that initialises 'raptor of tiny_vit'"):
        untrained_twins(raptor, 1)


def test_a_twin_of_another_architecture_is_refused():
    model = load_model(TINY, init="random", image_size=32)
    model.info = replace(model.info, heads=6)
    with pytest.raises(BrdynError, match=r"is built otherwise than its weights [(]heads: 3 instead of 6"):
        next(iter(untrained_twins(model, 1)))


def test_a_description_knows_whether_there_are_twins():
    twin = brdyn.describe_model("dinov2_vits14", image_size=28).redraw(3)
    assert (twin.info.image_size, twin.device.type) == ((28, 28), "cpu")  # not on the meta device


@pytest.mark.parametrize(("name", "still"), [("deit3_small_patch16_224", True), (TINY, False)])
def test_blocks_that_start_by_doing_nothing_are_known(name, still):
    """DeiT III starts LayerScale at 1e-6; a plain ViT has none."""
    model = load_model(name, init="random", image_size=32)
    images = torch.randn(1, 3, 32, 32)
    state = model.embed(images)
    moved = (model.blocks[0](state) - state).norm() / state.norm()
    assert (float(moved) < 1e-3) is still
    assert twins.is_still(model) is still
