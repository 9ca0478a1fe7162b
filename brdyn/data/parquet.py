"""Images in parquet files: read in order a few rows at a time, or kept in memory, encoded, for reading in any order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from brdyn.checked_json import parse
from brdyn.data.cells import TableSource
from brdyn.data.columns import NOTHING, Asked, Column, arrow_column, said_of_itself
from brdyn.data.files import Names, check_regular, shown
from brdyn.data.sources import ImageSource, LoadedSource, RawImage
from brdyn.data.splits import in_split
from brdyn.errors import BrdynError, UsageError
from brdyn.words import first_line

ENDINGS = (".parquet", ".pq")
ROWS_AT_ONCE = 16
BYTES_AT_ONCE = 2**26
LABELS_AT_ONCE = 2**16


class _OpenGroup:
    """A row group being read from front to back."""

    def __init__(self, place: int, batches: Iterator[Any]) -> None:
        self.place = place
        self.batches = batches
        self.rows: Any = ()
        self.start = 0

    def seek(self, row: int) -> tuple[Any, int]:
        """The rows that hold `row`, and where among them it is.

        Raises
        ------
        OSError
            If they cannot be read. Those after them cannot be read then, either.
        """
        import pyarrow as pa

        while row >= self.start + len(self.rows):
            try:
                rows = next(self.batches, None)
            except MemoryError:
                raise
            except pa.ArrowException as error:
                raise OSError(f"damaged in its row group ({first_line(error)})") from error
            if rows is None:
                raise OSError("the row group ends before this row; is the copy complete?")
            self.start, self.rows = self.start + len(self.rows), rows
        return self.rows, row - self.start


class ParquetSource(TableSource):
    """Rows of parquet files in the layout of hub data sets: bytes, or a struct of bytes and path.

    Parameters
    ----------
    root : Path
        The folder, or the one file.
    names : list of str
        Files below it.
    split : str, optional
        Where files name several.
    asked : Asked, optional
        Columns.

    Raises
    ------
    UsageError
        If columns or a split are not to be had as asked, or files are of different tables.
    BrdynError
        If a file is no parquet.
    """

    files: Names

    def __init__(self, root: Path, names: list[str], split: str | None = None, asked: Asked | None = None) -> None:
        self.description = shown(root)
        asked, where = asked or Asked(), repr(self.description)
        self.split, names = in_split(names, split, where)
        self.files = Names(root, names)
        self._ends: list[int] = []
        self._groups: list[tuple[int, int]] = []
        tables: list[list[Column]] = []
        self.metadata = {}
        for number, path in enumerate(self.files):
            file = open_parquet(path)
            total = self._ends[-1] if self._ends else 0
            for group in range(file.num_row_groups):
                total += file.metadata.row_group(group).num_rows
                self._ends.append(total)
                self._groups.append((number, group))
            tables.append(_columns(file.schema_arrow))
            if not number:
                self.metadata = said_of_itself(file.schema_arrow)
        self.choose(_common(tables, self.files), asked, where, self._arrays)
        self._open: _OpenGroup | None = None

    def _arrays(self, column: str) -> Iterator[Any]:
        for path in self.files:
            for batch in open_parquet(path).iter_batches(LABELS_AT_ONCE, columns=[column], use_threads=False):
                yield batch[column]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, index: int) -> RawImage:
        """Read one row; rows are read in order, a few at a time.

        Raises
        ------
        OSError
            If the row, or one before it in its row group, is damaged.
        """
        place = bisect_right(self._ends, index)
        rows, row = self._rows(place, index - (self._ends[place - 1] if place else 0))
        folder = self.files[self._groups[place][0]].parent
        return self.raw(index, lambda column: rows[column][row], [folder])

    def at_random(self, chosen: np.ndarray | range) -> ImageSource:
        """The chosen rows in memory: a row group can only be read from its start.

        Raises
        ------
        UsageError
            If they would take more than a third of the free memory.
        """
        import psutil

        room = psutil.virtual_memory().available // 3
        stored = sum(
            file.metadata.row_group(group).total_byte_size
            for file in map(open_parquet, self.files)
            for group in range(file.num_row_groups)
        )
        needed = stored * len(chosen) // max(len(self), 1)
        images: dict[int, RawImage | str] = {}
        taken = 0
        for index in sorted(map(int, chosen)) if needed <= room else ():
            try:
                image = images[index] = self.read(index)
                taken += len(image.data) + len(image.target or b"")
            except OSError as error:
                images[index] = str(error)
            if taken > room:  # repeated values are stored once
                break
        if max(needed, taken) > room:
            raise UsageError(
                f"{len(chosen)} shuffled images of {self.description!r} would take more than "
                f"{room / 2**30:.1f} GiB of memory; use fewer with `n`, or a folder of images"
            )
        return LoadedSource(self, images)

    def name(self, index: int) -> str:
        """File and row."""
        return f"{shown(self.files.root.name)} row {index}"

    def _rows(self, place: int, row: int) -> tuple[Any, int]:
        """The rows around `row` of a row group, and where among them it is.

        A row group can hold a whole data set, so it is never read at once; going back starts it again.
        """
        if self._open is None or self._open.place != place or row < self._open.start:
            self._open = _OpenGroup(place, self._iterate(place))
        return self._open.seek(row)

    def _iterate(self, place: int) -> Iterator[Any]:
        number, group = self._groups[place]
        # Threads of Arrow's own do not survive the fork of a loader process.
        file = open_parquet(self.files[number], pre_buffer=False)
        about = file.metadata.row_group(group)
        # One cell can have all of these bytes and, stored once in a dictionary, be every row.
        rows = BYTES_AT_ONCE // max(about.total_byte_size, 1)
        return file.iter_batches(
            max(1, min(ROWS_AT_ONCE, rows)),
            row_groups=[group],
            columns=self.columns_read(),
            use_threads=False,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}


def open_parquet(path: Path, **options: Any) -> Any:
    """A parquet file.

    Raises
    ------
    BrdynError
        If it is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check_regular(path)
        return pq.ParquetFile(path, **options)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BrdynError(
            f"cannot read {shown(path)!r} as parquet ({shown(first_line(error))}); is the copy complete?"
        ) from error


def _columns(schema: Any) -> list[Column]:
    """Of a file, with what its metadata declares, if that is well formed."""
    said: Any = None
    with suppress(ValueError, KeyError, TypeError):  # not as the hub writes it: columns go by names
        said = parse((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    features = said if isinstance(said, dict) else {}
    return [arrow_column(field.name, field.type, features.get(field.name)) for field in schema]


def _common(tables: list[list[Column]], files: Names) -> list[Column]:
    """The columns that all files have.

    Raises
    ------
    UsageError
        If they differ, in columns, what these hold, or classes.
    """
    found = {column.name: column for column in tables[0]}
    for path, columns in zip(files, tables, strict=True):
        differing = sorted({column.name for column in columns} ^ set(found))
        for column in columns:
            known = found.get(column.name, column)
            if known.holds == NOTHING and not known.pictures:  # all null there
                found[column.name] = column
            elif column.holds != NOTHING and _kind(known) != _kind(column):
                differing.append(column.name)
        if differing:
            raise UsageError(
                f"{shown(path)!r} differs from {shown(files[0])!r} in column {differing[0]!r} or its classes; files of "
                "one data set have the same columns: give one of them, or a folder without it"
            )
    return list(found.values())


def _kind(column: Column) -> tuple[Any, ...]:
    return column.holds, column.pictures, column.declared, column.classes
