"""Measures of motion where tokens are zero, or hardly move."""

import pytest
import torch

from brdyn.measures.estimation import PhaseEstimation
from brdyn.measures.update_field import UpdateField
from brdyn.trajectory import Trajectory
from tests.measures.test_dynamics import DEPTH, LAYOUT


@pytest.fixture
def states():
    """Random walks `(L + 1, B, N, D)`."""
    return torch.randn(DEPTH + 1, 7, 9, 8, generator=torch.Generator().manual_seed(0)).cumsum(0)


def test_an_image_with_a_token_of_norm_zero_has_no_tangent_ranks(states):
    """Its direction is not known; the raw ranks, the other images and the other layers are as before."""
    zeroed = states.clone()
    zeroed[1, 2, 4] = 0
    metric = UpdateField(LAYOUT, DEPTH)
    trajectory = Trajectory(zeroed, LAYOUT, torch.arange(7))
    for (name, _), values in metric.per_image(trajectory).items():
        spoilt = torch.zeros_like(values, dtype=torch.bool)
        spoilt[1, 2] = name.startswith("tangent")
        assert torch.equal(values.isnan(), spoilt)


@pytest.mark.parametrize("scale", [1e-4, 1e-8])
def test_the_estimation_error_of_small_updates_is_that_of_differences(states, scale):
    """And of a model in float64 in its own precision."""
    small = states[:1].double() * 10 + scale * states.double()
    found = PhaseEstimation(LAYOUT, DEPTH).per_image(Trajectory(small, LAYOUT, torch.arange(7)))
    got = found["estimation_variance", "patches"].view(DEPTH, DEPTH, 7)
    error = (small[1:, None] - small[None, 1:])[..., LAYOUT["patches"], :]
    torch.testing.assert_close(got, error.var(-1, correction=0).mean(-1), rtol=1e-3, atol=0)
