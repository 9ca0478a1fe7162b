"""A run that is told to end: one line, the right code, and nothing of it left anywhere."""

import json
import os
import signal
import time

import pytest

from brdyn.store import OutputFolder
from tests.forked import Started

SLOW = (
    "import time\n"
    "from brdyn.data import reader\n"
    "decode = reader.decode\n"
    "def slowly(data):\n"
    "    time.sleep(0.2)\n"
    "    return decode(data)\n"
    "reader.decode = slowly\n"
)


def start(arguments, tmp_path, script=SLOW):
    """A command with its own place for temporary files."""
    (tmp_path / "t").mkdir(exist_ok=True)
    return Started(arguments, script, TMPDIR=tmp_path / "t")


def wait_for(there, started):
    deadline = time.monotonic() + 240
    while not there():
        assert time.monotonic() < deadline
        assert started.process.is_alive(), started.said(2)
        time.sleep(0.05)


def workers_of(started):
    with open(f"/proc/{started.pid}/task/{started.pid}/children") as file:
        return file.read().split()


def end(started, send=lambda: None):
    """Its exit code and what it said of an error, after a signal."""
    send()
    done = started.done(240)
    return done.returncode, done.stderr.strip().splitlines()


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "to_all"),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGHUP, False), (signal.SIGINT, True)],
)
def test_a_run_is_told_to_end(tiny_options, tmp_path, number, to_all):
    """While loader processes read; told alone, or with all of them as by a terminal or a scheduler."""
    reading = ["phases", *tiny_options, "--workers", "2", "--batch-size", "4"]
    started = start(reading, tmp_path, SLOW.replace("0.2", "1"))  # it would read for 20 seconds
    wait_for(lambda: len(workers_of(started)) >= 2, started)
    time.sleep(1)
    children = workers_of(started)
    code, lines = end(started, lambda: (os.killpg if to_all else os.kill)(started.pid, number))
    assert code == 128 + number
    assert lines == ["brdyn: interrupted; no result was written"]
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "t").iterdir()) == []
    deadline = time.monotonic() + 20  # the processes that read end with theirs, not before it
    while [child for child in children if os.path.exists(f"/proc/{child}")]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")
def test_a_second_signal_ends_at_once(tiny_options, tmp_path):
    script = (
        "import time\n"
        "from brdyn.store import OutputFolder\n"
        "leave = OutputFolder.__exit__\n"
        "def slowly(*arguments):\n"
        f"    open({str(tmp_path / 'leaving')!r}, 'w').close()\n"
        "    time.sleep(60)\n"
        "OutputFolder.__exit__ = slowly\n"
    )
    started = start(["phases", *tiny_options], tmp_path, script + SLOW)
    wait_for((tmp_path / "out").exists, started)
    time.sleep(0.5)
    os.kill(started.pid, signal.SIGTERM)
    wait_for((tmp_path / "leaving").exists, started)
    before = time.monotonic()
    code, _ = end(started, lambda: os.kill(started.pid, signal.SIGTERM))
    assert time.monotonic() - before < 5
    assert code == -signal.SIGTERM


LAST_WRITE = (
    "import os, signal, sys\n"
    "from brdyn.cli import commands\n"
    "from brdyn.store import OutputFolder\n"
    "replace = os.replace\n"
    "def told(old, new):\n"
    "    if str(new).endswith('a.png'):\n"
    "        os.kill(os.getpid(), signal.SIGTERM)\n"
    "    return replace(old, new)\n"
    "os.replace = told\n"
    "def command(*_, **__):\n"
    "    with OutputFolder(sys.argv[1], overwrite=True) as folder:\n"
    "        folder.save('x.json', {'number': 2}, others={'a.png': b'2', 'b.png': b'2'})\n"
    "        print('heard too late')\n"
    "commands.command_line = command\n"
)


def test_a_signal_during_the_last_write_leaves_a_whole_result(tmp_path):
    """It is heard when the result is there, and said to be."""
    out = tmp_path / "out"
    with OutputFolder(out) as folder:
        folder.save("x.json", {"number": 1}, others={"a.png": b"1", "old.png": b"1"})
    started = start([out], tmp_path, LAST_WRITE)
    code, lines = end(started)
    assert code == 143
    assert lines == [f"brdyn: interrupted; the result in {str(out)!r} is whole"]
    assert json.loads((out / "x.json").read_text()) == {"number": 2, "files": ["a.png", "b.png", "x.json"]}
    assert {path.name for path in out.iterdir()} == {"a.png", "b.png", "x.json"}
    assert (out / "a.png").read_bytes() == b"2"


def test_a_training_run_that_is_told_to_end_goes_on(tiny_options, tmp_path):
    fit = [
        "raptor-fit", *tiny_options, "--image-size", "32", "--boundaries", "5", "--steps", "400", "--batch-size", "8",
        "--checkpoint-every", "1",
    ]  # fmt: skip
    started = start(fit, tmp_path, SLOW.replace("0.2", "0"))
    checkpoints = tmp_path / "out" / "checkpoints"
    wait_for(lambda: list(checkpoints.glob("stage1-*")), started)
    code, lines = end(started, lambda: os.kill(started.pid, signal.SIGTERM))
    assert code == 143
    assert len(lines) == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"checkpoints", "unfinished.json"}
    assert not list(checkpoints.glob(".unfinished-*"))
    assert list(checkpoints.glob("stage1-*/state.json"))
