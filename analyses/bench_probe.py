"""What probes of every layer cost: extraction on top of the bare forward, training heads, memory with the images.

Extraction and the bare forward are timed by turns on the same batch; read the ratio. Heads are trained on
random features
of the shape of CamVid at 224 pixels, whose values cost the same as real ones.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analyses.bench import peak_of, ratio
from analyses.recording import OFFLINE, Choice, command, parser, record
from brdyn import capture, load_model
from brdyn.data import Batch
from brdyn.models import VisionTransformer
from brdyn.probes import Recipe, Segmentation
from brdyn.probes.heads import fit_heads, split_images
from brdyn.probes.stores import FeatureStore, Readout
from brdyn.runtime import timed

CAMVID = {"images": 367, "layers": 12, "grid": 16, "width": 384, "classes": 12, "patch": 14}


def extraction_cost(model: VisionTransformer, batch_size: int, rounds: int) -> dict[str, Any]:
    """Seconds of the bare forward, and of reading out all layers to disk, by turns on the same batch."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, *model.info.image_size, generator=generator).to(
        model.device, model.dtype
    )
    layers, readout = tuple(range(1, model.depth + 1)), Readout(model)
    count = sum(model.tokens.sizes()[group] for group in model.tokens.readouts)
    with tempfile.TemporaryDirectory() as folder:
        shape = (batch_size, len(layers), count, model.info.width)
        values = np.memmap(Path(folder) / "features", np.float16, "w+", shape=shape)

        def bare() -> None:
            with torch.no_grad():
                model(images)

        def extracted() -> None:
            trajectory = capture(model, Batch(images, torch.arange(batch_size), None))
            values[:] = readout.features(trajectory, layers).cpu().numpy()

        return ratio(bare, extracted, rounds, model.device)


def random_store(folder: Path, images: int, shape: dict[str, int]) -> FeatureStore:
    """Features on disk, an image at a time."""
    tokens, side = shape["grid"] ** 2 + 1, shape["grid"] * shape["patch"]
    values = np.memmap(
        folder / "features", np.float16, "w+", shape=(images, shape["layers"], tokens, shape["width"])
    )
    targets = np.memmap(folder / "targets", np.int16, "w+", shape=(images, side, side))
    grid, layers = (shape["grid"], shape["grid"]), tuple(range(1, shape["layers"] + 1))
    store = FeatureStore(values, targets, layers, grid, True, list(range(images)))
    rng = np.random.default_rng(0)
    for row in range(images):
        values[row] = rng.standard_normal(values.shape[1:], dtype=np.float32)
        targets[row] = rng.integers(0, shape["classes"], targets.shape[1:])
        store.release()
    return store


def train(store: FeatureStore, classes: int, recipe: Recipe) -> None:
    """The heads of all layers in one pass, as `brdyn probe --task segmentation --layers all` trains them."""
    fitting, choosing = split_images(len(store), 0)
    places = [(layer,) for layer in store.layers]
    task = Segmentation([str(number) for number in range(classes)])
    fit_heads(task, (store, fitting), (store, choosing), places, recipe)


def head_seconds(images: int, recipe: Recipe, shape: dict[str, int]) -> float:
    """Of one seed, for so many images."""
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder), images, shape)
        return timed(lambda: train(store, shape["classes"], recipe), torch.device("cpu"))


def alone(images: str, layers: str) -> torch.device:
    """What a fresh process does to have its memory measured."""
    with tempfile.TemporaryDirectory() as folder:
        shape = {**CAMVID, "layers": int(layers)}
        train(random_store(Path(folder), int(images), shape), shape["classes"], Recipe(epochs=1))
    return torch.device("cpu")


def run(choice: Choice) -> None:
    model = load_model(OFFLINE, device=choice.device)
    shape = {**CAMVID, "images": choice.images}
    path = record(
        "bench_probe",
        choice.device,
        {
            "extraction": extraction_cost(model, 16, choice.rounds),
            "heads": {
                **shape,
                "epochs": Recipe().epochs,
                "seconds": head_seconds(choice.images, Recipe(), shape),
            },
            "peak_memory_mib": {str(count): peak_of("bench_probe", str(count), "2") for count in (100, 1000)},
            "threads": torch.get_num_threads(),
        },
        choice.out,
    )
    print(path)


OPTIONS = parser(__doc__)
OPTIONS.add_argument("--rounds", type=int, default=10)
OPTIONS.add_argument("--images", type=int, default=CAMVID["images"], help="to train heads on")
main = command(run, OPTIONS, __name__)
