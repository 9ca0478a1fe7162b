"""Fresh processes that need not import torch: forked from a server that has done so once.

What a command does with processes, signals, its group and its exit is as in a process of its own. What is tested of the
start itself (no torch before a mistake is told, torchrun) starts processes as users do, by `tests.cli.commands`.
"""

import ctypes
import gc
import multiprocessing
import os
import socket
import sys
import tempfile
import traceback
from importlib import import_module
from pathlib import Path

from tests.cli.commands import ROOT, Done

SECONDS = 300
UNDRAWN = """
import brdyn.plots
import brdyn.store.folder
from tests import undrawn
brdyn.plots.draw = undrawn.one_picture
brdyn.store.folder.render = undrawn.empty
"""
"""To run before a command: its pictures are not drawn, as by the fixture of that name."""
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.preloaded"])


def process(function, *arguments):
    """A process, not yet started, that calls a function of a module."""
    return _context.Process(target=function, args=arguments)


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
    group = {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if processes > 1 else {}
    running = []
    for rank in range(processes):
        own = {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": processes} if group else {}
        running.append(Started(arguments, before, **{**environment, **group, **own}))
    codes = [_wait(started, running) for started in running]
    texts = ["".join(started.said(number) for started in running) for number in (1, 2)]
    return Done.of(max(codes, key=abs), *texts)


def peak_of(module, *arguments):
    """As that of `analyses.bench`, in MiB, but begun with all that the server has: the work is in the difference of
    two."""
    receiver, sender = _context.Pipe(duplex=False)
    running = process(_alone, sender, module, arguments)
    running.start()
    running.join(SECONDS)
    running.kill()
    running.join()
    assert running.exitcode == 0
    return receiver.recv()


def _alone(sender, module, arguments):
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)  # what the server has freed is no room for this one
    libc.mallopt(-3, 1 << 17)  # nor are holes between what it still holds: large blocks are mapped, as at first
    bench, study = (import_module(f"analyses.{name}") for name in ("bench", module))
    study.alone(*arguments)
    sender.send(bench.own_peak())


class Started:
    """A command in a process, and a session, of its own.

    Parameters
    ----------
    arguments, before, **environment
        As :func:`brdyn` takes them.
    """

    def __init__(self, arguments, before=None, **environment):
        self._folder = tempfile.TemporaryDirectory()
        self._files = [str(Path(self._folder.name) / name) for name in ("out", "err")]
        variables = {name: str(value) for name, value in environment.items()}
        task = (list(map(str, arguments)), variables, *self._files, before, os.getcwd())
        self.process = process(_run, *task)
        self.process.start()
        self.pid = self.process.pid

    def said(self, number):
        """What there is on its standard output (1) or error (2) by now."""
        path = Path(self._files[number - 1])
        return path.read_text() if path.exists() else ""

    def done(self, seconds=SECONDS):
        """What it left, when it has ended; one that does not is killed."""
        self.process.join(seconds)
        self.process.kill()
        self.process.join()
        return Done.of(self.process.exitcode, self.said(1), self.said(2))


def _wait(started, running):
    """The exit code. Where one of several fails, the others are ended, as torchrun does."""
    code = started.done().returncode
    if code != 0:
        for other in running:
            if other is not started:
                other.process.join(5)
                other.process.terminate()
    return code


def _run(arguments, variables, out, err, before, folder):
    os.setsid()
    for number, path in ((1, out), (2, err)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, number)
        os.close(handle)
    os.environ.update(variables, PYTHONPATH=str(ROOT))
    tempfile.tempdir = None  # found anew in these variables
    multiprocessing.set_start_method(None, force=True)  # else its own processes would be the server's
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
