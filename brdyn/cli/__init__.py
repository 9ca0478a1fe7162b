"""The command line: a few lines over the public API, and one clear line for every error.

Nothing is imported here that an installation can lack, so that this holds for a broken one as well.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings

from brdyn.cli.failures import INTERRUPTED, explain, interrupted
from brdyn.cli.streams import finish, settle, write_error

DEBUG = "--debug"


def main() -> None:
    """Run a command. Exit code 2 for a request that cannot be served, 1 for a run that failed, 130 if interrupted."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    settle()
    arguments = [argument for argument in sys.argv[1:] if argument != DEBUG]
    debug = len(arguments) < len(sys.argv) - 1 or os.environ.get("BRDYN_DEBUG", "0") not in ("", "0")
    if not (debug or sys.warnoptions):  # of libraries, about their insides
        warnings.simplefilter("ignore")
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
    message = ""
    try:
        from brdyn.cli.commands import app

        code = app(arguments, prog_name="brdyn", standalone_mode=False)
        finish()
        if code == INTERRUPTED:  # typer's, for Ctrl-C
            message = interrupted(arguments)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            write_error(traceback.format_exc())
        code, message = explain(error, arguments)
    if message:
        write_error(f"brdyn: {' '.join(message.split())}\n")
    sys.exit(code if isinstance(code, int) else 0)
