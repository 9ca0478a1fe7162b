"""What splicing every span of layers costs: block applications and time over L^2 / 6 forwards, and memory.

The sweep of one surrogate and so many bare forwards of the same batch are timed by turns within one run; read the
ratio. Applications are counted by hooks. Memory is that of fresh processes that splice few and many images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from analyses.bench import benchmark, chosen_model, model_parser, peak_of, ratio
from analyses.bench_capture import pictures
from analyses.bench_dynamics import forwards
from analyses.recording import Choice
from brdyn import Stream, Trajectory, capture, load_images, load_model, splice_skill
from brdyn.data import Batch
from brdyn.interventions.span_maps import FITTED, SpanMoments
from brdyn.interventions.splice import SpliceSweep
from brdyn.interventions.splice_cells import Cell, cells_of, every_span
from brdyn.measures.engine import metric_device
from brdyn.models import VisionTransformer
from brdyn.phases import segment

SWEPT = ("identity", *FITTED, "repeat", "exchange")


@contextmanager
def applications(model: VisionTransformer) -> Iterator[list[int]]:
    """How many images went through a block, call by call."""
    seen: list[int] = []
    hooks = [block.register_forward_hook(lambda *given: seen.append(len(given[2]))) for block in model.blocks]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def sweep_of(model: VisionTransformer, clean: Trajectory, surrogate: str) -> SpliceSweep:
    """A sweep of one surrogate over all spans, maps fitted to the batch itself; without the identity's own runs."""
    spans = every_span(model.depth)
    cells = [cell for cell in cells_of([surrogate], spans, model.depth, 1) if cell.surrogate == surrogate]
    maps = {}
    if surrogate in FITTED:
        moments = SpanMoments(model.tokens, model.depth, model.info.width, spans, [surrogate])
        moments.to(metric_device(model)).update(clean)
        fitted = moments.fit([surrogate], spans, 1e-3, model)
        maps = {Cell(name, *span, calibration=1): one for (name, span), one in fitted.items()}
    return SpliceSweep(model, cells, maps)


def sweep_cost(model: VisionTransformer, images: torch.Tensor, surrogate: str, rounds: int) -> dict[str, Any]:
    """Block applications of an image over those of L^2 / 6 forwards, and time over that of as many bare forwards."""
    clean = capture(model, Batch(images, torch.arange(len(images)), None))
    sweep, passes = sweep_of(model, clean, surrogate), max(1, round(model.depth**2 / 6))
    with applications(model) as seen:
        sweep.update(clean)
    budget = model.depth**3 / 6
    cost = ratio(partial(forwards, model, images, passes), lambda: sweep.update(clean), rounds, model.device)
    return {
        "surrogate": surrogate, "applications_of_an_image": sum(seen) / len(images),
        "over_the_budget": sum(seen) / len(images) / budget, "forwards": passes, **cost,
    }  # fmt: skip


def memory(counts: tuple[int, ...] = (16, 64)) -> dict[str, float]:
    """Peak memory in MiB of a fresh process for each number of images (Linux)."""
    with pictures(max(counts)) as folder:
        return {str(number): peak_of("bench_splice", folder, str(number)) for number in counts}


def alone(folder: str, number: str) -> torch.device:
    model = load_model("vit_tiny_patch16_224", init="random", image_size=64)
    phases = segment(np.eye(model.depth), 2)
    spans = [(0, 4), (4, 8), (8, 12)]
    images = load_images(folder, model, n=int(number))
    splice_skill(
        model,
        images,
        phases,
        surrogates=["mean", "repeat"],
        spans=spans,
        stream=Stream(batch_size=8, workers=0),
    )
    return model.device


def run(choice: Choice) -> dict[str, Any]:
    model = chosen_model(choice)
    size = choice.batch_size or (64 if choice.device == "cuda" else 4)
    batch = next(load_images(choice.images, model, n=size).batches(size, workers=0))
    images, timed_too = batch.images.to(model.device), choice.surrogates.split(",")
    costs = [sweep_cost(model, images, name, choice.rounds) for name in timed_too]
    counts = tuple(int(count) for count in choice.memory_images.split(",") if count)
    return {
        "model": model.info.name, "batch_size": size, "layers": model.depth, "sweeps": costs,
        "peak_memory_mib": memory(counts) if counts else {},
    }  # fmt: skip


OPTIONS = model_parser(__doc__, images=True)
OPTIONS.add_argument("--rounds", type=int, default=6)
OPTIONS.add_argument("--batch-size", type=int, help="default: 4 on a CPU, 64 on a GPU")
OPTIONS.add_argument("--surrogates", default=",".join(SWEPT), help="joined by commas")
OPTIONS.add_argument("--memory-images", default="16,64", help="joined by commas; empty for none")
main = benchmark("bench_splice", run, OPTIONS, __name__)
