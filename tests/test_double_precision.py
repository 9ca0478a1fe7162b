"""Models in float64 are measured like those in float32."""

import numpy as np
import pandas as pd
import pytest
import torch

import brdyn
from brdyn.data import load_images
from brdyn.measures import SIMILARITIES
from brdyn.phases import segment
from brdyn.probes import extract_features, fit_linear, nearest_neighbours
from brdyn.trajectory import Stream
from tests.conftest import tiny_vit

STREAM = Stream(workers=0)
PHASES = segment(np.kron(np.eye(2), np.ones((2, 2))), 2)


@pytest.fixture
def pair(noise_folder):
    """A model in float32 and in float64, and images for each."""
    models = (tiny_vit(classes=3), tiny_vit(classes=3).double())
    (noise_folder / "a").mkdir()
    (noise_folder / "b").mkdir()
    for number, path in enumerate(sorted(noise_folder.glob("*.png"))):
        path.rename(noise_folder / "ab"[number % 2] / path.name)
    return [(model, load_images(noise_folder, model, n=24)) for model in models]


def alike(tables, **tolerance):
    single, double = (table.select_dtypes("number") for table in tables)
    pd.testing.assert_frame_equal(single, double, check_exact=False, **tolerance)


@pytest.mark.parametrize("kind", SIMILARITIES)
def test_similarity(pair, kind):
    found = [brdyn.layer_similarity(*one, kind, replicates=0, stream=STREAM) for one in pair]
    np.testing.assert_allclose(*(one.matrix for one in found), atol=1e-4)


def test_dynamics(pair):
    options = {"measures": ["all", "branches", "spectra"], "tangents": 2, "krylov_steps": 1, "rank": 4}
    found = [brdyn.token_dynamics(*one, PHASES, **options, stream=STREAM) for one in pair]
    assert not found[1].left_out
    alike([one.table for one in found], rtol=1e-2, atol=1e-3)


def test_interventions(pair):
    repaired = [brdyn.perturbation_repair(*one, PHASES, stream=STREAM) for one in pair]
    alike([one.angles for one in repaired], rtol=1e-3, atol=1e-5)
    operated = [brdyn.layer_surgery(*one, PHASES, stream=STREAM) for one in pair]
    alike([one.table for one in operated], rtol=1e-3, atol=1e-5)
    spliced = [
        brdyn.splice_skill(*one, PHASES, surrogates=["mean", "repeat", "exchange"], stream=STREAM) for one in pair
    ]
    alike([one.table for one in spliced], rtol=1e-3, atol=1e-4)


def test_a_default_of_float64_does_not_change_what_is_measured(pair):
    """Of torch's own tensors, that is; those of a model in float32 stay so."""
    model, images = pair[0]
    tables = []
    for default in (torch.float32, torch.float64):
        torch.set_default_dtype(default)
        try:
            repaired = brdyn.perturbation_repair(model, images, PHASES, eps=[0.1], stream=STREAM)
            spliced = brdyn.splice_skill(model, images, PHASES, surrogates=["mean"], stream=STREAM)
            features = extract_features(model, images, stream=STREAM)["model"]
            linear = fit_linear(features, features, penalties=(1.0,))
            nearest = nearest_neighbours(features, features.values, neighbours=3)
        finally:
            torch.set_default_dtype(torch.float32)
        tables.append((repaired.angles, spliced.table, linear.weight.numpy(), nearest.numpy()))
    for of_single, of_double in zip(*(found[:2] for found in tables), strict=True):
        alike([of_single, of_double], rtol=1e-5, atol=1e-6)
    for of_single, of_double in zip(*(found[2:] for found in tables), strict=True):
        np.testing.assert_allclose(of_single, of_double, rtol=1e-3, atol=1e-5)
