"""Rules word and judge: every rule by numbers that can be worked out by hand, where it holds, fails and cannot tell."""

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from scipy import stats

from analyses.rules import (
    above,
    at_least,
    at_most,
    below,
    beyond,
    equal,
    every,
    evidence,
    given,
    greater,
    less,
    rule_of,
    significant,
    together,
    unless,
)
from analyses.statistics import Estimate

NEVER = "a is above 0 with p < 0.05, for every one (fails: never, as it is one-sided)"
SIGNIFICANT = "a is above 0 with p < 0.05 (fails: below 0 with p < 0.05)"
MARGIN = "a: the 95 % interval is below 2 points (fails: above 2 points)"
ROOM = "a: the 95 % interval is above 0 (judged only where b is below 1) (fails: below 0)"
UP, DOWN, WIDE = Estimate(2, 1, 3), Estimate(-2, -3, -1), Estimate(0.1, -1, 2)


@pytest.mark.parametrize(
    ("rule", "numbers", "verdict", "words"),
    [
        (greater("a", "b"), {"a": 2, "b": 1}, True, "a is above b"),
        (greater("a", "b"), {"a": 1, "b": 1}, False, "a is above b"),
        (greater("a", 0.5, each="k"), {"a": {2: 0.6, 3: 0.4}}, False, "a is above 0.5, for every k"),
        (greater("a", "b", each="k"), {"a": [2, 3], "b": [1, 2]}, True, "a is above b, for every k"),
        (greater("a", "b", times=1.25), {"a": 1.3, "b": 1}, True, "a is above 1.25 times b"),
        (less("a", "b", times=0.5), {"a": 0.5, "b": 1}, False, "a is below half of b"),
        (at_least("a", 93.1, unit=" %"), {"a": 93.1}, True, "a is at least 93.1 %"),
        (at_most("a", 0.02), {"a": 0.021}, False, "a is at most 0.02"),
        (equal("a", "b"), {"a": {10: 7}, "b": {10: 7}}, True, "a is exactly b"),
        (above("a"), {"a": UP}, True, "a: the 95 % interval is above 0 (fails: below 0)"),
        (above("a"), {"a": DOWN}, False, "a: the 95 % interval is above 0 (fails: below 0)"),
        (above("a"), {"a": WIDE}, None, "a: the 95 % interval is above 0 (fails: below 0)"),
        (above("a", "b", of="of p"), {"a": UP, "b": WIDE}, None,
         "of p a and b: both 95 % intervals are above 0 (fails: either below 0)"),
        (above("a", "b"), {"a": WIDE, "b": DOWN}, False,
         "a and b: both 95 % intervals are above 0 (fails: either below 0)"),
        (above("a", than="b", each="k"), {"a": {2: UP}, "b": {2: 0.5}}, True,
         "a: the 95 % interval is above b, for every k (fails: below b for one)"),
        (above("a", than="b", each="k"), {"a": {2: UP, 3: UP}, "b": {2: 0.5, 3: 4}}, False,
         "a: the 95 % interval is above b, for every k (fails: below b for one)"),
        (significant("a"), {"a": Estimate(1, p_value=0.04)}, True, SIGNIFICANT),
        (significant("a"), {"a": Estimate(1, p_value=0.05)}, None, SIGNIFICANT),
        (significant("a"), {"a": Estimate(0, p_value=0.99)}, None, SIGNIFICANT),  # of a test on one side alone
        (significant("a"), {"a": Estimate(-1, p_value=0.97, p_below=0.04)}, False, SIGNIFICANT),
        (significant("a"), {"a": Estimate(float("nan"))}, None, SIGNIFICANT),
        (significant("a", each="one", never="as it is one-sided"),
         {"a": {1: Estimate(3, p_value=0.01), 2: Estimate(2, p_value=0.99)}}, None, NEVER),
        (significant("a", "b", of="rho of"), {"a": Estimate(1, p_value=0.01), "b": Estimate(1, p_value=0.2)}, None,
         "rho of a and b are above 0 with p < 0.05 (fails: below 0 with p < 0.05 for one)"),
        (below("a", than=2, unit=" points"), {"a": Estimate(0, -1, 1.9)}, True, MARGIN),  # equal to 2 points
        (below("a", than=2, unit=" points"), {"a": Estimate(0, -5, 5)}, None, MARGIN),  # not told from equal
        (below("a", than=2, unit=" points"), {"a": Estimate(3, 2.1, 4)}, False, MARGIN),
        (given(above("a"), less("b", 1)), {"a": UP, "b": 0.5}, True, ROOM),
        (given(above("a"), less("b", 1)), {"a": DOWN, "b": 0.5}, False, ROOM),
        (given(above("a"), less("b", 1)), {"a": UP, "b": 1}, None, ROOM),
        (given(above("a"), less("b", 1)), {"a": DOWN, "b": 1}, None, ROOM),
        (every(greater("a", 0), above("b")), {"a": 1, "b": WIDE}, None,
         "a is above 0, and b: the 95 % interval is above 0 (fails: below 0)"),
        (every(greater("a", 0), less("b", 1)), {"a": 1, "b": 1}, False, "a is above 0, and b is below 1"),
        (unless(greater("a", 0), less("b", 0)), {"a": 1, "b": -1}, False, "a is above 0 (fails: b is below 0)"),
        (unless(greater("a", 0), less("b", 0)), {"a": 1, "b": 1}, True, "a is above 0 (fails: b is below 0)"),
        (unless(greater("a", 0), less("b", 0)), {"a": 0, "b": 1}, None, "a is above 0 (fails: b is below 0)"),
    ],
)  # fmt: skip
def test_rules_by_hand(rule, numbers, verdict, words):
    assert rule.judge(numbers) is verdict
    assert str(rule) == words


def twins_of(*values):
    return [{"a": value} for value in values]


ONE_SIDE = "a is {} that of untrained twins with p ≤ 0.05{} (fails: {} that with p ≤ 0.05{})"
BELOW = ONE_SIDE.format("below", "", "above", "")
ABOVE = ONE_SIDE.format("above", "", "below", "")


@pytest.mark.parametrize(
    ("rule", "numbers", "verdict", "words"),
    [  # (3 - 0) / (1 sqrt(4/3)) = 2.60 and (4 - 0) / … = 3.46, where t of 2 degrees has its .95 at 2.92
        (beyond("a"), {"a": 4, "untrained": twins_of(-1, 0, 1)}, True, ABOVE),
        (beyond("a"), {"a": 3, "untrained": twins_of(-1, 0, 1)}, None, ABOVE),
        (beyond("a"), {"a": -4, "untrained": twins_of(-1, 0, 1)}, False, ABOVE),
        (beyond("a"), {"a": -3, "untrained": twins_of(-1, 0, 1)}, None, ABOVE),
        (beyond("a", "below"), {"a": -4, "untrained": twins_of(-1, 0, 1)}, True, BELOW),
        (beyond("a"), {"a": 4, "untrained": twins_of(0)}, None, ABOVE),
        (beyond("a"), {"a": 19, "untrained": twins_of(*range(19))}, True, ABOVE),
        (beyond("a"), {"a": 17.5, "untrained": twins_of(*range(19))}, None, ABOVE),
        (beyond("a", each="k"), {"a": {2: 4, 3: 9}, "untrained": twins_of({2: -1, 3: 9}, {2: 0, 3: 8}, {2: 1, 3: 7})},
         None, ONE_SIDE.format("above", ", for every k", "below", " for one")),
    ],
)  # fmt: skip
def test_beyond_untrained_twins_by_hand(rule, numbers, verdict, words):
    assert rule.judge(numbers) is verdict
    assert str(rule) == words


@pytest.mark.parametrize(
    ("value", "twins", "verdict"),
    [
        (9, (-1, 0, 1), True),  # the network alone is above 2, and far beyond its twins
        (9, (-1, 0, 3), None),  # one of three twins is above 2 too
        (2.5, (-1, 0, 1), None),  # not far enough beyond them
        (1, (-1, 0, 1), False),  # as without twins
    ],
)
def test_a_rule_that_twins_pass_is_no_evidence(value, twins, verdict):
    judged = evidence(greater("a", 2), beyond("a"))
    assert judged.judge({"a": value, "untrained": twins_of(*twins)}) is verdict
    assert str(judged) == (
        "a is above 2; untrained twins do not meet this, and a is above that of untrained twins with p ≤ 0.05"
    )


def test_one_twin_in_twenty_may_pass_by_chance():
    judged = evidence(greater("a", 2), beyond("a"))
    assert judged.judge({"a": 9, "untrained": twins_of(*[0, 1] * 10, 3)}) is True
    assert judged.judge({"a": 9, "untrained": twins_of(*[0, 1] * 10, 3, 3)}) is None


def test_twins_are_told_beside_a_number():
    numbers = {
        "a": {"cls": 1, "patches": 2},
        "untrained": twins_of({"cls": 1, "patches": 5}, {"cls": 2, "patches": 6}),
    }
    assert beyond("a").say(numbers) == "2 untrained twins: 1 to 2, mean 1.5; 5 to 6, mean 5.5"


def test_a_number_that_is_not_measured_is_no_verdict():
    with pytest.raises(KeyError, match="b"):
        greater("a", "b").judge({"a": 1})


def test_together():
    assert together([True, None]) is None
    assert together([None, False]) is False
    assert together(iter([True, True])) is True


def test_what_a_table_writes_is_the_rule():
    written = {"unless": [{"every": [{"above": "a", "of": "mean of"}, {"less": ["b", "c"], "times": 0.5}]},
                          {"above": ["d"], "than": "e"}]}  # fmt: skip
    built = unless(every(above("a", of="mean of"), less("b", "c", times=0.5)), above("d", than="e"))
    assert str(rule_of(written)) == str(built)
    with pytest.raises(KeyError, match="Perhaps"):
        rule_of({"Perhaps": "a"})


numbers = st.floats(-100, 100)


@drawn(value=numbers, half=st.floats(0.01, 10), than=numbers)
def test_an_interval_and_its_mirror_image_never_agree(value, half, than):
    one = Estimate(value, value - half, value + half)
    mirrored = Estimate(2 * than - value, 2 * than - value - half, 2 * than - value + half)
    verdict = above("a", than=than).judge({"a": one})
    under = below("a", than=than).judge({"a": one})
    assert under is (None if verdict is None else not verdict)
    assert below("a", than=than).p_holds({"a": mirrored}) == pytest.approx(
        above("a", than=than).p_holds({"a": one}), abs=1e-6
    )
    assert below("a", than=than).p_fails({"a": one}) == above("a", than=than).p_holds({"a": one})
    opposite = above("a", than=than).judge({"a": mirrored})
    if abs(abs(value - than) - half) > 1e-6:
        assert verdict is (None if opposite is None else not opposite)


@drawn(values=st.lists(st.sampled_from([UP, DOWN, WIDE]), min_size=1, max_size=4))
def test_all_of_some_is_what_each_says_together(values):
    names = [f"n{number}" for number in range(len(values))]
    measured = dict(zip(names, values, strict=True))
    verdict = every(*map(above, names)).judge(measured)
    assert verdict is above(*names).judge(measured) is together(one.against(0) for one in values)


ON_NOTHING, ON_AN_INTERVAL, ON_A_TEST = greater("a", 0), above("b"), significant("c")


@pytest.mark.parametrize(
    ("rule", "rests_on"),
    [
        (ON_NOTHING, ""),
        (equal("a", "b", exact=True), "an exact count"),
        (ON_AN_INTERVAL, "an interval"),
        (below("a"), "an interval"),
        (ON_A_TEST, "a test"),
        (beyond("a"), "untrained twins"),
        (evidence(ON_NOTHING, beyond("a")), "untrained twins"),
        (every(ON_AN_INTERVAL, ON_A_TEST), "an interval and a test"),
        (every(ON_AN_INTERVAL, above("d")), "an interval"),
        (every(ON_AN_INTERVAL, ON_NOTHING), ""),  # a part that anything may meet makes the whole no evidence
        (unless(ON_AN_INTERVAL, ON_NOTHING), "an interval"),  # what it fails by is another matter
        (unless(ON_NOTHING, ON_AN_INTERVAL), ""),
        (given(ON_A_TEST, ON_NOTHING), "a test"),
        (given(ON_NOTHING, ON_A_TEST), ""),
    ],
)
def test_a_rule_says_what_it_rests_on(rule, rests_on):
    assert rule.rests_on == rests_on


def p_of(z: float) -> float:
    """Two-sided, of so many standard errors."""
    return 2 * stats.norm.sf(z)


HALF = stats.norm.ppf(0.975)
NEAR, FAR = Estimate(-2, -2 - HALF, -2 + HALF), Estimate(-3, -3 - HALF, -3 + HALF)


@pytest.mark.parametrize(
    ("rule", "numbers", "p_fails"),
    [
        (above("a"), {"a": NEAR}, p_of(2)),
        (above("a", than=-1), {"a": NEAR}, p_of(1)),
        (above("a", "b"), {"a": NEAR, "b": FAR}, 2 * p_of(3)),  # one of two on the other side is enough
        (above("a"), {"a": UP}, 1),
        (significant("a"), {"a": Estimate(-1, p_value=0.99, p_below=0.02)}, 0.02),
        (significant("a"), {"a": Estimate(-1, p_value=0.99)}, None),  # of a test on one side alone
        (beyond("a"), {"a": -4, "untrained": twins_of(-1, 0, 1)}, stats.t.sf(4 / (4 / 3) ** 0.5, 2)),
        (greater("a", 0), {"a": -1}, None),
        (every(greater("a", 0), above("b")), {"a": 1, "b": NEAR}, p_of(2)),
        (every(greater("a", 0), above("b")), {"a": -1, "b": NEAR}, None),  # it fails without the test, too
        (unless(above("a"), below("b")), {"a": NEAR, "b": FAR}, p_of(3)),  # by its second rule alone
        (unless(above("a"), greater("b", 0)), {"a": NEAR, "b": 1}, None),
        (given(above("a"), less("b", 1)), {"a": NEAR, "b": 0}, p_of(2)),
        (evidence(above("a"), beyond("b")), {"a": FAR, "b": -9, "untrained": [{"a": FAR, "b": b} for b in (0, 1)]},
         p_of(3)),
    ],
)  # fmt: skip
def test_a_fail_has_a_p_value_where_a_test_tells_it(rule, numbers, p_fails):
    assert rule.p_fails(numbers) == (None if p_fails is None else pytest.approx(p_fails))


def test_one_more_twin_hardly_ever_fails():
    """Of four numbers of a network that is one more twin, one is beyond the others in a fifth of cases, and as one of
    four in a twentieth."""
    rng, failed, told = np.random.default_rng(0), [], []
    for _ in range(1000):
        values = rng.standard_normal((10, 4))
        numbers = {"a": list(values[0]), "untrained": [{"a": list(one)} for one in values[1:]]}
        failed.append(beyond("a").judge(numbers) is False)
        told.append(beyond("a").p_fails(numbers) <= 0.05)
    assert np.mean(failed) == pytest.approx(1 - 0.95**4, abs=0.04)
    assert np.mean(told) == pytest.approx(0.05, abs=0.02)
