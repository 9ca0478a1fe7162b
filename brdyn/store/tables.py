"""Tables beside a JSON file and in it."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brdyn.compared import brief
from brdyn.errors import UsageError
from brdyn.store.json_files import reading
from brdyn.words import first_line

if TYPE_CHECKING:
    import pandas as pd

# The shape of a mean over images in a JSON.
ROW = dict.fromkeys(("mean", "low", "high", "sd", "n_images"), (float, None))


def records(table: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """The rows of a table for JSON, which has no word for a missing number but null."""
    return table.astype(object).where(table.notna(), None).to_dict(orient="records")


def from_records(rows: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> pd.DataFrame:
    """Back from :func:`records`, with NaN where a mean or what belongs to it is null, also where all are."""
    import pandas as pd

    return _with_numbers(pd.DataFrame(rows, columns=list(columns)))


def _with_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """With means and their intervals as numbers, also where all are missing."""
    return table.astype({name: float for name in ("mean", "low", "high", "sd") if name in table})


def rows_of(table: pd.DataFrame, known: Mapping[str, Collection[Any]] | None = None, /, **asked: Any) -> pd.DataFrame:
    """The rows of a tidy table that have these values in these columns; none where a value is one that is known for its
    column and was not measured.

    Raises
    ------
    UsageError
        If there is no such value: it says which there are.

    Examples
    --------
    >>> import pandas as pd
    >>> from brdyn.store import rows_of
    >>> table = pd.DataFrame({"measure": ["r2", "r2", "skill"], "mean": [0.1, 0.2, 0.3]})
    >>> known = {"measure": ["agreement"]}
    >>> rows_of(table, measure="r2")["mean"].tolist(), len(rows_of(table, known, measure="agreement"))
    ([0.1, 0.2], 0)
    >>> rows_of(table, measure="R2")
    Traceback (most recent call last):
    ...
    brdyn.errors.UsageError: there is no measure 'R2'; choose one of 'r2', 'skill'
    """
    rows, of = table, ""
    for column, value in asked.items():
        there = list(dict.fromkeys(rows[column]))
        if value not in there and value not in (known or {}).get(column, ()):
            remedy = f"choose one of {', '.join(map(brief, there))}" if there else "the table is empty"
            raise UsageError(f"there is no {column} {brief(value)}{of}; {remedy}")
        rows, of = rows[rows[column] == value], f" of {column} {brief(value)}"
        if rows.empty:
            break
    return rows


def listed(values: Iterable[float]) -> list[float | None]:
    """Numbers for JSON, null where there is none."""
    return [None if np.isnan(value) else float(value) for value in values]


def read_table(path: str | Path, what: str, columns: Sequence[str]) -> pd.DataFrame:
    """Read a parquet file that brdyn wrote beside a JSON.

    Raises
    ------
    UsageError
        If it is not there, no parquet, lacks one of the columns, or a mean is no number.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        if not Path(path).is_file():  # opening a pipe waits for ever
            raise OSError("no such file")
        table = pd.read_parquet(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException) as error:
        raise UsageError(f"cannot read {str(path)!r} as {what} ({first_line(error)})") from error
    lacking = [name for name in columns if name not in table]
    if lacking:
        raise UsageError(f"{str(path)!r} is not {what} (it has no column {lacking[0]!r})")
    with reading(path, what):
        return _with_numbers(table)
