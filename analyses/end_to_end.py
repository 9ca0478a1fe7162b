"""A model from its name to phases and motion: images/s, where the time goes, and peak memory.

    python -m analyses.end_to_end                                       # the offline model on a CPU
    python -m analyses.end_to_end --model dinov2_vitg14 --init random --dtype bfloat16 --device cuda --images photos/

Decoding, capture and measures overlap as they do in `brdyn phases` and `brdyn dynamics`; nothing is left out.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from analyses.recording import OFFLINE, parser, record
from analyses.timing import own_peak
from brdyn import layer_similarity, load_images, load_model, segment
from brdyn.errors import BrdynError
from brdyn.measures.dynamics import CURVES, token_dynamics
from brdyn.models import VisionTransformer
from brdyn.runtime import DTYPES, resolve_dtype

RUNS = ("phases", "dynamics")


def peak(model: VisionTransformer) -> float:
    """Most memory taken so far, MiB: of the GPU where the model is on one, else of this process (Linux)."""
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device) / 2**20
    return own_peak()


def run(name: str, model: VisionTransformer, source: str, n: int, workers: int | None) -> dict[str, Any]:
    """One command's work on so many images."""
    images = load_images(source, model, n=n)
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    started = time.perf_counter()
    if name == "phases":
        phases = segment(layer_similarity(model, images, workers=workers))
    else:
        phases = token_dynamics(model, images, measures=tuple(CURVES), workers=workers).phases
    seconds = time.perf_counter() - started
    return {
        "run": name,
        "images": images.report.count,
        "seconds": seconds,
        "images_per_second": images.report.count / seconds,
        "peak_mib": peak(model),
        "boundaries": list(phases.boundaries),
    }


def main() -> None:
    """Run and record."""
    options = parser(__doc__)
    options.add_argument("--images", default="samples", help="photographs")
    options.add_argument("--n", type=int, default=64, help="of them")
    options.add_argument("--model", default=OFFLINE)
    options.add_argument("--weights", type=Path, help="as in `brdyn phases`")
    options.add_argument("--init", default="pretrained", help="random for an architecture without weights")
    options.add_argument("--image-size", type=int)
    options.add_argument("--dtype", default="float32", choices=DTYPES)
    options.add_argument("--workers", type=int, help="loader processes (default: as `brdyn phases`)")
    choice = options.parse_args()
    started = time.perf_counter()
    try:
        model = load_model(
            choice.model,
            weights=choice.weights,
            init=choice.init,
            image_size=choice.image_size,
            device=choice.device,
            dtype=resolve_dtype(choice.dtype),
        )
        loading = time.perf_counter() - started
        runs = [run(name, model, choice.images, choice.n, choice.workers) for name in RUNS]
    except BrdynError as error:
        options.error(str(error))
    print(
        f"{choice.model}: {model.depth} layers, {model.info.parameters / 1e6:.0f} M parameters, "
        f"loaded in {loading:.1f} s"
    )
    for found in runs:
        print(
            f"{found['run']}: {found['images']} images in {found['seconds']:.1f} s, "
            f"{found['images_per_second']:.1f} images/s, "
            f"peak {found['peak_mib']:.0f} MiB, phases end after {found['boundaries']}"
        )
    content = {"model": model.info.to_dict(), "dtype": choice.dtype, "loading_seconds": loading, "runs": runs}
    print("written to", record(f"end_to_end_{choice.model}", choice.device, content, choice.out))


if __name__ == "__main__":
    main()
