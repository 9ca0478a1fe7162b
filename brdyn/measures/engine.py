"""One pass over the images for any number of measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torchmetrics import Metric

from brdyn.arguments import checked
from brdyn.choices import REPLICATES, SIMILARITY, check_spread, one_of
from brdyn.data import ImageSet, ReadReport
from brdyn.errors import UsageError
from brdyn.measures.cka import LinearCKA
from brdyn.measures.cosine import CosineSimilarity, TokenCosineSimilarity
from brdyn.measures.procrustes import Procrustes
from brdyn.measures.similarity import SimilarityMetric
from brdyn.models import VisionTransformer
from brdyn.phases import LayerSimilarity
from brdyn.provenance import Provenance, Stopwatch
from brdyn.runtime import available_memory
from brdyn.seeds import check_seed
from brdyn.trajectory import Stream, Trajectory, visit_trajectories

SIMILARITIES: dict[str, Callable[..., SimilarityMetric]] = {
    "cosine": CosineSimilarity,
    "token-cosine": TokenCosineSimilarity,
    "cka": LinearCKA,
    "procrustes": Procrustes,
}
BOOTSTRAP_COPIES = 8  # of all samples at once, in the measure and when each is cut into phases
MEMORY_SHARE = 0.5


@checked
def similarity_metric(
    kind: str,
    model: VisionTransformer,
    *,
    tokens: str | Sequence[str] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> SimilarityMetric:
    """Build a similarity measure for a model.

    Raises
    ------
    UsageError
        If there is no such measure, the model has no such tokens, or the bootstrap does not fit in memory.

    Examples
    --------
    >>> from brdyn.measures import similarity_metric
    >>> metric = similarity_metric("cka", model, tokens="cls+patches", replicates=50)
    >>> metric.kind, metric.groups, metric.depth
    ('cka', ['cls', 'patches'], 12)
    """
    one_of("similarity", kind, SIMILARITIES)
    check_seed(seed)
    check_replicates(replicates, model)
    extra: dict[str, Any] = {"width": model.info.width} if kind in ("cka", "procrustes") else {}
    if kind == "procrustes":
        extra["device"] = metric_device(model)
    return SIMILARITIES[kind](model.tokens, model.depth, tokens, replicates, seed, **extra)


def check_replicates(replicates: int, model: VisionTransformer) -> None:
    """Refuse a number of bootstrap samples that is negative, one alone, or does not fit in memory.

    Raises
    ------
    UsageError
        With what would do.
    """
    check_spread(replicates)
    needed = 8 * BOOTSTRAP_COPIES * replicates * (model.depth + 1) ** 2
    if needed > MEMORY_SHARE * available_memory(metric_device(model)):
        raise UsageError(
            f"{replicates} bootstrap samples of the similarity of {model.depth} layers would take "
            f"{needed / 2**30:.1f} GiB; use fewer, for instance {REPLICATES}"
        )


def metric_device(model: VisionTransformer) -> torch.device:
    """Where metrics of a model live: with it, but on the CPU for MPS, which has no float64."""
    return torch.device("cpu") if model.device.type == "mps" else model.device


@checked
def measure(
    model: VisionTransformer,
    images: ImageSet,
    metrics: Mapping[str, Metric],
    stream: Stream | None = None,
) -> ReadReport:
    """Feed every measure with every trajectory, in one pass.

    Metrics are moved to :func:`metric_device`. Where one has `needs_branches`, trajectories come with branches.

    Returns
    -------
    ReadReport
        What was read and skipped, over all processes.

    Examples
    --------
    >>> from brdyn.measures import measure, similarity_metric
    >>> metrics = {kind: similarity_metric(kind, model) for kind in ("cosine", "cka")}
    >>> measure(model, images, metrics).count
    8
    >>> metrics["cka"].result().matrix.shape
    (12, 12)
    """
    for metric in metrics.values():
        metric.to(metric_device(model))

    def update(trajectory: Trajectory) -> None:
        for metric in metrics.values():
            metric.update(trajectory)

    branches = any(getattr(metric, "needs_branches", False) for metric in metrics.values())
    return visit_trajectories(model, images, update, stream=stream, branches=branches)


@checked
def layer_similarity(
    model: VisionTransformer,
    images: ImageSet,
    kind: str = SIMILARITY,
    *,
    tokens: str | Sequence[str] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    stream: Stream | None = None,
) -> LayerSimilarity:
    """Similarity between the outputs of all pairs of blocks, with a bootstrap over images.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet
    kind : {"cosine", "token-cosine", "cka", "procrustes"}
    tokens : str or sequence of str, optional
        Token groups, in one text joined by `+`, or `all`; by default what an image is read out from: cls, where there
        is one, and patches.
    replicates, seed : int
        Bootstrap samples, and their seed.
    stream : Stream, optional
        How to go through the images.

    Returns
    -------
    LayerSimilarity

    Examples
    --------
    >>> similarity = brdyn.layer_similarity(model, images, "cosine", tokens="cls")
    >>> similarity.matrix.shape, similarity.replicates.shape
    ((12, 12), (200, 12, 12))
    """
    watch, stream = Stopwatch(), stream or Stream()
    metric = similarity_metric(kind, model, tokens=tokens, replicates=replicates, seed=seed)
    measure(model, images, {kind: metric}, stream=stream)
    found = metric.result()
    samples = 0 if found.replicates is None else len(found.replicates)
    bootstrap = {"replicates": samples, "unit": found.unit}
    origin = Provenance.of(model, images, watch, stream.processes, seed=seed, bootstrap=bootstrap)
    return replace(found, provenance=origin)
