"""Everything in brdyn that wants a GPU, as one queue: the next jobs in the order of their worth.

    python -m analyses.gpu --minutes 14 --data data --out run1
    python -m analyses.gpu --minutes 7.5 --data data --state run1 --out run2

Nothing is begun that does not fit into what is left of the minutes; what was done lies in `--out` after every job. A
run that was cut off goes on when it is asked for again.
`python -m analyses.gpu.collect run1 run2` takes it home. The jobs are in analyses/gpu/README.md.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from analyses.gpu.jobs import JOBS
from analyses.gpu.queue import OFFLINE_ALONE, SERVER, TABLE, Queue
from analyses.recording import RESULTS, Choice, command, plain_parser

MINUTES = 7.5


def run(choice: Choice) -> None:
    """Exit code 0 whether or not there is more to do, 1 if something failed."""
    for name in ("data", "state", "out", "home"):
        if getattr(choice, name) is not None:
            setattr(choice, name, getattr(choice, name).absolute())
    queue = Queue(JOBS, choice, choice.home, time.monotonic() + 60 * choice.minutes)
    queue.take_up()
    os.environ |= {**OFFLINE_ALONE, **os.environ}
    SERVER.set_forkserver_preload(sorted({f"analyses.{job.study}" for job in queue.asked()}))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        queue.run()
    except KeyboardInterrupt:
        queue.failed.append("cut off; the same command goes on")
    finally:  # what is done, and begun, is left all the same
        queue.leave()
    print((choice.out / TABLE).read_text(), end="", flush=True)
    sys.exit(1 if queue.failed else 0)


OPTIONS = plain_parser(__doc__)
OPTIONS.add_argument("--data", type=Path, required=True, help="folder with the data files")
OPTIONS.add_argument("--state", type=Path, help="folder with what an earlier run left")
OPTIONS.add_argument("--out", type=Path, required=True, help="folder for results, state and table")
OPTIONS.add_argument("--home", type=Path, default=RESULTS, help="where studies keep their results")
OPTIONS.add_argument("--minutes", type=float, default=MINUTES, help="begin nothing new after so long")
OPTIONS.add_argument("--device", default="cuda", help="cuda or cpu")
OPTIONS.add_argument("--jobs", help="these alone, in this order: bench_raptor,vitrm")
OPTIONS.add_argument("--epochs", type=float, help="of ViTRM and what is beside it (default: 50, or what fits)")
OPTIONS.add_argument("--tiny", action="store_true", help="a dry run: everything, as small as it goes")
main = command(run, OPTIONS, __name__)
