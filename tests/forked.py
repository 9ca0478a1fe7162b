"""Commands in fresh processes that need not import torch: forked from a server that has done so once.

What a command does with processes, signals, its group and its exit is as in a process of its own. What is tested of the
start itself (no torch before a mistake is told, torchrun) starts processes as users do, by `tests.cli.commands`.
"""

import multiprocessing
import os
import socket
import sys
import tempfile
import traceback
from pathlib import Path

from tests.cli.commands import ROOT, Done

SECONDS = 300
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.preloaded"])


def brdyn(arguments, *, processes=1, before=None, **environment):
    """Run a command in so many processes; what they left, joined.

    Parameters
    ----------
    arguments : sequence
    processes : int
        More than one find each other as torchrun's do.
    before : str, optional
        Python that runs in each of them first.
    **environment
        Variables.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = (
        {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if processes > 1 else {}
    )
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for rank in range(processes):
            own = {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": processes} if group else {}
            variables = {name: str(value) for name, value in {**environment, **group, **own}.items()}
            files = [Path(folder) / f"{name}{rank}" for name in ("out", "err")]
            task = (list(map(str, arguments)), variables, *map(str, files), before, os.getcwd())
            running.append((_context.Process(target=_run, args=task), files))
            running[-1][0].start()
        codes = [_wait(process, running) for process, _ in running]
        texts = ["".join(files[place].read_text() for _, files in running) for place in (0, 1)]
    return Done(max(codes, key=abs), *texts)


def _wait(process, running):
    """The exit code. Where one of several fails, the others are ended, as torchrun does."""
    process.join(SECONDS)
    if process.exitcode != 0:
        for other, _ in running:
            if other is not process:
                other.join(5)
                other.terminate()
    process.kill()
    process.join()
    return process.exitcode


def _run(arguments, variables, out, err, before, folder):
    for number, path in ((1, out), (2, err)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, number)
        os.close(handle)
    os.environ.update(variables, PYTHONPATH=str(ROOT))
    os.chdir(folder)
    sys.argv = ["brdyn", *arguments]
    try:
        if before is not None:
            exec(before, {})
        from brdyn.cli import main

        main()
    except Exception:
        traceback.print_exc()
        raise SystemExit(70) from None
