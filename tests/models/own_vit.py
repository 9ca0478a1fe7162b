"""Somebody's own ViT, as it stands in their file: used as a module, and as a file that is run."""

import torch
from torch import nn
from torch.nn import functional

import brdyn

SHAPE = {"image_size": (16, 24), "patch": 8, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


class Block(nn.Module):
    """Attention and MLP; returns the state and the attention."""

    def __init__(self, width, heads=2):
        super().__init__()
        self.before, self.heads = nn.LayerNorm(width), heads
        self.qkv, self.out, self.mlp = (
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
            nn.Linear(width, width),
        )
        self.dropout = nn.Dropout(0.5)

    def forward(self, state, scale=1.0):
        query, key, value = self.qkv(self.before(state)).chunk(3, dim=-1)
        attention = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(-1)
        state = state + scale * self.dropout(self.out(attention @ value))
        return state + functional.gelu(self.mlp(state)), attention


class MyViT(nn.Module):
    """cls, two registers and 2x3 patches of width 8; a head of three classes."""

    def __init__(self, depth=3, width=8, block=Block, shared=False):
        super().__init__()
        self.projection = nn.Conv2d(3, width, 8, 8)
        self.cls, self.registers = (
            nn.Parameter(torch.randn(1, 1, width)),
            nn.Parameter(torch.randn(1, 2, width)),
        )
        self.positions = nn.Parameter(torch.randn(1, 6, width))
        one = block(width)
        self.layers = nn.ModuleList([one if shared else block(width) for _ in range(depth)])
        self.ln, self.head = nn.LayerNorm(width), nn.Linear(width, 3)

    def tokenise(self, images):
        patches = self.projection(images).flatten(2).transpose(1, 2) + self.positions
        prefix = [part.expand(len(images), -1, -1) for part in (self.cls, self.registers)]
        return torch.cat([*prefix, patches], dim=1)

    def states(self, images):
        """All states, and the normed last one."""
        found = [self.tokenise(images)]
        for layer in self.layers:
            found.append(layer(found[-1])[0])
        return found, self.ln(found[-1])

    def forward(self, images):
        return self.head(self.states(images)[1][:, 0])


def my_vit(seed=0, **options):
    torch.manual_seed(seed)
    return MyViT(**options)


def adapted(vit=None, **options):
    vit = my_vit() if vit is None else vit
    said = {
        "embed": MyViT.tokenise, "blocks": vit.layers, "norm": vit.ln, "tokens": {"cls": 1, "registers": 2}, **SHAPE,
    }  # fmt: skip
    return brdyn.adapt(vit, **{**said, **options})
