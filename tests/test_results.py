"""Output folders and atomic writes: nothing is lost, nothing is half there."""

import json
import os

import numpy as np
import pytest

from brdyn import results
from brdyn.errors import BrdynError, UsageError
from brdyn.results import OutputFolder, check_formats, read_json, write_atomically


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="--overwrite"):
        OutputFolder(tmp_path)
    folder = OutputFolder(tmp_path, overwrite=True)
    folder.write_json("x.json", {"a": 1})
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_failed_run_leaves_no_folder_but_keeps_what_it_found(tmp_path):
    with pytest.raises(BrdynError), OutputFolder(tmp_path / "a" / "b"):
        raise BrdynError("later")
    assert not (tmp_path / "a").exists()
    (tmp_path / "old").mkdir()
    with pytest.raises(BrdynError), OutputFolder(tmp_path / "old"):
        raise BrdynError("later")
    assert (tmp_path / "old").is_dir()
    with pytest.raises(ValueError, match="not JSON"), OutputFolder(tmp_path / "c") as folder:
        folder.write_json("y.json", {"nan": float(folder.write_json("x.json", {}) and "nan")})
    assert (tmp_path / "c" / "x.json").is_file()


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_text("old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(BrdynError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_files_get_ordinary_permissions(tmp_path):
    write_atomically(tmp_path / "x", b"")
    plain = tmp_path / "y"
    plain.touch()
    assert (tmp_path / "x").stat().st_mode == plain.stat().st_mode


def test_json_holds_arrays_and_refuses_nan(tmp_path):
    folder = OutputFolder(tmp_path / "out")
    path = folder.write_json("x.json", {"m": np.eye(2), "n": np.int64(3), "text": "[1, 2]"})
    assert json.loads(path.read_text()) == {"m": [[1, 0], [0, 1]], "n": 3, "text": "[1, 2]"}
    assert "[ 1.0, 0.0 ]" in path.read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_json("y.json", {"m": float("nan")})
    assert not (tmp_path / "out" / "y.json").exists()


def test_formats():
    assert check_formats("png, SVG") == ("png", "svg")
    for wrong in ("", "bmp", "png,gif"):
        with pytest.raises(UsageError, match="choose from png"):
            check_formats(wrong)


def test_reading_what_is_not_a_result(tmp_path):
    (tmp_path / "half.json").write_text('{"a": ')
    (tmp_path / "list.json").write_text("[]")
    for name in ("half.json", "list.json", "missing.json"):
        with pytest.raises(UsageError, match=name):
            read_json(tmp_path / name, "a result")


def test_versions_name_this_package():
    assert results.versions()["brdyn"] != "unknown"
