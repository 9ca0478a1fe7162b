"""Every page and table that is generated from the recorded results: README.md, docs/evidence.md, docs/measured.md, the
findings and the page on being fooled in docs/guide/, and the list of GPU jobs.

python -m analyses.pages            # rewrite
python -m analyses.pages --check    # fail if one differs from the results
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from analyses import claims, fooled, phase_test, raptor_search
from analyses.claims import BEFORE, BEFORE_TWINS, NOT_TESTED, OURS, WORDS, Records, in_full
from analyses.findings import dense, depth, layers, raptor, vitrm
from analyses.gpu.__main__ import MINUTES
from analyses.gpu.jobs import JOBS
from analyses.gpu.packing import MOST, PART
from analyses.recording import OFFLINE, RESULTS, ROOT
from analyses.render import generator, measured_rows, page
from analyses.statistics import Estimate
from brdyn import Phases
from brdyn.classifiers import ViTRMConfig
from brdyn.classifiers.recipe import BATCH, VITRM
from brdyn.provenance import RunProvenance
from brdyn.store import read_json

START, END = "<!-- measured: start -->", "<!-- measured: end -->"
VERDICTS = {WORDS[True]: "hold", WORDS[False]: "fail", WORDS[None]: WORDS[None], NOT_TESTED: NOT_TESTED}
FINDINGS = {
    "raptor": raptor, "raptor_search": raptor_search, "layers": layers, "dense": dense, "depth": depth, "vitrm": vitrm,
    "claims": claims, "fooled": fooled, "phase_test": phase_test,
}  # fmt: skip
OF_RECORDS = (
    "fooled", "findings", "dense_findings", "layers_findings", "raptor_findings", "train_or_distil",
    "stochastic_depth_findings",
)  # fmt: skip
GOAL = 3.0  # times as fast, on an H100
MET = {True: "**met**", False: "**missed**", None: WORDS[None]}
GOALS = {
    "bench_raptor": ("steps", "a stage-2 step of Raptor with its teacher"),
    "bench_vitrm": ("training", "a training step of ViTRM"),
}
BENCHMARKS = (  # those of one kind are of several models
    "bench_capture", "precision", f"end_to_end_{OFFLINE}", "end_to_end_dinov2_vitg14", "bench_dynamics", "bench_splice",
    "bench_raptor", "bench_fidelity", "bench_vitrm", "bench_segment", "bench_probe",
)  # fmt: skip


def judged(records: Records, table: str, *, ours: bool = False, study: str | None = None) -> list[dict[str, str]]:
    """The rows of a table of claims with their rules; in another study those that are judged there too."""
    chosen = [one for one in claims.every() if one.table == table and (one.source == OURS) == ours]
    return [ruled(one, records, study) for one in chosen if study in (None, one.study, *one.again)]


def ruled(claim: claims.Claim, records: Records, study: str | None = None) -> dict[str, str]:
    """A claim with its rule, and what it comes to."""
    found = records.told(claim, study)
    named = claim.table in ("offline", "vitrm", "layers", "dense")
    return {
        "claim": f"{claim.claim} ({claim.source})" if named else claim.claim,
        "rule": found.rule or (in_full(claim.rule) if claim.rule else "–"),
        "said": found.said, "word": found.verdict, "why": found.why,
    }  # fmt: skip


def published(records: Records) -> list[dict[str, Any]]:
    """The papers' claims by topic, each with its row, and which of their rules stand on the page of evidence."""
    topics = []
    for topic in claims.topics():
        told = [one for one in topic.claims if one.source != OURS]
        rows = [claims.row(one, records) for one in told]
        own = [one for one in told if one.rule is not None and not one.table]
        counts = Counter(row.verdict for row in rows)
        topics.append({"title": topic.title, "note": topic.note, "rows": rows, "own": own, "counts": counts})
    return topics


def untested(records: Records) -> Counter[str]:
    """Verdicts on the papers' claims that no test judges."""
    found = [records.told(one) for one in claims.every() if one.source != OURS]
    return Counter(one.verdict for one in found if one.untested)


def evidence(records: Records, results: Path = RESULTS) -> str:
    """Every published claim beside what was measured here, with verdict and reason."""
    topics, used = published(records), sorted(devices(records))
    rules = [one for one in claims.every() if one.source != OURS and one.rule is not None]
    every = records.judged.values()
    tested = [sum(getattr(one, p) is not None for one in every) for p in ("p_holds", "p_fails")]
    first, half = ([one.claim for one in rules if one.written == when] for when in (BEFORE, BEFORE_TWINS))
    counts = sum((topic["counts"] for topic in topics), Counter[str]())
    return page(
        "evidence.md.j2", records=records, topics=topics, counts=counts, total=counts.total(), devices=used,
        rules=rules, first=first, half=half, in_full=in_full, tested=tested, untested=untested(records),
        no_gpu=all("CPU" in name for name in used), VERDICTS=VERDICTS, GOAL=GOAL,
        small=records.vits.config, recursive=records.vitrm.runs["vitrm"],
        seen=raptor.images_seen(records.raptor), goals=speed_goals(results),
    )  # fmt: skip


def devices(recorded: Any) -> set[str]:
    """All that provenance within what is recorded names."""
    if isinstance(recorded, RunProvenance):
        return {recorded.details["device"]}
    if isinstance(recorded, Mapping):
        if {"device", "command"} <= set(recorded):
            return {recorded["device"]}
        parts: Iterable[Any] = recorded.values()
    elif is_dataclass(recorded):
        parts = vars(recorded).values()
    else:
        parts = recorded if isinstance(recorded, tuple | list) else ()
    return set().union(*map(devices, parts))


def speed_goals(results: Path = RESULTS) -> list[dict[str, str]]:
    """What training costs against a write-up of what was published; the goal is judged on a GPU alone."""
    rows = []
    for name, (key, what) in GOALS.items():
        for file, device in ((f"{name}_cuda.json", "H100"), (f"{name}.json", "CPU")):
            row = {"what": what, "device": device, "said": "not measured", "word": NOT_TESTED}
            if (results / file).is_file():
                found = read_json(results / file, "a benchmark", (key, "provenance"))
                speeds = [Estimate(step["speedup"], *step["speedup_interval_95"]) for step in found[key]]
                said = "; ".join(map(_speed, found[key], speeds))
                fastest = max(speeds, key=lambda one: one.low)
                met = MET[fastest.low >= GOAL or fastest.against(GOAL)] if device == "H100" else "–"
                row |= {"device": found["provenance"]["device"], "said": f"{said} (`{file}`)", "word": met}
            rows.append(row)
    return rows


def _speed(step: dict[str, Any], speed: Estimate) -> str:
    of = f", {step['model']}" if "model" in step else ""
    compiled = ", compiled" if step.get("compiled") else ""
    said = f"{step['dtype']}{compiled}{of}, batch {step['batch_size']}: {speed.say('.2f')}"
    ready = step.get("speedup_if_reading_cost_nothing")
    return f"{said} ({ready:.2f} if its reading cost nothing)" if ready else said


def of_records(template: str, records: Records, **more: Any) -> str:
    """A page of what is recorded; its template sees the modules that know what to make of it."""
    return page(template, records=records, judged=partial(judged, records), **FINDINGS, **more)


def vitrm_findings(records: Records) -> str:
    results, grid, first = records.vitrm, records.grid, records.vitrm.runs["vitrm"]
    recipe, network = first["options"]["recipe"], ViTRMConfig(**first["options"]["built"])
    published = {**asdict(VITRM), "batch_size": BATCH}
    kept = {key: value for key, value in recipe.items() if not key.endswith("_every")}
    changed = {key: value for key, value in kept.items() if value != published[key]}
    return of_records(
        "vitrm_findings.md.j2", records, results=results, grid=grid, first=first, network=network, changed=changed,
        published_recipe=published, unrolled=results.motions["vitrm"].layers // (network.latent_steps + 1),
        network_width=ViTRMConfig.width,
        table=grid.cells.pivot(index="n", columns="n_sup", values="accuracy") if grid else None,
    )  # fmt: skip


def measured() -> dict[str, Any]:
    """What the tables of speed and memory are made of; GPU rows follow where they are recorded."""
    used: dict[str, str] = {}
    rows, bootstraps = [], dict[str, str]()
    for suffix in ("", "_cuda"):
        for name in BENCHMARKS:
            path = RESULTS / f"{name}{suffix}.json"
            if path.is_file():
                content = path.read_text()
                origin = read_json(path, "a benchmark", ("provenance",))["provenance"]
                if "interval_95" in content and "rounds" not in content.replace(origin["command"], ""):
                    asked = re.search(r"--rounds (\d+)", origin["command"])
                    bootstraps[path.name] = asked[1] if asked else ""
                used.setdefault(origin["device"], origin["date"][:10])
                rows.append(measured_rows("end_to_end" if name.startswith("end_to_end") else name, path))
    return {"benchmarks": rows, "devices": used, "bootstraps": bootstraps}


def recorded_phases() -> list[dict[str, Any]]:
    """The phases of the offline model, and of an untrained one, on photographs."""
    runs = []
    for folder in (OFFLINE, f"{OFFLINE}_random0"):
        run = read_json(RESULTS / "phases" / folder / "phases.json", "a recorded result")
        source = "/".join(Path(run["provenance"]["images"]["source"]).parts[-2:])
        runs.append({"phases": Phases.from_dict(run), "images": run["n_images"], "source": source,
                     "untrained": run["weights"].startswith("random")})  # fmt: skip
    return runs


def readme(records: Records) -> str:
    """What the README says of results: verdicts by topic, and the price of the two things that one does most."""
    names = [f"bench_{name}{suffix}.json" for suffix in ("", "_cuda") for name in ("capture", "raptor")]
    found = [read_json(path, "a benchmark") if (path := RESULTS / name).is_file() else {} for name in names]
    capture, step, capture_cuda, step_cuda = found
    on_gpu = {one["model"]: one["ratio"] for one in capture_cuda.get("capture", []) if one["similarity"] == "cosine"}
    return page(
        "readme.md.j2", topics=published(records), untested=untested(records), VERDICTS=VERDICTS,
        capture=[one["ratio"] for one in capture["capture"]], on_gpu=on_gpu,
        raptor=[one.get("steps", [{}])[0] for one in (step, step_cuda)],
    )  # fmt: skip


def gpu() -> str:
    listed = [{"job": job, "writes": job.writes("gpu", "_cuda")} for job in JOBS]
    return page("gpu.md.j2", jobs=listed, MOST=MOST, PART=PART, MINUTES=MINUTES)


def pages(records: Records) -> dict[Path, str]:
    path, guide = ROOT / "README.md", ROOT / "docs" / "guide"
    before, rest = path.read_text().split(START)
    return {
        path: f"{before}{START}\n\n{readme(records)}\n{END}{rest.split(END)[1]}",
        ROOT / "docs" / "measured.md": page("measured.md.j2", runs=recorded_phases(), zip=zip, **measured()),
        ROOT / "docs" / "evidence.md": evidence(records),
        guide / "vitrm_findings.md": vitrm_findings(records),
        **{guide / f"{name}.md": of_records(f"{name}.md.j2", records) for name in OF_RECORDS},
        ROOT / "analyses" / "gpu" / "README.md": gpu(),
    }


main = generator(lambda: pages(claims.load()), __doc__, __name__)
