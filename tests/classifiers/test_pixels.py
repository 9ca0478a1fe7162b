"""Pixels in memory: decoded once, batched as files are, refused without labels."""

import pytest
import torch
from PIL import Image

from brdyn.classifiers.pixels import PixelBatches, PixelSet, check_classes, load_pixels
from brdyn.data import load_images
from brdyn.data.shuffled import ShuffledBatches
from brdyn.errors import BrdynError, UsageError


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("a", (255, 0, 0)), ("b", (0, 0, 255))):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (12 + number, 12), colour).save(tmp_path / "set" / name / f"{number}.png")
    return tmp_path / "set"


def test_a_folder_in_memory(folder):
    found = load_pixels(folder, 8, workers=0)
    assert found.pixels.shape == (12, 3, 8, 8)
    assert found.pixels.dtype == torch.uint8
    assert found.labels.tolist() == [0] * 6 + [1] * 6
    assert found.names == ("a", "b")
    assert found.pixels[0].flatten(1).float().mean(1).tolist() == [255, 0, 0]
    mean, std = found.statistics()
    torch.testing.assert_close(torch.tensor(mean), torch.tensor([0.5, 0.0, 0.5]))
    torch.testing.assert_close(torch.tensor(std), torch.tensor([0.5, 1e-3, 0.5]))
    assert len(found.digest) == 64
    assert len(load_pixels(folder, 8, n=5, workers=0)) == 5


def test_both_parts_of_a_split_keep_the_order():
    images = PixelSet(
        torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1).expand(50, 3, 1, 1),
        torch.arange(50),
        ("a",),
        "it",
    )
    for part, count in zip(images.split(20, seed=1), (30, 20), strict=True):
        assert len(part) == count
        assert part.labels.tolist() == sorted(part.labels.tolist())
        assert part.pixels[:, 0, 0, 0].tolist() == part.labels.tolist()
    held = [images.split(20, seed=seed)[1].labels.tolist() for seed in (1, 1, 2)]
    assert held[0] == held[1] != held[2]
    assert held[0] != list(range(20))


def test_both_pixels_and_labels_move():
    images = PixelSet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.arange(2), ("a", "b"), "it").to("meta")
    assert (images.pixels.device.type, images.labels.device.type) == ("meta", "meta")


def test_batches_are_those_of_files(folder, tiny):
    """The same seed gives the same images in the same order."""
    pixels = load_pixels(folder, 8, workers=0)
    files = ShuffledBatches(load_images(folder, tiny), 5, seed=3, workers=0)
    memory = PixelBatches(pixels, 5, seed=3)
    for ours, theirs in zip(memory.batches(0, 4, pieces=2), files.batches(0, 4, pieces=2), strict=True):
        assert [batch.positions.tolist() for batch in ours] == [batch.positions.tolist() for batch in theirs]
        assert [batch.labels.tolist() for batch in ours] == [batch.labels.tolist() for batch in theirs]
    whole = [batch.positions for pieces in memory.batches(0, 1) for batch in pieces]
    halves = [
        batch.positions for rank in (0, 1) for pieces in memory.batches(0, 1, rank=rank, world=2) for batch in pieces
    ]
    assert sorted(torch.cat(halves).tolist()) == sorted(torch.cat(whole).tolist())


def test_sets_that_cannot_be_used(folder, noise_folder, monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="has no labels"):
        load_pixels(noise_folder, 8)
    with pytest.raises(UsageError, match="too few for a batch of 20"):
        PixelBatches(load_pixels(folder, 8, workers=0), 20)
    import torchvision

    def offline(*_, **__):
        raise OSError("no network here")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", offline)
    with pytest.raises(BrdynError, match=r"cannot get cifar10 \(no network here\); give a parquet file"):
        load_pixels("cifar10", 32, root=tmp_path)


def test_named_sets(monkeypatch, tmp_path):
    import numpy as np
    import torchvision

    class Fake:
        data = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
        targets = (0, 1, 2, 0, 1)
        classes = ("x", "y", "z")

        def __init__(self, root, train, download):
            self.train = train

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", Fake)
    found = load_pixels("cifar100", 4, root=tmp_path)
    assert found.pixels[1, 2].tolist() == Fake.data[1, :, :, 2].tolist()
    assert load_pixels("cifar100", 8, n=3, root=tmp_path).pixels.shape == (3, 3, 8, 8)
    assert isinstance(found, PixelSet)


def numbered(path, labels):
    import io

    import pyarrow as pa
    from pyarrow import parquet

    cells = []
    for number in range(len(labels)):
        data = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(data, "png")
        cells.append({"bytes": data.getvalue(), "path": None})
    parquet.write_table(pa.table({"image": cells, "label": list(labels)}), path)


def test_numbered_classes_are_those_of_the_whole_source(tmp_path):
    """Not those that were drawn: a few images do not have all of them."""
    numbered(tmp_path / "train.parquet", range(10))
    for seed in range(3):
        few = load_pixels(tmp_path / "train.parquet", 8, n=4, seed=seed, workers=0)
        assert few.names == tuple(map(str, range(10)))


def test_images_may_lack_the_last_of_numbered_classes(tmp_path):
    numbered(tmp_path / "train.parquet", range(10))
    numbered(tmp_path / "test.parquet", [3, 1, 8])
    train, test = (load_pixels(tmp_path / f"{name}.parquet", 8, workers=0) for name in ("train", "test"))
    check_classes(test, train.names, "the training images")
    with pytest.raises(UsageError, match=r"has 10 classes .*, and the test images 9"):
        check_classes(train, test.names, "the test images")
    with pytest.raises(UsageError, match="give images of the same classes"):
        check_classes(test, tuple("abcdefghij"), "the training images")
