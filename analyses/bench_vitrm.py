"""A training step of ViTRM against a direct write-up of the published loop, and its latency against ViT-Small.

Ours does what the training loop does on a batch: the images are on the device as pixels, are augmented there a batch at
a time, and go through the network with fused attention in bfloat16 by autocast. The write-up has worker processes that
augment PIL images one by one, and trains in float32 with `nn.MultiheadAttention` as it comes. Both take one supervised
recursion step and one of AdamW, without an average of the weights, on the same network. They are timed by turns in one
run; a turn is so many steps that the write-up's workers cannot have their batches ready before it. Read the ratio. A
second ratio has a ready batch on the device for both, for a loader that hides all of its work.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from analyses import bench
from analyses.recording import Choice
from analyses.training_runs import IMAGE_SIZE
from analyses.vitrm_on_cifar import SIZES
from brdyn import UsageError
from brdyn.classifiers import ClassifierRecipe, PixelSet, ViTRM, ViTRMConfig, load_pixels
from brdyn.classifiers.architectures import build
from brdyn.classifiers.augment import Augmentation
from brdyn.classifiers.recipe import VITRM_NAME
from brdyn.classifiers.tasks import DeepSupervision, Labelled, Supervised, augmented
from brdyn.classifiers.vitrm import Layer
from brdyn.data import Batch

NOISE_IMAGES = 16_384
PREFETCHED = 2  # batches of each worker, by default


class PlainLayer(nn.Module):
    """A layer of the network as one writes it down, with the weights of ours."""

    def __init__(self, layer: Layer, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = layer.norm1, layer.norm2
        self.dropout = layer.mlp.drop2.p
        self.attention = nn.MultiheadAttention(width, heads, dropout=self.dropout, batch_first=True)
        weights = {f"in_proj_{name}": one for name, one in layer.attn.qkv.state_dict().items()}
        weights |= {f"out_proj.{name}": one for name, one in layer.attn.proj.state_dict().items()}
        self.attention.load_state_dict(weights)
        self.mlp = layer.mlp

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm1(tokens)
        tokens = tokens + self.drop(self.attention(normed, normed, normed)[0])
        hidden = self.norm2(tokens)
        gated = functional.silu(self.mlp.fc1_g(hidden)) * self.mlp.fc1_x(hidden)
        return tokens + self.drop(self.mlp.fc2(gated))

    def drop(self, values: Tensor) -> Tensor:
        return functional.dropout(values, self.dropout, self.training)


class PlainViTRM(nn.Module):
    """One recursion step as one writes it down."""

    def __init__(self, vitrm: ViTRM) -> None:
        super().__init__()
        config = vitrm.config
        self.vitrm = (vitrm,)
        self.layers = nn.Sequential(
            *(PlainLayer(layer, config.width, config.heads) for layer in vitrm.network)  # type: ignore[arg-type]
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores and the halting logit."""
        (vitrm,) = self.vitrm
        x, y, z = vitrm.begin(images)
        for _ in range(vitrm.config.latent_steps):
            z = self.layers(torch.cat([x, y, z], dim=1))[:, x.shape[1] + 1 :]
        y = self.layers(torch.cat([y, z], dim=1))[:, :1]
        return vitrm.classifier(y[:, 0]), vitrm.halting(y[:, 0])[:, 0]


class PILImages(Dataset[tuple[Tensor, int]]):
    """Images augmented one by one, as a data loader's workers do it. Picklable."""

    def __init__(self, images: PixelSet, recipe: ClassifierRecipe) -> None:
        self.arrays, self.labels = images.pixels.permute(0, 2, 3, 1).numpy(), images.labels.tolist()
        crop = v2.RandomCrop(images.pixels.shape[-1], padding=recipe.padding)
        pil = [crop, v2.RandomHorizontalFlip(), v2.RandAugment(recipe.operations, recipe.magnitude)]
        tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*images.statistics())]
        self.transform = v2.Compose([*pil, *tensor])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


class Published(bench.Learner):
    """The write-up of a training step."""

    def __init__(
        self, vitrm: ViTRM, images: PixelSet, recipe: ClassifierRecipe, workers: int, device: torch.device
    ) -> None:
        self.network, self.device = PlainViTRM(vitrm).to(device), device
        super().__init__(self.network, vitrm)
        self.loader = DataLoader(
            PILImages(images, recipe), recipe.batch_of(len(images)), shuffle=True, drop_last=True, num_workers=workers,
            persistent_workers=workers > 0, pin_memory=device.type == "cuda",
        )  # fmt: skip
        kinds = {v2.CutMix: recipe.cutmix, v2.MixUp: recipe.mixup}
        self.mixing = v2.RandomChoice([kind(alpha=a, num_classes=images.classes) for kind, a in kinds.items()])
        self.turn = 1 if workers == 0 else 2 * PREFETCHED * workers

    def loss(self, *batch: Tensor) -> Tensor:
        """Cross-entropy, and the halting head's."""
        images, targets, labels = batch
        scores, halting = self.network(images)
        right = (scores.argmax(1) == labels).float()
        halted = functional.binary_cross_entropy_with_logits(halting, right)
        return functional.cross_entropy(scores, targets) + halted

    def steps(self) -> None:
        """A turn: so many batches from the workers, which begin with it, and an optimizer step on each."""
        for batch in islice(self.loader, self.turn):
            images, labels = (part.to(self.device, non_blocking=True) for part in batch)
            self.learn(*self.mixing(images, labels), labels)


class Ours(bench.Learner):
    """The step of the training loop."""

    def __init__(self, vitrm: ViTRM, images: PixelSet, recipe: ClassifierRecipe, way: bench.Way) -> None:
        super().__init__(vitrm)
        self.images, self.way, self.size = images.to(way.device), way, recipe.batch_of(len(images))
        self.augmentation = Augmentation(recipe, images.classes, *images.statistics())
        self.task = DeepSupervision(vitrm, self.augmentation)

    def loss(self, *batch: Tensor) -> Tensor:
        """Of one supervised recursion step."""
        with self.way.autocast():
            images, targets, labels = batch
            return self.task(Supervised(images, targets, labels), 0)["network"].mean()

    def augment(self) -> Labelled:
        """Random images from the device's memory, augmented there."""
        rows = torch.randint(len(self.images), (self.size,), device=self.way.device)
        return augmented(self.augmentation, Batch(self.images.pixels[rows], rows, self.images.labels[rows]))

    def steps(self, count: int = 1) -> None:
        """Batches, augmented where they are, and an optimizer step on each."""
        for _ in range(count):
            self.learn(*self.augment())


def training(images: PixelSet, config: ViTRMConfig, size: int, workers: int, way: bench.Way) -> dict[str, Any]:
    """Losses on one batch without dropout, and speeds."""
    recipe = ClassifierRecipe(batch_size=size)
    torch.manual_seed(0)
    vitrm = ViTRM(config).to(way.device)
    ours = Ours(vitrm, images, recipe, way)
    published = Published(vitrm, images, recipe, workers, way.device)
    if len(images) < published.turn * size:
        raise UsageError(f"{len(images)} images are too few for {published.turn} batches of {size}")
    ready, networks, turn = ours.augment(), nn.ModuleList([vitrm, published.network]).eval(), published.turn
    with torch.no_grad():
        both = bench.losses(float(ours.loss(*ready)), float(published.loss(*ready)))
    networks.train()
    learn = partial(ours.learn, *ready)
    pairs: dict[str, tuple[bench.Call, bench.Call]] = {
        "speedup": (partial(ours.steps, turn), published.steps),
        "speedup_of_ready_batches": (learn, partial(published.learn, *ready)),
    }
    flop, part = way.prepared(learn, ours.task.parts), ("share_of_augmentation", ours.augment)
    compared = way.compared(flop, pairs, ours.steps, part, images=size * turn, steps=turn)
    return {"batch_size": size, "workers": workers, "batches_in_a_turn": turn, **both, **compared}


def latency(
    config: ViTRMConfig, size: int, way: bench.Way, vit_sizes: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Seconds of a batch through ViTRM (one step) over those through ViT-Small, which may have other sizes."""
    torch.manual_seed(0)
    vitrm = ViTRM(config).to(way.device).eval()
    vit = build("vit-small", config.classes, config.image_size, **(vit_sizes or {})).to(way.device).eval()
    images = torch.randn(size, 3, config.image_size, config.image_size, device=way.device)

    def forward(network: nn.Module) -> None:
        with torch.no_grad(), way.autocast():
            network(images)

    found = bench.ratio(partial(forward, vit), partial(forward, vitrm), way.rounds, way.device)
    asked = {"batch_size": size, "dtype": bench.name_of(way.dtype), "vit_small_seconds": found["bare_seconds"]}
    return {**asked, **bench.named(vitrm_over_vit_small=found)}


def training_gflop(config: ViTRMConfig) -> float:
    """Operations of one supervised recursion step on an image, forward and backward, counted."""
    vitrm, images = ViTRM(config), torch.zeros(1, 3, config.image_size, config.image_size)

    def step() -> None:
        found = vitrm(images)
        (found.scores.sum() + found.halting.sum()).backward()

    return bench.operations(step) / 1e9


def noise(count: int) -> PixelSet:
    """Random images, where no others are given."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8, generator=generator)
    return PixelSet(pixels, torch.arange(count) % 10, tuple(map(str, range(10))), "noise")


def run(choice: Choice) -> dict[str, Any]:
    size, ways = choice.batch_size, bench.ways(torch.device(choice.device), choice.rounds)
    cores = min(16, os.cpu_count() or 1) if choice.device == "cuda" else 0
    workers = cores if choice.workers is None else choice.workers
    images = load_pixels(choice.data, IMAGE_SIZE) if choice.data else noise(NOISE_IMAGES)
    config = ViTRMConfig(classes=images.classes, width=choice.width)
    narrow = SIZES["cpu"].networks  # whose accuracies are recorded, and equal
    small = ViTRMConfig(classes=images.classes, **narrow[VITRM_NAME])
    by_dtype = {way.dtype: way for way in ways if not way.compiled}
    return {
        "images": images.description,
        "ceilings": ways[0].most,
        "training": [training(images, config, size, workers, way) for way in ways],
        "latency": [latency(config, count, way) for count in (1, 2 * size) for way in by_dtype.values()],
        "training_gflop_per_image": training_gflop(config),
        "latency_of_the_small_study": latency(small, 1, by_dtype[torch.float32], narrow["vit-small"]),
    }


OPTIONS = bench.bench_parser(__doc__, model=False, rounds=12, batch=(8, 128))
OPTIONS.add_argument("--data", help="labelled images (default: noise)")
OPTIONS.add_argument("--workers", type=int, help="of the write-up (default: 0 on a CPU, else cores, at most 16)")
OPTIONS.add_argument("--width", type=int, default=384)
main = bench.benchmark("bench_vitrm", run, OPTIONS, __name__)
