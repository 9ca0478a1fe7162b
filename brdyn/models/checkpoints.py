"""Reading the tensors of a file of weights, without running code from it, and saying what a file is instead."""

from __future__ import annotations

import argparse
import json
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from brdyn.errors import BrdynError, UsageError
from brdyn.safetensors_file import fault
from brdyn.words import first_line

StateDict = dict[str, Tensor]

WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
DEEPEST = 8  # mappings within mappings; checkpoints have three or four
SHOWN = 3
HEAD = 1024  # bytes that tell what a file is
SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]
HARMLESS: tuple[Any, ...] = (  # besides what torch allows: a training script's arguments, NumPy's numbers
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bhilqBHILQefd"},
    (SCALAR, "numpy._core.multiarray.scalar"),
    (SCALAR, "numpy.core.multiarray.scalar"),
)
LIKE_A_PICKLE = "is a pickle"
LIKE_A_TORCH_ARCHIVE = "is a torch archive"
LIKE_SAFETENSORS = "is a safetensors file"
LIKE_NUMPY = "is a NumPy .npz archive"
LIKE_TORCHSCRIPT = "is a TorchScript archive"
MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"),
    (b"\x93NUMPY", "is one NumPy array without names; give a torch checkpoint or a safetensors file"),
    (b"\x89HDF", "is an HDF5 file, as Keras writes; convert it to safetensors"),
    (b"GGUF", "is a GGUF file of quantised weights; give the weights that were not quantised"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it first"),
    (b"\xfd7zXZ", "is compressed with xz; unpack it first"),
    (b"BZh", "is compressed with bzip2; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; unpack it first"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it first"),
    (b"Rar!", "is a RAR archive; unpack it first"),
    (b"\x89PNG", "is a PNG picture"),
    (b"\xff\xd8\xff", "is a JPEG picture"),
    (b"%PDF", "is a PDF document"),
)


class HoldsObjectsError(BrdynError):
    """A checkpoint that was read without `allow_pickle` and holds pickled Python objects."""


def read(path: Path, allow_pickle: bool = False) -> StateDict:
    """Read a `.safetensors` file or a torch checkpoint into tensors, without running code from it.

    What a file is is told from its content, not from its name. Mappings inside mappings are joined by dots
    (`teacher.backbone.cls_token`); what is no tensor, or has a name that is no text, is left out.

    Raises
    ------
    UsageError
        If there is no such file.
    BrdynError
        If it is truncated, of another kind, holds no named tensors, or holds Python objects and `allow_pickle` is
        false.
    """
    kind = kind_of(path)
    if kind == LIKE_SAFETENSORS:
        content = _read_safetensors(path)
    elif kind in (LIKE_A_PICKLE, LIKE_A_TORCH_ARCHIVE):
        content = _read_torch(path, allow_pickle)
    elif kind == LIKE_TORCHSCRIPT:
        content = _read_torchscript(path, allow_pickle)
    elif kind == LIKE_NUMPY:
        raise BrdynError(f"{str(path)!r} {kind}, which only timm's own ViT names can take; use one with `model`")
    else:
        raise BrdynError(f"cannot read {str(path)!r} as a checkpoint: it {kind}")
    tensors = dict(_tensors(content))
    if not tensors:
        raise BrdynError(f"{str(path)!r} holds no state dict (a mapping of names to tensors) but {_words(content)}")
    return tensors


def kind_of(path: Path) -> str:
    """Say what a file is, from its first bytes, in words that go after its name: `is …`.

    Raises
    ------
    UsageError
        If there is no such file.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "is not there"
        raise UsageError(f"no weights at {str(path)!r}, which {what}; give `weights` a file or a transformers folder")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise BrdynError(f"cannot read {str(path)!r} ({error.strerror})") from error
    if not head:
        return "is empty; download it again"
    if head[:2] == b"PK":
        return _kind_of_zip(path)
    known = next((words for magic, words in MAGIC if head.startswith(magic)), None)
    return known or _kind_of_other(path, head)


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return LIKE_A_TORCH_ARCHIVE  # a truncated one has lost its list; torch says so
    if any(name.endswith("constants.pkl") for name in names):
        return LIKE_TORCHSCRIPT
    if any(name.endswith("data.pkl") for name in names):
        return LIKE_A_TORCH_ARCHIVE
    if names and all(name.endswith(".npy") for name in names):
        return LIKE_NUMPY
    return f"is a zip archive of {len(names)} files and none of them a checkpoint's; unpack it and give the file inside"


def _kind_of_other(path: Path, head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page saved under this name; download the file itself"
    if (head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40) or path.suffix == ".safetensors":
        return LIKE_SAFETENSORS
    if path.suffix.lower() == ".onnx" or (head[:1], head[2:3]) == (b"\x08", b"\x12"):
        return "is an ONNX graph; give the torch weights it was exported from"
    if head[257:262] == b"ustar" or (not head.startswith(b"\x80") and _is_tar(path)):
        return "is a tar archive; unpack it and give the file inside"
    if start.startswith((b"{", b"[")):
        return _kind_of_json(path)
    if head[:1] == b"\x80" or path.suffix.lower() in (".pt", ".pth", ".bin", ".ckpt", ".pkl"):
        return LIKE_A_PICKLE
    return "is no torch checkpoint and no safetensors file"


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except OSError:
        return False


def _kind_of_json(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            sharded = '"weight_map"' in file.read(1 << 20)
    except (OSError, UnicodeDecodeError):
        sharded = False
    if not sharded:
        return "is a text in JSON"
    return (
        "is the list of a checkpoint in several files; give `model` or `weights` its folder where it is a "
        "transformers model, else join the files into one"
    )


def count_numbers(path: Path) -> int:
    """How many numbers the tensors of a safetensors file hold, by its header alone.

    Raises
    ------
    BrdynError
        If it cannot be read.
    """
    with _read_as_safetensors(path), safe_open(path, "pt") as file:
        return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def _read_safetensors(path: Path) -> StateDict:
    with _read_as_safetensors(path):
        return load_file(path)


@contextmanager
def _read_as_safetensors(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise BrdynError(f"cannot read {str(path)!r} as safetensors ({fault(path, error)})") from error


def _read_torch(path: Path, allow_pickle: bool) -> Any:
    try:
        with torch.serialization.safe_globals(list(HARMLESS)):
            return _torch_load(path, weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if not _holds_objects(error):
            raise _unreadable(path, error) from error
    except Exception as error:  # a damaged archive or pickle breaks torch's reader anywhere
        raise _unreadable(path, error) from error
    if not allow_pickle:
        raise HoldsObjectsError(
            f"{str(path)!r} holds pickled Python objects, which can run code when loaded; "
            "convert it to safetensors, or pass `allow_pickle=True` if you trust its author"
        )
    try:
        return _torch_load(path, weights_only=False)
    except Exception as error:  # a pickle can fail in any way, for instance on a class that is not here
        raise _unreadable(path, error) from error


def _torch_load(path: Path, *, weights_only: bool, mmap: bool = False) -> Any:
    if path.suffix != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=weights_only, mmap=mmap)
    with path.open("rb") as file:  # torch would believe the name
        return torch.load(file, map_location="cpu", weights_only=weights_only)


def _read_torchscript(path: Path, allow_pickle: bool) -> Any:
    if not allow_pickle:
        raise BrdynError(
            f"{str(path)!r} {LIKE_TORCHSCRIPT}: a program with its weights, as OpenAI's CLIP files are; pass "
            "`allow_pickle=True` if you trust its author, or save torch.jit.load(file).state_dict() once"
        )
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.jit.load(str(path), map_location="cpu").state_dict()
    except Exception as error:  # its reader raises what its program raises
        raise _unreadable(path, error) from error


def _holds_objects(error: pickle.UnpicklingError) -> bool:
    return "unsupported global" in str(error).lower() or "unsupported class" in str(error).lower()


def _unreadable(path: Path, error: Exception) -> BrdynError:
    return BrdynError(f"cannot read {str(path)!r} as a checkpoint ({first_line(error)}); is the download complete?")


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors under names that are text, each mapping once; names that wrappers add are removed."""
    seen: set[int] = set()
    pending: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while pending:
        names, value = pending.pop()
        if isinstance(value, nn.Module):
            value = value.state_dict()
        if isinstance(value, Tensor) and names:
            yield ".".join(part for part in ".".join(names).split(".") if part not in WRAPPED), value
        elif isinstance(value, Mapping) and id(value) not in seen and len(names) < DEEPEST:
            seen.add(id(value))
            named = [(key, inner) for key, inner in value.items() if isinstance(key, str)]
            pending.extend(((*names, key), inner) for key, inner in reversed(named))


def _words(content: Any) -> str:
    """What there is instead of a state dict, by kinds, so that no address or content is shown."""
    if isinstance(content, Tensor):
        return f"one tensor of shape {tuple(content.shape)} without a name"
    if isinstance(content, Mapping):
        kinds = sorted({f"{type(key).__name__} to {type(value).__name__}" for key, value in content.items()})
        return f"a mapping of {', '.join(kinds[:SHOWN])}" if kinds else "an empty mapping"
    if isinstance(content, Sequence) and not isinstance(content, str):
        kinds = sorted({type(item).__name__ for item in content})
        return f"a {type(content).__name__} of {len(content)} ({', '.join(kinds[:SHOWN])})"
    return f"a {type(content).__name__}"
