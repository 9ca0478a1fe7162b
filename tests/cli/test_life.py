"""The life of a training run: begun, stopped, gone on with, overwritten; what is on the disk at every turn."""

import errno
import json
import os
import shutil
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from brdyn.training import Checkpoints
from tests.cli.commands import assert_one_line_error

pytestmark = pytest.mark.usefixtures("undrawn")
SMALL = ["--width", "8", "--heads", "1", "--hidden", "8", "--depth", "1", "--image-size", "8"]


@pytest.fixture
def fit(narrow_folder, noise_folder, tmp_path):
    return [
        "raptor-fit", "--model", narrow_folder, "--images", noise_folder, "--workers", "0", "--out", tmp_path / "out",
        "--boundaries", "5", "--steps", "4", "--batch-size", "8",
        "--validation-images", "8", "--checkpoint-every", "1", "--log-every", "1", "--validate-every", "2",
    ]  # fmt: skip


@pytest.fixture
def vit(labelled, tmp_path):
    return [
        "vit-train", "--data", labelled, "--test", labelled, "--epochs", "2", "--batch-size", "10",
        "--checkpoint-every", "1", "--keep", "0,best", "--workers", "0", *SMALL, "--out", tmp_path / "out",
    ]  # fmt: skip


@pytest.fixture
def stop(monkeypatch):
    """Stop a run in its n-th checkpoint, before or after it is written; 0: never."""
    save = Checkpoints.save

    def at(number, before=False):
        left = [number]

        def stopping(self, *arguments):
            left[0] -= 1
            if left[0] == 0 and before:
                raise KeyboardInterrupt
            save(self, *arguments)
            if left[0] == 0:
                raise KeyboardInterrupt

        monkeypatch.setattr(Checkpoints, "save", stopping)

    return at


def read(folder, name):
    return json.loads((folder / name).read_text())


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("extra", [[], ["--cache", "cache"], ["--validation-images", "0", "--k", "2"]])
def test_a_resumed_fit_counts_the_whole(run, fit, stop, tmp_path, monkeypatch, extra, noise_folder):
    """What was read, its digest and what could not be read are those of a run that was never stopped."""
    monkeypatch.chdir(tmp_path)
    (noise_folder / "03.png").write_bytes(b"broken")
    if "--k" in extra:
        fit = [word for word in fit if word not in ("--boundaries", "5")]
    fit = [*fit, *extra]
    assert run(*fit, "--out", tmp_path / "whole").returncode == 0
    for after in (1, 3):
        out = tmp_path / f"stopped{after}"
        stop(after)
        assert run(*fit, "--out", out).returncode == 130
        stop(0)
        before = time.perf_counter()
        done = run(*fit, "--out", out, "--resume")
        last = time.perf_counter() - before
        assert done.returncode == 0, done.stderr
        whole, stopped = (read(folder, "fit.json") for folder in (tmp_path / "whole", out))
        assert stopped["provenance"]["images"] == whole["provenance"]["images"]
        assert stopped["provenance"]["seconds"] > 0
        assert [name["name"] for name in stopped["skipped"]] == ["03.png"]
        steps = 4
        unread = steps * 8 - whole["provenance"]["images"]["read"]
        assert 0 <= unread <= steps
        assert stopped["provenance"]["images"]["digest"] != "0" * 64
        assert names(out) == {"config.json", "model.safetensors", "fit.json", "fit.png"}
        seconds = sum(stage["seconds"] for stage in stopped["stages"].values())
        assert f"images in {seconds:.1f} s" in done.stdout
        assert stopped["provenance"]["seconds"] != pytest.approx(last, rel=1e-3)


def test_the_seconds_of_earlier_sessions_are_counted(run, fit, stop, tmp_path):
    stop(2)
    assert run(*fit).returncode == 130
    state = tmp_path / "out" / "checkpoints" / "stage1-00000002" / "state.json"
    content = json.loads(state.read_text())
    assert 0 < content["state"]["seconds"] < content["elapsed"]
    state.write_text(json.dumps({**content, "elapsed": 10_000.0}))
    stop(0)
    assert run(*fit, "--resume").returncode == 0
    assert 10_000 < read(tmp_path / "out", "fit.json")["provenance"]["seconds"] < 11_000


def test_a_resumed_vit_counts_the_whole(run, vit, stop, tmp_path, monkeypatch):
    assert run(*vit, "--out", tmp_path / "whole").returncode == 0
    stop(3)
    assert run(*vit).returncode == 130
    state = tmp_path / "out" / "checkpoints" / "stage1-00000003" / "state.json"
    content = json.loads(state.read_text())
    content["state"]["seconds"] += 1000
    state.write_text(json.dumps(content))
    stop(0)
    from brdyn.classifiers import training

    accuracy = training.accuracy

    def slow(*arguments):
        time.sleep(3)
        return accuracy(*arguments)

    monkeypatch.setattr(training, "accuracy", slow)
    assert run(*vit, "--resume").returncode == 0
    whole, stopped = (read(tmp_path / name, "train.json") for name in ("whole", "out"))
    for key in ("options", "kept", "accuracy", "skipped"):
        assert whole[key] == stopped[key]
    assert stopped["history"]["images"] == whole["history"]["images"] == 2 * 36 // 10 * 10
    assert stopped["history"]["seconds"] > 1000
    assert stopped["seconds"] == round(stopped["history"]["seconds"], 1)
    assert whole["seconds"] < stopped["seconds"] - 1000 + 3


def change_one(folder, labelled):
    Image.new("RGB", (40, 36), "red").save(folder / "07.png")


def one_more(folder, labelled):
    shutil.copy(folder / "07.png", folder / "99.png")


def other_label(folder, labelled):
    table = pq.read_table(labelled).to_pydict()
    table["label"][0] = 1
    pq.write_table(pa.table(table), labelled)


def other_picture(folder, labelled):
    table = pq.read_table(labelled).to_pydict()
    table["image"][0] = table["image"][1]
    pq.write_table(pa.table(table), labelled)


@pytest.mark.parametrize(
    ("command", "change", "words"),
    [
        ("fit", change_one, ["images.digest: "]),
        ("fit", one_more, ["images.chosen: 40 before, 41 now", "images.digest: "]),
        ("vit", other_label, ["data.labels: "]),
        ("vit", other_picture, ["data.digest: "]),
    ],
)
def test_images_that_have_changed_are_not_gone_on_with(
    run, request, stop, tmp_path, noise_folder, labelled, command, change, words
):
    options = request.getfixturevalue(command)
    stop(1)
    assert run(*options).returncode == 130
    before = names(tmp_path / "out" / "checkpoints")
    change(noise_folder, labelled)
    stop(0)
    assert_one_line_error(run(*options, "--resume"), 2, "is of a run with other options", *words)
    assert names(tmp_path / "out" / "checkpoints") == before


def test_images_may_lie_elsewhere(run, fit, vit, stop, tmp_path, noise_folder, labelled):
    """On another machine, say: neither folders nor times are what images are."""
    for options, old, name in ((fit, noise_folder, "images"), (vit, labelled, "data")):
        stop(1)
        assert run(*options, "--out", tmp_path / name).returncode == 130
        stop(0)
        moved = tmp_path / "elsewhere" / old.name
        (shutil.copytree if old.is_dir() else shutil.copyfile)(old, moved)
        for path in [*moved.rglob("*"), moved]:
            os.utime(path, (1, 1))
        there = [moved if option == old else option for option in options]
        done = run(*there, "--out", tmp_path / name, "--resume")
        assert done.returncode == 0, done.stderr
        assert "resuming from stage1-00000001" in done.stdout


@pytest.mark.parametrize("command", ["fit", "vit"])
def test_checkpoints_of_an_earlier_version_are_gone_on_with(run, request, stop, tmp_path, command):
    """They did not note what the images are: that is said."""
    options = request.getfixturevalue(command)
    stop(1)
    assert run(*options).returncode == 130
    stop(0)
    state = tmp_path / "out" / "checkpoints" / "stage1-00000001" / "state.json"
    content = json.loads(state.read_text())
    for images in (content["options"].get(name) for name in ("images", "data", "test")):
        for name in ("digest", "indices", "labels", "in_source"):
            if images:
                images.pop(name, None)
    del content["elapsed"], content["state"]["read"]
    state.write_text(json.dumps(content))
    (tmp_path / "out" / "unfinished.json").unlink()
    done = run(*options, "--resume")
    assert done.returncode == 0, done.stderr
    assert "the checkpoint is of an earlier version" in done.stdout
    assert "is not checked" in done.stdout


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("command", ["fit", "vit"])
def test_a_run_killed_before_its_first_checkpoint_begins_again(
    run, request, stop, tmp_path, command, resume, monkeypatch
):
    from brdyn.store import OutputFolder

    options = request.getfixturevalue(command)
    stop(1, before=True)
    with monkeypatch.context() as patch:  # nothing is cleaned up by who is killed
        patch.setattr(OutputFolder, "__exit__", lambda self, *_: self._unlock())
        assert run(*options, "--tracker", "tensorboard").returncode == 130
    assert "unfinished.json" in names(tmp_path / "out")
    stop(0)
    done = run(*options, *(["--resume"] if resume else []))
    assert done.returncode == 0, done.stderr
    result = "fit" if command == "fit" else "train"
    kept = set() if command == "fit" else {"epoch0", "best"}
    assert names(tmp_path / "out") == {
        "config.json",
        "model.safetensors",
        f"{result}.json",
        f"{result}.png",
        *kept,
    }
    assert ("the run begins" in done.stdout) == resume


@pytest.mark.parametrize("command", ["fit", "vit"])
def test_checkpoints_of_somebodys_own_stay(run, request, tmp_path, command):
    """They are nothing to go on with, and no training takes them away."""
    mine = tmp_path / "out" / "checkpoints" / "mine.pth"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    options = request.getfixturevalue(command)
    assert_one_line_error(run(*options, "--resume"), 2, "is not empty")
    done = run(*options, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert names(mine.parent) == {"mine.pth"}
    assert mine.read_text() == "precious"


def test_an_unfinished_run_is_neither_taken_nor_lost(run, fit, stop, tmp_path):
    stop(2)
    assert run(*fit).returncode == 130
    stop(0)
    before = names(tmp_path / "out")
    assert before == {"checkpoints", "unfinished.json"}
    assert_one_line_error(run(*fit), 2, "holds an unfinished run; --resume goes on with it, --overwrite begins anew")
    assert names(tmp_path / "out") == before


def test_a_run_begun_over_a_finished_one_and_killed_early(run, fit, stop, tmp_path, monkeypatch):
    """The old result stays until the new one is there; --resume means the new run."""
    from brdyn.store import OutputFolder

    assert run(*fit).returncode == 0
    old = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    other = [*fit, "--seed", "5"]
    stop(1, before=True)
    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "__exit__", lambda self, *_: self._unlock())
        assert run(*other, "--overwrite").returncode == 130
    for name, data in old.items():
        assert (tmp_path / "out" / name).read_bytes() == data
    stop(0)
    done = run(*other, "--resume")
    assert done.returncode == 0, done.stderr
    assert "killed before its first checkpoint; it begins again" in done.stdout
    assert read(tmp_path / "out", "fit.json")["options"]["recipe"]["seed"] == 5
    assert_one_line_error(run(*other, "--resume"), 2, "is finished")


def test_pictures_and_formats_of_the_old_run_go(run, fit, vit, tmp_path):
    for options, title in ((fit, "fit"), (vit, "train")):
        out = ["--out", tmp_path / title]
        assert run(*options, *out).returncode == 0
        (tmp_path / title / "mine.png").write_bytes(b"mine")
        assert run(*options, *out, "--overwrite", "--format", "svg").returncode == 0
        found = {
            name for name in names(tmp_path / title) if "." in name and not name.endswith((".json", ".safetensors"))
        }
        assert found == {"mine.png", f"{title}.svg"}


def test_a_new_vit_takes_the_old_result_away_before_its_own_kept(run, vit, stop, tmp_path):
    """No train.json of one run beside classifiers kept by another."""
    assert run(*vit).returncode == 0
    stop(1)
    assert run(*vit, "--overwrite", "--seed", "3").returncode == 130
    assert names(tmp_path / "out") == {"checkpoints", "unfinished.json", "epoch0", "best"}
    stop(0)
    assert run(*vit, "--resume", "--seed", "3").returncode == 0
    content = read(tmp_path / "out", "train.json")
    for kept in ("epoch0", "best", "."):
        assert read(tmp_path / "out" / kept, "config.json")["trained"] == content["options"]


@pytest.mark.parametrize("where", ["state.safetensors", "fit.json", "fit.png", "states-00000.safetensors"])
def test_a_full_disk_is_one_line_and_nothing_half_there(run, fit, tmp_path, monkeypatch, where):
    fsync, replaced = os.fsync, []

    def full(handle):
        if where in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replaced.append(handle)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    done = run(*fit, "--cache", tmp_path / "cache")
    assert_one_line_error(done, 1, "cannot write", "No space left on device")
    left = [path.name for path in tmp_path.rglob("*") if "unfinished" in path.name]
    assert left == (["unfinished.json"] if where.startswith("fit") else [])  # checkpoints are there
    monkeypatch.setattr(os, "fsync", fsync)
    again = run(*fit, "--cache", tmp_path / "cache", "--resume")
    assert again.returncode == 0, again.stderr
    assert names(tmp_path / "out") == {"config.json", "model.safetensors", "fit.json", "fit.png"}


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--k", "2"], "--boundaries already fixes the phases; drop --k"),
        (
            ["--partition", "random-contiguous"],
            "--boundaries already fixes the phases; drop --partition random-contiguous",
        ),
        (["--k", "2", "--phases", "x.json"], "drop --phases and --k"),
    ],
)
def test_only_what_was_given_is_to_be_dropped(run, fit, extra, words):
    done = run(*fit, *extra)
    assert_one_line_error(done, 2, words)
    assert done.stderr.strip().endswith(words)


def test_few_images(run, fit, vit, tmp_path):
    """A batch by default is no larger than the images; none are held out of less than ten, and stage 2 needs none."""
    bare = [word for word in fit if word not in ("--batch-size", "8", "--validation-images")]
    done = run(*bare, "-n", "9")
    assert done.returncode == 0, done.stderr
    assert "batch size reduced to 9, the number of training images" in done.stdout
    content = read(tmp_path / "out", "fit.json")
    assert content["options"]["recipe"]["batch_size"] == 9
    assert content["images_seen"] == content["provenance"]["images"]["read"] == 36
    assert content["stages"]["2"]["validation"] == []
    alone = [word for word in vit if word not in ("--batch-size", "10")]
    done = run(*alone, "--out", tmp_path / "vit")
    assert done.returncode == 0, done.stderr
    assert "batch size reduced to 36" in done.stdout
    assert read(tmp_path / "vit", "train.json")["options"]["recipe"]["batch_size"] == 36


def test_what_cannot_be_is_said_before_the_cache_is_filled(run, fit, tmp_path):
    for extra in (["--batch-size", "33"], ["--validation-images", "40"]):
        assert run(*fit, *extra, "--cache", tmp_path / "cache").returncode == 2
        assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "out").exists()
