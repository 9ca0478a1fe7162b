"""A module of one's own on the command line, from its file to a Raptor of it."""

import json
import sys
from pathlib import Path

import pytest

from tests.cli.commands import assert_one_line_error

SOURCE = Path(__file__).parents[1] / "models" / "own_vit.py"


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "somebodys_blocks.py").write_text(SOURCE.read_text())
    (tmp_path / "mine.py").write_text("from somebodys_blocks import adapted\ndef build(): return adapted()\n")
    monkeypatch.chdir(tmp_path)
    yield "mine.py:build"
    sys.modules.pop("somebodys_blocks", None)


def test_phases_of_it_with_loader_processes(run, mine, noise_folder):
    common = ["phases", "--model", mine, "--images", noise_folder, "-n", 8, "--out", "out"]
    assert_one_line_error(run(*common), 2, "'mine.py:build' runs code", "--allow-code")
    assert not Path("out").exists()
    done = run(*common, "--allow-code", "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "weights from module given by the caller" in done.stdout
    found = json.loads(Path("out/phases.json").read_text())
    assert found["n_images"] == 8
    assert "SHA-256" in found["provenance"]["model"]["notes"][0]
    again = run("dynamics", *common[1:-1], "out2", "--allow-code", "--phases", "out/phases.json", "--workers", 0)
    assert again.returncode == 0, again.stderr


@pytest.mark.usefixtures("undrawn")
def test_a_raptor_of_it_knows_its_teacher_by_its_file(run, mine, noise_folder, tmp_path, monkeypatch):
    images = ["--images", noise_folder, "-n", 12, "--workers", 0]
    fit = run(
        "raptor-fit", "--model", mine, "--allow-code", *images, "--boundaries", 2, "--steps", 2, "--batch-size", 4,
        "--validation-images", 2, "--out", "raptor",
    )  # fmt: skip
    assert fit.returncode == 0, fit.stderr
    assert_one_line_error(run("raptor-eval", "raptor", *images, "--out", "eval"), 2, "--allow-code")
    done = run("raptor-eval", "raptor", *images, "--out", "eval", "--allow-code")
    assert done.returncode == 0, done.stderr
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    away = ["phases", "--model", "../raptor", *images, "--out", "out", "--allow-code"]
    assert_one_line_error(run(*away), 2, "'mine.py:build'", "--teacher file.py:function")
    found = run(*away, "--teacher", "../mine.py:build")
    assert found.returncode == 0, found.stderr


def test_the_model_is_described(run, mine):
    done = run("models", mine, "--allow-code")
    assert done.returncode == 0, done.stderr
    assert "1 cls, 2 registers, 6 patches" in done.stdout
    assert_one_line_error(run("models", mine), 2, "--allow-code")
