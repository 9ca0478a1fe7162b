"""Studies and benchmarks run at small size, and the README says what the recorded results say."""

import json
import runpy
import sys

import pytest

from analyses import bench_capture, bench_segment, phases_of_models, tables
from tests.conftest import needs_offline, tiny_vit


def test_readme_and_docs_show_the_recorded_results():
    assert tables.rewrite(check=True) == []


def test_capture_benchmark_reports_a_ratio():
    cost = bench_capture.capture_cost(tiny_vit(), batch_size=2, rounds=4)
    low, high = cost["ratio_interval_95"]
    assert low <= cost["ratio"] <= high
    assert cost["similarity"] == "cosine"


def test_peak_memory_is_flat():
    peaks = bench_capture.memory((50, 300))
    assert peaks["300"] < peaks["50"] + 60  # MiB; the states of 250 more images are 250


def test_segment_benchmark_searches_agree():
    weights = bench_segment.matrix(8)
    best = bench_segment.plain_exhaustive(weights)
    assert best == pytest.approx(bench_segment.exhaustive_cut(weights)[0])


@needs_offline
def test_phases_study_records_and_resumes(tmp_path, monkeypatch, capsys):
    command = [
        "study",
        "--images",
        "samples",
        "--n",
        "16",
        "--out",
        str(tmp_path),
        "--models",
        "dinov2_vits41",
    ]
    monkeypatch.setattr(sys, "argv", command)
    every = phases_of_models.studies
    chosen = ("imgfocus_vits14", "imgfocus_vits14_random1", "dinov2_vits41")
    monkeypatch.setattr(
        phases_of_models, "studies", lambda m: {n: o for n, o in every(m).items() if n in chosen}
    )
    phases_of_models.main()
    content = json.loads((tmp_path / "imgfocus_vits14_random1" / "phases.json").read_text())
    assert content["weights"] == "random (untrained, seed 1)"
    assert "dinov2_vits41: left out, unknown model" in capsys.readouterr().out
    phases_of_models.main()
    assert capsys.readouterr().out.count("already recorded") == 2


def test_modules_run_as_scripts(monkeypatch, capsys):
    for name in ("bench_capture", "bench_segment", "phases_of_models", "tables"):
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        with pytest.raises(SystemExit) as caught:
            runpy.run_module(f"analyses.{name}", run_name="__main__")
        assert caught.value.code == 0
    assert "usage" in capsys.readouterr().out
