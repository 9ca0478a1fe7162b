"""Fidelity against direct computations, cost against counting, and results that come back."""

import json

import pytest
import torch
from pandas.testing import assert_frame_equal
from torch.nn import functional

from brdyn.data import Batch, load_images
from brdyn.raptor.block import BlockConfig
from brdyn.raptor.cost import cost, flops
from brdyn.raptor.evaluation import Evaluation, evaluate, paired_features
from brdyn.raptor.fidelity import FidelityMetric, fidelity
from brdyn.raptor.model import Raptor, untrained
from brdyn.trajectory import Stream, capture
from tests.conftest import scramble, tiny_vit
from tests.interventions.stub import StubViT


def raptor_of(teacher, assignment=(0, 0, 1, 1), **options):
    config = BlockConfig(width=teacher.info.width, heads=2, layer_scale=0.3, **options)
    raptor = untrained(teacher, assignment, config, 0)
    scramble(raptor.shared, 4)
    with torch.no_grad():
        for parameter in raptor.shared.parameters():
            parameter.mul_(2)
    return raptor.eval().requires_grad_(False)


@pytest.fixture
def images(noise_folder, tiny):
    return load_images(noise_folder, tiny)


def direct(raptor, images):
    """Both modes, all images at once, in float64."""
    batch = next(iter(images.batches(40, workers=0)))
    theirs = capture(raptor.teacher, batch).states
    own, forced = [theirs[0]], []
    with torch.no_grad():
        for layer, block in enumerate(raptor.blocks):
            own.append(block(own[-1]))
            forced.append(block(theirs[layer]))
    return theirs, {"autoregressive": own[1:], "one-step": forced}


@pytest.mark.parametrize("batch_size", [7, 40])
def test_fidelity_against_a_direct_computation(tiny, images, batch_size):
    raptor = raptor_of(tiny)
    found = fidelity(raptor, images, stream=Stream(batch_size=batch_size, workers=0))
    theirs, guesses = direct(raptor, images)
    groups = {**tiny.tokens.groups, "all": slice(None)}
    for mode, states in guesses.items():
        for group, part in groups.items():
            for layer in range(1, 5):
                truth, guess = theirs[layer][:, part].double(), states[layer - 1][:, part].double()
                error = (guess - truth).flatten(1).norm(dim=1)
                mean = truth.flatten(0, 1).mean(0)
                expected = {
                    "r2": 1 - error.square().sum() / (truth - mean).square().sum(),
                    "relative_error": (error / truth.flatten(1).norm(dim=1)).mean(),
                    "epsilon": error.mean(),
                    "cosine": functional.cosine_similarity(guess, truth, dim=-1).mean(),
                }
                for statistic, value in expected.items():
                    measured = found.curve(statistic, group, mode).loc[layer]
                    assert measured == pytest.approx(value.item(), rel=1e-4, abs=1e-5), (
                        mode,
                        statistic,
                        group,
                    )
    rows = found.table.query("statistic == 'epsilon'")
    assert (rows["low"] < rows["mean"]).all()
    assert (rows["n_images"] == 40).all()


def test_the_teacher_itself_is_perfect(tiny, images):
    """Blocks of the teacher in the place of shared ones: no error anywhere."""
    raptor = raptor_of(tiny, (0, 1, 2, 3))
    for application, block in zip(raptor.blocks, tiny.blocks, strict=True):
        application.forward = block.forward
    table = fidelity(raptor, images, stream=Stream(workers=0)).table
    assert table.query("statistic == 'r2'")["mean"].to_numpy() == pytest.approx(1, abs=1e-6)
    assert table.query("statistic == 'cosine'")["mean"].to_numpy() == pytest.approx(1, abs=1e-5)
    assert table.query("statistic == 'epsilon'")["mean"].abs().max() < 1e-4


def test_the_head_of_the_teacher(noise_folder):
    teacher = StubViT([lambda state: 1.5 * state - state.roll(1, 2)] * 4, classes=3)
    images = load_images(noise_folder, teacher)
    raptor = raptor_of(teacher)
    found = fidelity(raptor, images, stream=Stream(workers=0))
    batch = next(iter(images.batches(40, workers=0)))
    with torch.no_grad():
        same = teacher.logits(teacher(batch.images)).argmax(1) == raptor.logits(raptor(batch.images)).argmax(
            1
        )
    assert found.agreement == pytest.approx(same.double().mean().item())
    assert found.accuracy is None  # no labels


def test_accuracy_of_the_head_with_either_body():
    """Labels are what the teacher says for three images and what the Raptor says for two, of five."""
    teacher = StubViT([lambda state: 1.5 * state - state.roll(1, 2)] * 4, classes=3)
    raptor = raptor_of(teacher)
    pictures = torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs, ours = (model.logits(model(pictures)).argmax(1) for model in (teacher, raptor))
    apart = (theirs != ours).nonzero().flatten()[:5]
    labels = torch.cat([theirs[apart[:3]], ours[apart[3:]]])
    batch = Batch(pictures[apart], torch.arange(5), labels)
    for with_labels, expected in ((True, (0.0, 2 / 5, 3 / 5)), (False, (0.0, None, None))):
        metric = FidelityMetric(raptor, with_labels=with_labels)
        for part in batch.split(3):
            metric.update(capture(teacher, part))
        found = metric.result()
        assert (found.agreement, found.accuracy, found.teacher_accuracy) == expected


def test_cost_is_counted(tiny):
    raptor = raptor_of(tiny)
    found = cost(raptor, batch_size=2, rounds=3)
    width, hidden, tokens = 16, 64, tiny.tokens.count
    per_token = 4 * width * width + 3 * width * hidden + 2 * tokens * width
    patches = 16 * 3 * 8 * 8 * width
    depth = 4 * (16 + 16 * 3 * width)
    assert found.flops == 2 * (4 * tokens * per_token + patches + depth)
    assert found.block_parameters == sum(p.numel() for p in raptor.shared.parameters())
    assert found.teacher_block_parameters == sum(p.numel() for p in tiny.blocks.parameters())
    assert (
        found.parameters - found.block_parameters == found.teacher_parameters - found.teacher_block_parameters
    )
    low, high = found.speed_ratio_range
    assert 0 < low <= found.speed_ratio <= high
    assert found.teacher_flops == flops(tiny)


@pytest.fixture
def labelled(noise_folder):
    for name in ("a", "b"):
        (noise_folder / name).mkdir()
    for path in sorted(noise_folder.glob("*.png")):
        path.rename(noise_folder / ("a" if int(path.stem) % 2 else "b") / path.name)
    return noise_folder


def test_evaluation_comes_back(labelled, tmp_path):
    teacher = tiny_vit()
    images = load_images(labelled, teacher)
    found = evaluate(raptor_of(teacher), images, *images.split(10, 0), seeds=2, stream=Stream(workers=0))
    found.save(tmp_path / "out")
    again = Evaluation.read(tmp_path / "out")
    assert again == found
    assert again.assignment == found.assignment
    assert again.cost == found.cost
    for ours, theirs in ((again.fidelity, found.fidelity), (again.probing, found.probing)):
        assert_frame_equal(ours.table, theirs.table, check_dtype=False)
    content = json.loads((tmp_path / "out" / "raptor_eval.json").read_text())
    assert content["probing"]["n_test"] == 10
    assert content["probe_images"]["test"]["read"] == 10


def test_features_of_both(labelled):
    teacher = tiny_vit()
    raptor = raptor_of(teacher)
    images = load_images(labelled, teacher)
    found = paired_features(raptor, images, stream=Stream(workers=0))
    batch = next(iter(images.batches(40, workers=0)))
    for name, model in {"teacher": teacher, "raptor": raptor}.items():
        with torch.no_grad():
            tokens = model(batch.images)
        expected = torch.cat([tokens[:, 0], tokens[:, model.tokens["patches"]].mean(1)], dim=1)
        torch.testing.assert_close(found[name].values, expected, atol=1e-4, rtol=1e-4)
    assert isinstance(raptor, Raptor)
