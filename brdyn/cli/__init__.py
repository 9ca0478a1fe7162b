"""The command line: a few lines over the public API, and one clear line for every error.

Nothing is imported here that an installation can lack, so that this holds for a broken one as well.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import traceback
import warnings
from contextlib import nullcontext, suppress

from brdyn.cli.failures import INTERRUPTED, explain, interrupted
from brdyn.cli.streams import finish, settle, write_error
from brdyn.interruption import Interrupted, listening
from brdyn.progress import telling

DEBUG = "--debug"


def program() -> None:
    """Run a command as a process of its own, which ends as soon as everything is written.

    To take torch and its like apart at the end of Python would take seconds, for nothing.
    """
    code: list[object] = [1]
    atexit.register(_leave, code)  # first: it runs when all others have run, and threads have ended
    try:
        main()
    except SystemExit as end:
        code[0] = end.code
        raise


def _leave(code: list[object]) -> None:
    """End at once, with the exit code."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code[0] if isinstance(code[0], int) else 0)


def main() -> None:
    """Run a command.

    Exit code 2 for a request that cannot be served, 1 for a run that failed, 128 and the signal's number for one that
    a signal ended.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    settle()
    arguments = [argument for argument in sys.argv[1:] if argument != DEBUG]
    debug = len(arguments) < len(sys.argv) - 1 or os.environ.get("BRDYN_DEBUG", "0") not in ("", "0")
    if not (debug or sys.warnoptions):  # of libraries, about their insides
        warnings.simplefilter("ignore")
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
    message = ""
    writes = os.environ.get("RANK", "0") == "0"  # other processes may end at once
    try:
        with listening() if writes else nullcontext(), telling() if writes else nullcontext():
            from brdyn.cli.commands import command_line

            code = command_line(arguments, prog_name="brdyn", standalone_mode=False)
        finish()
        if code == INTERRUPTED:  # some versions of click give a Ctrl-C back so
            message = interrupted(KeyboardInterrupt(), arguments)
    except (Exception, KeyboardInterrupt, Interrupted) as error:
        if debug:
            write_error(traceback.format_exc())
        code, message = explain(error, arguments)
    if message:
        write_error(f"brdyn: {' '.join(message.split())}\n")
    sys.exit(code if isinstance(code, int) else 0)
