"""Rules that word and judge: the sentence on a page and the verdict beside it come from one object.

A rule judges measured numbers by their names. A name is the word for its number in the sentence too, or has words of
its own: `{r2: R² of the last layer}`. Numbers are plain, estimates with an interval, curves over depth, or several of
one name (a mapping or a sequence), which are judged one by one.

>>> rule = above({"r2": "R² of the last layer"}, of="rank correlation with p of")
>>> print(rule)
rank correlation with p of R² of the last layer: the 95 % interval is above 0 (fails: below 0)
>>> rule.judge({"r2": Estimate(0.5, 0.2, 0.8)}), rule.rests_on
(True, 'an interval')
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import eq, ge, gt, le, lt
from typing import Any

import numpy as np

from analyses.statistics import ALPHA, Estimate, beyond_twins

Verdict = bool | None
Numbers = Mapping[str, Any]
Name = str | Mapping[str, str]
INTERVAL = "95 % interval"
UNTRAINED = "untrained"  # among numbers, those of each untrained twin
TEST, TWINS, EXACT = (
    "a test",
    "untrained twins",
    "an exact count",
)  # what a claim may rest on, beside an interval


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """True if all are, False if any is, None otherwise."""
    found = list(verdicts)
    return False if False in found else True if all(one is True for one in found) else None


def as_many(verdicts: Iterable[Verdict]) -> Verdict:
    """True if all are, None if any is, False otherwise."""
    found = list(verdicts)
    return True if all(one is True for one in found) else None if True in found else False


def no_tests(numbers: Numbers) -> list[float]:
    del numbers
    return []


def tests_of(*rules: Rule) -> Callable[[Numbers], list[float]]:
    """All tests of some rules."""
    return lambda numbers: [p for rule in rules for p in rule.p_values(numbers)]


@dataclass(frozen=True)
class Rule:
    """What numbers must be for a claim to hold: True; False where they clearly are not, None where none can tell.

    `holds` and `fails` say in words when it does (no words for `fails`: whenever it does not hold); `verdicts` judges
    every number, and `sum_up` makes one verdict of all. A rule that tests has `p_values` of what has to hold together.
    `rests_on` is what tells the numbers from those of chance: where it is empty nothing does, and no claim may hold by
    this rule.
    """

    holds: str
    verdicts: Callable[[Numbers], list[Verdict]]
    fails: str = ""
    sum_up: Callable[[Iterable[Verdict]], Verdict] = together
    p_values: Callable[[Numbers], list[float]] = no_tests
    rests_on: str = ""

    def p_value(self, numbers: Numbers) -> float | None:
        """That all hold which have to: the largest of them; None of a rule that tests nothing."""
        return max(self.p_values(numbers), default=None)

    def judge(self, numbers: Numbers) -> Verdict:
        return self.sum_up(self.verdicts(numbers))

    def __str__(self) -> str:
        return f"{self.holds} (fails: {self.fails})" if self.fails else self.holds


def words(name: Name | float, unit: str = "") -> str:
    """Of a number: its own, its name, or a constant."""
    if isinstance(name, Mapping):
        return next(iter(name.values()))
    return name if isinstance(name, str) else f"{name:g}{unit}"


def several(numbers: Numbers, name: Name | float) -> list[Any]:
    """The numbers of one name, or a constant."""
    if isinstance(name, int | float):
        return [name]
    value = numbers[next(iter(name)) if isinstance(name, Mapping) else name]
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, Sequence | np.ndarray) else [value]


def pairs(numbers: Numbers, name: Name, other: Name | float) -> Iterable[tuple[Any, Any]]:
    """Numbers of one name with those of another in the same order, or with one for all."""
    first, second = several(numbers, name), several(numbers, other)
    return zip(first, second * len(first) if len(second) == 1 else second, strict=True)


def for_every(each: str) -> str:
    """What there are several of, after a sentence."""
    return f", for every {each}" if each else ""


def compared(
    how: Callable[[Any, Any], Any], word: str, name: Name, than: Name | float, *, each: str = "", times: float = 1,
    unit: str = "", exact: bool = False,
) -> Rule:  # fmt: skip
    """Plain numbers against others, a factor of them, or a constant (which may have a unit): met or not.

    `each` says what there are several of: a token group. Those that are `exact` were counted, not measured: no chance
    is in them. Others are evidence of nothing by themselves.
    """
    factor = "" if times == 1 else "half of " if times == 0.5 else f"{times:g} times "
    return Rule(
        f"{words(name)} is {word} {factor}{words(than, unit)}{for_every(each)}",
        lambda numbers: [bool(how(one, times * other)) for one, other in pairs(numbers, name, than)],
        rests_on=EXACT if exact else "",
    )


greater, less = partial(compared, gt, "above"), partial(compared, lt, "below")
at_least, at_most = partial(compared, ge, "at least"), partial(compared, le, "at most")
equal = partial(compared, eq, "exactly")


def beside(
    side: str, *names: Name, than: Name | float = 0, of: str = "", each: str = "", unit: str = ""
) -> Rule:
    """Estimates whose whole interval is above, or below, a constant or a plain number: a margin, where what is claimed
    is that nothing changes. It fails where one is on the other side.

    `of` says what the estimates are of, before their names.
    """
    sign, other_side = (1, "below") if side == "above" else (-1, "above")
    is_there, which = {1: (f"the {INTERVAL} is", ""), 2: (f"both {INTERVAL}s are", "either ")}.get(
        len(names), (f"every {INTERVAL} is", "one ")
    )

    def turned(numbers: Numbers) -> list[tuple[Estimate, float]]:
        found = [pair for name in names for pair in pairs(numbers, name, than)]
        return found if sign == 1 else [(-one, -other) for one, other in found]

    return Rule(
        f"{of} {' and '.join(map(words, names))}: {is_there} {side} {words(than, unit)}{for_every(each)}".strip(),
        lambda numbers: [one.against(other) for one, other in turned(numbers)],
        f"{which}{other_side} {words(than, unit)}{' for one' if each else ''}",
        p_values=lambda numbers: [one.p_above(other) for one, other in turned(numbers)],
        rests_on="an interval",
    )


above, below = partial(beside, "above"), partial(beside, "below")


def clearly_above(name: Name, than: Name, *, each: str = "") -> Rule:
    """An estimate above another by more than both intervals together; it fails where it is as clearly below."""
    return Rule(
        f"{words(name)} is above {words(than)} by more than both {INTERVAL}s together{for_every(each)}",
        lambda numbers: [one.less(other).against(0) for one, other in pairs(numbers, name, than)],
        f"as clearly below{' for one' if each else ''}",
        p_values=lambda numbers: [one.less(other).p_above(0) for one, other in pairs(numbers, name, than)],
        rests_on="an interval",
    )


def significant(*names: Name, of: str = "", each: str = "") -> Rule:
    """Statistics above 0 by the p-value of their test; it fails where one is below 0 by as small a one."""

    def verdict(one: Estimate) -> Verdict:
        up, down = one.p_value, one.p_below
        return True if up is not None and up < ALPHA else False if down is not None and down < ALPHA else None

    are = "is" if len(names) == 1 else "are"
    return Rule(
        f"{of} {' and '.join(map(words, names))} {are} above 0 with p < {ALPHA:g}{for_every(each)}".strip(),
        lambda numbers: [verdict(one) for name in names for one in several(numbers, name)],
        f"below 0 with p < {ALPHA:g}{' for one' if each or len(names) > 1 else ''}",
        p_values=lambda numbers: [one.p_above(0) for name in names for one in several(numbers, name)],
        rests_on=TEST,
    )


@dataclass(frozen=True, kw_only=True)
class Beyond(Rule):
    """A network's number beyond those of its untrained twins, which stand in `untrained`, one mapping a twin."""

    name: Name

    def say(self, numbers: Numbers, form: str = ".3g") -> str:
        """The twins' numbers: mean, least and largest."""
        parts = [
            f"{np.mean(twins):{form}} [{min(twins):{form}}, {max(twins):{form}}]"
            for _, twins in beside_twins(numbers, self.name)
        ]
        return f"{len(numbers[UNTRAINED])} untrained twins: {', '.join(parts)}"


def beside_twins(numbers: Numbers, name: Name) -> Iterator[tuple[float, list[float]]]:
    """Each number of a name, and those of the twins in its place."""
    twins = [several(one, name) for one in numbers[UNTRAINED]]
    return zip(several(numbers, name), map(list, zip(*twins, strict=True)), strict=True)


def beyond(name: Name, side: str = "above", *, each: str = "") -> Beyond:
    """Numbers above, or below, those of untrained twins, by :func:`analyses.statistics.beyond_twins`; it fails where
    one is on the other side of their mean.

    Where there are several all have to be beyond, so that together they are no easier than one.
    """
    sign = {"above": 1, "below": -1}[side]

    def verdict(value: float, twins: list[float]) -> Verdict:
        clear = beyond_twins(sign * value, [sign * one for one in twins]) <= ALPHA
        return True if clear else False if sign * (value - np.mean(twins)) < 0 else None

    return Beyond(
        holds=f"{words(name)} is {side} that of untrained twins with p < {ALPHA:g}{for_every(each)}",
        verdicts=lambda numbers: [verdict(*one) for one in beside_twins(numbers, name)],
        fails=f"on the other side of their mean{' for one' if each else ''}",
        p_values=lambda numbers: [
            beyond_twins(sign * value, [sign * one for one in twins])
            for value, twins in beside_twins(numbers, name)
        ],
        rests_on=TWINS,
        name=name,
    )


def evidence(rule: Rule, beyond: Beyond) -> Rule:
    """A rule that is no evidence where untrained twins pass it: then it cannot be told.

    It holds where it does of the network, the network is beyond its twins, and no more of them meet it than chance
    allows; it fails as it does without twins.
    """

    def verdicts(numbers: Numbers) -> list[Verdict]:
        verdict = rule.judge(numbers)
        if verdict is not True:
            return [verdict]
        passed = float(np.mean([rule.judge(one) is True for one in numbers[UNTRAINED]]))
        return [True if passed <= ALPHA and beyond.judge(numbers) is True else None]

    held = f"{rule.holds}; untrained twins do not meet this, and {beyond.holds}"
    return Rule(held, verdicts, rule.fails, p_values=tests_of(rule, beyond), rests_on=TWINS)


def given(rule: Rule, room: Rule) -> Rule:
    """A rule where another one leaves it room: numbers at their ceiling cannot rise: nothing can be told of them."""
    return Rule(
        f"{rule.holds} (judged only where {room.holds})",
        lambda numbers: [rule.judge(numbers) if room.judge(numbers) else None],
        rule.fails,
        p_values=rule.p_values,
        rests_on=rule.rests_on,
    )


def bases(*rules: Rule) -> str:
    """What some rules rest on together: nothing, where one does not rest on anything."""
    found = [rule.rests_on for rule in rules]
    return " and ".join(dict.fromkeys(found)) if all(found) else ""


def every(*rules: Rule) -> Rule:
    """Every one of some rules; it fails where one fails."""
    return Rule(
        ", and ".join(one.holds for one in rules),
        lambda numbers: [one.judge(numbers) for one in rules],
        " or ".join(dict.fromkeys(one.fails for one in rules if one.fails)),
        p_values=tests_of(*rules),
        rests_on=bases(*rules),
    )


def unanimous(*rules: Rule) -> Rule:
    """Every one of some rules, or of one for each of several numbers; it fails only where none holds."""
    return Rule(
        every(*rules).holds,
        lambda numbers: [one for rule in rules for one in rule.verdicts(numbers)],
        {1: "for none", 2: "neither"}.get(len(rules), "none"),
        as_many,
        tests_of(*rules),
        bases(*rules),
    )


def unless(rule: Rule, fails: Rule) -> Rule:
    """One rule for a claim to hold, and another by which it fails, which comes first."""

    def verdicts(numbers: Numbers) -> list[Verdict]:
        return [False if fails.judge(numbers) is True else rule.judge(numbers) is True or None]

    return Rule(rule.holds, verdicts, fails.holds, p_values=tests_of(rule), rests_on=rule.rests_on)


def supported(name: Name, *, each: str = "") -> Rule:
    """Numbers of phases that a test supports: it holds where they are above 1. It never fails, since a test that finds
    nothing is no evidence that there is nothing."""
    return Rule(
        f"{words(name)} is above 1{for_every(each)}",
        lambda numbers: [k > 1 or None for k in several(numbers, name)],
        "never, since what a test does not find may be there",
        rests_on=TEST,
    )


RULES: dict[str, Callable[..., Rule]] = {
    "greater": greater, "less": less, "at least": at_least, "at most": at_most, "equal": equal,
    "above": above, "below": below, "clearly above": clearly_above, "given": given,
    "significant": significant, "every": every, "unanimous": unanimous, "unless": unless,
    "beyond": beyond, "supported": supported,
}  # fmt: skip


def rule_of(written: Mapping[str, Any]) -> Rule:
    """A rule as a table of claims writes it: `{above: [name, …], of: …}`; in place of names, rules. Raises KeyError
    if there is no such rule."""
    kind, *options = written
    given = written[kind] if isinstance(written[kind], list) else [written[kind]]
    parts = [rule_of(one) if isinstance(one, Mapping) and next(iter(one)) in RULES else one for one in given]
    return RULES[kind](*parts, **{key: written[key] for key in options})
