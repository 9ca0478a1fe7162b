"""What splicing every span of layers costs: block applications and time over L^2 / 6 forwards, and memory.

The sweep of one surrogate and so many bare forwards of the same batch are timed by turns within one run; read the
ratio. Applications are counted by hooks. Memory is that of fresh processes that splice few and many images.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from analyses import bench
from analyses.recording import Choice
from brdyn import Stream, Trajectory, capture, load_images, load_model, splice_skill
from brdyn.interventions.span_maps import FITTED, SpanMoments
from brdyn.interventions.splice import SpliceSweep
from brdyn.interventions.splice_cells import Cell, cells_of, every_span
from brdyn.measures.engine import metric_device
from brdyn.models import VisionTransformer
from brdyn.phases import segment

SWEPT = ("identity", *FITTED, "repeat", "exchange")


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
    clean = capture(model, next(bench.batches_of(images)))
    sweep, passes = sweep_of(model, clean, surrogate), max(1, round(model.depth**2 / 6))
    seen: list[int] = []  # images that went through a block, call by call
    with ExitStack() as hooks:
        for block in model.blocks:
            hooks.enter_context(block.register_forward_hook(lambda *given: seen.append(len(given[2]))))
        sweep.update(clean)
    applied = sum(seen) / len(images)
    return {
        "surrogate": surrogate, "applications_of_an_image": applied, "over_the_budget": applied / (model.depth**3 / 6),
        "forwards": passes, **bench.over_forwards(model, images, lambda: sweep.update(clean), rounds, passes),
    }  # fmt: skip


def alone(folder: str, number: str) -> torch.device:
    """What a fresh process does to have its memory measured."""
    model = load_model("vit_tiny_patch16_224", init="random", image_size=64)
    phases, spans = segment(np.eye(model.depth), 2), [(0, 4), (4, 8), (8, 12)]
    images, stream = load_images(folder, model, n=int(number)), Stream(batch_size=8, workers=0)
    splice_skill(model, images, phases, surrogates=["mean", "repeat"], spans=spans, stream=stream)
    return model.device


def run(choice: Choice) -> dict[str, Any]:
    model = bench.chosen_model(choice)
    images = bench.photographs(choice, model)
    costs = [sweep_cost(model, images, name, choice.rounds) for name in choice.surrogates.split(",")]
    peaks = bench.memory("bench_splice", choice.memory_images)
    about = {"model": model.info.name, "batch_size": len(images), "layers": model.depth}
    return {**about, "sweeps": costs, "peak_memory_mib": peaks}


OPTIONS = bench.bench_parser(__doc__, images=True, rounds=6, batch=(4, 64), counts="16,64")
OPTIONS.add_argument("--surrogates", default=",".join(SWEPT), help="joined by commas")
main = bench.benchmark("bench_splice", run, OPTIONS, __name__)
