"""The adapter that transformers' vision towers share: modules are found by role, as their names change."""

from __future__ import annotations

import inspect
from math import prod
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from brdyn.errors import BrdynError, UsageError
from brdyn.models import positions
from brdyn.models.base import ModelInfo, Size, TokenLayout, VisionTransformer
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.towers.config import square
from brdyn.models.towers.heads import Head
from brdyn.models.towers.kinds import RELATIVE, SINUSOIDAL, Kind

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL makes images grey
SHARED_BIAS = ("relative_position_bias", "attention_mask")
RESAMPLERS = ("interpolate_pos_encoding", "_interpolate_position_embedding")


class TransformersBlock(nn.Module):
    """A transformers layer callable on the state alone, with all that is fixed for the patch grid bound to it.

    Parameters
    ----------
    layer : nn.Module
    size : (int, int)
        Of the images, for layers that compute a relative position bias from it.
    rotary : (Tensor, Tensor), optional
        Cosines and sines of the grid.
    bias : Tensor, optional
        A relative position bias that the layers share, `(1, heads, N, N)`.
    """

    def __init__(self, layer: nn.Module, size: Size, rotary: tuple[Tensor, Tensor] | None, bias: Tensor | None) -> None:
        super().__init__()
        self.layer = layer
        takes = inspect.signature(layer.forward).parameters
        # Some layers require a mask argument, others of earlier versions do not know it.
        self.extra: dict[str, Any] = {"attention_mask": None} if "attention_mask" in takes else {}
        if "resolution" in takes:
            self.extra["resolution"] = size
        self.bias_name = next((name for name in SHARED_BIAS if name in takes), "")
        self.register_buffer("cos", rotary[0] if rotary else None, persistent=False)
        self.register_buffer("sin", rotary[1] if rotary else None, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, state: Tensor) -> Tensor:
        """Apply the layer; some return a tuple."""
        extra = dict(self.extra)
        if self.cos is not None:
            extra["position_embeddings"] = (self.cos, self.sin)
        if self.bias is not None:
            extra[self.bias_name] = self.bias
        output = self.layer(state, **extra)
        return output[0] if isinstance(output, tuple) else output


class TransformersViT(VisionTransformer):
    """Adapter of one transformers vision trunk, with its classification head where it has one."""

    def __init__(
        self,
        backbone: Any,
        kind: Kind,
        info: ModelInfo,
        preprocessing: Preprocessing,
        head: Head | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.kind = kind
        self.info = info
        self.preprocessing = preprocessing
        self.head = head
        grid = info.image_size[0] // info.patch, info.image_size[1] // info.patch
        self.tokens = TokenLayout.with_prefix(grid, kind.before(backbone.config))
        self.pre_norm = _child(backbone, kind.pre_norm) if kind.pre_norm else nn.Identity()
        self.norm = _child(backbone, kind.norm) if kind.norm else nn.Identity()
        self.conditioner = getattr(backbone, "input_conditioner", nn.Identity())
        described_only = self.device.type == "meta"
        rotary = self._rotary() if kind.rotary else None
        bias = None if described_only else self._shared_bias(grid)
        self.blocks = nn.ModuleList(
            TransformersBlock(layer, info.image_size, rotary, bias) for layer in find_layers(backbone)
        )
        self._takes = frozenset(inspect.signature(backbone.embeddings.forward).parameters)
        if not described_only:
            self._fix_positions(grid)

    def embed(self, images: Tensor) -> Tensor:
        """The trunk's own embedding, without masking, and its pre-norm where there is one."""
        if self.backbone.config.num_channels == 1:
            images = (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
        extra: dict[str, Any] = {}
        if "interpolate_pos_encoding" in self._takes:
            extra["interpolate_pos_encoding"] = True
        if "noise" in self._takes:  # patches are kept in the order of their noise
            order = torch.arange(self.tokens.grid[0] * self.tokens.grid[1], device=images.device)
            extra["noise"] = order.expand(len(images), -1)
        state = self.backbone.embeddings(self.conditioner(images), **extra)
        return self.pre_norm(state[0] if isinstance(state, tuple) else state)

    @property
    def classes(self) -> int:
        """Of the classification head."""
        return self.head.classes if self.head is not None else 0

    def logits(self, normed: Tensor) -> Tensor | None:
        """The classification head, as the model's own class applies it."""
        return self.head(normed) if self.head is not None else None

    def _rotary(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            blank = torch.zeros(1, device=self.device).expand(1, 3, *self.info.image_size)
            cos, sin = self.backbone.rope_embeddings(blank)
        return cos, sin

    def _shared_bias(self, grid: Size) -> Tensor | None:
        module = _relative_bias(self.backbone)
        if module is None:
            return None
        with torch.no_grad():
            return module(grid)

    def _fix_positions(self, grid: Size) -> None:
        """Give the embedding its table of positions for this grid: as it is where it fits, else resampled once."""
        embeddings = self.backbone.embeddings
        table = position_table(embeddings)
        config = self.backbone.config
        sides = square(getattr(config, "max_img_size", config.image_size))
        native = tuple(side // self.info.patch for side in sides)
        resampler = next((name for name in RESAMPLERS if hasattr(embeddings, name)), "")
        if table is None or grid == native:
            fitted = table
        elif not resampler:
            raise UsageError(
                f"{self.info.name!r} takes images of {config.image_size} pixels alone: transformers does not resample "
                "its positions; drop `image_size`"
            )
        elif native[0] != native[1]:
            raise UsageError(
                f"{self.info.name!r} has positions for {native[0]}x{native[1]} patches, and only those of a square are "
                "resampled; drop `image_size`"
            )
        else:
            before = table.shape[1] - prod(native)
            fitted = positions.resample_with_prefix(table, grid, self.kind.rule, prefix=before)
        if fitted is not None and resampler:
            embeddings.register_buffer("resampled_positions", fitted, persistent=False)
            setattr(embeddings, resampler, MethodType(_resampled_positions, embeddings))


def _resampled_positions(embeddings: Any, *_: Any) -> Tensor:
    return embeddings.resampled_positions


def position_table(embeddings: nn.Module) -> Tensor | None:
    """An embedding's learned positions `(1, prefix + patches, D)`; None where it has none."""
    table = getattr(embeddings, "position_embeddings", None)
    if table is None:
        inner = getattr(embeddings, "position_embedding", None)
        table = inner.weight[None] if isinstance(inner, nn.Embedding) else inner
    return table.detach() if isinstance(table, Tensor) else None


def _relative_bias(backbone: Any) -> nn.Module | None:
    """The relative position bias that all layers share, if there is one."""
    for owner, name in (
        (backbone, "shared_position_bias"),
        (getattr(backbone, "encoder", None), "relative_position_bias"),
    ):
        if getattr(owner, name, None) is not None:
            return getattr(owner, name)
    return None


def position_rule(backbone: Any, kind: Kind) -> str:
    """Name how positions are fitted to the image size."""
    config = backbone.config
    rules = [kind.rule.description] if position_table(backbone.embeddings) is not None else []
    if any(getattr(config, f"use_{name}relative_position_bias", False) for name in ("", "shared_")):
        rules.append(RELATIVE)
    if kind.rotary:
        rules.append(positions.ROTARY)
    return "; and ".join(rules) or (SINUSOIDAL if getattr(config, "is_native", False) else positions.NONE)


def _child(backbone: nn.Module, candidates: tuple[str, ...]) -> nn.Module:
    for name in candidates:
        if hasattr(backbone, name):
            return getattr(backbone, name)
    raise BrdynError(
        f"{type(backbone).__name__} of this transformers version has none of {', '.join(candidates)}; "
        "brdyn supports transformers 5"
    )


def find_layers(backbone: nn.Module) -> list[nn.Module]:
    """The trunk's blocks: its only module list as long as its configuration says."""
    depth = backbone.config.num_hidden_layers  # type: ignore[union-attr]
    lists = [m for m in backbone.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if len(lists) != 1:
        raise BrdynError(f"could not tell the blocks of {type(backbone).__name__} in this transformers version")
    return list(lists[0])
