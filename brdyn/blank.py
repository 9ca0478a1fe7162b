"""Modules without memory for their parameters, built without drawing values that nobody keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

VALUES_ONLY = {
    "uniform_", "normal_", "erfinv_", "mul_", "add_", "div_", "clamp_", "zero_", "fill_", "constant_",
    "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_",
}  # fmt: skip


class NoValues(TorchFunctionMode):
    """Leave out what would only set values on the meta device, where it takes longer than on real memory."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func.__name__ in VALUES_ONLY:
            tensor = args[0] if args else (kwargs or {}).get("tensor")
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **(kwargs or {}))


@contextmanager
def on_meta() -> Iterator[None]:
    """Build modules inside on the meta device."""
    with torch.device("meta"), NoValues():
        yield
