"""A training whose standard output nobody reads any more, as behind `| head -1`."""

import json
import sys

import pytest

from brdyn.cli import failures, output

pytestmark = pytest.mark.usefixtures("undrawn")
SMALL = ["--width", "8", "--heads", "1", "--hidden", "8", "--depth", "1", "--image-size", "8", "--epochs", "0.5"]


@pytest.fixture
def unheard(monkeypatch):
    """Nobody reads standard output; what was done about it."""
    discarded = []

    def broken(_):
        raise BrokenPipeError

    monkeypatch.setattr(output, "say", broken)
    for module in (failures, output):
        monkeypatch.setattr(module, "discard", discarded.append)
    return discarded


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(("command", "result"), [("raptor-fit", "fit.json"), ("vit-train", "train.json")])
def test_a_run_is_over_before_it_is_told(run, tiny_options, labelled, tmp_path, command, result, unheard):
    recipe = ["--boundaries", "5", "--steps", "2", "--batch-size", "8", "--validation-images", "0"]
    training = ["--data", labelled, *SMALL, "--workers", "0", "--out", tmp_path / "out"]
    assert run(command, *([*tiny_options, *recipe] if command == "raptor-fit" else training)).returncode == 1
    assert unheard[-1] is sys.stdout
    assert names(tmp_path / "out") >= {result, "model.safetensors"}
    assert not {"unfinished.json", "checkpoints"} & names(tmp_path / "out")


def test_a_grid_goes_on_unheard(run, labelled, tmp_path, unheard):
    grid = ["--grid", "n=1,2", "--data", labelled, "--test", labelled, "--workers", "0"]
    assert run("vitrm-train", *grid, *SMALL, "--out", tmp_path / "out").returncode == 1  # of the last word alone
    assert len(json.loads((tmp_path / "out" / "grid.json").read_text())["cells"]) == 2
    assert "unfinished.json" not in names(tmp_path / "out")
    assert len(unheard) >= 3
