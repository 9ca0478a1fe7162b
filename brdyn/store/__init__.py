"""What lies on disk: whole files or none, JSON, tables, and the folder of a run. Needs no torch."""

from brdyn.store.files import (
    lock,
    replace_together,
    reserve,
    sync,
    unwritable,
    write_atomically,
    write_through,
)
from brdyn.store.folder import FORMATS, OutputFolder, check_empty, check_formats
from brdyn.store.json_files import read_json, reading, to_json
from brdyn.store.tables import ROW, from_records, listed, read_table, records, rows_of

__all__ = [
    "FORMATS",
    "ROW",
    "OutputFolder",
    "check_empty",
    "check_formats",
    "from_records",
    "listed",
    "lock",
    "read_json",
    "read_table",
    "reading",
    "records",
    "replace_together",
    "reserve",
    "rows_of",
    "sync",
    "to_json",
    "unwritable",
    "write_atomically",
    "write_through",
]
