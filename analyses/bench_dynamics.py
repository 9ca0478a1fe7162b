"""What all measures of motion cost together, over the bare forward, with the ranks taken on every image.

Bare and measured by turns within one run; read the ratio. The error that the fast ranks make is measured against
a float64 SVD of the same updates.
"""

from __future__ import annotations

from itertools import count, pairwise
from typing import Any

import numpy as np
import torch

from analyses.bench_capture import timed
from analyses.recording import parser, record
from brdyn import load_images, load_model
from brdyn.data import Batch
from brdyn.measures.dynamics import CURVES
from brdyn.measures.engine import similarity_metric
from brdyn.measures.estimation import EstimationError
from brdyn.measures.update_field import ranks, singular_values
from brdyn.models import VisionTransformer
from brdyn.trajectory import capture


def cost(model: VisionTransformer, images: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Ratio of capture with all measures to the bare forward, and each measure's own share of a forward."""
    batch_size = len(images)
    metrics = {name: kind(model.tokens, model.depth).to(model.device) for name, kind in CURVES.items()}
    metrics["estimation"] = EstimationError(model.tokens, model.depth).to(model.device)
    every = {**metrics, "similarity": similarity_metric("cosine", model).to(model.device)}
    starts = count(0, batch_size)

    def bare() -> None:
        with torch.no_grad():
            model(images)

    def measured() -> None:
        start = next(starts)
        trajectory = capture(model, Batch(images, torch.arange(start, start + batch_size), None))
        for metric in every.values():
            metric.update(trajectory)
        trajectory.check_finite(model.info.name)

    bare()
    measured()
    pairs = np.empty((rounds, 2))
    for index in range(rounds):
        for which in (0, 1) if index % 2 == 0 else (1, 0):
            pairs[index, which] = timed((bare, measured)[which], model.device)
    ratios = pairs[:, 1] / pairs[:, 0]
    forward = float(np.median(pairs[:, 0]))
    shares = {}
    for name, metric in every.items():
        trajectory = capture(model, Batch(images, torch.arange(batch_size), None))
        shares[name] = timed(lambda m=metric, t=trajectory: m.update(t), model.device) / forward
    draws = ratios[np.random.default_rng(0).integers(0, rounds, (1000, rounds))]
    return {
        "batch_size": batch_size,
        "forward_seconds": forward,
        "ratio": float(np.median(ratios)),
        "ratio_interval_95": np.percentile(np.median(draws, axis=1), [2.5, 97.5]).tolist(),
        "share_of_a_forward": shares,
    }


def rank_error(model: VisionTransformer, images: torch.Tensor) -> dict[str, float]:
    """Largest relative error of the ranks of single images against a float64 SVD."""
    states = capture(model, Batch(images, torch.arange(len(images)), None)).states
    part = model.tokens["patches"]
    worst = {"stable_rank": 0.0, "effective_rank": 0.0}
    for before, after in pairwise(states):
        step = (after.float() - before.float())[:, part]
        fast, exact = ranks(singular_values(step).double()), ranks(torch.linalg.svdvals(step.double()))
        for name, quick, slow in zip(worst, fast, exact, strict=True):
            worst[name] = max(worst[name], float(((quick - slow) / slow).abs().max()))
    return worst


def main() -> None:
    """Run and record."""
    options = parser(__doc__)
    options.add_argument("--images", default="samples", help="photographs to measure on")
    options.add_argument("--rounds", type=int, default=12)
    options.add_argument("--batch-size", type=int, default=16)
    choice = options.parse_args()
    model = load_model("imgfocus_vits14", device=choice.device)
    batch = next(load_images(choice.images, model, n=choice.batch_size).batches(choice.batch_size, workers=0))
    images = batch.images.to(model.device)
    found = cost(model, images, choice.rounds)
    errors = rank_error(model, images)
    low, high = found["ratio_interval_95"]
    print(f"all measures / bare forward = {found['ratio']:.2f} [{low:.2f}, {high:.2f}]")
    for name, share in found["share_of_a_forward"].items():
        print(f"  {name:<12} {share:.3f} of a forward")
    print(
        f"largest relative error: stable rank {errors['stable_rank']:.1e}, "
        f"effective rank {errors['effective_rank']:.1e}"
    )
    print("written to", record("bench_dynamics", choice.device, {**found, "rank_error": errors}, choice.out))


if __name__ == "__main__":
    main()
