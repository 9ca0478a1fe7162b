"""One rule for seeds, everywhere."""

import numpy as np
import pytest
import torch

import brdyn
from brdyn.interventions.contexts import perturb, shuffle
from brdyn.random_keys import random_keys
from brdyn.raptor import FitSettings
from brdyn.runtime import seed_default
from brdyn.seeds import LARGEST_SEED, check_seed
from brdyn.trajectory import Stream
from tests.conftest import tiny_vit


def test_the_range():
    assert [check_seed(seed) for seed in (0, 7, 2**63 - 1)] == [0, 7, 2**63 - 1]
    for kind in (np.int64, np.uint64, np.int32, torch.tensor):
        assert type(check_seed(kind(7))) is int
    for wrong in (-1, 2**63, 1.0, "1", None, True, np.float64(1), np.array([1, 2]), torch.tensor(1.5)):
        with pytest.raises(brdyn.UsageError, match=r"is not a whole number from 0 to 2\^63 - 1"):
            check_seed(wrong)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_has_no_generator_of_its_own_starts_at_a_seed(device, monkeypatch):
    """As by torch, which is asked to where there may be a GPU alone."""
    asked, manual_seed = [], torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: asked.append(seed) or manual_seed(seed))
    manual_seed(5)
    expected = torch.rand(3)
    seed_default(5, torch.device(device))
    assert torch.equal(torch.rand(3), expected)
    assert asked == ([5] if device == "cuda" else [])


@pytest.mark.parametrize("seed", [-1, LARGEST_SEED + 1])
def test_the_library_refuses_what_the_command_line_refuses(seed, noise_folder):
    model = tiny_vit()
    images = brdyn.load_images(noise_folder, model, n=4)
    similarity = brdyn.layer_similarity(model, images, replicates=0, stream=Stream(workers=0))
    phases = brdyn.segment(similarity, 2)
    calls = [
        lambda: brdyn.load_model("vit_tiny_patch16_224", init="random", seed=seed),
        lambda: brdyn.load_images(noise_folder, model, n=4, seed=seed),
        lambda: brdyn.layer_similarity(model, images, seed=seed),
        lambda: brdyn.token_dynamics(model, images, phases, seed=seed),
        lambda: brdyn.perturbation_repair(model, images, seed=seed),
        lambda: brdyn.layer_surgery(model, images, phases, seed=seed),
        lambda: brdyn.segment(similarity, seed=seed),
        lambda: FitSettings(seed=seed),
        lambda: perturb(model, 1, 0.1, seed=seed).__enter__(),
        lambda: shuffle(model, [1, 2], seed=seed).__enter__(),
    ]
    for call in calls:
        with pytest.raises(brdyn.UsageError, match=f"seed {seed} is not"):
            call()


def test_numbers_of_numpy_are_numbers(noise_folder, tmp_path):
    """As out of `np.arange`: seeds, counts, sizes; each gives what the same int does, and can be kept."""

    def measured(number):
        model = brdyn.load_model("vit_tiny_patch16_224", init="random", seed=number(1), image_size=number(32))
        images = brdyn.load_images(noise_folder, model, n=number(4), seed=number(1))
        stream = Stream(batch_size=number(2), workers=0)
        return brdyn.with_null(
            brdyn.token_dynamics, model, images, k=number(2), seed=number(1), stream=stream,
            twins=brdyn.untrained_twins(model, number(1), seed=number(1)), measures=["convergence"],
        )  # fmt: skip

    theirs, ours = measured(np.int64), measured(int)
    assert theirs.table.equals(ours.table)
    assert theirs.null.weights == ours.null.weights
    theirs.save(tmp_path / "kept")
    assert brdyn.read(tmp_path / "kept").table.equals(ours.table)
    assert type(FitSettings(seed=np.int64(1)).seed) is int
    np.testing.assert_array_equal(random_keys([3], np.int64(1)), random_keys([3], 1))
