"""Every measure that is taken alone answers with its own numbers."""

import numpy as np
import pytest

import brdyn
from brdyn.choices import MEASURES
from brdyn.data import load_images
from brdyn.trajectory import Stream
from tests.conftest import tiny_vit

ANSWERS = {
    "norm": "norm at last: cls ",
    "convergence": "within 60 degrees of the final direction: cls ",
    "speed": "turning fastest: cls at update ",
    "turning": "turning angle of the last update (radians): cls ",
    "update": "largest effective rank of an update: patches ",
    "estimation": "largest absolute mean estimation error: cls ",
    "basins": "basins of ",
    "modes": "modes, layers ",
    "readout": "the head reads the final class from state ",
    "branches": "mean share of attention in the norms of both branches: cls 0.",
    "spectra": "spectra: finite-time Lyapunov exponents ",
}


@pytest.fixture
def measured(little_cifar):
    model = tiny_vit(classes=10)
    images = load_images(little_cifar["train"], model).take(np.arange(24))
    return model, images


def test_there_is_an_answer_of_each():
    assert list(ANSWERS) == list(MEASURES)


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_alone(name, measured):
    found = brdyn.token_dynamics(*measured, k=2, measures=[name], tangents=2, stream=Stream(workers=0, batch_size=8))
    assert found.answer().startswith(ANSWERS[name])
    assert found.answer() not in found.remarks()
    assert found.summary().count(found.answer()) == 1
