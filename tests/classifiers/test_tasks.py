"""Deep supervision: one optimizer step on each recursion step."""

import math
from copy import deepcopy

import pytest
import torch
from torch.nn import functional

from brdyn.classifiers import ViTRM, ViTRMConfig
from brdyn.classifiers.augment import Augmentation
from brdyn.classifiers.pixels import PixelBatches
from brdyn.classifiers.recipe import AugmentSettings
from brdyn.classifiers.tasks import DeepSupervision
from brdyn.classifiers.vitrm import Streams
from brdyn.training import TrainSettings, train
from tests.classifiers.small import pictures
from tests.classifiers.test_vitrm import SMALL, small


def augmentation():
    plain = AugmentSettings(padding=0, operations=0, mixup=0.0, cutmix=0.0)
    return Augmentation(plain, 3, [0.5] * 3, [0.25] * 3)


def test_deep_supervision_is_a_step_after_another():
    """Two rounds written out: the second begins with the first's y and z, and its gradient ends there."""
    model = small()
    task = DeepSupervision(model, augmentation(), n_sup=3).train()
    images, targets = torch.randn(6, 3, 8, 8), functional.one_hot(torch.arange(6) % 3).float()
    inputs = task.inputs(type("B", (), {"images": pictures(6).pixels, "labels": torch.arange(6) % 3}))
    inputs.images, inputs.targets, inputs.labels = images, targets, targets.argmax(1)
    for number in (1, 2):
        before = inputs.carried
        loss = task(inputs, 0)["network"]
        streams = model.begin(images)
        if before is not None:
            assert not before[0].requires_grad
            streams = Streams(streams.x, *before)
        found = model.read(model.step(streams))
        right = (found.scores.argmax(1) == targets.argmax(1)).float()
        expected = functional.cross_entropy(found.scores, targets.argmax(1), reduction="none")
        expected = expected + functional.binary_cross_entropy_with_logits(found.halting, right, reduction="none")
        torch.testing.assert_close(loss, expected)
        votes = task.onward(inputs)
        torch.testing.assert_close(votes, 1 - found.halting.sigmoid().detach())
        assert inputs.taken == number
    task(inputs, 0)
    assert task.onward(inputs) is None


def test_answers_of_deep_supervision_take_all_their_steps():
    model, images = small().eval(), torch.randn(4, 3, 8, 8)
    task = DeepSupervision(model, augmentation(), steps=3)
    torch.testing.assert_close(task.scores(images), model(images, steps=3).scores)
    assert not torch.allclose(task.scores(images), model(images, steps=1).scores, atol=1e-6)
    assert not task.scores(images).requires_grad


def test_it_learns_and_stops_early():
    """Easy classes: learned, and once the halting head is sure a batch takes fewer steps than allowed."""
    torch.manual_seed(0)
    images = pictures(96)
    network = ViTRM(ViTRMConfig(**SMALL))
    torch.nn.init.constant_(network.halting.bias, -1.0)  # not sure of anything yet
    task = DeepSupervision(network, augmentation(), n_sup=4, validation=images)
    taken = []
    forward = task.forward

    def counting(inputs, step):
        taken.append(step)
        return forward(inputs, step)

    task.forward = counting
    settings = TrainSettings(
        steps=60, batch_size=32, lr=5e-3, weight_decay=0.05, log_every=20, validate_every=60, ema=0.5
    )
    history = train(task, PixelBatches(images, 32), settings)
    assert history.validation[-1]["accuracy"] > 0.95
    assert taken.count(0) == 4
    assert taken.count(59) < 4
    assert task.average.keys() == task.parts.state_dict().keys()


class Half(Augmentation):
    """Mixes each image with the next, seven to three."""

    def train(self, pixels, labels):
        images, targets = self.normalised(pixels), functional.one_hot(labels, 3).float()
        return 0.7 * images + 0.3 * images.roll(1, 0), 0.7 * targets + 0.3 * targets.roll(1, 0)


def published_rate(step, steps, warmup, rate, least):
    """A rise from 0, then a cosine from the full rate to the least."""
    if step < warmup:
        return rate * step / warmup
    return least + (rate - least) * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def test_the_published_loop_loss_by_loss():
    """A run of ViTRM against its loop written out from the description: several supervised steps on each mixed batch,
    each with its own optimizer step, the label before mixing for the halting head, a stop where that is sure, the
    schedule, and the average of the weights."""
    settings = TrainSettings(
        steps=12,
        batch_size=6,
        lr=2e-2,
        min_lr=1e-4,
        weight_decay=0.05,
        warmup=3,
        clip=0.0,
        ema=0.9,
        log_every=1,
    )
    images, plain = pictures(24), Half(AugmentSettings(), 3, [0.5] * 3, [0.25] * 3)
    model = small()
    by_hand = deepcopy(model)
    task = DeepSupervision(model, plain, n_sup=3)
    history = train(task, PixelBatches(images, 6), settings)

    average = {name: value.clone() for name, value in by_hand.state_dict().items()}
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    taken = []
    for number, (batch,) in enumerate(PixelBatches(images, 6).batches(0, 12)):
        optimizer.param_groups[0]["lr"] = published_rate(number + 1, 12, 3, 2e-2, 1e-4)
        mixed, _ = plain.train(batch.images, batch.labels)
        streams, losses = None, []
        for _ in range(3):
            begun = by_hand.begin(mixed)
            if streams is not None:
                begun = Streams(begun.x, streams.y.detach(), streams.z.detach())
            streams = by_hand.step(begun)
            scores, halting = by_hand.read(streams)[:2]
            label, other = (functional.cross_entropy(scores, batch.labels.roll(by)) for by in (0, 1))
            right = (scores.argmax(1) == batch.labels).float()
            loss = 0.7 * label + 0.3 * other + functional.binary_cross_entropy_with_logits(halting, right)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for name, value in by_hand.state_dict().items():
                average[name].lerp_(value, 0.1)
            losses.append(loss.item())
            if halting.sigmoid().mean() > 0.5:
                break
        taken.append(len(losses))
        row = history.losses[number]
        assert row["network"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
        assert row["lr"] == pytest.approx(optimizer.param_groups[0]["lr"])
    assert 1 < sum(taken) / 12 < 3  # some batches stopped early, and some did not
    for name, value in task.average.items():
        other = average[name.removeprefix("network.")]
        if name.endswith("qkv.bias"):  # a key's has no effect: AdamW makes steps of rounding errors
            value, other = (one.unflatten(0, (3, -1))[[0, 2]] for one in (value, other))
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-5)
