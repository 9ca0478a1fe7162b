"""What results say: each answer from numbers that decide it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from brdyn.interventions import Repair, Splice, Surgery
from brdyn.interventions.splice_result import Cell
from brdyn.interventions.splice_sums import WORK
from brdyn.measures.coupling import PlacementTest
from brdyn.measures.dynamics import Dynamics
from brdyn.measures.found_spectra import BLOCKS, PAIRS, TOTALS, Spectra
from brdyn.measures.null import Null
from brdyn.phases import segment
from brdyn.probes import LayerProbe
from brdyn.probes.counts import PAIRS as PROBED
from brdyn.probes.counts import SCORES
from brdyn.probes.layer_result import RUNS
from brdyn.reporting.plan import heads_seconds
from brdyn.reporting.practice import advice, changes
from brdyn.reporting.reading import readings
from brdyn.reporting.speed import Speed
from brdyn.reporting.verdict import findings, verdict
from tests.reporting.built import DRIFT, JUMP, answer, evaluation, interval
from tests.reporting.built import found as measured


def dynamics(last, half=0.01, n=50, null=None):
    """Updates that turn cls by 0.5 rad each, and by `last` at last."""
    rows = [
        {"statistic": "speed", "unit": "rad", "group": "cls", "layer": layer, **interval(mean, half, n)}
        for layer, mean in enumerate([0.5, 0.5, 0.5, last], 1)
    ]
    return Dynamics(pd.DataFrame(rows), segment(np.eye(4)), {}, null=null)


def repair(rates, half=0.01, n=50):
    """Noise on cls at each state, which grows by these rates."""
    of = {"eps": 0.2, "target": "cls", "group": "cls", "half_repair": np.nan}
    rows = [{"start": start, **of, **interval(rate, half, n)} for start, rate in enumerate(rates)]
    return Repair(pd.DataFrame(columns=["eps"]), pd.DataFrame(rows), segment(np.eye(4)))


@pytest.mark.parametrize(
    ("matrix", "said", "short"),
    [
        (JUMP, "yes", "2 phases"),
        (DRIFT, "none found", "none found"),
        (np.eye(4), "unclear", "cannot be tested"),
    ],
)
def test_phases(matrix, said, short):
    found = answer("phases", {"phases": segment(matrix)})
    assert (found.answer, found.short) == (said, short)


@pytest.mark.parametrize(("last", "half", "said"), [(0.2, 0.01, "yes"), (1.9, 0.01, "no"), (0.45, 0.1, "unclear")])
def test_tokens_rest_where_the_last_update_turns_them_less(last, half, said):
    found = answer("converge", {"dynamics": dynamics(last, half)})
    assert found.answer == said
    assert f"cls by {last:.2f} rad [{last - half:.2f}, {last + half:.2f}]" in found.sentence
    assert "rough" not in found.sentence
    assert "(5 images: intervals are rough)" in answer("converge", {"dynamics": dynamics(last, n=5)}).sentence


def stretched(doubts, half=0.01, n=50, pairs=((1, 2),), placements=50):
    """Spectra whose layers are coupled more within phases, by what share of other boundaries give as much."""
    quantities = {"exponent": 0.3} | {
        f"coupling of {side} directions, {pairs}": value
        for side in ("entering", "leaving")
        for pairs, value in (("all pairs of layers", 0.2), ("within phases less across", 0.05))
    }
    totals = [
        {"quantity": name, "index": 1, "phase": 0, **interval(value, half, n)}
        for name, value in quantities.items()
        if pairs or name == "exponent"
    ]
    growth = [{"quantity": "growth of the norm", "index": 1, "block": block, **interval(0.4)} for block in (1, 2)]
    tests = {
        side: None if doubt is None else PlacementTest(doubt, placements, True, 1.02 - doubt)
        for side, doubt in zip(("entering", "leaving"), doubts, strict=True)
    }
    spectra = Spectra(
        pd.DataFrame(totals, columns=list(TOTALS)), pd.DataFrame(growth, columns=list(BLOCKS)),
        pd.DataFrame([("entering", *pair, *interval(0.2).values()) for pair in pairs], columns=list(PAIRS)),
        tests, 2, 1, 200, 2,
    )  # fmt: skip
    return Dynamics(dynamics(0.5).table, segment(JUMP, 3), {}, details={"spectra": spectra})


@pytest.mark.parametrize(
    ("doubts", "said", "short"),
    [
        ((0.01, 0.04), "yes", "more than layers of two"),
        ((0.01, 0.06), "unclear", "not told from other boundaries"),
        ((0.99, 0.98), "no", "less than layers of two"),
        ((0.99, 0.96), "unclear", "not told from other boundaries"),
        ((None, None), "unclear", "no two layers in a phase"),
    ],
)
def test_layers_stretch_alike_where_few_other_boundaries_give_as_much(doubts, said, short):
    """On both sides."""
    found = answer("stretch", {"spectra": stretched(doubts)})
    assert (found.answer, found.short) == (said, short)
    assert "entering 0.200 (all pairs of layers" in found.sentence
    assert ("; +0.050 within phases, boundaries elsewhere p = 0.9" in found.sentence) == (doubts[0] == 0.99)
    assert (
        "0.01 by chance (phases of the best cut into 3; 2 were shown). A small change grows by 0.30 [0.29, 0.31]"
        in (found.sentence)
    )
    assert found.sentence.endswith("nats a block, the norm of tokens by 0.40")


def test_whether_layers_stretch_alike_cannot_be_told_by_few_placements_nor_where_nothing_differs():
    few = answer("stretch", {"spectra": stretched((1 / 11, 1 / 11), placements=11)})
    assert (few.answer, few.short) == ("unclear", "too few layers to tell")
    assert few.sentence.endswith("by 0.40. 11 placements of boundaries are too few for a test")
    same = PlacementTest(1.0, 55, True, 1.0)  # as large everywhere
    older = PlacementTest(1.0, 55, True)  # of a result that does not say what is as small
    for test in (same, older):
        spectra = stretched((0.5, 0.5))
        tests = {"entering": test, "leaving": test}
        told = {"spectra": replace(spectra, details={"spectra": replace(spectra.spectra, tests=tests)})}
        assert answer("stretch", told).short == "not told from other boundaries"


def test_whether_layers_stretch_alike_cannot_be_told_of_one():
    found = answer("stretch", {"spectra": stretched((None, None), pairs=())})
    assert (found.answer, found.short) == ("unclear", "cannot be told")
    assert found.sentence.startswith("whether layers stretch alike cannot be told: there are no two. A small")


def test_one_update_has_none_to_hold_it_against():
    one = dynamics(0.5)
    one = replace(one, table=one.table.head(1), phases=segment(np.eye(1)))
    found = answer("converge", {"dynamics": one})
    assert (found.answer, found.short) == ("unclear", "cannot be told")


def test_one_image_has_no_interval():
    """Which is said, in the place of an interval of no numbers."""
    of = {"half": np.nan, "n": 1}
    results = {
        "dynamics": dynamics(0.2, **of), "perturb": repair([0.1, 0.1], **of), "splice": splice(**of),
        "spectra": stretched((0.01, 0.01), **of),
    }  # fmt: skip
    for question in ("converge", "repair", "work", "stretch"):
        found = answer(question, results)
        assert "nan" not in found.sentence
        assert found.sentence.endswith("(1 image: there is no interval)")
        assert question == "stretch" or (found.answer, found.short.partition(":")[0]) == (
            "unclear", "one image has no interval",
        )  # fmt: skip
    assert "from which depths it shrinks or grows cannot be told" in answer("repair", results).sentence
    two = replace(segment(np.kron(np.eye(2), np.ones((3, 3))), 2), evidence=None)
    read = read_of(two, probed(half=np.nan, test=1))
    assert "1 to test (there is no interval): the last layers of the phases 3+6: 80.0% (+10.0 points against" in read


def test_what_was_left_out_says_why():
    found = answer("stretch", left_out={"spectra": "block 1 cannot be differentiated"})
    assert (found.answer, found.sentence) == ("not measured", "block 1 cannot be differentiated")
    failed = answer("stretch", failures={"spectra": "no memory"}, left_out={"spectra": "a size"})
    assert failed.sentence == "it failed: no memory"


@pytest.mark.parametrize(
    ("rates", "said", "words"),
    [
        ([-0.1, -0.1, -0.1, 0.2], "yes", "shrinks from 3 of 4 depths and grows from 1 (-0.03 a layer"),
        ([0.1, 0.1, 0.1, -0.2], "no", "shrinks from 1 of 4 depths and grows from 3"),
        ([0.1, 0.1, -0.1, 0.005], "unclear", "shrinks from 1 of 4 depths and grows from 2"),
    ],
)
def test_noise_is_repaired_where_it_shrinks_from_most_depths(rates, said, words):
    found = answer("repair", {"perturb": repair(rates)})
    assert found.answer == said
    assert words in found.sentence


@pytest.mark.parametrize(
    ("rates", "half", "short"),
    [
        ([-0.1, 0.1, 0.0, 0.0], 0.01, "it depends on tokens or depth"),
        ([-0.05] * 12, 0.1, "not told from no change"),
        ([-0.1, -0.1, 0.0, 0.0], 0.01, "told from some depths alone"),
    ],
)
def test_noise_depends_on_depth_where_it_shrinks_from_some_and_grows_from_others(rates, half, short):
    found = answer("repair", {"perturb": repair(rates, half)})
    assert (found.answer, found.short) == ("unclear", short)


def twins(count, last):
    table = pd.concat([dynamics(value).table.assign(twin=number) for number, value in enumerate(last, 1)])
    return Null(tuple(f"random {number}" for number in range(count)), {"dynamics": table})


def test_what_is_outside_all_twins():
    low = np.linspace(0.2, 0.3, 39)
    found = answer("twins", {"dynamics": dynamics(1.9, null=twins(39, low))})
    assert (found.answer, found.short) == ("yes", "1 of 1 outside")
    assert "cls: angular speed of the last update (radians) 1.9, untrained 0.25" in found.sentence
    assert "all 39 twins, and 1 at most of a twin outside all other networks: p = 0.05; farthest" in found.sentence
    assert answer("twins", {"dynamics": dynamics(0.25, null=twins(39, low))}).answer == "unclear"
    half = answer("twins", {"dynamics": dynamics(1.9, null=twins(19, low[:19]))})
    assert (half.answer, half.change) == ("unclear", "more twins")  # of one number, one of 19 is the least
    few = answer("twins", {"dynamics": dynamics(1.9, null=twins(2, [0.2, 0.3]))})
    assert few.answer == "unclear"  # two twins decide nothing
    assert few.change == "more twins: 19 are the fewest for p = .05"
    one = answer("twins", {"dynamics": dynamics(1.9)}, twin=dynamics(0.2))
    assert one.sentence.startswith("beside one untrained twin: cls: angular speed of the last update (radians) 1.9")


def test_what_was_not_measured_or_failed_says_so():
    found = findings(measured(failures={"dynamics": "layer 3 is not finite"}))
    assert {one.answer for one in found} == {"not measured"}
    assert found[0].sentence == "it failed: layer 3 is not finite"
    assert found[1].sentence == "only a Raptor can tell, and none was asked for"
    assert "fit_raptor" in found[1].change


@pytest.mark.parametrize(
    ("phases", "r2", "said"),
    [
        (
            JUMP,
            0.95,
            "block-recurrent, by this evidence: its depth falls into 2 phases, and one block can do",
        ),
        (
            DRIFT,
            None,
            "not shown to be block-recurrent: its depth shows no phases beyond a smooth drift, and whether one",
        ),
        (
            JUMP,
            None,
            "not shown to be block-recurrent: its depth falls into 2 phases, and whether one block can do",
        ),
        (DRIFT, 0.95, "fewer blocks than layers can do its work, without phases of its own"),
    ],
)
def test_the_verdict(phases, r2, said):
    results = {"phases": segment(phases)}
    if r2 is not None:
        results["raptor-eval"] = evaluation(r2, r2)
    found = findings(measured(results))
    assert verdict(found, untrained=False).startswith(said)
    assert verdict(found, untrained=True).startswith(f"untrained network (nothing of this was learnt): {said}")


def splice(within=0.5, half=0.01, n=50, phases=JUMP, k=2):
    """Blocks exchanged within phases of two layers make this much of the error without, in all pairs alike."""
    found = segment(phases, k)
    cells = [Cell("exchange", layer - 1, layer, block) for layer, block in ((1, 2), (2, 1), (3, 4), (4, 3))]
    r2 = {Cell("exchange", 3, 4, 3): 0.97, Cell("exchange", 0, 1, 2): 0.91}
    rows = [
        {**cell._asdict(), "group": "all", "measure": measure, **interval(value, half, n)}
        for cell in cells
        for measure, value in (("skill", 1 - within), ("r2", r2.get(cell, 0.4)))
    ]
    work = [{"group": "all", "where": "within phases", "cells": 4, **interval(within, half, n)}]
    return Splice(pd.DataFrame(rows), pd.DataFrame(work, columns=WORK), None, found)


@pytest.mark.parametrize(
    ("within", "half", "said", "short"),
    [
        (0.5, 0.1, "yes", "some of it: 50% of the error without"),
        (0.95, 0.02, "no", "hardly any of it: 95% of the error without"),
        (0.95, 0.1, "unclear", "not told from nothing: 95% of the error without"),
        (1.5, 0.1, "no", "worse than nothing: 150% of the error without"),
    ],
)
def test_whose_work_a_block_does(within, half, said, short):
    found = answer("work", {"splice": splice(within, half)})
    assert (found.answer, found.short) == (said, short)
    assert f"makes {within:.0%} [{within - half:.0%}, {within + half:.0%}] of the error" in found.sentence
    assert "best cut" not in found.sentence
    assert "rough" not in found.sentence
    few = answer("work", {"splice": splice(within, half, n=6, phases=DRIFT)}).sentence
    assert few.endswith("(phases of the best cut into 2, as none were shown) (6 images: intervals are rough)")
    more = answer("work", {"splice": splice(within, half, k=4)}).sentence
    assert more.endswith("(phases of the best cut into 4; 2 were shown)")


def test_phases_of_one_layer_leave_the_question_open():
    alone = splice()
    alone = replace(alone, work=alone.work.head(0))
    found = answer("work", {"splice": alone})
    assert (found.answer, found.short) == ("unclear", "no two layers in a phase")
    failed = answer("work", failures={"splice": "layer 3 is not finite"})
    assert (failed.answer, failed.sentence) == ("not measured", "it failed: layer 3 is not finite")


def surgery():
    """Without block 2 the change is 0.1."""
    rows = [
        {"kind": "delete", "layers": (layer,), "phase": 0, "order": (), "readout": "patches",
         "measure": "relative_error", **interval(value)}
        for layer, value in enumerate((0.5, 0.1, 0.4, 0.6), 1)
    ]  # fmt: skip
    return Surgery(pd.DataFrame(rows), None, 4, segment(np.eye(4)))


def test_what_to_delete_and_share_is_what_changes_least():
    speed = Speed(images_per_second=10.0, batch_size=4, reading=0.01, blocks=(0.1, 0.2, 0.3, 0.2))
    one = measured({"interventions": surgery(), "splice": splice()}, speed=speed)
    found = changes(one)
    assert [one.layers for one in found if one.kind == "delete"] == [(2,), (3,), (1,), (4,)]
    assert [one.layers for one in found if one.kind == "replace"][:2] == [(4, 3), (1, 2)]
    assert (found[0].saved, found[4].saved) == (0.2, 1 / 12)  # of the time, of the parameters
    assert (found[0].costs[0].mean, round(found[0].costs[0].low, 6)) == (0.1, 0.09)
    said = advice(one, found)
    assert said[0] == (
        "To delete: without block 2 costs least: change of patches 0.10 [0.09, 0.11]; saves 20.0% of the time (50 "
        "images, nothing is trained again)."
    )
    assert said[1] == (
        "To share: of the blocks shared that are shown to do better than leaving a layer out, block 3 also in the "
        "place of 4 costs least: R² 0.97 [0.96, 0.98], error over that without the block 0.50 [0.49, 0.51]; saves 8.3% "
        "of the blocks' parameters (50 images, nothing is trained again)."
    )
    assert "without one it is 42.9% faster at most" in said[2]


def probed(phase_ends=0.8, difference=0.1, half=0.02, test=100):
    """Heads on layers 3 and 6, and on both: one a phase against two at regular spacing, 2 and 6."""
    values = {"2": 0.4, "3": 0.5, "6": 0.7, "3+6": phase_ends, "2+6": phase_ends - difference}
    scores = pd.DataFrame(
        [("vit", place, "linear", "accuracy", value, value - half, value + half, np.nan, 1.0)
         for place, value in values.items()], columns=SCORES,
    )  # fmt: skip
    row = ("set", "regular", "phase ends", "3+6", "linear", "accuracy")
    ratios = (1.1, 1.0, 1.2)
    pairs = pd.DataFrame([(*row, difference, difference - half, difference + half, *ratios)], columns=PROBED)
    return LayerProbe(
        task="classification", scores=scores, pairs=pairs, runs=pd.DataFrame(columns=RUNS), classes=pd.DataFrame(),
        sets={"best single": "6", "regular": "2+6", "phase ends": "3+6"}, words={"accuracy": "accuracy"}, notes=(),
        sizes={"fit": 400, "test": test}, counted=pd.DataFrame(),
    )  # fmt: skip


def test_layers_to_read_are_those_that_a_probe_reads_best():
    """One a phase against regular spacing, on the same test images."""
    phases = segment(np.kron(np.eye(2), np.ones((3, 3))), 2)
    two = replace(phases, evidence=None)
    said = read_of(two, probed())
    assert said == (
        "To read features: classes read right by a linear probe of layers side by side, 400 images to fit and 100 to "
        "test: the last layers of the phases 3+6: 80.0% [78.0%, 82.0%] (+10.0 points [+8.0, +12.0] against regular "
        "spacing); as many at regular spacing 2+6: 70.0% [68.0%, 72.0%]; the best alone by held-out images 6: 70.0% "
        "[68.0%, 72.0%]."
    )
    open_ = read_of(two, probed(half=0.2, test=20))
    assert "20 to test (intervals are rough): " in open_
    assert "(+10.0 points [-10.0, +30.0] against regular spacing, not told apart)" in open_
    one = replace(phases, evidence=replace(segment(DRIFT).evidence))
    assert "the ends of the best cut into 2 (no phases were shown) 3+6: " in read_of(one, probed())
    other = segment(JUMP, 3)
    assert "the ends of the best cut into 3 (2 phases were shown) 3+6: " in read_of(other, probed())
    given = replace(probed(), ends=(4, 8))
    assert "the ends of the phases it was given (4, 8) 3+6: " in read_of(two, given)
    alike = read_of(two, replace(probed(), ends=two.boundaries))
    assert "the last layers of the phases 3+6: " in alike
    without = advice(measured({"phases": two}, left_out={"probe": "it needs labels"}), [])[0]
    assert without == (
        "To read features: the last layers of the phases are 3, 6, at regular spacing 3, 6; which are worth more was "
        "not measured: it needs labels."
    )


def test_errors_are_read_where_they_are_least():
    """Of depth, in meters; without layers that were chosen, the best one."""
    scores = probed().scores.replace({"score": {"accuracy": "rmse"}})
    depth = replace(probed(), task="depth", scores=scores, sets={}, words={"rmse": "RMSE (m)"})
    (one,) = readings(depth, segment(JUMP))
    assert (one.layers, one.said, one.difference) == ("2", ("0.400", "[0.380, 0.420]"), None)
    lines = read_elsewhere(depth)
    assert lines[1] == (
        "To read features: error of depth (RMSE, m; less is better) by a linear head on layers side by side, 400 "
        "images to fit and 100 to test: the best alone on the test images (optimistic) 2: 0.400 [0.380, 0.420]."
    )
    pairs = probed().pairs.replace({"score": {"accuracy": "rmse"}})
    chosen = replace(depth, pairs=pairs, sets=probed().sets)
    assert "(+0.100 [+0.080, +0.120] against regular spacing)" in read_elsewhere(chosen)[1]


def read_of(phases, probe):
    """Which layers to read, by a probe of the report."""
    return advice(measured({"phases": phases, "probe": probe}), [])[0]


def read_elsewhere(probe):
    """The same by a probe that was given."""
    return advice(measured({"phases": segment(JUMP)}, probes={"runs/probe": probe}), [])


def test_heads_of_many_classes_take_longer():
    """Three penalties for each place that is tried, seven for each that is reported."""
    assert heads_seconds(0, 1, 1, depth=2, probes=1) == pytest.approx(0.035 * (3 * (2 + 1) + 7 * 2 + 7 * 4))
    few, many = (heads_seconds(100, 10, classes, depth=2, probes=1) for classes in (0, 10))
    assert many - few == pytest.approx(3e-8 * 100 * 10 * 10 * (6 * 1 + 3 * 2 + 14 * 1 + 28 * 4))
