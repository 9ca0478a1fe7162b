"""Of one image nothing is known of intervals: results say so, are drawn, and read back."""

import numpy as np
import pytest

import brdyn
from brdyn.data import load_images
from brdyn.plots import draw
from brdyn.trajectory import Stream
from tests.conftest import tiny_vit

STREAM = Stream(workers=0)


@pytest.fixture
def one(noise_folder):
    model = tiny_vit(depth=6)
    return model, load_images(noise_folder, model, n=1)


def again(found, folder):
    """What was read back from a folder, and its pictures could be drawn."""
    found.save(folder)
    read = brdyn.read(folder)
    assert read == found
    assert read.summary() == found.summary()
    assert draw(read)
    return read


def without_intervals(table):
    unknown = table[["low", "high", "sd"]]
    return unknown.isna().all(axis=None) and table["mean"].notna().any() and table["low"].dtype == float


def test_dynamics(one, tmp_path):
    measures = ["all", "spectra", "branches"]
    found = brdyn.token_dynamics(*one, k=2, measures=measures, tangents=2, krylov_steps=1, stream=STREAM)
    said = again(found, tmp_path / "out")
    assert without_intervals(said.table)
    assert without_intervals(said.spectra.totals)
    assert without_intervals(said.spectra.blocks)
    assert without_intervals(said.spectra.pairs)
    assert "one image: nothing is known of intervals" in said.remarks()
    assert "nan" not in said.summary()


def test_modes_of_one_held_out_image(one, tmp_path, noise_folder):
    images = load_images(noise_folder, one[0], n=5)
    found = brdyn.token_dynamics(one[0], images, k=2, measures=["modes"], stream=STREAM)
    assert found.modes.n_held_out == 1
    assert without_intervals(again(found, tmp_path / "out").modes.errors)


def test_repair(one, tmp_path):
    found = brdyn.perturbation_repair(*one, k=2, eps=[0.2], starts=[0, 2], stream=STREAM)
    said = again(found, tmp_path / "out")
    assert without_intervals(said.angles)
    assert without_intervals(said.growth)
    assert said.answer().count("neither growth nor repair can be told") == 3
    assert any("or there is none" in line for line in said.remarks())


def test_surgery(one, tmp_path):
    found = brdyn.layer_surgery(*one, k=2, kinds=["delete"], stream=STREAM)
    said = again(found, tmp_path / "out")
    assert without_intervals(said.table)
    assert any("or there are none" in line for line in said.remarks())
    assert np.isfinite(said.table["mean"]).all()
