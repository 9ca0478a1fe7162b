"""What benchmarks share: two things timed by turns, so that a noisy machine is fair to both; the price of something in
forward passes, and of a training step in those of its write-up; the memory that a process takes; and results written
down and shown as the page of measured numbers shows them."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy import stats
from torch import Tensor
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from analyses.recording import OFFLINE, ROOT, Choice, command, parser, record
from analyses.render import measured_rows
from brdyn import load_images, load_model
from brdyn.choices import MEASURES, ONLY_NAMED
from brdyn.data import Batch
from brdyn.models import VisionTransformer
from brdyn.runtime import timed
from brdyn.training.compiling import compile_parts

SHOWN = 15
CURVES = tuple(name for name in MEASURES if name not in ("basins", "modes", "readout", *ONLY_NAMED))
BOTH = (torch.bfloat16, torch.float32)

Call = Callable[[], object]


def ratio(bare: Call, measured: Call, rounds: int, device: torch.device) -> dict[str, Any]:
    """The ratio of neighbouring timings, and the median times.

    Both are warmed up first, but for one round, a dry run.
    """
    calls = (bare, measured)
    if rounds > 1:
        for call in calls:
            call()
    pairs = np.empty((rounds, 2))
    for index in range(rounds):
        for which in (0, 1) if index % 2 == 0 else (1, 0):
            pairs[index, which] = elapsed(calls[which], device)
    ratios = pairs[:, 1] / pairs[:, 0]  # of neighbours in time, so that a slow minute cancels
    middle, low, high = geometric_mean(ratios)
    medians = dict(zip(("bare_seconds", "measured_seconds"), np.median(pairs, axis=0).tolist(), strict=True))
    return {**medians, "ratio": middle, "ratio_interval_95": [low, high], "rounds": ratios.tolist()}


def geometric_mean(ratios: np.ndarray) -> tuple[float, float, float]:
    """Of ratios by round, with its 95 % interval: by t of their logarithms, which a few rounds do not make too narrow,
    as they would a bootstrap. Of one round, a dry run, both ends are the ratio."""
    logs, rounds = np.log(ratios), len(ratios)
    half = stats.t.ppf(0.975, rounds - 1) * logs.std(ddof=1) / rounds**0.5 if rounds > 1 else 0.0
    low, middle, high = np.exp(logs.mean() + half * np.array([-1, 0, 1])).tolist()
    return middle, low, high


def elapsed(call: Call, device: torch.device) -> float:
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


def forwards(model: VisionTransformer, images: Tensor, passes: int = 1) -> None:
    """So many bare ones."""
    with torch.no_grad():
        for _ in range(passes):
            model(images)


def over_forwards(model: VisionTransformer, images: Tensor, work: Call, rounds: int, passes: int = 1) -> dict[str, Any]:
    """The ratio of some work on a batch to so many bare forwards of it, and the seconds of one of these."""
    found = ratio(partial(forwards, model, images, passes), work, rounds, model.device)
    return {"batch_size": len(images), "forward_seconds": found.pop("bare_seconds") / passes, **found}


def noise(model: VisionTransformer, images: int) -> Tensor:
    """Images of noise, as the model takes them."""
    drawn = torch.randn(images, 3, *model.info.image_size, generator=torch.Generator().manual_seed(0))
    return drawn.to(model.device, model.dtype)


def batches_of(images: Tensor, labels: Tensor | None = None) -> Iterator[Batch]:
    """The same images again and again, at places in a set that go on, as those of others."""
    for start in count(0, len(images)):
        yield Batch(images, torch.arange(start, start + len(images)), labels)


def photographs(choice: Choice, model: VisionTransformer) -> Tensor:
    """A batch of those that are asked for."""
    images = load_images(choice.images, model, n=choice.batch_size)
    return next(images.batches(choice.batch_size, workers=0)).images.to(model.device)


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


class Way(NamedTuple):
    """How training steps are timed: where, in how many rounds, in which precision, whether compiled, and what the
    device reaches (`most`, of :func:`ceilings`)."""

    device: torch.device
    rounds: int
    most: dict[str, Any]
    dtype: torch.dtype = torch.float32
    compiled: bool = False

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def prepared(self, learn: Call, parts: torch.nn.ModuleDict) -> int:
        """The operations of a step, counted, before what it computes with is compiled."""
        counted = operations(learn)
        if self.compiled:
            compile_parts(parts)
        return counted

    def compared(
        self, flop: int, pairs: Mapping[str, tuple[Call, Call]], step: Call, part: tuple[str, Call], *,
        images: int, steps: int = 1,
    ) -> dict[str, Any]:  # fmt: skip
        """Our steps against those of a write-up, by the name of the ratio, the first pair on so many images and steps:
        how fast, how near to the ceiling, which share a part has of a step, and where its time goes.

        The bytes that have to move (weights, moments, images) take less time than the operations on every step
        measured here.
        """
        found = {name: ratio(*pair, self.rounds, self.device) for name, pair in pairs.items()}
        seconds = next(iter(found.values()))["bare_seconds"]
        rate, (share, call) = flop * steps / seconds / 1e12, part
        return {
            "dtype": name_of(self.dtype), "compiled": self.compiled, **named(**found),
            "images_per_second": images / seconds, "gflop_per_step": flop / 1e9, "teraflops": rate,
            "share_of_the_ceiling": rate / self.most["teraflops"][name_of(self.dtype)],
            share: ratio(step, call, self.rounds, self.device)["ratio"],
            "profile": profiled(step, self.device, self.rounds),
        }  # fmt: skip


def ways(device: torch.device, rounds: int) -> list[Way]:
    """Both precisions; a GPU's steps are compiled too, in both."""
    most, plain_and_compiled = ceilings(device, rounds), (False, True) if device.type == "cuda" else (False,)
    return [Way(device, rounds, most, dtype, one) for one in plain_and_compiled for dtype in BOTH]


def losses(ours: float, published: float) -> dict[str, float]:
    """Of one batch, which tell whether both compute the same."""
    difference = abs(ours - published) / abs(published)
    return {"loss": ours, "published_loss": published, "relative_difference_of_losses": difference}


def ceilings(device: torch.device, rounds: int) -> dict[str, Any]:
    """What the device reaches on a large matrix product of each precision; a small one in a dry run, which is of one
    round."""
    side, found = 128 if rounds == 1 else 8192 if device.type == "cuda" else 1024, {}
    for dtype in BOTH:
        first, second = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        found[name_of(dtype)] = 2 * side**3 / fastest(partial(torch.matmul, first, second), device) / 1e12
    return {"teraflops": found}


def fastest(call: Call, device: torch.device, rounds: int = 10) -> float:
    """Least seconds of so many calls, or of what a second has room for, after one to warm up."""
    call()
    found = [elapsed(call, device)]
    while len(found) < rounds and sum(found) < 1:
        found.append(elapsed(call, device))
    return min(found)


def operations(step: Call) -> int:
    """Floating-point operations of matrix products and attention in a step, forward and backward, counted."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def profiled(step: Call, device: torch.device, steps: int) -> dict[str, Any]:
    """The kernels of some steps that take longest, with their share of all.

    `busy` is the time of all kernels over that of the steps: what is missing to 1 are gaps, in which a device waits for
    its next kernel. One step, of a dry run, is not warmed up.
    """
    cuda = device.type == "cuda"
    spent = attrgetter("self_device_time_total" if cuda else "self_cpu_time_total")

    def repeated() -> None:
        for _ in range(steps):
            step()

    if steps > 1:
        repeated()
    seconds = elapsed(repeated, device)
    with profile() as found:
        timed(repeated, device)
    rows = [row for row in found.key_averages() if not cuda or is_kernel(row)]
    rows.sort(key=spent, reverse=True)
    total = sum(map(spent, rows)) or 1.0
    kernels = [{"name": row.key[:80], "share": spent(row) / total, "calls": row.count / steps} for row in rows[:SHOWN]]
    return {"milliseconds": 1000 * seconds / steps, "busy": total / 1e6 / seconds, "kernels": kernels}


def is_kernel(row: Any) -> bool:
    """Whether this is of the device itself; operators and annotations have the time of their kernels once more."""
    return str(row.device_type).endswith("CUDA") and not getattr(row, "is_user_annotation", False)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


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
    code = f"import sys; from analyses import bench, {module} as it; print(bench.peak(it.alone(*sys.argv[1:])))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return float(done.stdout)


def memory(module: str, counts: Sequence[int], *how: str) -> dict[str, float]:
    """Peak memory by how many pictures, of noise, `alone` of a benchmark is called with."""
    rng, found = np.random.default_rng(0), {}
    with tempfile.TemporaryDirectory() as folder:
        for index in range(max(counts, default=0)):
            pixels = rng.integers(0, 255, (72, 96, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder) / f"{index:05}.jpg")
        for number in map(str, counts):
            found[number] = peak_of(module, folder, number, *how)
    return found


def numbers(text: str) -> list[int]:
    """Joined by commas; none in an empty text."""
    return [int(number) for number in text.split(",") if number]


def bench_parser(
    description: str | None, *, model: bool = True, images: bool = False, rounds: int | None = None,
    batch: tuple[int, int] | None = None, counts: str = "",
) -> argparse.ArgumentParser:  # fmt: skip
    """An argument parser with the options of every benchmark, of those on a model, on photographs, of what is timed in
    rounds, on a batch (on a CPU, and on a GPU), and of those that take memory of processes of so many images."""
    options = parser(description)
    if images:
        options.add_argument("--images", default="samples", help="photographs to measure on")
        options.add_argument("--n", type=int, default=64, help="of them")
    if model:
        options.add_argument("--model", default=OFFLINE)
        options.add_argument("--weights", type=Path, help="as in `brdyn phases`")
        options.add_argument("--init", default="pretrained", help="random for an architecture without weights")
        options.add_argument("--image-size", type=int)
    if rounds:
        options.add_argument("--rounds", type=int, default=rounds)
    if batch:
        usual = "default: {} on a CPU, {} on a GPU".format(*batch)
        options.add_argument("--batch-size", type=int, help=usual)
        options.set_defaults(usual_batch=batch)
    if counts:
        said = "numbers of images to measure memory for, joined by commas; empty for none"
        options.add_argument("--memory-images", type=numbers, default=counts, help=said)
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
        if getattr(choice, "batch_size", 0) is None:
            choice.batch_size = choice.usual_batch[choice.device == "cuda"]
        path = record(name, choice.device, work(choice), choice.out, file.format(**vars(choice)))
        print(measured_rows(name, path), end="")
        print("written to", path)

    return command(run, options, module)
