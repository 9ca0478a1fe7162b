"""The command line: a few lines over the public API, and one clear line for every error.

Nothing is imported here that an installation can lack, so that this holds for a broken one as well.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from contextlib import nullcontext

from brdyn.cli.failures import INTERRUPTED, explain, interrupted
from brdyn.cli.streams import finish, settle, write_error
from brdyn.interruption import Interrupted, listening
from brdyn.progress import telling

DEBUG = "--debug"


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
            from brdyn.cli.commands import app

            code = app(arguments, prog_name="brdyn", standalone_mode=False)
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
