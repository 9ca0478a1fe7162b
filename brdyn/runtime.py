"""Devices, precision, batch size, and which share of the work this process has."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import psutil
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from brdyn import choices
from brdyn.choices import one_of
from brdyn.data import ReadReport
from brdyn.errors import BrdynError, UsageError, exit_code

if TYPE_CHECKING:
    from brdyn.models import VisionTransformer

P = ParamSpec("P")
R = TypeVar("R")

BATCH_CAPS = {"cpu": 16, "cuda": 256, "mps": 32}
MEMORY_SHARE = 0.4
MEETING = ("RANK", "MASTER_ADDR", "MASTER_PORT")  # where processes meet, which torchrun says


def seed_default(seed: int, device: torch.device) -> None:
    """Start what is drawn without a generator of its own, on the CPU and on this device, at a seed.

    Without a GPU, `torch.manual_seed` formats the whole stack of calls each time, for a GPU that may come.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def in_float64(values: torch.Tensor) -> torch.Tensor:
    """In double precision, on the CPU where the device has none.

    >>> from brdyn.runtime import in_float64
    >>> in_float64(torch.ones(2)).dtype
    torch.float64
    """
    return (values.cpu() if values.device.type == "mps" else values).double()


@dataclass(frozen=True)
class Processes:
    """This process among those started by torchrun (alone by default).

    Attributes
    ----------
    rank, world : int
        Number of this process, and how many there are.
    device : torch.device
        Where it computes.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def gather(self, report: ReadReport) -> ReadReport:
        """Join what all processes have read."""
        total = ReadReport()
        reports: list[ReadReport | None] = [report]
        if self.world > 1:
            reports = [None] * self.world
            torch.distributed.all_gather_object(reports, report)
        for part in reports:
            assert part is not None  # all_gather_object fills every place
            total.add(part)
        by_name = {one.name: one for one in total.skipped}  # training meets one again in every epoch
        total.skipped = sorted(by_name.values())
        return total

    def agree(self, refusal: BrdynError | None) -> None:
        """Go on in all processes, or in none: where the main one has a refusal, it raises that and the others end.

        Raises
        ------
        BrdynError
            In the main process.
        SystemExit
            In the others, silently.
        """
        said = [None if refusal is None else exit_code(refusal)]
        if self.world > 1:
            torch.distributed.broadcast_object_list(said, src=0)
        if refusal is not None:
            raise refusal
        if said[0] is not None:
            raise SystemExit(said[0])

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.world > 1:
            torch.distributed.barrier()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the process group."""
        if self.world > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def start_processes(device: str = "auto") -> Processes:
    """Choose the device, and join the process group when started by torchrun.

    Raises
    ------
    UsageError
        If the device is unknown or not on this machine, or a process of several does not know where the others are.
    """
    kind = _device_kind(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(torch.device(kind))
    if missing := [name for name in MEETING if name not in os.environ]:
        raise UsageError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} is set, and {' and '.join(missing)} not: start the processes with "
            "torchrun, or unset WORLD_SIZE for one alone"
        )
    from accelerate import PartialState

    state = PartialState(cpu=kind != "cuda")
    return Processes(state.device, state.process_index, state.num_processes)


def _device_kind(device: str) -> str:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    one_of("device", device, choices.DEVICES)
    if device == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available[device]:
        here = ", ".join(kind for kind, there in available.items() if there)
        raise UsageError(f"device {device!r} is not available here (available: {here}); use `device=auto`")
    return device


def auto_batch_size(model: VisionTransformer) -> int:
    """A power of two whose trajectory fits well within the free memory of the model's device."""
    return fitting_images(model, model.depth + 1)


def fitting_images(model: VisionTransformer, states: int = 1) -> int:
    """How many images can go through a block at once while `states` states of each are kept, a power of two.

    Counts the states and the workspace of one block.
    """
    device = model.device
    state = model.tokens.count * model.info.width * torch.finfo(model.dtype).bits // 8
    per_image = (states + 16) * state
    fitting = int(MEMORY_SHARE * available_memory(device) / per_image)
    largest = min(BATCH_CAPS.get(device.type, 16), max(1, fitting))
    return 1 << (largest.bit_length() - 1)


def available_memory(device: torch.device) -> int:
    """Bytes free on a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def synchronise(device: torch.device) -> None:
    """Wait for a device, so that wall time is its time."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


def timed(call: Callable[[], Any], device: torch.device) -> float:
    """Wall seconds of one call, the device's work included."""
    synchronise(device)
    started = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - started


def with_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """A function that learns, also where its caller has turned gradients off.

    >>> from brdyn.runtime import with_gradients
    >>> with torch.inference_mode():
    ...     with_gradients(lambda: torch.ones(1, requires_grad=True) * 2)().requires_grad
    True
    """

    @wraps(function)
    def learning(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(False), torch.enable_grad():
            return function(*args, **kwargs)

    return learning


@contextmanager
def unfused() -> Iterator[None]:
    """Let an `nn.TransformerEncoderLayer` run operation by operation, and not as one that shows none of them."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def flops(forward: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions of a forward pass, counted as they happen; a
    multiplication and an addition are two."""
    counter = FlopCounterMode(display=False)
    # Attention written out: not every fused kernel has a formula.
    with torch.no_grad(), unfused(), sdpa_kernel(SDPBackend.MATH), counter:
        forward()
    return int(counter.get_total_flops())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a smaller batch may do."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    signs = (
        "out of memory",
        "can't allocate memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_NOT_SUPPORTED",
    )
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)
