"""Shuffled batches: every image once an epoch, any step without the ones before, shares that join to the whole."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from brdyn.data import load_images
from brdyn.data.augment import Augmentation, PairTransform
from brdyn.data.shuffled import ShuffledBatches
from brdyn.errors import UsageError


@pytest.fixture
def images(noise_folder, tiny):
    return load_images(noise_folder, tiny)


def positions(stream, start, stop, **share):
    return [
        np.concatenate([piece.positions.numpy() for piece in pieces]) for pieces in stream.batches(start, stop, **share)
    ]


def test_every_image_once_an_epoch(images):
    stream = ShuffledBatches(images, 12, seed=2, workers=0)
    seen = np.concatenate([stream.positions(step) for step in range(10)])  # 120 places, 3 epochs of 40
    for epoch in range(3):
        assert sorted(seen[40 * epoch : 40 * (epoch + 1)]) == list(range(40))
    assert not np.array_equal(seen[:40], seen[40:80])
    assert not np.array_equal(seen[:12], ShuffledBatches(images, 12, seed=3).positions(0))


def test_any_step_without_the_ones_before(images):
    stream = ShuffledBatches(images, 12, seed=2, workers=0)
    whole = positions(stream, 0, 6)
    np.testing.assert_array_equal(positions(stream, 4, 6), whole[4:])
    direct = next(iter(stream.batches(5, 6)))[0]
    everything = next(iter(images.batches(40, workers=0)))
    by_position = dict(zip(everything.positions.tolist(), everything.images, strict=True))
    for position, image in zip(direct.positions.tolist(), direct.images, strict=True):
        assert torch.equal(image, by_position[position])


@pytest.mark.parametrize(("world", "pieces"), [(1, 3), (2, 1), (3, 2)])
def test_shares_and_pieces_join_to_the_step(images, world, pieces):
    stream = ShuffledBatches(images, 12, seed=2, workers=0)
    whole = [set(step) for step in positions(stream, 0, 4)]
    parts = [positions(stream, 0, 4, rank=rank, world=world, pieces=pieces) for rank in range(world)]
    for step in range(4):
        together = np.concatenate([part[step] for part in parts])
        assert len(together) == 12
        assert set(together) == whole[step]


def test_workers_give_the_same(images):
    alone = positions(ShuffledBatches(images, 12, seed=2, workers=0), 0, 4)
    np.testing.assert_array_equal(positions(ShuffledBatches(images, 12, seed=2, workers=2), 0, 4), alone)


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_are_others_in_each_epoch_and_the_same_at_each_step(images, tiny, workers):
    seen = tiny.preprocessing
    turn = PairTransform(seen.image_size, seen.mean, seen.std, Augmentation((0.08, 1.0), seed=3))
    stream = ShuffledBatches(images, 12, seed=2, workers=workers, turn=turn)
    found = {}
    for step, pieces in enumerate(stream.batches(0, 10)):
        np.testing.assert_array_equal(pieces[0].positions.numpy(), stream.positions(step))
        for position, image in zip(pieces[0].positions.tolist(), pieces[0].images, strict=True):
            found.setdefault(position, []).append(image)
    assert {len(crops) for crops in found.values()} == {3}
    for crops in found.values():
        assert not any(torch.equal(*pair) for pair in combinations(crops, 2))
    late = next(iter(stream.batches(7, 8)))[0]
    for place, (position, image) in enumerate(zip(late.positions.tolist(), late.images, strict=True)):
        assert torch.equal(image, found[position][(7 * 12 + place) // 40])
    halves = [next(iter(stream.batches(3, 4, rank=rank, world=2)))[0] for rank in range(2)]
    whole = next(iter(stream.batches(3, 4)))[0]  # which runs on over the end of the first epoch
    assert torch.equal(whole.images[0::2], halves[0].images)
    assert torch.equal(whole.images[1::2], halves[1].images)


def test_parquet_in_any_order(noise_folder, tmp_path, tiny):
    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted(noise_folder.iterdir())]
    cells[7] = {"bytes": b"broken", "path": None}
    pq.write_table(pa.table({"image": cells, "label": list(range(40))}), tmp_path / "x.parquet", row_group_size=9)
    stream = ShuffledBatches(load_images(tmp_path / "x.parquet", tiny, n=30), 10, workers=0)
    batches = [piece for pieces in stream.batches(0, 3) for piece in pieces]
    labels = torch.cat([batch.labels for batch in batches])
    chosen = set(stream.images.chosen.tolist())
    assert set(labels.tolist()) == chosen - {7}
    assert len(stream.reader.source.images) == 30


def test_too_few_images(images):
    with pytest.raises(UsageError, match="40 images are too few for a batch of 64"):
        ShuffledBatches(images, 64)


def test_split_keeps_images_apart(images):
    learning, held = images.split(10, seed=0)
    assert len(learning) == 30
    assert len(held) == 10
    assert not set(learning.chosen) & set(held.chosen)
    assert set(learning.chosen) | set(held.chosen) == set(range(40))
    assert images.split(0, seed=0) == (images, None)
    with pytest.raises(UsageError, match="cannot be kept out of 40"):
        images.split(40, seed=0)
