"""Whole modules as `torch.save(module)` pickles them: their tensors and plain values, without running their code.

Such a file names the classes it was made of, and loading it the usual way imports and runs them. Here only torch's own
functions that put tensors together are called; every other class becomes an empty shell that keeps what it is given.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brdyn.errors import BrdynError
from brdyn.words import first_line

CALLED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}


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


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in CALLED:
            return CALLED[module, name]
        kind = getattr(torch, name, None) if module == "torch" else None
        if isinstance(kind, torch.dtype) or (isinstance(kind, type) and name.endswith("Storage")):
            return kind
        return type(name, (Shell,), {})


class _WithoutClasses:
    """What torch.load takes for the pickle module."""

    __name__ = "brdyn.models.module_pickles"
    Unpickler = _Unpickler

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        """As `pickle.load`."""
        return _Unpickler(file, **options).load()


def read_module(path: Path) -> Shell:
    """The module in a file.

    Raises
    ------
    BrdynError
        If the file cannot be read, or holds no module.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_WithoutClasses)
    except Exception as error:  # a damaged archive or pickle breaks torch's reader anywhere
        raise BrdynError(f"cannot read {str(path)!r} as a pickled module ({first_line(error)})") from error
    if not isinstance(found, Shell) or not found.named_tensors():
        raise BrdynError(f"{str(path)!r} holds no module with parameters")
    return found
