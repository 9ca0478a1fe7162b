"""Studies and benchmarks run at small size, and the README says what the recorded results say."""

import json
import sys

import pytest
import torch

from analyses import (
    bench_capture,
    bench_dynamics,
    bench_segment,
    export_trunk,
    findings,
    phases_of_models,
    tables,
)
from analyses.recording import outdated
from brdyn import load_model
from tests.conftest import needs_offline, tiny_vit


def test_readme_and_docs_show_the_recorded_results():
    assert outdated(tables.pages()) == {}


def test_the_findings_page_is_what_the_recorded_results_say():
    results = findings.load()
    assert findings.PAGE.read_text() == findings.page(results)
    verdicts = [finding(results).holds for finding in findings.FINDINGS]
    assert {True, False, None} == set(verdicts)


def test_capture_benchmark_reports_a_ratio():
    cost = bench_capture.capture_cost(tiny_vit(), batch_size=2, rounds=4)
    low, high = cost["ratio_interval_95"]
    assert low <= cost["ratio"] <= high
    assert cost["similarity"] == "cosine"


def test_dynamics_benchmark_reports_shares_and_errors():
    model = tiny_vit()
    images = torch.randn(2, 3, 32, 32)
    found = bench_dynamics.measures_cost(model, images, rounds=2)
    assert found["share_of_a_forward"].keys() >= {"update", "estimation", "speed", "basins", "modes"}
    sweep = bench_dynamics.sweep_cost(model, images, rounds=2)
    assert sweep["ratio_with_its_own_clean_pass"] == pytest.approx(sweep["ratio"] + 1 / 5)
    assert bench_dynamics.rank_error(model, images)["effective_rank"] < 1e-3


def test_peak_memory_is_flat():
    streamed, kept = bench_capture.memory((50, 250)), bench_capture.memory((50, 250), how="keep")
    assert streamed["250"] < streamed["50"] + 50
    assert kept["250"] > kept["50"] + 150  # MiB: a megabyte an image


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
    assert content["provenance"]["command"].startswith(
        "brdyn phases --model imgfocus_vits14 --init random --seed 1"
    )
    assert "dinov2_vits41: left out, unknown model" in capsys.readouterr().out
    phases_of_models.main()
    assert capsys.readouterr().out.count("already recorded") == 2


@needs_offline
def test_an_exported_trunk_is_the_same_model(tmp_path, monkeypatch, imgfocus, images):
    monkeypatch.setattr(sys, "argv", ["export", "--file", str(tmp_path / "trunk.safetensors")])
    export_trunk.main()
    again = load_model("imgfocus_vits14", weights=tmp_path / "trunk.safetensors")
    assert again.info.digest == imgfocus.info.digest
    assert torch.equal(again(images), imgfocus(images))


@pytest.mark.parametrize(
    "study", [bench_capture, bench_dynamics, bench_segment, export_trunk, findings, phases_of_models, tables]
)
def test_every_study_explains_itself(study, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study", "--help"])
    with pytest.raises(SystemExit) as caught:
        study.main()
    assert caught.value.code == 0
    assert "usage" in capsys.readouterr().out
