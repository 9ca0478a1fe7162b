"""Classification heads of transformers' towers, applied to the final state as their own classes apply them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

HEAD = "classifier"
TWO_HEADS = ("cls_classifier", "distillation_classifier")
HEADS = (HEAD, *TWO_HEADS)


class Head(nn.Module):
    """Class scores `(B, classes)` from normed tokens `(B, N, D)`.

    Parameters
    ----------
    readers : list of nn.Linear
        One, or two whose scores are averaged.
    pools : list of callable
        What each of them reads, `(B, N, D)` to `(B, D')`.
    norm : nn.Module
        After the pooling.
    """

    def __init__(self, readers: list[nn.Linear], pools: list[Callable[[Tensor], Tensor]], norm: nn.Module) -> None:
        super().__init__()
        self.readers = nn.ModuleList(readers)
        self.pools = pools
        self.norm = norm

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.readers[0].out_features)  # type: ignore[arg-type]

    def forward(self, normed: Tensor) -> Tensor:
        """The scores."""
        scores = [reader(self.norm(pool(normed))) for reader, pool in zip(self.readers, self.pools, strict=True)]
        return torch.stack(scores).mean(0)


def _token(number: int) -> Callable[[Tensor], Tensor]:
    return lambda normed: normed[:, number]


def _patches(before: int) -> Callable[[Tensor], Tensor]:
    return lambda normed: normed[:, before:].mean(1)


def _both(before: int) -> Callable[[Tensor], Tensor]:
    return lambda normed: torch.cat([normed[:, 0], normed[:, before:].mean(1)], dim=1)


def shapes(head: Head | None) -> dict[str, tuple[int, ...]]:
    """The tensors of a head in a file, by name, and their shapes: what :func:`drawn` makes again."""
    if head is None:
        return {}
    names = (HEAD,) if len(head.readers) == 1 else TWO_HEADS
    return {
        f"{name}.{part}": tuple(value.shape)
        for name, reader in zip(names, head.readers, strict=True)
        for part, value in reader.named_parameters()
    }


def drawn(wanted: Mapping[str, tuple[int, ...]], deviation: float) -> dict[str, Tensor]:
    """Untrained tensors of such shapes, as transformers draws them: normal weights, and biases of 0."""
    return {
        name: torch.zeros(shape) if len(shape) == 1 else torch.randn(shape) * deviation
        for name, shape in wanted.items()
    }


def find_head(state: Mapping[str, Tensor], pool: str, before: int, width: int, norm: nn.Module | None) -> Head | None:
    """The head among the tensors of a file.

    Parameters
    ----------
    state : mapping of str to Tensor
    pool : {"cls", "patches", "cls and patches", ""}
        What it reads; empty where that is not in the final state.
    before, width : int
        Tokens before the patches, and D.
    norm : nn.Module, optional
        After the pooling.

    Returns
    -------
    Head or None
        None where there is none, or none of a shape that reads this.
    """
    pools = {"cls": _token(0), "patches": _patches(before), "cls and patches": _both(before)}
    if all(f"{name}.weight" in state for name in TWO_HEADS):
        names, reads = list(TWO_HEADS), [_token(0), _token(1)]
    elif f"{HEAD}.weight" in state and pool in pools:
        names, reads = [HEAD], [pools[pool]]
    else:
        return None
    wide = width * (2 if pool == "cls and patches" else 1)
    readers = [_linear(state, name, wide) for name in names]
    if any(reader is None for reader in readers):
        return None
    return Head([reader for reader in readers if reader is not None], reads, norm or nn.Identity())


def _linear(state: Mapping[str, Tensor], name: str, width: int) -> nn.Linear | None:
    weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
    if weight.ndim != 2 or weight.shape[1] != width or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    reader = nn.Linear(width, len(weight), bias=bias is not None, device="meta")
    values = {"weight": weight.float()} | ({"bias": bias.float()} if bias is not None else {})
    reader.load_state_dict(values, assign=True)
    return reader
