"""Data sets of the `datasets` library: of the hub, or saved to disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from brdyn import hub
from brdyn.data.cells import TableSource
from brdyn.data.columns import Asked, arrow_column, said_of_itself
from brdyn.data.files import Names, shown
from brdyn.data.fingerprint import fingerprint
from brdyn.data.sources import RawImage
from brdyn.data.splits import choose_split
from brdyn.errors import BrdynError, UsageError
from brdyn.words import first_line


class RowSource(TableSource):
    """The rows of a `datasets.Dataset`.

    Parameters
    ----------
    rows : datasets.Dataset
    description : str
    split : str or None
    asked : Asked
    folders : sequence of Path
        Where images that are not in the rows may be.
    """

    def __init__(self, rows: Any, description: str, split: str | None, asked: Asked, folders: Sequence[Path]) -> None:
        self.description, self.split, self._folders = description, split, list(folders)
        schema, said = rows.data.schema, rows.features.to_dict()
        columns = [arrow_column(name, schema.field(name).type, said.get(name)) for name in rows.column_names]
        self.metadata = said_of_itself(schema)

        def arrays(column: str) -> Iterator[Any]:
            for batch in rows.with_format("arrow").select_columns([column]).iter(2**16):
                yield from batch[column].chunks

        self.choose(columns, asked, repr(description), arrays)
        # Other columns would be decoded with every row. Nor is this one: decode.py says what is opened.
        self._rows = rows.select_columns(self.columns_read()).with_format("arrow")
        self._cached = [Path(one["filename"]) for one in rows.cache_files]

    def __len__(self) -> int:
        return len(self._rows)

    def fingerprint(self) -> str:
        """Of the name, the number of rows, and the Arrow files where there are any."""
        found = hashlib.sha256(f"{len(self)}\0".encode())
        parents = dict.fromkeys(path.parent for path in self._cached)
        for parent in parents:
            names = [path.name for path in self._cached if path.parent == parent]
            found.update(fingerprint(Names(parent, names)).encode())
        if not parents:
            found.update(self.description.encode())
        return found.hexdigest()

    def read(self, index: int) -> RawImage:
        row = self._rows[index]
        return self.raw(index, lambda column: row[column][0], self._folders)


def hub_source(name: str, split: str, asked: Asked) -> RowSource:
    """A split of a data set on the Hugging Face hub or in its cache: `owner/name` or `owner/name:configuration`.

    Raises
    ------
    UsageError
        If it has no such split, needs a configuration, or leaves open which column is meant.
    BrdynError
        If it is not to be had.
    """
    import datasets
    from huggingface_hub import constants

    repository, _, configuration = name.partition(":")
    try:
        with hub.hub_access():
            rows = datasets.load_dataset(repository, configuration or None, split=split)
    except ValueError as error:
        if "split" in str(error).lower():
            raise UsageError(
                f"{name!r} has no split {split!r} ({first_line(error)}); name one: {name}@SPLIT"
            ) from error
        if "config name" in str(error).lower():
            raise UsageError(
                f"{name!r} needs a configuration ({first_line(error)}); give `images={repository}:CONFIGURATION`"
            ) from error
        raise BrdynError(f"cannot load the data set {name!r} ({first_line(error)})") from error
    except Exception as error:  # the hub raises a dozen kinds, all meaning "not to be had"
        raise BrdynError(
            f"{name!r} is no file or folder here, and cannot be had as a hub data set ({hub.reason(error)}); check its "
            "name and the network, or give `images` a folder, a parquet file or 'samples'"
        ) from error
    caches = [Path(one) for one in (datasets.config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE)]
    return RowSource(rows, f"{name}[{split}]", split, asked, caches)


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of the `datasets` library wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def saved_source(folder: Path, split: str | None, asked: Asked) -> RowSource:
    """A data set that `save_to_disk` wrote, or a split of several.

    Raises
    ------
    UsageError
        If it has several splits and none was chosen, or leaves open which column is meant.
    BrdynError
        If it cannot be read.
    """
    import datasets

    where = repr(shown(folder))
    try:
        rows = datasets.load_from_disk(str(folder))
    except Exception as error:  # of Arrow, of JSON and of the library
        raise BrdynError(
            f"cannot read {where} as a data set saved to disk ({first_line(error)}); is the copy complete?"
        ) from error
    if isinstance(rows, datasets.DatasetDict):
        chosen = choose_split([str(one) for one in rows], split, where)
        if chosen is None:
            raise UsageError(f"no images in {where}: the data set has no splits")
        rows, folder = rows[chosen], folder / chosen
    else:
        chosen = None if split is None else choose_split([str(rows.split)] if rows.split else [], split, where)
    return RowSource(rows, shown(folder), chosen, asked, [folder])
