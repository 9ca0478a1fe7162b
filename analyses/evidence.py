"""Every published claim beside what was measured here, with verdict and reason: docs/evidence.md.

python -m analyses.evidence            # rewrite
python -m analyses.evidence --check    # fail if it differs from the results
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from analyses.claims import NOT_TESTED, OWN, TOPICS, Claim, Records, load, verdict
from analyses.findings import WORDS
from analyses.recording import OFFLINE, RESULTS, write_or_check
from brdyn.store import read_json

PAGE = Path(__file__).resolve().parents[1] / "docs" / "evidence.md"
VERDICTS = {WORDS[True]: "hold", WORDS[False]: "fail", WORDS[None]: WORDS[None], NOT_TESTED: NOT_TESTED}
GOAL = 3.0  # times as fast, on an H100
GOALS = {
    "bench_raptor": ("steps", "a stage-2 step of Raptor with its teacher"),
    "bench_vitrm": ("training", "a training step of ViTRM"),
}


class Row(NamedTuple):
    """A line of a table."""

    claim: str
    published: str
    here: str
    verdict: str
    why: str


def row(claim: Claim, records: Records) -> Row:
    """What is known of a claim."""
    found = claim.found(records)
    word = verdict(found)
    text = found.claim.removesuffix(f" ({claim.source})") if found else claim.text
    why = claim.why(records) if callable(claim.why) else claim.why
    return Row(
        text,
        f"{claim.source}: {claim.published}" if claim.published else claim.source,
        "–" if found is None or word == NOT_TESTED else found.numbers,
        word,
        "" if word == WORDS[True] else why,
    )


def table(rows: list[Row]) -> list[str]:
    """Rows as a Markdown table."""
    return [
        "| claim | published | here | verdict | why |",
        "| --- | --- | --- | --- | --- |",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in one) + " |" for one in rows),
    ]


def speed_goals(results: Path = RESULTS) -> list[str]:
    """What training costs against a write-up of what was published."""
    lines = ["| step | device | times as fast | goal |", "| --- | --- | --- | --- |"]
    for name, (key, what) in GOALS.items():
        for file in (f"{name}_cuda.json", f"{name}.json"):
            cuda = file.endswith("_cuda.json")
            if not (results / file).is_file():
                lines.append(f"| {what} | {'H100' if cuda else 'CPU'} | not measured | {NOT_TESTED} |")
                continue
            found = read_json(results / file, "a benchmark", (key, "provenance"))
            said = "; ".join(_speed(step) for step in found[key])
            lines.append(
                f"| {what} | {found['provenance']['device']} | {said} (`{file}`) "
                f"| {_met(found[key]) if cuda else '–'} |"
            )
    return lines


def _speed(step: dict[str, Any]) -> str:
    low, high = step["speedup_interval_95"]
    of = f", {step['model']}" if "model" in step else ""
    return f"{step['dtype']}{of}, batch {step['batch_size']}: {step['speedup']:.2f} [{low:.2f}, {high:.2f}]"


def _met(steps: list[dict[str, Any]]) -> str:
    """Whether the fastest step is clearly fast enough."""
    low, high = max((step["speedup_interval_95"] for step in steps), key=lambda ends: ends[0])
    return "**met**" if low >= GOAL else "**missed**" if high < GOAL else WORDS[None]


def devices(records: Records) -> list[str]:
    """What it ran on."""
    origins = [
        records.offline.dynamics["provenance"],
        records.raptor.provenance,
        records.vits.provenance,
        records.overfit.provenance,
        *(run["provenance"] for run in records.vitrm.runs.values()),
        *([records.at_size["provenance"]] if records.at_size else []),
        *([records.grid.provenance] if records.grid else []),
    ]
    return sorted({origin["device"] for origin in origins})


def page(records: Records) -> str:
    """The page, as Markdown."""
    tables = {topic: [row(claim, records) for claim in topic.claims] for topic in TOPICS}
    counts = Counter(one.verdict for rows in tables.values() for one in rows)
    used = devices(records)
    small, recursive = records.vits.config, records.vitrm.runs["vitrm"]
    seen = records.raptor.summary["images_seen"].mode().iloc[0]
    lines = [
        "# Evidence",
        "",
        "<!-- written by `python -m analyses.evidence` from the recorded results; do not edit -->",
        "",
        "Every claim of the papers that brdyn answers to, beside what was measured here. The papers' networks are",
        "large (DINOv2 ViT-B and ViT-g) or trained for long. These are",
        "",
        f"- `{OFFLINE}`: a ViT-S/14 of {records.offline.phases.layers} layers in DINOv2's layout, trained for "
        "saliency, on photographs of ImageNet and on CIFAR-10;",
        f"- its Raptors, fitted with {seen:,} images of CIFAR-10;",
        f"- ViTs of {small.network['depth']} layers and width {small.network['width']}, trained from scratch with "
        f"{small.train_images or 50_000:,} images of CIFAR-10;",
        f"- a ViTRM of {recursive['parameters'] / 1e6:.2f} M parameters, trained with "
        f"{recursive['options']['data']['images']:,} of them.",
        "",
        "So a claim that fails here is not refuted, and one that holds is not reproduced at the published size. "
        "CIFAR-10 is JPEG-recompressed.",
        f"Devices: {'; '.join(used)}" + ("; no GPU." if all("CPU" in name for name in used) else "."),
        "",
        f"**{sum(counts.values())} claims: {', '.join(f'{counts[one]} {said}' for one, said in VERDICTS.items())}.**",
        "",
        "Verdicts follow by rule from the numbers beside them; the rules are on the page named with each table.",
        "Brackets are 95 % intervals; a number without one is of one network or one fit. A paper named without a",
        "number gives a direction, or a figure to read.",
        "",
    ]  # fmt: skip
    for topic, rows in tables.items():
        lines += [f"## {topic.title}", "", topic.note, "", *table(rows), ""]
        for claim in topic.claims:
            if claim.finding in OWN and (found := claim.found(records)):
                lines += [f"Rule for “{found.claim}”: {found.rule}.", ""]
    return "\n".join(
        [
            *lines,
            "## Speed goals",
            "",
            f"Goals of this project, not claims of a paper: {GOAL:g} times as fast on an H100 as a float32 write-up of "
            "the published step.",
            "Both are timed by turns in one run. The goal is judged on a GPU alone; more in "
            "[speed and memory](guide/performance.md).",
            "",
            *speed_goals(),
            "",
        ]
    )


def main() -> None:
    """Rewrite, or check."""
    write_or_check(__doc__, lambda: {PAGE: page(load())})


if __name__ == "__main__":
    main()
