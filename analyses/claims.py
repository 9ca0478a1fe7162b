"""Every published claim, from the table `claims.yaml`, and what the recorded runs say of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from analyses.findings import dense, depth, layers, offline, phases, shared, vitrm
from analyses.findings import raptor as raptors
from analyses.raptor_cells import Cells, read_cells
from analyses.recording import RESULTS
from analyses.render import rows_of, words
from analyses.rules import UNTRAINED, Beyond, Numbers, Rule, Verdict, evidence, rule_of
from analyses.shared_blocks import Shared, read_shared
from analyses.statistics import ALPHA, holm
from analyses.stochastic_depth_cells import Recorded, read_study
from analyses.vitrm_grid import Grid, read_grid
from brdyn import UsageError
from brdyn.classifiers import packaged
from brdyn.classifiers.recipe import VITRM
from brdyn.interventions import Surgery
from brdyn.raptor import Evaluation

TABLE = Path(__file__).with_suffix(".yaml")
OVERFIT, HUNDRED = "overfit", "cifar100"
Key = tuple[str, str, str]  # of a claim: its study, its measure, its words
OURS, NOT_TESTED, UNKNOWN = "ours", "not tested", "Not known"
BY_LESS = "meet the rule too, though by clearly less"
NO_EVIDENCE = "to meet it is no evidence of what was learnt"
NO_NULL = "The rule is met, but by numbers of one network or one fit, which nothing tells from those of chance"
WORDS = {True: "**holds**", False: "**fails**", None: "cannot be told"}
AT_SIZE = "No run of the published size and length is recorded; it needs a GPU"
MEASURES: dict[str, Any] = {
    "phases": phases, "offline": offline, "raptor": raptors, "depth": depth, "vitrm": vitrm, "layers": layers,
    "shared": shared, "dense": dense,
}  # fmt: skip
BEFORE, AFTER, BEFORE_TWINS = "before", "after", "before the twins"  # its numbers were known, a rule was written
NAMES = {"vitrm": "ViTRM", "vit-small": "ViT-Small", "vit-large": "ViT-Large", "resnet50": "ResNet-50"}


class Studies(NamedTuple):
    """What is recorded, by the name that claims give it."""

    phases: phases.Results
    offline: offline.Results
    raptor: Cells
    short: Cells
    vits: Recorded
    overfit: Recorded
    cifar100: Recorded | None
    vitrm: vitrm.Results
    at_size: dict[str, Any] | None
    grid: Grid | None
    packaged: Surgery
    refitted: list[Evaluation]
    layers: layers.Results
    shared: Shared | None
    dense: dense.Results
    headed: Cells


class Records(Studies):
    """The studies, and what they say of every claim."""

    @cached_property
    def judged(self) -> dict[Key, Found]:
        """What they say of each claim by its key, and of some with another study in the place of its own; tests
        corrected for how many there are of all."""
        own = {claim.key: claim.judge(self) for claim in every()}
        again = {(study, *claim.key[1:]): claim.judge(self, study) for claim in every() for study in claim.again}
        return corrected({**again, **own})

    def told(self, claim: Claim, study: str | None = None) -> Found:
        """Of a claim, or of it in another study."""
        return self.judged[(study or claim.study, *claim.key[1:])]

    @cached_property
    def seen(self) -> Mapping[str, Any]:
        """What the templates of reasons and published numbers see."""

        def elsewhere(measure: str) -> str:
            return f". Where networks overfit: {self.told(of(measure), OVERFIT).verdict.strip('*')}"

        return {
            **self._asdict(), "fits": self.raptor.summary.to_dict("index"), "WHOLE": raptors.WHOLE,
            "PUBLISHED_IMAGES": raptors.PUBLISHED_IMAGES, "saturation": raptors.saturation(self.raptor) or {},
            "spread_of": raptors.spread_of, "small": self.vits.config.name == "cpu",
            "judge": lambda measure, study: self.told(of(measure), study), "where_overfitted": elsewhere,
            "fitted": fitted, "learnt_from": lambda study: (study.config.train_images or 0) - study.config.held_out,
            "beyond_nothing": beyond_nothing(self.dense), "top1": top1, "AT_SIZE": AT_SIZE, "EPOCHS": VITRM.epochs,
        }  # fmt: skip


def load() -> Records:
    """Read all recorded results. Raises UsageError if a study has none; only those of networks which share blocks, are
    of CIFAR-100 or of the published size may be missing."""
    return Records(
        phases.load(), offline.load(), read_cells(), read_cells("cpu"), read_study(), read_study(OVERFIT),
        with_raptors(HUNDRED), vitrm.load(), vitrm.read_at_size(), read_grid(),
        Surgery.read(RESULTS / "interventions" / packaged.NAME), raptors.read_refitted(), layers.load(), read_shared(),
        dense.load(), read_cells("long", packaged.NAME),
    )  # fmt: skip


def with_raptors(size: str) -> Recorded | None:
    """A study of stochastic depth, where it has Raptors."""
    try:
        study = read_study(size)
    except UsageError:
        return None
    return None if study.fits.empty else study


class Found(NamedTuple):
    """What the records say of a claim: the numbers in words, and whether they meet its rule (None: cannot be told)."""

    said: str = "not recorded yet"
    holds: Verdict = None
    measured: bool = False
    rule: str = ""
    why: str = ""
    p_holds: float | None = None
    p_fails: float | None = None

    @property
    def untested(self) -> bool:
        """Whether it holds, or fails, by a number that no test judges."""
        p_value = self.p_holds if self.holds else self.p_fails
        return self.measured and self.holds is not None and p_value is None

    @property
    def word(self) -> str:
        return WORDS[self.holds]

    @property
    def verdict(self) -> str:
        """The verdict on the evidence, which tells where nothing was measured."""
        return self.word if self.measured else NOT_TESTED


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim, as the table has it, where it is said what its entries are."""

    claim: str
    source: str
    published: str = ""
    study: str = ""
    measure: str = ""
    said: str = ""
    rule: Rule | None = None
    untrained: Beyond | None = None
    why: str = UNKNOWN
    table: str = ""
    written: str = AFTER
    again: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.written not in (BEFORE, AFTER, BEFORE_TWINS):
            raise UsageError(
                f"a rule is written {BEFORE}, {AFTER} or {BEFORE_TWINS!r} its numbers, not {self.written!r}"
            )

    @property
    def key(self) -> Key:
        """What tells it from every other."""
        return self.study, self.measure, self.claim

    def judge(self, records: Records, study: str | None = None) -> Found:
        """What the records say, or another study of them."""
        module, _, name = self.measure.partition(".")
        if not module:
            return Found(self.said) if self.said else Found()
        asked = study or self.study
        recorded = getattr(records, asked, None)
        if asked and recorded is None:
            return Found()
        found: Numbers | None = getattr(MEASURES[module], name)(recorded)
        if found is None:
            return Found()
        assert self.rule is not None
        each = found.get("each", {})
        yes = {model: "yes" if self.against(one).judge(one) else "no" for model, one in each.items()}
        parts = [f"{model}: {self.say(one)} ({yes[model]})" for model, one in each.items()]
        numbers = next(iter(each.values()), found)
        rule = self.against(numbers)
        verdict, why = rule.judge(numbers), ""
        if verdict is None and self.rule.judge(numbers):
            assert self.untrained is not None
            clear = self.untrained.judge(numbers)
            why = f"Untrained twins {BY_LESS if clear else 'do the same, or nearly'}: {NO_EVIDENCE}"
        if verdict and not rule.rests_on:
            verdict, why = None, NO_NULL
        said = "; ".join(parts) or self.say(numbers)
        return Found(said, verdict, True, in_full(rule), why, rule.p_holds(numbers), rule.p_fails(numbers))

    def against(self, numbers: Numbers) -> Rule:
        """The rule for these numbers: with untrained twins, where they were measured."""
        assert self.rule is not None
        if self.untrained is None or not numbers.get(UNTRAINED):
            return self.rule
        return evidence(self.rule, self.untrained)

    def say(self, numbers: Numbers) -> str:
        """The numbers in words, with those of twins where there are any."""
        said = words(self.said, numbers)
        if self.untrained is None or not numbers.get(UNTRAINED):
            return said
        return f"{said} ({self.untrained.say(numbers)})"


def in_full(rule: Rule) -> str:
    """A rule, and what a claim that holds by it would rest on."""
    return f"{rule}. Rests on {rule.rests_on or 'nothing: it can fail, but no claim holds by it'}"


class Topic(NamedTuple):
    title: str
    note: str
    claims: list[Claim]


@cache
def topics() -> tuple[Topic, ...]:
    """The table. Raises TypeError if a claim has an entry that is none, KeyError if there is no such rule."""
    table = yaml.safe_load(TABLE.read_text())
    return tuple(
        Topic(one["title"], one["note"].strip(), [_claim(row) for row in rows_of(one, "claims")]) for one in table
    )


def _claim(row: dict[str, Any]) -> Claim:
    """As the table writes it. One that nothing tests or words is in no table of rules."""
    entries: dict[str, Any] = {"study": row.get("measure", "").partition(".")[0], **row}
    entries |= {name: rule_of(row[name]) for name in ("rule", "untrained") if name in row}
    return Claim(**entries | ({} if "said" in row else {"table": ""}))


def every() -> Iterator[Claim]:
    return (claim for topic in topics() for claim in topic.claims)


def of(measure: str) -> Claim:
    """The claim that a function tests."""
    return next(claim for claim in every() if claim.measure == measure)


class Row(NamedTuple):
    claim: str
    published: str
    here: str
    verdict: str
    why: str


def corrected(found: Mapping[Key, Found]) -> dict[Key, Found]:
    """By Holm: what holds by its own test, but not among all that were tested, cannot be told; nor what fails so, among
    all that could."""
    told = dict(found)
    for verdict, word in ((True, "holds"), (False, "fails")):
        p_values = {key: getattr(one, f"p_{word}") for key, one in found.items() if one.measured}
        tested = {key: p for key, p in p_values.items() if p is not None}
        for (key, alone), p in zip(tested.items(), holm(list(tested.values())), strict=True):
            if found[key].holds is verdict and p > ALPHA:
                said = f"Alone it {word} (p = {alone:.2g})"
                if alone > ALPHA:  # where one number fails of several the smallest counts as one of them
                    said = f"It {word} by one number of several (p = {alone:.2g} as one of them)"
                why = f"{said}, but not as one of {len(tested)} tests (Holm: p = {p:.2g})"
                told[key] = found[key]._replace(holds=None, why=why)
    return told


def row(claim: Claim, records: Records, found: Found | None = None) -> Row:
    found, published = found or records.told(claim), words(claim.published, records.seen)
    known = [one for one in (found.why, words(claim.why, records.seen)) if one not in ("", UNKNOWN)]
    why = "" if found.holds else ". ".join(known) or (UNKNOWN if found.measured else "Not recorded yet")
    source = f"{claim.source}: {published}" if published else claim.source
    return Row(claim.claim, source, found.said if found.measured else "–", found.verdict, why)


NOTHING_COUNTED = """The rule compares raw scores, of which some is had for nothing (by knowing nothing of an image:
{{ had | listed(".3f") }}). Above that, of the teacher's {{ kept | listed(".1%") }} are kept, and masks lose
{{ more.say("+.1%") }} more than classes{{ ", the other way round" if more.against(0) }}"""


def beyond_nothing(results: dense.Results) -> str:
    """What becomes of masks where what is had for nothing does not count."""
    return words(NOTHING_COUNTED, dense.beyond_nothing(results))


def fitted(study: Recorded) -> float:
    """Accuracy on training images of the networks without stochastic depth."""
    networks: pd.DataFrame = depth.best_networks(study)
    return float(networks.loc[networks["p"] == min(study.config.drop_path), "train_accuracy"].mean())


def top1(data: str, *names: str) -> str:
    parts = []
    for name in names:
        values = [value for value in vitrm.PUBLISHED[data][name] if value == value]
        lost = ", out of memory" * (len(vitrm.BATCH_SIZES) - len(values))
        parts.append(f"{NAMES[name]} {', '.join(f'{value:.1f}' for value in values)} %{lost}")
    return f"{'; '.join(parts)} at batch {', '.join(map(str, vitrm.BATCH_SIZES))}"
