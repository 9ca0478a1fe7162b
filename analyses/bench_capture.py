"""What capture and similarity cost on top of the bare forward, whether decoding overlaps, and memory.

Times are of the same decoded images in the same batches, bare and captured by turns within one run;
read the ratio, not the milliseconds. On CUDA models run in bfloat16, dinov2_vitg14 among them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from analyses.bench import benchmark, elapsed, name_of, peak_of, ratio
from analyses.precision import both_precisions, similarity_agreement
from analyses.recording import OFFLINE, Choice, parser
from brdyn import Stream, Trajectory, capture, layer_similarity, load_images, load_model, trajectories
from brdyn.data import Batch
from brdyn.measures import similarity_metric
from brdyn.models import VisionTransformer
from brdyn.runtime import timed


def capture_cost(
    model: VisionTransformer, batch_size: int, rounds: int, kind: str = "cosine"
) -> dict[str, Any]:
    """Seconds of the bare forward and of capture with similarity, by turns on the same batch."""
    generator, starts = torch.Generator().manual_seed(0), count(0, batch_size)
    images = torch.randn(batch_size, 3, *model.info.image_size, generator=generator)
    images = images.to(model.device, model.dtype)
    metric = similarity_metric(kind, model).to(model.device)

    def batch() -> Batch:
        start = next(starts)
        return Batch(images, torch.arange(start, start + batch_size), None)

    def bare() -> None:
        with torch.no_grad():
            model(images)

    def reduced(trajectory: Trajectory) -> None:
        metric.update(trajectory)
        trajectory.check_finite(model.info.name)

    cost = ratio(bare, lambda: reduced(capture(model, batch())), rounds, model.device)
    states = capture(model, batch()).states
    spent = []
    for _ in range(rounds):
        trajectory = Trajectory(states, model.tokens, batch().positions)
        spent.append(elapsed(partial(reduced, trajectory), model.device))
    return {
        "model": model.info.name, "similarity": kind, "dtype": name_of(model.dtype), "batch_size": batch_size,
        "captured_seconds": cost.pop("measured_seconds"), **cost,
        "reduction_over_bare": float(np.median(spent)) / cost["bare_seconds"],
        "bare_images_per_second": batch_size / cost["bare_seconds"],
    }  # fmt: skip


def overlap(device: str, source: str, n: int) -> dict[str, Any]:
    """Seconds to decode alone, to run on decoded images alone, and for both: in turn, and with decoding behind.

    A small model, so that decoding matters. On a CPU the model gets one thread: with all cores busy
    computing there is nothing left to overlap with.
    """
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    model = load_model("vit_tiny_patch16_224", init="random", image_size=96, device=device)
    images = load_images(source, model, n=n)
    decode = timed(lambda: [None for _ in images.batches(16, workers=0)], model.device)
    batches = list(images.batches(16, workers=0))
    metric = similarity_metric("cosine", model).to(model.device)
    compute = timed(lambda: [metric.update(capture(model, batch)) for batch in batches], model.device)
    whole = timed(lambda: layer_similarity(model, images, stream=Stream(batch_size=16)), model.device)
    sequential = timed(
        lambda: layer_similarity(model, images, stream=Stream(batch_size=16, workers=0)), model.device
    )
    torch.set_num_threads(threads)
    return {
        "model": "vit_tiny_patch16_224 at 96 pixels", "images": len(images), "decode_seconds": decode,
        "compute_seconds": compute, "background_seconds": whole, "sequential_seconds": sequential,
        "background_over_sequential": whole / sequential,
    }  # fmt: skip


@contextmanager
def pictures(number: int) -> Iterator[str]:
    """A folder with so many of noise, for a while."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(number):
            pixels = rng.integers(0, 255, (72, 96, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder) / f"{index:05}.jpg")
        yield folder


def memory(counts: tuple[int, ...] = (100, 1000), how: str = "stream") -> dict[str, float]:
    """Peak memory in MiB of a fresh process for each number of images (Linux).

    `how` is `stream`, or `keep` for a control that holds every state.
    """
    with pictures(max(counts)) as folder:
        return {str(number): peak_of("bench_capture", folder, str(number), how) for number in counts}


def alone(folder: str, number: str, how: str) -> torch.device:
    model = load_model("vit_tiny_patch16_224", init="random", image_size=160)
    images = load_images(folder, model, n=int(number))
    work = (
        layer_similarity
        if how == "stream"
        else lambda *given, **options: list(trajectories(*given, **options))
    )
    work(model, images, stream=Stream(batch_size=16, workers=0))
    return model.device


def run(choice: Choice) -> dict[str, Any]:
    cuda = choice.device == "cuda"
    dtype, size = (torch.bfloat16, 64) if cuda else (torch.float32, 16)
    offline = {"weights": choice.weights, "image_size": choice.image_size}
    small = load_model(OFFLINE, device=choice.device, dtype=dtype, **offline)
    costs = [capture_cost(small, size, choice.rounds, kind) for kind in ("cosine", "token-cosine", "cka")]
    if cuda:
        giant = load_model("dinov2_vitg14", init="random", device="cuda", dtype=dtype)
        cost = capture_cost(giant, size, choice.rounds)
        costs.append({**cost, "peak_gib": torch.cuda.max_memory_allocated() / 2**30})
        del giant
    counts = tuple(int(count) for count in choice.memory_images.split(",") if count)
    peaks, control = (memory(counts, how) if counts else {} for how in ("stream", "keep"))
    both = both_precisions(OFFLINE, choice.device, **offline)
    return {
        "capture": costs,
        "overlap": overlap(choice.device, choice.images, choice.overlap_images),
        "precision": similarity_agreement(both, choice.images, 64, stream=Stream(batch_size=16)),
        "peak_memory_mib": peaks,
        "peak_memory_keeping_states_mib": control,
    }


OPTIONS = parser(__doc__)
OPTIONS.add_argument("--images", default="samples", help="photographs for the overlap measurement")
OPTIONS.add_argument("--rounds", type=int, default=24)
OPTIONS.add_argument("--image-size", type=int, help=f"of {OFFLINE}")
OPTIONS.add_argument("--overlap-images", type=int, default=800, help="decoded for that")
OPTIONS.add_argument(
    "--memory-images", default="100,1000", help="numbers of images to measure memory for, or none"
)
OPTIONS.add_argument("--weights", type=Path, help=f"trunk of {OFFLINE} from analyses.export_trunk")
main = benchmark("bench_capture", run, OPTIONS, __name__)
