"""What is trained here, on disk: safetensors and a config.json, read back without running anything.

A folder holds one thing, a fitted Raptor or a trained classifier; its config says which, and has the weights' checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from brdyn.errors import BrdynError, UsageError
from brdyn.results import read_json, to_json
from brdyn.store import replace_together

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def write(folder: str | Path, files: Mapping[str, bytes]) -> None:
    """Write what :func:`to_files` has made, all or nothing; the folder is made where it is missing.

    Raises
    ------
    BrdynError
        If it cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BrdynError(f"cannot make the folder {str(folder)!r} ({error.strerror})") from error
    replace_together(folder, files)


def to_files(kind: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, bytes]:
    """Weights and a config as the bytes of files, by name.

    Parameters
    ----------
    kind : str
        What it is: `raptor` or `classifier`.
    tensors : mapping of str to Tensor
    config : mapping
        What it takes to build it again, and how it came to be.
    """
    data = save({name: value.detach().contiguous().cpu() for name, value in tensors.items()})
    whole = {"format": _format(kind), "digest": hashlib.sha256(data).hexdigest(), **config}
    return {WEIGHTS: data, CONFIG: to_json(whole)}


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
        config = json.loads((Path(folder) / CONFIG).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("format") == _format(kind)


def _format(kind: str) -> str:
    return f"brdyn {kind}"
