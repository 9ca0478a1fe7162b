"""Rules that word and judge: the sentence on a page and the verdict beside it come from one object.

A rule judges measured numbers by their names, and the names are words of its sentence. Numbers are plain, estimates
with an interval, curves over depth, or several of one name (a mapping or a sequence), which are judged one by one.

>>> rule = Above("R² of the last layer", of="rank correlation with p of")
>>> print(rule)
rank correlation with p of R² of the last layer: the 95 % interval is above 0 (fails: below 0)
>>> rule.judge({"R² of the last layer": Estimate(0.5, 0.2, 0.8)})
True
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import eq, ge, gt, le, lt
from typing import Any, ClassVar

import numpy as np

from analyses.statistics import Estimate

Verdict = bool | None
Numbers = Mapping[str, Any]
INTERVAL = "95 % interval"


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """True if all are, False if any is, None otherwise."""
    found = list(verdicts)
    return False if False in found else True if all(one is True for one in found) else None


def several(value: Any) -> list[Any]:
    """The numbers of one name."""
    if isinstance(value, Mapping):
        return list(value.values())
    return (
        list(value)
        if isinstance(value, Sequence | np.ndarray) and not isinstance(value, Estimate)
        else [value]
    )


class Rule(ABC):
    """What numbers must be for a claim to hold: True; False where they clearly are not, None where none can tell."""

    holds: str
    """When it holds, in words."""
    fails: str = ""
    """When it fails, in words; empty where that is whenever it does not hold."""

    @abstractmethod
    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        """Of every number that is judged."""

    def judge(self, numbers: Numbers) -> Verdict:
        """Whether it holds."""
        return together(self.verdicts(numbers))

    def __str__(self) -> str:
        return f"{self.holds} (fails: {self.fails})" if self.fails else self.holds


class _Comparison(Rule):
    """A plain number against another, or a constant: it holds or fails.

    Parameters
    ----------
    name : str
    than : float or str
        A constant, or the name of another number; of several, in the same order.
    each : str
        What there are several of: a token group.
    times : float
        A factor of the other number.
    unit : str
        After a constant.
    """

    compare: ClassVar[Callable[[Any, Any], Any]]
    word: ClassVar[str]

    def __init__(
        self, name: str, than: float | str, *, each: str = "", times: float = 1, unit: str = ""
    ) -> None:
        self.name, self.than, self.times = name, than, times
        factor = "" if times == 1 else "half of " if times == 0.5 else f"{times:g} times "
        other = than if isinstance(than, str) else f"{than:g}{unit}"
        self.holds = f"{name} is {self.word} {factor}{other}" + (f", for every {each}" if each else "")

    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        found = several(numbers[self.name])
        others = several(numbers[self.than]) if isinstance(self.than, str) else [self.than]
        others = others * len(found) if len(others) == 1 else others
        return [
            bool(type(self).compare(one, self.times * other))
            for one, other in zip(found, others, strict=True)
        ]


class Greater(_Comparison):
    """A number above another."""

    compare, word = gt, "above"


class Less(_Comparison):
    """A number below another."""

    compare, word = lt, "below"


class AtLeast(_Comparison):
    """A number not below another."""

    compare, word = ge, "at least"


class AtMost(_Comparison):
    """A number not above another."""

    compare, word = le, "at most"


class Equal(_Comparison):
    """Exactly the same number."""

    compare, word = eq, "exactly"


class Within(Rule):
    """A number between two constants, ends included."""

    def __init__(self, name: str, low: float, high: float) -> None:
        self.name, self.low, self.high = name, low, high
        self.holds = f"{name} is from {low:g} to {high:g}"

    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        return [bool(self.low <= one <= self.high) for one in several(numbers[self.name])]


class Extreme(Rule):
    """Where along a curve its largest or smallest value is: `last`, `inside`, or `in the middle third`."""

    def __init__(self, name: str, which: str, where: str, *, of: str = "value") -> None:
        self.name, self.largest, self.where = name, which == "largest", where
        self.holds = f"{name} is {which} {f'at the last {of}' if where == 'last' else where}"

    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        curve = np.asarray(numbers[self.name])
        place, third = int(curve.argmax() if self.largest else curve.argmin()), len(curve) // 3
        first, last = {
            "last": (len(curve) - 1, len(curve) - 1),
            "inside": (1, len(curve) - 2),
            "in the middle third": (third, 2 * third - 1),
        }[self.where]
        return [first <= place <= last]


class MostAbove(Rule):
    """A curve above a constant, but for a few places."""

    def __init__(self, name: str, than: float, but: int, *, each: str) -> None:
        self.name, self.than, self.but = name, than, but
        self.holds = f"{name} is above {than:g} at every {each} but {but} at most"

    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        return [int((np.asarray(numbers[self.name]) < self.than).sum()) <= self.but]


class Above(Rule):
    """Estimates whose whole interval is above a constant or a plain number; it fails where one is below.

    Parameters
    ----------
    names : str
    than : float or str
        A constant, or the name of other numbers.
    of : str
        What the estimates are of, before their names.
    each : str
        What there are several of by one name.
    """

    def __init__(self, *names: str, than: float | str = 0, of: str = "", each: str = "") -> None:
        self.names, self.than = names, than
        how, which = {1: (f"the {INTERVAL} is", ""), 2: (f"both {INTERVAL}s are", "either ")}.get(
            len(names), (f"every {INTERVAL} is", "one ")
        )
        other = than if isinstance(than, str) else f"{than:g}"
        self.holds = f"{of} {' and '.join(names)}: {how} above {other}".strip()
        self.holds += f", for every {each}" if each else ""
        self.fails = f"{which}below {other}" + (" for one" if each else "")

    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        found = [one for name in self.names for one in several(numbers[name])]
        others = several(numbers[self.than]) if isinstance(self.than, str) else [self.than] * len(found)
        return [one.against(other) for one, other in zip(found, others, strict=True)]


class ClearlyAbove(Rule):
    """An estimate above another by more than both intervals together; it fails where it is as clearly below."""

    def __init__(self, name: str, than: str, *, each: str = "") -> None:
        self.name, self.than = name, than
        self.holds = f"{name} is above {than} by more than both {INTERVAL}s together"
        self.holds += f", for every {each}" if each else ""
        self.fails = "as clearly below" + (" for one" if each else "")

    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        pairs = zip(several(numbers[self.name]), several(numbers[self.than]), strict=True)
        return [one.less(other).against(0) for one, other in pairs]


class Significant(Rule):
    """Estimates above 0 by their p-value; it fails where one is not above 0 at all."""

    def __init__(self, name: str, alpha: float = 0.05, *, each: str = "") -> None:
        self.name, self.alpha = name, alpha
        self.holds = f"{name} is above 0 with p < {alpha:g}" + (f", for every {each}" if each else "")
        self.fails = "not above 0" + (" for one" if each else "")

    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        return [
            True
            if one.p_value is not None and one.p_value < self.alpha
            else False
            if one.value <= 0
            else None
            for one in several(numbers[self.name])
        ]


class RangeAbove(Rule):
    """Every number of one name above every one of another; it fails where all are below."""

    def __init__(self, name: str, than: str) -> None:
        self.name, self.than = name, than
        self.holds, self.fails = f"{name} is above {than}", "every one below"

    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        first, second = (several(numbers[name]) for name in (self.name, self.than))
        return [True if min(first) > max(second) else False if max(first) < min(second) else None]


class All(Rule):
    """Every one of some rules; it fails where one fails."""

    def __init__(self, *rules: Rule) -> None:
        self.rules = rules
        self.holds = ", and ".join(one.holds for one in rules)
        self.fails = " or ".join(dict.fromkeys(one.fails for one in rules if one.fails))

    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        return [one.judge(numbers) for one in self.rules]


class Unanimous(Rule):
    """Every one of some rules, or of one for each of several numbers; it fails only where none holds."""

    def __init__(self, *rules: Rule) -> None:
        self.rules, self.holds = rules, ", and ".join(one.holds for one in rules)
        self.fails = "for none" if len(rules) == 1 else "neither" if len(rules) == 2 else "none"

    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        return [one for rule in self.rules for one in rule.verdicts(numbers)]

    def judge(self, numbers: Numbers) -> Verdict:
        found = self.verdicts(numbers)
        return True if all(one is True for one in found) else None if True in found else False


class Unless(Rule):
    """One rule for a claim to hold, and another by which it fails, which comes first."""

    def __init__(self, rule: Rule, fails: Rule) -> None:
        self.rule, self.against = rule, fails
        self.holds, self.fails = rule.holds, fails.holds

    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        if self.against.judge(numbers) is True:
            return [False]
        return [True if self.rule.judge(numbers) is True else None]


RULES: dict[str, type[Rule]] = {
    kind.__name__: kind
    for kind in (Greater, Less, AtLeast, AtMost, Equal, Within, Extreme, MostAbove, Above, ClearlyAbove, Significant,
                 RangeAbove, All, Unanimous, Unless)
}  # fmt: skip


def rule_of(written: Mapping[str, Any]) -> Rule:
    """A rule as a table of claims writes it: `{Above: [name, …], of: …}`; in place of names, rules.

    Raises
    ------
    KeyError
        If there is no such rule.
    """
    kind, *options = written
    given = written[kind] if isinstance(written[kind], list) else [written[kind]]
    rules = [rule_of(one) if isinstance(one, Mapping) else one for one in given]
    return RULES[kind](*rules, **{key: written[key] for key in options})
