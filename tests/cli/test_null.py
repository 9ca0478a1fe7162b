"""--null: untrained twins beside what a command measures."""

import json

import pytest

import brdyn
from tests.cli.commands import assert_one_line_error

OPTIONS = {
    "dynamics": ["--measures", "speed"],
    "perturb": ["--eps", "0.2", "--layers", "0,6", "--tokens", "cls"],
    "interventions": ["--kinds", "delete"],
    "splice": ["--surrogates", "mean", "--spans", "9-12"],
}


@pytest.mark.parametrize("command", OPTIONS)
def test_a_command_writes_its_twins(command, run, tiny_options, tmp_path):
    done = run(command, *tiny_options, "-n", 4, "--k", 2, "--seed", 3, *OPTIONS[command], "--null", 2)
    assert done.returncode == 0, done.stderr
    assert "beside 2 untrained twins of this architecture, mean [least, largest]:" in done.stdout
    found = brdyn.read(tmp_path / "out")
    assert found.null.weights == ("random (untrained, seed 4)", "random (untrained, seed 5)")
    content = json.loads((tmp_path / "out" / f"{'perturb' if command == 'perturb' else command}.json").read_text())
    assert all(len(one["untrained"]) == 2 for one in content["null"]["values"].values())


def test_no_twins_are_drawn_unless_asked_for(run, tiny_options, tmp_path):
    done = run("dynamics", *tiny_options, "-n", 4, "--measures", "norm")
    assert done.returncode == 0, done.stderr
    assert "untrained" not in done.stdout
    assert brdyn.read(tmp_path / "out").null is None
    assert not list((tmp_path / "out").glob("null*"))


@pytest.mark.parametrize("command", OPTIONS)
def test_a_number_that_is_none(command, run):
    assert_one_line_error(run(command, "--null", "-1"), 2, "--null", "-1")
    assert_one_line_error(run(command, "--null", "few"), 2, "--null", "few")
    assert_one_line_error(run(command, "--null", "100000"), 2, "--null", "100000")


def test_a_module_of_somebodys_own_has_none(run, tmp_path, noise_folder):
    (tmp_path / "mine.py").write_text("from tests.models.own_vit import adapted\ndef build(): return adapted()\n")
    options = [
        "--model",
        f"{tmp_path}/mine.py:build",
        "--allow-code",
        "--images",
        noise_folder,
        "--workers",
        0,
    ]
    done = run("dynamics", *options, "--out", tmp_path / "out", "--null", 1)
    assert_one_line_error(done, 2, "nothing is known that initialises", "mine.py:build", "drop --null", "twins")
    assert not (tmp_path / "out").exists()


def test_help_says_what_it_costs(run):
    said = " ".join(run("perturb", "--help").stdout.replace("│", " ").split())
    assert "Each takes as long as the model" in said
