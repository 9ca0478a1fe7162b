"""What bfloat16 changes: similarity by every measure, phases for every k, and how tokens move, against float32.

    python -m analyses.precision --images photos.parquet
    python -m analyses.precision --images photos.parquet --device cuda --weights trunk.safetensors

Differences of curves are also given over the half width of float32's own 95 % interval over images: below 1 the
precision matters less than which images were taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyses.bench import BOTH, CURVES, bench_parser, benchmark, chosen_model
from analyses.recording import Choice
from brdyn import layer_similarity, load_images, segment, token_dynamics
from brdyn.measures import SIMILARITIES
from brdyn.models import VisionTransformer
from brdyn.store import records

ROUNDING = 1e-5  # of the largest mean: a narrower interval is of what is equal for all images by definition


def similarity_agreement(
    models: tuple[VisionTransformer, VisionTransformer], source: str, n: int, kind: str = "cosine", **options: Any
) -> dict[str, Any]:  # fmt: skip
    """How far a model's second precision moves the similarity of layers, and for which k boundaries stay."""
    full, half = (
        layer_similarity(model, load_images(source, model, n=n), kind, replicates=0, **options) for model in models
    )
    wanted, found = segment(full).segmentations, segment(half).segmentations
    return {
        "images": n,
        "layers": len(full.matrix),
        "largest_difference": float(np.abs(full.matrix - half.matrix).max()),
        "k_with_the_same_boundaries": [k for k in wanted if wanted[k].boundaries == found[k].boundaries],
    }


def dynamics_agreement(
    models: tuple[VisionTransformer, VisionTransformer], source: str, n: int, **options: Any
) -> list[dict[Any, Any]]:
    """Largest change over depth of the mean of every curve, by statistic and token group."""
    full, half = (
        token_dynamics(model, load_images(source, model, n=n), measures=CURVES, **options).table for model in models
    )
    keys = ["statistic", "group", "layer"]
    both = full.merge(half, on=keys, suffixes=("", "_half"))
    both["size"], both["difference"] = both["mean"].abs(), (both["mean"] - both["mean_half"]).abs()
    width, by = (both["high"] - both["low"]) / 2, both.groupby(keys[:2], sort=False)
    both["of_half_width"] = (both["difference"] / width).where(width > ROUNDING * by["size"].transform("max"))
    largest = both.groupby(keys[:2], sort=False)[["difference", "size", "of_half_width"]].max().reset_index()
    largest["of_the_largest_mean"] = largest["difference"] / largest.pop("size").where(lambda size: size > 0)
    return records(largest)


def both_precisions(choice: Choice) -> tuple[VisionTransformer, VisionTransformer]:
    """The model in float32 and in bfloat16."""
    half, full = (chosen_model(choice, dtype=dtype) for dtype in BOTH)
    return full, half


def run(choice: Choice) -> dict[str, Any]:
    asked = both_precisions(choice), choice.images, choice.n
    return {
        "model": asked[0][0].info.to_dict(),
        "similarity": {kind: similarity_agreement(*asked, kind) for kind in SIMILARITIES},
        "dynamics": dynamics_agreement(*asked),
    }


main = benchmark("precision", run, bench_parser(__doc__, images=True), __name__)
