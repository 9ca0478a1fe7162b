"""A run that is told to end: one line, the right code, and nothing of it left anywhere."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from brdyn.store import OutputFolder
from tests.cli.commands import ROOT

SLOW = (
    "import sys, time\n"
    "from brdyn.data import image_set\n"
    "decode = image_set.decode\n"
    "def slowly(data):\n"
    "    time.sleep(0.2)\n"
    "    return decode(data)\n"
    "image_set.decode = slowly\n"
    "from brdyn.cli import main\n"
    "main()\n"
)


def start(arguments, tmp_path, script=SLOW, launcher=()):
    """A command in a process group of its own, with its own place for temporary files."""
    (tmp_path / "t").mkdir(exist_ok=True)
    (tmp_path / "slow.py").write_text(script)
    return subprocess.Popen(
        [sys.executable, *launcher, str(tmp_path / "slow.py"), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "t"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(there, process):
    deadline = time.monotonic() + 240
    while not there():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


def workers_of(process):
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        return file.read().split()


def end(process, send):
    send()
    try:
        _, stderr = process.communicate(timeout=240)
    finally:
        process.kill()
    return stderr.strip().splitlines()


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "to_all"),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGHUP, False), (signal.SIGINT, True)],
)
def test_a_run_is_told_to_end(tiny_options, tmp_path, number, to_all):
    """While loader processes read; told alone, or with all of them as by a terminal or a scheduler."""
    process = start(["phases", *tiny_options, "--workers", "2", "--batch-size", "4"], tmp_path)
    wait_for(lambda: len(workers_of(process)) >= 2, process)
    time.sleep(1)
    children = workers_of(process)
    lines = end(process, lambda: (os.killpg if to_all else os.kill)(process.pid, number))
    assert process.returncode == 128 + number
    assert lines == ["brdyn: interrupted; no result was written"]
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "t").iterdir()) == []
    assert not [child for child in children if os.path.exists(f"/proc/{child}")]


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")
def test_a_second_signal_ends_at_once(tiny_options, tmp_path):
    script = (
        "import time\n"
        "from brdyn.store import OutputFolder\n"
        "leave = OutputFolder.__exit__\n"
        "def slowly(*arguments):\n"
        "    open(__file__ + '.leaving', 'w').close()\n"
        "    time.sleep(60)\n"
        "OutputFolder.__exit__ = slowly\n"
    )
    process = start(["phases", *tiny_options], tmp_path, script + SLOW)
    wait_for((tmp_path / "out").exists, process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    wait_for((tmp_path / "slow.py.leaving").exists, process)
    started = time.monotonic()
    end(process, lambda: process.send_signal(signal.SIGTERM))
    assert time.monotonic() - started < 5
    assert process.returncode == -signal.SIGTERM


LAST_WRITE = (
    "import os, signal, sys\n"
    "from brdyn.cli import commands, main\n"
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
    "commands.app = command\n"
    "main()\n"
)


def test_a_signal_during_the_last_write_leaves_a_whole_result(tmp_path):
    """It is heard when the result is there, and said to be."""
    out = tmp_path / "out"
    with OutputFolder(out) as folder:
        folder.save("x.json", {"number": 1}, others={"a.png": b"1", "old.png": b"1"})
    process = start([out], tmp_path, LAST_WRITE)
    lines = end(process, lambda: None)
    assert process.returncode == 143
    assert lines == [f"brdyn: interrupted; the result in {str(out)!r} is whole"]
    assert json.loads((out / "x.json").read_text()) == {"number": 2, "files": ["a.png", "b.png", "x.json"]}
    assert {path.name for path in out.iterdir()} == {"a.png", "b.png", "x.json"}
    assert (out / "a.png").read_bytes() == b"2"


def test_a_training_run_that_is_told_to_end_goes_on(tiny_options, tmp_path):
    fit = [
        "raptor-fit", *tiny_options, "--image-size", "32", "--boundaries", "5", "--steps", "400", "--batch-size", "8",
        "--checkpoint-every", "1",
    ]  # fmt: skip
    process = start(fit, tmp_path, SLOW.replace("0.2", "0"))
    checkpoints = tmp_path / "out" / "checkpoints"
    wait_for(lambda: list(checkpoints.glob("stage1-*")), process)
    lines = end(process, lambda: process.send_signal(signal.SIGTERM))
    assert process.returncode == 143
    assert len(lines) == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"checkpoints", "unfinished.json"}
    assert not list(checkpoints.glob(".unfinished-*"))
    assert list(checkpoints.glob("stage1-*/state.json"))
