"""A stage-2 step against a direct write-up of the published recipe, on the same blocks and the same batch.

Ours runs the teacher beside the student, with fused attention, in bfloat16 by autocast. The write-up reads the states
of the teacher from disk (float32, all L + 1 of them, memory-mapped and in the page cache), trains in float32 and writes
the attention matrix out. Both clip, step AdamW, and start from decoded images or stored states in main memory. They are
timed by turns in one run; read the ratio. A second ratio has the write-up's states on the device already, for a loader
that hides all reading; on a CPU a third, of ours that reads its own cache of states (bfloat16, with their checksums) in
place of the teacher.
"""

from __future__ import annotations

import json
import tempfile
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from analyses import bench
from analyses.recording import Choice
from brdyn import capture, load_images
from brdyn.data.items import Item
from brdyn.models import VisionTransformer
from brdyn.phases.given import contiguous
from brdyn.raptor import ActivationCache, BlockConfig, Raptor, RaptorBlock
from brdyn.raptor.losses import JOINT_WEIGHTS, group_weights, weighted_loss
from brdyn.raptor.model import untrained
from brdyn.raptor.tasks import BlocksJoined, cached

LAYER_SCALE = 0.1  # blocks that do something, so that losses say whether both compute the same
BATCHES = 4  # of stored states
SAMPLES = 64  # of the packaged photographs, at most, whose states are cached


def plain_block(block: RaptorBlock, state: Tensor, layer: int) -> Tensor:
    """A block as one writes it down: separate q, k, v, the attention matrix, three factors."""
    assert block.depth is not None
    attention, mlp, output = block.depth(torch.tensor([float(layer)], device=state.device))
    count, tokens, width = state.shape
    heads = block.config.heads
    qkv = functional.linear(block.norm1(state), block.attn.qkv.weight, block.attn.qkv.bias)
    q, k, v = (part.view(count, tokens, heads, -1).transpose(1, 2) for part in qkv.split(width, dim=-1))
    scores = (q @ k.transpose(-2, -1) / (width // heads) ** 0.5).softmax(-1)
    mixed = block.attn.proj((scores @ v).transpose(1, 2).reshape(count, tokens, width))
    state = state + attention * block.scale1.gamma * mixed
    hidden = block.norm2(state)
    gated = functional.silu(block.mlp.fc1_g(hidden)) * block.mlp.fc1_x(hidden)
    return output * (state + mlp * block.scale2.gamma * block.mlp.fc2(gated))


class Published(bench.Learner):
    """The write-up: states from a file, float32, one step."""

    clip = 1.0

    def __init__(self, raptor: Raptor, file: Path) -> None:
        super().__init__(raptor.shared)
        self.raptor, self.states = raptor, cycle(np.load(file, mmap_mode="r"))
        self.weights = group_weights(raptor.tokens, JOINT_WEIGHTS)

    def loss(self, *batch: Tensor) -> Tensor:
        """Token groups weighed, the mean over layers, autoregressive from the embedding."""
        (states,) = batch
        state, total = states[0], torch.zeros((), device=states.device)
        for layer, number in enumerate(self.raptor.assignment, 1):
            state = plain_block(self.raptor.shared[number], state, layer)  # type: ignore[arg-type]
            for group, weight in self.weights.items():
                part = self.raptor.tokens[group]
                total = total + weight * (state[:, part] - states[layer][:, part]).square().mean()
        return total / self.raptor.depth

    def read(self) -> Tensor:
        return torch.from_numpy(next(self.states).copy()).to(self.raptor.device)

    def step(self) -> None:
        self.learn(self.read())


class Ours(bench.Learner):
    """The step of the training loop."""

    clip = 1.0

    def __init__(self, raptor: Raptor, images: Tensor, way: bench.Way) -> None:
        super().__init__(raptor.shared)
        loss = weighted_loss(raptor.tokens, group_weights(raptor.tokens, JOINT_WEIGHTS))
        self.task, self.way = BlocksJoined(raptor, raptor.teacher, loss).train(), way
        self.batch = next(bench.batches_of(images))

    def loss(self, *batch: Tensor) -> Tensor:
        """The teacher, then the student."""
        with self.way.autocast():
            return self.task(self.task.inputs(self.batch), 0)["raptor"].float().mean()

    def teach(self) -> None:
        """The teacher alone."""
        with self.way.autocast():
            self.task.inputs(self.batch)


class FromCache(Ours):
    """The same step on states that are read from a cache, as `--cache` reads them."""

    def __init__(self, raptor: Raptor, cache: ActivationCache, size: int, way: bench.Way) -> None:
        super().__init__(raptor, torch.empty(size), way)
        self.task.read = cached(raptor.teacher)
        self.reader = cache.reader(cache.images)

    def step(self) -> None:
        items = [self.reader[place % len(self.reader)] for place in range(len(self.batch))]
        states = torch.stack([item.image for item in items if isinstance(item, Item)])
        self.batch = next(bench.batches_of(states))
        self.learn()


def student(teacher: VisionTransformer, k: int) -> Raptor:
    """k blocks of equal lengths, untrained."""
    places = [round(teacher.depth * number / k) for number in range(1, k)]
    config = BlockConfig(width=teacher.info.width, heads=teacher.info.heads, layer_scale=LAYER_SCALE)
    raptor = untrained(teacher, contiguous(places, teacher.depth), config, 0).to(teacher.device)
    raptor.shared.requires_grad_(True)
    return raptor


def store(teacher: VisionTransformer, images: Tensor, file: Path) -> None:
    """Write the teacher's states as the published pipeline does, for some batches."""
    states = capture(teacher, next(bench.batches_of(images))).states
    np.save(file, np.stack([torch.stack(states).float().cpu().numpy()] * BATCHES))


def filled(teacher: VisionTransformer, count: int, folder: Path) -> ActivationCache:
    """A cache of the states of some packaged photographs."""
    cache = ActivationCache(folder, teacher, load_images("samples", teacher, n=min(count, SAMPLES)))
    cache.prepare()
    cache.fill(workers=0)
    return cache


def compare(
    teacher: VisionTransformer, images: Tensor, k: int, way: bench.Way, file: Path, cache: ActivationCache
) -> dict[str, Any]:
    """Losses, speeds, the teacher's share and the bytes on disk; `file` and `cache` have the teacher's states."""
    size, raptor = len(images), student(teacher, k)
    published, ours = Published(raptor, file), Ours(raptor, images, way)
    stored, flop = published.read(), way.prepared(ours.learn, ours.task.parts)
    pairs: dict[str, tuple[bench.Call, bench.Call]] = {
        "speedup": (ours.learn, published.step),
        "speedup_if_reading_cost_nothing": (ours.learn, lambda: published.learn(stored)),
    }
    if way.device.type == "cpu":  # a card would wait for what loader processes read ahead for it
        pairs["speedup_from_a_cache"] = FromCache(raptor, cache, size, way).step, published.step
    return {
        "model": teacher.info.name, "image_size": list(teacher.info.image_size), "tokens": teacher.tokens.count,
        "k": k, "batch_size": size, "bytes_on_disk_per_image": stored.nbytes // size,
        **bench.losses(ours.loss().item(), published.loss(stored).item()),
        **way.compared(flop, pairs, ours.learn, ("share_of_the_teacher", ours.teach), images=size),
    }  # fmt: skip


def alone(which: str, options: str) -> torch.device:
    """Two steps of ours, of the published, or of neither, in a process whose memory is measured."""
    choice = Choice(**json.loads(options))
    teacher, size = bench.chosen_model(choice), choice.batch_size
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "states.npy"
        shape = (BATCHES, teacher.depth + 1, size, teacher.tokens.count, teacher.info.width)
        np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape).flush()
        raptor, way = student(teacher, choice.k), bench.Way(teacher.device, 2, {}, torch.bfloat16)
        for _ in range(way.rounds):
            if which == "ours":
                Ours(raptor, torch.zeros(size, 3, *teacher.info.image_size), way).learn()
            elif which == "published":
                Published(raptor, file).step()
    return teacher.device


def run(choice: Choice) -> dict[str, Any]:
    teacher = bench.chosen_model(choice)
    images = bench.noise(teacher, choice.batch_size).cpu()
    if teacher.device.type == "cuda":
        images = images.pin_memory()  # as loader processes leave them
    ways, asked = bench.ways(teacher.device, choice.rounds), json.dumps(vars(choice), default=str)
    with tempfile.TemporaryDirectory() as folder:
        store(teacher, images, file := Path(folder) / "states.npy")
        cache = filled(teacher, choice.batch_size, Path(folder) / "cache")
        steps = [compare(teacher, images, choice.k, way, file, cache) for way in ways]
    peaks = [which for which in choice.peaks.split(",") if which]
    return {
        "ceilings": ways[0].most, "steps": steps,
        "peak_memory_mib": {which: bench.peak_of("bench_raptor", which, asked) for which in peaks},
    }  # fmt: skip


OPTIONS = bench.bench_parser(__doc__, rounds=12, batch=(8, 64))
OPTIONS.set_defaults(image_size=224)
OPTIONS.add_argument("--k", type=int, default=3)
OPTIONS.add_argument("--peaks", default="ours,published,neither", help="of which to measure memory")
main = bench.benchmark("bench_raptor", run, OPTIONS, __name__)
