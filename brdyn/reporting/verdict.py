"""What the results of a model say, question by question: the answer, its evidence, and what would change it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from brdyn.interventions import Repair, Splice
from brdyn.interventions.splice_result import HARDLY
from brdyn.measures.dynamics import Dynamics
from brdyn.measures.null import BesideTwins
from brdyn.phases import Phases
from brdyn.raptor import Evaluation
from brdyn.words import counted

YES, NO, UNCLEAR, MISSING = "yes", "no", "unclear", "not measured"
NONE = "none found"  # by a test, which may have missed some
FAITHFUL = 0.9  # R² at every layer, from which a Raptor counts as a copy
HALF = 0.5
MANY = 19  # twins, the fewest that a value outside all of them differs from at p = .05
FEW = 30  # images, below which a normal interval of a mean is rough
QUESTIONS = {
    "phases": "Does its depth fall into phases?",
    "block": "Can one block do the work of a phase?",
    "work": "Does one layer do another's work?",
    "converge": "Do tokens come to rest?",
    "repair": "Are perturbations repaired?",
    "twins": "What is different from untrained twins?",
}
GUIDES = {
    "phases": "phases",
    "block": "raptor",
    "work": "splice",
    "converge": "dynamics",
    "repair": "perturbation",
    "twins": "dynamics",
    "use": "interventions",
}


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes
    ----------
    question : str
        A key of :data:`QUESTIONS`.
    answer : {"yes", "no", "none found", "unclear", "not measured"}
    short : str
        The answer in a few words, for a table.
    sentence : str
        The evidence.
    change : str
        What would change the answer.

    Examples
    --------
    >>> from brdyn.reporting import Finding
    >>> Finding("phases", "no", "none", "a smooth drift explains all steps", "another similarity").answer
    'no'
    """

    question: str
    answer: str
    short: str
    sentence: str
    change: str


def findings(
    results: Mapping[str, object], failures: Mapping[str, str], twin: Dynamics | None = None
) -> list[Finding]:
    """The answers to all questions, in order.

    Parameters
    ----------
    results : mapping of str to Result
        Of one model, by section.
    failures : mapping of str to str
        Of its sections that failed, why.
    twin : Dynamics, optional
        Of an untrained network of this architecture, to go by where no twins were measured beside.
    """
    phases, dynamics, repair = results.get("phases"), results.get("dynamics"), results.get("perturb")
    evaluation, splice = results.get("raptor-eval"), results.get("splice")
    lost = {
        "phases": failures.get("dynamics"),
        "converge": failures.get("dynamics"),
        "repair": failures.get("perturb"),
        "work": failures.get("splice"),
        "block": failures.get("raptor") or failures.get("raptor-eval"),
        "twins": failures.get("dynamics"),
    }
    beside = [one for one in results.values() if isinstance(one, BesideTwins)]
    found = {
        "phases": _phases(phases) if isinstance(phases, Phases) else None,
        "block": _block(evaluation) if isinstance(evaluation, Evaluation) else None,
        "work": _work(splice) if isinstance(splice, Splice) else None,
        "converge": _converge(dynamics) if isinstance(dynamics, Dynamics) else None,
        "repair": _repair(repair) if isinstance(repair, Repair) else None,
        "twins": _twins(beside) or (_one_twin(dynamics, twin) if isinstance(dynamics, Dynamics) else None),
    }
    return [found[name] or _missing(name, lost[name]) for name in QUESTIONS]


def _missing(question: str, why: str | None) -> Finding:
    """What was not asked for, or failed."""
    if why:
        return Finding(question, MISSING, "failed", f"it failed: {why}", "a run that does not fail")
    remedy = {
        "block": "a Raptor: `fit_raptor=20000` fits one, `raptor=RUN` takes one that was fitted",
        "twins": "`null=19`: twins measured beside, of which 19 are the fewest for p = .05",
    }.get(question, "a run that measures it")
    said = {"block": "only a Raptor can tell, and none was asked for"}.get(question, "it was not asked for")
    return Finding(question, MISSING, MISSING, said, remedy)


def _phases(phases: Phases) -> Finding:
    evidence = phases.evidence
    assert evidence is not None  # of phases that were found
    if evidence.untested:
        return Finding(
            "phases", UNCLEAR, "cannot be tested", evidence.sentence(), "a model with more layers, as layers are units"
        )  # fmt: skip
    if evidence.boundaries:
        weakest = max(evidence.boundaries, key=lambda one: one.p)
        change = (
            f"other images or another similarity in which the step after layer {weakest.layer} (p = {weakest.p:.2g}) "
            "does not stand out; untrained twins that have it too"
        )
        return Finding("phases", YES, counted(evidence.k, "phase"), phases.sentence(), change)
    change = (
        f"a step at least 1.5 times its trend at p < {evidence.alpha:g}; layers are the units of the test, so that "
        "more images change little, and another similarity may (`brdyn phases --similarity cka`)"
    )
    return Finding("phases", NONE, NONE, phases.sentence(), change)


def _block(found: Evaluation) -> Finding:
    curve = found.fidelity.curve("r2")
    least, layer = float(curve.min()), int(curve.idxmin())
    blocks = counted(len(set(found.assignment)), "block")
    seen = f"{blocks} for {len(found.assignment)} layers: R² {least:.2f} at least, at layer {layer}"
    change = (
        "a longer fit, which can only raise R²; random partitions that do as well speak against these phases"
    )
    if found.fidelity.baselines is None:
        skill = None
    else:
        curves = found.fidelity.curve("skill_affine").dropna()
        skill = float(curves.iloc[-1]) if len(curves) else None
    if skill is not None:
        seen += f"; skill over one affine map for each layer {skill:.2f} at the last"
    if least >= FAITHFUL and (skill is None or skill > 0):
        return Finding(
            "block", YES, f"R² ≥ {least:.2f}", f"the Raptor goes its own way faithfully: {seen}", change
        )
    if least >= FAITHFUL:
        said = f"it is faithful, but one affine map is too, so that no block was needed: {seen}"
        return Finding("block", UNCLEAR, "so can a linear map", said, change)
    said = f"this Raptor does not follow the model: {seen}; a fit bounds from below, so a longer one may"
    return Finding("block", UNCLEAR, f"R² down to {least:.2f}", said, change)


def _work(found: Splice) -> Finding:
    """Whether another layer's block makes less of an error than none within a phase, and by how much."""
    said = f"{found.answer().removeprefix('no: ')}{_of_which(found.phases)}"
    within = found.shared_work()
    if within is None:
        change = "phases of more than one layer (`brdyn splice --k`)"
        return Finding("work", UNCLEAR, "no two layers in a phase", said, change)
    answer = UNCLEAR
    if within["low"] > 1:
        answer, short = NO, "worse than nothing"
    elif not within["high"] < 1:
        short = "not told from nothing"
    elif within["mean"] > 1 - HARDLY:
        answer, short = NO, "hardly any of it"
    else:
        answer, short = YES, "some of it"
    change = (
        f"this error on the other side of 100 %, or of {1 - HARDLY:.0%}, from which on it is hardly any of the work: "
        "more images, other phases"
    )
    share = f"{short}: {within['mean']:.0%} of the error without"
    return Finding("work", answer, share, said + _few(int(within["n_images"])), change)


def _of_which(phases: Phases) -> str:
    """Of which phases a result is, where those are not what the test accepts."""
    evidence = phases.evidence
    if evidence is None or [one.layer for one in evidence.boundaries] == list(phases.boundaries):
        return ""
    shown = ", as none were shown" if evidence.k == 1 else f"; {evidence.k} were shown"
    return f" (phases of the best cut into {phases.k}{shown})"


def _converge(dynamics: Dynamics) -> Finding | None:
    """Whether the last update turns tokens less than those before it."""
    told = [_rest(dynamics, group) for group in _readouts(dynamics)]
    if not told:
        return None
    answers = {answer for answer, _ in told}
    answer = answers.pop() if len(answers) == 1 else UNCLEAR
    short = {YES: "slower at the end", NO: "still turning at the end", UNCLEAR: "differs or too few images"}
    change = (
        "the interval of the last update's angle on the other side of the mean of the others: more images"
    )
    few = min(int(rows["n_images"].min()) for rows in [dynamics.table] if len(rows))
    said = f"the last update turns {' and '.join(sentence for _, sentence in told)}{_few(few)}"
    return Finding("converge", answer, short[answer], said, change)


def _readouts(dynamics: Dynamics) -> list[str]:
    """The groups to speak of: all but registers."""
    return [group for group in dynamics.groups("speed") if group not in ("registers", "distillation")]


def _rest(dynamics: Dynamics, group: str) -> tuple[str, str]:
    """Of one group, the answer and what to say."""
    table = dynamics.table
    rows = table[(table["statistic"] == "speed") & (table["group"] == group)].sort_values("layer")
    last, before = rows.iloc[-1], float(rows["mean"].iloc[:-1].mean())
    answer = YES if last["high"] < before else NO if last["low"] > before else UNCLEAR
    words = {YES: "less than", NO: "more than", UNCLEAR: "which these images cannot tell from"}
    angle = f"{last['mean']:.2f} rad [{last['low']:.2f}, {last['high']:.2f}]"
    return answer, f"{group} by {angle}, {words[answer]} the updates before it ({before:.2f} on average)"


def _repair(found: Repair) -> Finding | None:
    """Whether the angle to the clean state shrinks from where noise is added to the end."""
    growth = found.growth
    largest = growth["eps"].max() if len(growth) else np.nan
    own = growth[(growth["eps"] == largest) & (growth["target"] == growth["group"])]
    own = own[~own["group"].isin(["registers", "distillation"])]
    if not len(own):
        return None
    told = [(str(group), *_shrinking(rows)) for group, rows in own.groupby("group", sort=False)]
    answers = {answer for _, answer, _ in told}
    answer = answers.pop() if len(answers) == 1 else UNCLEAR
    short = {YES: "noise shrinks", NO: "noise grows", UNCLEAR: "it depends on tokens or depth"}
    said = f"noise of {largest:g} of a token's norm: " + "; ".join(
        f"on {group} {words}" for group, _, words in told
    )
    change = "smaller noise, other tokens; and untrained twins, which may repair or lose as much"
    return Finding("repair", answer, short[answer], said + _few(int(own["n_images"].min())), change)


def _shrinking(rows: pd.DataFrame) -> tuple[str, str]:
    """At how many of the starts the noise shrinks, and at how many it grows."""
    shrinks, grows = int((rows["high"] < 0).sum()), int((rows["low"] > 0).sum())
    answer = YES if shrinks > HALF * len(rows) else NO if grows > HALF * len(rows) else UNCLEAR
    rate = float(rows["mean"].mean())
    return answer, (
        f"it shrinks from {shrinks} of {len(rows)} depths and grows from {grows} ({rate:+.2f} a layer on average)"
    )


def _few(images: int) -> str:
    """A warning where there are too few images for an interval of a mean."""
    return f" ({counted(images, 'image')}: intervals are rough)" if images < FEW else ""


def beside(results: Sequence[BesideTwins]) -> Iterator[tuple[str, float, np.ndarray]]:
    """Each headline of the results: its words, its value, and those of the twins."""
    for result in results:
        for name, (value, twins) in result.beside().items():
            if np.isfinite(value) and np.isfinite(twins).all():
                yield name, value, twins


def _twins(results: Sequence[BesideTwins]) -> Finding | None:
    """What lies outside all the twins."""
    rows = list(beside(results))
    if not rows:
        return None
    count = len(rows[0][2])
    apart = sorted(
        ((_apart(value, twins), name, value, twins) for name, value, twins in rows),
        key=lambda row: -row[0],
    )
    outside = [row for row in apart if row[0] > 0]
    p = 1 / (count + 1)
    chance = 2 * p * len(rows)  # either side
    said = f"{len(outside)} of {len(rows)} numbers differ from the one twin's"
    if count > 1:
        said = f"{len(outside)} of {len(rows)} numbers lie outside all {count} twins"
        said += f" (about {min(chance, len(rows)):.0f} would by chance)"
    if outside:
        said += "; farthest: " + "; ".join(
            f"{name} {value:.3g}, untrained {twins.mean():.3g}" for _, name, value, twins in outside[:2]
        )
    if count == 1:
        said += " (one twin shows no spread)"
    many = count >= MANY
    answer = YES if many and len(outside) > chance else UNCLEAR
    change = "more twins: " + ("each narrows the chance" if many else f"{MANY} are the fewest for p = .05")
    short = "beside one twin" if count == 1 else f"{len(outside)} of {len(rows)} outside"
    return Finding("twins", answer, short, said, change)


def _apart(value: float, twins: np.ndarray) -> float:
    """How far a number lies outside the twins, over their range or size; 0 among them."""
    gap = max(value - twins.max(), twins.min() - value, 0.0)
    return gap / max(float(np.ptp(twins)), float(np.abs(twins).mean()), 1e-12)


def _one_twin(dynamics: Dynamics, twin: Dynamics | None) -> Finding | None:
    """Beside one untrained network of the report."""
    if twin is None:
        return None
    own, other = (one.headlines(one.compared()) for one in (dynamics, twin))
    rows = [(name, value, other[name]) for name, value in own.items() if np.isfinite(other.get(name, np.nan))]
    rows = sorted(rows, key=lambda row: -abs(row[1] - row[2]) / max(abs(row[2]), 1e-12))[:3]
    said = "beside one untrained twin: " + "; ".join(
        f"{name} {value:.3g}, untrained {of:.3g}" for name, value, of in rows
    )
    return Finding(
        "twins", UNCLEAR, "beside one twin", said + " (one twin shows no spread)", "`null=19`: more twins"
    )


def verdict(found: Sequence[Finding], untrained: bool) -> str:
    """All of it in a sentence."""
    by = {one.question: one for one in found}
    phases, block = by["phases"], by["block"]
    parts = {
        YES: f"its depth falls into {phases.short}",
        NONE: "its depth shows no phases beyond a smooth drift",
        UNCLEAR: "whether there are phases cannot be tested",
        MISSING: "phases were not measured",
    }
    work = {
        YES: "one block can do the work of each",
        UNCLEAR: "that one block does the work of each is not shown",
        MISSING: "whether one block can do the work of each was not tested",
    }
    if phases.answer != YES:
        work = {answer: words.replace("each", "a phase") for answer, words in work.items()}
    recurrent = {
        (YES, YES): "block-recurrent, by this evidence",
        (NONE, YES): "a few blocks can do its work, without phases of its own",
    }.get((phases.answer, block.answer), "not shown to be block-recurrent")
    said = f"{recurrent}: {parts[phases.answer]}, and {work[block.answer]}"
    return f"untrained network (nothing of this was learnt): {said}" if untrained else said
