"""What cannot be asked of phases and measures is refused in one line that says what can."""

import numpy as np
import pytest

import brdyn
from brdyn.data import load_images
from brdyn.errors import UsageError
from brdyn.trajectory import Stream
from tests.conftest import tiny_vit

STREAM = Stream(workers=0)
LAYERS = np.exp(-np.abs(np.subtract.outer([0, 1, 2, 12, 13, 14, 15], [0, 1, 2, 12, 13, 14, 15])) / 15)
"""Seven layers, a large step after the third."""


@pytest.mark.parametrize("k", [2.0, True, np.float64(2), "two"])
def test_a_number_of_phases_is_whole(k):
    for ask in (lambda: brdyn.segment(LAYERS, k), lambda: brdyn.segment(LAYERS).with_k(k)):
        with pytest.raises(UsageError, match=r"is not a whole number; give one|is neither a number of phases"):
            ask()
    assert brdyn.segment(LAYERS, np.int64(2)).boundaries == (3,)
    with pytest.raises(UsageError, match=r"`min_size=1\.0` is not a whole number"):
        brdyn.segment(LAYERS, min_size=1.0)
    with pytest.raises(UsageError, match="`k=None` is not a whole number"):
        brdyn.segment(LAYERS).with_k(None)


def test_phases_take_the_number_that_the_test_supports():
    found, asked = brdyn.segment(LAYERS, 4).with_k("test"), brdyn.segment(LAYERS, "test")
    assert found.k == asked.k == found.evidence.k == 2
    assert found.k_rule == asked.k_rule == "as many as the test supports at alpha 0.05"
    assert found.boundaries == (3,)
    without = brdyn.Phases.from_dict({**found.to_dict(), "evidence": None})
    with pytest.raises(UsageError, match="k='test' needs a test of these phases, which have none; give a"):
        without.with_k("test")


def test_boundaries_of_the_test_stand_beside_a_best_cut_that_has_others():
    depth = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17])  # one step stands out, and max-cut likes the middle
    found = brdyn.segment(1 - abs(depth[:, None] - depth) / 40, "test")
    assert (found.evidence.layers, found.boundaries) == ((11,), (7,))
    assert found.k_rule == (
        "as many as the test supports at alpha 0.05, where the best cut has them; "
        "boundaries of the test: after layer 11"
    )


def test_a_list_is_no_similarity():
    said = "is not a similarity of layers; give what `brdyn.layer_similarity` returns, or a NumPy array"
    with pytest.raises(UsageError, match=said):
        brdyn.segment(LAYERS.tolist())


@pytest.mark.parametrize(
    ("measure", "options", "said"),
    [
        (brdyn.perturbation_repair, {"eps": 0.2}, r"`eps=0\.2` is not a list; give \[0\.2\]"),
        (brdyn.perturbation_repair, {"starts": 3}, r"`starts=3` is not a list"),
        (brdyn.perturbation_repair, {"starts": [1.0]}, r"`starts\[0\]=1\.0` is not a whole number"),
        (brdyn.perturbation_repair, {"targets": "cls"}, r"`targets='cls'` is not a list; give \['cls'\]"),
        (brdyn.splice_skill, {"spans": [(0, 2.0)]}, r"`spans\[0\]\[1\]=2\.0` is not a whole number"),
        (brdyn.splice_skill, {"spans": [3]}, r"`spans\[0\]=3` is not a list"),
        (brdyn.splice_skill, {"surrogates": "mean"}, r"`surrogates='mean'` is not a list; give \['mean'\]"),
        (brdyn.layer_surgery, {"draws": 1.5}, r"`draws=1\.5` is not a whole number"),
        (brdyn.layer_surgery, {"apart": 1.5}, r"`apart=1\.5` is not a whole number"),
        (brdyn.layer_surgery, {"kinds": "swap"}, "`kinds='swap'` is not a list"),
        (brdyn.token_dynamics, {"measures": "speed"}, "`measures='speed'` is not a list"),
        (brdyn.token_dynamics, {"tangents": 2.0}, r"`tangents=2\.0` is not a whole number"),
        (brdyn.token_dynamics, {"rank": 2.0}, r"`rank=2\.0` is not a whole number"),
        (brdyn.token_dynamics, {"k": 2.0}, r"`k=2\.0` is not a whole number"),
    ],
)
def test_measures_refuse_numbers_that_are_not_whole_and_one_for_several(measure, options, said, noise_folder):
    model = tiny_vit()
    with pytest.raises(UsageError, match=said):
        measure(model, load_images(noise_folder, model, n=8), stream=STREAM, **options)
