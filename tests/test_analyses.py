"""Studies and benchmarks run at small size, and the README says what the recorded results say."""

import json
import re
import sys
import time
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

from analyses import (
    bench,
    bench_capture,
    bench_dynamics,
    bench_fidelity,
    bench_probe,
    bench_raptor,
    bench_segment,
    bench_splice,
    bench_vitrm,
    export_trunk,
    pages,
    precision,
    raptor_on_vits,
    raptor_search,
    training_runs,
    vitrm_dynamics,
    vitrm_on_cifar,
)
from analyses.findings import vitrm
from analyses.raptor_cells import read_cells, right_of
from analyses.recording import OFFLINE, RESULTS, ROOT
from analyses.render import measured_rows
from analyses.study import OutOfTime
from analyses.training_runs import TimedCheckpoints
from brdyn import Stream, load_model
from brdyn.classifiers import packaged
from brdyn.classifiers.config import ViTRMConfig
from brdyn.errors import UsageError
from brdyn.phases import Phases, segment
from brdyn.phases.recursive import exhaustive_cut
from tests import forked
from tests.conftest import needs_offline, tiny_vit
from tests.some_records import only


def test_capture_benchmark_reports_a_ratio():
    cost = bench_capture.capture_cost(tiny_vit(), batch_size=2, rounds=4)
    low, high = cost["ratio_interval_95"]
    assert low <= cost["ratio"] <= high
    assert cost["similarity"] == "cosine"


@pytest.mark.parametrize("rounds", [3, 4, 12])
def test_an_interval_of_few_rounds_covers_the_ratio(rounds):
    """Of noise that multiplies, in 95 % of cases; a bootstrap of the median of 3 does in 76 %."""
    rng, covered = np.random.default_rng(0), []
    for _ in range(4000):
        middle, low, high = bench.geometric_mean(1.5 * np.exp(0.1 * rng.standard_normal(rounds)))
        assert low < middle < high
        covered.append(low <= 1.5 <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)
    assert bench.geometric_mean(np.array([1.5])) == pytest.approx((1.5, 1.5, 1.5))


def test_phases_are_of_the_teacher_and_the_images_that_are_asked_for(tmp_path, little_cifar):
    """A file of others is written anew; one of an earlier version, which says its teacher alone, is kept where it is of
    this one."""
    options = ["--model", packaged.NAME, "--test", little_cifar["test"], "--size", "tiny", "--out", tmp_path]

    def study(train):
        asked = map(str, [*options, "--train", train])
        return raptor_on_vits.RaptorStudy(raptor_on_vits.OPTIONS.parse_args(asked))

    first = study(little_cifar["train"])
    path = first.folder / "phases.json"
    content = json.loads(path.read_text())
    assert content["asked"]["teacher"] == first.teacher.info.digest
    marked = {**content, "mark": "kept"}
    path.write_text(json.dumps(marked))
    study(little_cifar["train"])
    assert "mark" in json.loads(path.read_text())
    study(little_cifar["test"])
    assert json.loads(path.read_text())["asked"]["train"] == str(little_cifar["test"])
    earlier = {name: value for name, value in marked.items() if name != "asked"}
    path.write_text(json.dumps(earlier))
    study(little_cifar["train"])
    assert json.loads(path.read_text())["mark"] == "kept"
    earlier["provenance"]["teacher"]["digest"] = "another"
    path.write_text(json.dumps(earlier))
    study(little_cifar["train"])
    assert "mark" not in json.loads(path.read_text())


def test_dynamics_benchmark_reports_shares_and_errors():
    model = tiny_vit()
    images = torch.randn(2, 3, 32, 32)
    found = bench_dynamics.measures_cost(model, images, rounds=2)
    assert found["share_of_a_forward"].keys() >= {"update", "estimation", "speed", "basins", "modes"}
    sweep = bench_dynamics.sweep_cost(model, images, rounds=2)
    assert sweep["ratio_with_its_own_clean_pass"] == pytest.approx(sweep["ratio"] + 1 / 5)
    assert bench_dynamics.rank_error(model, images)["effective_rank"] < 1e-3


def test_splice_benchmark_counts_block_applications():
    """(L^3 - L) / 6 of an image, and (L^3 - L) / 2 for exchanges, which are L surrogates."""
    model, images = tiny_vit(), torch.randn(2, 3, 32, 32)
    for name, expected in {"identity": 10, "affine": 10, "repeat": 10, "exchange": 30}.items():
        found = bench_splice.sweep_cost(model, images, name, rounds=2)
        assert found["applications_of_an_image"] == expected
        assert found["over_the_budget"] == pytest.approx(expected / (4**3 / 6))
        assert found["forwards"] == 3


@pytest.mark.slow
def test_peak_memory_is_flat(monkeypatch):
    monkeypatch.setattr(bench, "peak_of", forked.peak_of)
    streamed, kept = (bench.memory("bench_capture", *asked) for asked in (((20, 220), "stream"), ((220,), "keep")))
    assert streamed["220"] < streamed["20"] + 30
    assert kept["220"] > streamed["220"] + 180  # MiB: a megabyte an image


@pytest.mark.slow
def test_peak_memory_of_a_fresh_process(noise_folder):
    """It holds torch at least, and nothing of the process that asks."""
    held = np.ones(2**27)  # a GiB
    assert 200 < bench.peak_of("bench_capture", str(noise_folder), "1", "stream") < held.nbytes / 2**20


def test_a_dry_run_is_not_warmed_up():
    def called(rounds):
        calls = []
        bench.ratio(lambda: calls.append("bare"), lambda: calls.append("measured"), rounds, torch.device("cpu"))
        return calls

    assert called(1) == ["bare", "measured"]
    assert called(2) == ["bare", "measured", "bare", "measured", "measured", "bare"]


def test_segment_benchmark_searches_agree():
    weights = bench_segment.matrix(8)
    best = bench_segment.plain_exhaustive(weights)
    assert best == pytest.approx(exhaustive_cut(weights)[0])


@pytest.mark.slow
def test_peak_memory_of_dense_probes_is_flat():
    """Past what the first hundreds take, as the batches that heads are trained on are of a size."""
    few, many = (forked.peak_of("bench_probe", str(count), "2") for count in (300, 800))
    assert many < few + 65  # MiB: the features of 500 images are 197, and 50 of masks


def test_probe_benchmark_reads_out_all_layers():
    cost = bench_probe.extraction_cost(tiny_vit(), batch_size=2, rounds=4)
    low, high = cost["ratio_interval_95"]
    assert low <= cost["ratio"] <= high
    shape = {**bench_probe.CAMVID, "images": 5, "layers": 2, "width": 8, "grid": 2}
    assert bench_probe.head_seconds(bench_probe.Recipe(epochs=1), shape) > 0


@needs_offline
def test_an_exported_trunk_is_the_same_model(tmp_path, monkeypatch, imgfocus, images):
    monkeypatch.setattr(sys, "argv", ["export", "--file", str(tmp_path / "trunk.safetensors")])
    export_trunk.main()
    again = load_model("imgfocus_vits14", weights=tmp_path / "trunk.safetensors")
    assert again.info.digest == imgfocus.info.digest
    assert torch.equal(again(images), imgfocus(images))


STUDIES = (
    bench_capture, bench_dynamics, bench_fidelity, bench_probe, bench_raptor, bench_segment, bench_splice, export_trunk,
    pages, raptor_on_vits, raptor_search,
)  # fmt: skip


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_explains_itself(study, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study", "--help"])
    with pytest.raises(SystemExit) as caught:
        study.main()
    assert caught.value.code == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_raptor_benchmark_computes_the_same(dtype, tmp_path):
    teacher, images = tiny_vit(), torch.randn(4, 3, 32, 32)
    bench_raptor.store(teacher, images, tmp_path / "states.npy")
    way = bench.Way(torch.device("cpu"), 2, {"teraflops": {bench.name_of(dtype): 1e-6}}, dtype)
    cache = bench_raptor.filled(teacher, 4, tmp_path / "cache")
    found = bench_raptor.compare(teacher, images, 2, way, tmp_path / "states.npy", cache)
    low, high = found["speedup_from_a_cache_interval_95"]
    assert 0 < low <= found["speedup_from_a_cache"] <= high
    assert found["share_of_the_ceiling"] == pytest.approx(found["teraflops"] / 1e-6)
    assert 0 < sum(row["share"] for row in found["profile"]["kernels"]) <= 1
    assert found["relative_difference_of_losses"] < (1e-5 if dtype == torch.float32 else 2e-2)
    assert found["bytes_on_disk_per_image"] == 4 * 5 * teacher.tokens.count * 16
    low, high = found["speedup_interval_95"]
    assert 0 < low <= found["speedup"] <= high


def test_a_step_from_a_cache_is_that_of_its_images(tmp_path):
    teacher = tiny_vit()
    cache = bench_raptor.filled(teacher, 4, tmp_path / "cache")
    raptor = bench_raptor.student(teacher, 2)
    way = bench.Way(torch.device("cpu"), 2, {})
    reading = bench_raptor.FromCache(raptor, cache, 4, way)
    reading.step()
    photographs = next(cache.images.batches(4, workers=0)).images
    running = bench_raptor.Ours(raptor, photographs, way)
    assert reading.loss().item() == pytest.approx(running.loss().item(), rel=1e-2)  # states are bfloat16
    assert reading.loss().item() != running.loss().item()


def test_time_to_fidelity_is_where_the_curve_first_meets_a_level(tmp_path):
    """Over the logarithm of images; a level counts where all seeds reach it."""
    images = np.array([1000, 2000, 4000])
    assert bench_fidelity.reached(images, np.array([0.2, 0.6, 0.4]), 0.4) == pytest.approx(1000 * 2**0.5)
    assert bench_fidelity.reached(images, np.array([0.2, 0.6, 0.4]), 0.1) == 1000
    assert bench_fidelity.reached(images, np.array([0.2, 0.6, 0.4]), 0.7) is None
    curves = {"fast": [(0.45, 0.55), (0.35, 0.75)], "published": [(0.3, 0.6), (0.1, 0.5)]}
    rows = [
        {"recipe": recipe, "seed": seed, "images": count, "seconds": count * pace, "r2": value, "skill": -1, "kept": 0}
        for recipe, pace in (("fast", 0.01), ("published", 0.02))
        for seed, values in enumerate(curves[recipe])
        for count, value in zip((1000, 2000), values, strict=True)
    ]  # fmt: skip
    half, *rest = bench_fidelity.levels(pd.DataFrame(rows))
    assert (half["of"], half["level"], rest) == ("r2", 0.5, [])
    fast, published = ([1000 * 2**share for share in shares] for shares in ((0.5, 0.375), (2 / 3, 1)))
    np.testing.assert_allclose(half["fast"]["images"], fast)
    np.testing.assert_allclose(half["published"]["seconds"], 0.02 * np.array(published))
    np.testing.assert_allclose(half["ratios"]["seconds"], 0.5 * np.divide(fast, published))
    assert (half["tried"], half["tried_ratios"]) == (None, None)
    tried = [{**row, "recipe": "tried", "seconds": row["seconds"] / 2} for row in rows if row["recipe"] == "fast"]
    also = bench_fidelity.levels(pd.DataFrame([*rows, *tried]))[0]
    np.testing.assert_allclose(also["tried_ratios"]["seconds"], 0.25 * np.divide(fast, published))
    record = {"levels": [half], "k": 3, "model": "a ViT", "fits": rows}
    (tmp_path / "bench_fidelity.json").write_text(json.dumps(record))
    said = measured_rows("bench_fidelity", tmp_path / "bench_fidelity.json")
    assert said.startswith("| R² at the last layer of 0.5, Raptor of 3 blocks of a ViT, ")
    assert "| 1356 images, 14 s; 1794 images, 36 s: 0.38 of the time (by seed 0.32 to 0.45) | " in said
    record = {**record, "levels": [also], "fits": [*rows, *tried]}
    (tmp_path / "bench_fidelity.json").write_text(json.dumps(record))
    said = measured_rows("bench_fidelity", tmp_path / "bench_fidelity.json")
    assert (
        "14 s; 1356 images, 7 s; 1794 images, 36 s: 0.38 of the time (by seed 0.32 to 0.45), with rates tried 0.19"
        in said
    )


def labelled_noise(folder, count=60):
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted(folder.iterdir())] * 3
    pq.write_table(pa.table({"image": cells[:count], "label": [n % 2 for n in range(count)]}), folder / "x.parquet")
    return folder / "x.parquet"


def test_raptor_study_records_resumes_and_survives(tmp_path, noise_folder, monkeypatch, capsys):
    """A dry run: a cell is recorded, left alone when it is there, and a failing one does not stop the rest."""
    images = labelled_noise(noise_folder)
    weights = tmp_path / "tiny.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), weights)
    command = [
        "study", "--train", str(images), "--test", str(images), "--model", "vit_tiny_patch16_224", "--weights",
        str(weights), "--size", "tiny", "--out", str(tmp_path / "out"), "--only", "maxcut_k2", "--share", "0/2",
    ]  # fmt: skip
    changes = {"image_size": 32, "precision": "float32", "probe_train": 40, "probe_test": 20}
    size = SimpleNamespace(**{**vars(raptor_on_vits.SIZES["tiny"]), **changes})
    monkeypatch.setitem(raptor_on_vits.SIZES, "tiny", size)
    monkeypatch.setattr(sys, "argv", command)

    def broken(*_, **__):
        raise RuntimeError("no memory left")

    with monkeypatch.context() as patched:
        patched.setattr(raptor_on_vits, "fit_raptor", broken)
        raptor_on_vits.main()
    assert "maxcut_k2: RuntimeError: no memory left" in capsys.readouterr().out
    assert read_cells("tiny", "vit_tiny_patch16_224", tmp_path / "out").failed.keys() == {"maxcut_k2"}
    raptor_on_vits.main()
    assert "maxcut_k2: fit_seconds" in capsys.readouterr().out
    raptor_on_vits.main()
    assert capsys.readouterr().out == "maxcut_k2: already recorded\n"
    cells = read_cells("tiny", "vit_tiny_patch16_224", tmp_path / "out")
    assert cells.failed == {}
    row = cells.summary.loc["maxcut_k2"]
    assert (row["k"], row["steps"], row["images_seen"], row["varies"]) == (2, 4, 16, "partition")
    assert set(cells.fidelity["images"]) == {"test"}
    right = cells.right["linear"]["maxcut_k2"]
    assert right.mean() / cells.teacher["linear"] == pytest.approx(row["kept"])
    assert row["skill_low"] <= row["skill"] <= row["skill_high"]
    assert not (tmp_path / "out" / "vit_tiny_patch16_224" / "tiny" / "checkpoints" / "maxcut_k2").exists()


def raptor_study(arguments):
    sys.argv = ["study", *arguments]
    raptor_on_vits.main()


def test_raptor_cells_side_by_side(tmp_path, little_cifar):
    """Two processes share the cells, the decoded images and what probes read from the teacher."""
    command = [
        "--model", packaged.NAME, "--train", little_cifar["train"], "--test", little_cifar["test"], "--size", "tiny",
        "--out", tmp_path, "--only", "maxcut_k2,maxcut_k1", "--at-once", "2",
    ]  # fmt: skip
    study = forked.process(raptor_study, list(map(str, command)))
    study.start()
    study.join(400)
    assert study.exitcode == 0
    cells = read_cells("tiny", packaged.NAME, tmp_path)
    assert set(cells.summary.index) == {"maxcut_k1", "maxcut_k2"}
    assert cells.failed == {}
    home = tmp_path / packaged.NAME / "tiny"
    content = json.loads((home / "teacher.json").read_text())
    head = right_of(content, "head").mean()
    assert cells.teacher["head"] == pytest.approx(head)
    assert cells.summary["kept_head"].between(0, 3).all()


def test_the_raptor_study_has_every_cell():
    sizes = raptor_on_vits.SIZES
    assert {name: len(list(raptor_on_vits.cells(size))) for name, size in sizes.items()} == {
        "tiny": 2 * (5 + 2) + 2 * 3 * 3 + 9 + 1,
        "cpu": 5 + 2 * 3 * 3 + 2 + 9 + 1,
        "long": 5 + 3 * 2 + 2 * 4 * 10 + 3 * 9 + 1 + 3 + 1,
        "gpu": 2 * (5 + 3 * 2) + 2 * (5 + 3 + 3) + 9 + 1,
    }
    long = {cell.name: cell.changes for cell in raptor_on_vits.cells(sizes["long"])}
    assert [long[f"ladder_annealed{seed}"].get("seed", 0) for seed in ("", "_seed1", "_seed2")] == [0, 1, 2]
    assert long["maxcut_k3_longer"] == {"stage1_steps": 8100, "stage2_steps": 8100}  # a million images
    cells = list(raptor_on_vits.cells(sizes["gpu"]))
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    assert {cell.changes["recipe"] for cell in cells if cell.name.startswith("fast_")} == {"fast"}
    phases = Phases.from_dict(json.loads((RESULTS / "raptor/imgfocus_vits14/cpu/phases.json").read_text()))
    for cell in cells:
        assert len(set(cell.assignment(phases))) == cell.k
    shares = [set(names[part::3]) for part in range(3)]
    assert set.union(*shares) == set(names)


def test_vitrm_study_goes_on_and_is_written_up(monkeypatch, tmp_path, capsys, little_cifar):
    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments), "--out", str(tmp_path / "out")])
        module.main()
        return capsys.readouterr().out

    networks = {name: vitrm_on_cifar.SIZES["tiny"].networks[name] for name in ("vitrm", "vit-small")}
    monkeypatch.setattr(vitrm_on_cifar.SIZES["tiny"], "networks", networks)
    study = ["--size", "tiny", "--train", little_cifar["train"], "--test", little_cifar["test"]]
    assert "out of time" in run(vitrm_on_cifar, *study, "--minutes", 0)
    home = tmp_path / "out" / "tiny"
    assert not (home / "vitrm.json").exists()
    said = run(vitrm_on_cifar, *study)
    assert [line.split(":")[0] for line in said.splitlines()] == ["vitrm", "vit-small", "linear"]
    run(
        vitrm_dynamics,
        "--size",
        "tiny",
        "--images",
        little_cifar["test"],
        "--n",
        12,
        "--n-repair",
        4,
        "--only",
        "vit*",
        "--null",
        2,
    )
    content = json.loads((home / "dynamics" / "vitrm.json").read_text())
    (home / "dynamics" / f"{OFFLINE}.json").write_text(json.dumps(content))
    results = vitrm.load("tiny", tmp_path / "out")
    page = pages.vitrm_findings(only(vitrm=results))
    assert f"| linear on pixels | | {results.linear['accuracy']:.1%}" in page
    steps = json.loads((home / "vitrm.json").read_text())["evaluation"]["recursion"]["steps"]
    assert ", ".join(f"{row['steps']}: {row['accuracy']:.1%}" for row in steps) in page
    assert results.motions["vitrm"].layers == 16
    assert content["null"]["weights"] == ["random (untrained, seed 1)", "random (untrained, seed 2)"]
    paths = [one.path["y"] for one in results.motions["vitrm"].untrained]
    assert len(set(paths)) == 2
    assert f"(2 untrained twins: {min(paths):.3g} to {max(paths):.3g}, mean {np.mean(paths):.3g}" in page
    assert "is above that of untrained twins with p ≤ 0.05, for every read-out" in page


def test_the_vitrm_study_tests_on_the_test_split(monkeypatch, tmp_path):
    asked = []

    def load(path, size, *, train=True, n=None, workers=None):
        asked.append((path, train))
        return replace(bench_vitrm.noise(20), names=("a", "b") if path == "other" else bench_vitrm.noise(1).names)

    monkeypatch.setattr(training_runs, "load_pixels", load)
    choice = {"size": "tiny", "out": tmp_path, "device": "cpu", "minutes": 1, "epochs": None,
              "only": None, "share": "0/1"}  # fmt: skip
    vitrm_on_cifar.CifarStudy(Namespace(train="cifar10", test="cifar10", **choice))
    assert asked == [("cifar10", True), ("cifar10", False)]
    with pytest.raises(UsageError, match=r"has 2 classes \(a, …\), and the training images 10"):
        vitrm_on_cifar.CifarStudy(Namespace(train="cifar10", test="other", **choice))


def test_motion_by_hand():
    table = [
        {"statistic": statistic, "group": group, "layer": layer, "mean": value}
        for statistic, group, values in (
            ("speed", "y", [3.0, 1.0, 0.0, 0.0]),
            ("speed", "z", [1.0, 1.0, 1.0, 1.0]),
            ("effective_rank", "z", [4.0, 8.0, None, 2.0]),
        )
        for layer, value in enumerate(values)
    ]
    angles = [
        {"start": 2, "group": group, "layer": layer, "mean": value}
        for group, values in (("y", [0.2, 0.4, 0.1]), ("z", [0.2, 0.2, 0.3]))
        for layer, value in enumerate(values, 2)
    ]
    similarity = np.full((4, 4), 0.2) + 0.8 * np.eye(4)
    content = {
        "table": table, "readouts": ["y", "z"], "repair": {"starts": [0, 2], "angles": angles},
        "phases": segment(similarity, k=2).to_dict(),
    }  # fmt: skip
    found = vitrm.motion(content)
    assert found.path == {"y": 1.0, "z": 0.5}
    assert found.repaired == {"y": pytest.approx(0.5), "z": pytest.approx(1.5)}
    assert found.rank == (4.0, 8.0, 2.0)
    assert found.untrained == ()
    slower = [{**row, "mean": 1.0 if row["statistic"] == "speed" else row["mean"]} for row in table]
    twin = {
        "table": slower,
        "repair": {**content["repair"], "angles": [{**row, "mean": 0.1} for row in angles]},
    }
    beside = vitrm.motion({**content, "null": {"twins": [twin]}})
    assert beside._replace(untrained=()) == found
    assert [(one.path, one.repaired) for one in beside.untrained] == [({"y": 0.5, "z": 0.5}, {"y": 1.0, "z": 1.0})]
    numbers = vitrm.converge(vitrm.Results({}, {}, {"a": beside, "b": found}))["each"]
    assert numbers["a"]["untrained"] == [{"path": {"y": 0.5, "z": 0.5}}]
    assert "untrained" not in numbers["b"]


def test_runs_of_other_recipes_are_not_compared():
    runs = vitrm.load().runs
    runs["vit-small"]["options"]["recipe"]["epochs"] = 80
    with pytest.raises(UsageError, match=r"trained apart \(recipe.epochs: 40 before, 80 now\)"):
        vitrm.check_alike(runs)


def test_vitrm_benchmark_computes_what_the_write_up_computes(monkeypatch):
    monkeypatch.setattr(bench, "fastest", bench.timed)  # the first is enough
    config = ViTRMConfig(width=24, heads=3, hidden=32, depth=2)
    here = torch.device("cpu")
    most = bench.ceilings(here, rounds=1)
    way = bench.Way(here, 2, most)
    found = bench_vitrm.training(bench_vitrm.noise(32), config, 4, 0, way)
    seconds = 4 / found["images_per_second"]
    assert found["teraflops"] == pytest.approx(found["gflop_per_step"] / seconds / 1e3)
    assert found["share_of_the_ceiling"] == pytest.approx(found["teraflops"] / most["teraflops"]["float32"])
    assert most["teraflops"]["float32"] > 0
    assert found["relative_difference_of_losses"] < 1e-5
    assert found["speedup"] > 0
    assert 0 < found["share_of_augmentation"] < 1
    faster = bench_vitrm.latency(config, 1, way)
    assert faster["vitrm_over_vit_small"] > 0


def test_a_run_out_of_time_stops_at_a_checkpoint_but_the_last(tmp_path):
    late = time.monotonic() - 1
    with pytest.raises(OutOfTime):
        TimedCheckpoints(tmp_path, {}, late, last=2).save(1, 1, {"w": torch.zeros(1)}, {})
    TimedCheckpoints(tmp_path, {}, late, last=2).save(1, 2, {"w": torch.zeros(1)}, {})
    in_time = TimedCheckpoints(tmp_path, {}, late + 1000, last=2)
    in_time.save(1, 1, {"w": torch.zeros(1)}, {})
    assert len(in_time.paths()) == 2


def test_precision_agrees_with_itself_and_tells_what_differs(noise_folder):
    model, other = tiny_vit(), tiny_vit(seed=1)
    same, different = (
        precision.dynamics_agreement((model, one), str(noise_folder), 16, stream=Stream(workers=0))
        for one in (model, other)
    )
    assert all(row["difference"] == 0 for row in same)
    assert any(row["of_half_width"] > 1 for row in different if row["of_half_width"] is not None)
    ends = {(row["statistic"], row["group"]): row for row in different}
    assert ends["convergence", "cls"]["of_the_largest_mean"] == pytest.approx(
        ends["convergence", "cls"]["difference"], abs=1e-6
    )  # whose largest mean is 1, at the last state
    found = precision.similarity_agreement((model, model), str(noise_folder), 16, stream=Stream(workers=0))
    assert found["largest_difference"] == 0
    assert found["k_with_the_same_boundaries"] == [1, 2, 3, 4]


def test_a_kernel_is_counted_once():
    gpu, cpu = torch._C._autograd.DeviceType.CUDA, torch._C._autograd.DeviceType.CPU
    rows = [
        Namespace(device_type=device, is_user_annotation=annotation)
        for device, annotation in ((gpu, False), (gpu, True), (cpu, False))
    ]
    assert [bench.is_kernel(row) for row in rows] == [True, False, False]


def test_every_table_of_speed_says_how_it_is_repeated():
    """By `make bench`, or by a command beside the table."""
    bench = re.search(r"^bench:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    said = bench + (ROOT / "docs" / "guide" / "performance.md").read_text()
    commands = set(re.findall(r"-m analyses\.(\w+)", said))
    assert {"end_to_end" if name.startswith("end_to_end") else name for name in pages.BENCHMARKS} <= commands
