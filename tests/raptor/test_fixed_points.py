"""Blocks past their phases, against their applications one by one."""

from functools import partial

import pytest
import torch
from torch.nn import functional

from brdyn.data import load_images
from brdyn.measures.engine import measure
from brdyn.measures.fixed_points import spectral_radius
from brdyn.measures.found_fixed_points import FixedPoints
from brdyn.raptor.evaluation import evaluate
from brdyn.raptor.fixed_points import past_phases
from brdyn.trajectory import Stream, capture
from tests.conftest import tiny_vit
from tests.interventions.stub import StubViT
from tests.raptor.test_evaluation import raptor_of

FACTOR = 3
NAMES = ["block 1, layers 1 to 2", "block 2, layer 3", "block 1, layer 4"]


@pytest.fixture(autouse=True)
def few_products(monkeypatch):
    """Known Jacobians are in tests/measures."""
    monkeypatch.setattr("brdyn.measures.fixed_points.spectral_radius", partial(spectral_radius, products=2))


def test_a_block_is_applied_past_its_phase_as_at_its_last_layer(noise_folder, tiny):
    """What is behind the phase follows, and is held against the teacher's last state."""
    images = load_images(noise_folder, tiny).some(12, 0)
    raptor = raptor_of(tiny, (0, 0, 1, 0))
    metrics = past_phases(raptor, FACTOR)
    assert [(name, metric.applications) for name, metric in metrics.items()] == list(zip(NAMES, (6, 3, 3), strict=True))
    measure(tiny, images, metrics, stream=Stream(batch_size=5, workers=0))
    found = FixedPoints.of(FACTOR, metrics)
    assert found.readings == ("cosine",)  # it has no head
    theirs = capture(tiny, next(iter(images.batches(12, workers=0)))).states
    first, second = raptor.shared
    with torch.no_grad():
        states = [theirs[0], first(theirs[0], 1)]
        for _ in range(5):
            states.append(first(states[-1], 2))  # depth scaling stays at the last layer
        read = {number: first(second(states[number], 3), 4) for number in (2, 4, 6)}
    for number in range(1, 7):
        step = (states[number] - states[number - 1]).flatten(1).norm(dim=1) / states[number - 1].flatten(1).norm(dim=1)
        assert found.curve(NAMES[0], "step")["mean"][number] == pytest.approx(float(step.mean()), rel=1e-4)
    cosines = found.curve(NAMES[0], "cosine")["mean"]
    assert cosines.index.tolist() == [2, 4, 6]
    for number, state in read.items():
        expected = functional.cosine_similarity(state, theirs[-1], dim=-1).mean()
        assert cosines[number] == pytest.approx(float(expected), rel=1e-4)
    own = read[2]  # its own last state: the last span begins one before
    last = found.curve(NAMES[2], "cosine")["mean"][1]
    assert last == pytest.approx(float(functional.cosine_similarity(own, theirs[-1], dim=-1).mean()), rel=1e-4)


def test_the_teachers_head_reads_what_comes_of_it(noise_folder):
    teacher = StubViT([lambda state: state.roll(1, -1) * 0.9] * 4, classes=3)
    images = load_images(noise_folder, teacher).some(10, 0)
    found = evaluate(raptor_of(teacher, (0, 0, 1, 1)), images, stream=Stream(workers=0), beyond=2)
    past = found.beyond
    assert past.readings[:2] == ("cosine", "agreement")
    at_length = past.curve("block 2, layers 3 to 4", "agreement")["mean"][2]
    assert at_length == pytest.approx(found.fidelity.agreement)
    assert sum("applied 4 times" in line for line in found.remarks()) == 2


def test_what_is_read_is_as_without_it(noise_folder, tiny):
    images = load_images(noise_folder, tiny).some(6, 0)
    raptor = raptor_of(tiny)
    plain, past = (evaluate(raptor, images, stream=Stream(workers=0), beyond=beyond) for beyond in (None, 2))
    assert plain.beyond is None
    assert "beyond.parquet" not in plain.tables()
    assert past.tables()["beyond.parquet"] is past.beyond.table
    assert past.fidelity.table.equals(plain.fidelity.table)
    assert tiny_vit().depth == 4
