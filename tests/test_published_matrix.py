"""The study of DINOv2's published matrix: what rounding leaves open, and cuts whose answer is known."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from analyses import published_matrix
from analyses.published_matrix import bisection, cut_by, cuts, read, study, unrounded

MATRIX = Path(__file__).resolve().parents[2] / "shared/data/published/dinov2_vitb14_reg_dissimilarity.json"
DEPTH = np.arange(12.0)
DRIFT = 1 - np.exp(-np.abs(DEPTH[:, None] - DEPTH) / 12).round(2)


def test_matrices_that_round_to_one():
    drawn = unrounded(DRIFT, 5)
    np.testing.assert_array_equal(drawn.round(2), np.stack([DRIFT] * 5).round(2))
    np.testing.assert_array_equal(drawn, drawn.swapaxes(1, 2))
    assert (np.abs(drawn - DRIFT)[:, *np.triu_indices(12, 1)] > 0).all()
    assert (drawn[:, range(12), range(12)] == 0).all()


def test_share_cut_by_hand():
    layers = np.array([0.0, 1, 3])
    distance = np.abs(layers[:, None] - layers)  # 1, 2 and 3
    assert cut_by(distance, [1]) == pytest.approx(4 / 6)
    assert cut_by(np.stack([distance, 2 * distance]), [2]).tolist() == pytest.approx([5 / 6, 5 / 6])


def test_bisection_keeps_its_first_boundary_and_the_largest_cut_does_not():
    """A steady drift is cut into three at 4 and 8; bisection cuts at 6 first."""
    first = bisection(DRIFT, 2)
    assert first == [6]
    found = cuts(DRIFT, unrounded(DRIFT, 20), 3, [4, 8])
    assert (found["exact"], found["behind"]) == ([4, 8], 0.0)
    behind = cuts(DRIFT, unrounded(DRIFT, 20), 3, [3, 6])
    assert behind["exact_as_published"] == 0
    assert behind["behind"] == pytest.approx(float(cut_by(DRIFT, [4, 8]) - cut_by(DRIFT, [3, 6])))
    assert 0 < behind["behind_interval_95"][0] < behind["behind"] < behind["behind_interval_95"][1]


def test_a_file_is_studied_recorded_and_read(tmp_path, monkeypatch, capsys):
    blocks = np.concatenate([DEPTH[:6], DEPTH[6:] + 9])  # one step of ten
    content = {
        "what": "blocks", "dissimilarity": np.abs(blocks[:, None] - blocks).tolist(),
        "published_boundaries": {"2": [6]},
    }  # fmt: skip
    (tmp_path / "matrix.json").write_text(json.dumps(content))
    argv = ["it", "--matrix", str(tmp_path / "matrix.json"), "--out", str(tmp_path), "--draws", "3"]
    monkeypatch.setattr(sys, "argv", argv)
    published_matrix.main()
    assert capsys.readouterr().out.strip() == str(tmp_path / "published_matrix.json")
    found = read(tmp_path)
    assert found["phases"].with_k(2).boundaries == (6,)
    assert found["cuts"]["2"]["bisection"] == found["cuts"]["2"]["exact"] == [6]
    assert found["rounding"]["k"] == [2, 2]
    assert found["rounding"]["layers"] == [6]


@pytest.mark.skipif(not MATRIX.is_file(), reason="the published DINOv2 matrix is not here")
def test_the_record_is_what_the_published_matrix_gives():
    again, recorded = study(json.loads(MATRIX.read_text()), draws=10), read()
    for k, one in recorded["cuts"].items():
        for name in ("published", "bisection", "exact"):
            assert again["cuts"][k][name] == one[name]
        assert again["cuts"][k]["behind"] == pytest.approx(one["behind"])
    assert again["phases"]["evidence"]["largest"] == pytest.approx(recorded["phases"].evidence.largest._asdict())
    shares = [recorded["phases"].segmentations[k] for k in (2, 3, 4)]
    assert [round(one.cut_share, 3) for one in shares] == [0.722, 0.855, 0.923]  # method notes, section 3
    assert [round(one.drift_share, 3) for one in shares] == [0.713, 0.865, 0.923]
