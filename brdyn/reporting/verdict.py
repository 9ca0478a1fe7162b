"""What the results of a model say, question by question: the answer, its evidence, and what would change it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from brdyn.interventions import Repair, Splice
from brdyn.interventions.splice_result import HARDLY
from brdyn.measures.dynamics import Dynamics
from brdyn.measures.found_spectra import EXPONENT, NORM, Spectra, overall, within
from brdyn.phases import Phases
from brdyn.raptor import Evaluation
from brdyn.reporting.apart import of_one_twin, of_twins
from brdyn.reporting.blocks import of_blocks, shown_instead
from brdyn.reporting.finding import (
    HALF,
    MISSING,
    NO,
    NONE,
    QUESTIONS,
    UNCLEAR,
    YES,
    Finding,
    few,
    of_row,
)
from brdyn.reporting.found import Found, Kind
from brdyn.words import counted, interval

DOUBT = 0.05  # of other boundaries
ALONE = "one image has no interval"
# The sections without which a question stays open.
NEEDED = {
    "phases": ("dynamics",),
    "block": ("raptor", "raptor-eval"),
    "work": ("splice",),
    "stretch": ("spectra",),
    "converge": ("dynamics",),
    "repair": ("perturb",),
    "twins": ("dynamics",),
}


def findings(found: Found, twin: Dynamics | None = None) -> list[Finding]:
    """The answers to all questions, in order.

    `twin` is of an untrained network of this architecture, to go by where no twins were measured beside.
    """
    phases, dynamics = found.of("phases", Phases), found.of("dynamics", Dynamics)
    answers = {
        "phases": _told(_phases, phases),
        "block": _told(lambda one: of_blocks(one, phases), found.of("raptor-eval", Evaluation)),
        "work": _told(_work, found.of("splice", Splice)),
        "stretch": _told(_stretch, found.of("spectra", Dynamics)),
        "converge": _told(_converge, dynamics),
        "repair": _told(_repair, found.of("perturb", Repair)),
        "twins": of_twins(found.beside_twins) or _told(lambda one: of_one_twin(one, twin), dynamics),
    }
    return [answers[question] or _missing(question, found) for question in QUESTIONS]


def _told(answer: Callable[[Kind], Finding | None], result: Kind | None) -> Finding | None:
    """What a result answers; None where there is none."""
    return None if result is None else answer(result)


def _missing(question: str, found: Found) -> Finding:
    """What was not asked for, could not be had, or failed."""
    failed, reason = (
        next(filter(None, map(why.get, NEEDED[question])), None) for why in (found.failures, found.left_out)
    )
    if failed:
        return Finding(question, MISSING, "failed", f"it failed: {failed}", "a run that does not fail")
    remedy = {
        "block": "a Raptor: `fit_raptor=20000` fits one, `raptor=RUN` takes one that was fitted",
        "stretch": "any size but `fast`, or `brdyn dynamics --measures spectra --krylov-steps 2`",
        "twins": "`null=19`: twins measured beside, of which 19 are the fewest for p = .05",
    }.get(question, "a run that measures it")
    said = {"block": "only a Raptor can tell, and none was asked for"}.get(question, reason or "it was not asked for")
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


def _work(found: Splice) -> Finding:
    """Whether another layer's block makes less of an error than none within a phase, and by how much."""
    said = f"{found.answer().removeprefix('no: ') or 'nothing stands in for a layer'}{_of_which(found.phases)}"
    within = found.shared_work()
    if within is None:
        change = "phases of more than one layer (`brdyn splice --k`)"
        return Finding("work", UNCLEAR, "no two layers in a phase", said, change)
    answer, images = UNCLEAR, int(within["n_images"])
    if within["low"] > 1:
        answer, short = NO, "worse than nothing"
    elif images == 1:
        short = ALONE
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
    return Finding("work", answer, share, said + few(images), change)


def _stretch(found: Dynamics) -> Finding:
    """Whether the leading singular vectors of a phase's layers are nearer than those of other layers, on both sides."""
    spectra = found.spectra
    assert spectra is not None  # of a result that has nothing else
    exponent, growth = _total(spectra, EXPONENT), float(spectra.by_block(NORM).mean())
    grows = (
        f"A small change grows by {of_row(exponent)} nats a block, the norm of tokens by {growth:.2f}"
        f"{few(int(exponent['n_images']))}"
    )
    if not len(spectra.pairs):
        sentence = f"whether layers stretch alike cannot be told: there are no two. {grows}"
        return Finding("stretch", UNCLEAR, "cannot be told", sentence, "a model with more layers")
    told, tests = [], []
    for side, test in spectra.tests.items():
        every = _total(spectra, overall(side))
        said = f"{side} {every['mean']:.3f} (all pairs of layers"
        if test is not None:
            tests.append(test)
            more = _total(spectra, within(side))["mean"]
            said += f"; {more:+.3f} within phases, boundaries elsewhere p = {test.p_value:.2g}"
        told.append(f"{said})")
    sentence = (
        f"squared cosine of the leading {spectra.tangents} directions of two layers: {', '.join(told)}; "
        f"{spectra.chance:.2g} by chance{_of_which(found.phases)}. {grows}"
    )
    if not tests:
        return Finding("stretch", UNCLEAR, "no two layers in a phase", sentence, "phases of more than one layer")
    change = (
        "boundaries that divide the layers better than most others; layers are the units of the test, so that more "
        "images change little"
    )
    if all(test.p_value < DOUBT for test in tests):
        return Finding("stretch", YES, "more than layers of two", sentence, change)
    if all(test.p_below is not None and test.p_below < DOUBT for test in tests):
        return Finding("stretch", NO, "less than layers of two", sentence, change)
    if any(1 / test.placements >= DOUBT for test in tests):
        sentence += f". {tests[0].placements} placements of boundaries are too few for a test"
        return Finding("stretch", UNCLEAR, "too few layers to tell", sentence, "a model of more layers, more phases")
    return Finding("stretch", UNCLEAR, "not told from other boundaries", sentence, change)


def _total(spectra: Spectra, quantity: str) -> pd.Series:
    """The leading row of what spectra say over depth."""
    return spectra.totals[spectra.totals["quantity"] == quantity].iloc[0]


def _of_which(phases: Phases) -> str:
    """Of which phases a result is, where those are not what the test accepts."""
    shown = shown_instead(phases)
    if shown is None:
        return ""
    words = ", as none were shown" if shown == 1 else f"; {shown} were shown"
    return f" (phases of the best cut into {phases.k}{words})"


def _converge(dynamics: Dynamics) -> Finding | None:
    """Whether the last update turns tokens less than those before it."""
    groups = _readouts(dynamics)
    if not groups:
        return None
    if dynamics.phases.layers == 1:
        said, change = "there is one update, and none before it", "a model with more layers"
        return Finding("converge", UNCLEAR, "cannot be told", said, change)
    told = [_rest(dynamics, group) for group in groups]
    answers = {answer for answer, _ in told}
    answer = answers.pop() if len(answers) == 1 else UNCLEAR
    images = int(dynamics.table["n_images"].min())
    open_ = ALONE if images == 1 else "differs or too few images"
    short = {YES: "slower at the end", NO: "still turning at the end", UNCLEAR: open_}
    change = "the interval of the last update's angle on the other side of the mean of the others: more images"
    said = f"the last update turns {' and '.join(sentence for _, sentence in told)}{few(images)}"
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
    angle = f"{last['mean']:.2f} rad {interval(last['low'], last['high'])}".rstrip()
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
    images = int(own["n_images"].min())
    both_ways = {0: "not told from no change", 1: "told from some depths alone", 2: "it depends on tokens or depth"}
    open_ = both_ways[int((own["high"] < 0).any()) + int((own["low"] > 0).any())]
    short = {YES: "noise shrinks", NO: "noise grows", UNCLEAR: ALONE if images == 1 else open_}
    said = f"noise of {largest:g} of a token's norm: " + "; ".join(f"on {group} {words}" for group, _, words in told)
    change = "smaller noise, other tokens; and untrained twins, which may repair or lose as much"
    return Finding("repair", answer, short[answer], said + few(images), change)


def _shrinking(rows: pd.DataFrame) -> tuple[str, str]:
    """At how many of the starts the noise shrinks, and at how many it grows."""
    shrinks, grows = int((rows["high"] < 0).sum()), int((rows["low"] > 0).sum())
    answer = YES if shrinks > HALF * len(rows) else NO if grows > HALF * len(rows) else UNCLEAR
    rate = float(rows["mean"].mean())
    counts = f"it shrinks from {shrinks} of {len(rows)} depths and grows from {grows}"
    if rows["low"].isna().all():
        counts = "from which depths it shrinks or grows cannot be told"
    return answer, f"{counts} ({rate:+.2f} a layer on average)"


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
        work[YES] = f"a Raptor does its work with {block.short}"
    recurrent = {
        (YES, YES): "block-recurrent, by this evidence",
        (NONE, YES): "fewer blocks than layers can do its work, without phases of its own",
    }.get((phases.answer, block.answer), "not shown to be block-recurrent")
    said = f"{recurrent}: {parts[phases.answer]}, and {work[block.answer]}"
    return f"untrained network (nothing of this was learnt): {said}" if untrained else said
