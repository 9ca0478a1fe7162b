"""What all measures of motion cost together, what perturbing every layer costs, and spectra, over the bare forward.

Two things are measured by turns within one run; read the ratios. Ranks are taken on every image, and phases are
found in the same pass (so that the modes keep the moments of all pairs of layers). The error that the fast ranks make
is measured against a float64 SVD of the same updates.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torchmetrics import Metric

from analyses import bench
from analyses.recording import Choice
from brdyn import capture
from brdyn.choices import RIDGE, TANGENTS, chosen_measures
from brdyn.interventions.repair import PerturbationSweep
from brdyn.measures import similarity_metric
from brdyn.measures.contract import Asked, measure_class
from brdyn.measures.spectra import JacobianSpectra
from brdyn.measures.update_field import ranks, singular_values
from brdyn.models import VisionTransformer
from brdyn.raptor.cost import flops
from brdyn.runtime import timed

CLASSES = 10
RANKED = 16  # images whose ranks are held against a float64 SVD, which takes long


def measures_cost(model: VisionTransformer, images: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Ratio of capture with all measures to the bare forward, and each measure's own share of a forward."""
    batches = bench.batches_of(images, torch.arange(len(images)) % CLASSES)
    asked = Asked(boundaries=None, seed=0, ridge=RIDGE, rank=None)
    own = {name: measure_class(name).make(model, asked) for name in chosen_measures(None)}
    every: dict[str, Metric] = {name: metric for name, metric in own.items() if metric.withheld() is None}
    every["similarity"] = similarity_metric("cosine", model)
    for metric in every.values():
        metric.to(model.device)

    def measured() -> None:
        trajectory = capture(model, next(batches))
        for metric in every.values():
            metric.update(trajectory)
        trajectory.check_finite(model.info.name)

    found = bench.over_forwards(model, images, measured, rounds)
    spent = [
        {name: timed(partial(metric.update, trajectory), model.device) for name, metric in every.items()}
        for trajectory in (capture(model, next(batches)) for _ in range(max(2, rounds)))
    ]
    shares = {name: float(np.mean([one[name] for one in spent])) / found["forward_seconds"] for name in every}
    return {**found, "share_of_a_forward": shares}


def sweep_cost(model: VisionTransformer, images: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Ratio of perturbing every state of a batch, one eps, to L + 1 bare forwards; and with the clean pass."""
    clean, passes = capture(model, next(bench.batches_of(images))), model.depth + 1
    sweep = PerturbationSweep(model, [0.1], ["all"], range(passes))
    found = bench.over_forwards(model, images, lambda: sweep.update(clean), rounds, passes)
    return {**found, "ratio_with_its_own_clean_pass": found["ratio"] + 1 / passes}


def spectra_cost(model: VisionTransformer, images: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Ratio of carrying tangents through every block to as many bare forwards, on the same batch."""
    trajectory = capture(model, next(bench.batches_of(images)))
    metric = JacobianSpectra(model).to(model.device)
    update = partial(metric.update, trajectory)
    found = bench.over_forwards(model, images, update, rounds, TANGENTS)
    over = bench.operations(update) / (TANGENTS * len(images) * flops(model))
    return {"tangents": TANGENTS, "ratio_of_operations": over, **found}


def rank_error(model: VisionTransformer, images: torch.Tensor) -> dict[str, float]:
    """Largest relative error of the ranks of single images against a float64 SVD."""
    states, part = capture(model, next(bench.batches_of(images))).states, model.tokens["patches"]
    worst = {"stable_rank": 0.0, "effective_rank": 0.0}
    for before, after in pairwise(states):
        step = (after.float() - before.float())[:, part]
        fast, exact = ranks(singular_values(step).double()), ranks(torch.linalg.svdvals(step.double()))
        for name, quick, slow in zip(worst, fast, exact, strict=True):
            worst[name] = max(worst[name], float(((quick - slow) / slow).abs().max()))
    return worst


def run(choice: Choice) -> dict[str, Any]:
    model = bench.chosen_model(choice)
    images = bench.photographs(choice, model)
    sweep = sweep_cost(model, images, max(6, choice.rounds // 2))
    spectra = spectra_cost(model, images, max(6, choice.rounds // 4))
    errors = rank_error(model, images[:RANKED])
    costs = measures_cost(model, images, choice.rounds)
    return {**costs, "perturbation_sweep": sweep, "spectra": spectra, "rank_error": errors}


OPTIONS = bench.bench_parser(__doc__, images=True, rounds=12, batch=(16, 128))
main = bench.benchmark("bench_dynamics", run, OPTIONS, __name__)
