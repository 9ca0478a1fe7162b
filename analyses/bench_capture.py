"""What capture and similarity cost on top of the bare forward, whether decoding overlaps, and memory.

Times are of the same decoded images in the same batches, bare and captured by turns within one run;
read the ratio, not the milliseconds. On CUDA models run in bfloat16, dinov2_vitg14 among them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from analyses import bench
from analyses.precision import both_precisions, similarity_agreement
from analyses.recording import Choice
from brdyn import Stream, Trajectory, capture, layer_similarity, load_images, load_model, trajectories
from brdyn.measures import similarity_metric
from brdyn.models import VisionTransformer
from brdyn.runtime import timed


def capture_cost(model: VisionTransformer, batch_size: int, rounds: int, kind: str = "cosine") -> dict[str, Any]:
    """Seconds of the bare forward and of capture with similarity, by turns on the same batch."""
    images = bench.noise(model, batch_size)
    batches, metric = bench.batches_of(images), similarity_metric(kind, model).to(model.device)

    def reduced(trajectory: Trajectory) -> None:
        metric.update(trajectory)
        trajectory.check_finite(model.info.name)

    cost = bench.over_forwards(model, images, lambda: reduced(capture(model, next(batches))), rounds)
    states = capture(model, next(batches)).states
    again = (Trajectory(states, model.tokens, next(batches).positions) for _ in range(rounds))
    spent = [timed(partial(reduced, trajectory), model.device) for trajectory in again]
    return {
        "model": model.info.name, "similarity": kind, "dtype": bench.name_of(model.dtype), **cost,
        "reduction_over_bare": float(np.median(spent)) / cost["forward_seconds"],
    }  # fmt: skip


def overlap(device: str, source: str, n: int) -> dict[str, Any]:
    """Seconds to decode and to run, in turn, and with decoding behind.

    A small model, so that decoding matters. On a CPU the model gets one thread: with all cores busy
    computing there is nothing left to overlap with.
    """
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    model = load_model("vit_tiny_patch16_224", init="random", image_size=96, device=device)
    images = load_images(source, model, n=n)
    behind, in_turn = (
        timed(partial(layer_similarity, model, images, stream=Stream(batch_size=16, workers=workers)), model.device)
        for workers in (None, 0)
    )  # fmt: skip
    torch.set_num_threads(threads)
    return {
        "model": "vit_tiny_patch16_224 at 96 pixels", "images": len(images), "background_seconds": behind,
        "sequential_seconds": in_turn, "background_over_sequential": behind / in_turn,
    }  # fmt: skip


def alone(folder: str, number: str, how: str = "stream") -> torch.device:
    """What a fresh process does to have its memory measured; `keep` is a control that holds every state."""
    model = load_model("vit_tiny_patch16_224", init="random", image_size=160)
    images, stream = load_images(folder, model, n=int(number)), Stream(batch_size=16, workers=0)
    if how == "keep":
        list(trajectories(model, images, stream=stream))
    else:
        layer_similarity(model, images, stream=stream)
    return model.device


def run(choice: Choice) -> dict[str, Any]:
    cuda, size = choice.device == "cuda", choice.batch_size
    dtype = torch.bfloat16 if cuda else torch.float32
    model = bench.chosen_model(choice, dtype=dtype)
    costs = [capture_cost(model, size, choice.rounds, kind) for kind in ("cosine", "token-cosine", "cka")]
    if cuda:
        giant = load_model("dinov2_vitg14", init="random", device="cuda", dtype=dtype)
        cost = capture_cost(giant, size, choice.rounds)
        costs.append({**cost, "peak_gib": torch.cuda.max_memory_allocated() / 2**30})
        del giant
    both, stream = both_precisions(choice), Stream(batch_size=16)
    return {
        "capture": costs,
        "overlap": overlap(choice.device, choice.images, choice.overlap_images),
        "precision": similarity_agreement(both, choice.images, choice.n, stream=stream),
        "peak_memory_mib": bench.memory("bench_capture", choice.memory_images),
        "peak_memory_keeping_states_mib": bench.memory("bench_capture", choice.memory_images, "keep"),
    }


OPTIONS = bench.bench_parser(__doc__, images=True, rounds=24, batch=(16, 64), counts="100,1000")
OPTIONS.add_argument("--overlap-images", type=int, default=800, help="decoded to see whether that overlaps")
main = bench.benchmark("bench_capture", run, OPTIONS, __name__)
