"""One rule of what a label is, whatever the source, the batches and the processes."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from brdyn.classifiers.pixels import load_pixels
from brdyn.data import NO_LABEL, Batch, load_images
from brdyn.data.labels import Labels, Unlabelled
from brdyn.errors import BrdynError, UsageError
from brdyn.measures.dynamics import token_dynamics
from brdyn.probes import extract_features
from brdyn.trajectory import Stream
from tests.conftest import tiny_vit
from tests.data.tables import pictures, write
from tests.data.test_image_set import MODEL


def labels_of(path, **options):
    images = load_images(path, MODEL, **options)
    return images, torch.cat([batch.labels for batch in images.batches(3, workers=0)]).tolist()


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        (0, 0), (2, 2), (3, NO_LABEL), (-1, NO_LABEL), (None, NO_LABEL), (1.0, 1), (1.5, NO_LABEL),
        (math.nan, NO_LABEL), (math.inf, NO_LABEL), (2**80, NO_LABEL), ("b", 1), ("d", NO_LABEL), ("", NO_LABEL),
        ([1], NO_LABEL), ({"a": 1}, NO_LABEL), (b"a", NO_LABEL),
    ],
)  # fmt: skip
def test_cells_of_three_named_classes(cell, label):
    found, why = Labels.named(["a", "b", "c"]).read(cell)
    assert found == label
    assert bool(why) == (label == NO_LABEL)


def test_numbers_without_names():
    read = Labels().read
    assert [read(cell)[0] for cell in (0, 999_999, 1_000_000, -1, "1")] == [0, 999_999, *[NO_LABEL] * 3]


@pytest.mark.parametrize(
    ("cells", "names", "expected"),
    [
        (["dog", None, "cat", "dog", ""], ["cat", "dog"], [1, -1, 0, 1, -1]),
        ([3, None, 0, -1, 7], None, [3, -1, 0, -1, 7]),
        ([3.0, None, 0.0, math.nan, 7.0], None, [3, -1, 0, -1, 7]),
        ([True, None, False, True, True], ["False", "True"], [1, -1, 0, 1, 1]),
        (pa.array(["b", "a", None, "b", "a"]).dictionary_encode(), ["a", "b"], [1, 0, -1, 1, 0]),
        (pa.nulls(5), None, [-1] * 5),
        ([3, 2**53 + 1, 0, -1, 7], None, [3, -1, 0, -1, 7]),
        (pa.array([3, 2**64 - 1, 0, None, 7], pa.uint64()), None, [3, -1, 0, -1, 7]),
        (pa.array([3, 2**60, 0, None, 7]).dictionary_encode(), None, [3, -1, 0, -1, 7]),
        (pa.array([2**64 - 1] * 5, pa.uint64()), None, [-1] * 5),
    ],
)
def test_columns_of_every_kind(tmp_path, cells, names, expected):
    path = write(tmp_path / "x.parquet", {"image": pictures(5), "label": cells})
    images, found = labels_of(path)
    assert found == expected
    assert images.label_names == names
    assert images.report.unlabelled.count == expected.count(-1)
    assert [position for position, *_ in images.report.unlabelled.first] == [
        place for place, label in enumerate(expected) if label == -1
    ]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([[1], [2], [1, 2], [], None], "holds list<"),
        ([{"a": 1}] * 5, "holds struct<"),
        ([0.5, 1, 2, 3, 4], "holds fractions, such as 0.5"),
    ],
)
def test_columns_that_hold_no_labels(tmp_path, cells, words):
    path = write(tmp_path / "x.parquet", {"image": pictures(5), "label": cells})
    images = load_images(path, MODEL)
    assert not images.source.labelled
    assert words in images.source.no_labels
    with pytest.raises(UsageError, match=words):
        load_images(path, MODEL, label_column="label")
    with pytest.raises(UsageError, match=words):
        load_pixels(path, 8, workers=0)


def test_declared_names_that_do_not_match_the_data(tmp_path):
    declared = {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    path = write(tmp_path / "x.parquet", {"image": pictures(4), "label": [0, 5, 1, 2]}, declared)
    images, found = labels_of(path)
    assert found == [0, NO_LABEL, 1, NO_LABEL]
    assert images.report.unlabelled.to_dict() == {
        "count": 2,
        "first": [
            {"name": f"x.parquet row {row}", "reason": f"{label} is not one of the classes"}
            for row, label in ((1, 5), (3, 2))
        ],
    }
    path = write(tmp_path / "text.parquet", {"image": pictures(3), "label": ["b", "c", "a"]}, declared)
    assert labels_of(path)[1] == [1, NO_LABEL, 0]


@pytest.mark.parametrize("metadata", [b"[" * 10**5, b'{"info": 3}', b"\xff", b'{"info": {"features": [1]}}'])
def test_metadata_that_is_not_as_the_hub_writes_it(tmp_path, metadata):
    table = pa.table({"image": pictures(2), "label": [1, 0]}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, tmp_path / "x.parquet")
    images, found = labels_of(tmp_path / "x.parquet")
    assert found == [1, 0]
    assert images.label_names is None


def test_images_and_labels_cannot_come_apart():
    with pytest.raises(ValueError, match="do not go together"):
        Batch(torch.zeros(3, 3, 4, 4), torch.arange(3), torch.arange(2))
    with pytest.raises(ValueError, match="3 images and 2 targets do not go together"):
        Batch(torch.zeros(3, 3, 4, 4), torch.arange(3), targets=torch.zeros(2, 4, 4))
    batch = Batch(torch.arange(4.0)[:, None], torch.arange(4), torch.tensor([5, NO_LABEL, NO_LABEL, 7]))
    kept = batch.labelled()
    assert (kept.images.flatten().tolist(), kept.positions.tolist(), kept.labels.tolist()) == (
        [0, 3],
        [0, 3],
        [5, 7],
    )
    assert Batch(torch.zeros(2, 1), torch.arange(2)).labels.tolist() == [NO_LABEL] * 2


def test_those_named_do_not_depend_on_the_order():
    one, other = (Unlabelled(2, [(place, "x", "null") for place in places]) for places in ((5, 1), (3, 0)))
    one.add(other)
    assert (one.count, [place for place, *_ in one.first]) == (4, [0, 1, 3, 5])


@pytest.fixture
def gaps(tmp_path, noise_folder):
    """Forty pictures in four classes, every seventh without a label; and only the others."""
    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted(noise_folder.iterdir())]
    labels = [None if row % 7 == 3 else row % 4 for row in range(40)]
    kept = [row for row in range(40) if labels[row] is not None]
    path = write(tmp_path / "gaps.parquet", {"image": cells, "label": labels})
    return path, kept, [labels[row] for row in kept]


def test_training_pixels_keep_their_labels(gaps, tmp_path, monkeypatch):
    path, kept, labels = gaps
    monkeypatch.setattr("brdyn.classifiers.pixels.DECODED_AT_ONCE", 6)  # several batches with and without gaps
    found = load_pixels(path, 8, workers=0)
    every = load_pixels(write(tmp_path / "all.parquet", {
        "image": [{"bytes": one.read_bytes(), "path": None} for one in sorted((tmp_path / "noise").iterdir())],
        "label": list(range(40)),
    }), 8, workers=0)  # fmt: skip
    assert found.labels.tolist() == labels
    assert torch.equal(found.pixels, every.pixels[kept])
    assert found.unlabelled.count == 6


@pytest.mark.parametrize("batch_size", [1, 4, 40])
def test_basins_and_features_do_not_depend_on_the_batches(gaps, batch_size):
    path, kept, labels = gaps
    model = tiny_vit()
    images = load_images(path, model)
    found = token_dynamics(
        model, images, measures=["basins"], k=2, stream=Stream(batch_size=batch_size, workers=0)
    ).basins
    assert found.n_images == len(kept)
    rows = found.projection.query("layer == 0").sort_values("position")
    assert rows["position"].tolist() == kept
    assert rows["label"].tolist() == labels
    features = extract_features(model, images, stream=Stream(batch_size=batch_size, workers=0))["model"]
    assert features.labels.tolist() == labels
    assert len(features.values) == len(kept)
    assert images.report.count == 40


def test_no_usable_label(tmp_path, noise_folder):
    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted(noise_folder.iterdir())[:6]]
    path = write(tmp_path / "none.parquet", {"image": cells, "label": [-1] * 6})
    model = tiny_vit()
    images = load_images(path, model)
    words = r"not one of the 6 images .*\(the first, none\.parquet row 0: -1 is not one of the classes\)"
    dynamics = token_dynamics(model, images, k=2, measures=None, stream=Stream(workers=0))
    assert "not one of the 6 images has one" in dynamics.left_out["basins"]
    assert dynamics.table["n_images"].max() == 6
    for use in (
        lambda: token_dynamics(model, images, measures=["basins"], k=2, stream=Stream(workers=0)),
        lambda: extract_features(model, images, stream=Stream(workers=0)),
        lambda: load_pixels(path, 8, workers=0),
    ):
        with pytest.raises(UsageError, match=words):
            use()


def test_one_label_is_enough_for_features(tmp_path, noise_folder):
    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted(noise_folder.iterdir())[:3]]
    model = tiny_vit()
    images = load_images(write(tmp_path / "one.parquet", {"image": cells, "label": [None, 4, None]}), model)
    assert extract_features(model, images, stream=Stream(workers=0))["model"].labels.tolist() == [4]


def test_a_data_set_saved_to_disk(tmp_path):
    import datasets

    features = {"image": datasets.Image(), "mask": datasets.Image(), "kind": datasets.Value("string")}
    rows = datasets.Dataset.from_dict(
        {"image": pictures(4), "mask": pictures(4, 100), "kind": ["b", None, "a", "b"]},
        datasets.Features(features),
    )
    rows.save_to_disk(tmp_path / "one")
    images, found = labels_of(tmp_path / "one", label_column="kind")
    assert found == [1, NO_LABEL, 0, 1]
    assert json.loads(json.dumps(images.report.unlabelled.to_dict()))["count"] == 1
    assert images.source.chosen() == {"image_column": "image", "label_column": "kind", "split": None}
    datasets.DatasetDict({"train": rows, "test": rows.select([2])}).save_to_disk(tmp_path / "two")
    with pytest.raises(UsageError, match="holds the splits test, train; choose one by `split`"):
        load_images(tmp_path / "two", MODEL)
    assert labels_of(f"{tmp_path / 'two'}@test", label_column="kind")[1] == [0]
    assert len(load_images(tmp_path / "two", MODEL, split="train")) == 4
    (tmp_path / "one" / "state.json").write_text("[")
    with pytest.raises(BrdynError, match="saved to disk"):
        load_images(tmp_path / "one", MODEL)


def test_classes_declared_twice_are_no_classes(tmp_path):
    declared = {"label": {"_type": "ClassLabel", "names": ["a", "b", "a"]}}
    path = write(tmp_path / "x.parquet", {"image": pictures(2), "label": [0, 2]}, declared)
    images, found = labels_of(path)
    assert found == [NO_LABEL, NO_LABEL]
    assert "column 'label' is declared with the class 'a' twice" in images.source.no_labels
