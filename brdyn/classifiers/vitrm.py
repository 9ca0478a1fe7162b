"""ViTRM: a tiny recursive ViT. One network of a few layers refines an answer and a latent, again and again.

Method notes, section 7. Three streams of tokens: x, the patches of the image, y, one token that holds the answer, and
z, one latent token for each patch. A recursion step updates z `latent_steps` times from all three and then y from y and
z, by the same network.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from timm.layers import SwiGLU
from timm.models import vision_transformer
from torch import Tensor, nn
from torch.nn import functional

from brdyn.classifiers.config import ViTRMConfig
from brdyn.models.base import check_memory

ALL = slice(None)


class Attention(vision_transformer.Attention):
    """timm's, which runs fused, and which can leave out the queries of tokens that nobody asks for."""

    def forward(self, tokens: Tensor, kept: slice = ALL) -> Tensor:
        """Tokens `(B, N, D)` to those that are kept, `(B, K, D)`, each from all N."""
        if kept == ALL:
            return super().forward(tokens)
        width = tokens.shape[-1]
        of_queries, of_pairs = zip(
            *(part.split((width, 2 * width)) for part in (self.qkv.weight, self.qkv.bias)), strict=True
        )
        heads = (self.num_heads, self.head_dim)
        queries = functional.linear(tokens[:, kept], *of_queries).unflatten(-1, heads).transpose(1, 2)
        pairs = functional.linear(tokens, *of_pairs).unflatten(-1, (2, *heads))
        keys, values = pairs.permute(2, 0, 3, 1, 4)
        dropped = self.attn_drop.p if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(queries, keys, values, dropout_p=dropped)
        return self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))


class Layer(nn.Module):
    """Pre-norm attention and SwiGLU.

    Dropout is of attention weights and of what either branch adds, as published.
    """

    def __init__(self, config: ViTRMConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attn = Attention(
            config.width,
            num_heads=config.heads,
            qkv_bias=True,
            attn_drop=config.dropout,
            proj_drop=config.dropout,
        )
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = SwiGLU(config.width, config.hidden, drop=(0.0, config.dropout))
        begin_attention(self.attn)

    def forward(self, tokens: Tensor, kept: slice = ALL) -> Tensor:
        """Tokens `(B, N, D)` to tokens, or to those that are kept, which all are attended to for."""
        tokens = tokens[:, kept] + self.attn(self.norm1(tokens), kept)
        return tokens + self.mlp(self.norm2(tokens))


def begin_attention(attention: Attention) -> None:
    """Weights as `nn.MultiheadAttention` draws them: queries, keys and values as one map, and no bias."""
    nn.init.xavier_uniform_(attention.qkv.weight)
    for linear in (attention.qkv, attention.proj):
        nn.init.zeros_(linear.bias)


class Streams(NamedTuple):
    """The three streams: x `(B, P, D)`, y `(B, 1, D)`, z `(B, P, D)`."""

    x: Tensor
    y: Tensor
    z: Tensor


class Outcome(NamedTuple):
    """What recursion steps have led to.

    Attributes
    ----------
    scores : Tensor
        Of the classes, `(B, classes)`.
    halting : Tensor
        Logit of the answer being right, `(B,)`.
    y, z : Tensor
        Streams to go on from.
    """

    scores: Tensor
    halting: Tensor
    y: Tensor
    z: Tensor


class ViTRM(nn.Module):
    """The recursive model.

    Parameters
    ----------
    config : ViTRMConfig

    Attributes
    ----------
    network : nn.Sequential
        f, the layers that every update shares. The last one computes only the stream that is updated: the rest of what
        it would give is thrown away.

    Examples
    --------
    >>> from brdyn.classifiers import ViTRM, ViTRMConfig
    >>> vitrm = ViTRM(ViTRMConfig(classes=10))
    >>> outcome = vitrm(torch.zeros(2, 3, 32, 32), steps=3)
    >>> outcome.scores.shape, outcome.halting.shape
    (torch.Size([2, 10]), torch.Size([2]))
    """

    def __init__(self, config: ViTRMConfig) -> None:
        super().__init__()
        self.config = config
        check_memory((config.image_size,) * 2, (config.image_size // config.patch,) * 2)
        width, patches = config.width, config.patches
        self.embedding = nn.Conv2d(config.channels, width, config.patch, config.patch)
        self.positions = nn.Parameter(torch.zeros(1, patches, width))
        self.answer = nn.Parameter(torch.zeros(1, 1, width))
        self.latent = nn.Parameter(torch.zeros(1, patches, width))
        self.network = nn.Sequential(*(Layer(config) for _ in range(config.depth)))
        self.classifier = nn.Linear(width, config.classes)
        self.halting = nn.Linear(width, 1)
        heads = (self.classifier, self.halting)
        for parameter in (self.positions, self.answer, self.latent, *(head.weight for head in heads)):
            nn.init.xavier_normal_(parameter)
        for head in heads:
            nn.init.zeros_(head.bias)

    def begin(self, images: Tensor) -> Streams:
        """Streams before the first step, from images `(B, C, H, W)`."""
        x = self.embed(images)
        z = self.latent.expand(len(x), -1, -1)
        return Streams(x, self.answer.expand(len(x), -1, -1), z if self.config.sees_image else z + x)

    def embed(self, images: Tensor) -> Tensor:
        """x, the patch tokens `(B, P, D)` of images."""
        return self.embedding(images).flatten(2).transpose(1, 2) + self.positions

    def step(self, streams: Streams) -> Streams:
        """One recursion step: z n times, then y."""
        for _ in range(self.config.latent_steps):
            streams = self.update_latent(streams)
        return self.update_answer(streams)

    def update_latent(self, streams: Streams) -> Streams:
        """z from all three streams (or from y and z alone)."""
        x, y, z = streams
        seen = (x, y, z) if self.config.sees_image else (y, z)
        return Streams(x, y, self._updated(torch.cat(seen, dim=1), slice(-z.shape[1], None)))

    def update_answer(self, streams: Streams) -> Streams:
        """y from y and z."""
        x, y, z = streams
        return Streams(x, self._updated(torch.cat((y, z), dim=1), slice(0, 1)), z)

    def _updated(self, tokens: Tensor, kept: slice) -> Tensor:
        """What the network makes of the tokens that are kept, `(B, K, D)`."""
        *before, last = self.network
        for layer in before:
            tokens = layer(tokens)
        return last(tokens, kept)

    def read(self, streams: Streams) -> Outcome:
        """Class scores and the halting logit from y."""
        answer = streams.y[:, 0]
        return Outcome(self.classifier(answer), self.halting(answer)[:, 0], streams.y, streams.z)

    def forward(self, images: Tensor, steps: int = 1, carried: tuple[Tensor, Tensor] | None = None) -> Outcome:
        """Take recursion steps.

        Parameters
        ----------
        images : Tensor
            `(B, C, H, W)`, normalised.
        steps : int
            T.
        carried : (Tensor, Tensor), optional
            y and z to go on from; by default those learned for the start.
        """
        streams = self.begin(images)
        if carried is not None:
            streams = Streams(streams.x, *carried)
        for _ in range(steps):
            streams = self.step(streams)
        return self.read(streams)

    @torch.no_grad()
    def adaptive(self, images: Tensor, threshold: float = 0.5, most: int = 8) -> tuple[Outcome, Tensor]:
        """Take steps until an image's halting probability passes the threshold; images that have stopped cost nothing.

        Returns
        -------
        Outcome
            Of each image when it stopped.
        Tensor
            Steps that each took, `(B,)`, 1 to `most`.
        """
        streams = self.begin(images)
        taken = torch.zeros(len(images), dtype=torch.long, device=images.device)
        running = torch.arange(len(images), device=images.device)
        final: Outcome | None = None
        for number in range(1, most + 1):
            streams = self.step(streams)
            now = self.read(streams)
            if final is None:
                final = Outcome(*(torch.zeros_like(part) for part in now))
            for whole, part in zip(final, now, strict=True):
                whole[running] = part
            taken[running] = number
            going = now.halting.sigmoid() <= threshold
            if not bool(going.any()):
                break
            running, streams = running[going], Streams(*(stream[going] for stream in streams))
        assert final is not None
        return final, taken
