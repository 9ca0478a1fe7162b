"""The test for phases: against refits without each step, on cases whose answer is known, and its size and power."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from brdyn.errors import UsageError
from brdyn.phases.evidence import (
    Evidence,
    _Round,
    _simulated,
    _simulated_quantile,
    layer_steps,
    phase_evidence,
)

PUBLISHED = Path(__file__).resolve().parents[3] / "shared/data/published/dinov2_vitb14_reg_dissimilarity.json"
STEADY = np.arange(12.0)


def along(depth):
    """Dissimilarity of layers at these places of a path that forgets where it came from."""
    return 1 - np.exp(-np.abs(depth[:, None] - depth) / depth[-1])


def blocks(layers, boundaries, jump=6.0, rough=0.0, seed=0):
    steps = np.exp(np.random.default_rng(seed).normal(0, rough, layers - 1))
    steps[[layer - 1 for layer in boundaries]] *= jump
    return along(np.concatenate([[0], steps.cumsum()]))


def refitted(steps, gap):
    """Studentised residual and ratio of a step by fitting the trend to the others alone."""
    place = np.arange(1.0, len(steps) + 1)
    design = np.stack([np.ones_like(place), place, np.log(place)], axis=1)
    others = np.arange(len(steps)) != gap
    weights, squares, *_ = np.linalg.lstsq(design[others], np.log(steps[others]), rcond=None)
    spread = max(np.sqrt(squares[0] / (others.sum() - 3)), 0.1)
    reach = design[gap] @ np.linalg.inv(design[others].T @ design[others]) @ design[gap]
    miss = np.log(steps[gap]) - design[gap] @ weights
    return miss / (spread * np.sqrt(1 + reach)), np.exp(miss)


class TestSteps:
    def test_a_step_is_what_neighbours_see_of_it(self):
        places = np.array([0.0, 1, 3, 4])
        distance = np.abs(places[:, None] - places)  # on a line neighbours see every step in full
        np.testing.assert_allclose(layer_steps(distance), [1, 2, 1])

    def test_what_is_private_to_a_layer_cancels(self):
        distance = np.abs(STEADY[:, None] - STEADY)
        apart = distance + np.where(STEADY[:, None] == STEADY, 0, 5.0)  # every layer 5 from all others
        np.testing.assert_allclose(layer_steps(apart), layer_steps(distance))

    def test_steps_are_floored(self):
        steps = layer_steps(np.ones((8, 8)) - np.eye(8))  # no step brings anything nearer
        np.testing.assert_allclose(steps, 0.05)


class TestOneNetwork:
    def test_the_largest_step_is_that_of_refits(self):
        dissimilarity = blocks(12, [7], jump=3, rough=0.3)
        evidence = phase_evidence(dissimilarity)
        by_hand = [refitted(layer_steps(dissimilarity), gap) for gap in range(11)]
        gap = int(np.argmax([t for t, _ in by_hand]))
        assert evidence.largest.layer == gap + 1
        np.testing.assert_allclose([evidence.largest.t, evidence.largest.ratio], by_hand[gap], rtol=1e-9)

    def test_p_is_corrected_for_the_number_of_steps(self):
        evidence = phase_evidence(blocks(12, [], rough=0.3, seed=4))
        assert evidence.k == 1
        assert evidence.largest.p == pytest.approx(min(1.0, 11 * stats.t.sf(evidence.largest.t, 7)))

    @pytest.mark.parametrize("calibration", ["bonferroni", "simulated"])
    def test_finds_blocks(self, calibration):
        for boundaries in ([6], [4, 8], [3, 6, 9]):
            evidence = phase_evidence(blocks(12, boundaries, rough=0.1), calibration=calibration)
            assert list(evidence.layers) == boundaries
            assert evidence.k == len(boundaries) + 1
            assert all(one.p <= 0.05 and one.ratio >= 1.5 for one in evidence.boundaries)

    def test_boundaries_that_hide_each_other_are_found(self):
        """The first step of several stands out little among the others; the p it is given is the later ones'."""
        evidence = phase_evidence(blocks(24, [6, 12, 18], jump=6, rough=0.2, seed=1))
        assert evidence.layers == (6, 12, 18)

    def test_a_step_of_less_than_half_its_trend_more_is_no_boundary(self):
        """However unlikely: a step 1.4 times as large as eleven equal ones."""
        assert phase_evidence(blocks(24, [12], jump=1.4)).k == 1
        assert phase_evidence(blocks(24, [12], jump=1.8)).k == 2

    @pytest.mark.parametrize("layers", [7, 12, 24, 40])
    def test_a_drift_has_no_phases(self, layers):
        steady, growing = np.arange(float(layers)), np.exp(np.linspace(0, 2, layers))
        circle = np.linspace(0, np.pi / 2, layers)
        for dissimilarity in (along(steady), along(growing - 1), 1 - np.cos(circle[:, None] - circle)):
            assert phase_evidence(dissimilarity).k == 1

    def test_a_boundary_lies_above_the_limit_and_the_other_steps_below(self):
        evidence = phase_evidence(blocks(24, [8, 16], rough=0.2))
        above = np.flatnonzero(evidence.steps > evidence.limit) + 1
        assert tuple(above) == evidence.layers == (8, 16)
        rest = np.delete(np.arange(23), [7, 15])
        np.testing.assert_allclose(
            np.log(evidence.steps / evidence.trend)[rest].mean(), 0, atol=1e-9
        )  # the trend is fitted to them

    @pytest.mark.parametrize("calibration", ["bonferroni", "simulated"])
    @pytest.mark.parametrize("layers", [12, 24])
    def test_the_limit_parts_what_the_test_does(self, layers, calibration):
        """Of rough drifts with up to three larger steps: no boundary within the band that is drawn, no other beyond.

        And a boundary has its own p, or that of a passing step that was set aside later.
        """
        rng, boundaries = np.random.default_rng(1), 0
        for _ in range(150):
            steps = np.exp(rng.normal(0, 0.3, layers - 1))
            for gap in rng.choice(layers - 1, rng.integers(0, 4), replace=False):
                steps[gap] *= rng.choice([1.5, 2, 3, 6])
            evidence = phase_evidence(along(np.cumsum([0, *steps])), calibration=calibration)
            at = np.array(evidence.layers, dtype=int) - 1
            assert (evidence.steps[at] >= evidence.limit[at]).all()
            assert (np.delete(evidence.steps, at) <= np.delete(evidence.limit, at)).all()
            assert all(0 < one.p <= 0.05 for one in evidence.boundaries)
            boundaries += len(at)
        assert boundaries > 50

    def test_the_limit_of_simulated_calibration_is_its_own(self):
        """A step just beyond it passes, one just within does not; Bonferroni's lies elsewhere."""
        rough = blocks(12, [], rough=0.3, seed=4)
        evidence = phase_evidence(rough, calibration="simulated")
        assert evidence.k == 1
        p = [
            _simulated([_Round(0, t, 2.0)], 12)[0] for t in (0.999, 1.001) * np.array(_simulated_quantile(0.05, 11, 12))
        ]
        assert p[1] <= 0.05 < p[0]
        assert (evidence.limit > phase_evidence(rough).limit).all()

    def test_no_boundary_has_the_p_of_a_step_that_fails(self):
        """Set aside after the last that passes, or by its ratio no boundary: rounds by hand."""
        rounds = [_Round(3, 3.0, 2.0), _Round(7, 2.0, 2.0), _Round(9, 9.0, 1.4), _Round(1, 2.0, 2.0)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("brdyn.phases.evidence._set_aside", lambda _: rounds)
            patch.setattr("brdyn.phases.evidence._bonferroni", lambda *_: np.array([0.04, 0.03, 1e-9, 0.2]))
            found = phase_evidence(blocks(24, []))
        assert [(one.layer, one.p) for one in found.boundaries] == [(4, 0.03), (8, 0.03)]
        assert found.largest.p == 0.03

    def test_level(self):
        dissimilarity = blocks(12, [6], jump=2.5, rough=0.3, seed=0)
        largest = phase_evidence(dissimilarity).largest
        assert 0.01 < largest.p < 0.9
        assert largest.ratio > 1.5
        assert phase_evidence(dissimilarity, alpha=largest.p + 0.001).layers == (largest.layer,)
        assert phase_evidence(dissimilarity, alpha=largest.p - 0.001).k == 1

    def test_survives_json(self):
        for dissimilarity in (blocks(12, [6]), along(STEADY), np.zeros((12, 12)), along(STEADY[:4])):
            evidence = phase_evidence(dissimilarity)
            read = Evidence.from_dict(json.loads(json.dumps(evidence.to_dict())))
            assert read.to_dict() == evidence.to_dict()
            assert read.sentence() == evidence.sentence()


class TestWhatCannotBeTested:
    @pytest.mark.parametrize("layers", [5, 6])
    def test_few_layers(self, layers):
        evidence = phase_evidence(blocks(layers, [3], jump=50))
        assert evidence.k == 1
        assert evidence.largest is None
        assert f"{layers} layers are too few (at least 7" in evidence.sentence()

    def test_equal_layers(self):
        assert "the layers do not differ" in phase_evidence(np.zeros((12, 12))).sentence()

    @pytest.mark.parametrize("width", [None, 50, 400, 2000])
    @pytest.mark.parametrize("layers", [12, 24])
    def test_noise_has_no_phases(self, layers, width):
        """States that have nothing in common, or numbers that are of none: half of the steps are negative then."""
        found = []
        for seed in range(60):
            noise = np.random.default_rng(seed).normal(size=(layers, width or layers))
            matrix = 1 - np.corrcoef(noise) if width else np.abs(noise + noise.T)
            found.append(phase_evidence(matrix).k > 1)
        assert np.mean(found) <= 0.07

    def test_a_step_within_noise_is_none(self):
        """Places on a line: steps of .8, 28/15, -.5 and 1. What goes back by .5 makes all below 1 as good as none."""
        places = np.array([0, 0.8, 3, 2.5, 4])
        assert layer_steps(np.abs(np.subtract.outer(places, places))) == pytest.approx([1, 28 / 15, 1, 1])

    @pytest.mark.parametrize("alpha", [0, 1, -1, 2, np.nan])
    def test_a_level_that_is_none(self, alpha):
        with pytest.raises(UsageError, match="not between 0 and 1"):
            phase_evidence(blocks(12, []), alpha)

    def test_unknown_calibration(self):
        with pytest.raises(UsageError, match=r"'exact'.*bonferroni, simulated"):
            phase_evidence(blocks(12, []), calibration="exact")


def rate(calibration, boundaries, roughness, draws=150):
    """Share of drifts, or of blocks of sixfold steps, that are called phases."""
    called = [
        phase_evidence(blocks(12, boundaries, rough=rough, seed=seed), calibration=calibration).k > 1
        for rough in roughness
        for seed in range(draws)
    ]
    return np.mean(called)


def test_size_and_power():
    """Seeded, without the noise of images; the whole study is `analyses.phase_test`."""
    assert rate("bonferroni", [], [0.3]) <= 0.11
    assert rate("simulated", [], [0.3]) <= 0.05
    assert rate("bonferroni", [6], [0.1, 0.3]) >= 0.85
    assert rate("bonferroni", [4, 8], [0.1, 0.3]) >= 0.85
    assert rate("simulated", [3, 6, 9], [0.1, 0.3]) >= 0.7


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published DINOv2 matrix is not here")
def test_the_published_dinov2_matrix():
    """Method notes, section 9: none at alpha .05, layer 11 nearest, t 2.7."""
    dissimilarity = np.array(json.loads(PUBLISHED.read_text())["dissimilarity"])
    evidence = phase_evidence(dissimilarity)
    assert evidence.k == 1
    assert evidence.largest.layer == 11
    assert evidence.largest.t == pytest.approx(2.69, abs=0.01)
    assert evidence.largest.p == pytest.approx(0.17, abs=0.01)
