"""What results say: the answer in words first, then a small table, by one numbering of depth."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from brdyn import segment
from brdyn.interventions import Repair, Surgery
from brdyn.measures.dynamics import Dynamics
from brdyn.words import table_lines

EYE = np.kron(np.eye(2), np.ones((2, 2)))
PHASES = segment(EYE, 2)  # four layers, cut after layer 2


def row(mean, half=0.0, **where):
    return {**where, "mean": mean, "low": mean - half, "high": mean + half, "sd": half, "n_images": 4}


def curve(statistic, group, values, first=0, half=0.0):
    return [
        row(value, half, statistic=statistic, unit="", group=group, layer=layer)
        for layer, value in enumerate(values, first)
    ]


def dynamics(*curves):
    return Dynamics(pd.DataFrame([one for rows in curves for one in rows]), PHASES, {})


def test_words_stand_left_and_numbers_right():
    rows = [{"a": "x", "number": 1}, {"a": "long", "number": 0.12345}, {"a": "", "number": math.nan}]
    assert table_lines(rows) == ["a     number", "x          1", "long   0.123", "           –"]
    assert table_lines([]) == []


def test_dynamics_answer_when_directions_settle_and_turn():
    found = dynamics(
        curve("convergence", "cls", [0.1, 0.4, 0.6, 0.9, 1]),
        curve("convergence", "patches", [0.1, 0.2, 0.3, 0.4, 1]),
        curve("speed", "cls", [0.1, 0.5, 0.2, 0.1], 1),
    )
    assert found.summary().splitlines()[0] == found.answer()
    assert found.answer() == (
        "within 60 degrees of the final direction: cls from state 2 of 4, patches only after the last of 4 blocks; "
        "turning fastest: cls at update 2 (0.50 radians)"
    )


def test_depth_has_one_numbering():
    found = dynamics(
        curve("norm", "cls", [1, 2, 3, 4, 5]),  # of the states
        curve("speed", "cls", [0.4, 0.3, 0.2, 0.1], 1),  # of the updates
        curve("turning", "cls", [0.1, 0.2, 0.3], 1),  # between two of them
        curve("estimation_mean", "cls", [0.5, 0, 0.2, 0], first=1),  # of the blocks; the last of a phase is its end
    )
    places = {one["statistic"]: (one["there"], one["at"]) for one in found.overview()}
    assert places == {
        "norm": ("state 0", "state 4"),
        "speed": ("update 4", "update 1"),
        "turning": ("updates 1 to 2", "updates 3 to 4"),
        "estimation mean": ("block 3", "block 1"),
    }


def test_first_and_last_say_where_they_are():
    """A ratio of directions that are all one in the embedding begins later, and what is 0 by definition is no end."""
    found = dynamics(
        curve("basin_ratio", "cls", [math.nan, 0.974, 0.9, 0.8, 0.7]),
        curve("estimation_mean", "cls", [0.5, 0, 0.2, 0], first=1),
    )
    ends = [(one["first"], one["from"], one["last"], one["to"]) for one in found.overview()]
    assert ends == [(0.974, "state 1", 0.7, "state 4"), (0.5, "block 1", 0.2, "block 3")]


def test_too_few_images_are_told_by_intervals():
    few = [dynamics(curve("speed", "cls", [0.1, 0.5, 0.2], half=half)) for half in (0.19, 0.21)]
    said = ["\n".join(found.remarks()) for found in few]
    assert "too few" not in said[0]  # 0.1 + 0.19 lies below 0.5 - 0.19
    assert "too few images to tell depths apart" in said[1]
    assert "speed of cls" in said[1]
    one = dynamics(curve("speed", "cls", [0.1, 0.5, 0.2], half=math.nan))
    assert "one image: nothing is known of intervals" in one.remarks()


def grown(eps, target, rates, half=0.01):
    """Growth from states 0, 1, …"""
    return [
        {**row(rate, half, start=start, eps=eps, target=target, group=target), "half_repair": 2.0}
        for start, rate in enumerate(rates)
    ]


def repair(growth, largest=0.2):
    angles = [
        row(angle, start=start, eps=eps, target="cls", group=group, perturbed=group == "cls", layer=4)
        for eps in (0.0, largest)
        for group, factor in (("cls", 1), ("patches", 0.5 * (eps > 0)))
        for start, angle in enumerate([0.1, 0.2, 0.3, 0.4, 0.5 * factor])
    ]
    return Repair(pd.DataFrame(angles), pd.DataFrame(growth), PHASES)


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ([math.log(0.5)] * 4, "cls repaired from every state (-50% a block)"),
        ([math.log(2)] * 4, "cls amplified from every state (+100% a block)"),
        ([0.001] * 4, "cls neither growth nor repair can be told (+0% a block)"),
        (
            [-0.5, 0.5, 0.005, -0.005],
            "cls repaired from 1 of 4 states, amplified from 1 of 4 states, undecided from 2 of 4 states (+0% a block)",
        ),
    ],
)
def test_repair_is_told_by_the_intervals_of_growth(rates, said):
    found = repair(grown(0.2, "cls", rates))
    assert found.answer() == f"noise of 0.2 (relative to the token): {said}"
    untold = sum(abs(rate) < 0.01 for rate in rates)
    assert any(f"in {untold} of 4 cases" in line for line in found.remarks()) == (untold > 0)


def test_no_noise_has_no_rows():
    found = repair([*grown(0.0, "cls", [0, 0, 0, 0]), *grown(0.2, "cls", [-1, -1, -1, -1])])
    assert [one["noise"] for one in found.overview()] == [0.2]
    assert found.overview()[0]["left of shallow (radians)"] == pytest.approx(0.1)
    assert found.overview()[0]["of deep"] == pytest.approx(0.4)  # not that of state 4, which meets no block
    assert "noise of 0.2 on cls moves patches by at most 0.4 radians at the end (from state 3)" in found.remarks()
    nothing = repair(grown(0.0, "cls", [0, 0, 0, 0]))
    assert nothing.answer() == "no noise goes through a block: there is nothing to repair"


def surgery(*operations, half=0.0):
    rows = [
        row(
            mean,
            half,
            kind=kind,
            layers=layers,
            phase=0,
            order=(1, 2),
            readout="cls",
            measure="relative_error",
        )
        for kind, layers, mean in operations
    ]
    return Surgery(pd.DataFrame(rows), None, 4, PHASES)


def test_surgery_names_the_blocks_that_matter_least_and_most():
    found = surgery(("delete", (1,), 0.9), ("delete", (2,), 0.2), ("delete", (3,), 0.5), ("swap", (1, 2), 0.4))
    assert found.answer() == (
        "swapping two blocks changes cls least for 1 and 2 (0.40) and most for 1 and 2 (0.40); deleting a block "
        "changes cls least for 2 (0.20) and most for 1 (0.90)"
    )
    assert found.overview()[1]["operation"] == "deletions"
    assert found.overview()[1]["of blocks"] == "2"
    assert "too few" not in found.summary()
    few = surgery(("delete", (1,), 0.9), ("delete", (2,), 0.2), half=0.4)
    assert "too few images to tell blocks apart" in few.summary()


def test_phases_say_where_images_are_too_few():
    found = segment(EYE, 2)
    assert found.summary().splitlines()[0] == found.sentence()
    chosen = [one for one in found.overview() if one["chosen"] == "*"]
    assert [one["boundaries after layer"] for one in chosen] == ["2"]
    for share, told in ((0.96, False), (0.94, True)):
        resampled = {**found.segmentations, 2: replace(found.chosen, stability=(share,))}
        said = "\n".join(replace(found, segmentations=resampled).remarks())
        assert (f"too few images to place the boundary after layer 2 ({share:.0%})" in said) == told
