"""ViTRM: its published size, its recursion written out, halting image by image, deep supervision."""

import pytest
import torch
from torch.nn import functional

from brdyn.classification.augment import Augmentation
from brdyn.classification.pixels import PixelBatches, PixelSet
from brdyn.classification.recipe import AugmentSettings
from brdyn.errors import UsageError
from brdyn.training import TrainSettings, train
from brdyn.vitrm.model import Streams, ViTRM, ViTRMConfig
from brdyn.vitrm.supervision import DeepSupervision
from tests.conftest import scramble

SMALL = {
    "classes": 3,
    "image_size": 8,
    "patch": 4,
    "width": 12,
    "depth": 2,
    "heads": 2,
    "hidden": 16,
    "dropout": 0.0,
}


def small(seed=0, **changes):
    model = ViTRM(ViTRMConfig(**{**SMALL, **changes}))
    scramble(model, seed)
    return model


@pytest.mark.parametrize(("classes", "parameters"), [(10, 3_624_971), (100, 3_659_621)])
def test_published_size(classes, parameters):
    with torch.device("meta"):
        model = ViTRM(ViTRMConfig(classes=classes))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("sees_image", [True, False])
def test_a_recursion_step_written_out(sees_image):
    model = small(sees_image=sees_image, latent_steps=2).eval()
    images = torch.randn(5, 3, 8, 8)
    found = model(images, steps=2)
    x = model.embedding(images).flatten(2).transpose(1, 2) + model.positions
    y, z = model.answer.expand(5, 1, 12), model.latent.expand(5, 4, 12)
    z = z if sees_image else z + x
    for _ in range(2):
        for _ in range(2):
            tokens = torch.cat([x, y, z], 1) if sees_image else torch.cat([y, z], 1)
            z = model.network(tokens)[:, -4:]
        y = model.network(torch.cat([y, z], 1))[:, :1]
    torch.testing.assert_close(found.scores, model.classifier(y[:, 0]))
    torch.testing.assert_close(found.halting, model.halting(y[:, 0])[:, 0])
    torch.testing.assert_close(found.z, z)
    assert found.scores.std(0).min() > 1e-4  # answers are of the image


def test_attention_is_the_fused_one_written_out():
    layer = small().network[0].eval()
    tokens = torch.randn(3, 7, 12)
    normed = layer.norm1(tokens)
    q, k, v = layer.attn.qkv(normed).view(3, 7, 3, 2, 6).permute(2, 0, 3, 1, 4)
    mixed = ((q @ k.transpose(-1, -2) / 6**0.5).softmax(-1) @ v).transpose(1, 2).reshape(3, 7, 12)
    middle = tokens + layer.attn.proj(mixed)
    hidden = layer.norm2(middle)
    expected = middle + layer.mlp.fc2(functional.silu(layer.mlp.fc1_g(hidden)) * layer.mlp.fc1_x(hidden))
    torch.testing.assert_close(layer(tokens), expected)


def test_steps_can_be_taken_one_after_the_other():
    model, images = small().eval(), torch.randn(4, 3, 8, 8)
    whole = model(images, steps=3)
    carried = None
    for _ in range(3):
        found = model(images, 1, carried)
        carried = (found.y, found.z)
    torch.testing.assert_close(found.scores, whole.scores)


@pytest.mark.parametrize("threshold", [0.0, "median", 1.0])
def test_images_stop_by_themselves(threshold):
    torch.manual_seed(0)
    model, images = small(seed=3).eval(), 5 * torch.randn(30, 3, 8, 8)
    every = [model(images, steps=number) for number in range(1, 5)]
    if threshold == "median":
        threshold = every[0].halting.sigmoid().median().item()
    found, taken = model.adaptive(images, threshold, most=4)
    for place in range(30):
        expected = next(
            (number for number in range(1, 5) if every[number - 1].halting[place].sigmoid() > threshold), 4
        )
        assert taken[place] == expected
        torch.testing.assert_close(
            found.scores[place], every[expected - 1].scores[place], rtol=1e-4, atol=1e-5
        )
    assert set(taken.tolist()) == {0.0: {1}, 1.0: {4}}.get(threshold, set(taken.tolist()))
    if 0 < threshold < 1:
        assert (taken == 1).sum() == 15
    assert taken.dtype == torch.long


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"image_size": 30},
            "4-pixel patch of 'vitrm'; use for instance 28 or 32",
        ),
        ({"heads": 5}, "split among 5 heads"),
        ({"classes": 0}, "classes 0"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_what_cannot_be_built(changes, words):
    with pytest.raises(UsageError, match=words):
        ViTRMConfig(**changes)


def pictures(count=96):
    """Three classes told apart by their brightest channel."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    pixels = torch.randint(0, 60, (count, 3, 8, 8), generator=rng)
    pixels[torch.arange(count), labels] += 120
    return PixelSet(pixels.to(torch.uint8), labels, ("r", "g", "b"), "made up")


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


def test_an_image_of_one_patch_is_enough():
    model = small(image_size=4)
    assert model.config.patches == 1
    assert model.begin(torch.zeros(2, 3, 4, 4)).z.shape == (2, 1, 12)


def test_it_learns_and_stops_early():
    """Easy classes: learned, and once the halting head is sure a batch takes fewer steps than allowed."""
    torch.manual_seed(0)
    images = pictures()
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


def test_the_recursion_compiles_whole():
    model = small(latent_steps=2).eval()
    images = torch.randn(2, 3, 8, 8)
    whole = torch.compile(model, fullgraph=True, backend="eager")  # an error where the graph breaks
    with torch.no_grad():
        torch.testing.assert_close(whole(images, 3).scores, model(images, 3).scores)
