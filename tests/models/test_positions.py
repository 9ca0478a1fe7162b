"""Resampling of position tables against float64 bicubic filters written from their definition."""

import numpy as np
import pytest
import torch

from brdyn.errors import BrdynError
from brdyn.models import positions
from tests import reference

GRIDS = {"224": (16, 16), "non-square": (14, 20), "larger": (41, 41), "518": (37, 37)}


@pytest.fixture(scope="module")
def table():
    return torch.randn(1, 37 * 37, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_facebook_rules(table, grid):
    square = table.reshape(37, 37, 8).double().numpy()
    plain = positions.FACEBOOK_DINOV2.resample(table, grid).reshape(*grid, 8).numpy()
    registers = positions.FACEBOOK_DINOV2_REGISTERS.resample(table, grid).reshape(*grid, 8).numpy()
    if grid == (37, 37):
        np.testing.assert_array_equal(plain, square.astype(np.float32))
        np.testing.assert_array_equal(registers, square.astype(np.float32))
    else:
        scale = [(side + 0.1) / 37 for side in grid]
        np.testing.assert_allclose(plain, reference.bicubic(square, grid, scale), atol=3e-5)
        np.testing.assert_allclose(registers, reference.bicubic_antialias(square, grid), atol=3e-5)


def test_rules_differ_where_it_matters(table):
    plain, by_size, registers = (
        rule.resample(table, (16, 16))
        for rule in (positions.FACEBOOK_DINOV2, positions.BY_SIZE, positions.FACEBOOK_DINOV2_REGISTERS)
    )
    assert (plain - by_size).abs().max() > 0.01
    assert (plain - registers).abs().max() > 0.1


def test_prefix_is_kept(table):
    with_cls = torch.cat([torch.full((1, 1, 8), 7.0), table], dim=1)
    resampled = positions.resample_with_prefix(with_cls, (4, 4), positions.BY_SIZE, prefix=1)
    assert resampled.shape == (1, 17, 8)
    assert torch.equal(resampled[:, 0], with_cls[:, 0])


@pytest.mark.parametrize("grid", [(16, 16), (37, 37)])
def test_a_table_keeps_its_precision(table, grid):
    """Resampled in float32, and rounded once."""
    half = table.bfloat16()
    for rule in (positions.FACEBOOK_DINOV2, positions.FACEBOOK_DINOV2_REGISTERS, positions.BY_SIZE):
        resampled = rule.resample(half, grid)
        assert resampled.dtype == torch.bfloat16
        assert torch.equal(resampled, rule.resample(half.float(), grid).bfloat16())


def test_table_must_be_square():
    with pytest.raises(BrdynError, match="not square"):
        positions.BY_SIZE.resample(torch.zeros(1, 12, 4), (2, 2))
