"""The activation cache: the same states, made in pieces, refused where it is not what it should be."""

import json
import os
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from PIL import Image

from brdyn.data import load_images
from brdyn.data.image_set import Item, Skipped
from brdyn.errors import BrdynError, UsageError
from brdyn.raptor import ActivationCache, FitSettings, fit_raptor
from brdyn.runtime import Processes
from brdyn.trajectory import Stream, trajectories
from tests.conftest import tiny_vit

ASSIGNMENT = [0, 0, 1, 1]


@pytest.fixture
def images(noise_folder, tiny):
    return load_images(noise_folder, tiny)


@pytest.fixture
def cache(tmp_path, tiny, images, monkeypatch):
    monkeypatch.setattr("brdyn.raptor.cache.LARGEST_SHARD", 16)  # three shards of forty images
    return ActivationCache(tmp_path / "cache", tiny, images)


def filled(cache):
    cache.prepare()
    cache.fill(workers=0)
    return cache


def test_it_holds_the_states_of_the_teacher(cache, tiny, images):
    reader = filled(cache).reader(images)
    assert [path.name for path in sorted(cache.folder.iterdir())] == [
        "cache.json", *(f"states-0000{shard}.safetensors" for shard in range(3))
    ]  # fmt: skip
    for trajectory in trajectories(tiny, images, stream=Stream(batch_size=7, workers=0)):
        expected = torch.stack(trajectory.states, dim=1)
        for position, states in zip(trajectory.positions, expected, strict=True):
            item = reader[int(position)]
            assert isinstance(item, Item)
            torch.testing.assert_close(item.image.float(), states, rtol=1e-2, atol=1e-2)


def test_its_size_is_known_before(cache, tiny):
    assert cache.image_bytes == 2 * 5 * tiny.tokens.count * 16
    assert "40 images" in cache.describe()
    assert "0 of 3 parts" in cache.describe()
    filled(cache)
    written = sum(path.stat().st_size for path in cache.folder.glob("*.safetensors"))
    assert cache.total_bytes < written < cache.total_bytes + 3 * 4096
    assert "3 of 3 parts" in cache.describe()


def test_a_subset_reads_its_own_images(cache, images):
    learning, held_out = images.split(10, seed=3)
    whole = filled(cache).reader(images)
    for part in (learning, held_out):
        for position, index in enumerate(part.chosen):
            assert torch.equal(cache.reader(part)[position].image, whole[int(index)].image)


def test_a_fit_from_it_is_that_of_the_running_teacher(cache, tiny, images):
    settings = FitSettings(stage1_steps=8, stage2_steps=8, batch_size=8, lr=1e-3, layer_scale=0.1, log_every=4)
    online = fit_raptor(tiny, images, ASSIGNMENT, settings, workers=0)
    stored = fit_raptor(tiny, images, ASSIGNMENT, settings, workers=0, cache=filled(cache))
    for stage in (1, 2):
        for first, second in zip(online.histories[stage].losses, stored.histories[stage].losses, strict=True):
            assert second == pytest.approx(first, rel=1e-2)
            assert second["step"] == first["step"]


def test_loader_processes_read_it(cache, tiny, images):
    settings = FitSettings(stage1_steps=2, stage2_steps=0, batch_size=8, validation_images=0)
    alone = fit_raptor(tiny, images, ASSIGNMENT, settings, workers=0, cache=filled(cache))
    several = fit_raptor(tiny, images, ASSIGNMENT, settings, workers=2, cache=cache)
    assert alone.histories[1].losses == several.histories[1].losses


def test_an_interrupted_cache_is_filled_further(cache, images):
    cache.prepare()
    cache._make(1, 0)
    before = cache.path(1).stat().st_mtime_ns
    again = filled(ActivationCache(cache.folder, cache.teacher, images))
    assert again.missing() == []
    assert again.path(1).stat().st_mtime_ns == before


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("how", ["cut", "altered"])
def test_a_damaged_shard_is_refused(cache, tiny, images, how, workers):
    filled(cache)
    path = cache.path(2)
    data = bytearray(path.read_bytes())
    if how == "cut":
        del data[len(data) // 2 :]
    else:
        data[-1000] ^= 1
    path.write_bytes(data)
    settings = FitSettings(stage1_steps=5, stage2_steps=0, batch_size=8, validation_images=0)
    with pytest.raises(BrdynError, match=r"^(cannot read )?the cached states in .*; remove the file") as caught:
        fit_raptor(tiny, images, ASSIGNMENT, settings, workers=workers, cache=cache)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_fit_from_the_cache_of_something_else_is_refused(cache, tiny, images, tmp_path, on_disk):
    """By what the cache says that it is of, and by what is in its folder."""
    filled(cache)
    other = tiny_vit(seed=5)
    other.info = replace(other.info, digest="f" * 64)
    elsewhere = tiny_vit()
    elsewhere.preprocessing = replace(elsewhere.preprocessing, crop_pct=0.5)
    fewer = load_images(tmp_path / "noise", tiny, n=30)
    for teacher, some, words in (
        (other, images, r"teacher.digest: 0000"),
        (elsewhere, images, "preprocessing.crop_pct: 0.875 before, 0.5 now"),
        (tiny, fewer, "images.chosen: 40 before, 30 now"),
    ):
        given = ActivationCache(cache.folder, teacher, some) if on_disk else cache
        with pytest.raises(UsageError, match=words):
            fit_raptor(teacher, some, ASSIGNMENT, FitSettings(batch_size=8), workers=0, cache=given)


def test_a_cache_of_something_else_is_refused(cache, tiny, images, tmp_path):
    filled(cache)
    fewer = load_images(tmp_path / "noise", tiny, n=30)
    with pytest.raises(UsageError, match="chosen: 40 before, 30 now"):
        ActivationCache(cache.folder, tiny, fewer).prepare()
    other = tiny_vit(seed=5)
    other.info = other.info.__class__(**{**other.info.__dict__, "digest": "f" * 64})
    with pytest.raises(UsageError, match=r"teacher.digest: 0000"):
        ActivationCache(cache.folder, other, images).prepare()
    with pytest.raises(UsageError, match="holds other files"):
        ActivationCache(tmp_path / "noise", tiny, images).prepare()
    (cache.folder / "cache.json").write_text("{")
    with pytest.raises(UsageError, match="cannot read"):
        cache.prepare()


def test_changed_images_are_noticed(cache, tiny, tmp_path):
    """The same names in the same folder, but another picture."""
    filled(cache)
    Image.new("RGB", (40, 36), "red").save(tmp_path / "noise" / "07.png")
    with pytest.raises(UsageError, match=r"images.files"):
        ActivationCache(cache.folder, tiny, load_images(tmp_path / "noise", tiny)).prepare()


def test_processes_that_come_late_leave_no_holes(tmp_path, tiny, images, monkeypatch):
    """What the second of two processes makes does not depend on what the first has made so far."""
    monkeypatch.setattr("brdyn.raptor.cache.LARGEST_SHARD", 8)
    cache = ActivationCache(tmp_path / "cache", tiny, images)
    cache.prepare()
    monkeypatch.setattr(Processes, "wait", lambda _: None)
    for rank in (0, 1):
        with pytest.raises(BrdynError, match="lacks") if rank == 0 else nullcontext():
            cache.fill(workers=0, processes=Processes(tiny.device, rank, 2))
    assert cache.missing() == []


def test_what_killed_runs_left_is_swept(cache, monkeypatch):
    filled(cache)
    left = cache.folder / ".states-00001.safetensors.abc"
    left.write_bytes(b"half")
    cache.prepare()
    assert left.exists()  # someone may be writing it
    os.utime(left, (0, 0))
    cache.prepare()
    assert not left.exists()
    (cache.folder / "cache.json").rename(cache.folder / ".cache.json.abc")
    for path in cache.folder.glob("*.safetensors"):
        path.unlink()
    cache.prepare()
    assert (cache.folder / "cache.json").is_file()


def test_shards_are_as_large_as_allowed(cache, monkeypatch):
    """States of 5 x 19 x 16 numbers in two bytes; forty images."""
    assert (cache.image_bytes, cache.total_bytes) == (3040, 121_600)
    for limit, images, shards in ((10 * 3040 + 1, 10, 4), (11 * 3040, 11, 4), (1, 1, 40), (10**9, 16, 3)):
        monkeypatch.setattr("brdyn.raptor.cache.SHARD_BYTES", limit)
        assert (cache.shard_images, cache.shards) == (images, shards)


def test_a_shard_without_a_readable_image(tiny, noise_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("brdyn.raptor.cache.LARGEST_SHARD", 1)
    (noise_folder / "05.png").write_bytes(b"broken")
    images = load_images(noise_folder, tiny)
    reader = filled(ActivationCache(tmp_path / "cache", tiny, images)).reader(images)
    assert [isinstance(reader[position], Skipped) for position in (4, 5, 6)] == [False, True, False]


def test_the_digest_is_that_of_the_images(cache, tiny, images):
    filled(cache)
    list(images.batches(40, workers=0))
    assert cache.digest() == images.report.digest


def test_a_full_disk_is_noticed_before(cache, monkeypatch):
    """To the byte: forty images of 3040 bytes, the last shard of which has eight of sixteen."""
    free = type("Usage", (), {"free": 121_599})
    monkeypatch.setattr("psutil.disk_usage", lambda _: free)
    with pytest.raises(BrdynError, match=r"of 122 kB does not fit in .*, where 122 kB are free; use fewer images"):
        cache.prepare()
    assert not (cache.folder / "cache.json").exists()
    free.free += 1
    cache.prepare()
    cache._make(2, 0)
    free.free = 2 * 16 * 3040
    cache.prepare()


def test_the_bar_counts_images(cache, monkeypatch):
    totals, done = [], []

    @contextmanager
    def bar(name, total, show):
        totals.append(total)
        yield done.append

    monkeypatch.setattr("brdyn.raptor.cache.progress_bar", bar)
    filled(cache)
    assert (totals, done) == ([40], [16, 16, 8])


def test_unreadable_images_stay_so(tiny, noise_folder, tmp_path):
    (noise_folder / "05.png").write_bytes((noise_folder / "05.png").read_bytes()[:60])
    Image.new("RGB", (4, 4)).save(noise_folder / "06.png")  # smaller than a patch
    images = load_images(noise_folder, tiny)
    reader = filled(ActivationCache(tmp_path / "cache", tiny, images)).reader(images)
    assert [isinstance(reader[position], Skipped) for position in (4, 5, 6, 7)] == [False, True, True, False]
    assert "patch" in reader[6].reason
    fit = fit_raptor(
        tiny, images, ASSIGNMENT, FitSettings(stage1_steps=5, stage2_steps=0, batch_size=8, validation_images=0),
        workers=0, cache=reader.cache,
    )  # fmt: skip
    assert len(fit.histories[1].losses) == 1
    assert len(images.report.skipped) == 2


def test_labels_come_along(tiny, noise_folder, tmp_path):
    for name in ("a", "b"):
        (noise_folder / name).mkdir()
    for path in sorted(noise_folder.glob("*.png")):
        path.rename(noise_folder / ("a" if path.stem < "20" else "b") / path.name)
    images = load_images(noise_folder, tiny)
    reader = filled(ActivationCache(tmp_path / "cache", tiny, images)).reader(images)
    assert [reader[position].label for position in (0, 19, 20, 39)] == [0, 0, 1, 1]
    assert json.loads((tmp_path / "cache" / "cache.json").read_text())["dtype"] == "bfloat16"
