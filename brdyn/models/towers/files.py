"""The files of a model: in a folder, or on the hub and then in its cache. Nothing in them is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from brdyn import hub
from brdyn.checked_json import expanded, shown
from brdyn.errors import BrdynError, UsageError
from brdyn.models import checkpoints, local_paths, weights
from brdyn.models.request import ModelRequest
from brdyn.store import read_json

CONFIG = "config.json"
WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"
INDEX = ".index.json"
ADAPTER = "adapter_config.json"
OTHERS = (
    "tf_model.h5",
    "flax_model.msgpack",
    "model.onnx",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)


@dataclass(frozen=True)
class Source:
    """Where the files of a model are.

    Attributes
    ----------
    name : str
        What the user typed.
    place : str
        A folder or a hub id.
    """

    name: str
    place: str

    @property
    def folder(self) -> Path | None:
        """The folder; None on the hub."""
        path = expanded(self.place)
        return path if path.is_dir() else None

    def where(self, file: str) -> str:
        """How a message calls one of the files."""
        return repr(str(self.folder / file)) if self.folder else f"the {file} of {self.place!r}"

    def find(self, file: str) -> Path | None:
        """A file, fetched from the hub if it has to be; None where there is none.

        Raises
        ------
        BrdynError
            If the hub has no such model, or does not give it.
        """
        from huggingface_hub import errors, hf_hub_download

        if self.folder is not None:
            path = self.folder / file
            return path if path.is_file() else None
        try:
            with hub.hub_access():
                return Path(hf_hub_download(self.place, file))
        except errors.EntryNotFoundError:  # not there, or not in the cache and no network to look
            return None
        except Exception as error:  # the hub raises a dozen kinds, all meaning "not to be had"
            why = hub.reason(error) + local_paths.hint(self.place)
            raise weights.no_weights(self.name, why, hub.CACHE_HINT, architecture=False) from error

    def config(self) -> dict[str, Any]:
        """The config.json.

        Raises
        ------
        UsageError
            If it is not JSON.
        BrdynError
            If there is none.
        """
        path = self.find(CONFIG)
        if path is None:
            why = "no network, and it is not in the local cache" if not hub.is_reachable() else "it has no config.json"
            why += local_paths.hint(self.place)
            raise weights.no_weights(self.name, why, hub.CACHE_HINT, architecture=False)
        return read_json(path, "the config.json of a model")

    def optional(self, file: str) -> dict[str, Any] | None:
        """A further JSON file; None where there is none."""
        path = self.find(file)
        return None if path is None else read_json(path, f"the {file} of a model")

    def state(self, request: ModelRequest) -> dict[str, Tensor]:
        """All tensors of the weights: a safetensors file or its shards, else a checkpoint of torch.

        Raises
        ------
        BrdynError
            If there are none, a file is damaged, or one holds pickled objects that were not allowed.
        """
        if self.folder is not None and (self.folder / ADAPTER).is_file():
            raise UsageError(
                f"{self.place!r} holds an adapter ({ADAPTER}); merge it into its model, save that, and give its folder"
            )
        for name in (WEIGHTS, PICKLED):
            shards = self._shards(name)
            if shards:
                return self._read(shards, request.allow_pickle)
        raise self.none()

    def _read(self, paths: list[Path], allow_pickle: bool) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for path in paths:
            state.update(checkpoints.read(path, allow_pickle))
        return state

    def _shards(self, name: str) -> list[Path]:
        whole = self.find(name)
        if whole is not None:
            return [whole]
        index = self.optional(name + INDEX)
        if index is None:
            return []
        where = self.where(name + INDEX)
        files = index.get("weight_map")
        if not isinstance(files, Mapping) or not files:
            raise UsageError(f"{where} has no weight_map")
        shards = []
        for file in dict.fromkeys(file if isinstance(file, str) else shown(file) for file in files.values()):
            if Path(file).name != file or "\\" in file or Path(file).suffix != Path(name).suffix:
                raise UsageError(f"{where} names {shown(file)}, which is no {Path(name).suffix} file beside it")
            path = self.find(file)
            if path is None:
                raise BrdynError(f"{where} names {file!r}, which is not there; is the copy complete?")
            shards.append(path)
        return shards

    def none(self) -> BrdynError:
        """The error for weights that are not there."""
        if self.folder is None:
            why = (
                f"the hub has neither {WEIGHTS} nor {PICKLED} of it"
                if hub.is_reachable()
                else "no network, and they are not in the local cache"
            )
            return weights.no_weights(self.name, why, hub.CACHE_HINT)
        others = [name for name in OTHERS if (self.folder / name).is_file()]
        also = f"; its {others[0]} is of a kind that brdyn does not read" if others else ""
        return BrdynError(
            f"{self.place!r} has a {CONFIG} and no weights ({WEIGHTS}, its shards, or {PICKLED}){also}; copy them "
            "there, or use `init=random` for untrained weights"
        )
