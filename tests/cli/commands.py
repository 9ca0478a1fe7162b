"""Running a command, and what its errors look like."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


PROGRESS = re.compile(r"\[(\d+:)?\d+:\d\d\] ")


class Done(NamedTuple):
    """What a finished command left; `stderr` without what it told of its progress."""

    returncode: int
    stdout: str
    stderr: str
    progress: tuple[str, ...] = ()

    @classmethod
    def of(cls, returncode, stdout, stderr):
        """With progress told apart."""
        lines = stderr.splitlines(keepends=True)
        told = tuple(PROGRESS.sub("", line, count=1).rstrip() for line in lines if PROGRESS.match(line))
        return cls(returncode, stdout, "".join(line for line in lines if not PROGRESS.match(line)), told)


def assert_one_line_error(done, code, *words):
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("brdyn: error: ")
    for word in words:
        assert word in lines[0]
