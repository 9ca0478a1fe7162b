"""What is trained here, on disk: safetensors and a config.json, read back without running anything.

A folder holds one thing, a fitted Raptor or a trained classifier; its config says which, and has the weights' checksum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from brdyn.errors import BrdynError, UsageError
from brdyn.results import read_json, to_json, write_atomically

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def write(folder: str | Path, kind: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write weights and a config, each whole or not at all.

    Parameters
    ----------
    folder : path
    kind : str
        What it is: `raptor` or `classifier`.
    tensors : mapping of str to Tensor
    config : mapping
        What it takes to build it again, and how it came to be.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: value.detach().contiguous().cpu() for name, value in tensors.items()})
    whole = {"format": _format(kind), "digest": hashlib.sha256(data).hexdigest(), **config}
    write_atomically(folder / WEIGHTS, data)
    write_atomically(folder / CONFIG, to_json(whole))


def read_config(folder: str | Path, kind: str, keys: Sequence[str]) -> dict[str, Any]:
    """The config of what :func:`write` wrote.

    Raises
    ------
    UsageError
        If there is none, or it is of something else or lacks one of the keys.
    """
    config = read_json(Path(folder) / CONFIG, f"the config of a {kind}")
    if config.get("format") != _format(kind) or any(key not in config for key in ("digest", *keys)):
        raise UsageError(f"{str(folder)!r} holds no {kind} of brdyn (its {CONFIG} is of something else)")
    return config


def load_weights(module: nn.Module, folder: str | Path, config: Mapping[str, Any]) -> None:
    """Put the weights in a folder into a module.

    Raises
    ------
    BrdynError
        If they are missing or damaged, or do not fit.
    """
    path = Path(folder) / WEIGHTS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BrdynError(f"cannot read {str(path)!r} ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != config["digest"]:
        raise BrdynError(f"{str(path)!r} is not what its {CONFIG} says (checksum); is the copy complete?")
    try:
        module.load_state_dict(load(data))
    except (RuntimeError, SafetensorError) as error:
        raise BrdynError(f"the weights in {str(folder)!r} do not fit their {CONFIG}") from error


def holds(folder: str | Path, kind: str) -> bool:
    """Whether a folder holds such a thing."""
    try:
        return read_json(Path(folder) / CONFIG, "a config").get("format") == _format(kind)
    except UsageError:
        return False


def _format(kind: str) -> str:
    return f"brdyn {kind}"
