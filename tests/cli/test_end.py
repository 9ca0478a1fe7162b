"""The end of a process: at once, with its exit code and all that others have to do at the end done."""

import subprocess
import sys

import pytest

from tests.cli.commands import ROOT

TAKEN_APART = """
import atexit, os, sys
class Kept:
    def __del__(self):
        os.write(1, b"taken apart")
sys.modules["brdyn.kept"] = kept = type(sys)("brdyn.kept")
kept.one = Kept()
from brdyn import cli
def command():
    atexit.register(lambda: print("others have ended"))
    print("done", flush=True)
    sys.exit({code})
cli.main = command
cli.{end}()
"""


def said(code, end):
    """What a process prints, and its exit code."""
    script = TAKEN_APART.replace("{code}", str(code)).replace("{end}", end)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.splitlines(), done.returncode


@pytest.mark.parametrize("code", [0, 2, 130])
def test_a_process_ends_when_all_is_said(code):
    """Nothing is taken apart, which takes seconds where torch is imported."""
    assert said(code, "program") == (["done", "others have ended"], code)
    assert said(code, "main") == (["done", "others have ended", "taken apart"], code)  # as Python ends
