"""The pages say what the results say, of every claim, with a reason where one does not hold."""

import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import brdyn
from analyses import claims, pages
from analyses.claims import NOT_TESTED, OURS, WORDS, Claim, Row
from analyses.findings import offline
from analyses.render import outdated
from analyses.rules import (
    EXACT,
    TEST,
    TWINS,
    Told,
    above,
    beyond,
    every,
    evidence,
    greater,
    several,
    significant,
)
from analyses.statistics import Estimate
from brdyn.errors import BrdynError, UsageError
from brdyn.measures.null import Null

BASES = (TEST, TWINS, EXACT, "an interval", "an interval and a test", "an interval and an exact count")
CLAIMS = [claim for claim in claims.every() if claim.source != OURS]


@pytest.fixture(scope="module")
def written(records) -> dict[str, str]:
    """The pages by name."""
    return {str(path.relative_to(pages.ROOT)): text for path, text in pages.pages(records).items()}


@pytest.fixture(scope="module")
def rows(records) -> list[Row]:
    return [claims.row(claim, records) for claim in CLAIMS]


def test_every_page_is_what_the_recorded_results_say(written):
    assert outdated({pages.ROOT / name: text for name, text in written.items()}) == {}


def test_the_page_names_every_device_that_a_claim_rests_on(records, written):
    """Basins and modes are of a machine with two threads."""
    named = re.search(r"^Devices: (.+)\.$", written["docs/evidence.md"], re.MULTILINE)[1].split("; ")
    offline = [one.provenance.details["device"] for one in records.offline]
    assert {"NVIDIA H100 80GB HBM3", "x86_64 CPU, 2 threads", *offline} <= set(named)
    other = replace(
        records.offline.modes, provenance=replace(records.offline.modes.provenance, details={"device": "new"})
    )
    assert "new" in pages.devices([{"of": (records.offline._replace(modes=other),)}])


def test_no_recorded_cell_failed(records):
    assert not records.raptor.failed
    assert not records.vits.failed
    assert not records.grid.failed


def test_every_measure_is_of_exactly_one_claim_and_every_rule_judges_what_it_measures(records):
    used = Counter(claim.measure for claim in claims.every() if claim.measure)
    assert set(used.values()) == {1}
    modules = claims.MEASURES
    for claim in claims.every():
        if claim.measure:
            module, name = claim.measure.split(".")
            assert callable(getattr(modules[module], name))
            assert records.judged[claim.key].said  # a rule that names a number which is not measured is a KeyError
        assert (claim.rule is None) == (claim.measure == "")


def test_a_reason_is_given_where_a_claim_does_not_hold_and_only_there(rows):
    for row in rows:
        assert bool(row.why.strip()) == (row.verdict != WORDS[True]), row.claim
        assert (row.here == "–") == (row.verdict == NOT_TESTED), row.claim
    assert {row.verdict for row in rows} == {*WORDS.values(), NOT_TESTED}


def test_claims_are_told_apart_and_name_their_source_once(rows):
    said = [(row.claim, row.here) for row in rows if row.here != "–"]
    assert len(set(said)) == len(said)
    for claim, row in zip(CLAIMS, rows, strict=True):
        assert row.claim
        assert claim.source not in row.claim
        assert row.published.startswith(claim.source)


def test_tables_have_five_columns_and_verdicts_are_counted(records, written, rows):
    page = written["docs/evidence.md"]
    tables, speed = page.split("## Speed goals")
    lines = [line for line in tables.splitlines() if line.startswith("|")]
    assert len(lines) == len(CLAIMS) + 2 * len(claims.topics())
    for line in lines:
        assert len(re.findall(r"(?<!\\)\|", line)) == 6
    counts = Counter(row.verdict for row in rows)
    untested = Counter(records.told(claim).verdict for claim in CLAIMS if records.told(claim).untested)
    held, failed = (f"{counts[word]} {said} ({untested[word]} of these without a test)"
                    for word, said in ((WORDS[True], "hold"), (WORDS[False], "fail")))  # fmt: skip
    assert f"**{len(CLAIMS)} claims: {held}, {failed}, " in page
    assert f"Without a test: {untested[WORDS[True]]} hold, {untested[WORDS[False]]} fail." in written["README.md"]
    assert f"{counts[NOT_TESTED]} {NOT_TESTED}.**" in page
    assert len({line.count("|") for line in speed.splitlines() if line.startswith("|")}) == 1
    ruled = [claim for claim in claims.every() if claim.rule is not None and not claim.table]
    assert page.count("Rule for “") == len(ruled)


def test_every_rule_is_on_the_page_that_its_claim_names(records, written):
    shown = {
        "offline": written["docs/guide/findings.md"], "raptor": written["docs/guide/raptor_findings.md"],
        "": written["docs/evidence.md"], "vitrm": written["docs/guide/vitrm_findings.md"],
        "depth": written["docs/guide/stochastic_depth_findings.md"],
        "layers": written["docs/guide/layers_findings.md"],
        "dense": written["docs/guide/dense_findings.md"],
        "shared": written["docs/guide/train_or_distil.md"],
    }  # fmt: skip
    shown |= {"grid": shown["vitrm"], "overfit": shown["depth"], "headed": shown["raptor"]}
    for claim in claims.every():
        if claim.rule is not None:
            judged = records.judged[claim.key].rule  # with untrained twins, where there are any; none if not tested
            assert ((claim.table and judged) or claims.in_full(claim.rule)) in shown[claim.table]


ON_NOTHING = {"estimation", "operator", "most_linear", "convergence", "final_turn", "rank", "late_rank", "coherence",
              "deep_noise_on_patches", "deep_noise_on_cls", "forcing", "middle", "converge", "repair",
              "opposed"}  # fmt: skip


@pytest.mark.parametrize("claim", [one for one in claims.every() if one.rule], ids=lambda one: one.measure)
def test_no_claim_holds_by_a_rule_that_rests_on_nothing(monkeypatch, records, claim):
    """Whatever is measured: a rule that says that it is met comes to a verdict only by what it rests on."""
    met = replace(claim.rule, each=lambda _: [Told(True)])
    module, _, name = claim.measure.partition(".")
    assert claim.rule.rests_on in {"", *BASES}
    assert (claim.rule.rests_on == "") == (name in ON_NOTHING)
    monkeypatch.setattr(claims.MEASURES[module], name, lambda _: {})
    at = records._replace(at_size={}, refitted=[], shared={}, headed=records.raptor)
    found = replace(claim, rule=met, said="").judge(at)
    assert found.measured
    assert found.holds is (True if claim.rule.rests_on else None)
    assert bool(found.why) == (claim.rule.rests_on == "")
    assert found.rule.endswith(f"Rests on {claim.rule.rests_on or 'nothing: it can fail, but no claim holds by it'}")


def test_what_holds_rests_on_something(records):
    """And says so where it is shown: with untrained twins those that do not rest on anything else."""
    for claim in claims.every():
        found = records.judged[claim.key]
        if found.holds:
            assert any(found.rule.endswith(f"Rests on {base}") for base in BASES)
            if not claim.rule.rests_on:
                assert found.rule.endswith("Rests on untrained twins")
                assert "untrained twins:" in found.said


@pytest.mark.parametrize(
    ("measured", "verdict", "said"),
    [
        (None, NOT_TESTED, "not recorded yet"),
        ({"x": 2}, "**holds**", "x is 2"),
        ({"x": 0}, "**fails**", "x is 0"),
        (
            {"each": {"one": {"x": 2}, "other": {"x": 0}}},
            "**holds**",
            "one: x is 2 (yes); other: x is 0 (no)",
        ),
    ],
)
def test_verdicts(monkeypatch, records, measured, verdict, said):
    monkeypatch.setattr(offline, "rank", lambda _: measured)
    claim = Claim(
        claim="c",
        source="s",
        study="offline",
        measure="offline.rank",
        said="x is {{ x }}",
        rule=greater("x", 1, exact=True),
    )
    found = claim.judge(records)
    assert (found.verdict, found.said) == (verdict, said)


@pytest.mark.parametrize(
    ("twins", "verdict", "why"),
    [
        ((0.0, 0.1, 0.2), "**holds**", ""),
        (
            (0.0, 0.1, 1.5),
            "cannot be told",
            "Untrained twins do the same, or nearly",
        ),  # which meets the rule itself
        (
            (1.1, 1.2, 1.3),
            "cannot be told",
            "Untrained twins meet the rule too, though by clearly less",
        ),
        (
            (0.0, 0.9, -0.9),
            "cannot be told",
            "Untrained twins do the same, or nearly",
        ),  # 2 is not clearly beyond them
        ((), "cannot be told", "The rule is met, but by numbers of one network or one fit"),
    ],
)
def test_a_verdict_is_against_untrained_twins_where_they_were_measured(monkeypatch, records, twins, verdict, why):
    numbers = {"x": 2, **({"untrained": [{"x": one} for one in twins]} if twins else {})}
    monkeypatch.setattr(offline, "rank", lambda _: numbers)
    claim = Claim(
        claim="c", source="s", study="offline", measure="offline.rank", said="x is {{ x }}", rule=greater("x", 1),
        untrained=beyond("x"),
    )  # fmt: skip
    found = claim.judge(records)
    row = claims.row(claim, records, found)
    assert (found.verdict, row.verdict) == (verdict, verdict)
    assert row.why.startswith(why)
    assert bool(row.why) == bool(why)
    assert found.said == ("x is 2" if not twins else f"x is 2 ({beyond('x').say(numbers)})")
    assert found.rule == claims.in_full(evidence(claim.rule, claim.untrained) if twins else claim.rule)


def with_twins(result, *changes):
    """A recorded result beside twins that are its own tables, changed."""
    twins = [change({name: table.copy() for name, table in result.compared().items()}) for change in changes]
    tables = {
        name: pd.concat([one[name].assign(twin=number) for number, one in enumerate(twins, 1)], ignore_index=True)
        for name in twins[0]
    }
    return result.with_twins(Null(("random",) * len(changes), tables))


@pytest.mark.parametrize(
    ("measure", "part", "number"),
    [
        ("convergence", "motion", "share"),
        ("estimation", "motion", "bias"),
        ("deep_noise_on_cls", "repair", "ratio"),
        ("deep_noise_on_patches", "repair", "ratio"),
        ("swaps", "surgery", "ratio"),
        ("shuffles", "surgery", "ratio"),
        ("replacements", "surgery", "ratio"),
    ],
)
def test_twins_that_are_the_network_itself_have_its_numbers(records, measure, part, number):
    """And of what holds without twins nothing is left: they pass every rule that it does."""
    alone = records.offline._replace(**{part: replace(getattr(records.offline, part), null=None)})
    records = records._replace(offline=alone)
    assert "untrained" not in getattr(offline, measure)(records.offline)

    def squared(tables):
        return {name: table.assign(mean=table["mean"] ** 2) for name, table in tables.items()}

    beside = with_twins(getattr(records.offline, part), lambda tables: tables, squared)
    results = records.offline._replace(**{part: beside})
    numbers = getattr(offline, measure)(results)
    own, other = numbers["untrained"]
    assert np.array_equal(np.hstack(several(own, number)), np.hstack(several(numbers, number)))
    assert not np.array_equal(np.hstack(several(other, number)), np.hstack(several(numbers, number)))
    before = claims.of(f"offline.{measure}").judge(records)
    after = claims.of(f"offline.{measure}").judge(records._replace(offline=results))
    assert after.holds is (False if before.holds is False else None)
    assert "2 untrained twins:" in after.said
    assert "untrained" not in before.said


@pytest.mark.parametrize(
    ("measure", "name"), [("speed_jumps", "alignment"), ("operator", "modes"), ("most_linear", "modes")]
)
def test_a_rule_does_not_judge_another_statistic_than_its_words_name(records, measure, name):
    new = records.offline
    getattr(offline, measure)(new)
    alignment = {group: replace(one, statistic="change of speed") for group, one in new.motion.alignment.items()}
    details = {**new.modes.details, "modes": replace(new.modes.modes, centred=False)}
    old = {
        "alignment": new._replace(motion=replace(new.motion, alignment=alignment)),
        "modes": new._replace(modes=replace(new.modes, details=details)),
    }
    with pytest.raises(BrdynError, match=f"recorded {name} are of an old statistic"):
        getattr(offline, measure)(old[name])


def test_the_guide_says_of_centred_modes_what_is_recorded():
    page = (pages.ROOT / "docs" / "guide" / "dynamics" / "modes.md").read_text()
    for name, ridge in (("imgfocus_vits14", "0.001"), ("imgfocus_vits14_ridge0.1", "0.1")):
        rows = brdyn.read(pages.ROOT / "analyses" / "results" / "modes" / name).modes.errors
        rows = rows.query("measure == 'r2' and predictor == 'endpoint'")
        ends = rows.loc[rows.groupby(["group", "phase"])["steps"].idxmax()].pivot(
            index="phase", columns="group", values="mean"
        )
        cells = [", ".join(f"{abs(value):.2f}" for value in ends[group]) for group in ("cls", "patches")]
        assert f"| {ridge} | {cells[0]} | {cells[1]} |" in page
        assert (ends["cls"] < ends["patches"]).all()


def test_what_is_not_measured_is_no_verdict_but_may_have_its_reason(records):
    found = Claim(claim="c", source="s", said="the model has no registers").judge(records)
    assert (found.verdict, found.said, found.holds) == (NOT_TESTED, "the model has no registers", None)


def test_a_row_by_hand(monkeypatch, records):
    monkeypatch.setattr(offline, "rank", lambda study: {"x": 1, "k": study.phases.layers})
    claim = Claim(
        claim="x | y", source="A et al.", published="{{ 1 + 1 }} %", study="offline", measure="offline.rank",
        said="k = {{ k }}", rule=greater("x", 1), why="only {{ offline.phases.layers }} layers",
    )  # fmt: skip
    assert claims.row(claim, records, claim.judge(records)) == (
        "x | y",
        "A et al.: 2 %",
        "k = 12",
        "**fails**",
        "only 12 layers",
    )


def test_networks_of_a_hundred_classes_are_looked_at_where_they_are_recorded(monkeypatch, records):
    def read(there):
        def read_study(size):
            if there is None:
                raise UsageError("nothing is recorded")
            return there

        return read_study

    monkeypatch.setattr(claims, "read_study", read(None))
    assert claims.with_raptors(claims.HUNDRED) is None
    monkeypatch.setattr(claims, "read_study", read(records.vits))
    assert claims.with_raptors(claims.HUNDRED) is records.vits
    monkeypatch.setattr(claims, "read_study", read(records.vits._replace(fits=records.vits.fits.iloc[:0])))
    assert claims.with_raptors(claims.HUNDRED) is None


def test_a_reason_says_what_becomes_of_it_where_networks_overfit(records):
    why = claims.row(claims.of("depth.accuracy_rises"), records).why
    assert why.endswith(". Where networks overfit: cannot be told")


def test_published_accuracies_by_batch_size():
    assert (
        claims.top1("CIFAR-10", "vit-large", "vitrm")
        == "ViT-Large 80.8, 73.4, 82.0, 83.2 %, out of memory; ViTRM 92.6, 93.1, 92.8, 92.1, 91.2 % at batch 64, 128, "
        "256, 512, 1024"
    )


def test_parameters_are_the_published_ones(records):
    found = claims.of("vitrm.sizes").judge(records)
    assert found.holds
    assert found.said == "3,624,971 and 3,659,621"


@pytest.mark.parametrize(
    ("interval", "said"),
    [([3.1, 3.4], "**met**"), ([2.1, 2.9], "**missed**"), ([2.9, 3.4], "cannot be told")],
)
def test_speed_is_judged_on_a_gpu_alone(tmp_path, interval, said):
    empty = pages.speed_goals(tmp_path)
    assert sum((goal["said"], goal["word"]) == ("not measured", NOT_TESTED) for goal in empty) == 4
    slow = {"dtype": "float32", "batch_size": 8, "speedup": 1.0, "speedup_interval_95": [0.9, 1.1]}
    fast = {**slow, "dtype": "bfloat16", "speedup": 3.0, "speedup_interval_95": interval}
    for suffix, device in (("", "x86_64 CPU"), ("_cuda", "NVIDIA H100")):
        content = {"training": [slow, fast], "provenance": {"device": device}}
        (tmp_path / f"bench_vitrm{suffix}.json").write_text(json.dumps(content))
    gpu, cpu = (goal for goal in pages.speed_goals(tmp_path) if "ViTRM" in goal["what"])
    assert gpu["device"] == "NVIDIA H100"
    assert gpu["said"].startswith("float32, batch 8: 1.00 [0.90, 1.10]; bfloat16, batch 8: 3.00 [")
    assert gpu["said"].endswith("(`bench_vitrm_cuda.json`)")
    assert (gpu["word"], cpu["word"]) == (said, "–")


def test_the_page_tells_rules_that_came_before_their_numbers(monkeypatch, records):
    topics, ruled = claims.topics(), [claim for claim in CLAIMS if claim.rule is not None]

    def said(*written):
        when = {claim.key: one for claim, one in zip(ruled, written, strict=False)}
        changed = [
            topic._replace(claims=[replace(one, written=when.get(one.key, "after")) for one in topic.claims])
            for topic in topics
        ]
        monkeypatch.setattr(claims, "topics", lambda: tuple(changed))
        return pages.evidence(records)

    def listed(page):
        return page.split(f"Of {len(ruled)} rules were written\n\n")[1].split("\n\n")[0].splitlines()

    before, between, after = listed(said())
    assert before == "- **0** before their numbers were known."
    assert between.startswith("- **0** after the network's numbers")
    assert after.startswith(f"- **{len(ruled)}** after them, among these all of the first round")
    before, between, after = listed(said("before", "before the twins", "before the twins"))
    assert before == f"- **1** before their numbers were known: “{ruled[0].claim}”."
    assert between.startswith("- **2** after the network's numbers")
    assert between.endswith(f"before those of its untrained twins: “{ruled[1].claim}”; “{ruled[2].claim}”.")
    assert after.startswith(f"- **{len(ruled) - 3}** after them")
    first = ruled[0]
    with pytest.raises(UsageError, match="before, after or 'before the twins' its numbers, not 'later'"):
        replace(first, written="later")


def with_evidence(found, **changes):
    """Recorded phases of a network, with another verdict of the test."""
    return replace(found, evidence=replace(found.evidence, **changes))


def test_what_the_test_does_not_find_cannot_be_told(records):
    claim, found = claims.of("phases.supported"), records.phases
    assert claim.judge(records).verdict == "cannot be told"
    assert claim.judge(records).p_fails is None  # and never fails
    accepted = {
        name: with_evidence(one, largest=one.evidence.largest._replace(p=0.04)) for name, one in found.trained.items()
    }
    one_alone = {**found.trained, "imgfocus_vits14": accepted["imgfocus_vits14"]}
    small = {
        name: with_evidence(one, largest=one.evidence.largest._replace(ratio=1.0)) for name, one in accepted.items()
    }
    for trained, holds in ((accepted, True), (one_alone, None), (small, None)):
        assert claim.judge(records._replace(phases=found._replace(trained=trained))).holds is holds


def test_published_boundaries_are_judged_by_both_methods(records):
    cuts = records.phases.published["cuts"]
    assert {k: one["bisection"] for k, one in cuts.items()} == {"2": [7], "3": [7, 10], "4": [4, 7, 10]}
    assert {k: one["exact"] for k, one in cuts.items()} == {"2": [7], "3": [5, 9], "4": [4, 7, 10]}
    assert claims.of("phases.published_boundaries").judge(records).holds is True
    assert claims.of("phases.published_are_best").judge(records).holds is False

    def best(**changes):
        published = {**records.phases.published, "cuts": {**cuts, "3": {**cuts["3"], **changes}}}
        changed = records._replace(phases=records.phases._replace(published=published))
        return claims.of("phases.published_are_best").judge(changed).holds

    assert best(exact=[7, 10]) is False  # as long as the published one cuts less
    assert best(exact=[7, 10], behind=0.0, behind_interval_95=[0.0, 0.0]) is True
    assert best(behind_interval_95=[0.0, 0.01]) is None  # rounding may be all there is


def test_a_claim_with_an_unknown_entry_is_refused(monkeypatch, tmp_path):
    table = tmp_path / "claims.yaml"
    table.write_text("- {title: t, note: n, claims: [{claim: c, source: s, becuase: it is so}]}")
    monkeypatch.setattr(claims, "TABLE", table)
    with pytest.raises(TypeError, match="'becuase'"):
        claims.topics.__wrapped__()


def test_claims_are_corrected_for_how_many_are_tested():
    """By hand: of p = .01, .02, .04 Holm makes .03, .04, .04, and of a fourth of .9 beside them .04, .06, .08, .9."""
    found = {("", "", str(p)): claims.Found("said", True, True, p_holds=p) for p in (0.01, 0.02, 0.04)} | {
        ("", "", "none"): claims.Found("said", True, True),
        ("", "", "unmeasured"): claims.Found(p_holds=0.9),
    }
    assert [one.holds for one in claims.corrected(found).values()] == [True, True, True, True, None]
    more = claims.corrected({**found, ("", "", "more"): claims.Found("said", None, True, p_holds=0.9)})
    assert [one.holds for one in more.values()] == [True, None, None, True, None, None]
    assert "Alone it holds (p = 0.02), but not as one of 4 tests (Holm: p = 0.06)" in more["", "", "0.02"].why


def test_fails_are_corrected_by_themselves():
    """The same by hand, of fails; what holds beside them counts only where it could have failed."""
    found = {("", "", str(p)): claims.Found("said", False, True, p_fails=p) for p in (0.01, 0.02, 0.04)} | {
        ("", "", "none"): claims.Found("said", False, True),
        ("", "", "holds"): claims.Found("said", True, True, p_holds=0.001),
    }
    assert [one.holds for one in claims.corrected(found).values()] == [False, False, False, False, True]
    found["", "", "holds"] = found["", "", "holds"]._replace(p_fails=0.9)
    told = claims.corrected(found)
    assert [one.holds for one in told.values()] == [False, None, None, False, True]
    assert "Alone it fails (p = 0.02), but not as one of 4 tests (Holm: p = 0.06)" in told["", "", "0.02"].why
    one = claims.corrected({("", "", "a"): claims.Found("said", False, True, p_fails=0.08)})
    assert "It fails by one number of several (p = 0.08 as one of them), but not" in one["", "", "a"].why
    assert [one.untested for one in told.values()] == [False, False, False, True, False]


def test_what_is_judged_by_another_study_is_corrected_with_all(records):
    """A claim has one verdict for each study, whatever page says it."""
    for claim in claims.every():
        for study in claim.again:
            told, alone = records.told(claim, study), claim.judge(records, study)
            assert told in (alone, alone._replace(holds=None, why=told.why))
            assert pages.ruled(claim, records, study)["word"] == told.verdict
    tested = [one.p_holds for one in records.judged.values() if one.p_holds is not None]
    assert len(tested) > sum(records.told(claim).p_holds is not None for claim in claims.every())


def test_a_claims_p_value_is_of_all_that_has_to_hold():
    """Of 1.96 standard errors it is .05; the larger of two counts; what tests nothing has none."""
    edge = Estimate(1.96, 0.0, 3.92)
    numbers = {"a": edge, "b": Estimate(3.0, 1.0, 5.0), "c": Estimate(0.2, p_value=0.3), "d": 2}
    assert above("a").p_holds(numbers) == pytest.approx(0.05, abs=1e-4)
    assert above("a", "b").p_holds(numbers) == pytest.approx(0.05, abs=1e-4)
    assert above("b").p_holds(numbers) == pytest.approx(2 * 0.00164, rel=0.02)  # 1.5 times 1.96 standard errors
    assert significant("c").p_holds(numbers) == 0.3
    assert every(above("b"), significant("c")).p_holds(numbers) == 0.3
    assert greater("d", 1).p_holds(numbers) is None
    assert above("a", than=5).p_holds(numbers) == 1


def test_a_page_says_why_a_rule_that_is_met_does_not_hold(records):
    """As one of many tests, or as nothing tells it from chance: where the table of rules stands, too."""
    rows = [pages.ruled(claim, records) for claim in claims.every()]
    alone = [row for row in rows if "but not as one of" in row["why"]]
    assert alone
    assert {row["word"] for row in alone} == {"cannot be told"}
    assert pages.of_records("raptor_findings.md.j2", records).count("cannot be told: alone it holds") >= 1
    assert all(not row["why"] for row in rows if "holds" in row["word"])
