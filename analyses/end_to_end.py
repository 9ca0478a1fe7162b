"""A model from its name to phases and motion: images/s, where the time goes, and peak memory.

    python -m analyses.end_to_end                                       # the offline model on a CPU
    python -m analyses.end_to_end --model dinov2_vitg14 --init random --dtype bfloat16 --device cuda --images photos/

Decoding, capture and measures overlap as they do in `brdyn phases` and `brdyn dynamics`; nothing is left out. A run's
share outside the forward is what its seconds have on top of bare forwards of as many images in the same batches.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import Any

import torch

from analyses.bench import CURVES, bench_parser, benchmark, chosen_model, forwards, noise, peak
from analyses.recording import Choice
from brdyn import Stream, layer_similarity, load_images, segment, token_dynamics
from brdyn.choices import DTYPES
from brdyn.models import VisionTransformer
from brdyn.runtime import auto_batch_size, timed

RUNS = ("phases", "dynamics")


def timed_run(name: str, model: VisionTransformer, source: str, n: int, workers: int | None) -> dict[str, Any]:
    """One command's work on so many images."""
    images, stream = load_images(source, model, n=n), Stream(workers=workers)
    batch_size = min(auto_batch_size(model), len(images))
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    started = time.perf_counter()
    if name == "phases":
        phases = segment(layer_similarity(model, images, stream=stream))
    else:
        phases = token_dynamics(model, images, measures=CURVES, stream=stream).phases
    seconds, most, count = time.perf_counter() - started, peak(model.device), images.report.count
    forward = partial(forwards, model, noise(model, batch_size))  # of images that are on the device already
    forward()
    bare = statistics.median(timed(forward, model.device) for _ in range(5)) * count / batch_size
    return {
        "run": name, "images": count, "seconds": seconds, "images_per_second": count / seconds, "peak_mib": most,
        "batch_size": batch_size, "forward_seconds": bare, "share_outside_the_forward": 1 - bare / seconds,
        "boundaries": list(phases.boundaries),
    }  # fmt: skip


def run(choice: Choice) -> dict[str, Any]:
    model = chosen_model(choice, dtype=choice.dtype)
    runs = [timed_run(name, model, choice.images, choice.n, choice.workers) for name in RUNS]
    return {"model": model.info.to_dict(), "dtype": choice.dtype, "runs": runs}


OPTIONS = bench_parser(__doc__, images=True)
OPTIONS.add_argument("--dtype", default="float32", choices=DTYPES)
OPTIONS.add_argument("--workers", type=int, help="loader processes (default: as `brdyn phases`)")
main = benchmark("end_to_end", run, OPTIONS, __name__, "end_to_end_{model}")
