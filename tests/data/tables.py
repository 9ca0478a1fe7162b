"""Tables of little pictures, whose red value is their number."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(value, kind="PNG", size=(8, 8)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def pictures(count, start=0):
    return [{"bytes": picture(start + value), "path": None} for value in range(count)]


def write(path, columns, features=None, **options):
    """A parquet file, with what the hub's metadata declares."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features is not None:
        said = json.dumps({"info": {"features": features}}).encode()
        table = table.replace_schema_metadata({b"huggingface": said})
    pq.write_table(table, path, **options)
    return path
