"""Images decoded once: the same batches, reports and errors as from their files, and no loader processes."""

from __future__ import annotations

import psutil
import pytest
import torch

import brdyn
from brdyn.data.shuffled import ShuffledBatches
from brdyn.errors import BrdynError, UsageError
from tests.conftest import tiny_vit


@pytest.fixture
def damaged(noise_folder):
    """Images of which one cannot be read."""
    (noise_folder / "00.png").write_bytes(b"no image")
    return noise_folder


def same(one, two):
    assert torch.equal(one.images, two.images)
    assert one.positions.tolist() == two.positions.tolist()
    assert one.labels.tolist() == two.labels.tolist()


def test_they_are_the_same_batches_and_the_same_report(damaged):
    images = brdyn.load_images(damaged, tiny_vit(), n=15, seed=2)
    kept = images.decoded(workers=1)
    assert (kept.workers(3), images.workers(3)) == (0, 3)
    for mine, theirs in zip(kept.batches(4, workers=3), images.batches(4, workers=0), strict=True):
        same(mine, theirs)
    assert kept.report == images.report
    assert kept.identity() == images.identity()


def test_a_part_reads_its_own(damaged):
    images = brdyn.load_images(damaged, tiny_vit())
    for mine, theirs in zip(images.decoded(workers=0).split(5, 1), images.split(5, 1), strict=True):
        same(next(mine.batches(50)), next(theirs.batches(50, workers=0)))
        assert mine.report == theirs.report
        assert mine.memory is not None


def test_shuffled_alike_and_files_are_not_read_again(damaged, monkeypatch):
    images = brdyn.load_images(damaged, tiny_vit())
    theirs = [part for step in ShuffledBatches(images, 6, seed=3, workers=0).batches(0, 7) for part in step]
    kept = images.decoded(workers=0)
    monkeypatch.setattr(type(images.source), "read", lambda *_: pytest.fail("a file was read"))
    mine = [part for step in ShuffledBatches(kept, 6, seed=3, workers=2).batches(0, 7) for part in step]
    for one, two in zip(mine, theirs, strict=True):
        same(one, two)


def test_strict_and_too_many_for_memory(damaged, monkeypatch):
    with pytest.raises(BrdynError, match="strict"):
        brdyn.load_images(damaged, tiny_vit(), strict=True).decoded(workers=0)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("M", (), {"available": 1000}))
    with pytest.raises(UsageError, match="do not fit in memory"):
        brdyn.load_images(damaged, tiny_vit()).decoded()
