"""The study of the test for phases: what it draws, how it counts, and what it has recorded."""

import json
import sys

import numpy as np
import pytest

from analyses import phase_test
from analyses.phase_test import (
    Judged,
    drawn,
    forgetting,
    judged,
    percentage,
    places,
    shares,
    structureless,
    with_blocks,
)
from brdyn.phases import evidence, phase_evidence


def test_blocks_have_larger_steps_at_their_boundaries_alone():
    kernel = with_blocks(12, 3, 6.0, phase_test.steady, np.random.default_rng(0))
    steps = -np.log(np.diagonal(kernel, 1))
    assert np.argsort(steps)[-2:].tolist() in ([3, 7], [7, 3])
    np.testing.assert_allclose(steps[3] / np.delete(steps, [3, 7]), 6)


def test_states_have_the_covariance_asked_for():
    kernel = forgetting(places(np.ones(5)))
    found = np.mean([drawn(kernel, np.random.default_rng(seed)).matrix for seed in range(40)], axis=0)
    np.testing.assert_allclose(found, kernel, atol=0.02)


def test_noise_is_the_narrower_the_farther_from_none():
    """Cosines of noise of width w have variance 1 / w, their means over 8 images 1 / 8 w."""
    families = structureless(40)
    noise = {name: family for name, family in families.items() if name.startswith("noise")}
    assert [family.width for family in noise.values()] == [phase_test.WIDTH, *phase_test.NARROW]
    for family in noise.values():
        found = family.network(np.random.default_rng(0)).matrix[np.triu_indices(40, 1)].var()
        assert found == pytest.approx(1 / (phase_test.IMAGES * family.width), rel=0.2)


def test_narrow_noise_bites_a_test_that_takes_every_step_for_one(monkeypatch):
    """Of which the study knew nothing as long as its noise was wide."""
    family, random = structureless(24)["noise of width 8"], np.random.default_rng(0)
    matrices = [family.network(random).matrix for _ in range(30)]
    assert sum(phase_evidence(1 - matrix).k > 1 for matrix in matrices) <= 2
    monkeypatch.setattr(evidence, "BEYOND_NOISE", 0)
    assert sum(phase_evidence(1 - matrix).k > 1 for matrix in matrices) >= 20


def test_a_percentage_has_its_exact_interval():
    """Of none in 40: 1 - .025 ** (1 / 40) is the high end. Of all: 100 - that is the low one."""
    end = 100 * (1 - 0.025 ** (1 / 40))
    none = percentage({"test": 0.0, "draws": 40})
    assert (none.value, none.low, none.high) == pytest.approx((0, 0, end))
    every = percentage({"test": 0.0, "test_simulated": 1.0, "draws": 40}, "test_simulated")
    assert (every.value, every.low, every.high) == pytest.approx((100, 100 - end, 100))


def test_shares_by_hand():
    said = [
        Judged((4,), (), 3, 0.1, 1.0, 0.8),
        Judged((), (), 1, -0.1, 2.0, 0.6),
        Judged((2, 5), (5,), 2, 0.0, 3.0, 1.0),
        Judged((), (), 2, 0.2, 2.0, 0.8),
    ]
    assert shares(said) == pytest.approx(
        {"test": 0.5, "test_simulated": 0.25, "gain_rule": 0.75, "excess_over_drift": 0.5, "mean_z": 2.0,
         "mean_stability": 0.8}
    )  # fmt: skip


def test_a_network_of_blocks_is_told_from_a_drift():
    random = np.random.default_rng(0)
    assert judged(drawn(with_blocks(24, 2, 12.0, phase_test.steady, random), random)).boundaries == (12,)
    drift = judged(drawn(forgetting(places(np.ones(23))), random))
    assert (drift.boundaries, drift.boundaries_simulated) == ((), ())
    assert drift.k_by_gain > 1  # the older rule says phases all the same


def test_the_recorded_size_and_power_are_as_promised():
    """False positives at most .07, of rough drifts of 12 layers .11, of any noise .04; power at sixfold steps .85, .85,
    .7 and .95."""
    sizes, powers, networks = (phase_test.read_rows(kind) for kind in ("size", "power", "untrained"))
    assert (len(sizes), len(powers), len(networks)) == (3 * 9, 3 * 3 * 3, 3 * 3 * 8)
    for row in sizes:
        rough = row["layers"] == 12 and "rough" in row["family"]
        assert row["test"] <= (0.11 if rough else 0.07), row
        assert row["test_simulated"] <= 0.06, row
        assert not row["family"].startswith("noise") or row["test"] <= 0.04, row
        assert row["gain_rule"] == 1.0
    least = {(12, 2): 0.85, (12, 3): 0.85, (12, 4): 0.7}
    for row in powers:
        if row["jump"] == 6:
            assert row["test"] >= least.get((row["layers"], row["k"]), 0.95), row
    assert sum(bool(one["boundaries"]) for one in networks) <= 3


def test_a_depth_is_drawn_by_its_seed_and_recorded_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["it", "--out", str(tmp_path), "--draws", "2", "--only", "size_12"])
    phase_test.main()
    rows = json.loads((tmp_path / "size_12.json").read_text())["rows"]
    assert [row["family"] for row in rows] == [
        *phase_test.DRIFTS,
        "geodesic",
        "noise",
        "noise of width 8",
        "noise of width 32",
        "noise of width 192",
    ]
    assert rows == list(phase_test.size_of_test(12, 2))
    phase_test.main()
    assert capsys.readouterr().out.splitlines()[-1] == "size_12: already recorded"
