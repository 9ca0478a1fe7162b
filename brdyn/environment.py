"""What this process is: its command, the versions it runs with, its device in words."""

from __future__ import annotations

import platform
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

DRIVER = Path("/proc/driver/nvidia/version")
PACKAGES = ("brdyn", "torch", "timm", "transformers", "torchmetrics", "numpy", "pillow")


_options: ContextVar[Mapping[str, Any] | None] = ContextVar("options", default=None)


@contextmanager
def using(options: Mapping[str, Any]) -> Iterator[None]:
    """Let results that are made inside tell with which options their command was run."""
    token = _options.set({name: _plain(value) for name, value in options.items()})
    try:
        yield
    finally:
        _options.reset(token)


def options_used() -> Mapping[str, Any] | None:
    """All options of the command that runs, by name, with their values; None where none runs.

    >>> from pathlib import Path
    >>> from brdyn.environment import options_used, using
    >>> with using({"out": Path("runs/phases"), "k": None}):
    ...     options_used()
    {'out': 'runs/phases', 'k': None}
    """
    return _options.get()


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a result depends on."""
    return {"python": platform.python_version(), **installed(), **gpu_versions()}


@cache
def installed() -> dict[str, str]:
    """Versions of the packages, looked up once: a twelfth of a second."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree that was never installed
            found[package] = "unknown"
    return found


def gpu_versions(driver: Path = DRIVER) -> dict[str, str]:
    """Of CUDA and of the driver of NVIDIA's GPUs, where there is one."""
    import torch

    if not torch.cuda.is_available():
        return {}
    found = {"cuda": torch.version.cuda or "none"}
    words = driver.read_text() if driver.is_file() else ""
    if said := re.search(r"Kernel Module\b.*?(\d+\.\d+(\.\d+)*)", words):
        found["driver"] = said[1]
    return found


def device_name(kind: str) -> str:
    """The processor or GPU a run used, in words."""
    import torch

    if kind == "cuda":
        return torch.cuda.get_device_name()
    if kind == "mps":
        return f"{platform.processor() or platform.machine()} GPU (mps)"
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"


def command() -> str:
    """What this process runs, as typed in a shell: a command of brdyn's, a module or script of somebody's own. Where
    Python runs neither, as in a notebook, "an interactive session"."""
    main, (first, *arguments) = sys.modules["__main__"], sys.argv or [""]
    module = getattr(main, "__spec__", None)
    if Path(first).stem == "brdyn" or (module and module.name == "brdyn.__main__"):
        program = ["brdyn"]
    elif module:
        program = ["python", "-m", module.name.removesuffix(".__main__")]
    elif first in ("", "-") or not (first == "-c" or hasattr(main, "__file__")):
        return "an interactive session"
    else:
        program = ["python", first]
    return " ".join(shlex.quote(part) for part in [*program, *arguments])
