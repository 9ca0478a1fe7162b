"""Augmentation on tensors: each image its own crop, RandAugment's own frequencies, targets that sum to one."""

import pytest
import torch
from torchvision.transforms import v2

from brdyn.classification.augment import Augmentation, crop
from brdyn.classification.recipe import AugmentSettings
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


def test_every_crop_is_a_window_of_the_reflected_image():
    torch.manual_seed(0)
    images = pixels(200)
    padded = torch.nn.functional.pad(images.float(), (2,) * 4, mode="reflect").byte()
    found, places = crop(images, 2), []
    for image, wide in zip(found, padded, strict=True):
        fits = [
            (y, x) for y in range(5) for x in range(5) if torch.equal(wide[:, y : y + 8, x : x + 8], image)
        ]
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


def test_every_image_gets_an_operation_of_its_own_in_its_place():
    """With operations that mark an image by their number: each is marked once, and numbers are drawn evenly."""
    torch.manual_seed(0)
    augment, calls = augmentation(operations=1), []

    def marker(number):
        def mark(part):
            calls.append(number)
            return part + number

        return mark

    augment.operations = [marker(number) for number in range(1, 6)]
    images = pixels(1000) // 2
    marks = augment.operate(images).int() - images
    assert (marks == marks[:, :1, :1, :1]).all()
    assert calls == [1, 2, 3, 4, 5]
    counts = torch.bincount(marks[:, 0, 0, 0], minlength=6)
    assert counts[0] == 0
    assert counts[1:].min() > 150


def test_the_operations_are_torchvisions():
    """Each, at both signs, is among what RandAugment makes of an image."""
    torch.manual_seed(0)
    image, whole = pixels(1, 16), v2.RandAugment(num_ops=1, magnitude=9)
    possible = {tuple(whole(image).flatten().tolist()) for _ in range(600)}
    augment = augmentation(operations=1)
    assert len(augment.operations) == len(whole._AUGMENTATION_SPACE)
    ours = {tuple(operation(image).flatten().tolist()) for operation in augment.operations for _ in range(12)}
    assert ours == possible


def test_operations_are_as_frequent_as_torchvisions():
    """How often an image is left as it is (by identity and the like), against torchvision image by image."""
    torch.manual_seed(0)
    image = pixels(1, 16)
    ours = augmentation(operations=1).operate(image.expand(2000, -1, -1, -1))
    alone = v2.RandAugment(num_ops=1, magnitude=9)
    theirs = torch.cat([alone(image) for _ in range(2000)])
    shares = [(found == image).flatten(1).all(1).double().mean() for found in (ours, theirs)]
    assert abs(shares[0] - shares[1]) < 0.05
    assert 0 < shares[1] < 0.5


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_mixed_targets_sum_to_one(mixup, cutmix):
    torch.manual_seed(0)
    images, labels = pixels(), torch.arange(64) % 5
    found, weights = augmentation(mixup=mixup, cutmix=cutmix).train(images, labels)
    torch.testing.assert_close(weights.sum(1), torch.ones(64))
    assert ((weights > 0).sum(1) == 2).any()
    assert found.shape == images.shape


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
