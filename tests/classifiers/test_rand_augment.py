"""RandAugment of a batch: torchvision's operations, one for each image, drawn evenly and in both directions."""

import pytest
import torch
from torchvision.transforms import v2

from brdyn.classifiers.rand_augment import BINS, NAMES, operate, rand_augment, sizes

SPACE = v2.RandAugment._AUGMENTATION_SPACE


def pictures(height=16, width=16):
    """Noise, few levels, one level, and dark noise."""
    rng = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (4, 3, height, width), dtype=torch.uint8, generator=rng)
    noise[1], noise[2], noise[3] = noise[1] // 64 * 64, 7, noise[3] // 8
    return noise


@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
@pytest.mark.parametrize("name", NAMES)
def test_the_operations_are_torchvisions(name, size, magnitude):
    """Pixel for pixel."""
    images, whole = pictures(*size), v2.RandAugment(1, magnitude)
    values, signed = SPACE[name]
    strengths = values(BINS, *size)
    for backwards in (False, True):
        by = 0.0 if strengths is None else float(strengths[magnitude]) * (-1 if signed and backwards else 1)
        expected = whole._apply_image_or_video_transform(
            images, name, by, interpolation=whole.interpolation, fill=whole._fill
        )
        number = torch.full((4,), NAMES.index(name))
        found = operate(images, number, torch.full((4,), backwards), magnitude)
        assert torch.equal(found, expected)


def test_magnitudes_are_torchvisions():
    """At each of the bins, of images of several sides; those that do not turn around do the same in both directions."""
    assert tuple(SPACE) == NAMES
    for name, (values, signed) in SPACE.items():
        for sides in ((16, 16), (12, 20), (331, 224)):
            strengths = values(BINS, *sides)
            for magnitude in range(BINS) if strengths is not None else ():
                size = float(strengths[magnitude])
                found = sizes(name, magnitude, *sides)
                assert [round(one) if name == "Posterize" else one for one in found] == [
                    size, -size if signed else size
                ]  # fmt: skip


def test_a_batch_is_its_images_one_by_one():
    """Every image keeps its place, and gets its own operation in its own direction."""
    images = pictures().repeat(14, 1, 1, 1)
    operation = torch.arange(14).repeat_interleave(4)[torch.randperm(56, generator=torch.Generator().manual_seed(1))]
    backwards = torch.arange(56) % 3 == 0
    together = operate(images, operation, backwards, 9)
    for place in range(56):
        one = slice(place, place + 1)
        assert torch.equal(operate(images[one], operation[one], backwards[one], 9), together[one])


def test_draws_are_even(monkeypatch):
    """Each operation once in fourteen, each direction once in two, drawn apart."""
    drawn = []
    monkeypatch.setattr("brdyn.classifiers.rand_augment.operate", lambda pixels, *draws: drawn.append(draws) or pixels)
    torch.manual_seed(0)
    rand_augment(torch.zeros(28_000, 3, 1, 1, dtype=torch.uint8), 9)
    ((operation, backwards, magnitude),) = drawn
    assert magnitude == 9
    counts = torch.bincount(2 * operation + backwards, minlength=28)
    assert len(counts) == 28
    assert (counts - 1000).abs().max() < 5 * (1000 * 27 / 28) ** 0.5
