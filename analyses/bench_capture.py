"""What capture and similarity cost on top of the bare forward, whether decoding overlaps, and memory.

Times are of the same decoded images in the same batches, bare and captured by turns within one run;
read the ratio, not the milliseconds. On CUDA models run in bfloat16, dinov2_vitg14 among them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from analyses.bench import ROOT, name_of, ratio, report
from analyses.precision import both_precisions, similarity_agreement
from analyses.recording import OFFLINE, parser
from brdyn import load_images, load_model
from brdyn.data import Batch
from brdyn.measures import layer_similarity, similarity_metric
from brdyn.models import VisionTransformer
from brdyn.runtime import timed
from brdyn.trajectory import Trajectory, capture

MEMORY_RUN = """
import sys
from analyses.bench import own_peak
from brdyn import layer_similarity, load_images, load_model, trajectories
model = load_model("vit_tiny_patch16_224", init="random", image_size=160)
images = load_images(sys.argv[1], model, n=int(sys.argv[2]))
if sys.argv[3] == "stream":
    layer_similarity(model, images, batch_size=16, workers=0)
else:
    kept = list(trajectories(model, images, batch_size=16, workers=0))
print(own_peak())
"""


def capture_cost(
    model: VisionTransformer, batch_size: int, rounds: int, kind: str = "cosine"
) -> dict[str, Any]:
    """Seconds of the bare forward and of capture with similarity, by turns on the same batch."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, *model.info.image_size, generator=generator)
    images = images.to(model.device, model.dtype)
    starts = count(0, batch_size)
    metric = similarity_metric(kind, model).to(model.device)

    def bare() -> None:
        with torch.no_grad():
            model(images)

    def captured() -> None:
        start = next(starts)
        trajectory = capture(model, Batch(images, torch.arange(start, start + batch_size), None))
        metric.update(trajectory)
        trajectory.check_finite(model.info.name)

    cost = ratio(bare, captured, rounds, model.device)
    states = capture(model, Batch(images, torch.arange(batch_size), None)).states

    def reduced() -> None:
        start = next(starts)
        trajectory = Trajectory(states, model.tokens, torch.arange(start, start + batch_size))
        metric.update(trajectory)
        trajectory.check_finite(model.info.name)

    reduction = np.median([timed(reduced, model.device) for _ in range(rounds)])
    return {
        "model": model.info.name,
        "similarity": kind,
        "dtype": name_of(model.dtype),
        "batch_size": batch_size,
        "captured_seconds": cost.pop("measured_seconds"),
        **cost,
        "reduction_over_bare": reduction / cost["bare_seconds"],
        "bare_images_per_second": batch_size / cost["bare_seconds"],
    }


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
    whole = timed(lambda: layer_similarity(model, images, batch_size=16), model.device)
    sequential = timed(lambda: layer_similarity(model, images, batch_size=16, workers=0), model.device)
    torch.set_num_threads(threads)
    return {
        "model": "vit_tiny_patch16_224 at 96 pixels",
        "images": len(images),
        "decode_seconds": decode,
        "compute_seconds": compute,
        "background_seconds": whole,
        "sequential_seconds": sequential,
        "background_over_sequential": whole / sequential,
    }


def memory(counts: tuple[int, ...] = (100, 1000), how: str = "stream") -> dict[str, float]:
    """Peak memory in MiB of a fresh process for each number of images (Linux).

    `how` is `stream`, or `keep` for a control that holds every state.
    """
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(max(counts)):
            pixels = rng.integers(0, 255, (72, 96, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder) / f"{index:05}.jpg")
        peaks = {}
        for number in counts:
            command = [sys.executable, "-c", MEMORY_RUN, folder, str(number), how]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
            peaks[str(number)] = float(done.stdout)
    return peaks


def main() -> None:
    """Run and record."""
    options = parser(__doc__)
    options.add_argument("--images", default="samples", help="photographs for the overlap measurement")
    options.add_argument("--rounds", type=int, default=24)
    options.add_argument("--image-size", type=int, help=f"of {OFFLINE}")
    options.add_argument(
        "--overlap-images", type=int, default=800, help="decoded for the overlap measurement"
    )
    options.add_argument(
        "--memory-images",
        default="100,1000",
        help="numbers of images that memory is measured for; none where empty",
    )
    options.add_argument("--weights", type=Path, help="trunk of imgfocus_vits14 from analyses.export_trunk")
    choice = options.parse_args()
    cuda = choice.device == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    offline = {"weights": choice.weights, "image_size": choice.image_size}
    small = load_model(OFFLINE, device=choice.device, dtype=dtype, **offline)
    size, kinds = (64 if cuda else 16), ("cosine", "token-cosine", "cka")
    costs = [capture_cost(small, size, choice.rounds, kind) for kind in kinds]
    if cuda:
        giant = load_model("dinov2_vitg14", init="random", device="cuda", dtype=dtype)
        cost = capture_cost(giant, size, choice.rounds)
        costs.append({**cost, "peak_gib": torch.cuda.max_memory_allocated() / 2**30})
        del giant
    counts = tuple(int(count) for count in choice.memory_images.split(",") if count)
    peaks, control = (memory(counts, how) if counts else {} for how in ("stream", "keep"))
    content = {
        "capture": costs,
        "overlap": overlap(choice.device, choice.images, choice.overlap_images),
        "precision": similarity_agreement(
            both_precisions(OFFLINE, choice.device, **offline), choice.images, 64, batch_size=16
        ),
        "peak_memory_mib": peaks,
        "peak_memory_keeping_states_mib": control,
    }
    report("bench_capture", choice, content)


if __name__ == "__main__":
    main()
