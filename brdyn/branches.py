"""What attention and the MLP of a block each add to the state, read off the arithmetic of the block itself.

A block of a ViT is a sum: its input, what attention makes of it, and what the MLP makes of that. No name of a module
says where these are in timm, in transformers, in a Raptor or in a module of one's own, so the operations of a block are
watched instead (method notes, section 10). A tensor that is the state plus terms is kept as its parts. Sums, slices,
concatenations and products with what does not depend on the state act on each part; whatever else is computed from the
state begins a branch, which is attention's from the first product of two activations on, and the MLP's where there is
none. A plain block costs no arithmetic: its parts are tensors that it computes anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from brdyn.models.tracing import tensors_in
from brdyn.runtime import unfused

STATE, ATTENTION, MLP, FUSED = "state", "attention", "mlp", "fused"
SUMS = {"add": 1, "add_": 1, "sub": -1, "sub_": -1}
SCALINGS = {"mul", "mul_", "div", "div_"}
JOINS = {"cat", "stack"}
# Besides views: what acts on each term of a sum.
LINEAR = {
    "clone",
    "_to_copy",
    "neg",
    "_unsafe_view",
    "index_select",
    "index",
    "sum",
    "mean",
    "select",
    "slice",
}
VIEWS = {torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default}
PRODUCTS = {"mm", "bmm", "baddbmm", "addmm", "matmul"}
ROUNDINGS = 8  # of a block's own arithmetic, by which its parts may differ from its output

NO_SUM = "its output is not its input plus what branches add"
ONE_PRODUCT = "attention and MLP leave it by one product"
NO_ATTENTION = "no attention is seen in it"
UNEQUAL = "attention and MLP do not sum to its update"
HIDDEN = (NO_SUM, ONE_PRODUCT, NO_ATTENTION, UNEQUAL)

Parts = dict[str, Tensor]


@dataclass(frozen=True)
class Branches:
    """What a block adds to the state, `a_l - a_{l-1} = attention + mlp + rescaling`, each `(B, N, D)`.

    Attributes
    ----------
    attention, mlp : Tensor
        As added to the stream, with LayerScale and depth scaling.
    rescaling : Tensor or None
        What a block does to its own input, as a Raptor's whose output is scaled; None where it leaves it as it is.

    Examples
    --------
    >>> trajectory = brdyn.capture(model, next(images.batches(2)), branches=True)
    >>> first = trajectory.branches[0]
    >>> update = trajectory.states[1] - trajectory.states[0]
    >>> torch.allclose(first.attention + first.mlp, update, atol=1e-5), first.rescaling
    (True, None)
    """

    attention: Tensor
    mlp: Tensor
    rescaling: Tensor | None = None


def run_with_branches(block: nn.Module, state: Tensor) -> tuple[Tensor, Branches | str]:
    """Apply a block to a state `(B, N, D)`: what it makes of it, and its branches or the reason of :data:`HIDDEN`.

    The output is the same as without being watched, up to rounding where torch has one operation for a whole
    `nn.TransformerEncoderLayer`.
    """
    with unfused(), _Ledger(state) as ledger:
        output = block(state)
    return output, ledger.branches(state, output)


class _Ledger(TorchDispatchMode):
    """Watches operations, and keeps of every tensor computed from a state which parts it has.

    A tensor with several parts, or with the state, is kept as them; one of a single branch as the name of that.
    """

    def __init__(self, state: Tensor) -> None:
        super().__init__()
        self.kept: Any = WeakTensorKeyDictionary()
        self.kept[state] = {STATE: state}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        known = [one for one in tensors_in((*args, *kwargs.values())) if one in self.kept]
        parts = self._parts(func, args, kwargs, known) if known else None
        output = func(*args, **kwargs)
        if parts is not None:
            for number, one in enumerate(output if isinstance(output, tuple | list) else [output]):
                if isinstance(one, Tensor):
                    self.kept[one] = parts(number, one)
        return output

    def _parts(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], known: list[Tensor]
    ) -> Callable[[int, Tensor], Parts | str]:
        """What each output of an operation is made of, to be asked for once there are outputs."""
        name = func.overloadpacket.__name__
        if name in SUMS:
            return self._sum(args, SUMS[name] * kwargs.get("alpha", 1))
        if any(isinstance(self.kept[one], dict) for one in known):
            if name in JOINS:
                return self._joined(func, args, kwargs)
            if len(known) == 1 and known[0] is args[0] and (func.is_view or name in LINEAR | SCALINGS):
                return self._each(func, name, args, kwargs)
            if len(known) == 1 and name == "mul":  # a factor times the state
                return self._each(func, name, (args[1], args[0]), kwargs)
        kind = self._branch(name, known)
        return lambda _, __: kind

    def _branch(self, name: str, known: list[Tensor]) -> str:
        """Which branch something belongs to that is no sum."""
        if "attention" in name or "attn" in name or (name in PRODUCTS and len(known) > 1):
            return ATTENTION
        kinds = {
            kind
            for kept in map(self.kept.__getitem__, known)
            for kind in ((kept,) if isinstance(kept, str) else () if STATE in kept else kept)
        }
        if FUSED in kinds or (name in JOINS and kinds == {ATTENTION, MLP}):
            return FUSED
        return ATTENTION if ATTENTION in kinds else MLP

    def _terms(self, value: Tensor) -> Parts:
        """The parts of an operand; what does not depend on the state counts with it."""
        kept = self.kept.get(value)
        if isinstance(kept, str):
            return {kept: value}
        return dict(kept) if kept is not None else {STATE: value}

    def _sum(self, args: tuple[Any, ...], factor: float) -> Callable[[int, Tensor], Parts | str]:
        either = next(one for one in args[:2] if isinstance(one, Tensor))
        first, second = (one if isinstance(one, Tensor) else either.new_tensor(one) for one in args[:2])
        kinds = {str(self.kept[one]) for one in (first, second) if isinstance(self.kept.get(one), str)}
        if len(kinds) == 1 and not any(isinstance(self.kept.get(one), dict) for one in (first, second)):
            kind = kinds.pop()  # a bias, or a sum within a branch
            return lambda _, __: kind
        parts = self._terms(first)
        for kind, term in self._terms(second).items():
            term = term if factor == 1 else factor * term
            parts[kind] = parts[kind] + term if kind in parts else term
        return lambda _, __: parts

    def _joined(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[int, Tensor], Parts]:
        terms = [self._terms(one) for one in args[0]]
        kinds = list(dict.fromkeys(kind for one in terms for kind in one))
        parts = {
            kind: func(
                [
                    own[kind].expand_as(one) if kind in own else torch.zeros_like(one)
                    for own, one in zip(terms, args[0], strict=True)
                ],
                *args[1:],
                **kwargs,
            )
            for kind in kinds
        }
        return lambda _, __: parts

    def _each(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[int, Tensor], Parts]:
        """The operation on each part."""
        if name.endswith("_"):  # the parts stay what they are
            func = getattr(getattr(torch.ops.aten, name.removesuffix("_")), func._overloadname)
        whole = args[0]
        # Strides of a part can forbid a view that those of the sum allow.
        func = torch.ops.aten.reshape.default if func in VIEWS else func
        outputs = {kind: func(term.expand_as(whole), *args[1:], **kwargs) for kind, term in self.kept[whole].items()}
        return lambda number, _: {
            kind: one[number] if isinstance(one, tuple | list) else one for kind, one in outputs.items()
        }

    def branches(self, state: Tensor, output: Tensor) -> Branches | str:
        """Those of a block that made this of the state, or the reason of :data:`HIDDEN`."""
        parts = self.kept.get(output)
        if not isinstance(parts, dict) or STATE not in parts:
            return NO_SUM
        if FUSED in parts:
            return ONE_PRODUCT
        if MLP in parts and ATTENTION not in parts:
            return NO_ATTENTION
        if not _is_sum(output, parts.values()):
            return UNEQUAL
        attention, mlp = (
            parts[kind].expand_as(state) if kind in parts else torch.zeros_like(state) for kind in (ATTENTION, MLP)
        )
        left = parts[STATE]
        same = left is state or torch.equal(left, state)
        return Branches(attention, mlp, None if same else left - state)


def _is_sum(output: Tensor, parts: Iterable[Tensor]) -> bool:
    """Whether parts sum to an output, up to the rounding of its precision."""
    precision = torch.promote_types(output.dtype, torch.float32)
    parts = [one.to(precision) for one in parts]
    error = torch.linalg.vector_norm(sum(parts, start=torch.zeros(())) - output.to(precision))
    size = torch.stack([torch.linalg.vector_norm(one) for one in parts]).sum()
    return bool(error <= ROUNDINGS * torch.finfo(output.dtype).eps * size)
