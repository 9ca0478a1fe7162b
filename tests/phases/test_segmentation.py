"""What users read: the chosen k, stability, alternatives, z-score, and the JSON round trip."""

import json
import subprocess
import sys

import numpy as np
import pytest

from brdyn.errors import UsageError
from brdyn.phases import Phases, boundary_frequency, drift_reference, segment
from tests.phases.similarities import similarity_of

STEP = {"layer": 3, "t": 1.0, "p": 0.1, "ratio": 2.0}


def blocks(*sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return (labels[:, None] == labels[None]).astype(float)


def test_three_equal_blocks_by_hand():
    phases = segment(blocks(2, 2, 2))
    assert phases.k == 3
    assert phases.boundaries == (2, 4)
    assert phases.intervals == [(1, 2), (3, 4), (5, 6)]
    assert phases.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert phases.total == 12  # 15 pairs, three of them inside blocks
    assert phases.chosen.cut == 12
    np.testing.assert_allclose(phases.gain_curve[:4], [0, 8 / 12, 1, 1])
    assert phases.segmentations[2].boundaries == (2,)
    others = phases.segmentations[2].alternatives
    assert [other.boundaries for other in others[:3]] == [(2,), (3,), (4,)]  # eight pairs cut by each
    assert [other.gap for other in others] == [0, 0, 0, 4, 4]
    assert "0.05" in phases.k_rule


def test_z_score_by_hand():
    # k = 2 over four layers: cuts at 1, 2, 3 of D = |l - m| give 6, 8, 6.
    distance = np.abs(np.arange(4)[:, None] - np.arange(4)[None]) / 10
    found = segment(1 - distance, k=2).chosen
    assert found.boundaries == (2,)
    assert found.cut == pytest.approx(0.8)
    cuts = np.array([0.6, 0.8, 0.6])
    assert found.z == pytest.approx((0.8 - cuts.mean()) / cuts.std())
    assert segment(1 - distance, k=1).chosen.z is None
    assert segment(1 - distance, k=4).chosen.z is None


def test_gains_add_up_to_the_share_cut():
    phases = segment(blocks(2, 2, 2))
    gains = [phases.segmentations[k].gain for k in range(1, 7)]
    assert gains == pytest.approx([0, 8 / 12, 4 / 12, 0, 0, 0])


def test_evenness_by_hand():
    assert segment(blocks(3, 3), k=2).evenness == pytest.approx(1)
    assert segment(blocks(1, 3), k=2).evenness == pytest.approx((4 * np.log(4) - 3 * np.log(3)) / (4 * np.log(2)))
    assert segment(blocks(4), k=1).evenness == 1


def test_where_every_phase_adds_enough_there_are_as_many_as_layers():
    distance = np.abs(np.arange(5)[:, None] - np.arange(5)[None]) / 10
    assert segment(1 - distance, min_gain=0).k == 5
    assert segment(1 - distance, min_gain=1).k == 1


def test_a_single_possible_segmentation_has_no_z():
    rng = np.random.default_rng(0)
    for _ in range(5):
        matrix = rng.random((12, 12))
        assert segment((matrix + matrix.T) / 2, min_size=6).segmentations[2].z is None


def test_a_drift_is_its_own_reference_and_blocks_are_not():
    distance = np.abs(np.arange(8)[:, None] - np.arange(8)[None]) / 10
    np.testing.assert_allclose(drift_reference(distance), distance)
    drifting = segment(1 - distance)
    assert all(s.cut_share == pytest.approx(s.drift_share) for s in drifting.segmentations.values())
    blocky = segment(blocks(4, 4))
    assert blocky.segmentations[2].cut_share > blocky.segmentations[2].drift_share + 0.2


def test_stability_counts_replicates():
    first, second = blocks(2, 4), blocks(3, 3)
    similarity = similarity_of(first, np.stack([first, first, first, second]))
    phases = segment(similarity, k=2)
    assert phases.boundaries == (2,)
    assert phases.stability == (0.75,)
    np.testing.assert_allclose(phases.frequency[1], [0, 0.75, 0.25, 0, 0])
    np.testing.assert_allclose(boundary_frequency(1 - similarity.replicates).sum(1), range(6))


def test_no_dissimilarity_at_all():
    phases = segment(np.ones((5, 5)))
    assert phases.k == 1
    assert phases.boundaries == ()
    assert phases.segmentations[3].z is None
    assert np.isfinite(phases.gain_curve).all()


def test_single_layer():
    assert segment(np.ones((1, 1))).to_dict()["segmentations"].keys() == {"1"}


def test_minimum_size_is_respected():
    distance = np.abs(np.arange(7)[:, None] - np.arange(7)[None]) / 10
    phases = segment(1 - distance, min_size=2)
    assert max(phases.segmentations) == 3
    for found in phases.segmentations.values():
        assert np.diff((0, *found.boundaries, 7)).min() >= 2


def test_recursive_method_sets_k_and_is_kept():
    phases = segment(blocks(4, 4, 4), method="recursive", eps=0.1)
    assert phases.k == 3
    assert phases.recursive.boundaries == phases.boundaries == (4, 8)
    assert "recursive" in phases.k_rule
    assert segment(blocks(4, 4, 4), method="recursive", seed=3).recursive.seed == 3
    assert segment(blocks(4, 4, 4), method="recursive").recursive.eps == 0.1  # as the notebook's


def test_json_round_trip():
    similarity = similarity_of(blocks(3, 3), np.stack([blocks(3, 3)] * 2))
    phases = segment(similarity, method="recursive")
    again = Phases.from_dict(json.loads(json.dumps(phases.to_dict())))
    assert again.to_dict() == phases.to_dict()
    assert again.boundaries == phases.boundaries
    assert again.recursive == phases.recursive
    earlier = json.loads(json.dumps(phases.to_dict()))
    del earlier["recursive"]["seed"]  # as of versions that did not keep it
    assert Phases.from_dict(earlier).recursive.seed is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k=0"),
        ({"k": 7}, "k=7 phases need at least 7 layers"),
        ({"k": 4, "min_size": 2}, "at least 2 layers need at least 8"),
        ({"min_size": 0}, "min_size=0"),
        ({"min_size": 9}, "min_size=9"),
        ({"method": "greedy"}, "unknown method 'greedy'"),
    ],
)
def test_wrong_requests(arguments, message):
    with pytest.raises(UsageError, match=message):
        segment(blocks(3, 3), **arguments)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((2, 3)), "not a square"),
        (np.array([[1, np.nan], [np.nan, 1]]), "not finite"),
        (np.array([[1.0, 0.5], [0.2, 1.0]]), "not symmetric"),
    ],
)
def test_wrong_matrices(matrix, message):
    with pytest.raises(UsageError, match=message):
        segment(matrix)


def test_phases_do_not_import_torch():
    code = "import sys, brdyn.phases; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestEvidence:
    """The cut and the verdict are two things."""

    @staticmethod
    def drift():
        return np.exp(-np.abs(np.subtract.outer(np.arange(12.0), np.arange(12.0))) / 12)

    def test_a_drift_is_cut_all_the_same(self):
        phases = segment(self.drift())
        assert phases.k > 1
        assert phases.evidence.k == 1
        assert phases.sentence().startswith("no phases beyond a smooth drift (largest step after layer ")
        assert phases.sentence().endswith(f"the best cut into {phases.k} is {list(phases.boundaries)}")

    def test_a_step_that_is_too_small_says_so_where_its_p_is_not_why(self):
        steps = np.ones(23)
        steps[11] = 1.45
        depth = np.append(0, steps.cumsum())
        evidence = segment(np.exp(-np.abs(np.subtract.outer(depth, depth)) / 24)).evidence
        assert evidence.largest.p < 0.05
        assert evidence.sentence() == (
            "no phases beyond a smooth drift (largest step after layer 12, t = 3.5, p = 0.027, but 1.44 x its trend, "
            "where 1.5 x is asked)"
        )
        assert "asked" not in segment(self.drift()).sentence()

    def test_k_can_be_what_the_evidence_supports(self):
        assert segment(self.drift(), k="test").k == 1
        assert segment(self.drift(), k="test").sentence().endswith("; all layers are one phase")
        depth = np.array([0, 1, 2, 3, 4, 5, 15, 16, 17, 18, 19, 20])
        phases = segment(np.exp(-abs(depth[:, None] - depth) / 20), k="test")
        assert (phases.k, phases.boundaries) == (2, (6,))

    def test_alpha_reaches_the_test(self):
        assert segment(self.drift(), alpha=0.2).evidence.alpha == 0.2
        with pytest.raises(UsageError, match="alpha 1"):
            segment(self.drift(), alpha=1)

    def test_survives_a_dictionary_and_may_be_missing(self):
        phases = segment(self.drift())
        values = phases.to_dict()
        assert Phases.from_dict(values).evidence.to_dict() == phases.evidence.to_dict()
        del values["evidence"]  # of an earlier version
        assert Phases.from_dict(values).evidence is None
        assert "smooth drift" not in Phases.from_dict(values).sentence()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"k": 3}, "evidence.k is 3 with 0 boundaries"),
            ({"steps": [1.0] * 10}, "are not 11 numbers each"),
            ({"untested": "why not"}, "are not 0 numbers each"),
            ({"largest": None}, "evidence.largest is there where there was no test, or missing"),
            (
                {"boundaries": [{"layer": 12, "t": 1.0, "p": 0.1, "ratio": 2.0}], "k": 2},
                "boundaries are not of the layers 1 to 11",
            ),
            ({"largest": STEP | {"layer": 12}}, "largest is not of one of the layers 1 to 11"),
            ({"largest": STEP | {"layer": 0}}, "largest is not of one of the layers 1 to 11"),
            ({"boundaries": [STEP, STEP], "k": 3}, r"the layers \[3, 3\]: not each once and in order"),
            ({"boundaries": [STEP, STEP | {"layer": 2}], "k": 3}, r"the layers \[3, 2\]: not each once"),
            ({"boundaries": [{"layer": 2}], "k": 2}, "has no 't'"),
            ({"alpha": -3.0}, "alpha -3.0 is not between 0 and 1"),
            ({"calibration": "zzz"}, "unknown calibration 'zzz'"),
            ({"steps": [-1.0] * 11}, "are not all above 0"),
        ],
    )
    def test_evidence_that_cannot_have_been_written(self, change, words):
        values = segment(self.drift()).to_dict()
        values["evidence"] |= change
        with pytest.raises(UsageError, match=words):
            Phases.from_dict(values)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                lambda values: values.update(total=-3.0),
                "the total dissimilarity is -3: layers would be more alike",
            ),
            (
                lambda values: values["segmentations"]["2"]["alternatives"][1].update(gap=-0.5),
                r"segmentations.2.alternatives\[1\].gap is -0.5: negative",
            ),
            (
                lambda values: values["segmentations"]["2"].update(stability=[1.5]),
                "segmentations.2.stability has a share that is not from 0 to 1",
            ),
            (
                lambda values: values.update(boundary_frequency=[[0.0] * 11] * 11 + [[-0.1] * 11]),
                r"boundary_frequency\[11\] has a share",
            ),
        ],
    )
    def test_numbers_of_a_sign_that_cannot_have_been_written(self, change, words):
        values = segment(self.drift()).to_dict()
        Phases.from_dict(values)
        change(values)
        with pytest.raises(UsageError, match=words):
            Phases.from_dict(values)

    def test_layers_more_alike_than_equal(self):
        """What is no similarity is refused, and rounding taken."""
        with pytest.raises(UsageError, match="the total dissimilarity is -6"):
            segment(np.full((4, 4), 2.0))
        assert segment(np.full((4, 4), 1 + 1e-7)).k == 1

    def test_prints_in_a_line(self):
        phases = segment(self.drift(), k=3)
        assert repr(phases) == f"Phases(layers=12, k=3, boundaries={list(phases.boundaries)}, evidence for k=1)"


def test_rounding_is_no_structure():
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 3e-7, (20, 6, 6))
    noisy = 1 - (noise + noise.transpose(0, 2, 1)) / 2
    for matrix in noisy:
        np.fill_diagonal(matrix, 1)
    found = segment(similarity_of(noisy[0], noisy))
    assert (found.k, found.boundaries, found.stability) == (1, (), None)
    assert "do not differ" in found.k_rule
    assert all(abs(one.cut_share) < 1e-4 and one.z is None for one in found.segmentations.values())
    assert segment(1 - 100 * (1 - noisy[0])).k > 1


@pytest.mark.parametrize("wrong", [{"min_gain": float("nan")}, {"min_gain": -1}, {"eps": float("inf")}, {"eps": -0.1}])
def test_shares_are_from_0_to_1(wrong):
    with pytest.raises(UsageError, match="is not a share of the dissimilarity, from 0 to 1"):
        segment(np.eye(4), **wrong)


def test_whether_there_are_phases_needs_no_replicates():
    """The test counts layers, not images; stability is what replicates are for."""
    matrix = blocks(6, 6)
    without, beside = (
        segment(similarity_of(matrix)),
        segment(similarity_of(matrix, np.stack([matrix, matrix]))),
    )
    assert without.evidence.to_dict() == beside.evidence.to_dict()
    assert (without.stability, without.frequency) == (None, None)
    assert beside.stability is not None


@pytest.mark.parametrize("kind", ["all equal", "equal but to themselves", "noise"])
def test_matrices_without_structure_have_no_phases(kind):
    """However many the convention names."""
    noise = np.random.default_rng(0).random((12, 12))
    matrix = {"all equal": np.full((12, 12), 0.3), "equal but to themselves": 0.3 + 0.7 * np.eye(12),
              "noise": (noise + noise.T) / 2}[kind]  # fmt: skip
    assert segment(matrix).evidence.k == 1
