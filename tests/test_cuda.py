"""On a GPU: the numbers of the CPU."""

import numpy as np
import pytest
import torch

import brdyn
from brdyn.classifiers import train_classifier
from brdyn.classifiers.augment import Augmentation
from brdyn.classifiers.recipe import AugmentSettings
from brdyn.data import load_images
from brdyn.interventions import perturbation_repair, repair
from brdyn.measures import SIMILARITIES, layer_similarity, spectra
from brdyn.measures.eigenvalues import eigenvalues
from brdyn.phases import segment
from brdyn.raptor import FitSettings, fit_raptor
from brdyn.training import Checkpoints, Session
from brdyn.training.session import make_accelerator
from brdyn.trajectory import Stream
from tests.classifiers.small import NETWORKS, new, pictures, recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ALONE = Stream(workers=0)


def draws_of_the_cpu(monkeypatch, module, name):
    """Let a module's random numbers for states be those of the CPU: a GPU draws others."""
    drawn = getattr(module, name)

    def of_the_cpu(states, *draw):
        return drawn(states.cpu(), *draw).to(states.device)

    monkeypatch.setattr(module, name, of_the_cpu)


@pytest.mark.parametrize("kind", SIMILARITIES)
def test_similarity_equals_the_cpu(kind, tiny, noise_folder):
    images = load_images(noise_folder, tiny)
    here = layer_similarity(tiny, images, kind, stream=ALONE)
    there = layer_similarity(tiny.to("cuda"), images, kind, stream=ALONE)
    np.testing.assert_allclose(here.matrix, there.matrix, atol=1e-3)


def test_bfloat16_keeps_the_boundaries(tiny, noise_folder):
    images = load_images(noise_folder, tiny)
    full = segment(layer_similarity(tiny.to("cuda"), images, stream=ALONE), k=2)
    half = segment(layer_similarity(tiny.to("cuda", torch.bfloat16), images, stream=ALONE), k=2)
    assert full.boundaries == half.boundaries


def test_dynamics_equal_the_cpu(tiny, noise_folder):
    """Every curve; the images have labels, so that basins are measured too."""
    (noise_folder / "a").mkdir(), (noise_folder / "b").mkdir()
    for number, path in enumerate(sorted(noise_folder.glob("*.png"))):
        path.rename(noise_folder / "ab"[number % 2] / path.name)
    images = load_images(noise_folder, tiny)
    named = ["all", "branches"]
    here = brdyn.token_dynamics(tiny, images, k=2, measures=named, stream=ALONE).table
    there = brdyn.token_dynamics(tiny.to("cuda"), images, k=2, measures=named, stream=ALONE).table
    keys = ["statistic", "group", "layer"]
    both = here.merge(there, on=keys, suffixes=("", "_there"))
    assert len(both) == len(here) == len(there)
    np.testing.assert_allclose(both["mean"], both["mean_there"], rtol=2e-3, atol=2e-3)


def test_spectra_equal_the_cpu(tiny, noise_folder, monkeypatch):
    """From the vectors of the CPU, in float32: exponents, singular values and coupling."""
    draws_of_the_cpu(monkeypatch, spectra, "normal_like")
    images = load_images(noise_folder, tiny, n=8)
    asked = {"k": 2, "measures": ["spectra"], "tangents": 4, "krylov_steps": 3, "stream": ALONE}
    here = brdyn.token_dynamics(tiny, images, **asked).spectra
    there = brdyn.token_dynamics(tiny.to("cuda"), images, **asked).spectra
    for name in ("totals", "blocks", "pairs"):
        first, second = getattr(here, name)["mean"], getattr(there, name)["mean"]
        np.testing.assert_allclose(first, second, rtol=1e-2, atol=1e-2)


def test_splices_equal_the_cpu(tiny, noise_folder):
    """Errors of the last state, their maps fitted on the device; skill may be far below 0."""
    images = load_images(noise_folder, tiny)
    phases = segment(np.eye(tiny.depth), 2)
    asked = {"surrogates": ["mean", "affine", "power", "repeat", "exchange"], "stream": ALONE}
    here = brdyn.splice_skill(tiny, images, phases, **asked).table
    there = brdyn.splice_skill(tiny.to("cuda"), images, phases, **asked).table
    rows = here["measure"].isin(["r2", "cosine"]).to_numpy()
    np.testing.assert_allclose(here["mean"][rows], there["mean"][rows], rtol=2e-2, atol=2e-2)


def test_repair_equals_the_cpu(tiny, noise_folder, monkeypatch):
    """With the noise of the CPU: a GPU draws another."""
    draws_of_the_cpu(monkeypatch, repair, "relative_noise")
    images = load_images(noise_folder, tiny, n=8)
    here = perturbation_repair(tiny, images, stream=ALONE).angles
    there = perturbation_repair(tiny.to("cuda"), images, stream=ALONE).angles
    np.testing.assert_allclose(here["mean"], there["mean"], rtol=1e-2, atol=2e-3)


def test_augmentation_equals_the_cpu():
    """All draws are the CPU's; pixels may round otherwise where an operation interpolates."""
    images = pictures(64)
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        augmentation = Augmentation(AugmentSettings(), 3, [0.3] * 3, [0.3] * 3)
        mixed, weights = augmentation.train(images.pixels.to(device), images.labels.to(device))
        found.append((mixed.cpu(), weights.cpu()))
    torch.testing.assert_close(found[0][1], found[1][1])
    assert ((found[0][0] - found[1][0]).abs() < 0.05).float().mean() > 0.99


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_classifier_learns_and_resumes(name, precision, tmp_path):
    options, checkpoints = recipe(epochs=12, precision=precision, ema=0.5), Checkpoints(tmp_path, {}, keep=9)
    whole, again = new(name), new(name)
    history = train_classifier(
        whole, pictures(), options, session=Session(checkpoints=checkpoints, accelerator=make_accelerator())
    )
    assert next(whole.network.parameters()).device.type == "cuda"
    assert history.losses[-1]["network"] < history.losses[0]["network"]
    saved = checkpoints.read(checkpoints.paths()[-3])
    train_classifier(again, pictures(), options, session=Session(resume=saved, accelerator=make_accelerator()))
    for first, second in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-2, atol=1e-2)  # GPUs add in any order


@pytest.mark.parametrize("changes", [{}, {"precision": "bfloat16"}, {"compile": True}], ids=str)
def test_a_fit_equals_the_cpu(changes, tiny, noise_folder):
    """Loss by loss; also compiled, and roughly in bfloat16."""
    quick = FitSettings(
        stage1_steps=6, stage2_steps=6, batch_size=8, validation_images=8, log_every=1, validate_every=6,
        checkpoint_every=6, layer_scale=0.1,
    )  # fmt: skip
    images = load_images(noise_folder, tiny)
    here = fit_raptor(tiny, images, [2], quick, workers=0)
    chosen = FitSettings(**{**quick.to_dict(), **changes})
    there = fit_raptor(tiny.to("cuda"), images, [2], chosen, workers=0)
    close = 0.05 if changes.get("precision") else 5e-3
    for stage in (1, 2):
        for one, other in zip(here.histories[stage].losses, there.histories[stage].losses, strict=True):
            assert list(other.values()) == pytest.approx(list(one.values()), rel=close)


@pytest.mark.parametrize("n", [1, 17, 128, 196, 256, 400])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 5e-7), (torch.float64, 1e-13)])
def test_eigenvalues_are_lapacks(n, dtype, error):
    generator = torch.Generator().manual_seed(n)
    fields = torch.randn(3, n, 384, generator=generator, dtype=dtype)
    grams = fields @ fields.mT
    expected = np.linalg.eigvalsh(grams.double().numpy())
    found = eigenvalues(grams.to("cuda")).cpu().numpy()
    assert np.abs(found - expected).max() < error * expected.max()


def test_what_is_not_finite_has_no_eigenvalues():
    grams = torch.eye(32).repeat(3, 1, 1)
    grams[1, 4, 5] = grams[1, 5, 4] = torch.nan
    grams[2, 3, 3] = torch.inf
    found = eigenvalues(grams.to("cuda")).cpu()
    torch.testing.assert_close(found[0], torch.ones(32, dtype=torch.float64))
    assert found[1:].isnan().all()


def test_a_gpu_and_then_the_cpu():
    """In one process, each training where it is asked for."""
    for device in ("cuda", "cpu", "cuda"):
        assert make_accelerator(torch.device(device)).device.type == device
