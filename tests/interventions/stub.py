"""A model whose blocks are plain functions, for interventions with a known outcome."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from brdyn.models import ModelInfo, Preprocessing, TokenLayout, VisionTransformer


class Function(nn.Module):
    """A function as a block."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, state: Tensor) -> Tensor:
        return self.function(state)


class StubViT(VisionTransformer):
    """One cls token and four patches of width 12: pieces of the 2x2 patches of a 4x4 image."""

    def __init__(self, functions: list[Callable[[Tensor], Tensor]], classes: int = 0) -> None:
        super().__init__()
        self.tokens = TokenLayout.with_prefix((2, 2), {"cls": 1})
        self.preprocessing = Preprocessing((4, 4))
        self.blocks = nn.ModuleList([Function(function) for function in functions])
        self.norm = nn.Identity()
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self._classes = classes
        self.info = ModelInfo("stub", "test", len(functions), 12, 1, 2, (4, 4), 1, "none", "test weights", "0" * 64)

    @property
    def classes(self) -> int:
        return self._classes

    def logits(self, normed: Tensor) -> Tensor | None:
        return normed[:, 0, : self._classes] if self._classes else None

    def embed(self, images: Tensor) -> Tensor:
        patches = images.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(len(images), 4, 12)
        return self.scale * torch.cat([patches.mean(1, keepdim=True), patches], dim=1)
