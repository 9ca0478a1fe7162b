"""Whether one block does the work of a phase: by how faithful a Raptor is, over what, and with which blocks."""

import numpy as np
import pytest

from brdyn.phases import segment
from brdyn.reporting.verdict import findings, verdict
from tests.reporting.built import DRIFT, HALVES, JUMP, answer, evaluation
from tests.reporting.built import found as measured


def block(found, matrix=JUMP):
    return answer("block", {"phases": segment(matrix), "raptor-eval": found})


def test_a_block_is_as_good_as_its_worst_layer():
    found = block(evaluation([0.95] * 11 + [0.92], 0.4))
    assert (found.answer, found.short) == ("yes", "2 blocks for 12 layers, R² ≥ 0.92")
    assert found.sentence == (
        "the Raptor goes its own way faithfully: 2 blocks for 12 layers (1-6; 7-12): R² 0.92 at least, at layer 12; "
        "skill over one affine map for each layer 0.40 [0.39, 0.41] at the last"
    )
    worse = block(evaluation([0.99, 0.4] + [0.99] * 10, 0.5))
    assert (worse.answer, worse.short) == ("unclear", "R² down to 0.40")
    assert "does not follow the model: 2 blocks for 12 layers (1-6; 7-12): R² 0.40 at least, at layer 2" in (
        worse.sentence
    )


@pytest.mark.parametrize(
    ("skill", "half", "said", "short"),
    [
        (
            0.4,
            np.nan,
            "yes",
            "2 blocks for 12 layers, R² ≥ 0.95",
        ),  # of maps in halves alone there is no interval
        (0.4, 0.5, "unclear", "not told from a linear map"),
        (-0.1, 0.01, "unclear", "so can a linear map"),
        (-0.1, np.nan, "unclear", "so can a linear map"),
        (np.nan, np.nan, "unclear", "no map to compare with"),
    ],
)
def test_a_block_does_what_no_linear_map_does(skill, half, said, short):
    """With the whole interval of its skill, where there is one; bare R² tells nothing."""
    found = block(evaluation(0.95, skill, half=half))
    assert (found.answer, found.short) == (said, short)


def test_a_map_that_was_not_fitted_is_said():
    """With what the Raptor is better than; in results of earlier versions nothing is."""
    wide = block(evaluation(0.95, np.nan, mean_update=0.6))
    assert wide.sentence.endswith(
        "skill over an affine map is not known (they would take 5 GiB); over the mean update 0.60 [0.59, 0.61] at the "
        "last"
    )
    early = block(evaluation(0.95, np.nan, fitted=False))
    assert (early.answer, early.short) == ("unclear", "no map to compare with")
    assert early.sentence.endswith("(no baseline was measured)")


@pytest.mark.parametrize(
    ("assignment", "short", "words"),
    [
        (range(12), "a block for each layer", "12 blocks for 12 layers (1; 2; 3; "),
        (
            [0, 1] * 6,
            "blocks of other layers",
            "2 blocks for 12 layers (1, 3, 5, 7, 9, 11; 2, 4, 6, 8, 10, 12)",
        ),
        ([0] * 12, "blocks of other layers", "1 block for 12 layers (1-12)"),
        ([0] * 5 + [1] * 7, "blocks of other layers", "2 blocks for 12 layers (1-5; 6-12)"),
        ([0] * 6 + [1] * 3 + [0] * 3, "blocks of other layers", "2 blocks for 12 layers (1-6, 10-12; 7-9)"),
    ],
)
def test_blocks_of_other_layers_say_nothing_of_the_phases(assignment, short, words):
    """However faithful: phases of layers 1 to 6 and 7 to 12 are shown, and no block is that of one."""
    found = evaluation(0.95, 0.9, assignment)
    told = block(found)
    assert (told.answer, told.short) == ("unclear", short)
    assert words in told.sentence
    if "other" in short:
        assert told.change == "a Raptor of the phases: `brdyn raptor-fit` with `boundaries=6`"
    said = verdict(findings(measured({"phases": segment(JUMP), "raptor-eval": found})), untrained=False)
    assert said == (
        "not shown to be block-recurrent: its depth falls into 2 phases, and that one block does the work of each is "
        "not shown"
    )


def test_a_block_that_comes_again_is_not_of_one_phase():
    """Phases of layers 1 to 4, 5 to 8 and 9 to 12."""
    depth = np.arange(12) + 10 * (np.arange(12) // 4)
    matrix = np.exp(-abs(depth[:, None] - depth) / 20)
    assert block(evaluation(0.95, 0.9, [0] * 4 + [1] * 4 + [2] * 4), matrix).answer == "yes"
    again = block(evaluation(0.95, 0.9, [0] * 4 + [1] * 4 + [0] * 4), matrix)
    assert (again.answer, again.short) == ("unclear", "blocks of other layers")
    assert again.change.endswith("`boundaries=4,8`")


def test_blocks_are_named_where_there_are_no_phases():
    """Of the cut that is chosen, or of any other: they are the Raptor's own."""
    for assignment, blocks in (([0] * 12, "1 block"), (HALVES, "2 blocks")):
        found = evaluation(0.95, 0.9, assignment)
        said = verdict(findings(measured({"phases": segment(DRIFT), "raptor-eval": found})), untrained=False)
        assert said == (
            "fewer blocks than layers can do its work, without phases of its own: its depth shows no phases beyond a "
            f"smooth drift, and a Raptor does its work with {blocks} for 12 layers, R² ≥ 0.95"
        )
    assert block(evaluation(0.95, 0.9, range(12)), DRIFT).answer == "unclear"
