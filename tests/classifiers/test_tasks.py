"""Deep supervision: one optimizer step on each recursion step."""

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
    inputs.images, inputs.targets = images, targets
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
        expected = expected + functional.binary_cross_entropy_with_logits(
            found.halting, right, reduction="none"
        )
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
    task = DeepSupervision(ViTRM(ViTRMConfig(**SMALL)), augmentation(), n_sup=4, validation=images)
    taken = []
    forward = task.forward

    def counting(inputs, step):
        taken.append(step)
        return forward(inputs, step)

    task.forward = counting
    settings = TrainSettings(
        steps=60, batch_size=32, lr=5e-3, weight_decay=0.05, log_every=20, validate_every=60, ema=0.9
    )
    history = train(task, PixelBatches(images, 32), settings)
    assert history.validation[-1]["accuracy"] > 0.95
    assert taken.count(0) == 4
    assert taken.count(59) < 4
    assert task.average.keys() == task.parts.state_dict().keys()
