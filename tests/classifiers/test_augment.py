"""Augmentation on tensors: each image its own crop, RandAugment's own frequencies, targets that sum to one."""

import pytest
import torch

from brdyn.classifiers.augment import Augmentation, crop
from brdyn.classifiers.recipe import AugmentSettings
from brdyn.errors import UsageError


def pixels(count=64, size=8):
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=rng)


def augmentation(**changes):
    none = {"padding": 0, "flip": False, "operations": 0, "mixup": 0.0, "cutmix": 0.0}
    return Augmentation(AugmentSettings(**{**none, **changes}), 5, [0.5] * 3, [0.25] * 3)


def test_nothing_is_normalisation():
    images, labels = pixels(), torch.arange(64) % 5
    found, weights = augmentation().train(images, labels)
    torch.testing.assert_close(found, (images / 255 - 0.5) / 0.25)
    assert torch.equal(weights.argmax(1), labels)
    assert torch.equal(found, augmentation().normalised(images))


def test_every_crop_is_a_window_of_the_image_on_black():
    torch.manual_seed(0)
    images = pixels(200)
    padded = torch.nn.functional.pad(images.float(), (2,) * 4).byte()
    found, places = crop(images, 2), []
    for image, wide in zip(found, padded, strict=True):
        fits = [(y, x) for y in range(5) for x in range(5) if torch.equal(wide[:, y : y + 8, x : x + 8], image)]
        assert len(fits) == 1
        places += fits
    assert len(set(places)) == 25  # all of them occur


def test_half_are_mirrored():
    torch.manual_seed(0)
    images = pixels(400)
    found = augmentation(flip=True).train(images, torch.zeros(400, dtype=torch.long))[0]
    same = (found == augmentation().normalised(images)).flatten(1).all(1)
    mirrored = (found == augmentation().normalised(images.flip(-1))).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 150 < same.sum() < 250


def test_exactly_half_are_mirrored():
    """Of 20 000 images of two different pixels, within four standard errors."""
    torch.manual_seed(0)
    images = torch.tensor([0, 255], dtype=torch.uint8).expand(20_000, 3, 1, 2)
    found = augmentation(flip=True).train(images, torch.zeros(20_000, dtype=torch.long))[0]
    assert (found[:, 0, 0, 0] > 0).double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 20_000**0.5)


def test_as_many_operations_as_asked_for(monkeypatch):
    """Of the magnitude asked for, one after another."""
    images, asked = pixels() // 2, []

    def one(part, magnitude):
        asked.append(magnitude)
        return part + 1

    monkeypatch.setattr("brdyn.classifiers.augment.rand_augment", one)
    for count in (0, 1, 3):
        augment = augmentation(operations=count, magnitude=count)
        found = augment.train(images, torch.zeros(64, dtype=torch.long))[0]
        torch.testing.assert_close(found, augment.normalised(images + count))
    assert asked == [1, 3, 3, 3]


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_mixed_targets_sum_to_one(mixup, cutmix):
    torch.manual_seed(0)
    images, labels = pixels(), torch.arange(64) % 5
    found, weights = augmentation(mixup=mixup, cutmix=cutmix).train(images, labels)
    torch.testing.assert_close(weights.sum(1), torch.ones(64))
    assert ((weights > 0).sum(1) == 2).any()
    assert found.shape == images.shape


def test_mixing_follows_its_alpha():
    """A huge alpha always draws one half: of a box of half the area, 4x4 of 8x8 where it fits, and 2x2 in a corner."""
    torch.manual_seed(0)
    images, labels = pixels(2), torch.tensor([0, 1])
    mixed, cut = (
        torch.stack([augmentation(**{name: 1e6}).train(images, labels)[1][0, 0] for _ in range(40)])
        for name in ("mixup", "cutmix")
    )
    torch.testing.assert_close(mixed, torch.full((40,), 0.5), atol=5e-3, rtol=0)
    assert cut.min() == 1 - 16 / 64
    assert cut.max() <= 1 - 4 / 64


def test_either_mixing_is_as_likely():
    """CutMix leaves every pixel one of two images'; Mixup of one half leaves none."""
    torch.manual_seed(0)
    images, labels = (
        torch.stack([torch.zeros(3, 8, 8), torch.full((3, 8, 8), 250)]).byte(),
        torch.tensor([0, 1]),
    )
    augment = augmentation(mixup=1e6, cutmix=1.0)
    whole = augment.normalised(images)
    cut = []
    for _ in range(400):
        found = augment.train(images, labels)[0]
        cut.append(((found == whole[:1]) | (found == whole[1:])).all().item())
    assert sum(cut) / 400 == pytest.approx(0.5, abs=0.1)


def test_a_seeded_step_repeats():
    augment = Augmentation(AugmentSettings(), 5, [0.5] * 3, [0.25] * 3)
    images, labels = pixels(), torch.arange(64) % 5
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(augment.train(images, labels))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(augment.train(images, labels)[0], found[0][0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"magnitude": 31}, "magnitude 31"),
        ({"mixup": -1.0}, "mixup"),
        ({"padding": -1}, "padding"),
    ],
)
def test_impossible_augmentations(changes, words):
    with pytest.raises(UsageError, match=words):
        AugmentSettings(**changes)
