"""What benchmarks share: two things timed by turns, so that a noisy machine is fair to both; the memory that a process
took; and results written down and shown as the page of measured numbers shows them."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from analyses.recording import OFFLINE, ROOT, Choice, command, parser, record
from analyses.render import measured_rows
from brdyn import load_model
from brdyn.choices import MEASURES, ONLY_NAMED
from brdyn.models import VisionTransformer
from brdyn.runtime import timed

SHOWN = 15
CURVES = tuple(name for name in MEASURES if name not in ("basins", "modes", "readout", *ONLY_NAMED))
BOTH = (torch.bfloat16, torch.float32)


def ratio(
    bare: Callable[[], object], measured: Callable[[], object], rounds: int, device: torch.device
) -> dict[str, Any]:
    """The ratio of neighbouring timings, and the median times.

    Both are warmed up first, but for one round, a dry run.
    """
    if rounds > 1:
        bare()
        measured()
    pairs = np.empty((rounds, 2))
    for index in range(rounds):
        for which in (0, 1) if index % 2 == 0 else (1, 0):
            pairs[index, which] = elapsed((bare, measured)[which], device)
    ratios = pairs[:, 1] / pairs[:, 0]  # of neighbours in time, so that a slow minute cancels
    middle, low, high = geometric_mean(ratios)
    return {
        "bare_seconds": float(np.median(pairs[:, 0])),
        "measured_seconds": float(np.median(pairs[:, 1])),
        "ratio": middle, "ratio_interval_95": [low, high], "rounds": ratios.tolist(),
    }  # fmt: skip


def geometric_mean(ratios: np.ndarray) -> tuple[float, float, float]:
    """Of ratios by round, with its 95 % interval: by t of their logarithms, which a few rounds do not make too narrow,
    as they would a bootstrap. Of one round, a dry run, both ends are the ratio."""
    logs, rounds = np.log(ratios), len(ratios)
    half = stats.t.ppf(0.975, rounds - 1) * logs.std(ddof=1) / rounds**0.5 if rounds > 1 else 0.0
    low, middle, high = np.exp(logs.mean() + half * np.array([-1, 0, 1])).tolist()
    return middle, low, high


def elapsed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, by events of the device where it has them."""
    if device.type != "cuda":
        return timed(call, device)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    first.record()
    call()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1000


def named(**ratios: dict[str, Any]) -> dict[str, Any]:
    """Ratios with their intervals, and by round, by names."""
    ends = {"": "ratio", "_interval_95": "ratio_interval_95", "_rounds": "rounds"}
    return {f"{name}{end}": one[key] for name, one in ratios.items() for end, key in ends.items()}


def losses(ours: float, published: float) -> dict[str, float]:
    """Of one batch, which tell whether both compute the same."""
    difference = abs(ours - published) / abs(published)
    return {"loss": ours, "published_loss": published, "relative_difference_of_losses": difference}


def own_peak() -> float:
    """Most memory this process has taken, MiB (Linux).

    A process inherits its parent's mark in `ru_maxrss`, but not in VmHWM.
    """
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def peak(device: torch.device) -> float:
    """Most memory taken so far, MiB: of a GPU, or of this process."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else own_peak()


def peak_of(module: str, *arguments: str) -> float:
    """Most memory, MiB, of a fresh process that calls `alone` of a benchmark, which returns its device."""
    code = (
        f"import sys; from analyses import bench, {module} as it; print(bench.peak(it.alone(*sys.argv[1:])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return float(done.stdout)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def ceilings(device: torch.device, rounds: int) -> dict[str, Any]:
    """What the device reaches on a large matrix product of each precision, and copying its memory to itself; small ones
    in a dry run, which is of one round."""
    cuda, found = device.type == "cuda", {}
    side, copied_numbers = (128, 2**16) if rounds == 1 else (8192, 2**28) if cuda else (1024, 2**24)
    for dtype in BOTH:
        first, second = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        seconds = fastest(lambda a=first, b=second: a @ b, device)  # type: ignore[misc]
        found[name_of(dtype)] = 2 * side**3 / seconds / 1e12
    source = torch.randn(copied_numbers, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / fastest(lambda: target.copy_(source), device)
    return {"teraflops": found, "gigabytes_per_second": copied / 1e9}


def fastest(call: Callable[[], object], device: torch.device, rounds: int = 10) -> float:
    """Least seconds of so many calls, or of what a second has room for, after one to warm up."""
    call()
    found = [elapsed(call, device)]
    while len(found) < rounds and sum(found) < 1:
        found.append(elapsed(call, device))
    return min(found)


def operations(step: Callable[[], object]) -> int:
    """Floating-point operations of matrix products and attention in a step, forward and backward, counted."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def of_the_ceiling(flop: float, seconds: float, dtype: torch.dtype, most: dict[str, Any]) -> dict[str, float]:
    """Operations of a step, their rate, and its share of what a large matrix product of this precision reaches.

    The bytes that have to move (weights, moments, images) take less time than that on every step measured here.
    """
    rate = flop / seconds / 1e12
    share = rate / most["teraflops"][name_of(dtype)]
    return {"gflop_per_step": flop / 1e9, "teraflops": rate, "share_of_the_ceiling": share}


def ways(device: torch.device) -> list[tuple[torch.dtype, bool]]:
    """Precisions, and whether compiled: a GPU's steps are compiled too, in both."""
    plain = [(dtype, False) for dtype in BOTH]
    return [*plain, *((dtype, True) for dtype in BOTH)] if device.type == "cuda" else plain


def profiled(step: Callable[[], object], device: torch.device, steps: int) -> dict[str, Any]:
    """The kernels of some steps that take longest, with their share of all.

    `busy` is the time of all kernels over that of the steps: what is missing to 1 are gaps, in which a device waits for
    its next kernel. One step, of a dry run, is not warmed up.
    """
    cuda = device.type == "cuda"

    def repeated() -> None:
        for _ in range(steps):
            step()

    if steps > 1:
        repeated()
    seconds = elapsed(repeated, device)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as found:
        timed(repeated, device)
    spent = [
        (one.self_device_time_total if cuda else one.self_cpu_time_total, one) for one in found.key_averages()
    ]
    rows = sorted((row for row in spent if not cuda or is_kernel(row[1])), key=lambda row: -row[0])
    total = sum(time for time, _ in rows) or 1.0
    kernels = [
        {"name": one.key[:80], "share": time / total, "calls": one.count / steps}
        for time, one in rows[:SHOWN]
    ]
    return {"milliseconds": 1000 * seconds / steps, "busy": total / 1e6 / seconds, "kernels": kernels}


def is_kernel(row: Any) -> bool:
    """Whether this is of the device itself; operators and annotations have the time of their kernels once more."""
    return str(row.device_type).endswith("CUDA") and not getattr(row, "is_user_annotation", False)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class Learner(ABC):
    """What takes optimizer steps by its `loss`, at a rate of 0: two of the same weights go on computing alike."""

    clip: ClassVar[float | None] = None

    def __init__(self, *networks: torch.nn.Module) -> None:
        self.parameters = list(dict.fromkeys(one for network in networks for one in network.parameters()))
        self.optimizer = torch.optim.AdamW(self.parameters, lr=0.0, weight_decay=0.0)

    @abstractmethod
    def loss(self, *batch: Tensor) -> Tensor:
        """Of a ready batch."""

    def learn(self, *batch: Tensor) -> None:
        """One optimizer step on a ready batch, as if reading cost nothing."""
        self.loss(*batch).backward()
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def model_parser(description: str | None, *, images: bool = False) -> argparse.ArgumentParser:
    options = parser(description)
    if images:
        options.add_argument("--images", default="samples", help="photographs to measure on")
        options.add_argument("--n", type=int, default=64, help="of them")
    options.add_argument("--model", default=OFFLINE)
    options.add_argument("--weights", type=Path, help="as in `brdyn phases`")
    options.add_argument("--init", default="pretrained", help="random for an architecture without weights")
    options.add_argument("--image-size", type=int)
    return options


def chosen_model(choice: Choice, **options: Any) -> VisionTransformer:
    asked = {name: getattr(choice, name) for name in ("weights", "init", "image_size", "device")}
    return load_model(choice.model, **{**asked, **options})


def benchmark(
    name: str, work: Callable[[Choice], dict[str, Any]], options: argparse.ArgumentParser, module: str, file: str = ""
) -> Callable[[], None]:  # fmt: skip
    """A `main` that does what the options ask for, writes it down, and shows its rows; the file's name may have the
    model's in it."""

    def run(choice: Choice) -> None:
        path = record(name, choice.device, work(choice), choice.out, file.format(**vars(choice)))
        print(measured_rows(name, path), end="")
        print("written to", path)

    return command(run, options, module)
