"""ViTRM: its published size, its recursion written out, halting image by image."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from brdyn.classifiers import ViTRM, ViTRMConfig
from brdyn.errors import UsageError
from brdyn.training.compiling import compile_parts
from tests.conftest import scramble

SMALL = {
    "classes": 3,
    "image_size": 8,
    "patch": 4,
    "width": 12,
    "depth": 2,
    "heads": 2,
    "hidden": 16,
    "dropout": 0.0,
}


def small(seed=0, **changes):
    model = ViTRM(ViTRMConfig(**{**SMALL, **changes}))
    scramble(model, seed)
    return model


@pytest.mark.parametrize(("classes", "parameters"), [(10, 3_624_971), (100, 3_659_621)])
def test_published_size(classes, parameters):
    with torch.device("meta"):
        model = ViTRM(ViTRMConfig(classes=classes))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("sees_image", [True, False])
def test_a_recursion_step_written_out(sees_image):
    model = small(sees_image=sees_image, latent_steps=2).eval()
    images = torch.randn(5, 3, 8, 8)
    found = model(images, steps=2)
    x = model.embedding(images).flatten(2).transpose(1, 2) + model.positions
    y, z = model.answer.expand(5, 1, 12), model.latent.expand(5, 4, 12)
    z = z if sees_image else z + x
    for _ in range(2):
        for _ in range(2):
            tokens = torch.cat([x, y, z], 1) if sees_image else torch.cat([y, z], 1)
            z = model.network(tokens)[:, -4:]
        y = model.network(torch.cat([y, z], 1))[:, :1]
    torch.testing.assert_close(found.scores, model.classifier(y[:, 0]))
    torch.testing.assert_close(found.halting, model.halting(y[:, 0])[:, 0])
    torch.testing.assert_close(found.z, z)
    assert found.scores.std(0).min() > 1e-4  # answers are of the image


def test_attention_is_the_fused_one_written_out():
    layer = small().network[0].eval()
    tokens = torch.randn(3, 7, 12)
    normed = layer.norm1(tokens)
    q, k, v = layer.attn.qkv(normed).view(3, 7, 3, 2, 6).permute(2, 0, 3, 1, 4)
    mixed = ((q @ k.transpose(-1, -2) / 6**0.5).softmax(-1) @ v).transpose(1, 2).reshape(3, 7, 12)
    middle = tokens + layer.attn.proj(mixed)
    hidden = layer.norm2(middle)
    expected = middle + layer.mlp.fc2(functional.silu(layer.mlp.fc1_g(hidden)) * layer.mlp.fc1_x(hidden))
    torch.testing.assert_close(layer(tokens), expected)


@pytest.mark.parametrize("kept", [slice(0, 1), slice(-4, None)])
def test_tokens_that_are_kept_are_those_of_a_whole_layer(kept):
    layer = small().network[-1].eval()
    tokens = torch.randn(3, 7, 12, requires_grad=True)
    seed = torch.randn_like(layer(tokens)[:, kept])
    found, expected = layer(tokens, kept), layer(tokens)[:, kept]
    torch.testing.assert_close(found, expected)
    over = [tokens, *layer.parameters()]
    ours, theirs = (torch.autograd.grad(one, over, seed) for one in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_kept_tokens_have_their_dropout_too():
    """On attention weights and on what the branch adds, each by itself; in an answer there is none."""
    torch.manual_seed(0)
    tokens, kept = torch.randn(3, 7, 12), slice(0, 1)
    attention = small().network[0].attn.train()
    for dropped, other in [("attn_drop", "proj_drop"), ("proj_drop", "attn_drop")]:
        getattr(attention, dropped).p, getattr(attention, other).p = 0.5, 0.0
        plain = attention.eval()(tokens, kept)
        assert not torch.allclose(attention.train()(tokens, kept), plain)
        torch.testing.assert_close(attention.eval()(tokens, kept), plain)


def test_steps_can_be_taken_one_after_the_other():
    model, images = small().eval(), torch.randn(4, 3, 8, 8)
    whole = model(images, steps=3)
    carried = None
    for _ in range(3):
        found = model(images, 1, carried)
        carried = (found.y, found.z)
    torch.testing.assert_close(found.scores, whole.scores)


@pytest.mark.parametrize("threshold", [0.0, "median", 1.0])
def test_images_stop_by_themselves(threshold):
    torch.manual_seed(0)
    model, images = small(seed=3).eval(), 5 * torch.randn(30, 3, 8, 8)
    every = [model(images, steps=number) for number in range(1, 5)]
    if threshold == "median":
        threshold = every[0].halting.sigmoid().median().item()
    found, taken = model.adaptive(images, threshold, most=4)
    for place in range(30):
        expected = next((number for number in range(1, 5) if every[number - 1].halting[place].sigmoid() > threshold), 4)
        assert taken[place] == expected
        torch.testing.assert_close(found.scores[place], every[expected - 1].scores[place], rtol=1e-4, atol=1e-5)
    assert set(taken.tolist()) == {0.0: {1}, 1.0: {4}}.get(threshold, set(taken.tolist()))
    if 0 < threshold < 1:
        assert (taken == 1).sum() == 15
    assert taken.dtype == torch.long


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"image_size": 30},
            "4-pixel patch of 'vitrm'; use for instance 28 or 32",
        ),
        ({"heads": 5}, "split among 5 heads"),
        ({"classes": 0}, "classes 0"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_what_cannot_be_built(changes, words):
    with pytest.raises(UsageError, match=words):
        ViTRMConfig(**changes)


def test_an_image_of_one_patch_is_enough():
    model = small(image_size=4)
    assert model.config.patches == 1
    assert model.begin(torch.zeros(2, 3, 4, 4)).z.shape == (2, 1, 12)


def test_the_recursion_compiles_whole():
    model = small(latent_steps=2).eval()
    images = torch.randn(2, 3, 8, 8)
    whole = torch.compile(model, fullgraph=True, backend="eager")  # an error where the graph breaks
    with torch.no_grad():
        torch.testing.assert_close(whole(images, 3).scores, model(images, 3).scores)


def test_networks_stay_compiled_in_all_their_shapes(monkeypatch):
    """With gradients and without, patches and answers, batches of several sizes: the compiler has room for all."""
    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled(self, backend="eager"))
    torch.compiler.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, recompile_limit=8):
        for images in (4, 2, 7):
            model = small(latent_steps=2)
            compile_parts(nn.ModuleDict({"network": model}))
            assert model.network[0]._compiled_call_impl is not None
            pixels = torch.randn(images, 3, 8, 8)
            for autocast in (False, True):
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    model.train()(pixels).scores.sum().backward()
                    with torch.no_grad():
                        model.eval()(pixels, 2)
    torch.compiler.reset()


def test_it_begins_as_published():
    """Xavier-normal positions, answer, latents and heads without biases; attention as nn.MultiheadAttention begins."""
    torch.manual_seed(0)
    model = ViTRM(ViTRMConfig(classes=10))
    width, patches = 384, 64
    spread = {  # sqrt(2 / (fan in + fan out)), where a tensor's second dimension counts as its inputs
        "positions": (2 / (patches * width + width)) ** 0.5,
        "latent": (2 / (patches * width + width)) ** 0.5,
        "answer": (2 / (width + width)) ** 0.5,
        "classifier.weight": (2 / (width + 10)) ** 0.5,
    }
    parameters = {name: one.detach() for name, one in model.named_parameters()}
    for name, sd in spread.items():
        assert float(parameters[name].std()) == pytest.approx(sd, rel=0.1)
    for layer in model.network:
        plain = nn.MultiheadAttention(width, 6)
        ours, theirs = layer.attn.qkv.weight, plain.in_proj_weight
        torch.testing.assert_close(ours.detach().abs().max(), theirs.detach().abs().max(), rtol=1e-3, atol=0)
        assert not layer.attn.qkv.bias.any()
        assert not layer.attn.proj.bias.any()
    assert not model.classifier.bias.any()
    assert not model.halting.bias.any()


def test_dropout_where_it_is_published():
    """On attention weights and on what either branch adds, not within the MLP."""
    layer = ViTRM(ViTRMConfig(classes=10, dropout=0.1)).network[0]
    assert layer.attn.attn_drop.p == layer.attn.proj_drop.p == layer.mlp.drop2.p == 0.1
    assert layer.mlp.drop1.p == 0
