"""Files that are whole or not there: a kill at any moment, a full disk, two runs in one folder."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brdyn import store
from brdyn.errors import BrdynError, UsageError
from brdyn.store import OutputFolder, files, pictures, pretrained, unfinished
from tests.cli.commands import ROOT

OLD = {"model.safetensors": b"old weights", "config.json": b'{"weights": "old weights"}'}
NEW = {"model.safetensors": b"new weights", "config.json": b'{"weights": "new weights"}'}


class Dead(BaseException):
    """The process is gone."""


class Disk:
    """Lets so many changes through, and then none: not even those that clean up."""

    def __init__(self, monkeypatch, alive):
        self.done, self.alive = [], alive
        for name in ("replace", "unlink", "rmdir", "fsync", "open"):
            monkeypatch.setattr(os, name, self.watched(name, getattr(os, name)))
        monkeypatch.setattr(files, "open", self.watched("write", open), raising=False)

    def watched(self, name, call):
        def change(*arguments, **options):
            if name == "open" and not (arguments[1] & os.O_CREAT):
                return call(*arguments, **options)
            if len(self.done) >= self.alive:
                raise Dead
            self.done.append((name, os.path.basename(str(arguments[0]))))
            return call(*arguments, **options)

        return change


def save(folder, files, name, number, drawn):
    with OutputFolder(folder, overwrite=True) as out:
        out.save(name, {"number": number}, others={**files, **drawn})


def killed_after(alive, call):
    """Whether a call did not get to its end."""
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, alive)
        try:
            call()
        except Dead:
            return True
        finally:
            assert len(disk.done) <= alive
    return False


def test_a_kill_at_any_step_leaves_the_old_result_the_new_or_none(tmp_path):
    """Old and new of different pictures; whatever a JSON file speaks for is of the same run."""
    seen = set()
    for alive in range(100):
        folder = tmp_path / str(alive)
        save(folder, OLD, "fit.json", 1, {"fit.png": b"1", "old.svg": b"1"})
        (folder / "mine.png").write_bytes(b"mine")
        dead = killed_after(alive, lambda to=folder: save(to, NEW, "fit.json", 2, {"fit.png": b"2", "new.pdf": b"2"}))
        now = {path.name: path.read_bytes() for path in folder.iterdir()}
        number = json.loads(now["fit.json"])["number"] if "fit.json" in now else None
        seen.add(number)
        assert now["mine.png"] == b"mine"
        if number is not None:
            files = {1: OLD, 2: NEW}[number]
            own = {1: {"fit.png", "old.svg"}, 2: {"fit.png", "new.pdf"}}[number]
            assert {name: now[name] for name in files} == files
            assert {name: now[name] for name in own} == dict.fromkeys(own, str(number).encode())
            assert set(json.loads(now["fit.json"])["files"]) == {*own, *files, "fit.json"}
            assert {name for name in now if not name.startswith(".")} == {
                *own,
                *files,
                "fit.json",
                "mine.png",
            }
        if "config.json" in now:  # a model, whatever became of the result
            assert now["config.json"] == b'{"weights": "' + now["model.safetensors"] + b'"}'
        # The next run is not misled by anything; what had no word for it yet is not known to be of a run.
        save(folder, NEW, "fit.json", 3, {"last.png": b"3"})
        names = {path.name for path in folder.iterdir()} - ({"new.pdf"} if dead else set())
        assert names == {*NEW, "fit.json", "last.png", "mine.png"}
        if not dead:
            break
    assert seen == {1, None, 2}
    assert alive > 15


def test_a_kill_while_pictures_are_drawn_again_leaves_the_result(tmp_path, monkeypatch):
    """At every step: it is there, and what it names."""
    monkeypatch.setattr(pictures, "render", lambda figure, kind: figure)
    figures = {"fit": b"2", "new": b"2"}
    for alive in range(60):
        folder = tmp_path / str(alive)
        save(folder, {}, "fit.json", 1, {"fit.png": b"1"})
        dead = killed_after(alive, lambda to=folder: pictures.write_pictures(to, figures, ("png",), "fit.json"))
        content = json.loads((folder / "fit.json").read_bytes())
        assert content["number"] == 1
        assert all((folder / name).is_file() for name in content["files"])
        if not dead:
            break
    assert content["files"] == ["fit.json", "fit.png", "new.png"]
    assert (folder / "fit.png").read_bytes() == b"2"
    assert alive > 5


def test_a_kill_between_weights_and_config_leaves_no_model(tmp_path):
    from brdyn.store.pretrained import write

    for alive in range(60):
        folder = tmp_path / str(alive)
        write(folder, OLD)
        dead = killed_after(alive, lambda to=folder: write(to, NEW))
        if (folder / "config.json").exists():
            weights = (folder / "model.safetensors").read_bytes()
            assert (folder / "config.json").read_bytes() == b'{"weights": "' + weights + b'"}'
        if not dead:
            break
    assert weights == b"new weights"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """File through to the disk, then its name, then the folder; the JSON file after all of the rest."""
    calls = []
    (tmp_path / "a.json").write_text("{}")
    for name in ("fsync", "replace"):
        call = getattr(os, name)

        def note(*arguments, name=name, call=call):
            what = arguments[-1]
            if name == "fsync":
                what = os.readlink(f"/proc/self/fd/{what}")
            calls.append((name, os.path.basename(str(what)).split(".")[-1 if name == "replace" else 1 :][0]))
            return call(*arguments)

        monkeypatch.setattr(os, name, note)
    monkeypatch.setattr(files, "sync", lambda folder: calls.append(("sync", "folder")))
    store.replace_together(tmp_path, {"a.json": b"{}", "b.png": b""})
    assert calls == [
        ("fsync", "b"), ("fsync", "a"), ("replace", "replaced"), ("sync", "folder"), ("replace", "png"),
        ("sync", "folder"), ("replace", "json"), ("sync", "folder"),
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_result_and_nothing_else(tmp_path, monkeypatch, what):
    save(tmp_path, OLD, "fit.json", 1, {"fit.png": b"1"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if what == "write":

        class Full:
            def __init__(self, path, _):
                path.touch()

            def __enter__(self):
                return self

            def __exit__(self, *_):
                return None

            write = full

        monkeypatch.setattr(files, "open", Full, raising=False)
    else:
        monkeypatch.setattr(os, what, full)
    with pytest.raises(BrdynError, match=r"cannot write .*No space left on device\); make room there$"):
        save(tmp_path, NEW, "fit.json", 2, {"fit.png": b"2"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_only_files_of_the_old_result_go(tmp_path):
    """Its JSON file may have been made by anybody."""
    (tmp_path / "out").mkdir()
    for name in ("mine.txt", "out/mine.txt", "out/old.png", "out/mine.png"):
        (tmp_path / name).write_text("keep")
    listed = ["../mine.txt", "mine.txt", "old.png", "..", "", "x.json", str(tmp_path / "mine.txt")]
    (tmp_path / "out" / "x.json").write_text(json.dumps({"files": listed}))
    save(tmp_path / "out", {}, "x.json", 1, {})
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"mine.txt", "mine.png", "x.json"}
    assert (tmp_path / "mine.txt").exists()


HOLDS = (
    "import sys, os, time\n"
    "from brdyn.store import OutputFolder\n"
    "folder = OutputFolder(sys.argv[1])\n"
    "if not os.fork():\n"  # a loader process that outlives its parent, and says itself that it is there
    "    print(os.getpid(), flush=True)\n"
    "time.sleep(60)\n"
)


def test_a_folder_is_one_runs_until_it_ends_or_is_killed(tmp_path):
    out = tmp_path / "out"
    with OutputFolder(out), pytest.raises(UsageError, match="another run is writing to"):
        OutputFolder(out, overwrite=True)
    OutputFolder(out, overwrite=True)  # given up with the object, too
    with OutputFolder(out):
        pass
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(other.stdout.readline())
    try:
        with pytest.raises(UsageError, match="another run"):
            OutputFolder(out)
        other.kill()
        other.wait()
        os.kill(child, 0)  # still there
        with OutputFolder(out):
            pass
    finally:
        os.kill(child, 9)


def test_where_there_are_no_locks_runs_go_on(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with OutputFolder(tmp_path), OutputFolder(tmp_path):
        pass


def killed_run(folder, leaves=("tracker", "best")):
    """What a training run that was killed before its first checkpoint leaves."""
    OutputFolder(folder, overwrite=True).begin({"lr": 1}, leaves)
    for name in (
        "tracker/fit/events.out.tfevents.1", "best/config.json", "best/model.safetensors", ".t.json.a.unfinished",
        "checkpoints/.unfinished-1/state.json",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def test_a_folder_of_leftovers_is_taken_and_swept(tmp_path):
    killed_run(tmp_path / "out")
    with OutputFolder(tmp_path / "out"):
        assert list((tmp_path / "out").iterdir()) == []
    for more in ("mine.txt", "best/mine.txt", "tracker/fit/mine.txt", "checkpoints/mine.txt", "train.json"):
        folder = tmp_path / more.replace("/", "-")
        killed_run(folder)
        (folder / more).write_text("keep")
        with pytest.raises(UsageError, match="holds an unfinished run; `resume` goes on with it, `overwrite=True`"):
            OutputFolder(folder)
        assert (folder / "best" / "config.json").exists()
        with OutputFolder(folder, overwrite=True):
            pass
        assert (folder / more).read_text() == "keep"
        assert not list(folder.rglob("*unfinished-1*")) + list(folder.rglob("*.a.unfinished"))


def fail(folder, **how):
    """A run that ends soon after it has begun."""
    with OutputFolder(folder, **how) as out:
        out.begin({}, ["best"])
        raise BrdynError("later")


def test_a_checkpoint_is_no_leftover(tmp_path):
    state = tmp_path / "checkpoints" / "stage1-00000005" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    with pytest.raises(UsageError, match="holds an unfinished run; `resume`"):
        OutputFolder(tmp_path)
    with pytest.raises(BrdynError, match="later"):
        fail(tmp_path, go_on_with=["checkpoints"])
    assert state.exists()
    assert unfinished.is_there(tmp_path)


def test_a_folder_to_go_on_with_is_one_of_that_run(tmp_path):
    """Also where somebody has a folder of checkpoints, or one called as a cell of a grid."""
    go_on_with = ["checkpoints", "fit.json", "n1/train.json", "n1/checkpoints"]
    for name in ("thesis.txt", "checkpoints/empty/mine.pth", "n1/mine.txt", "n1/checkpoints/mine.pth"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("keep")
        with pytest.raises(UsageError, match="not empty"):
            OutputFolder(tmp_path, go_on_with=go_on_with)
    (tmp_path / "checkpoints" / "empty" / "mine.pth").unlink()
    (tmp_path / "n1" / "train.json").write_text("{}")
    OutputFolder(tmp_path, go_on_with=go_on_with)
    assert (tmp_path / "checkpoints" / "empty").is_dir()


def test_a_run_that_fails_leaves_nothing_of_itself(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "train.json").write_text("old")
    for place, left in (("new", None), ("old", {"train.json"})):
        with pytest.raises(BrdynError, match="later"):
            fail(tmp_path / place, overwrite=True)
        path = tmp_path / place
        assert ({one.name for one in path.iterdir()} if path.exists() else None) == left


def test_a_folder_that_is_anothers_is_refused(tmp_path):
    """Also what a killed run has set aside; its own, whole or begun, with a model or without, is taken."""
    for name in ("phases.json", ".phases.json.replaced"):
        folder = tmp_path / name.strip(".")
        folder.mkdir()
        (folder / name).write_text("{}")
        with pytest.raises(UsageError, match=r"holds the result of brdyn phases \(phases.json\)"):
            OutputFolder(folder, overwrite=True, result="fit.json")
        assert [path.name for path in folder.iterdir()] == [name]
        OutputFolder(folder, overwrite=True, result="phases.json")
    for name in ("fit.json", "unfinished.json", ".fit.json.replaced"):
        folder = tmp_path / f"own{name}"
        OutputFolder(folder, result="fit.json").begin({})
        (folder / "unfinished.json").rename(folder / name)
        (folder / "config.json").write_text("{}")
        OutputFolder(folder, overwrite=True, result="fit.json")
        (folder / name).unlink()
        with pytest.raises(UsageError, match=r"holds a model \(config.json\)"):
            OutputFolder(folder, overwrite=True, result="fit.json")
    begun = tmp_path / "begun"
    OutputFolder(begun, result="fit.json").begin({})
    with pytest.raises(UsageError, match="holds an unfinished run of brdyn raptor-fit"):
        OutputFolder(begun, overwrite=True, result="train.json")
    with pytest.raises(UsageError, match="brdyn raptor-fit"):
        OutputFolder(begun, go_on_with=["unfinished.json"], result="train.json")


def test_a_folder_that_may_not_be_entered_is_said(tmp_path, forbid):
    (tmp_path / "runs").mkdir()
    forbid(tmp_path / "runs")
    for place in (tmp_path / "runs", tmp_path / "runs" / "a"):
        for overwrite in (True, False):
            with pytest.raises(UsageError, match=r"may not look at '.*runs.*' \(permission denied\)"):
                OutputFolder(place, overwrite, result="phases.json")


def test_a_folder_at_home_is_written_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    pretrained.write("~/kept", {"config.json": b"{}"})
    assert (tmp_path / "kept" / "config.json").read_bytes() == b"{}"


def test_the_home_of_nobody_is_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert OutputFolder("~nosuchuser/x").path == Path("~nosuchuser/x")


@pytest.mark.parametrize("note", [b"{}", b"[]", b"3", b'{"columns": [{}], "index_columns": []}'])
def test_a_table_whose_notes_are_damaged_is_named(note, tmp_path):
    """What pandas keeps of the columns is JSON in the file, and its reader raises whatever it meets."""
    path = tmp_path / "dynamics.parquet"
    pq.write_table(pa.table({"layer": [1, 2]}).replace_schema_metadata({"pandas": note}), path)
    with pytest.raises(UsageError, match=r"cannot read '.*dynamics.parquet' as a table \("):
        store.read_table(path, "a table", ["layer"])


@pytest.mark.parametrize(("mean", "said"), [("x", "could not convert string to float"), ("0.5", None), (None, None)])
def test_a_mean_that_is_no_number_is_no_table(mean, said, tmp_path):
    path = tmp_path / "dynamics.parquet"
    pq.write_table(pa.table({"layer": [1], "mean": [mean]}), path)
    if said is None:
        assert store.read_table(path, "a table", ["layer", "mean"])["mean"].dtype == float
        return
    with pytest.raises(UsageError, match=rf"'.*dynamics.parquet' is not a table \({said}"):
        store.read_table(path, "a table", ["layer", "mean"])
