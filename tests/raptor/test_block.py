"""The shared block: parameters, depth scaling, and agreement with a forward written from its definition."""

import pytest
import torch
from torch.nn.functional import gelu, layer_norm, silu

from brdyn.errors import UsageError
from brdyn.models.depth_scaling import DepthScaling
from brdyn.raptor.block import BlockConfig, RaptorBlock
from tests.conftest import scramble


def by_hand(block, state, layer):
    """Pre-norm attention and MLP with LayerScale and three factors, in plain tensor operations."""
    p = dict(block.named_parameters())
    width, heads = block.config.width, block.config.heads
    factors = torch.ones(3, width)
    if block.depth is not None:
        index = float(layer) if block.config.depth_scaling == "index" else 1.0
        hidden = silu(p["depth.hidden.weight"][:, 0] * index + p["depth.hidden.bias"])
        factors = 1 + (p["depth.factors.weight"] @ hidden + p["depth.factors.bias"]).view(3, width)
    normed = layer_norm(state, (width,), p["norm1.weight"], p["norm1.bias"], 1e-6)
    q, k, v = (normed @ p["attn.qkv.weight"].T + p["attn.qkv.bias"]).chunk(3, -1)
    outputs = []
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / (width // heads) ** 0.5
        outputs.append(scores.softmax(-1) @ v[..., part])
    attended = torch.cat(outputs, -1) @ p["attn.proj.weight"].T + p["attn.proj.bias"]
    state = state + factors[0] * p["scale1.gamma"] * attended
    normed = layer_norm(state, (width,), p["norm2.weight"], p["norm2.bias"], 1e-6)
    if block.config.mlp == "swiglu":
        gate = silu(normed @ p["mlp.fc1_g.weight"].T + p["mlp.fc1_g.bias"])
        hidden = gate * (normed @ p["mlp.fc1_x.weight"].T + p["mlp.fc1_x.bias"])
    else:
        hidden = gelu(normed @ p["mlp.fc1.weight"].T + p["mlp.fc1.bias"])
    update = hidden @ p["mlp.fc2.weight"].T + p["mlp.fc2.bias"]
    return factors[2] * (state + factors[1] * p["scale2.gamma"] * update)


@pytest.mark.parametrize("mlp", ["swiglu", "gelu"])
@pytest.mark.parametrize("scaling", ["index", "constant", "none"])
def test_against_the_definition(mlp, scaling):
    block = RaptorBlock(BlockConfig(width=12, heads=3, mlp=mlp, depth_scaling=scaling))
    scramble(block)
    state = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    for layer in (1, 7):
        torch.testing.assert_close(block(state, layer), by_hand(block, state, layer), atol=1e-5, rtol=1e-4)
    same = torch.allclose(block(state, 1), block(state, 7))
    assert same == (scaling != "index")


def test_factors_start_at_one_and_have_the_published_size():
    scaling = DepthScaling(384)
    torch.testing.assert_close(scaling(torch.tensor([5.0])), torch.ones(3, 384))
    assert sum(p.numel() for p in scaling.parameters()) == 16 + 16 + (16 + 1) * 3 * 384


def test_factors_are_the_same_under_autocast():
    """bfloat16 has steps of 1/128 near 1, larger than what factors learn; the gradient is theirs, too."""
    depth = DepthScaling(8)
    scramble(depth, 3)
    found = {}
    for autocast in (False, True):
        depth.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            factors = torch.stack(depth.of_layer(3))
        factors.square().sum().backward()
        found[autocast] = factors, *(weight.grad.clone() for weight in depth.parameters())
    assert all(torch.equal(first, second) for first, second in zip(*found.values(), strict=True))
    assert 0 < (found[True][0] - 1).abs().max() < 1 / 8


def test_parameters_of_the_published_block():
    """Width 768: attention 4 D^2, SwiGLU 3 x 4 D^2, and what is small, counted by hand."""
    block = RaptorBlock(BlockConfig(width=768, heads=12))
    wide = 4 * 768**2 + 3 * 4 * 768**2
    small = 4 * 768 + (2 * 4 * 768 + 768) + 4 * 768 + 2 * 768 + 32 + 17 * 3 * 768
    assert sum(p.numel() for p in block.parameters()) == wide + small


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mlp": "relu"}, "unknown MLP 'relu'"),
        ({"depth_scaling": "sine"}, "unknown depth scaling 'sine'"),
        ({"heads": 5}, "cannot be split"),
        ({"mlp_ratio": 0.0}, "MLP ratio 0.0 is not a number above 0"),
    ],
)
def test_what_cannot_be_built(options, words):
    with pytest.raises(UsageError, match=words):
        BlockConfig(**{"width": 12, "heads": 3, **options})
