"""Operations of networks, against products of sizes written out: a multiplication and an addition are two."""

import pytest
import torch
from torch import nn

from brdyn.runtime import flops
from tests.classifiers.small import new

WIDTH, HIDDEN, PATCHES, CLASSES, PATCH_PIXELS = 12, 16, 4, 3, 3 * 4 * 4


def layer(tokens, hidden=2 * HIDDEN, kept=None):
    """Keys and values of all tokens; of those that are kept queries and their projection, two products with all tokens,
    and an MLP into `hidden` units and out of half of them, where it is a SwiGLU, or all."""
    into, out = (hidden, hidden // 2) if hidden == 2 * HIDDEN else (hidden, hidden)
    kept = tokens if kept is None else kept
    return tokens * 2 * WIDTH**2 + kept * (2 * WIDTH**2 + 2 * tokens * WIDTH + WIDTH * (into + out))


@pytest.mark.parametrize(("blocks", "options"), [(4, {}), (1, {"shared_blocks": 1}), (2, {"partition": "0,1,1,0"})])
def test_shared_blocks_cost_what_their_own_would_and_weigh_less(blocks, options):
    """Every layer is computed; its weights are there once."""
    classifier = new("vit-tiny12", depth=4, **options)
    by_hand = 4 * layer(PATCHES + 1, HIDDEN) + PATCHES * PATCH_PIXELS * WIDTH + WIDTH * CLASSES
    assert classifier.flops() == 2 * by_hand
    block = 4 * (WIDTH**2 + WIDTH) + 2 * WIDTH * HIDDEN + WIDTH + HIDDEN + 4 * WIDTH
    others = (PATCH_PIXELS + 1 + PATCHES + 1 + 1 + 2) * WIDTH + (WIDTH + 1) * CLASSES
    assert classifier.parameters == blocks * block + others


def test_dropped_branches_change_nothing():
    """A branch is left out in training alone, and there by chance: what is counted is an answer."""
    plain, other = new("vit-tiny12", depth=2), new("vit-tiny12", depth=2, drop_path=0.9)
    other.network.train()
    assert other.flops() == plain.flops()


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("steps", [1, 3])
def test_of_a_vitrm_every_recursion_step_counts(steps, depth):
    """Two updates of z see patches, answer and latents, one of y sees answer and latents, and the heads are read. The
    last layer of an update computes only what is updated."""
    latent, answer = 2 * PATCHES + 1, PATCHES + 1
    of_latents = (depth - 1) * layer(latent) + layer(latent, kept=PATCHES)
    of_answer = (depth - 1) * layer(answer) + layer(answer, kept=1)
    heads = WIDTH * (CLASSES + 1)
    by_hand = PATCHES * PATCH_PIXELS * WIDTH + steps * (2 * of_latents + of_answer) + heads
    assert new("vitrm", latent_steps=2, depth=depth).flops(steps) == 2 * by_hand


def test_counting_leaves_the_network_as_it_was():
    """A normalisation over a batch of one image would keep what it saw, and fail at one pixel."""
    from brdyn.classifiers import Classifier

    classifier = Classifier.new("resnet18", ("a", "b"), 32, [0.3] * 3, [0.3] * 3)
    before = {name: value.clone() for name, value in classifier.network.state_dict().items()}
    assert classifier.flops() > 2 * 64 * 147 * 16**2
    assert classifier.network.training
    assert all(torch.equal(before[name], value) for name, value in classifier.network.state_dict().items())


def test_a_layer_that_torch_runs_as_one_operation_is_counted():
    """In eval, without gradients, `nn.TransformerEncoderLayer` shows none of its products."""
    tokens, width, hidden = 5, 16, 32
    torch_layer = nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True, norm_first=True).eval()
    by_hand = tokens * width * (4 * width + 2 * hidden) + 2 * tokens**2 * width
    assert flops(lambda: torch_layer(torch.zeros(1, tokens, width))) == 2 * by_hand
    assert torch.backends.mha.get_fastpath_enabled()
