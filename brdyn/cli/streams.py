"""Standard output and error as they may be: closed, a broken pipe, a full disk, or unable to show `…`."""

from __future__ import annotations

import codecs
import os
import sys
from contextlib import suppress

ERRORS = "brdyn-plain"
PLAIN = {"…": "...", "–": "-", "²": "^2", "×": "x", "≤": "<=", "≥": ">="}


def settle() -> None:
    """Make both streams such that no character and no closed descriptor stops a run."""
    codecs.register_error(ERRORS, _plainly)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the next file that is opened would take its place, and be written to by prints
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as Python runs
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ERRORS)


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Stand-ins for what an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    shown = (PLAIN.get(one) or one.encode("ascii", "backslashreplace").decode() for one in characters)
    return "".join(shown), error.end


def finish() -> None:
    """Write what is still held back, while somebody can be told that it fails."""
    sys.stdout.flush()


def discard(stream: object) -> None:
    """Send the rest of a stream nowhere: what is held back would fail again when Python ends."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # type: ignore[attr-defined]


def write_error(text: str) -> None:
    """To standard error, if there is still somebody to read it."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)
