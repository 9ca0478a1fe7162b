"""What probes of every layer cost: extraction on top of the bare forward, training heads, memory with the images.

Extraction and the bare forward are timed by turns on the same batch; read the ratio. Heads are trained on random
features of the shape of CamVid at 224 pixels, whose values cost the same as real ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analyses.bench import batches_of, bench_parser, benchmark, noise, over_forwards, peak_of
from analyses.recording import OFFLINE, Choice
from brdyn import capture, load_model
from brdyn.models import VisionTransformer
from brdyn.probes import Recipe, Segmentation
from brdyn.probes.heads import fit_heads, split_images
from brdyn.probes.stores import FeatureStore, Readout
from brdyn.runtime import timed

CPU = torch.device("cpu")
CAMVID = {"images": 367, "layers": 12, "grid": 16, "width": 384, "classes": 12, "patch": 14}
BATCH = 16


def extraction_cost(model: VisionTransformer, batch_size: int, rounds: int) -> dict[str, Any]:
    """Seconds of the bare forward, and of reading out all layers to disk, by turns on the same batch."""
    images, layers, readout = noise(model, batch_size), tuple(range(1, model.depth + 1)), Readout(model)
    batch, count = next(batches_of(images)), sum(model.tokens.sizes()[group] for group in model.tokens.readouts)
    with tempfile.TemporaryDirectory() as folder:
        shape = (batch_size, len(layers), count, model.info.width)
        values = np.memmap(Path(folder) / "features", np.float16, "w+", shape=shape)

        def extracted() -> None:
            values[:] = readout.features(capture(model, batch), layers).cpu().numpy()

        return over_forwards(model, images, extracted, rounds)


def random_store(folder: Path, shape: Mapping[str, int]) -> FeatureStore:
    """Features on disk, an image at a time."""
    images, tokens, side = shape["images"], shape["grid"] ** 2 + 1, shape["grid"] * shape["patch"]
    each = (shape["layers"], tokens, shape["width"])
    values = np.memmap(folder / "features", np.float16, "w+", shape=(images, *each))
    targets = np.memmap(folder / "targets", np.int16, "w+", shape=(images, side, side))
    grid, layers = (shape["grid"], shape["grid"]), tuple(range(1, shape["layers"] + 1))
    store = FeatureStore(values, targets, layers, grid, True, list(range(images)))
    rng = np.random.default_rng(0)
    for row in range(images):
        values[row] = rng.standard_normal(each, dtype=np.float32)
        targets[row] = rng.integers(0, shape["classes"], (side, side))
        store.release()
    return store


def head_seconds(recipe: Recipe, shape: Mapping[str, int]) -> float:
    """Of the heads of all layers in one pass, as `brdyn probe --task segmentation --layers all` trains them from a
    seed."""
    task = Segmentation([str(number) for number in range(shape["classes"])])
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder), shape)
        fitting, choosing = split_images(len(store), 0)
        places = [(layer,) for layer in store.layers]
        return timed(lambda: fit_heads(task, (store, fitting), (store, choosing), places, recipe), CPU)


def alone(images: str, layers: str) -> torch.device:
    """What a fresh process does to have its memory measured."""
    head_seconds(Recipe(epochs=1), {**CAMVID, "images": int(images), "layers": int(layers)})
    return CPU


def run(choice: Choice) -> dict[str, Any]:
    shape, recipe = {**CAMVID, "images": choice.images}, Recipe()
    return {
        "extraction": extraction_cost(load_model(OFFLINE, device=choice.device), BATCH, choice.rounds),
        "heads": {**shape, "epochs": recipe.epochs, "seconds": head_seconds(recipe, shape)},
        "peak_memory_mib": {count: peak_of("bench_probe", count, "2") for count in ("100", "1000")},
        "threads": torch.get_num_threads(),
    }


OPTIONS = bench_parser(__doc__, model=False, rounds=10)
OPTIONS.add_argument("--images", type=int, default=CAMVID["images"], help="to train heads on")
main = benchmark("bench_probe", run, OPTIONS, __name__)
