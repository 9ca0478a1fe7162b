"""The state of a module whose layers may be one: each tensor once, under its first name."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def each_once(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module; of those that several layers share, only the first name.

    >>> from torch import nn
    >>> from brdyn.store.shared_tensors import each_once
    >>> layer = nn.Linear(2, 2, bias=False)
    >>> list(each_once(nn.Sequential(layer, layer)))
    ['0.weight']
    """
    state, first = module.state_dict(), _first_names(module)
    return {name: value for name, value in state.items() if first[name] == name}


def every_name(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `module.load_state_dict` takes, from what :func:`each_once` gave; names of other modules are left in.

    >>> from torch import nn
    >>> from brdyn.store.shared_tensors import each_once, every_name
    >>> layer = nn.Linear(2, 2, bias=False)
    >>> network = nn.Sequential(layer, layer)
    >>> list(every_name(network, each_once(network)))
    ['0.weight', '1.weight']
    """
    shared = {name: tensors[one] for name, one in _first_names(module).items() if one in tensors}
    return {**shared, **tensors}


def _first_names(module: nn.Module) -> dict[str, str]:
    """Of each name in a module's state, the first that its tensor has."""
    first: dict[int, str] = {}
    kept = module.state_dict(keep_vars=True)  # the parameters themselves, not views of them
    return {name: first.setdefault(id(value), name) for name, value in kept.items()}
