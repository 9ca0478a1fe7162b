"""Files that strangers made: what is opened, how much of it, and what is said of the rest."""

import io
import os
import socket
import struct
import subprocess
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from brdyn.data import cells, decode, files, find_source, load_images, parquet
from brdyn.data.fingerprint import fingerprint
from brdyn.data.folders import walk
from brdyn.errors import BrdynError, UsageError
from tests.data.tables import picture, pictures, write
from tests.data.test_image_set import MODEL, save, values


def skipped(images):
    return dict(images.report.skipped)


def png(width, height, depth=8, rows=b""):
    """A PNG of one byte after another that says it is so large."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "ICNS", "PCX", "SGI", "MSP", "XBM", "IM"])
def test_other_formats_are_not_opened_whatever_they_are_called(monkeypatch, kind):
    buffer = io.BytesIO()
    mode = "1" if kind in ("MSP", "XBM") else "RGB"
    Image.new(mode, (32, 32)).save(buffer, kind)

    def started(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    with pytest.raises(OSError, match="cannot identify it as an image"):
        decode.decode(buffer.getvalue())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pip install pillow-heif"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "JPEG XL"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
    ],
)
def test_what_no_decoder_is_here_for_is_counted_and_named(tmp_path, data, words):
    save(tmp_path / "a.png", 1)
    ending = "jxl" if "XL" in words else "heic"
    (tmp_path / f"b.{ending}").write_bytes(data)
    images = load_images(tmp_path, MODEL)
    assert values(images) == [1]
    assert words in skipped(images)[f"b.{ending}"]


def test_phones_pictures_with_a_second_one_inside():
    buffer = io.BytesIO()
    first = Image.new("RGB", (16, 16), (255, 0, 0))
    first.save(buffer, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16), (0, 0, 255))])
    assert decode.decode(buffer.getvalue()).getpixel((0, 0))[0] > 240


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((2**14, 2**14), "more than the 134 million that are decoded"),
        ((2**31 - 1, 2**31 - 1), "more than the 134 million"),
        ((8, 900), "8x900 pixels: one side is over 100 times the other"),
    ],
)
def test_pictures_too_large_or_too_thin_are_not_decoded(monkeypatch, size, words):
    from PIL import ImageFile

    def loaded(_):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", loaded)
    with pytest.raises(OSError, match=words):
        decode.decode(png(*size, depth=16))


def test_a_deep_picture_takes_little_more_than_itself():
    """Nine million pixels of 16 bits: as float64 they were 72 MB, and that four times."""
    side = 3000
    data = png(side, side, 16, zlib.compress(bytes(side * (2 * side + 1)), 1))
    tracemalloc.start()
    image = decode.decode(data)
    peak = tracemalloc.get_traced_memory()[1]  # NumPy's; Pillow's own is not counted
    tracemalloc.stop()
    assert image.size == (side, side)
    assert peak < 50 * 2**20


def test_deep_pictures_in_strips_are_as_at_once(monkeypatch):
    levels = np.random.default_rng(0).integers(-500, 500, (37, 11)).astype(np.float32)
    whole = np.asarray(decode.to_rgb(Image.fromarray(levels)))
    monkeypatch.setattr(decode, "STRIP_PIXELS", 30)
    assert np.array_equal(np.asarray(decode.to_rgb(Image.fromarray(levels))), whole)
    expected = ((levels.astype(float) - levels.min()) / float(levels.max() - levels.min()) * 255).round()
    assert np.array_equal(whole[..., 0], expected)


def test_only_regular_files_are_opened(tmp_path):
    save(tmp_path / "a.png", 1)
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "dangling.png").symlink_to("nowhere")
    (tmp_path / "itself.png").symlink_to("itself.png")
    (tmp_path / "link.png").symlink_to("a.png")
    place = os.getcwd()
    os.chdir(tmp_path)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.png")
    finally:
        os.chdir(place)
    images = load_images(tmp_path, MODEL)
    assert values(images) == [1, 1]
    found = skipped(images)
    assert found["fifo.png"] == "a FIFO (named pipe), not a regular file"
    assert found["device.png"] == "a device, not a regular file"
    assert found["socket.png"] == "a socket, not a regular file"
    assert "No such file" in found["dangling.png"]
    assert "symbolic links" in found["itself.png"]
    assert len(images.source.fingerprint()) == 64
    for name, words in (("fifo.png", "a FIFO"), ("device.png", "a device"), ("dangling.png", "No such file")):
        with pytest.raises(UsageError, match=words):
            load_images(tmp_path / name, MODEL)


def test_a_fifo_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "x.parquet")
    os.mkfifo(tmp_path / "y.tar")
    for name in ("x.parquet", "y.tar"):
        with pytest.raises(UsageError, match="a FIFO"):
            load_images(tmp_path / name, MODEL)
    (tmp_path / "y.tar").unlink()
    with pytest.raises(BrdynError, match=r"as parquet \(a FIFO"):
        load_images(tmp_path, MODEL)


def test_files_and_cells_have_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr(files.check_size, "__defaults__", (300,))
    monkeypatch.setattr(files.read_regular, "__defaults__", (0, None, 300))
    save(tmp_path / "one" / "a.png", 1)
    (tmp_path / "one" / "b.png").write_bytes(picture(2) + bytes(300))
    images = load_images(tmp_path / "one", MODEL)
    assert values(images) == [1]
    assert "MiB encoded are more than" in skipped(images)["b.png"]
    cells = [*pictures(1), {"bytes": picture(2) + bytes(300), "path": None}]
    images = load_images(write(tmp_path / "x.parquet", {"image": cells}), MODEL)
    assert values(images) == [0]
    assert "MiB encoded are more than" in skipped(images)["x.parquet row 1"]


@pytest.mark.parametrize("path", ["../secret.png", "/SECRET", "a/../../secret.png", "/proc/self/environ", "nul\0.png"])
def test_paths_in_tables_stay_in_their_folder(tmp_path, path):
    (tmp_path / "secret.png").write_bytes(picture(9))
    path = str(tmp_path / "secret.png") if path == "/SECRET" else path
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": picture(1), "path": None}, {"bytes": None, "path": path}], kind)
    images = load_images(write(tmp_path / "set" / "x.parquet", {"image": rows}), MODEL)
    assert values(images) == [1]
    assert "leads out of the folder of the data set" in next(iter(skipped(images).values()))


def test_a_path_below_an_allowed_folder():
    assert cells.inside("a/b.png", [Path("/x")]) == Path("/x/a/b.png")
    assert cells.inside("/y/b.png", [Path("/x"), Path("/y")]) == Path("/y/b.png")


def test_names_that_are_not_utf8_or_not_to_be_printed(tmp_path):
    odd = os.fsdecode(b"caf\xe9.png")
    save(tmp_path / odd, 1)
    (tmp_path / "two\nlines\x1b[2J.png").write_bytes(b"no")
    images = load_images(tmp_path, MODEL)
    assert values(images) == [1]
    assert images.source.name(0) == r"caf\xe9.png"
    assert list(skipped(images)) == [r"two\nlines\x1b[2J.png"]
    assert len(images.source.fingerprint()) == 64


def test_folders_that_cannot_be_looked_into_are_named(tmp_path, monkeypatch):
    save(tmp_path / "a" / "x.png", 1)
    save(tmp_path / "b" / "x.png", 2)
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    images = load_images(tmp_path, MODEL)
    assert values(images) == [1]
    assert skipped(images) == {"b": "the folder cannot be listed (Permission denied)"}
    with pytest.raises(BrdynError, match="cannot read 'b': the folder cannot be listed"):
        load_images(tmp_path, MODEL, strict=True)


def test_folders_that_may_not_be_entered_are_said(tmp_path, forbid):
    save(tmp_path / "set" / "a" / "x.png", 1)
    forbid(tmp_path / "set")
    for place in ("set", "set/a", "set/a/x.png", "set/a@train"):
        with pytest.raises(UsageError, match=r"may not look at '.*set.*' \(permission denied\)"):
            load_images(tmp_path / place, MODEL)


def test_files_come_part_by_part_and_links_in_a_circle_end(tmp_path):
    for name in ("a/z.png", "a-b/x.png", "a.png", ".hidden/x.png"):
        save(tmp_path / name, 1)
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert walk(tmp_path) == (["a/z.png", "a-b/x.png", "a.png"], [], [])


def named(root):
    return files.Names(root, walk(root)[0])


def test_a_copy_elsewhere_has_the_same_fingerprint(tmp_path):
    for name in ("a/x.png", "b/y.png"):
        for copy in ("one", "two"):
            (tmp_path / copy / name).parent.mkdir(parents=True)
            (tmp_path / copy / name).write_bytes(picture(1))
    os.utime(tmp_path / "two" / "a" / "x.png", (0, 0))
    (tmp_path / "two" / "c.png").symlink_to("nowhere")
    (tmp_path / "one" / "c.png").symlink_to("nowhere")
    first = fingerprint(named(tmp_path / "one"))
    assert first == fingerprint(named(tmp_path / "two"))
    assert first == load_images(tmp_path / "two", MODEL).source.fingerprint()
    (tmp_path / "two" / "b" / "y.png").write_bytes(picture(1)[:-1] + b"x")  # of the same size
    changed = fingerprint(named(tmp_path / "two"))
    assert changed != first
    (tmp_path / "two" / "b").rename(tmp_path / "two" / "d")
    assert fingerprint(named(tmp_path / "two")) not in (first, changed)


def test_of_much_the_fingerprint_reads_blocks(tmp_path, monkeypatch):
    from brdyn.data import fingerprint as module

    for name, most in (("READ_AT_MOST", 4096), ("BLOCK", 512), ("OPENED", 4)):
        monkeypatch.setattr(module, name, most)
    data = bytearray(np.random.default_rng(0).bytes(40_000))
    read = []
    monkeypatch.setattr(module, "read_regular", lambda *a, **k: read.append(len(d := files.read_regular(*a, **k))) or d)
    (tmp_path / "x.bin").write_bytes(data)
    first = fingerprint(named(tmp_path))
    assert sum(read) <= 4096
    data[-1] ^= 1  # the last block is always read
    (tmp_path / "x.bin").write_bytes(data)
    assert fingerprint(named(tmp_path)) != first


def test_a_single_file_is_the_same_under_another_name(tmp_path):
    write(tmp_path / "a.parquet", {"image": pictures(3)})
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes())
    one, other = (load_images(tmp_path / name, MODEL).source.fingerprint() for name in ("a.parquet", "b.parquet"))
    assert one == other


def test_images_in_two_sets_are_found_whatever_their_files_are_called(tmp_path):
    path = write(tmp_path / "set" / "test.parquet", {"image": pictures(6)})
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "other.parquet").write_bytes(path.read_bytes())
    write(tmp_path / "another.parquet", {"image": pictures(6, start=9)})
    first = load_images(path, MODEL).take(np.arange(4))
    for same in (path, path.parent, tmp_path / "copy", tmp_path / "copy" / "other.parquet"):
        assert first.shared_with(load_images(same, MODEL).take(np.arange(3, 6))) == 1
        assert first.shared_with(load_images(same, MODEL).take(np.arange(4, 6))) == 0
    assert first.shared_with(load_images(tmp_path / "another.parquet", MODEL)) == 0


def test_a_cell_that_every_row_repeats_is_not_held_once_for_each(tmp_path):
    """Parquet stores it once in a dictionary, so the file says nothing of what its rows take."""
    size = 40 * 2**20
    table = pa.table({"image": pa.array([b"x" * size] * 12, pa.binary())})
    pq.write_table(table, tmp_path / "x.parquet", compression="zstd")
    del table
    source = find_source(tmp_path / "x.parquet")
    before = pa.total_allocated_bytes()
    assert len(source.read(3).data) == size
    assert pa.total_allocated_bytes() - before < 4 * size


def with_a_damaged_page(folder):
    """96 rows of which the page with row 48 is overwritten."""
    path = write(
        folder / "x.parquet", {"image": [picture(value) for value in range(96)], "label": list(range(96))},
        compression="zstd", use_dictionary=False, data_page_size=1, write_batch_size=16,
    )  # fmt: skip
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    at = column.data_page_offset + int(0.55 * column.total_compressed_size)
    data[at : at + 60] = b"\xff" * 60
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("error", "said"), [(None, "[Dd]eserializ"), (pa.ArrowInvalid, r"damaged in its row group \(a page\)")]
)
def test_a_damaged_page_gives_no_rows_in_place_of_others(tmp_path, monkeypatch, error, said):
    path = with_a_damaged_page(tmp_path)
    if error is not None:  # what Arrow raises is not always an OSError
        iterated = parquet.ParquetSource._iterate

        def damaged(self, place):
            batches = iterated(self, place)
            yield from (next(batches) for _ in range(3))
            raise error("a page\nis damaged")

        monkeypatch.setattr(parquet.ParquetSource, "_iterate", damaged)
    source = find_source(path)
    for one in (source, source.at_random(range(96))):
        for row in range(48):
            assert (one.read(row).data, one.read(row).label) == (picture(row), row)
        with pytest.raises(OSError, match=said):
            one.read(48)
        for row in range(49, 96):
            with pytest.raises(OSError, match="the row group ends before this row"):
                one.read(row)
        assert one.read(3).label == 3  # earlier ones are still to be had


def test_lack_of_memory_is_no_damage_of_a_file(tmp_path, monkeypatch):
    def lacking(self, place):
        raise pa.ArrowMemoryError("malloc of size 64 failed")
        yield

    monkeypatch.setattr(parquet.ParquetSource, "_iterate", lacking)
    with pytest.raises(MemoryError):
        find_source(write(tmp_path / "x.parquet", {"image": pictures(3)})).read(0)
