"""Whole modules as `torch.save(module)` pickles them: their tensors and plain values, without running their code.

Such a file names the classes it was made of, and loading it the usual way imports and runs them. Here torch's own
restricted reader gets an empty shell in the place of each, which keeps what it is given.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brdyn.errors import BrdynError
from brdyn.words import first_line


class Shell:
    """Something of a class that is not looked at: what it is made of, by name.

    >>> from brdyn.models.module_pickles import Shell
    >>> Shell().named_tensors()
    {}
    """

    def __new__(cls, *_: Any, **__: Any) -> Shell:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Whatever it is called with."""

    def __setstate__(self, state: Any) -> None:
        """Keep plain attributes."""
        if isinstance(state, Mapping):
            self.__dict__.update({str(name): value for name, value in state.items()})

    def named_tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Parameters and buffers, named as in a state dict."""
        own = {**_mapping(self, "_parameters"), **_mapping(self, "_buffers")}
        found = {f"{prefix}{name}": value for name, value in own.items() if isinstance(value, Tensor)}
        for name, module in _mapping(self, "_modules").items():
            if isinstance(module, Shell):
                found |= module.named_tensors(f"{prefix}{name}.")
        return found


def _mapping(shell: Shell, name: str) -> Mapping[str, Any]:
    found = shell.__dict__.get(name)
    return found if isinstance(found, Mapping) else {}


def read_module(path: Path) -> Shell:
    """The module in a file.

    Raises
    ------
    BrdynError
        If the file cannot be read, is in the format of torch before 1.6, or holds no module.
    """
    if not zipfile.is_zipfile(path):
        raise BrdynError(
            f"{str(path)!r} is a module as torch before 1.6 pickled it, which is not read; load it with its own code, "
            "and give what torch.save(module.state_dict(), ...) writes"
        )
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        shells: list[Any] = [(type(name.rpartition(".")[2], (Shell,), {}), name) for name in named]
        with torch.serialization.safe_globals(shells):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive or pickle breaks torch's reader anywhere
        raise BrdynError(f"cannot read {str(path)!r} as a pickled module ({first_line(error)})") from error
    if not isinstance(found, Shell) or not found.named_tensors():
        raise BrdynError(f"{str(path)!r} holds no module with parameters")
    return found
