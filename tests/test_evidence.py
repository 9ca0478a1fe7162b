"""The evidence page says what the results say, of every finding, with a reason where a claim does not hold."""

import json
import re
import sys
from collections import Counter

import pytest

from analyses import claims, evidence, findings, raptor_findings, stochastic_depth_findings, vitrm_findings
from analyses.claims import NOT_TESTED, TOPICS, Claim, Records
from analyses.evidence import Row
from analyses.findings import WORDS, Finding, not_recorded
from brdyn.errors import UsageError

CLAIMS = [claim for topic in TOPICS for claim in topic.claims]
STUDIES = (findings, raptor_findings, stochastic_depth_findings, vitrm_findings)


@pytest.fixture(scope="module")
def records() -> Records:
    return claims.load()


@pytest.fixture(scope="module")
def rows(records) -> list[Row]:
    return [evidence.row(claim, records) for claim in CLAIMS]


@pytest.fixture(scope="module")
def page(records) -> str:
    return evidence.page(records)


def test_the_page_is_what_the_recorded_results_say(page):
    assert evidence.PAGE.read_text() == page


def test_every_finding_is_of_exactly_one_claim():
    used = Counter(claim.finding for claim in CLAIMS if claim.finding)
    assert set(used.values()) == {1}
    of_studies = [finding for study in STUDIES for finding in study.FINDINGS]
    assert set(used) == {*claims.OWN, *of_studies, *vitrm_findings.GRID_FINDINGS, *vitrm_findings.AT_SIZE}


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


def test_tables_have_five_columns_and_verdicts_are_counted(page, rows):
    tables, speed = page.split("## Speed goals")
    lines = [line for line in tables.splitlines() if line.startswith("|")]
    assert len(lines) == len(CLAIMS) + 2 * len(TOPICS)
    for line in lines:
        assert len(re.findall(r"(?<!\\)\|", line)) == 6
    counts = Counter(row.verdict for row in rows)
    assert f"**{len(CLAIMS)} claims: {counts[WORDS[True]]} hold, {counts[WORDS[False]]} fail, " in page
    assert f"{counts[NOT_TESTED]} {NOT_TESTED}.**" in page
    assert len({line.count("|") for line in speed.splitlines() if line.startswith("|")}) == 1


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (None, NOT_TESTED),
        (not_recorded("c", "r"), NOT_TESTED),
        (Finding("c", "r", "the model has no registers", None), NOT_TESTED),
        (Finding("c", "r", "none of 12 networks overfitted", None), "cannot be told"),
        (Finding("c", "r", "1 to 2", True), "**holds**"),
        (Finding("c", "r", "all of them", False), "**fails**"),
    ],
)
def test_verdicts(found, word):
    assert claims.verdict(found) == word


def test_a_row_by_hand(records):
    claim = Claim(
        "A et al.",
        lambda study: Finding("x | y (A et al.)", "r", f"k = {study.phases.layers}", False),
        "2 %",
        lambda all_of_them: f"only {all_of_them.offline.phases.layers} layers",
        "offline",
    )
    row = evidence.row(claim, records)
    assert row == ("x | y", "A et al.: 2 %", "k = 12", "**fails**", "only 12 layers")
    assert evidence.table([row])[-1] == "| x \\| y | A et al.: 2 % | k = 12 | **fails** | only 12 layers |"


def test_networks_that_overfit_are_looked_at_where_they_are_recorded(monkeypatch, records):
    def read(there):
        def read_study(size=None):
            if size == stochastic_depth_findings.OVERFIT and there is None:
                raise UsageError("nothing is recorded")
            return records.vits if size is None else there

        return read_study

    monkeypatch.setattr(claims, "read_study", read(None))
    assert claims._where_overfitted(records.vits) is records.vits
    recorded = records.vits._replace(failed={"another": "study"})
    monkeypatch.setattr(claims, "read_study", read(recorded))
    assert claims._where_overfitted(records.vits) is recorded
    monkeypatch.setattr(claims, "read_study", read(recorded._replace(fits=recorded.fits.iloc[:0])))
    assert claims._where_overfitted(records.vits) is records.vits
    alone, beside = (
        claims.small_study("{networks}", stochastic_depth_findings.accuracy_rises)(
            records._replace(overfit=study)
        )
        for study in (records.vits, recorded)
    )
    verdict = claims.verdict(stochastic_depth_findings.accuracy_rises(recorded)).strip("*")
    assert beside == f"{alone}. Where networks overfit: {verdict}"


def test_published_accuracies_by_batch_size():
    assert (
        claims.top1("CIFAR-10", "vit-large", "vitrm")
        == "ViT-Large 80.8, 73.4, 82.0, 83.2 %, out of memory; ViTRM 92.6, 93.1, 92.8, 92.1, 91.2 % at batch 64, 128, "
        "256, 512, 1024"
    )


def test_parameters_are_the_published_ones():
    assert claims.sizes(None).holds
    assert claims.sizes(None).numbers == "3,624,971 and 3,659,621"


@pytest.mark.parametrize(
    ("interval", "said"),
    [([3.1, 3.4], "**met**"), ([2.1, 2.9], "**missed**"), ([2.9, 3.4], "cannot be told")],
)
def test_speed_is_judged_on_a_gpu_alone(tmp_path, interval, said):
    empty = evidence.speed_goals(tmp_path)
    assert sum("not measured | not tested" in line for line in empty) == 4
    slow = {"dtype": "float32", "batch_size": 8, "speedup": 1.0, "speedup_interval_95": [0.9, 1.1]}
    fast = {**slow, "dtype": "bfloat16", "speedup": 3.0, "speedup_interval_95": interval}
    for suffix, device in (("", "x86_64 CPU"), ("_cuda", "NVIDIA H100")):
        content = {"training": [slow, fast], "provenance": {"device": device}}
        (tmp_path / f"bench_vitrm{suffix}.json").write_text(json.dumps(content))
    lines = [line for line in evidence.speed_goals(tmp_path) if "ViTRM" in line]
    assert lines[0].startswith(
        "| a training step of ViTRM | NVIDIA H100 | float32, batch 8: 1.00 [0.90, 1.10]; bfloat16"
    )
    assert lines[0].endswith(f"(`bench_vitrm_cuda.json`) | {said} |")
    assert lines[1].endswith("(`bench_vitrm.json`) | – |")


def test_it_explains_itself(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["evidence", "--help"])
    with pytest.raises(SystemExit) as caught:
        evidence.main()
    assert caught.value.code == 0
    assert "usage" in capsys.readouterr().out
