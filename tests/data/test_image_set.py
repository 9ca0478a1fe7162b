"""Which images are chosen, in which order, with which labels; and what happens to bad files."""

import hashlib
import io
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from brdyn.data import Batch, find_source, load_images, loading, reader
from brdyn.data import parquet as parquet_module
from brdyn.data.image_set import SHARD, choose, share
from brdyn.data.samples import SampleSource
from brdyn.errors import BrdynError, UsageError
from brdyn.progress import telling
from brdyn.store import OutputFolder
from tests.conftest import needs_offline

MODEL = SimpleNamespace(transform=to_tensor, info=SimpleNamespace(patch=4))


def save(path, value, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 0)).save(path)
    return path


def values(images, **options):
    """Red value of every image, in the order they come."""
    batches = list(images.batches(4, workers=0, **options))
    return [round(float(image[0, 0, 0]) * 255) for batch in batches for image in batch.images]


@pytest.fixture
def folder(tmp_path):
    for value in range(10):
        save(tmp_path / "nested" / f"{value:02}.png", value)
    (tmp_path / "notes.txt").write_text("not an image")
    save(tmp_path / ".hidden" / "x.png", 200)
    return tmp_path


def test_folder_is_read_recursively_in_order(folder):
    images = load_images(folder, MODEL)
    assert values(images) == list(range(10))
    assert images.report.count == 10
    assert images.report.skipped == []


def result(folder, name="phases.json", **pictures):
    """A result with pictures of these values."""
    for title, value in pictures.items():
        save(folder / f"{title}.png", value)
    others = {f"{title}.png": (folder / f"{title}.png").read_bytes() for title in pictures}
    with OutputFolder(folder, overwrite=True) as out:
        out.save(name, {}, others={**others, "per_image.parquet": b""})


def test_figures_of_results_are_no_photographs(folder, capsys):
    """Wherever results lie, whole or set aside; what they do not name, and what somebody else says, is read."""
    result(folder / "runs" / "phases", steps=100)
    result(folder / "nested", "report.json", chart=101)
    (folder / "nested" / "splice.json").write_text('{"files": ["00.png", "01.png"]}')
    images = load_images(folder, MODEL)
    assert (values(images), images.report.skipped) == (list(range(10)), [])
    assert find_source(folder).label_names == ["nested"]
    save(folder / "runs" / "phases" / "mine.png", 50)
    (folder / "runs" / "phases" / "phases.json").rename(folder / "runs" / "phases" / ".phases.json.replaced")
    with (folder / "nested" / "train.json").open("wb") as annotations:
        annotations.truncate(2**40)
    with telling():
        images = load_images(folder, MODEL, strict=True)
    assert values(images) == [*range(10), 50]
    said = capsys.readouterr().err
    assert f"left out of {str(folder)!r}: 4 files of results of brdyn, as 'nested/chart.png'" in said


def test_a_folder_of_results_alone_holds_no_images(tmp_path):
    result(tmp_path / "phases", steps=100)
    with pytest.raises(UsageError, match=r"'phases/per_image.parquet' is of a result of brdyn, as all there is; give"):
        load_images(tmp_path, MODEL)


def test_workers_give_the_same(folder):
    images = load_images(folder, MODEL)
    background = [b.images for b in images.batches(3, workers=2)]
    digest = images.report.digest
    here = [b.images for b in images.batches(3, workers=0)]
    assert all(torch.equal(a, b) for a, b in zip(background, here, strict=True))
    assert digest == images.report.digest


def test_digest_is_the_sum_of_file_digests(folder):
    images = load_images(folder, MODEL)
    values(images)
    files = sorted((folder / "nested").iterdir())
    expected = sum(int.from_bytes(hashlib.sha256(f.read_bytes()).digest(), "big") for f in files) % 2**256
    assert images.report.digest == expected


def test_subset_is_reproducible_and_depends_on_the_seed(folder):
    first = values(load_images(folder, MODEL, n=5, seed=1))
    assert first == values(load_images(folder, MODEL, n=5, seed=1))
    assert first == sorted(first)
    assert len(set(first)) == 5
    others = {tuple(values(load_images(folder, MODEL, n=5, seed=seed))) for seed in range(6)}
    assert len(others) > 3
    assert len(load_images(folder, MODEL, n=99)) == 10
    np.testing.assert_array_equal(choose(4, None, 0), [0, 1, 2, 3])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_cover_the_set_once(world):
    count = 5 * SHARD + 3
    shares = [share(count, rank, world) for rank in range(world)]
    assert sorted(position for part in shares for position in part) == list(range(count))


def test_processes_see_every_image_once(tmp_path):
    for value in range(40):
        save(tmp_path / f"{value:02}.png", value)
    images = load_images(tmp_path, MODEL)
    seen = [values(images, rank=rank, world=2) for rank in range(2)]
    assert sorted(seen[0] + seen[1]) == list(range(40))


def test_both_parts_of_a_split_keep_the_order(folder):
    learning, held = load_images(folder, MODEL).split(4, seed=2)
    assert learning.chosen.tolist() == sorted(set(range(10)) - set(held.chosen.tolist()))
    assert held.chosen.tolist() == sorted(held.chosen.tolist())
    assert values(held) == held.chosen.tolist()
    assert {tuple(load_images(folder, MODEL).split(4, seed=seed)[1].chosen) for seed in range(6)} != {(0, 1, 2, 3)}


def test_some_are_at_least_one(folder):
    images = load_images(folder, MODEL)
    assert len(images.some(2, 0)) == 2
    with pytest.raises(UsageError, match=r"`most=0` is less than 1"):
        images.some(0, 0)


def test_a_batch_splits_in_order():
    images = torch.arange(5).view(5, 1, 1, 1).float()
    parts = list(Batch(images, torch.arange(10, 15), torch.arange(20, 25)).split(2))
    assert [part.images.flatten().tolist() for part in parts] == [[0, 1], [2, 3], [4]]
    assert [part.positions.tolist() for part in parts] == [[10, 11], [12, 13], [14]]
    assert [part.labels.tolist() for part in parts] == [[20, 21], [22, 23], [24]]
    without = Batch(images, torch.arange(5), None).split(3)
    assert [part.labels.tolist() for part in without] == [[-1, -1, -1], [-1, -1]]


def test_an_image_of_exactly_one_patch_is_read(tmp_path):
    save(tmp_path / "a.png", 1, size=(4, 4))
    save(tmp_path / "b.png", 2, size=(4, 3))
    images = load_images(tmp_path, SimpleNamespace(transform=to_tensor, info=SimpleNamespace(patch=4)))
    assert values(images) == [1]
    assert [skipped.name for skipped in images.report.skipped] == ["b.png"]


def test_labels_are_the_class_folders(tmp_path):
    for index, name in enumerate(["dog", "cat", "dog"]):
        save(tmp_path / name / f"{index}.png", index)
    images = load_images(tmp_path, MODEL)
    assert images.label_names == ["cat", "dog"]
    batch = next(images.batches(8, workers=0))
    assert batch.labels.tolist() == [0, 1, 1]
    save(tmp_path / "loose.png", 9)
    assert load_images(tmp_path, MODEL).label_names is None


def test_a_single_file(tmp_path):
    path = save(tmp_path / "one.png", 7)
    assert values(load_images(path, MODEL)) == [7]


def parquet(path, rows, metadata=None, column="img"):
    encoded = []
    for value in rows:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": f"{value}.png"})
    table = pa.table({column: encoded, "label": [value % 3 for value in rows]})
    if metadata:
        table = table.replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, path, row_group_size=4)


def test_parquet_rows_labels_and_row_groups(tmp_path):
    metadata = (
        b'{"info": {"features": {"img": {"_type": "Image"},'
        b' "label": {"_type": "ClassLabel", "names": ["a", "b", "c"]}}}}'
    )
    parquet(tmp_path / "x.parquet", range(10), metadata)
    images = load_images(tmp_path / "x.parquet", MODEL)
    assert values(images) == list(range(10))
    assert images.label_names == ["a", "b", "c"]
    assert torch.cat([b.labels for b in images.batches(4, workers=1)]).tolist() == [v % 3 for v in range(10)]


def test_a_folder_of_parquet_shards(tmp_path):
    parquet(tmp_path / "a.parquet", range(5), column="image")
    parquet(tmp_path / "b.parquet", range(5, 9), column="image")
    images = load_images(tmp_path, MODEL)
    assert values(images) == list(range(9))
    assert images.label_names is None


def test_parquet_that_is_not_one_or_has_no_images(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 half")
    with pytest.raises(BrdynError, match=r"cannot read .* as parquet"):
        load_images(tmp_path / "bad.parquet", MODEL)
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "text.parquet")
    with pytest.raises(BrdynError, match="no column of encoded images among text"):
        load_images(tmp_path / "text.parquet", MODEL)


def test_one_large_row_group_is_read_a_few_rows_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_module, "ROWS_AT_ONCE", 2)
    table_rows = [{"bytes": (save(tmp_path / f"{v}.png", v)).read_bytes(), "path": None} for v in range(9)]
    pq.write_table(pa.table({"image": table_rows}), tmp_path / "x.parquet", row_group_size=100)
    source = parquet_module.ParquetSource(tmp_path / "x.parquet", [""])
    for index in (0, 1, 5, 8, 3, 4):  # also back again
        assert source.read(index).data == table_rows[index]["bytes"]
        assert len(source._open.rows) <= 2


def test_paths_in_parquet_are_beside_their_shard(tmp_path):
    (tmp_path / "shards").mkdir()
    save(tmp_path / "shards" / "one.png", 9)
    rows = pa.array([{"bytes": None, "path": "one.png"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": rows}), tmp_path / "shards" / "a.parquet")
    (tmp_path / "shards" / "one.png").rename(tmp_path / "shards" / "one.dat")
    source = parquet_module.ParquetSource(tmp_path / "shards", ["a.parquet"])
    with pytest.raises(OSError, match=r"shards/one\.png"):
        source.read(0)
    (tmp_path / "shards" / "one.dat").rename(tmp_path / "shards" / "one.png")
    assert source.read(0).data == (tmp_path / "shards" / "one.png").read_bytes()


def test_batches_held_ready_fit_in_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "free_files", lambda: 1000)
    monkeypatch.setattr(loading, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**31))
    assert loading.background(4, 10 * 2**20) == (4, 2)
    assert loading.background(8, 200 * 2**20) == (5, 1)
    assert loading.background(4, 2**31) == (0, None)
    monkeypatch.setattr(loading, "free_files", lambda: 60)  # 28 beside those that everything else needs
    assert loading.background(8, 2**20) == (3, 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert loading.background(8, 2**20) == (0, None)


def test_a_dead_loader_process_is_one_line(folder, monkeypatch):
    def die(*_):
        os._exit(9)

    monkeypatch.setattr(reader, "decode", die)
    with pytest.raises(BrdynError, match="`workers=0`"):
        list(load_images(folder, MODEL).batches(4, workers=1))


def test_imagenet_samples(imagenet_samples):
    images = load_images(imagenet_samples, MODEL, n=3, seed=0)
    batch = next(load_images(imagenet_samples, SimpleNamespace(transform=to_tensor), n=1).batches(1, workers=0))
    assert min(batch.images.shape[-2:]) == 256
    assert len(images) == 3
    assert len(images.label_names) == 1000


def test_hub_data_sets(monkeypatch, tmp_path):
    import datasets

    rows = datasets.Dataset.from_dict(
        {"image": [str(save(tmp_path / f"{v}.png", v)) for v in (3, 5)], "label": [1, 0]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["n", "y"])}),
    )
    asked = []

    def load_dataset(name, configuration, split):
        asked.append((name, configuration, split))
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)  # where rows may point to files
    images = load_images("owner/pictures", MODEL, split="validation")
    load_images("owner/pictures:small", MODEL)
    load_images("owner/pictures@test", MODEL)
    assert asked == [
        ("owner/pictures", None, "validation"), ("owner/pictures", "small", "train"), ("owner/pictures", None, "test")
    ]  # fmt: skip
    with pytest.raises(UsageError, match="names a split already"):
        load_images("owner/pictures@test", MODEL, split="train")
    assert values(images) == [3, 5]
    assert images.label_names == ["n", "y"]
    assert next(images.batches(2, workers=0)).labels.tolist() == [1, 0]


@pytest.fixture
def spoiled(folder):
    whole = (folder / "nested" / "03.png").read_bytes()
    (folder / "nested" / "03.png").write_bytes(whole[:40])
    (folder / "nested" / "05.png").write_bytes(b"")
    save(folder / "nested" / "07.png", 7, size=(3, 9))
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_files_are_skipped_counted_and_named(spoiled, workers):
    images = load_images(spoiled, MODEL)
    batches = list(images.batches(4, workers=workers))
    assert [position for batch in batches for position in batch.positions.tolist()] == [0, 1, 2, 4, 6, 8, 9]
    assert images.report.count == 7
    assert [skipped.name for skipped in images.report.skipped] == [f"nested/0{n}.png" for n in (3, 5, 7)]
    assert "3x9 pixels are smaller than one 4-pixel patch" in images.report.skipped[2].reason


def test_strict_makes_it_an_error(spoiled):
    with pytest.raises(BrdynError, match=r"cannot read 'nested/03\.png'.*`strict`"):
        list(load_images(spoiled, MODEL, strict=True).batches(4, workers=1))


def test_no_readable_image_is_an_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no")
    with pytest.raises(BrdynError, match=r"none of the 1 images .* could be read; the first, a\.jpg"):
        list(load_images(tmp_path, MODEL).batches(4, workers=0))


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ("/nowhere/at/all", {}, "no such file or folder"),
        ("missing.jpg", {}, "no such file or folder"),
        ("nowhere", {}, "no file or folder here, and no hub data set"),
        ("nowhere/", {}, "no images at 'nowhere/': no such file or folder"),
        ("samples", {"split": "test"}, "has no splits"),
        ("samples", {"label_column": "x"}, "has no columns"),
        ("FOLDER", {"image_column": "x"}, "has no columns"),
        ("EMPTY", {}, "no images in"),
        ("FOLDER", {"split": "train"}, "has no splits"),
        ("FOLDER", {"n": 0}, "at least one image"),
    ],
)
def test_wrong_requests(folder, tmp_path_factory, images, options, message):
    places = {"EMPTY": tmp_path_factory.mktemp("empty"), "FOLDER": folder}
    with pytest.raises(UsageError, match=message):
        load_images(places.get(images, images), MODEL, **options)


def test_links_in_a_circle_end(folder):
    (folder / "nested" / "up").symlink_to(folder, target_is_directory=True)
    assert values(load_images(folder, MODEL)) == list(range(10))


@needs_offline
def test_packaged_samples_are_distinct_photographs():
    source = SampleSource()
    assert len(source) >= 64
    digests = {hashlib.sha256(source.read(index).data).hexdigest() for index in range(len(source))}
    assert len(digests) == len(source)
    assert source.read(3).data == SampleSource().read(3).data
    assert source.name(4).endswith("centre")
    assert all(source.image(index).width >= 180 for index in range(0, len(source), 5))
