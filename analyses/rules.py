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
from dataclasses import dataclass, replace
from functools import partial
from operator import eq, ge, gt, le, lt
from typing import Any, NamedTuple

import numpy as np

from analyses.statistics import ALPHA, Estimate, beyond_twins

Verdict = bool | None
Numbers = Mapping[str, Any]
Name = str | Mapping[str, str]
INTERVAL = "95 % interval"
UNTRAINED = "untrained"  # among numbers, those of each untrained twin
TEST, TWINS, EXACT = "a test", "untrained twins", "an exact count"  # what a claim may rest on, beside an interval


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """True if all are, False if any is, None otherwise."""
    found = list(verdicts)
    return False if False in found else True if all(one is True for one in found) else None


class Told(NamedTuple):
    """What a rule says of one number, and the p-values that it is as claimed, and that it is on the other side: none
    where nothing tests that."""

    verdict: Verdict
    p_holds: float | None = None
    p_fails: float | None = None


@dataclass(frozen=True)
class Rule:
    """What numbers must be for a claim to hold: True; False where they clearly are not, None where none can tell.

    `holds` and `fails` say in words when it does (no words for `fails`: whenever it does not hold); `each` judges every
    number: all have to be as claimed, and one on the other side is a fail. `rests_on` is what tells the numbers from
    those of chance: where it is empty nothing does, and no claim may hold by this rule.
    """

    holds: str
    each: Callable[[Numbers], list[Told]]
    fails: str = ""
    rests_on: str = ""

    def judge(self, numbers: Numbers) -> Verdict:
        return together(one.verdict for one in self.each(numbers))

    def p_holds(self, numbers: Numbers) -> float | None:
        """That all are as claimed: the largest p-value; None of a rule that tests nothing."""
        return max((one.p_holds for one in self.each(numbers) if one.p_holds is not None), default=None)

    def p_fails(self, numbers: Numbers) -> float | None:
        """That one is on the other side: the smallest p-value, times their number; None where nothing tests that, or a
        number is that no test judges."""
        told = self.each(numbers)
        found = [one.p_fails for one in told if one.p_fails is not None]
        untested = any(one.verdict is False and one.p_fails is None for one in told)
        return None if untested or not found else min(1.0, len(found) * min(found))

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
        lambda numbers: [Told(bool(how(one, times * other))) for one, other in pairs(numbers, name, than)],
        rests_on=EXACT if exact else "",
    )


greater, less = partial(compared, gt, "above"), partial(compared, lt, "below")
at_least, at_most = partial(compared, ge, "at least"), partial(compared, le, "at most")
equal = partial(compared, eq, "exactly")


def beside(side: str, *names: Name, than: Name | float = 0, of: str = "", each: str = "", unit: str = "") -> Rule:
    """Estimates whose whole interval is above, or below, a constant or a plain number: a margin, where what is claimed
    is that nothing changes. It fails where one is on the other side.

    `of` says what the estimates are of, before their names.
    """
    sign, other_side = (1, "below") if side == "above" else (-1, "above")
    is_there, which = {1: (f"the {INTERVAL} is", ""), 2: (f"both {INTERVAL}s are", "either ")}.get(
        len(names), (f"every {INTERVAL} is", "one ")
    )

    def told(one: Estimate, other: float) -> Told:
        return Told(one.against(other), one.p_above(other), (-one).p_above(-other))

    def each_of(numbers: Numbers) -> list[Told]:
        found = (pair for name in names for pair in pairs(numbers, name, than))
        return [told(one, other) if sign == 1 else told(-one, -other) for one, other in found]

    return Rule(
        f"{of} {' and '.join(map(words, names))}: {is_there} {side} {words(than, unit)}{for_every(each)}".strip(),
        each_of,
        f"{which}{other_side} {words(than, unit)}{' for one' if each else ''}",
        "an interval",
    )


above, below = partial(beside, "above"), partial(beside, "below")


def significant(*names: Name, of: str = "", each: str = "", never: str = "") -> Rule:
    """Statistics above 0 by the p-value of their test; it fails where one is below 0 by as small a one, or `never`, for
    a reason, where the test is of one side alone."""

    def told(one: Estimate) -> Told:
        up, down = (p is not None and p < ALPHA for p in (one.p_value, one.p_below))
        return Told(True if up else False if down else None, one.p_above(0), one.p_below)

    are = "is" if len(names) == 1 else "are"
    below = f"below 0 with p < {ALPHA:g}{' for one' if each or len(names) > 1 else ''}"
    return Rule(
        f"{of} {' and '.join(map(words, names))} {are} above 0 with p < {ALPHA:g}{for_every(each)}".strip(),
        lambda numbers: [told(one) for name in names for one in several(numbers, name)],
        f"never, {never}" if never else below,
        TEST,
    )


@dataclass(frozen=True, kw_only=True)
class Beyond(Rule):
    """A network's number beyond those of its untrained twins, which stand in `untrained`, one mapping a twin."""

    name: Name

    def say(self, numbers: Numbers, form: str = ".3g") -> str:
        """The twins' numbers: least, largest and mean."""
        parts = [
            f"{min(twins):{form}} to {max(twins):{form}}, mean {np.mean(twins):{form}}"
            for _, twins in beside_twins(numbers, self.name)
        ]
        return f"{len(numbers[UNTRAINED])} untrained twins: {'; '.join(parts)}"


def beside_twins(numbers: Numbers, name: Name) -> Iterator[tuple[float, list[float]]]:
    """Each number of a name, or the value of an estimate, and those of the twins in its place."""
    own, *twins = (
        [one.value if isinstance(one, Estimate) else one for one in several(of, name)]
        for of in (numbers, *numbers[UNTRAINED])
    )
    return zip(own, map(list, zip(*twins, strict=True)), strict=True)


def beyond(name: Name, side: str = "above", *, each: str = "") -> Beyond:
    """Numbers above, or below, those of untrained twins, by :func:`analyses.statistics.beyond_twins`; it fails where
    one is as clearly on the other side.

    Where there are several all have to be beyond, so that together they are no easier than one.
    """
    sign, other = {"above": (1, "below"), "below": (-1, "above")}[side]

    def told(value: float, twins: list[float]) -> Told:
        up, down = (beyond_twins(way * value, [way * one for one in twins]) for way in (sign, -sign))
        return Told(True if up <= ALPHA else False if down <= ALPHA else None, up, down)

    return Beyond(
        holds=f"{words(name)} is {side} that of untrained twins with p ≤ {ALPHA:g}{for_every(each)}",
        each=lambda numbers: [told(*one) for one in beside_twins(numbers, name)],
        fails=f"{other} that with p ≤ {ALPHA:g}{' for one' if each else ''}",
        rests_on=TWINS,
        name=name,
    )


def not_failing(told: Iterable[Told]) -> list[Told]:
    """What is no reason to fail where it is not as claimed."""
    return [Told(one.verdict or None, one.p_holds) for one in told]


def evidence(rule: Rule, beyond: Beyond) -> Rule:
    """A rule that is no evidence where untrained twins pass it: then it cannot be told.

    It holds where it does of the network, the network is beyond its twins, and no more of them meet it than chance
    allows; it fails as it does without twins.
    """

    def each(numbers: Numbers) -> list[Told]:
        passed = float(np.mean([rule.judge(one) is True for one in numbers[UNTRAINED]]))
        return [*rule.each(numbers), *not_failing(beyond.each(numbers)), Told(passed <= ALPHA or None)]

    return Rule(f"{rule.holds}; untrained twins do not meet this, and {beyond.holds}", each, rule.fails, TWINS)


def given(rule: Rule, room: Rule) -> Rule:
    """A rule where another one leaves it room: numbers at their ceiling cannot rise: nothing can be told of them."""

    def each(numbers: Numbers) -> list[Told]:
        told = rule.each(numbers)
        return told if room.judge(numbers) else [one._replace(verdict=None) for one in told]

    return replace(rule, holds=f"{rule.holds} (judged only where {room.holds})", each=each)


def every(*rules: Rule) -> Rule:
    """Every one of some rules; it fails where one fails. It rests on nothing where one of them does."""
    bases = [rule.rests_on for rule in rules]
    return Rule(
        ", and ".join(one.holds for one in rules),
        lambda numbers: [one for rule in rules for one in rule.each(numbers)],
        " or ".join(dict.fromkeys(one.fails for one in rules if one.fails)),
        " and ".join(dict.fromkeys(bases)) if all(bases) else "",
    )


def unless(rule: Rule, fails: Rule) -> Rule:
    """One rule for a claim to hold, and another by which it fails, which comes first."""

    def each(numbers: Numbers) -> list[Told]:
        failed = Told(fails.judge(numbers) is not True, None, fails.p_holds(numbers))
        return [*not_failing(rule.each(numbers)), failed]

    return Rule(rule.holds, each, fails.holds, rule.rests_on)


RULES: dict[str, Callable[..., Rule]] = {
    "greater": greater, "less": less, "at least": at_least, "at most": at_most, "equal": equal,
    "above": above, "below": below, "significant": significant, "beyond": beyond, "every": every, "unless": unless,
    "given": given,
}  # fmt: skip


def rule_of(written: Mapping[str, Any]) -> Rule:
    """A rule as a table of claims writes it: `{above: [name, …], of: …}`; in place of names, rules. Raises KeyError
    if there is no such rule."""
    kind, *options = written
    given = written[kind] if isinstance(written[kind], list) else [written[kind]]
    parts = [rule_of(one) if isinstance(one, Mapping) and next(iter(one)) in RULES else one for one in given]
    return RULES[kind](*parts, **{key: written[key] for key in options})
