"""RandAugment of a batch: torchvision's operations, one for each image, drawn evenly and in both directions."""

import pytest
import torch
from torchvision.transforms import v2

from brdyn.classifiers.rand_augment import BINS, NAMES, SPACE, operate, rand_augment


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
    """Pixel for pixel; but colours may round by one where a gray ends in an exact half."""
    images, whole = pictures(*size), v2.RandAugment(1, magnitude)
    values, signed = SPACE[name]
    sizes = values(BINS, *size)
    for backwards in (False, True):
        by = 0.0 if sizes is None else float(sizes[magnitude]) * (-1 if signed and backwards else 1)
        expected = whole._apply_image_or_video_transform(
            images, name, by, interpolation=whole.interpolation, fill=whole._fill
        )
        number = torch.full((4,), NAMES.index(name))
        found = operate(images, number, torch.full((4,), backwards), magnitude)
        difference = (found.int() - expected.int()).abs()
        if name == "Color":
            assert difference.max() <= 1
            assert (difference > 0).float().mean() < 0.05
        else:
            assert not difference.any()


def test_a_batch_is_its_images_one_by_one():
    """Every image keeps its place, and gets its own operation in its own direction."""
    images = pictures().repeat(14, 1, 1, 1)
    operation = torch.arange(14).repeat_interleave(4)[
        torch.randperm(56, generator=torch.Generator().manual_seed(1))
    ]
    backwards = torch.arange(56) % 3 == 0
    together = operate(images, operation, backwards, 9)
    for place in range(56):
        one = slice(place, place + 1)
        assert torch.equal(operate(images[one], operation[one], backwards[one], 9), together[one])


def test_draws_are_even(monkeypatch):
    """Each operation once in fourteen, each direction once in two, drawn apart."""
    drawn = []
    monkeypatch.setattr(
        "brdyn.classifiers.rand_augment.operate", lambda pixels, *draws: drawn.append(draws) or pixels
    )
    torch.manual_seed(0)
    rand_augment(torch.zeros(28_000, 3, 1, 1, dtype=torch.uint8), 9)
    ((operation, backwards, magnitude),) = drawn
    assert magnitude == 9
    counts = torch.bincount(2 * operation + backwards, minlength=28)
    assert len(counts) == 28
    assert (counts - 1000).abs().max() < 5 * (1000 * 27 / 28) ** 0.5
