"""What to say of an error, and the exit code: of brdyn's own, of the options, and of what nobody foresaw."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from brdyn.cli.streams import discard
from brdyn.errors import BrdynError, exit_code
from brdyn.interruption import Interrupted, heard
from brdyn.words import as_typed, first_line, shortened

INTERRUPTED = 128 + signal.SIGINT
RESUMABLE = ("raptor-fit", "vit-train", "vitrm-train")
SHOWS = "--debug shows where"
OUT_OF_MEMORY = "out of memory; use a smaller --batch-size, fewer --workers or fewer images"
REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EMFILE: "raise `ulimit -n`, or use --workers 0",
    errno.ENFILE: "close other programs, or use --workers 0",
    errno.EROFS: "choose another --out",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.ENAMETOOLONG: "use a shorter one",
    errno.ENOMEM: "use a smaller --batch-size, fewer --workers or fewer images",
}


def explain(error: BaseException, arguments: Sequence[str]) -> tuple[int, str]:
    """The exit code, and a line for the user; no line where there is nobody to read it."""
    stopped = isinstance(error, KeyboardInterrupt | Interrupted) or type(error).__name__ == "Abort"
    if stopped or heard() is not None:  # or what a process that was told to end as well has made of it
        return 128 + (heard() or signal.SIGINT), interrupted(error, arguments)
    if isinstance(error, BrdynError):
        return exit_code(error), f"error: {as_typed(str(error))}"
    if isinstance(error, BrokenPipeError):
        discard(sys.stdout)
        return 1, ""
    if hasattr(error, "format_message"):  # one of click's own, which its versions keep elsewhere
        return _of_options(error, arguments)
    code = 2 if getattr(error, "errno", None) == errno.ENAMETOOLONG else 1  # somebody typed it
    return (
        code,
        f"error: {_of_system(error) or f'unforeseen {type(error).__name__}: {_said(error)}; {SHOWS}'}",
    )


def interrupted(error: BaseException, arguments: Sequence[str]) -> str:
    """What a user who stopped a command should know: an error's notes say what became of the result."""
    notes = getattr(error, "__notes__", [])
    if notes:
        return f"interrupted; {notes[0]}"
    going_on = "; the same command with --resume goes on" if set(arguments[:1]) & set(RESUMABLE) else ""
    return f"interrupted; no result was written{going_on}"


def _of_options(error: Any, arguments: Sequence[str]) -> tuple[int, str]:
    """Options that cannot be read, or none at all: then the help is shown instead of a line."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())
        return 0, ""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "brdyn"
    parameter = getattr(error, "param", None)
    of_file = getattr(context, "default_map", None) or {}
    given = of_file.get(getattr(parameter, "name", None))
    typed = _typed(getattr(parameter, "opts", ()), arguments) or _in_file(given)
    said = error.format_message().rstrip(".")
    return error.exit_code, f"error: {said}{typed}; see `{command} --help`"


def _in_file(given: Any) -> str:
    """What --config gave to an option."""
    return "" if given is None else f" (--config has {shortened(str(given), 60)!r})"


def _typed(names: Sequence[str], arguments: Sequence[str]) -> str:
    """What was given to an option, which its error does not always say."""
    pairs = [argument.partition("=")[::2] for argument in arguments if argument.startswith("--") and "=" in argument]
    given = [value for name, value in [*pairwise(arguments), *pairs] if name in names]
    return f" (it is {shortened(given[-1], 60)!r})" if given else ""


def _of_system(error: BaseException) -> str:
    """The machine or the installation lacks something; empty where it is neither."""
    if isinstance(error, ImportError):
        return f"the installation is not whole: {_said(error)}; install brdyn again ({SHOWS})"
    runtime = sys.modules.get("brdyn.runtime")  # loads torch, which an error this early may have none of
    if isinstance(error, MemoryError) or (runtime is not None and runtime.is_out_of_memory(error)):
        return f"{OUT_OF_MEMORY} ({SHOWS})"
    if isinstance(error, OSError) and error.errno in REMEDIES:
        if error.filename is None:
            discard(sys.stdout)  # where it may have been
        place = f" {shortened(str(error.filename))!r}" if error.filename is not None else ""
        return f"{(error.strerror or str(error)).lower()}{place}; {REMEDIES[error.errno]} ({SHOWS})"
    return ""


def _said(error: BaseException) -> str:
    return first_line(error) if str(error).strip() else "no message"
