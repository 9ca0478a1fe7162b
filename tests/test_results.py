"""Output folders and atomic writes: nothing is lost, nothing is half there."""

import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from brdyn import environment
from brdyn.errors import BrdynError, UsageError
from brdyn.plots.style import new_figure as plain_figure
from brdyn.store import OutputFolder, check_formats, read_json, to_json, write_atomically, write_through


def figure():
    return plain_figure(2, 2)


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="`overwrite=True`"):
        OutputFolder(tmp_path)
    folder = OutputFolder(tmp_path, overwrite=True)
    folder.save("x.json", {"a": 1})
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_failed_run_leaves_no_folder_but_keeps_what_it_found(tmp_path):
    with pytest.raises(BrdynError), OutputFolder(tmp_path / "a" / "b"):
        raise BrdynError("later")
    assert not (tmp_path / "a").exists()
    (tmp_path / "old").mkdir()
    with pytest.raises(BrdynError), OutputFolder(tmp_path / "old"):
        raise BrdynError("later")
    assert (tmp_path / "old").is_dir()
    (tmp_path / "old" / "x.json").write_text("{}")
    with (
        pytest.raises(ValueError, match="not JSON"),
        OutputFolder(tmp_path / "old", overwrite=True) as folder,
    ):
        folder.save("x.json", {"nan": float("nan")})
    assert (tmp_path / "old" / "x.json").read_text() == "{}"


def test_nothing_is_written_when_a_picture_cannot_be_drawn(tmp_path):
    class Broken:
        def savefig(self, *_, **__):
            raise BrdynError("no such font")

    (tmp_path / "x.json").write_text("old")
    folder = OutputFolder(tmp_path, overwrite=True)
    with pytest.raises(BrdynError, match="font"):
        folder.save("x.json", {}, {"good": figure(), "bad": Broken()})
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    folder.save("x.json", {}, {"good": figure()}, ("png", "svg", "pdf"))
    assert {path.name for path in tmp_path.iterdir()} == {"x.json", "good.png", "good.svg", "good.pdf"}


@pytest.mark.parametrize("what", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, what):
    path = tmp_path / "x.json"
    path.write_text("old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, what, fail)
    with pytest.raises(BrdynError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_get_the_modes_of_the_mask(tmp_path, monkeypatch, mask):
    """Which stays as it is: it is that of all threads, and a file that another one makes would get any mode."""
    before = os.umask(mask)
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the mask is changed"))
    try:
        write_atomically(tmp_path / "x", b"")
        write_through(tmp_path / "y", b"")
        assert [(tmp_path / name).stat().st_mode & 0o777 for name in "xy"] == [0o666 & ~mask] * 2
    finally:
        monkeypatch.undo()
        os.umask(before)


def test_json_holds_arrays_and_refuses_nan():
    content = {"m": np.eye(2), "n": np.int64(3), "empty": [], "text": "[1,  2]", "deep": {"a": [{"b": None}]}}
    text = to_json(content).decode()
    expected = {"m": [[1, 0], [0, 1]], "n": 3, "empty": [], "text": "[1,  2]", "deep": {"a": [{"b": None}]}}
    assert json.loads(text) == expected
    assert "    [1.0, 0.0],\n" in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"m": float("nan")})


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
    assert environment.versions()["brdyn"] != "unknown"


@pytest.mark.parametrize(
    ("main", "argv", "told"),
    [
        (
            {"__file__": "/env/bin/brdyn"},
            ["/env/bin/brdyn", "phases", "--out", "a b"],
            "brdyn phases --out 'a b'",
        ),
        ({"__spec__": "brdyn.__main__", "__file__": "x"}, ["/x/brdyn/__main__.py", "doctor"], "brdyn doctor"),
        ({"__spec__": "analyses.gpu.__main__"}, ["/x/__main__.py", "-m", "9"], "python -m analyses.gpu -m 9"),
        ({"__spec__": "my.study"}, ["/x/study.py"], "python -m my.study"),
        ({"__file__": "study.py"}, ["study.py", "--k", "3"], "python study.py --k 3"),
        ({}, ["-c", "3"], "python -c 3"),
        ({"__file__": "<stdin>"}, [""], "an interactive session"),
        ({}, ["/x/ipykernel_launcher.py", "-f", "kernel.json"], "an interactive session"),
    ],
)
def test_the_command_is_the_program_that_runs(monkeypatch, main, argv, told):
    module = SimpleNamespace(**main)
    module.__spec__ = SimpleNamespace(name=main["__spec__"]) if "__spec__" in main else None
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.setattr(sys, "argv", argv)
    assert environment.command() == told
