"""Forward-mode derivatives of what a ViT's blocks are made of, at the cost of their operations.

torch's own rules hand on zeros where an argument does not move, so that a linear layer multiplies by the change of its
weights, too, and adds that; and they compute for every tangent anew what depends on the input alone. Here a tangent
takes one product in a linear layer, twice those of a forward pass in attention, and the rest is prepared once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.func import jvp
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from brdyn.measures.kinematics import at_least_float32

if TYPE_CHECKING:
    from collections.abc import Iterator

POINTWISE = (functional.gelu, functional.silu, functional.relu, torch.tanh, torch.sigmoid)


@contextmanager
def differentiable(ahead: bool = False) -> Iterator[None]:
    """Let what runs inside be of a kind that can be differentiated.

    Attention is run by plain products, as the fused kernels have no derivative in forward mode.

    Parameters
    ----------
    ahead : bool
        Differentiate in forward mode alone, by the rules of this module.
    """
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if ahead:
            stack.enter_context(ForwardRules())
        yield


class ForwardRules(TorchFunctionMode):
    """Linear layers, layer norms, activations and plain attention by the rules here, and all else by those of torch."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function, or its rule."""
        del types
        kwargs = kwargs or {}
        if not args:  # all by name
            return func(**kwargs)
        if func is functional.linear:
            return _linear(*args, **kwargs)
        if func is functional.layer_norm:
            return _layer_norm(*args, **kwargs)
        if func is functional.scaled_dot_product_attention and _is_plain(*args, **kwargs):
            return _attention(*args, **kwargs)
        if func in POINTWISE and len(args) == 1 and not kwargs.get("inplace"):
            return _Pointwise.apply(args[0], lambda values: func(values, **kwargs))
        return func(*args, **kwargs)


class _Rule(Function):
    """A function whose parameters, as a rule, do not move, and then cost nothing."""

    generate_vmap_rule = True

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Not to be had: inside of :func:`differentiable` with `ahead` there is forward mode alone."""
        raise NotImplementedError("rules of forward mode have no backward")


class _Linear(_Rule):
    @staticmethod
    def forward(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(values, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_forward(*inputs[:2])

    @staticmethod
    def jvp(ctx: Any, moved: Tensor | None, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        values, own = ctx.saved_tensors
        found = functional.linear(torch.zeros_like(values) if moved is None else moved, own)
        found = found if weight is None else found + functional.linear(values, weight)
        return found if bias is None else found + bias


class _Pointwise(_Rule):
    @staticmethod
    def forward(values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.set_materialize_grads(False)
        values, function = inputs
        ctx.save_for_forward(jvp(function, (values,), (torch.ones_like(values),))[1])

    @staticmethod
    def jvp(ctx: Any, moved: Tensor, _: None) -> Tensor:
        return moved * ctx.saved_tensors[0]


class _LayerNorm(_Rule):
    @staticmethod
    def forward(values: Tensor, shape: tuple[int, ...], weight: Any, bias: Any, eps: float) -> Tensor:
        return functional.layer_norm(values, shape, weight, bias, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.set_materialize_grads(False)
        values, shape, weight, _, eps = inputs
        ctx.dims, ctx.dtype = tuple(range(-len(shape), 0)), output.dtype
        normed, _, scale = torch.native_layer_norm(at_least_float32(values), shape, None, None, eps)
        ctx.save_for_forward(normed, scale if weight is None else scale * weight)

    @staticmethod
    def jvp(
        ctx: Any, moved: Tensor | None, _: None, weight: Tensor | None, bias: Tensor | None, __: None
    ) -> Tensor:
        normed, scale = ctx.saved_tensors
        exact, dims = torch.zeros_like(normed) if moved is None else at_least_float32(moved), ctx.dims
        along = (exact * normed).mean(dims, keepdim=True)
        found = (exact - exact.mean(dims, keepdim=True)).sub_(normed * along).mul_(scale)
        found = found if weight is None else found + normed * weight
        return (found if bias is None else found + bias).to(ctx.dtype)


class _Attention(_Rule):
    """softmax(scale Q K^T) V, and the softmax beside it."""

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        exact = [at_least_float32(one) for one in (query, key, value)]
        shares = torch.softmax(scale * exact[0] @ exact[1].mT, -1)
        return (shares @ exact[2]).to(value.dtype), shares

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        *tokens, ctx.scale = inputs
        ctx.dtype = tokens[-1].dtype
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_forward(*tokens, *output)

    @staticmethod
    def jvp(ctx: Any, *moved: Any) -> tuple[Tensor, None]:
        query, key, value, read, shares = map(at_least_float32, ctx.saved_tensors)
        queries, keys, values = (
            torch.zeros_like(one) if change is None else at_least_float32(change)
            for one, change in zip((query, key, value), moved[:3], strict=True)
        )
        scores = (
            torch.cat([queries, query.expand_as(queries)], -1) @ torch.cat([key.expand_as(keys), keys], -1).mT
        )
        scores = scores.mul_(ctx.scale).mul_(shares)
        found = scores @ value - scores.sum(-1, keepdim=True) * read + shares @ values
        return found.to(ctx.dtype), None


def _linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    return _Linear.apply(values, weight, bias)


def _layer_norm(
    values: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Any:  # fmt: skip
    return _LayerNorm.apply(values, tuple(normalized_shape), weight, bias, eps)


def _is_plain(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, **others: Any,
) -> bool:  # fmt: skip
    """Whether all tokens read from all, each head by its own keys."""
    return attn_mask is None and not dropout_p and not is_causal and not others.get("enable_gqa")


def _attention(
    query: Tensor, key: Tensor, value: Tensor, *_: Any, scale: float | None = None, **__: Any
) -> Any:
    return _Attention.apply(query, key, value, query.shape[-1] ** -0.5 if scale is None else scale)[0]
