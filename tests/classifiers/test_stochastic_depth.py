"""Stochastic depth: what is dropped is not computed, and what is left is what timm's drop-path leaves."""

import pytest
import torch
from torch import nn

from brdyn.classifiers.architectures import build
from brdyn.classifiers.stochastic_depth import StochasticDepthBlock

SIZES = {"width": 24, "heads": 2, "hidden": 48, "depth": 3}


def block(rate):
    torch.manual_seed(0)
    made = StochasticDepthBlock(8, 2)
    made.drop_path = rate
    return made


def test_every_layer_has_the_same_rate():
    network = build("vit-tiny12", 10, 32, drop_path=0.3, **SIZES)
    assert [layer.drop_path for layer in network.blocks] == [0.3] * 3
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_kept_branches_are_scaled_and_dropped_ones_leave_the_state():
    made, state = block(0.5).train(), torch.randn(64, 5, 8)
    for number in (1, 2):  # only one branch, so that an image is either kept or not
        other = made.attn if number == 2 else made.mlp
        weight = other.proj if number == 2 else other.fc2
        nn.init.zeros_(weight.weight)
        nn.init.zeros_(weight.bias)
        found, whole = made(state) - state, made.eval()(state) - state
        made.train()
        dropped = (found == 0).all(dim=(1, 2))
        assert 10 < int(dropped.sum()) < 54
        torch.testing.assert_close(found[~dropped], 2 * whole[~dropped], rtol=1e-4, atol=1e-5)
        made = block(0.5).train()


def test_a_network_with_stochastic_depth_drops_in_training_alone():
    """The same weights with and without a rate: alike in evaluation, different from draw to draw in training."""
    networks = []
    for rate in (0.5, 0.0):
        torch.manual_seed(0)
        networks.append(build("vit-tiny12", 10, 32, drop_path=rate, dropout=0.0, **SIZES))
    images = torch.randn(4, 3, 32, 32)
    dropping, whole = networks
    torch.testing.assert_close(dropping.eval()(images), whole.eval()(images))
    torch.testing.assert_close(whole.train()(images), whole.eval()(images))
    draws = [dropping.train()(images) for _ in range(4)]
    assert not all(torch.equal(draws[0], draw) for draw in draws[1:])


def test_branches_are_dropped_apart_and_at_the_rate():
    made, state = block(0.25).train(), torch.randn(4000, 1, 8)
    inputs = {}
    for name in ("attn", "mlp"):
        getattr(made, name).register_forward_pre_hook(
            lambda module, given, name=name: inputs.__setitem__(name, len(given[0]))
        )
    made(state)
    assert inputs["attn"] != inputs["mlp"]
    for count in inputs.values():  # only what is kept is computed
        assert count / 4000 == pytest.approx(0.75, abs=0.03)


def test_the_mean_over_draws_is_the_whole():
    made, state = block(0.4), torch.randn(1, 4, 8)
    nn.init.zeros_(made.mlp.fc2.weight)
    nn.init.zeros_(made.mlp.fc2.bias)
    many = made.train()(state.expand(20_000, -1, -1)).mean(0)
    torch.testing.assert_close(many, made.eval()(state)[0], rtol=0, atol=0.02)


def test_in_evaluation_and_without_a_rate_nothing_is_dropped():
    state = torch.randn(6, 3, 8)
    whole = block(0.0).train()(state)
    torch.testing.assert_close(block(0.9).eval()(state), whole)


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_that_keeps_nothing_passes(count):
    state = torch.randn(count, 2, 8, requires_grad=True)
    made = block(1 - 1e-9).train()
    found = made(state)
    assert torch.equal(found, state)
    found.sum().backward()  # other processes wait for every gradient
    assert all(value.grad is not None and not value.grad.any() for value in made.parameters())


def test_gradients_and_low_precision():
    made = block(0.5).train()
    state = torch.randn(16, 3, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        made(state).square().sum().backward()
    assert made.attn.qkv.weight.grad.abs().sum() > 0
    assert state.grad.isfinite().all()
