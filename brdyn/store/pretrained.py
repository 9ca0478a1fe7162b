"""What is trained here, on disk: safetensors and a config.json, read back without running anything.

A folder holds one thing, a fitted Raptor or a trained classifier; its config says which, and has the weights' checksum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from brdyn.blank import on_meta
from brdyn.checked_json import build, expanded
from brdyn.errors import BrdynError, UsageError
from brdyn.safetensors_file import fault
from brdyn.store import read_json, replace_together, to_json, unwritable
from brdyn.store.shared_tensors import every_name

CONFIG, WEIGHTS = "config.json", "model.safetensors"
T = TypeVar("T")


def write(folder: str | Path, files: Mapping[str, bytes]) -> None:
    """Write what :func:`to_files` has made, all or nothing; the folder is made where it is missing.

    Raises
    ------
    BrdynError
        If it cannot be written.
    """
    folder = expanded(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    replace_together(folder, files)


def to_files(kind: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, bytes]:
    """Weights and a config as the bytes of files, by name.

    Parameters
    ----------
    kind : str
        What it is: `raptor` or `classifier`.
    tensors : mapping of str to Tensor
        That share no memory (:func:`brdyn.store.shared_tensors.each_once`).
    config : mapping
        What it takes to build it again, and how it came to be.
    """
    data = save({name: value.detach().contiguous().cpu() for name, value in tensors.items()})
    whole = {"format": _format(kind), "digest": hashlib.sha256(data).hexdigest(), **config}
    return {WEIGHTS: data, CONFIG: to_json(whole)}


def read_config(folder: str | Path, kind: str, declared: type[T]) -> tuple[T, dict[str, Any]]:
    """The config of what :func:`write` wrote: as a dataclass of what brdyn needs of it, and whole.

    Raises
    ------
    UsageError
        If there is none, or it is of something else, lacks an entry or has one of a wrong type or out of range.
    """
    path = expanded(folder) / CONFIG
    content = read_json(path, f"the config of a {kind}")
    if content.get("format") != _format(kind):
        raise UsageError(f"{str(folder)!r} holds no {kind} of brdyn (its {CONFIG} is of something else)")
    return build(declared, content, repr(str(path)), more=True), content


def read_weights(make: Callable[[], nn.Module], folder: str | Path, digest: str) -> dict[str, Tensor]:
    """The weights in a folder, which are those of the module that its config describes, under all their names there.

    That module is laid out without memory and compared with the weights, so that what is built of it afterwards
    takes no more than they do.

    Parameters
    ----------
    make : callable
        Builds the module as the config describes it.
    folder : path
    digest : str
        The checksum in the config.

    Raises
    ------
    UsageError
        If the config describes nothing that can be built.
    BrdynError
        If the weights are missing or damaged, or do not fit.
    """
    path = expanded(folder) / WEIGHTS
    state = _read_whole(path, digest)
    try:
        with on_meta():
            expected = make()
    except (RuntimeError, ValueError, OverflowError) as error:
        if isinstance(error, BrdynError):
            raise
        raise UsageError(f"{str(path.with_name(CONFIG))!r} describes what cannot be built ({error})") from error
    state = every_name(expected, state)
    _check_fit(expected.state_dict(), state, folder)
    return state


def _check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], folder: str | Path) -> None:
    shapes = [
        f"{key} is {_shape(found.get(key))} where the config makes it {_shape(expected.get(key))}"
        for key in sorted({*expected, *found})
        if _shape(found.get(key)) != _shape(expected.get(key))
    ]
    if shapes:
        more = f", and {len(shapes) - 1} more" if len(shapes) > 1 else ""
        raise BrdynError(f"the weights in {str(folder)!r} do not fit their {CONFIG}: {shapes[0]}{more}")


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(tuple(tensor.shape))


def _read_whole(path: Path, digest: str) -> dict[str, Tensor]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BrdynError(f"cannot read {str(path)!r} ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise BrdynError(f"{str(path)!r} is not what its {CONFIG} says (checksum); is the copy complete?")
    try:
        return load(data)
    except SafetensorError as error:
        raise BrdynError(f"cannot read {str(path)!r} as safetensors ({fault(path, error)})") from error


def holds(folder: str | Path, kind: str) -> bool:
    """Whether a folder holds such a thing."""
    path = expanded(folder) / CONFIG
    try:
        return path.is_file() and read_json(path, f"the config of a {kind}").get("format") == _format(kind)
    except (BrdynError, OSError, ValueError):
        return False


def _format(kind: str) -> str:
    return f"brdyn {kind}"
