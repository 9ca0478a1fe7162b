"""What all measures of motion cost together, what perturbing every layer costs, and spectra, over the bare forward.

Two things are measured by turns within one run; read the ratios. Ranks are taken on every image, and phases are
found in the same pass (so that the modes keep the moments of all pairs of layers). The error that the fast ranks make
is measured against a float64 SVD of the same updates.
"""

from __future__ import annotations

from functools import partial
from itertools import count, pairwise
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics import Metric

from analyses.bench import benchmark, chosen_model, elapsed, model_parser, ratio
from analyses.recording import Choice
from brdyn import Trajectory, capture, load_images
from brdyn.choices import RIDGE, TANGENTS, chosen_measures
from brdyn.data import Batch
from brdyn.interventions.repair import PerturbationSweep
from brdyn.measures import similarity_metric
from brdyn.measures.contract import Asked, measure_class
from brdyn.measures.spectra import JacobianSpectra
from brdyn.measures.update_field import ranks, singular_values
from brdyn.models import VisionTransformer
from brdyn.raptor.cost import flops

CLASSES = 10
RANKED = 16  # images whose ranks are held against a float64 SVD, which takes long


def measures_cost(model: VisionTransformer, images: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Ratio of capture with all measures to the bare forward, and each measure's own share of a forward."""
    batch_size = len(images)
    labels, starts = torch.arange(batch_size) % CLASSES, count(0, batch_size)
    asked = Asked(boundaries=None, seed=0, ridge=RIDGE, rank=None)
    own = {name: measure_class(name).make(model, asked) for name in chosen_measures(None)}
    every: dict[str, Metric] = {name: metric for name, metric in own.items() if metric.withheld() is None}
    every["similarity"] = similarity_metric("cosine", model)
    for metric in every.values():
        metric.to(model.device)

    def captured() -> Trajectory:
        start = next(starts)
        return capture(model, Batch(images, torch.arange(start, start + batch_size), labels))

    def measured() -> None:
        trajectory = captured()
        for metric in every.values():
            metric.update(trajectory)
        trajectory.check_finite(model.info.name)

    found = ratio(partial(forwards, model, images), measured, rounds, model.device)
    forward = found.pop("bare_seconds")
    spent = [
        {
            name: elapsed(partial(metric.update, trajectory), model.device) / forward
            for name, metric in every.items()
        }
        for trajectory in (captured() for _ in range(max(2, rounds)))
    ]
    shares = {name: float(np.mean([one[name] for one in spent])) for name in every}
    return {"batch_size": batch_size, "forward_seconds": forward, **found, "share_of_a_forward": shares}


def forwards(model: VisionTransformer, images: torch.Tensor, passes: int = 1) -> None:
    """So many bare ones."""
    with torch.no_grad():
        for _ in range(passes):
            model(images)


def sweep_cost(model: VisionTransformer, images: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Ratio of perturbing every state of a batch, one eps, to L + 1 bare forwards; and with the clean pass."""
    clean, passes = capture(model, Batch(images, torch.arange(len(images)), None)), model.depth + 1
    sweep = PerturbationSweep(model, [0.1], ["all"], range(passes))
    found = ratio(partial(forwards, model, images, passes), lambda: sweep.update(clean), rounds, model.device)
    cost = {"batch_size": len(images), "forward_seconds": found.pop("bare_seconds") / passes, **found}
    return {**cost, "ratio_with_its_own_clean_pass": found["ratio"] + 1 / passes}


def spectra_cost(model: VisionTransformer, images: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Ratio of carrying tangents through every block to as many bare forwards, on the same batch."""
    trajectory = capture(model, Batch(images, torch.arange(len(images)), None))
    metric = JacobianSpectra(model).to(model.device)
    bare = partial(forwards, model, images, TANGENTS)
    found = ratio(bare, lambda: metric.update(trajectory), rounds, model.device)
    with FlopCounterMode(display=False) as counter:
        metric.update(trajectory)
    return {
        "tangents": TANGENTS,
        "ratio_of_operations": counter.get_total_flops() / (TANGENTS * len(images) * flops(model)),
        "batch_size": len(images),
        "forward_seconds": found.pop("bare_seconds") / TANGENTS,
        **found,
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


def run(choice: Choice) -> dict[str, Any]:
    model = chosen_model(choice)
    size = choice.batch_size or (128 if choice.device == "cuda" else 16)
    batch = next(load_images(choice.images, model, n=size).batches(size, workers=0))
    images = batch.images.to(model.device)
    sweep = sweep_cost(model, images, max(6, choice.rounds // 2))
    spectra = spectra_cost(model, images, max(6, choice.rounds // 4))
    errors = rank_error(model, images[:RANKED])
    costs = measures_cost(model, images, choice.rounds)
    return {**costs, "perturbation_sweep": sweep, "spectra": spectra, "rank_error": errors}


OPTIONS = model_parser(__doc__, images=True)
OPTIONS.add_argument("--rounds", type=int, default=12)
OPTIONS.add_argument("--batch-size", type=int, help="default: 16 on a CPU, 128 on a GPU")
main = benchmark("bench_dynamics", run, OPTIONS, __name__)
