"""Where the time of a training step goes: a Raptor's stage 2 and ViTRM, kernel by kernel.

    python -m analyses.profile_steps --device cuda

The steps are those of `analyses.bench_raptor` and `analyses.bench_vitrm`, ours alone, in bfloat16. `busy` is the time
of all kernels over that of the steps: what is missing to 1 are gaps, in which a device waits for its next kernel.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from analyses import bench_raptor, bench_vitrm
from analyses.bench import benchmark, chosen_model, model_parser
from brdyn.classification.recipe import ClassifierRecipe
from brdyn.runtime import timed
from brdyn.vitrm.model import ViTRM, ViTRMConfig

SHOWN = 15
WARM_UP = 3


def kernels(step: Callable[[], None], steps: int, device: torch.device) -> dict[str, Any]:
    """The operations of some steps that take longest, with their share of all."""
    cuda = device.type == "cuda"
    for _ in range(WARM_UP):
        step()

    def repeated() -> None:
        for _ in range(steps):
            step()

    seconds = timed(repeated, device)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as found:
        timed(repeated, device)
    rows = [
        (one.key, one.self_device_time_total if cuda else one.self_cpu_time_total, one.count)
        for one in found.key_averages()
        if not cuda or is_kernel(one)
    ]
    total = sum(spent for _, spent, _ in rows)
    longest = sorted(rows, key=lambda row: -row[1])[:SHOWN]
    return {
        "milliseconds": 1000 * seconds / steps,
        "busy": total / 1e6 / seconds,
        "calls": sum(count for _, spent, count in rows if spent) / steps,
        "kernels": [
            {"name": name[:80], "share": spent / total if total else 0.0, "calls": count / steps}
            for name, spent, count in longest
        ],
    }


def is_kernel(row: Any) -> bool:
    """Whether this is of the device itself; operators and annotations have the time of their kernels once more."""
    return str(row.device_type).endswith("CUDA") and not getattr(row, "is_user_annotation", False)


def run(choice: argparse.Namespace) -> dict[str, Any]:
    """Profile both."""
    device = torch.device(choice.device)
    first, second = (
        [choice.batch_size] * 2 if choice.batch_size else [64, 128] if device.type == "cuda" else [8, 8]
    )
    pixels, teacher = bench_vitrm.noise(16 * second), chosen_model(choice)
    network = ViTRM(ViTRMConfig(classes=pixels.classes, width=choice.width)).to(device)
    images = torch.randn(first, 3, choice.image_size, choice.image_size, device=device)
    raptor = bench_raptor.Ours(bench_raptor.student(teacher, 3), images, torch.bfloat16)
    vitrm = bench_vitrm.Ours(network, pixels, ClassifierRecipe(batch_size=second), device, torch.bfloat16)
    content: dict[str, Any] = {
        "raptor": {"batch_size": first, **kernels(raptor.step, choice.steps, device)},
        "vitrm": {"batch_size": second, **kernels(lambda: vitrm.steps(1), choice.steps, device)},
    }
    for name, found in content.items():
        print(f"{name}: {found['milliseconds']:.1f} ms a step, busy {found['busy']:.0%}")
        for row in found["kernels"]:
            print(f"  {row['share']:>6.1%}  {row['calls']:>6.1f} calls  {row['name']}")
    return content


def main() -> None:
    """Profile and record."""
    options = model_parser(__doc__)
    options.set_defaults(image_size=224)
    options.add_argument("--batch-size", type=int, help="default: 8 on a CPU, 64 and 128 on a GPU")
    options.add_argument("--width", type=int, default=384, help="of ViTRM")
    options.add_argument("--steps", type=int, default=10)
    benchmark("profile_steps", run, options)


if __name__ == "__main__":
    main()
