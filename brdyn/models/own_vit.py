"""What :func:`brdyn.adapt` makes: a copy of somebody's module behind the contract of a plain ViT."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, Self

from torch import Tensor, nn

from brdyn.models.base import TokenLayout, VisionTransformer
from brdyn.models.preprocessing import Preprocessing

Embed = Callable[[Any, Tensor], Tensor]
Apply = Callable[[Any, nn.Module, Tensor], Any]
Head = Callable[[Any, Tensor], Tensor]


class OwnBlock(nn.Module):
    """A block of somebody's module at one layer, callable on the state alone.

    Of what the block returns the first element is the state. A block that changes its input in place gets a copy, as
    states are kept.
    """

    def __init__(self, module: nn.Module, block: nn.Module, apply: Apply | None) -> None:
        super().__init__()
        self.block = block
        self.in_place = False
        self._held = (module, apply)  # the module is not a part of its block

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy of the block alone; it is of the same module, or of the copy that is being made of that one."""
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        own = {name: value for name, value in self.__dict__.items() if name != "_held"}
        copied.__dict__.update(deepcopy(own, memo))
        module, apply = self._held
        copied._held = (memo.get(id(module), module), apply)
        return copied

    def forward(self, state: Tensor) -> Tensor:
        """Apply the block."""
        module, apply = self._held
        state = state.clone() if self.in_place else state
        output = self.block(state) if apply is None else apply(module, self.block, state)
        return output if isinstance(output, Tensor) else output[0]


def copy_input(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Give a module a copy of what it would change in place: a forward pre-hook."""
    return inputs[0].clone(), *inputs[1:]


class OwnViT(VisionTransformer):
    """A copy of somebody's module behind the contract of a plain ViT; made by :func:`adapt`.

    Attributes
    ----------
    in_place : set of str
        Which of the functions `embed` and `head` change their input in place, and get a copy.
    """

    def __init__(
        self,
        module: nn.Module,
        blocks: Iterable[nn.Module],
        norm: nn.Module | None,
        tokens: TokenLayout,
        preprocessing: Preprocessing,
        functions: tuple[Embed, Apply | None, Head | None],
    ) -> None:
        super().__init__()
        embed, apply, self._head = functions
        self._embed = embed
        self.module = module
        self.blocks = nn.ModuleList([OwnBlock(module, block, apply) for block in blocks])
        self.norm = nn.Identity() if norm is None else norm
        self.tokens, self.preprocessing = tokens, preprocessing
        self.in_place: set[str] = set()
        self._classes = 0

    def embed(self, images: Tensor) -> Tensor:
        """What the function given for it makes of images."""
        return self._embed(self.module, self._input("embed", images))

    @property
    def classes(self) -> int:
        """Of the head, where one was given."""
        return self._classes

    def logits(self, normed: Tensor) -> Tensor | None:
        """What the head makes of normed tokens."""
        return None if self._head is None else self._head(self.module, self._input("head", normed))

    def _input(self, part: str, value: Tensor) -> Tensor:
        return value.clone() if part in self.in_place else value
