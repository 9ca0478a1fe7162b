"""A model from its name to phases and motion: images/s, where the time goes, and peak memory.

    python -m analyses.end_to_end                                       # the offline model on a CPU
    python -m analyses.end_to_end --model dinov2_vitg14 --init random --dtype bfloat16 --device cuda --images photos/

Decoding, capture and measures overlap as they do in `brdyn phases` and `brdyn dynamics`; nothing is left out.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from analyses.bench import CURVES, benchmark, chosen_model, model_parser, peak
from analyses.recording import Choice
from brdyn import Stream, layer_similarity, load_images, segment, token_dynamics
from brdyn.models import VisionTransformer
from brdyn.runtime import DTYPES, resolve_dtype

RUNS = ("phases", "dynamics")


def timed_run(
    name: str, model: VisionTransformer, source: str, n: int, workers: int | None
) -> dict[str, Any]:
    """One command's work on so many images."""
    images, stream = load_images(source, model, n=n), Stream(workers=workers)
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    started = time.perf_counter()
    if name == "phases":
        phases = segment(layer_similarity(model, images, stream=stream))
    else:
        phases = token_dynamics(model, images, measures=CURVES, stream=stream).phases
    seconds = time.perf_counter() - started
    return {
        "run": name, "images": images.report.count, "seconds": seconds,
        "images_per_second": images.report.count / seconds, "peak_mib": peak(model.device),
        "boundaries": list(phases.boundaries),
    }  # fmt: skip


def run(choice: Choice) -> dict[str, Any]:
    started = time.perf_counter()
    model = chosen_model(choice, dtype=resolve_dtype(choice.dtype))
    loading = time.perf_counter() - started
    runs = [timed_run(name, model, choice.images, choice.n, choice.workers) for name in RUNS]
    return {"model": model.info.to_dict(), "dtype": choice.dtype, "loading_seconds": loading, "runs": runs}


OPTIONS = model_parser(__doc__, images=True)
OPTIONS.add_argument("--dtype", default="float32", choices=DTYPES)
OPTIONS.add_argument("--workers", type=int, help="loader processes (default: as `brdyn phases`)")
main = benchmark("end_to_end", run, OPTIONS, __name__, "end_to_end_{model}")
