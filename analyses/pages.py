"""Every page and table that is generated from the recorded results: README.md, docs/evidence.md, docs/measured.md, the
findings and the page on being fooled in docs/guide/, and the list of GPU jobs.

python -m analyses.pages            # rewrite
python -m analyses.pages --check    # fail if one differs from the results
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from analyses import claims, fooled, phase_test, raptor_search
from analyses.claims import AGAIN, BEFORE, BEFORE_TWINS, NOT_TESTED, OURS, WORDS, Records, in_full
from analyses.findings import dense, depth, layers, raptor, vitrm
from analyses.gpu.__main__ import MINUTES
from analyses.gpu.jobs import JOBS
from analyses.gpu.packing import MOST, PART
from analyses.raptor_cells import Cells, least_skill, read_cells
from analyses.recording import OFFLINE, RESULTS, ROOT, plain_parser
from analyses.render import measured_rows, page, write_or_check
from analyses.statistics import Estimate
from analyses.stochastic_depth_cells import MOMENTS, Network, Recorded
from brdyn import Phases
from brdyn.classifiers import ViTRMConfig, packaged
from brdyn.classifiers.recipe import BATCH, BEST, VITRM
from brdyn.interventions import Surgery
from brdyn.phases.evidence import ALPHA
from brdyn.raptor import Evaluation
from brdyn.store import read_json

START, END = "<!-- measured: start -->", "<!-- measured: end -->"
VERDICTS = {WORDS[True]: "hold", WORDS[False]: "fail", WORDS[None]: WORDS[None], NOT_TESTED: NOT_TESTED}
FORMATS = {
    "kept": ".1%", "kept_knn": ".1%", "kept_head": ".1%", "r2": ".2f", "r2_least": ".2f", "r2_one_step": ".2f",
    "skill": ".2f",
}  # fmt: skip
GOAL = 3.0  # times as fast, on an H100
MET = {True: "**met**", False: "**missed**", None: WORDS[None]}
GOALS = {
    "bench_raptor": ("steps", "a stage-2 step of Raptor with its teacher"),
    "bench_vitrm": ("training", "a training step of ViTRM"),
}
BENCHMARKS = {
    "bench_capture": "bench_capture", "precision": "precision", f"end_to_end_{OFFLINE}": "end_to_end",
    "end_to_end_dinov2_vitg14": "end_to_end", "bench_dynamics": "bench_dynamics", "bench_splice": "bench_splice",
    "bench_raptor": "bench_raptor", "bench_fidelity": "bench_fidelity", "bench_vitrm": "bench_vitrm",
    "bench_segment": "bench_segment", "bench_probe": "bench_probe",
}  # fmt: skip


def judged(
    records: Records, table: str, *, ours: bool = False, study: str | None = None
) -> list[dict[str, str]]:
    """The rows of a table of claims with their rules; in another study those that are judged there too."""
    chosen = [one for one in claims.every() if one.table == table and (one.source == OURS) == ours]
    return [
        ruled(claim, records, study)
        for claim in chosen
        if study in (None, claim.study) or claim.measure in AGAIN.get(study, ())
    ]


def ruled(claim: claims.Claim, records: Records, study: str | None = None) -> dict[str, str]:
    """A claim with its rule, and what it comes to."""
    found = records.told(claim, study)
    text = (
        f"{claim.claim} ({claim.source})"
        if claim.table in ("offline", "vitrm", "layers", "dense")
        else claim.claim
    )
    return {
        "claim": text,
        "rule": found.rule or (in_full(claim.rule) if claim.rule else "–"),
        "said": found.said,
        "word": found.verdict,
        "why": found.why,
    }


def evidence(records: Records, results: Path = RESULTS) -> str:
    """Every published claim beside what was measured here, with verdict and reason."""
    topics: list[dict[str, Any]] = []
    for topic in claims.topics():
        published = [one for one in topic.claims if one.source != OURS]
        rows = [claims.row(one, records) for one in published]
        own = [one for one in published if one.rule is not None and not one.table]
        topics.append({"title": topic.title, "note": topic.note, "rows": rows, "own": own})
    counts = Counter(row.verdict for topic in topics for row in topic["rows"])
    rules = [one for one in claims.every() if one.source != OURS and one.rule is not None]
    found = [records.told(one) for one in claims.every() if one.source != OURS]
    untested = Counter(one.verdict for one in found if one.untested)
    every = records.judged.values()
    tested = [sum(getattr(one, p) is not None for one in every) for p in ("p_holds", "p_fails")]
    first, half = ([one.claim for one in rules if one.written == when] for when in (BEFORE, BEFORE_TWINS))
    used = devices(records)
    return page(
        "evidence.md.j2", records=records, topics=topics, counts=counts, total=counts.total(), devices=used,
        rules=rules, first=first, half=half, in_full=in_full, tested=tested, untested=untested,
        no_gpu=all("CPU" in name for name in used), VERDICTS=VERDICTS, GOAL=GOAL,
        small=records.vits.config, recursive=records.vitrm.runs["vitrm"],
        seen=raptor.images_seen(records.raptor), goals=speed_goals(results),
    )  # fmt: skip


def devices(records: Records) -> list[str]:
    runs = [
        records.offline.dynamics,
        *records.vitrm.runs.values(),
        *([records.at_size] if records.at_size else []),
    ]
    studies = [
        one for one in (records.raptor, records.vits, records.overfit, records.cifar100, records.grid) if one
    ]
    used = [run["provenance"] for run in runs] + [study.provenance for study in studies]
    return sorted({one["device"] for one in used})


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


def by_partition(cells: Cells) -> Any:
    """Fits by k and partition, those of the fast recipe apart; those that take the published recipe apart left out."""
    rows = cells.summary[cells.summary["varies"] != "recipe"]
    fast = rows["partition"] + ", fast recipe"
    return rows.assign(partition=rows["partition"].where(rows["varies"] != "fast", fast)).groupby(
        ["k", "partition"]
    )


def raptor_findings(records: Records) -> str:
    cells, short, headed = records.raptor, records.short, records.headed
    other = read_cells("gpu", raptor.OTHER_TEACHER)
    names = {name: said for name, said in raptor.LADDER_NAMES.items() if name in cells.summary.index}
    return page(
        "raptor_findings.md.j2", FORMATS=FORMATS, PUBLISHED_IMAGES=raptor.PUBLISHED_IMAGES, NAMED=names,
        ONLY_SHORT={name: said for name, said in raptor.LADDER_NAMES.items() if name not in names},
        cells=cells, short=short, seen=raptor.images_seen(cells), kept_of=raptor.share_kept,
        contiguous=records.told(claims.of("raptor.better_than_contiguous")),
        partitions=by_partition(cells), other=other, others=by_partition(other), OTHER=raptor.OTHER_TEACHER,
        lengths=raptor.lengths(short, cells), spread_of=raptor.spread_of, fits_of=raptor.fits_of,
        shuffled=raptor.phases_over_shuffled(cells), headed=headed, by_partition=by_partition,
        LADDER=raptor.LADDER_NAMES, headed_seen=raptor.images_seen(headed) if headed else 0,
        headed_rows=judged(records, "headed"), headed_ours=judged(records, "headed", ours=True),
        again=judged(records, "raptor", study="headed") if headed else [],
        rows=judged(records, "raptor"), ours=judged(records, "raptor", ours=True),
        by_muon=raptor.muon_kept(headed) if headed else None, rates=raptor.tried(), photographs=raptor.photographs(),
        search=raptor_search.read_search(), searches=raptor_search.recorded(), words=raptor_search.words,
        search_verdict=raptor_search.verdict,
    )  # fmt: skip


def vitrm_findings(records: Records) -> str:
    results, grid, first = records.vitrm, records.grid, records.vitrm.runs["vitrm"]
    recipe, network = first["options"]["recipe"], ViTRMConfig(**first["options"]["built"])
    published = {**VITRM.to_dict(), "batch_size": BATCH}
    kept = {key: value for key, value in recipe.items() if not key.endswith("_every")}
    changed = {key: value for key, value in kept.items() if value != published[key]}
    return page(
        "vitrm_findings.md.j2", results=results, grid=grid, first=first, network=network, changed=changed,
        published_recipe=published, accuracy=vitrm.accuracy, PUBLISHED=vitrm.PUBLISHED, AT_128=vitrm.AT_128,
        unrolled=results.motions["vitrm"].layers // (network.latent_steps + 1), rows=judged(records, "vitrm"),
        network_width=ViTRMConfig.width, grid_rows=judged(records, "grid"), at_size=records.at_size,
        table=grid.cells.pivot(index="n", columns="n_sup", values="accuracy") if grid else None,
        at_size_said=claims.of("vitrm.published_accuracy").judge(records).said,
    )  # fmt: skip


def layers_findings(records: Records) -> str:
    """What layers of two networks do, beside their untrained twins."""
    rows, ours = judged(records, "layers"), judged(records, "layers", ours=True)
    counts = Counter(row["word"] for row in (*rows, *ours))
    return page(
        "layers_findings.md.j2", found=records.layers, counts=counts, total=counts.total(), rows=rows, ours=ours,
        NETWORKS=layers.NETWORKS, TWINS=layers.TWINS, whole=layers.whole_phases(records.layers),
        along=layers.along(records.layers),
    )  # fmt: skip


def dense_findings(records: Records) -> str:
    """What Raptors keep of masks and depth, and where these are read."""
    return page(
        "dense_findings.md.j2", found=records.dense, rows=judged(records, "dense"),
        ours=judged(records, "dense", ours=True), table=dense.table(records.dense),
        layers=dense.read(records.dense), classes=dense.by_class(records.dense),
        beyond_nothing=claims.beyond_nothing(records.dense),
    )  # fmt: skip


def at_moment(study: Recorded, p: float, moment: str = BEST) -> dict[str, Any]:
    """Networks of one p at a moment, and Raptors of them."""
    networks = study.networks[(study.networks["p"] == p) & (study.networks["moment"] == moment)]
    fits = depth.maxcut_fits(study, moment=moment).reset_index()
    return {"p": p, "moment": moment, "networks": networks, "fits": fits[fits["p"] == p]}


def along(study: Recorded) -> list[dict[str, Any]]:
    """Networks along their training, of the rates that Raptors follow; untrained ones are the same for every p."""
    shown = sorted(study.fits[study.fits["moment"] != BEST]["p"].unique())
    rows = (at_moment(study, p, moment) for p in shown for moment in MOMENTS)
    return [row for row in rows if len(row["networks"])]


def at_best(study: Recorded) -> list[dict[str, Any]]:
    """Networks at their best epoch, by p."""
    return [at_moment(study, p) for p in sorted(depth.best_networks(study)["p"].unique())]


def stochastic_depth_findings(records: Records, *, with_packaged: bool = True) -> str:
    """Small ViTs under stochastic depth, those that overfit, and the packaged one."""
    study, config = records.vits, records.vits.config
    networks, settings = depth.best_networks(study), config.raptor["settings"]
    right = {Network(p=row["p"], seed=row["seed"]): row["accuracy"] for _, row in networks.iterrows()}
    return page(
        "stochastic_depth_findings.md.j2", study=study, networks=networks, network=config.network, along=along,
        augmented=any(config.training.get(name, 1) for name in ("operations", "mixup", "cutmix")),
        planned=sum(1 for _ in config.cells(config.followed(right))),
        seen=(settings["stage1_steps"] + settings["stage2_steps"]) * settings["batch_size"],
        hours=(networks["train_seconds"].sum() + study.fits["seconds"].sum()) / 3600,
        at_best=at_best,
        rows=judged(records, "depth", study="vits"), ours=judged(records, "depth", ours=True),
        overfit=None if records.overfit is study else records.overfit, best_networks=depth.best_networks,
        overfit_rows=judged(records, "depth", study=claims.OVERFIT),
        overfit_ours=judged(records, "overfit", ours=True), cifar100=records.cifar100,
        cifar100_rows=judged(records, "depth", study=claims.HUNDRED) if records.cifar100 else [],
        packaged=packaged_network(records.packaged) if with_packaged else None,
    )  # fmt: skip


def train_or_distil(records: Records, results: Path = RESULTS) -> str:
    """Blocks that are shared from the start, and Raptors, with what is recorded of both."""
    evaluation = Evaluation.read(results / "raptor" / f"{packaged.NAME}_eval")
    return page(
        "train_or_distil.md.j2", found=records.shared, rows=judged(records, "shared"),
        ours=judged(records, "shared", ours=True), recursive=records.vitrm.runs["vitrm"],
        vit=records.vitrm.runs["vit-small"], head=evaluation.fidelity.head(), cost=evaluation.cost,
    )  # fmt: skip


def packaged_network(surgery: Surgery, results: Path = RESULTS) -> dict[str, Any]:
    """What `brdyn interventions` and `brdyn raptor-eval` say of the network that comes with the package."""
    name = packaged.NAME
    evaluation = Evaluation.read(results / "raptor" / f"{name}_eval")
    fit, operated = (
        read_json(results / folder / name / f"{file}.json", "a recorded result")
        for folder, file in (("raptor", "fit"), ("interventions", "interventions"))
    )
    swapped, pairs = surgery.matrix("swap", "head", "accuracy"), np.triu_indices(surgery.layers, 1)
    same = surgery.phases.labels[pairs[0]] == surgery.phases.labels[pairs[1]]
    blocks = fit["options"]["assignment"]
    return {
        "name": name, "surgery": surgery, "operated": operated, "fit": fit, "head": evaluation.fidelity.head(),
        "deleted": surgery.rows("delete", "head", "accuracy").sort_values("mean"),
        "within": swapped[pairs][same].mean(), "across": swapped[pairs][~same].mean(),
        "tests": {readout: test for readout, test in surgery.tests.items() if test is not None},
        "blocks": len(set(blocks)),
        "ends": [layer for layer in range(1, len(blocks)) if blocks[layer] != blocks[layer - 1]],
        "r2": evaluation.fidelity.curve("r2"),
        "skill": least_skill(evaluation.fidelity.table),
        "probes": evaluation.probing.to_dict()["ratios"] if evaluation.probing else [],
    }  # fmt: skip


def measured() -> dict[str, Any]:
    """What the tables of speed and memory are made of; GPU rows follow where they are recorded."""
    used: dict[str, str] = {}
    rows, bootstraps = [], dict[str, str]()
    for suffix in ("", "_cuda"):
        for name, kind in BENCHMARKS.items():
            path = RESULTS / f"{name}{suffix}.json"
            if path.is_file():
                content = path.read_text()
                origin = read_json(path, "a benchmark", ("provenance",))["provenance"]
                if "interval_95" in content and "rounds" not in content.replace(origin["command"], ""):
                    asked = re.search(r"--rounds (\d+)", origin["command"])
                    bootstraps[path.name] = asked[1] if asked else ""
                used.setdefault(origin["device"], origin["date"][:10])
                rows.append(measured_rows(kind, path))
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
    topics, untested = [], list[str]()
    for topic in claims.topics():
        published = [one for one in topic.claims if one.source != OURS]
        rows = [claims.row(one, records) for one in published]
        topics.append((topic.title, Counter(row.verdict for row in rows)))
        untested += [records.told(one).verdict for one in published if records.told(one).untested]
    files = {name: RESULTS / f"{name}.json" for name in ("bench_capture", "bench_raptor")}
    files |= {f"{name}_cuda": RESULTS / f"{name}_cuda.json" for name in files}
    found = {name: read_json(path, "a benchmark") if path.is_file() else {} for name, path in files.items()}
    capture = [one["ratio"] for one in found["bench_capture"]["capture"]]
    giant = [one["ratio"] for one in found["bench_capture_cuda"].get("capture", []) if "vitg" in one["model"]]
    steps = [found[name].get("steps", [{}])[0] for name in ("bench_raptor", "bench_raptor_cuda")]
    return page(
        "readme.md.j2", topics=topics, untested=Counter(untested), VERDICTS=VERDICTS, capture=capture,
        giant=giant[0] if giant else None, raptor=steps,
    )  # fmt: skip


def how_to_be_fooled(records: Records) -> str:
    """Drifts, noise, blocks and real networks through every statistic of phases."""
    rates = fooled.rates()
    return page(
        "fooled.md.j2", simulated=fooled.simulated(), real=fooled.real(), verdict=fooled.verdict, K=fooled.K,
        rates=rates, without=[row for row in rates if "family" in row], blocks=[row for row in rates if "k" in row],
        sizes=fooled.sizes(), study=phase_test, ALPHA=ALPHA, found=records.phases,
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
        guide / "fooled.md": how_to_be_fooled(records),
        guide / "findings.md": page("findings.md.j2", found=records.offline, rows=judged(records, "offline")),
        guide / "dense_findings.md": dense_findings(records),
        guide / "layers_findings.md": layers_findings(records),
        guide / "raptor_findings.md": raptor_findings(records),
        guide / "train_or_distil.md": train_or_distil(records),
        guide / "vitrm_findings.md": vitrm_findings(records),
        guide / "stochastic_depth_findings.md": stochastic_depth_findings(records),
        ROOT / "analyses" / "gpu" / "README.md": gpu(),
    }


def main() -> None:
    options = plain_parser(__doc__)
    options.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if something would change"
    )
    check = options.parse_args().check  # first: the pages take a while
    write_or_check(pages(claims.load()), check=check)


if __name__ == "__main__":
    main()
