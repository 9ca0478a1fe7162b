"""Which column, which split, which kind of file: chosen by a rule, said, or refused by name."""

import io
import json
import tarfile
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brdyn.data import image_set, load_images
from brdyn.data.splits import split_of
from brdyn.errors import BrdynError, UsageError
from brdyn.provenance import image_provenance
from tests.data.tables import picture, pictures, write
from tests.data.test_image_set import MODEL, save, values

IMAGE, CLASSES = {"_type": "Image"}, {"_type": "ClassLabel", "names": ["a", "b"]}


@pytest.mark.parametrize(
    ("names", "declared", "chosen"),
    [
        (["mask", "image"], [], "image"),
        (["depth_map", "img", "Segmentation"], [], "img"),
        (["photo_a", "image"], ["photo_a", "image"], "image"),
        (["blob", "photo"], [], "photo"),
        (["blob", "left"], ["left"], "left"),
        (["image_mask", "scan"], ["image_mask"], "scan"),
        (["image", "img"], [], "image"),
    ],
)
def test_the_column_of_images(tmp_path, names, declared, chosen):
    columns = {name: pictures(2, start=50 * place) for place, name in enumerate(names)}
    path = write(tmp_path / "x.parquet", columns, dict.fromkeys(declared, IMAGE))
    images = load_images(path, MODEL)
    assert values(images) == [50 * names.index(chosen), 50 * names.index(chosen) + 1]
    assert image_provenance(images)["image_column"] == chosen
    for place, name in enumerate(names):
        assert values(load_images(path, MODEL, image_column=name))[0] == 50 * place


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["left", "right"], "columns left, right of .* may hold the images; choose one by `image_column`"),
        (["jpg", "png"], "columns jpg, png of"),
        (["mask"], "columns mask of .* not those that are meant; choose one by `image_column`"),
    ],
)
def test_columns_that_leave_it_open(tmp_path, names, words):
    path = write(tmp_path / "x.parquet", {name: pictures(2) for name in names})
    with pytest.raises(UsageError, match=words):
        load_images(path, MODEL)


def test_columns_that_are_not_there(tmp_path):
    path = write(tmp_path / "x.parquet", {"image": pictures(2), "n": [1, 2], "label": [0, 1]})
    with pytest.raises(UsageError, match=r"has no column 'pic'; it has image, n, label"):
        load_images(path, MODEL, image_column="pic")
    with pytest.raises(UsageError, match=r"has no column 'kind'; it has image, n, label"):
        load_images(path, MODEL, label_column="kind")
    with pytest.raises(UsageError, match=r"column 'n' of .* holds int64, and not encoded images"):
        load_images(path, MODEL, image_column="n")
    other = load_images(path, MODEL, image_column="pic", label_column="kind", columns_where_there=True)
    assert other.source.chosen() == {"image_column": "image", "label_column": "label", "split": None}


@pytest.mark.parametrize(
    ("columns", "declared", "chosen"),
    [
        (["coarse_label", "fine_label"], ["coarse_label", "fine_label"], "fine_label"),
        (["label", "species"], ["species"], "species"),
        (["target", "label"], [], "label"),
        (["species"], [], None),
    ],
)
def test_the_column_of_labels(tmp_path, columns, declared, chosen):
    cells = {name: [0, 1] for name in columns}
    path = write(tmp_path / "x.parquet", {"image": pictures(2), **cells}, dict.fromkeys(declared, CLASSES))
    assert load_images(path, MODEL).source.label_column == chosen


def test_two_declared_label_columns_need_a_choice(tmp_path):
    cells = {"breed": [0, 1], "colour": [1, 0]}
    path = write(tmp_path / "x.parquet", {"image": pictures(2), **cells}, dict.fromkeys(cells, CLASSES))
    source = load_images(path, MODEL).source
    assert not source.labelled
    assert "columns breed, colour of" in source.no_labels
    assert load_images(path, MODEL, label_column="colour").source.read(0).label == 1


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"), ("data/test-00000-of-00001-abc123.parquet", "test"),
        ("train_clean-00001-of-00002.parquet", "train_clean"), ("val.parquet", "validation"),
        ("cifar_test_1.parquet", "test"), ("default/validation/0000.parquet", "validation"),
        ("latest.parquet", None), ("0001.parquet", None), ("train_test.parquet", None), ("DEV/x.tar", "validation"),
    ],
)  # fmt: skip
def test_splits_by_name(name, split):
    assert split_of(name) == split


def test_a_folder_of_shards_of_two_splits(tmp_path):
    write(tmp_path / "data" / "train-00000-of-00002.parquet", {"image": pictures(2, 10)})
    write(tmp_path / "data" / "train-00001-of-00002.parquet", {"image": pictures(2, 20)})
    assert values(load_images(tmp_path, MODEL)) == [10, 11, 20, 21]
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", {"image": pictures(1, 30)})
    with pytest.raises(UsageError, match="holds the splits train, validation; choose one by `split`"):
        load_images(tmp_path, MODEL)
    assert values(load_images(tmp_path, MODEL, split="train")) == [10, 11, 20, 21]
    for images in (load_images(f"{tmp_path}@val", MODEL), load_images(tmp_path, MODEL, split="validation")):
        assert values(images) == [30]
        assert image_provenance(images)["split"] == "validation"
    with pytest.raises(UsageError, match="has no split 'test'; it has train, validation"):
        load_images(tmp_path, MODEL, split="test")


def test_class_folders_in_split_folders(tmp_path):
    for split, value in (("train", 1), ("val", 2)):
        for name in ("cat", "dog"):
            save(tmp_path / split / name / "x.png", value)
    with pytest.raises(UsageError, match="holds the splits train, validation"):
        load_images(tmp_path, MODEL)
    images = load_images(tmp_path, MODEL, split="val")
    assert values(images) == [2, 2]
    assert images.label_names == ["cat", "dog"]
    save(tmp_path / "logo.png", 3)
    save(tmp_path / "extra" / "x.png", 4)
    with pytest.raises(UsageError, match="holds the splits train, validation and others"):
        load_images(tmp_path, MODEL)
    assert values(load_images(tmp_path, MODEL, split="val")) == [2, 2]


def test_a_class_called_train(tmp_path):
    save(tmp_path / "train" / "x.png", 1)
    save(tmp_path / "bus" / "x.png", 2)
    assert load_images(tmp_path, MODEL).label_names == ["bus", "train"]


def test_a_shard_of_a_split_beside_one_of_none(tmp_path):
    write(tmp_path / "data.parquet", {"image": pictures(1)})
    write(tmp_path / "test.parquet", {"image": pictures(1, 2)})
    with pytest.raises(UsageError, match="holds the splits test and others; choose one by `split`"):
        load_images(tmp_path, MODEL)
    assert values(load_images(tmp_path, MODEL, split="test")) == [2]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"image": pictures(1), "label": ["x"]}, r"b\.parquet' differs from .*a\.parquet' in column 'label'"),
        ({"image": pictures(1), "kind": [1]}, r"b\.parquet' differs .* in column 'kind'"),
        ({"image": [1], "label": [1]}, r"b\.parquet' differs .* in column 'image'"),
    ],
)
def test_shards_of_different_tables(tmp_path, second, words):
    write(tmp_path / "a.parquet", {"image": pictures(1), "label": [1]})
    write(tmp_path / "b.parquet", second)
    with pytest.raises(UsageError, match=words):
        load_images(tmp_path, MODEL)


def test_shards_of_different_classes(tmp_path):
    for name, classes in (("a", ["x", "y"]), ("b", ["y", "x"])):
        said = {"label": {"_type": "ClassLabel", "names": classes}}
        write(tmp_path / f"{name}.parquet", {"image": pictures(1), "label": [1]}, said)
    with pytest.raises(UsageError, match="in column 'label' or its classes"):
        load_images(tmp_path, MODEL)


def test_a_shard_of_nothing_but_nulls_is_no_other_table(tmp_path):
    write(tmp_path / "a.parquet", {"image": pictures(1), "label": pa.nulls(1)})
    write(tmp_path / "b.parquet", {"image": pictures(2), "label": ["z", "y"]})
    source = load_images(tmp_path, MODEL).source
    assert source.label_names == ["y", "z"]
    assert [source.read(row).label for row in range(3)] == [-1, 1, 0]


def test_kinds_of_files_are_not_mixed(tmp_path):
    save(tmp_path / "preview.png", 1)
    write(tmp_path / "notes.parquet", {"file": ["preview.png"], "label": [1]})
    assert values(load_images(tmp_path, MODEL)) == [1]
    write(tmp_path / "a.parquet", {"image": pictures(1)})
    with pytest.raises(UsageError, match="holds 1 images and 2 parquet files, and only one kind"):
        load_images(tmp_path, MODEL)


def test_what_is_there_but_of_another_kind_is_said(tmp_path):
    (tmp_path / "notes.zip").write_bytes(b"PK")
    (tmp_path / "sub").mkdir()
    for name in ("a.txt", "b.txt", "c.json"):
        (tmp_path / "sub" / name).write_text("x")
    with pytest.raises(UsageError, match=r"it is a zip archive; unpack it"):
        load_images(tmp_path / "notes.zip", MODEL)
    with pytest.raises(UsageError, match=r"it holds 2 \.txt, 1 \.json; searched"):
        load_images(tmp_path / "sub", MODEL)
    with pytest.raises(BrdynError, match="'some/where' is no file or folder here, and cannot be had as a hub data set"):
        load_images("some/where", MODEL)


def tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            if data is None:
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(member)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_webdataset_shards_in_any_order(tmp_path):
    for shard in range(2):
        members = []
        for place in range(3):
            value = 10 * shard + place
            members += [(f"s/{value:03}.jpg", picture(value)), (f"s/{value:03}.mask.png", picture(99))]
            members += [(f"s/{value:03}.cls", str(value % 2).encode())] if value != 11 else []
        tar(tmp_path / f"{shard}.tar", [*members, ("s/link.jpg", None), ("README", b"x")])
    images = load_images(tmp_path, MODEL)
    assert values(images) == [0, 1, 2, 10, 11, 12]
    assert [images.source.read(index).label for index in (5, 4, 0, 1)] == [0, -1, 0, 1]
    assert images.source.name(4) == "1.tar s/011"
    assert images.source.chosen() == {"image_column": "image", "label_column": "cls", "split": None}
    assert values(load_images(tmp_path, MODEL, image_column="mask")) == [99] * 6
    with pytest.raises(UsageError, match="has no column 'seg'; it has image, mask, cls"):
        load_images(tmp_path, MODEL, image_column="seg")


def test_webdataset_labels_in_json_and_as_names(tmp_path):
    members = [("a.png", picture(1)), ("a.json", json.dumps({"label": "owl", "n": 4}).encode())]
    members += [("b.png", picture(2)), ("b.json", b"[" * 10**5)]
    members += [("c.png", picture(3)), ("c.json", json.dumps({"label": "bat", "n": 5}).encode())]
    path = tar(tmp_path / "x.tar", members)
    source = load_images(path, MODEL).source
    assert source.label_names == ["bat", "owl"]
    assert [source.read(index).label for index in range(3)] == [1, -1, 0]
    assert [load_images(path, MODEL, label_column="n").source.read(index).label for index in (0, 2)] == [4, 5]


@pytest.mark.parametrize("absurd", [10**30, 2**53 + 1])
def test_an_absurd_number_in_a_tar_takes_only_its_own_label(absurd, tmp_path):
    labels = (1, absurd, 0)
    members = [(f"{place}.png", picture(place)) for place in range(3)]
    members += [(f"{place}.json", json.dumps({"label": label}).encode()) for place, label in enumerate(labels)]
    source = load_images(tar(tmp_path / "x.tar", members), MODEL).source
    assert [source.read(index).label for index in range(3)] == [1, -1, 0]


def test_tars_that_are_not_whole(tmp_path):
    path = tar(tmp_path / "x.tar", [(f"{place}.png", picture(place)) for place in range(4)])
    whole = path.read_bytes()
    for size in (100, 1200, 2048, 3 * 1024):
        path.write_bytes(whole[:size])
        with pytest.raises(BrdynError, match=r"cannot read .*x\.tar' as an uncompressed tar file"):
            load_images(path, MODEL)
    with tarfile.open(path, "w:gz"):
        pass
    with pytest.raises(BrdynError, match="is it compressed"):
        load_images(path, MODEL)
    tar(path, [("a.png", picture(1)), ("a.jpg", picture(2))])
    with pytest.raises(UsageError, match="holds two images of 'a'"):
        load_images(path, MODEL)


def test_splits_of_tars(tmp_path):
    tar(tmp_path / "set-train-000.tar", [("a.png", picture(1))])
    tar(tmp_path / "set-val-000.tar", [("a.png", picture(2))])
    with pytest.raises(UsageError, match="holds the splits train, validation"):
        load_images(tmp_path, MODEL)
    assert values(load_images(tmp_path, MODEL, split="val")) == [2]


def test_rows_without_number(tmp_path, monkeypatch):
    """Ten million rows of nothing: given up in time, and never listed."""
    rows = 10_000_000
    table = pa.table({"image": pa.nulls(rows, pa.binary())})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=rows)
    monkeypatch.setattr(image_set, "PATIENCE", 1000)
    tracemalloc.start()
    every = load_images(tmp_path / "x.parquet", MODEL)
    with pytest.raises(BrdynError, match=r"could not be read; the first, x\.parquet row 0: the row holds no image"):
        list(every.batches(512, workers=0))
    assert tracemalloc.get_traced_memory()[1] < 30 * 2**20  # a list of all takes 80
    tracemalloc.stop()
    monkeypatch.setattr(image_set, "MOST_IMAGES", rows - 1)
    with pytest.raises(UsageError, match="has 10000000 images; at most 9999999 are gone through: use fewer with `n`"):
        load_images(tmp_path / "x.parquet", MODEL)
    assert len(load_images(tmp_path / "x.parquet", MODEL, n=5)) == 5
