"""Rules word and judge: every rule by numbers that can be worked out by hand, where it holds, fails and cannot tell."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses.rules import (
    Above,
    All,
    AtLeast,
    AtMost,
    ClearlyAbove,
    Equal,
    Extreme,
    Greater,
    Less,
    MostAbove,
    RangeAbove,
    Significant,
    Unanimous,
    Unless,
    Within,
    rule_of,
    together,
)
from analyses.statistics import Estimate

UP, DOWN, WIDE = Estimate(2, 1, 3), Estimate(-2, -3, -1), Estimate(0.1, -1, 2)


@pytest.mark.parametrize(
    ("rule", "numbers", "verdict", "words"),
    [
        (Greater("a", "b"), {"a": 2, "b": 1}, True, "a is above b"),
        (Greater("a", "b"), {"a": 1, "b": 1}, False, "a is above b"),
        (Greater("a", 0.5, each="k"), {"a": {2: 0.6, 3: 0.4}}, False, "a is above 0.5, for every k"),
        (Greater("a", "b", each="k"), {"a": [2, 3], "b": [1, 2]}, True, "a is above b, for every k"),
        (Greater("a", "b", times=1.25), {"a": 1.3, "b": 1}, True, "a is above 1.25 times b"),
        (Less("a", "b", times=0.5), {"a": 0.5, "b": 1}, False, "a is below half of b"),
        (AtLeast("a", 93.1, unit=" %"), {"a": 93.1}, True, "a is at least 93.1 %"),
        (AtMost("a", 0.02), {"a": 0.021}, False, "a is at most 0.02"),
        (Equal("a", "b"), {"a": {10: 7}, "b": {10: 7}}, True, "a is exactly b"),
        (Within("a", 4, 9), {"a": 9}, True, "a is from 4 to 9"),
        (Within("a", 4, 9), {"a": 3.9}, False, "a is from 4 to 9"),
        (Extreme("a", "largest", "last", of="block"), {"a": [1, 2, 3]}, True, "a is largest at the last block"),
        (Extreme("a", "largest", "inside"), {"a": [3, 2, 1]}, False, "a is largest inside"),
        (Extreme("a", "largest", "inside"), {"a": np.array([1, 3, 2])}, True, "a is largest inside"),
        (Extreme("a", "smallest", "in the middle third"), {"a": [3, 3, 1, 2, 3, 3]}, True,
         "a is smallest in the middle third"),
        (MostAbove("a", 0.5, 1, each="layer"), {"a": [0.6, 0.4, 0.6]}, True,
         "a is above 0.5 at every layer but 1 at most"),
        (MostAbove("a", 0.5, 1, each="layer"), {"a": [0.4, 0.4, 0.6]}, False,
         "a is above 0.5 at every layer but 1 at most"),
        (Above("a"), {"a": UP}, True, "a: the 95 % interval is above 0 (fails: below 0)"),
        (Above("a"), {"a": DOWN}, False, "a: the 95 % interval is above 0 (fails: below 0)"),
        (Above("a"), {"a": WIDE}, None, "a: the 95 % interval is above 0 (fails: below 0)"),
        (Above("a", "b", of="of p"), {"a": UP, "b": WIDE}, None,
         "of p a and b: both 95 % intervals are above 0 (fails: either below 0)"),
        (Above("a", "b"), {"a": WIDE, "b": DOWN}, False,
         "a and b: both 95 % intervals are above 0 (fails: either below 0)"),
        (Above("a", than="b", each="k"), {"a": {2: UP}, "b": {2: 0.5}}, True,
         "a: the 95 % interval is above b, for every k (fails: below b for one)"),
        (Above("a", than="b", each="k"), {"a": {2: UP, 3: UP}, "b": {2: 0.5, 3: 4}}, False,
         "a: the 95 % interval is above b, for every k (fails: below b for one)"),
        (ClearlyAbove("a", "b"), {"a": Estimate(8, 5, 11), "b": Estimate(0, -4, 4)}, True,  # 8 against 5, of 3 and 4
         "a is above b by more than both 95 % intervals together (fails: as clearly below)"),
        (ClearlyAbove("a", "b"), {"a": Estimate(5, 2, 8), "b": Estimate(0, -4, 4)}, None,
         "a is above b by more than both 95 % intervals together (fails: as clearly below)"),
        (ClearlyAbove("a", "b"), {"a": Estimate(-6, -9, -3), "b": Estimate(0, -4, 4)}, False,
         "a is above b by more than both 95 % intervals together (fails: as clearly below)"),
        (Significant("a"), {"a": Estimate(1, p_value=0.04)}, True, "a is above 0 with p < 0.05 (fails: not above 0)"),
        (Significant("a"), {"a": Estimate(1, p_value=0.05)}, None, "a is above 0 with p < 0.05 (fails: not above 0)"),
        (Significant("a"), {"a": Estimate(0, p_value=0.9)}, False, "a is above 0 with p < 0.05 (fails: not above 0)"),
        (RangeAbove("a", "b"), {"a": [4, 3], "b": [1, 2]}, True, "a is above b (fails: every one below)"),
        (RangeAbove("a", "b"), {"a": [4, 2], "b": [1, 2]}, None, "a is above b (fails: every one below)"),
        (RangeAbove("a", "b"), {"a": [0], "b": [1, 2]}, False, "a is above b (fails: every one below)"),
        (All(Greater("a", 0), Above("b")), {"a": 1, "b": WIDE}, None,
         "a is above 0, and b: the 95 % interval is above 0 (fails: below 0)"),
        (All(Greater("a", 0), Less("b", 1)), {"a": 1, "b": 1}, False, "a is above 0, and b is below 1"),
        (Unanimous(Greater("a", 0), Less("b", 1)), {"a": 1, "b": 1}, None,
         "a is above 0, and b is below 1 (fails: neither)"),
        (Unanimous(Greater("a", 0), Less("b", 1)), {"a": 0, "b": 1}, False,
         "a is above 0, and b is below 1 (fails: neither)"),
        (Unanimous(Greater("a", 0, each="k")), {"a": [1, 2]}, True, "a is above 0, for every k (fails: for none)"),
        (Unanimous(Greater("a", 0, each="k")), {"a": [1, -2]}, None, "a is above 0, for every k (fails: for none)"),
        (Unless(Greater("a", 0), Less("b", 0)), {"a": 1, "b": -1}, False, "a is above 0 (fails: b is below 0)"),
        (Unless(Greater("a", 0), Less("b", 0)), {"a": 1, "b": 1}, True, "a is above 0 (fails: b is below 0)"),
        (Unless(Greater("a", 0), Less("b", 0)), {"a": 0, "b": 1}, None, "a is above 0 (fails: b is below 0)"),
    ],
)  # fmt: skip
def test_rules_by_hand(rule, numbers, verdict, words):
    assert rule.judge(numbers) is verdict
    assert str(rule) == words


def test_a_number_that_is_not_measured_is_no_verdict():
    with pytest.raises(KeyError, match="b"):
        Greater("a", "b").judge({"a": 1})


def test_together():
    assert together([True, None]) is None
    assert together([None, False]) is False
    assert together(iter([True, True])) is True


def test_what_a_table_writes_is_the_rule():
    written = {"Unless": [{"All": [{"Above": "a", "of": "mean of"}, {"Less": ["b", "c"], "times": 0.5}]},
                          {"ClearlyAbove": ["d", "e"]}]}  # fmt: skip
    built = Unless(All(Above("a", of="mean of"), Less("b", "c", times=0.5)), ClearlyAbove("d", "e"))
    assert str(rule_of(written)) == str(built)
    with pytest.raises(KeyError, match="Perhaps"):
        rule_of({"Perhaps": "a"})


numbers = st.floats(-100, 100)


@given(value=numbers, half=st.floats(0.01, 10), than=numbers)
def test_an_interval_and_its_mirror_image_never_agree(value, half, than):
    one = Estimate(value, value - half, value + half)
    mirrored = Estimate(2 * than - value, 2 * than - value - half, 2 * than - value + half)
    verdict = Above("a", than=than).judge({"a": one})
    opposite = Above("a", than=than).judge({"a": mirrored})
    if abs(abs(value - than) - half) > 1e-6:
        assert verdict is (None if opposite is None else not opposite)


@given(first=st.lists(numbers, min_size=1, max_size=5), second=st.lists(numbers, min_size=1, max_size=5))
def test_a_range_above_another_is_not_below_it(first, second):
    verdict = RangeAbove("a", "b").judge({"a": first, "b": second})
    opposite = RangeAbove("a", "b").judge({"a": second, "b": first})
    assert (verdict, opposite) in {(True, False), (False, True), (None, None)}


@given(values=st.lists(st.sampled_from([UP, DOWN, WIDE]), min_size=1, max_size=4))
def test_all_of_some_is_what_each_says_together(values):
    names = [f"n{number}" for number in range(len(values))]
    measured = dict(zip(names, values, strict=True))
    verdict = All(*map(Above, names)).judge(measured)
    assert verdict is Above(*names).judge(measured) is together(one.against(0) for one in values)
