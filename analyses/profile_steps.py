"""Where the time of a training step goes: a Raptor's stage 2 and ViTRM, kernel by kernel.

    python -m analyses.profile_steps --device cuda

The steps are those of `analyses.bench_raptor` and `analyses.bench_vitrm`, ours alone, in bfloat16. `busy` is the time
of all kernels over that of the steps: what is missing to 1 are gaps, in which a device waits for its next kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from analyses import bench_raptor, bench_vitrm
from analyses.bench import chosen_model, model_parser, report
from brdyn.classification.recipe import ClassifierRecipe
from brdyn.errors import BrdynError
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
    rows.sort(key=lambda row: -row[1])
    return {
        "milliseconds": 1000 * seconds / steps,
        "busy": total / 1e6 / seconds,
        "calls": sum(count for _, spent, count in rows if spent) / steps,
        "kernels": [
            {"name": name[:80], "share": spent / total if total else 0.0, "calls": count / steps}
            for name, spent, count in rows[:SHOWN]
        ],
    }


def is_kernel(row: Any) -> bool:
    """Whether this is of the device itself; operators and annotations have the time of their kernels once more."""
    return str(row.device_type).endswith("CUDA") and not getattr(row, "is_user_annotation", False)


def main() -> None:
    """Profile and record."""
    options = model_parser(__doc__)
    options.set_defaults(image_size=224)
    options.add_argument("--batch-size", type=int, help="default: 8 on a CPU, 64 and 128 on a GPU")
    options.add_argument("--width", type=int, default=384, help="of ViTRM")
    options.add_argument("--steps", type=int, default=10)
    choice = options.parse_args()
    device = torch.device(choice.device)
    few = None if device.type == "cuda" else 8
    sizes = {"raptor": choice.batch_size or few or 64, "vitrm": choice.batch_size or few or 128}
    pixels = bench_vitrm.noise(16 * sizes["vitrm"])
    try:
        teacher = chosen_model(choice)
        network = ViTRM(ViTRMConfig(classes=pixels.classes, width=choice.width)).to(device)
    except BrdynError as error:
        options.error(str(error))
    images = torch.randn(sizes["raptor"], 3, choice.image_size, choice.image_size, device=device)
    raptor = bench_raptor.Ours(bench_raptor.student(teacher, 3), images, torch.bfloat16)
    recipe = ClassifierRecipe(batch_size=sizes["vitrm"])
    vitrm = bench_vitrm.Ours(network, pixels, recipe, device, torch.bfloat16)
    steps: dict[str, Callable[[], None]] = {"raptor": raptor.step, "vitrm": lambda: vitrm.steps(1)}
    content: dict[str, Any] = {}
    for name, step in steps.items():
        content[name] = {"batch_size": sizes[name], **kernels(step, choice.steps, device)}
        print(f"{name}: {content[name]['milliseconds']:.1f} ms a step, busy {content[name]['busy']:.0%}")
        for row in content[name]["kernels"]:
            print(f"  {row['share']:>6.1%}  {row['calls']:>6.1f} calls  {row['name']}")
    report("profile_steps", choice, content)


if __name__ == "__main__":
    main()
