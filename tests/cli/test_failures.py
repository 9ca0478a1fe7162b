"""What nobody foresaw is one line too, and --debug shows the traceback; streams may be anything."""

import errno
import os
import subprocess
import sys

import pytest
import typer

import brdyn.runtime  # noqa: F401  (as any run has it by then)
from brdyn.cli import commands, failures, streams
from brdyn.cli.failures import explain
from brdyn.errors import BrdynError, UsageError
from tests import forked
from tests.cli.commands import ROOT, assert_one_line_error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UsageError("--k 3: no"), 2, "error: --k 3: no"),
        (BrdynError("no weights"), 1, "error: no weights"),
        (RuntimeError("odd\nsecond"), 1, "error: unforeseen RuntimeError: odd; --debug shows where"),
        (KeyError(), 1, "error: unforeseen KeyError: no message; --debug shows where"),
        (ValueError("<function f at 0x7f3a2b4c5d60>"), 1, "unforeseen ValueError: <function f>; --debug"),
        (RecursionError("maximum recursion depth exceeded"), 1, "unforeseen RecursionError: maximum"),
        (MemoryError(), 1, "error: out of memory; use a smaller --batch-size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "error: out of memory"),
        (OSError(errno.EMFILE, "Too many open files", "a.png"), 1, "too many open files 'a.png'; raise `ulimit -n`"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "no space left on device 'x'; make room"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "xx"), 2, "file name too long 'xx'; use a shorter one"),
        (OSError(errno.EIO, "Input/output error"), 1, "unforeseen OSError: [Errno 5] Input/output error"),
        (ModuleNotFoundError("No module named 'timm'"), 1, "the installation is not whole: No module named 'timm'"),
        (KeyboardInterrupt(), 130, "interrupted; no result was written"),
        (typer.Abort(), 130, "interrupted"),
    ],
)  # fmt: skip
def test_every_error_is_one_line(error, code, words, monkeypatch):
    monkeypatch.setattr(failures, "discard", lambda stream: None)
    found, said = explain(error, ["phases"])
    assert found == code
    assert words in said
    assert "\n" not in said


def test_only_training_is_told_to_go_on():
    assert "--resume" not in explain(KeyboardInterrupt(), ["phases", "--out", "x"])[1]
    assert "--resume goes on" in explain(KeyboardInterrupt(), ["vit-train"])[1]


@pytest.fixture
def failing(monkeypatch):
    """A command that nobody foresaw the failure of."""

    def fail(*_, **__):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(commands, "command_line", fail)


def test_debug_shows_the_traceback(run, failing, monkeypatch):
    assert_one_line_error(run("phases"), 1, "unforeseen ZeroDivisionError: division by zero; --debug shows where")
    for arguments in (["--debug", "phases"], ["phases", "--debug"]):
        done = run(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("Traceback (most recent call last)")
        assert done.stderr.splitlines()[-1].startswith("brdyn: error: unforeseen ZeroDivisionError")
    monkeypatch.setenv("BRDYN_DEBUG", "1")
    assert "Traceback" in run("phases").stderr
    monkeypatch.setenv("BRDYN_DEBUG", "0")
    assert "Traceback" not in run("phases").stderr


def shell(line, **environment):
    """What `brdyn` says at the end of a line of shell, where {} is `python -m brdyn`."""
    return subprocess.run(
        ["bash", "-c", line.format(f"{sys.executable} -m brdyn")], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, check=False,
    )  # fmt: skip


def test_a_broken_installation_is_one_line(tmp_path):
    (tmp_path / "typer.py").write_text("raise ImportError('libfoo.so.1: cannot open shared object file')")
    done = shell("{} phases", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert_one_line_error(done, 1, "the installation is not whole: libfoo.so.1", "install brdyn again")


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("{} phases --bogus >&-", 2, "No such option"),
        ("{} phases --bogus 2>&-", 2, ""),
        ("{} --help <&- >&- 2>&-", 0, ""),
        ("{} --help > /dev/full", 1, "no space left on device; make room"),
        ("set -o pipefail; {} --help | true", 1, ""),
        ("{} phases --batch-size ² 2> >(true)", 2, ""),
        ("COLUMNS=20 NO_COLOR=1 TERM=dumb {} --help > /dev/null", 0, ""),
    ],
)
def test_streams_that_are_closed_full_or_broken(line, code, words):
    done = shell(line)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, bool(words)), done.stderr
    assert words in done.stderr


def test_ascii_streams_get_stand_ins(tmp_path):
    done = shell(f"{{}} phases --images 'é…²' --out {tmp_path / 'out'}", PYTHONIOENCODING="ascii")
    assert_one_line_error(done, 2, r"no images at '\xe9...^2'")


def test_a_stream_that_is_closed_is_not_taken_by_the_next_file(tmp_path):
    """Else a print would go into the first file that is opened."""
    script = (
        "import os, sys; from brdyn.cli.streams import settle; settle(); "
        f"file = open({str(tmp_path / 'x')!r}, 'w'); print('lost'); sys.stdout.flush(); sys.exit(file.fileno())"
    )
    done = shell(f"{sys.executable} -c {script!r} <&- >&- 2>&-".replace("{", "{{").replace("}", "}}"))
    assert done.returncode > 2
    assert (tmp_path / "x").read_text() == ""


def test_write_error_outlives_its_reader(monkeypatch):
    class Gone:
        def write(self, _):
            raise BrokenPipeError

        def fileno(self):
            raise ValueError

    monkeypatch.setattr(sys, "stderr", Gone())
    streams.write_error("nobody reads this")


@pytest.mark.parametrize("where", ["brdyn.plots.draw", "brdyn.store.folder.render"])
def test_numbers_are_kept_where_pictures_cannot_be_drawn(tmp_path, where):
    module, _, name = where.rpartition(".")
    broken = f"import {module}\ndef broken(*_):\n    raise KeyError('summary')\n{module}.{name} = broken"
    run = ["--model", "cifar_vit12", "--images", "samples", "-n", 2, "--bootstrap", 0]
    done = forked.brdyn(["phases", *run, "--out", tmp_path / "out"], before=broken)
    words = "without pictures: drawing them failed with an unforeseen KeyError: 'summary'; `brdyn plot` tries again"
    assert_one_line_error(done, 1, f"the numbers are in '{tmp_path / 'out'}', {words}")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["phases.json"]
    assert forked.brdyn(["plot", tmp_path / "out"]).returncode == 0
    assert (tmp_path / "out" / "similarity.png").is_file()
