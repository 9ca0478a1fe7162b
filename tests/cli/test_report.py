"""`brdyn report` as it is typed: what it prints, and what it makes of models and images that do not do."""

import json

import pytest

import brdyn
from tests.cli.commands import assert_one_line_error


@pytest.fixture
def options(noise_folder, tmp_path, monkeypatch):
    """Few images, and no pictures of sections, which take most of a small report's time."""
    monkeypatch.setattr("brdyn.plots.draw", lambda result: {})
    monkeypatch.setattr("brdyn.reporting.specs.still", lambda *args: b"drawn")
    return ["--images", noise_folder, "--fast", "-n", 6, "--workers", 0, "--out", tmp_path / "out"]


def test_it_ends_with_the_verdict_and_the_path(run, narrow_folder, options, noise_folder, tmp_path):
    """A cut picture and a text among the images are named and left out."""
    (noise_folder / "00.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    options = [*options[:3], *options[5:]]
    done = run("report", "--model", narrow_folder, *options)
    assert done.returncode == 0, done.stderr
    found = brdyn.read(tmp_path / "out").models[0]
    lines = done.stdout.strip().splitlines()
    assert list(done.progress[:2]) == ["loading torch", "narrow: loading …"]
    assert any(line.startswith("report on 1 model: about ") for line in done.progress)
    assert lines[0] == f"narrow: {found.verdict}"
    assert lines[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "40 of 41 images" in page
    assert (tmp_path / "out" / "growth.png").read_bytes() == b"drawn"
    assert "1 images skipped" in page
    again = run("report", "--model", narrow_folder, *options, "--json", "--quiet")
    assert json.loads(again.stdout)["answer"] == lines[0]
    assert not again.progress


def test_one_of_two_models_fails(run, narrow_folder, options, tmp_path):
    """Its weights are not there, and no network: the other is reported on, and the command ends with 1."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_bytes((narrow_folder / "config.json").read_bytes())
    done = run("report", "--model", tmp_path / "empty", "--model", narrow_folder, *options)
    assert_one_line_error(done, 1, "something failed of empty (", "the report has the rest")
    broken, whole = brdyn.read(tmp_path / "out").models
    assert broken.verdict.startswith("not measured: ")
    assert whole.sections == ("phases", "dynamics", "perturb", "interventions", "splice")
    assert broken.verdict.split("'")[0] in (tmp_path / "out" / "report.html").read_text().lower()


def test_several_processes_are_refused_at_once(run, narrow_folder, options, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert_one_line_error(run("report", "--model", narrow_folder, *options), 2, "one process", "torchrun")


def test_nothing_is_left_of_a_report_on_nothing(run, narrow_folder, options, tmp_path):
    assert_one_line_error(run("report", "--model", "dinov2_vitz99", *options), 2, "dinov2_vitz99")
    (tmp_path / "none").mkdir()
    done = run("report", "--model", narrow_folder, "--images", tmp_path / "none", *options[2:])
    assert_one_line_error(done, 2, "no images in")
    assert not (tmp_path / "out").exists()
