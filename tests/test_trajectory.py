"""Capture: what the hooks see, streaming, memory, and running out of it."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from brdyn import trajectory as trajectory_module
from brdyn.data import Batch, load_images
from brdyn.errors import BrdynError, UsageError
from brdyn.measures import measure, similarity_metric
from brdyn.runtime import auto_batch_size, start_processes
from brdyn.trajectory import Stream, Trajectory, capture, record_states, trajectories, visit_trajectories
from tests.conftest import tiny_vit


def batch(count=3):
    images = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.arange(count), None)


def test_states_are_those_of_stepping(tiny):
    inputs = batch()
    captured = capture(tiny, inputs)
    state = tiny.embed(inputs.images)
    assert torch.equal(captured.states[0], state)
    for block, recorded in zip(tiny.blocks, captured.states[1:], strict=True):
        state = block(state)
        assert torch.equal(recorded, state)
    assert captured.depth == 4
    assert captured.stack().shape == (5, 3, 1 + 2 + 16, 16)


class Leaving(nn.Module):
    """A block that leaves itself out, by a chance of its own."""

    def __init__(self, drop_path):
        super().__init__()
        self.drop_path = drop_path

    def forward(self, state):
        return state * (float(torch.rand(())) >= self.drop_path) if self.training else state


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: nn.Dropout(0.1), "Dropout"),
        (lambda: DropPath(0.1), "DropPath"),
        (lambda: Leaving(0.1), "Leaving"),
        (lambda: nn.BatchNorm1d(19), "BatchNorm1d"),
        (lambda: nn.TransformerEncoderLayer(16, 2, 16, 0.1, batch_first=True), "Dropout|MultiheadAttention"),
        (lambda: nn.Dropout(0.0), ""),
        (lambda: DropPath(0.0), ""),
        (lambda: Leaving(0.0), ""),
        (lambda: nn.LayerNorm(16), ""),
        (lambda: nn.BatchNorm1d(19, track_running_stats=False), ""),
    ],
)
def test_what_a_model_does_in_training_alone_is_not_measured(tiny, noise_folder, make, part):
    tiny.blocks[1] = make()
    images = load_images(noise_folder, tiny, n=4)
    if part:
        words = rf"'tiny_vit' is in training mode, and what its ({part}) does in it alone .*model\.eval\(\) first"
        for call in (
            lambda: capture(tiny, batch()),
            lambda: next(trajectories(tiny, images, stream=Stream(workers=0))),
        ):
            with pytest.raises(UsageError, match=words):
                call()
        tiny.eval()
    assert capture(tiny, batch()).depth == 4


def test_hooks_are_removed_also_after_an_error(tiny):
    with pytest.raises(UsageError), record_states(tiny):
        tiny(torch.zeros(1, 3, 8, 8))
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in tiny.blocks)


def test_means_by_hand(tiny):
    captured = capture(tiny, batch())
    stack = captured.stack()
    torch.testing.assert_close(captured.mean("cls"), stack[:, :, 0])
    torch.testing.assert_close(captured.mean("registers"), stack[:, :, 1:3].mean(2))
    torch.testing.assert_close(captured.mean("patches"), stack[:, :, 3:].mean(2))
    torch.testing.assert_close(captured.mean("all"), stack.mean(2))
    with pytest.raises(UsageError, match="no 'distillation' tokens"):
        captured.mean("distillation")


@pytest.mark.parametrize("token", [0, 2, 10])
@pytest.mark.parametrize("layer", [0, 3])
def test_a_state_that_is_not_finite_is_named(tiny, token, layer):
    states = [state.clone() for state in capture(tiny, batch()).states]
    states[layer][1, token, 5] = float("inf")
    where = "embedding" if layer == 0 else "layer 3"
    with pytest.raises(BrdynError, match=where):
        Trajectory(states, tiny.tokens, torch.arange(3)).check_finite("tiny_vit")


def test_streaming_stops_at_a_layer_that_is_not_finite(tiny, noise_folder):
    with torch.no_grad():
        tiny.blocks[2].mlp.fc2.bias[0] = float("nan")
    with pytest.raises(BrdynError, match="layer 3 of 'tiny_vit' is not finite in float32"):
        list(trajectories(tiny, load_images(noise_folder, tiny), stream=Stream(workers=0)))


def test_a_visitor_that_fails_on_such_a_layer_is_not_what_is_said(tiny, noise_folder):
    def fail(trajectory):
        raise ValueError("eigenvalues did not converge")

    images = load_images(noise_folder, tiny, n=4)
    with pytest.raises(ValueError, match="eigenvalues"):
        visit_trajectories(tiny, images, fail, stream=Stream(workers=0))
    with torch.no_grad():
        tiny.blocks[2].mlp.fc2.bias[0] = float("nan")
    with pytest.raises(BrdynError, match="layer 3 of 'tiny_vit' is not finite"):
        visit_trajectories(tiny, images, fail, stream=Stream(workers=0))


def test_batches_cover_the_images_in_order_whatever_their_size(tiny, noise_folder):
    images = load_images(noise_folder, tiny)
    whole = torch.cat([t.states[-1] for t in trajectories(tiny, images, stream=Stream(batch_size=40, workers=0))])
    for size in (1, 7, 16):
        parts = list(trajectories(tiny, images, stream=Stream(batch_size=size, workers=0)))
        assert torch.cat([part.positions for part in parts]).tolist() == list(range(40))
        torch.testing.assert_close(torch.cat([part.states[-1] for part in parts]), whole, rtol=1e-3, atol=1e-3)


@pytest.fixture
def frozen():
    """What is there by now is not searched for garbage, which takes a second each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def test_only_one_batch_is_alive(tiny, noise_folder, monkeypatch, frozen):
    alive, most = [], []
    original = trajectory_module.capture

    def counting(model, part):
        gc.collect()
        most.append(sum(reference() is not None for reference in alive))  # of earlier batches
        captured = original(model, part)
        alive.extend(weakref.ref(state) for state in captured.states)
        return captured

    monkeypatch.setattr(trajectory_module, "capture", counting)
    images = load_images(noise_folder, tiny)
    metric = similarity_metric("cosine", tiny)
    measure(tiny, images, {"cosine": metric}, stream=Stream(batch_size=8, workers=0))
    assert most == [0] * 5
    held = list(trajectories(tiny, images, stream=Stream(batch_size=8, workers=0)))
    assert most[5:] == [0, 5, 10, 15, 20]  # the control: a consumer that keeps everything
    assert len(held) == 5


def test_memory_that_runs_out_while_measuring_is_one_line(tiny, noise_folder, monkeypatch):
    metric = similarity_metric("cosine", tiny)

    def fail(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(metric, "update", fail)
    with pytest.raises(BrdynError, match="out of memory on cpu while measuring"):
        measure(tiny, load_images(noise_folder, tiny), {"cosine": metric}, stream=Stream(workers=0))


def failing_above(limit, monkeypatch):
    sizes = []
    original = trajectory_module.capture

    def capture_or_fail(model, part):
        sizes.append(len(part))
        if len(part) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return original(model, part)

    monkeypatch.setattr(trajectory_module, "capture", capture_or_fail)
    return sizes


def test_auto_halves_when_memory_runs_out_and_loses_nothing(tiny, noise_folder, monkeypatch):
    images = load_images(noise_folder, tiny)
    whole = torch.cat([t.states[-1] for t in trajectories(tiny, images, stream=Stream(batch_size=16, workers=0))])
    sizes = failing_above(5, monkeypatch)
    parts = list(trajectories(tiny, images, stream=Stream(batch_size="auto", workers=0)))
    assert sizes[:3] == [16, 8, 4]
    assert max(sizes[3:]) == 4  # once found, the size is kept
    assert torch.cat([part.positions for part in parts]).tolist() == list(range(40))
    torch.testing.assert_close(torch.cat([part.states[-1] for part in parts]), whole, rtol=1e-3, atol=1e-3)


def test_a_batch_size_given_is_not_changed_behind_the_users_back(tiny, noise_folder, monkeypatch):
    failing_above(5, monkeypatch)
    with pytest.raises(BrdynError, match="out of memory on cpu with a batch of 8; use `batch_size=auto`"):
        list(trajectories(tiny, load_images(noise_folder, tiny), stream=Stream(batch_size=8, workers=0)))


def test_memory_for_not_even_one_image(tiny, noise_folder, monkeypatch):
    failing_above(0, monkeypatch)
    with pytest.raises(BrdynError, match="out of memory on cpu with a batch of 1; use a smaller `image_size`"):
        list(trajectories(tiny, load_images(noise_folder, tiny), stream=Stream(workers=0)))


def test_other_errors_are_not_taken_for_memory(tiny, noise_folder, monkeypatch):
    def broken(model, part):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(trajectory_module, "capture", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        list(trajectories(tiny, load_images(noise_folder, tiny), stream=Stream(workers=0)))


def test_auto_batch_size_is_a_power_of_two_within_the_cap(tiny):
    size = auto_batch_size(tiny)
    assert size == 16
    assert size & (size - 1) == 0


@pytest.mark.parametrize("size", [0, -1, "many"])
def test_wrong_batch_sizes(tiny, noise_folder, size):
    with pytest.raises(UsageError, match="batch size"):
        next(trajectories(tiny, load_images(noise_folder, tiny), stream=Stream(batch_size=size, workers=0)))


def test_a_process_that_does_not_know_the_others_is_told_so(monkeypatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UsageError, match=r"WORLD_SIZE=2 is set, and MASTER_ADDR and MASTER_PORT not: start .*torchrun"):
        start_processes("cpu")


def test_the_bar_says_that_a_network_is_untrained():
    trained, drawn = tiny_vit(), tiny_vit()
    drawn.info = replace(drawn.info, weights="random (untrained, seed 0)")
    named = [trajectory_module._named(model.info) for model in (trained, drawn)]
    assert named == ["tiny_vit", "tiny_vit, untrained"]
