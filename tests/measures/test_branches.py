"""Attention and MLP apart: of blocks with known updates, of every kind of block, and of blocks that hide them."""

import math

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import (
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
)
from torch import nn
from torch.nn import functional

import brdyn
from brdyn.branches import NO_ATTENTION, NO_SUM, ONE_PRODUCT, UNEQUAL, Branches, run_with_branches
from brdyn.classifiers import UnrolledViTRM, ViTRM, ViTRMConfig
from brdyn.data import load_images
from brdyn.errors import UsageError
from brdyn.measures.branches import BranchUpdates
from brdyn.models import Preprocessing, TokenLayout
from brdyn.raptor import BlockConfig, CopyConfig, Raptor
from brdyn.trajectory import Stream, Trajectory, capture
from tests.conftest import scramble, tiny_vit

LAYOUT = TokenLayout.with_prefix((2, 3), {"cls": 1})
STREAM = Stream(workers=0)
IMAGES, WIDTH = 4, 16


def state(tokens=7, seed=0):
    return torch.randn(IMAGES, tokens, WIDTH, generator=torch.Generator().manual_seed(seed))


def split(block, entering):
    """The branches, and the update they have to sum to."""
    with torch.no_grad():
        output, found = run_with_branches(block, entering)
        torch.testing.assert_close(output, block(entering))
    return found, output - entering


def seen(modules, block, entering):
    """What modules give while a block runs."""
    outputs, handles = {}, []
    for name, module in modules.items():

        def keep(_, __, output, name=name):
            outputs[name] = output[0] if isinstance(output, tuple) else output

        handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        block(entering)
    for handle in handles:
        handle.remove()
    return outputs


def feed(states, branches):
    metric = BranchUpdates(LAYOUT, len(branches))
    metric.update(Trajectory(states, LAYOUT, torch.arange(len(states[0])), branches=branches))
    return metric.table().set_index(["statistic", "group", "layer"])["mean"]


class Toy(nn.Module):
    """Attention of equal weights, three times, and an MLP of ReLU."""

    def forward(self, tokens):
        attended = functional.scaled_dot_product_attention(0 * tokens, 0 * tokens, tokens)
        tokens = tokens + 3 * attended
        return tokens + tokens.relu()


def test_a_block_with_known_updates():
    entering = state()
    found, _ = split(Toy(), entering)
    attention = 3 * entering.mean(1, keepdim=True).expand_as(entering)
    torch.testing.assert_close(found.attention, attention)
    torch.testing.assert_close(found.mlp, (entering + attention).relu())
    assert found.rescaling is None


def test_every_kind_of_timm_block_as_its_own_modules_say():
    entering = state()
    plain = tiny_vit(depth=1).blocks[0]
    post = scrambled(ResPostBlock(WIDTH, 2))
    for block in (plain, post):
        own = seen({"attention": block.drop_path1, "mlp": block.drop_path2}, block, entering)
        found, _ = split(block, entering)
        assert torch.equal(found.attention, own["attention"])
        assert torch.equal(found.mlp, own["mlp"])
    parallel = scrambled(ParallelScalingBlock(WIDTH, 2, init_values=0.5))
    own = seen({"attention": parallel.attn_out_proj, "mlp": parallel.mlp_out_proj}, parallel, entering)
    found, _ = split(parallel, entering)
    torch.testing.assert_close(found.attention, own["attention"] * parallel.ls.gamma)
    torch.testing.assert_close(found.mlp, own["mlp"] * parallel.ls.gamma)
    three = scrambled(ParallelThingsBlock(WIDTH, 2))
    found, update = split(three, entering)
    with torch.no_grad():
        torch.testing.assert_close(found.attention, sum(branch(entering) for branch in three.attns))
    torch.testing.assert_close(found.attention + found.mlp, update)


def scrambled(block):
    scramble(block)
    return block.eval()


@pytest.mark.parametrize("kind", ["Dinov2Model", "ViTModel"])
def test_blocks_of_transformers(kind):
    import transformers as hf

    from brdyn.models.towers.adapter import TransformersBlock, find_layers

    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = getattr(hf, kind)(getattr(hf, kind.replace("Model", "Config"))(**sizes))
    block = TransformersBlock(find_layers(scrambled(model))[0], (224, 224), None, None)
    layer = block.layer
    entering = state()
    ends = ("layer_scale1", "layer_scale2") if kind == "Dinov2Model" else ("attention", "mlp")
    own = seen({name: getattr(layer, name) for name in ends}, block, entering)
    found, update = split(block, entering)
    torch.testing.assert_close(found.attention, own[ends[0]])
    torch.testing.assert_close(found.attention + found.mlp, update)
    assert found.rescaling is None


def test_raptors_scale_their_input_too():
    raptor = Raptor(tiny_vit(), [0, 0, 1, 1], BlockConfig(width=16, heads=2))
    scramble(raptor.shared)
    entering, block = state(19), raptor.shared[0]
    with torch.no_grad():
        first, second, last = block.depth.of_layer(2)
        attention = last * first * block.scale1(block.attn(block.norm1(entering)))
        middle = entering + attention / last
        mlp = last * second * block.scale2(block.mlp(block.norm2(middle)))
    found, update = split(raptor.blocks[1], entering)
    torch.testing.assert_close(found.attention, attention)
    torch.testing.assert_close(found.mlp, mlp)
    torch.testing.assert_close(found.rescaling, (last - 1) * entering, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.attention + found.mlp + found.rescaling, update, atol=1e-5, rtol=1e-4)
    metric = BranchUpdates(raptor.tokens, 1)
    with torch.no_grad():
        states = [entering, raptor.blocks[1](entering)]
    metric.update(Trajectory(states, raptor.tokens, torch.arange(IMAGES), branches=[found]))
    row = metric.table().set_index(["statistic", "group"])["mean"]["rescaling_share", "cls"]
    sizes = [one[:, 0].norm(dim=-1) for one in (found.attention, found.mlp, found.rescaling)]
    assert row == pytest.approx((sizes[2] / sum(sizes)).mean().item(), rel=1e-5)


def test_copies_of_blocks_with_corrections_are_as_the_blocks():
    raptor = Raptor(tiny_vit(), [0, 0, 1, 1], CopyConfig(width=16, heads=2, rank=1)).eval()
    found, update = split(raptor.blocks[1], state(19))
    assert isinstance(found, Branches)
    torch.testing.assert_close(found.attention + found.mlp, update)


def test_a_recursion_step_updates_one_stream_by_both_layers():
    vitrm = ViTRM(ViTRMConfig(classes=2, image_size=8, width=12, heads=2, hidden=16, depth=2))
    unrolled = UnrolledViTRM(scrambled(vitrm), 1, tiny_vit().info, Preprocessing((8, 8)), ("cat", "dog"))
    with torch.no_grad():
        entering = unrolled.embed(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    found, update = split(unrolled.blocks[0], entering)
    torch.testing.assert_close(found.attention + found.mlp, update)
    assert found.rescaling is None
    assert found.attention[:, 5:].norm() > 0
    assert found.mlp[:, 5:].norm() > 0
    assert not found.attention[:, :5].any()
    assert not found.mlp[:, :5].any()
    metric = BranchUpdates(unrolled.tokens, 1)
    metric.update(Trajectory([entering, entering + update], unrolled.tokens, torch.arange(2), branches=[found]))
    share = metric.table().set_index(["statistic", "group"])["n_images"]
    assert (share["attention_share", "z"], share["attention_share", "y"]) == (2, 0)


def test_torchs_own_encoder_layer_is_taken_apart_too():
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True, norm_first=True).eval()
    entering = state()
    found, update = split(layer, entering)
    with torch.no_grad():
        attention = layer._sa_block(layer.norm1(entering), None, None)
    torch.testing.assert_close(found.attention, attention)
    torch.testing.assert_close(found.attention + found.mlp, update)
    assert torch.backends.mha.get_fastpath_enabled()


class Viewed(nn.Module):
    """Attention whose output is not contiguous, and an MLP over all tokens as rows, by views of the stream."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.mlp = nn.Linear(WIDTH, WIDTH)

    def forward(self, entering):
        added = self.attention(entering, entering, entering, need_weights=False)[0]
        rows = (entering + added).view(-1, WIDTH)
        return (rows + self.mlp(rows).tanh()).view_as(entering)


def test_a_view_that_only_the_sum_allows():
    torch.manual_seed(1)
    block, entering = Viewed(), state()  # in eval mode torch has one operation for attention
    with torch.no_grad():
        added = block.attention(entering, entering, entering, need_weights=False)[0]
    assert not added.is_contiguous()
    found, update = split(block, entering)
    torch.testing.assert_close(found.attention, added)
    torch.testing.assert_close(found.attention + found.mlp, update)


class Turned(nn.Module):
    def forward(self, tokens):
        return tokens @ torch.eye(WIDTH).roll(1, 0)


class MlpAlone(nn.Module):
    def forward(self, tokens):
        return tokens + tokens.relu()


class InPlace(nn.Module):
    """Adds to a part of the state in a way that the whole does not show."""

    def forward(self, tokens):
        tokens = tokens + functional.scaled_dot_product_attention(tokens, tokens, tokens)
        tokens[:, 1:].add_(tokens[:, 1:].relu())
        return tokens


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: scrambled(DiffParallelScalingBlock(WIDTH, 2)), ONE_PRODUCT),
        (Turned, NO_SUM),
        (MlpAlone, NO_ATTENTION),
        (InPlace, UNEQUAL),
        (lambda: nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True).eval(), NO_SUM),  # norms its sums
    ],
)
def test_blocks_that_hide_their_branches_say_how(make, why):
    with torch.no_grad():
        assert run_with_branches(make(), state())[1] == why


def test_numbers_of_known_branches():
    """Attention 3 along the state, the MLP 4 across it, in every token."""
    along, across = torch.eye(WIDTH)[0].expand(2, 7, -1), torch.eye(WIDTH)[1].expand(2, 7, -1)
    found = feed([2 * along, 5 * along + 4 * across], [Branches(3 * along, 4 * across)])
    for group in ("cls", "patches"):
        assert found["attention_share", group, 1] == pytest.approx(3 / 7)
        assert found["attention_cosine", group, 1] == pytest.approx(1)
        assert found["mlp_cosine", group, 1] == pytest.approx(0)
        assert found["branches_cosine", group, 1] == pytest.approx(0)
    assert found["attention_coherence", "patches", 1] == pytest.approx(1)
    assert found["mlp_effective_rank", "patches", 1] == pytest.approx(1, abs=1e-3)
    assert "rescaling_share" not in found.index.get_level_values("statistic")


def test_a_rotation_by_the_mlp_alone_and_a_block_that_does_nothing():
    angle, entering = 0.3, state()
    turn = torch.eye(WIDTH)
    for first in range(0, WIDTH, 2):
        turn[first : first + 2, first : first + 2] = torch.tensor(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
    turned = entering @ turn
    nothing = torch.zeros_like(entering)
    with torch.no_grad():
        _, idle = run_with_branches(nn.Identity(), turned)
    found = feed([entering, turned, turned], [Branches(nothing, turned - entering), idle])
    assert found["mlp_cosine", "patches", 1] == pytest.approx(-math.sin(angle / 2), abs=1e-5)
    assert found["attention_share", "cls", 1] == 0
    for name in ("attention_cosine", "branches_cosine", "attention_coherence", "attention_effective_rank"):
        assert np.isnan(found[name, "patches", 1])
    assert found.xs(2, level="layer").isna().all()


def test_the_measure_against_direct_computation(tiny, images):
    pictures = images[..., :32, :32]
    batch = brdyn.data.Batch(pictures, torch.arange(2), torch.full((2,), -1))
    watched, plain = capture(tiny, batch, branches=True), capture(tiny, batch)
    assert plain.branches == ()
    assert all(map(torch.equal, watched.states, plain.states))
    metric = BranchUpdates(tiny.tokens, tiny.depth)
    metric.update(watched)
    found = metric.table().set_index(["statistic", "group", "layer"])["mean"]
    block, entering = tiny.blocks[2], plain.states[2]
    own = seen({"attention": block.drop_path1, "mlp": block.drop_path2}, block, entering)
    attention, mlp = (own[name][:, 3:].double() for name in ("attention", "mlp"))
    sizes = [one.norm(dim=-1) for one in (attention, mlp)]
    assert found["attention_share", "patches", 3] == pytest.approx((sizes[0] / sum(sizes)).mean().item())
    cosine = functional.cosine_similarity(mlp, entering[:, 3:].double(), dim=-1).mean().item()
    assert found["mlp_cosine", "patches", 3] == pytest.approx(cosine, rel=1e-4)
    coherence = functional.normalize(attention, dim=-1).mean(1).norm(dim=-1).mean().item()
    assert found["attention_coherence", "patches", 3] == pytest.approx(coherence, rel=1e-5)
    values = torch.linalg.svdvals(mlp)
    share = values / values.sum(-1, keepdim=True)
    effective = (-(share * share.log()).sum(-1)).exp().mean().item()
    assert found["mlp_effective_rank", "patches", 3] == pytest.approx(effective, rel=2e-3)
    stable = (values.square().sum(-1) / values[:, 0].square()).mean().item()
    assert found["mlp_stable_rank", "patches", 3] == pytest.approx(stable, rel=2e-3)


def test_a_hiding_model_is_said_and_the_rest_goes_on(noise_folder):
    model = tiny_vit()
    model.blocks[1] = Turned()
    pictures = load_images(noise_folder, model, n=4)
    found = brdyn.token_dynamics(model, pictures, k=2, measures=["branches", "speed"], stream=STREAM)
    assert found.statistics == ["speed"]
    assert found.left_out == {"branches": f"block 2 of 'tiny_vit' hides its branches: {NO_SUM}"}
    with pytest.raises(UsageError, match="block 2 of 'tiny_vit' hides"):
        brdyn.token_dynamics(model, pictures, k=2, measures=["branches"], stream=STREAM)


def test_taken_where_named_alone_beside_twins(noise_folder):
    model = tiny_vit()
    pictures = load_images(noise_folder, model, n=4)
    options = {"twins": [tiny_vit(seed=1)], "k": 2, "stream": STREAM}
    found = brdyn.with_null(brdyn.token_dynamics, model, pictures, measures=["branches"], **options)
    value, twins = found.beside()["patches: mean share of attention in the norms of both branches"]
    assert value == pytest.approx(found.curve("attention_share", "patches").mean())
    assert len(twins) == 1
    assert twins[0] != value
    every = brdyn.token_dynamics(model, pictures, k=2, stream=STREAM)
    assert "attention_share" not in every.statistics
    assert "basins" in every.left_out  # which was not named
    joined = brdyn.token_dynamics(model, pictures, k=2, measures=["all", "branches"], stream=STREAM)
    assert {*every.statistics, *found.statistics} == {*joined.statistics}
    assert joined.left_out == every.left_out
