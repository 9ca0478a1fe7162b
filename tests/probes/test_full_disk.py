"""A disk that fills up while features are written: one line with what to do, and nothing left."""

import errno
import os
import tempfile

import pytest

from brdyn.errors import BrdynError, UsageError
from brdyn.probes import probe_layers
from brdyn.probes.heads import Recipe
from brdyn.store import reserve
from tests.probes.test_layers import ALONE, Painter, loaded, streets

__all__ = ["streets"]  # a fixture


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def probed(streets, cache):
    model = Painter()
    learning, testing = loaded(streets, model)
    quick = Recipe(epochs=1, penalties=(0.1,))
    return probe_layers(model, learning, testing, layers="1", seeds=1, recipe=quick, stream=ALONE, cache=cache)


@pytest.mark.parametrize(("written", "file"), [(0, "train/targets"), (1, "train/0.features"), (3, "test/0.features")])
def test_no_store_is_left_of_a_disk_that_fills_up(written, file, streets, tmp_path, monkeypatch):
    allocate, calls = os.posix_fallocate, []

    def filling(*given):
        calls.append(given)
        return full() if len(calls) > written else allocate(*given)

    monkeypatch.setattr(os, "posix_fallocate", filling)
    words = rf"cannot write '.*{file}' \(No space left on device\); make room there$"
    with pytest.raises(BrdynError, match=words):
        probed(streets, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("what", ["mkdtemp", "mkdir"])
def test_a_folder_of_features_that_cannot_be_made(what, streets, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile if what == "mkdtemp" else os, what, full)
    with pytest.raises(UsageError, match=r"cannot make the folder .*No space left.*; choose another `cache`$"):
        probed(streets, tmp_path / "cache")
    monkeypatch.undo()
    assert list(tmp_path.glob("cache/*")) == []


def test_what_is_reserved_has_its_place(tmp_path):
    reserve(tmp_path / "a", 10**6)
    there = (tmp_path / "a").stat()
    assert there.st_size == 10**6
    assert there.st_blocks * 512 >= 10**6
    assert (tmp_path / "a").read_bytes() == bytes(10**6)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_where_nothing_can_be_reserved_there_is_the_size(code, tmp_path, monkeypatch):
    def cannot(*_):
        raise OSError(code, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    reserve(tmp_path / "a", 1000)
    assert (tmp_path / "a").stat().st_size == 1000
