"""Images in parquet files: read in order a few rows at a time, or kept in memory, encoded, for reading in any order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from brdyn.checked_json import check, parse
from brdyn.data.sources import ImageSource, LoadedSource, RawImage
from brdyn.errors import BrdynError, UsageError

LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")
IMAGE_COLUMNS = ("image", "img", "images", "jpg", "png", "picture")
ROWS_AT_ONCE = 64
CLASSES = {"names?": ([str], None)}  # of a column of labels


class _OpenGroup:
    """A row group being read from front to back."""

    def __init__(self, place: int, batches: Iterator[Any]) -> None:
        self.place = place
        self.batches = batches
        self.rows: Any = ()
        self.start = 0

    def seek(self, row: int) -> tuple[Any, int]:
        """The rows that hold `row`, and where among them it is."""
        while row >= self.start + len(self.rows):
            self.start += len(self.rows)
            self.rows = next(self.batches)
        return self.rows, row - self.start


class ParquetSource(ImageSource):
    """Rows of parquet files in the layout of hub data sets: bytes, or a struct of bytes and path."""

    def __init__(self, root: Path, paths: list[Path]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.paths = paths
        self.root = root
        self.description = str(root)
        self._ends: list[int] = []
        self._groups: list[tuple[int, int]] = []
        total = 0
        for number, path in enumerate(paths):
            try:
                file = pq.ParquetFile(path)
            except (pa.ArrowInvalid, OSError) as error:
                raise BrdynError(
                    f"cannot read {str(path)!r} as parquet ({error}); is the copy complete?"
                ) from error
            for group in range(file.num_row_groups):
                total += file.metadata.row_group(group).num_rows
                self._ends.append(total)
                self._groups.append((number, group))
            if number == 0:
                self._image, self._label, self.label_names = _columns(file.schema_arrow, path)
        self._open: _OpenGroup | None = None

    @property
    def labelled(self) -> bool:
        """Whether there is a column of labels."""
        return self._label is not None

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, index: int) -> RawImage:
        """Read one row; rows are read in order, a few at a time."""
        place = bisect_right(self._ends, index)
        rows, row = self._rows(place, index - (self._ends[place - 1] if place else 0))
        cell = rows[self._image][row].as_py()
        label = rows[self._label][row].as_py() if self._label is not None else None
        data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
        if data is None and path:
            data = (self.paths[self._groups[place][0]].parent / path).read_bytes()
        if data is None:
            raise OSError("the row holds no image")
        return RawImage(f"{self.name(index)} {path}" if path else self.name(index), data, label)

    def at_random(self, chosen: np.ndarray) -> ImageSource:
        """The chosen rows in memory: a row group can only be read from its start.

        Raises
        ------
        UsageError
            If they would take more than a third of the free memory.
        """
        import psutil
        import pyarrow.parquet as pq

        stored = sum(
            file.metadata.row_group(group).total_byte_size
            for file in map(pq.ParquetFile, self.paths)
            for group in range(file.num_row_groups)
        )
        needed = stored * len(chosen) // max(len(self), 1)
        if needed > psutil.virtual_memory().available // 3:
            raise UsageError(
                f"{len(chosen)} shuffled images of {self.description!r} would take {needed / 2**30:.1f} GiB of memory; "
                "use fewer with --n, or a folder of images"
            )
        images: dict[int, RawImage | str] = {}
        for index in sorted(int(index) for index in chosen):
            try:
                images[index] = self.read(index)
            except OSError as error:
                images[index] = str(error)
        return LoadedSource(self, images)

    def name(self, index: int) -> str:
        """File and row."""
        return f"{self.root.name} row {index}"

    def _rows(self, place: int, row: int) -> tuple[Any, int]:
        """The rows around `row` of a row group, and where among them it is.

        A row group can hold a whole data set, so it is never read at once; going back starts it again.
        """
        if self._open is None or self._open.place != place or row < self._open.start:
            self._open = _OpenGroup(place, self._iterate(place))
        return self._open.seek(row)

    def _iterate(self, place: int) -> Iterator[Any]:
        import pyarrow.parquet as pq

        number, group = self._groups[place]
        columns = [self._image] + ([self._label] if self._label is not None else [])
        # Threads of Arrow's own do not survive the fork of a loader process.
        file = pq.ParquetFile(self.paths[number], pre_buffer=False)
        return file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=columns, use_threads=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}


def _features(schema: Any, path: Path) -> dict[str, dict[str, Any]]:
    """What a hub data set says of its columns, those of a type of its own."""
    try:
        metadata = parse((schema.metadata or {}).get(b"huggingface", b"{}"))
        check(metadata, {"info?": {"features?": {str: object}}})
        every = metadata.get("info", {}).get("features", {})
        typed = {
            name: feature
            for name, feature in every.items()
            if isinstance(feature, dict) and "_type" in feature
        }
        check({name: one for name, one in typed.items() if one["_type"] == "ClassLabel"}, {str: CLASSES})
    except ValueError as error:
        raise BrdynError(f"{str(path)!r} describes its columns wrongly ({error})") from error
    return typed


def _columns(schema: Any, path: Path) -> tuple[str, str | None, list[str] | None]:
    import pyarrow as pa

    features = _features(schema, path)

    def holds_bytes(column: str) -> bool:
        kind = schema.field(column).type
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    declared = [name for name, feature in features.items() if feature.get("_type") == "Image"]
    likely = sorted(filter(holds_bytes, schema.names), key=lambda name: name not in IMAGE_COLUMNS)
    images = [*declared, *likely]
    if not images:
        raise BrdynError(f"{str(path)!r} has no column of encoded images among {', '.join(schema.names)}")
    classes = {
        name: feature["names"]
        for name, feature in features.items()
        if feature.get("_type") == "ClassLabel" and feature.get("names")
    }
    integer = [
        name
        for name in LABEL_COLUMNS
        if name in schema.names and pa.types.is_integer(schema.field(name).type)
    ]
    label = next(iter(classes), None) or next(iter(integer), None)
    return images[0], label, classes.get(label) if label else None
