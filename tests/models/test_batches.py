"""No part of a module of one's own may let one image of a batch change what is made of another."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from brdyn.errors import UsageError
from tests.models.own_vit import Block, adapted, my_vit


class Sequential(nn.TransformerEncoderLayer):
    """As torch makes it by default: the batch is its second axis."""

    def __init__(self, width):
        super().__init__(width, 2, 16)


class Normed(Block):
    """Normalised over the batch, by a part that eval mode does not reach."""

    def forward(self, state):
        scaled = functional.batch_norm(state.mT, None, None, training=True).mT
        return super().forward(scaled)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block", [Sequential, Normed])
def test_a_block_that_mixes_the_images_of_a_batch_is_refused(block, dtype):
    with pytest.raises(UsageError, match=r"block 1 of 'MyViT' mixes the images of a batch.*batch_first=True"):
        adapted(my_vit(block=block).to(dtype))


def test_embedding_norm_and_head_do_not_mix_images_either():
    def embed(module, images):
        return module.tokenise(images - images.mean(0, keepdim=True))

    def head(module, normed):
        return module.head(normed[:, 0].softmax(0))

    class Centred(nn.Module):
        def forward(self, state):
            return state - state.mean(0, keepdim=True)

    for part, given in {"embed": embed, "head": head, "norm": Centred()}.items():
        vit = my_vit()
        vit.ln = given if part == "norm" else vit.ln
        with pytest.raises(UsageError, match=f"^{part} of 'MyViT' mixes"):
            adapted(vit, **{"norm": vit.ln, part: given})


class Scaled(Block):
    """Computes at a scale that the whole batch sets: what it makes of an image differs by a rounding."""

    def forward(self, state):
        scale = state.abs().amax()
        return super().forward(state / scale * scale)


class Autocast(Block):
    def forward(self, state):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(state)[0].to(state.dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block", [Block, Scaled, Autocast])
def test_rounding_is_not_taken_for_mixing(block, dtype):
    wide = nn.TransformerEncoderLayer(384, 6, batch_first=True)
    vit = my_vit(width=384, depth=2, block=block).to(dtype)
    assert adapted(vit).depth == 2
    vit.layers.append(wide.to(dtype))
    assert adapted(vit).depth == 3
