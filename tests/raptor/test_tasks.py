"""The losses of both stages against a direct write-up, and what each teaches."""

import numpy as np
import pytest
import torch
from torchmetrics import R2Score

from brdyn.data import Batch
from brdyn.errors import UsageError
from brdyn.models import TokenLayout
from brdyn.phases.given import contiguous
from brdyn.raptor.block import BlockConfig
from brdyn.raptor.losses import (
    JOINT_WEIGHTS,
    LAST_PHASE_WEIGHTS,
    cosine_and_mean_square,
    group_weights,
    mean_square,
    plain_loss,
    weighted_loss,
)
from brdyn.raptor.model import Span, spans, untrained
from brdyn.raptor.partitions import PARTITIONS, assign, random_contiguous, random_shuffle
from brdyn.raptor.recipe import FitSettings, learning_rate
from brdyn.raptor.tasks import BlocksApart, BlocksJoined, stage_task
from brdyn.trajectory import capture
from tests.conftest import scramble, tiny_vit


@pytest.fixture
def teacher():
    return tiny_vit(depth=5)


@pytest.fixture
def batch():
    return Batch(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(3), None)


def raptor_of(teacher, assignment):
    raptor = untrained(teacher, assignment, BlockConfig(width=16, heads=2), seed=0)
    scramble(raptor.shared, seed=3)
    return raptor


def test_weights_of_the_groups_there_are(teacher):
    layout = teacher.tokens
    assert group_weights(layout, JOINT_WEIGHTS) == pytest.approx({"cls": 0.45, "registers": 0.1, "patches": 0.45})
    without = tiny_vit(registers=0).tokens
    assert group_weights(without, LAST_PHASE_WEIGHTS) == pytest.approx({"cls": 0.34 / 0.67, "patches": 0.33 / 0.67})
    guess, truth = torch.randn(2, 3, 19, 16)
    parts = [(slice(0, 1), 0.45), (slice(1, 3), 0.10), (slice(3, 19), 0.45)]
    expected = sum(w * (guess[:, p] - truth[:, p]).square().mean((1, 2)) for p, w in parts)
    torch.testing.assert_close(weighted_loss(layout, group_weights(layout, JOINT_WEIGHTS))(guess, truth), expected)
    cosine = torch.nn.functional.cosine_similarity(guess, truth, dim=2).mean(1)
    torch.testing.assert_close(
        cosine_and_mean_square(guess, truth), 0.5 * (guess - truth).square().mean((1, 2)) - 0.5 * cosine
    )


def test_an_error_over_the_spread_counts_every_layer_alike(teacher):
    """It is 1 - R^2, whatever the size and the mean of the states; groups are weighed before."""
    torch.manual_seed(0)
    guess, truth = torch.randn(3, 19, 16), torch.randn(3, 19, 16)
    loss = plain_loss("nmse")
    r2 = R2Score(multioutput="variance_weighted")
    r2.update(guess.flatten(0, 1), truth.flatten(0, 1))
    assert loss(guess, truth).mean().item() == pytest.approx(1 - r2.compute().item(), rel=1e-5)
    torch.testing.assert_close(loss(100 * guess + 7, 100 * truth + 7), loss(guess, truth), rtol=1e-3, atol=1e-4)
    weights = group_weights(teacher.tokens, JOINT_WEIGHTS)
    plain = weighted_loss(teacher.tokens, weights)(guess, truth)
    found = weighted_loss(teacher.tokens, weights, "nmse")(guess, truth)
    torch.testing.assert_close(found, plain / truth.flatten(0, 1).var(0, correction=0).mean())
    assert weighted_loss(teacher.tokens, weights, "nmse")(guess[:1], truth[:1]).isfinite().all()
    same = torch.ones(1, 19, 16)
    assert loss(same, same).item() == 0


def test_either_loss_is_weighed_by_group(teacher):
    """The truth is the first axis; guesses: cls twice it, registers the second axis, patches its opposite."""
    truth = torch.zeros(2, 19, 16)
    truth[..., 0] = 1
    guess = truth.clone()
    guess[:, 0] *= 2
    guess[:, 1:3] = guess[:, 1:3].roll(1, dims=-1)
    guess[:, 3:] *= -1
    weights = group_weights(teacher.tokens, JOINT_WEIGHTS)
    squares = {"cls": 1 / 16, "registers": 2 / 16, "patches": 4 / 16}
    cosines = {"cls": 1, "registers": 0, "patches": -1}
    for kind, errors in (
        ("mse", squares),
        ("cosine+mse", {group: squares[group] / 2 - cosines[group] / 2 for group in squares}),
    ):
        expected = 0.45 * errors["cls"] + 0.1 * errors["registers"] + 0.45 * errors["patches"]
        found = weighted_loss(teacher.tokens, weights, kind)(guess, truth)
        torch.testing.assert_close(found, torch.full((2,), expected))


def test_weights_of_other_groups():
    """A distillation token and an answer of any name count as cls does, others as registers."""
    distilled = TokenLayout.with_prefix((2, 2), {"cls": 1, "distillation": 1})
    assert group_weights(distilled, JOINT_WEIGHTS) == pytest.approx(
        {"cls": 1 / 3, "distillation": 1 / 3, "patches": 1 / 3}
    )
    assert group_weights(distilled, LAST_PHASE_WEIGHTS) == pytest.approx(
        {"cls": 0.34 / 1.01, "distillation": 0.34 / 1.01, "patches": 0.33 / 1.01}
    )
    streams = TokenLayout({"x": slice(0, 4), "y": slice(4, 5), "z": slice(5, 9)}, (2, 2), answer="y", spatial="z")
    assert group_weights(streams, JOINT_WEIGHTS) == pytest.approx({"x": 0.1, "y": 0.45, "z": 0.45})


def test_an_answer_counts_whatever_it_is_called():
    """And its error is in the loss."""
    named = TokenLayout({"summary": slice(0, 1), "patches": slice(1, 5)}, (2, 2), answer="summary")
    cls = TokenLayout.with_prefix((2, 2), {"cls": 1})
    for weights in (JOINT_WEIGHTS, LAST_PHASE_WEIGHTS):
        assert list(group_weights(named, weights).values()) == list(group_weights(cls, weights).values())
    guess, truth = torch.zeros(1, 5, 3), torch.zeros(1, 5, 3)
    guess[:, 0] = 1
    assert weighted_loss(named, group_weights(named, JOINT_WEIGHTS))(guess, truth).item() == pytest.approx(0.5)


@pytest.mark.parametrize("assignment", [[0, 0, 0, 1, 1], [0, 1, 0, 0, 1]])
@pytest.mark.parametrize("step", [0, 3, 8, 20])
def test_stage_one_by_hand(teacher, batch, assignment, step):
    """Teacher-forced and autoregressive passes written one after the other, for phases and for shuffled layers."""
    raptor = raptor_of(teacher, assignment)
    task = BlocksApart(raptor, teacher, [mean_square, mean_square], annealed_over=10)
    states = capture(teacher, batch).states
    found = task(task.inputs(batch), step)
    share = max(0.0, 1 - step / 10)
    for number in (0, 1):
        forced = free = 0.0
        own = states[0]
        layers = [layer for layer in range(1, 6) if assignment[layer - 1] == number]
        for layer in layers:
            forced = forced + mean_square(raptor.shared[number](states[layer - 1], layer), states[layer])
            enters = layer == 1 or assignment[layer - 2] != number
            own = raptor.shared[number](states[layer - 1] if enters else own, layer)
            free = free + mean_square(own, states[layer])
        expected = (share * forced + (1 - share) * free) / len(layers)
        torch.testing.assert_close(found[f"block {number + 1}"], expected, rtol=1e-4, atol=1e-6)


def test_blocks_do_not_hear_of_each_other(teacher, batch):
    raptor = raptor_of(teacher, [0, 0, 0, 1, 1])
    task = BlocksApart(raptor, teacher, [mean_square, mean_square], annealed_over=0)
    task(task.inputs(batch), 0)["block 1"].sum().backward()
    assert all(p.grad is not None for p in raptor.shared[0].parameters())
    assert all(p.grad is None for p in raptor.shared[1].parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_teacher_forcing_only_never_ends(teacher):
    raptor = raptor_of(teacher, [0] * 5)
    task = BlocksApart(raptor, teacher, [mean_square], annealed_over=10, teacher_forcing_only=True)
    assert task.forced_share(1000) == 1
    assert BlocksApart(raptor, teacher, [mean_square], annealed_over=0).forced_share(0) == 0


def test_stage_two_by_hand(teacher, batch):
    raptor = raptor_of(teacher, [0, 0, 1, 1, 1])
    loss = weighted_loss(teacher.tokens, {"cls": 0.5, "registers": 0.2, "patches": 0.3})
    task = BlocksJoined(raptor, teacher, loss, validation=[batch])
    states = capture(teacher, batch).states
    own = capture(raptor, batch).states
    expected = torch.stack([loss(own[layer], states[layer]) for layer in range(1, 6)]).mean(0)
    torch.testing.assert_close(task(task.inputs(batch), 0)["raptor"], expected)
    truth, guess = states[5].flatten(0, 1).double(), own[5].flatten(0, 1).double()
    r2 = 1 - (truth - guess).square().sum() / (truth - truth.mean(0)).square().sum()
    found = task.eval().validate()
    assert found["r2 layer 5"] == pytest.approx(r2.item(), rel=1e-5)
    nothing = (states[2].flatten(0, 1).double() - truth).square().sum()  # the second block begins with state 2
    skill = 1 - (truth - guess).square().sum() / nothing
    assert found["skill layer 5"] == pytest.approx(skill.item(), rel=1e-5)


def test_noise_is_of_the_training_alone(teacher, batch):
    raptor = raptor_of(teacher, [0] * 5)
    task = BlocksJoined(raptor, teacher, mean_square, sigma=0.5)
    inputs = task.inputs(batch)
    assert not torch.equal(task(inputs, 0)["raptor"], task(inputs, 0)["raptor"])
    task.eval()
    assert torch.equal(task(inputs, 0)["raptor"], task(inputs, 0)["raptor"])


@pytest.mark.parametrize(("step", "passes"), [(0, 1), (5, 2), (10, 1)])
def test_stage_one_adds_noise_of_its_size_to_every_input(teacher, batch, step, passes):
    """Blocks that only look: they see what they left, or the teacher's state, plus noise of deviation sigma."""
    raptor = raptor_of(teacher, [0] * 5)
    states, seen = capture(teacher, batch).states, {}

    def look(state, layer):
        seen[layer] = state
        return torch.cat([states[layer]] * (len(state) // len(states[layer])))

    raptor.shared[0].forward = look
    task = BlocksApart(raptor, teacher, [mean_square], annealed_over=10, sigma=0.2)
    for training, sigma in ((True, 0.2), (False, 0.0)):
        task.train(training)
        task(states, step)
        for layer in range(1, 6):
            both = torch.cat([states[layer - 1]] * (passes if layer > 1 else 1))
            noise = seen[layer] - both
            assert noise.std().item() == pytest.approx(sigma, rel=0.1)  # of 912 draws or more
            assert abs(noise.mean().item()) <= 0.03


def test_validation_of_stage_one_is_autoregressive(teacher, batch):
    """R^2 at the end of each block's span, which the teacher's state enters and the block goes on from by itself."""
    raptor = raptor_of(teacher, [0, 0, 0, 1, 1])
    task = BlocksApart(raptor, teacher, [mean_square] * 2, annealed_over=10, validation=[batch]).eval()
    states = capture(teacher, batch).states
    found = task.validate()
    for number, (start, end) in enumerate([(0, 3), (3, 5)]):
        own = states[start]
        for layer in range(start + 1, end + 1):
            own = raptor.shared[number](own, layer)
        truth, guess = states[end].flatten(0, 1).double(), own.flatten(0, 1).double()
        r2 = 1 - (truth - guess).square().sum() / (truth - truth.mean(0)).square().sum()
        assert found[f"r2 block {number + 1}"] == pytest.approx(r2.item(), rel=1e-5)
        nothing = (states[start].flatten(0, 1).double() - truth).square().sum()
        skill = 1 - (truth - guess).square().sum() / nothing
        assert found[f"skill block {number + 1}"] == pytest.approx(skill.item(), rel=1e-5)
    assert len(found) == 4


def test_a_perfect_student_has_no_loss(teacher, batch):
    """Blocks that are the teacher's own: both stages see nothing wrong."""
    raptor = raptor_of(teacher, [0, 1, 2, 3, 4])
    for number in range(5):
        raptor.shared[number].forward = lambda state, layer: teacher.blocks[layer - 1](state)
    apart = BlocksApart(raptor, teacher, [mean_square] * 5, annealed_over=10, validation=[batch])
    joined = BlocksJoined(raptor, teacher, mean_square, validation=[batch])
    assert all(loss.max() < 1e-9 for loss in apart(apart.inputs(batch), 4).values())
    assert joined(joined.inputs(batch), 0)["raptor"].max() < 1e-9
    assert all(value == pytest.approx(1) for value in (*apart.validate().values(), *joined.validate().values()))


def test_spans():
    assert spans([0, 0, 1, 0]) == [Span(0, 0, 2), Span(1, 2, 3), Span(0, 3, 4)]


def test_partitions():
    assert contiguous((2, 3), 5) == [0, 0, 1, 2, 2]
    with pytest.raises(UsageError, match="do not increase"):
        contiguous((3, 2), 5)
    with pytest.raises(UsageError, match="do not increase"):
        contiguous((5,), 5)
    drawn = [tuple(random_contiguous(3, 6, seed)) for seed in range(10)]
    assert len(set(drawn)) == 10  # all placements of two boundaries among five, each once
    assert all(list(one) == sorted(one) for one in drawn)
    with pytest.raises(UsageError, match=r"there are 10 such placements, numbered from 0"):
        random_contiguous(3, 6, 10)
    others = {tuple(random_contiguous(3, 6, seed, other_than=(2, 4))) for seed in range(9)}
    assert others == set(drawn) - {(0, 0, 1, 1, 2, 2)}
    shuffled = {tuple(random_shuffle((2, 4), 6, seed)) for seed in range(14)}
    assert len(shuffled) == 14  # six layers into three pairs goes in fifteen ways, one of them the phases
    with pytest.raises(UsageError, match="there are 14 such assignments"):
        random_shuffle((2, 4), 6, 14)
    for seed in range(50):
        blocks = random_shuffle((2, 5), 6, seed)
        assert sorted(np.bincount(blocks)) == [1, 2, 3]
        assert blocks != contiguous((2, 5), 6)
        assert blocks == random_shuffle((2, 5), 6, seed)
        assert list(dict.fromkeys(blocks)) == [0, 1, 2]
    with pytest.raises(UsageError, match="cannot be shuffled"):
        random_shuffle((), 6, 0)


def test_draws_of_a_partition_are_distinct():
    """Of four layers in two blocks there are three contiguous partitions: three draws are all of them."""
    assert len({tuple(random_contiguous(2, 4, draw)) for draw in range(3)}) == 3


def test_the_learning_rate_of_a_short_stage():
    assert learning_rate(312_500) == pytest.approx(3e-4)
    assert learning_rate(10_000) == pytest.approx(3e-4 * 31.25**0.25)
    assert learning_rate(1) == pytest.approx(1.2e-3)
    short = FitSettings(stage1_steps=10_000, stage2_steps=10_000)
    assert short.training(1).lr == pytest.approx(learning_rate(10_000))
    assert short.training(2).lr == pytest.approx(3e-4)
    assert FitSettings(lr=1e-2).training(2).lr == 1e-2
    assert FitSettings(lr=1e-2, stage2_lr=1e-3).training(2).lr == 1e-3


def test_published_recipe():
    """BRH, section 4 of the method notes, with shares of the steps where it counts steps."""
    published = {"batch_size": 64, "min_lr": 1e-6, "weight_decay": 1e-4, "clip": 1.0, "sigma": 0.0, "norm_eps": 1e-5,
                 "loss": "mse",
                 "mlp": "swiglu", "mlp_ratio": 4.0, "layer_scale": 1e-5, "depth_scaling": "index", "annealed": 0.25,
                 "warmup": 0.032, "seed": 0, "ema": 0.0, "accumulate": 1}  # fmt: skip
    settings = FitSettings().fitted_to(1_000_000)
    assert settings.training(1).batch_size == published.pop("batch_size")
    assert {name: getattr(settings, name) for name in published} == published
    assert (settings.stage1_steps, settings.stage2_steps) == (1000, 1000)


def test_the_recipe_names_the_losses_of_both_stages(teacher, batch):
    """Stage 1 weighs groups in the last phase alone, stage 2 with its own weights; `loss` holds everywhere."""
    raptor = raptor_of(teacher, [0, 0, 0, 1, 1])
    guess, truth = torch.randn(2, 3, 19, 16)
    for kind in ("mse", "cosine+mse"):
        error = plain_loss(kind)
        weighed = {
            name: weighted_loss(teacher.tokens, group_weights(teacher.tokens, weights), kind)(guess, truth)
            for name, weights in (("last", LAST_PHASE_WEIGHTS), ("joint", JOINT_WEIGHTS))
        }
        for weighting in (True, False):
            chosen = FitSettings(loss=kind, token_weighting=weighting, stage1_steps=40, annealed=0.5, sigma=0.1)
            apart, joined = (stage_task(stage, raptor, teacher, chosen, [batch], None) for stage in (1, 2))
            assert (apart.annealed_over, apart.sigma, joined.sigma) == (20, 0.1, 0.1)
            expected = [error(guess, truth), weighed["last"] if weighting else error(guess, truth)]
            for loss, value in zip(apart.losses, expected, strict=True):
                torch.testing.assert_close(loss(guess, truth), value)
            whole = weighed["joint"] if weighting else error(guess, truth)
            torch.testing.assert_close(joined.loss(guess, truth), whole)


def test_partitions_by_name():
    found = {name: assign(name, (2, 5), 8, draw=1, sequence=3) for name in PARTITIONS}
    assert found == {
        "maxcut": contiguous((2, 5), 8),
        "random-contiguous": random_contiguous(3, 8, 1, (2, 5), 3),
        "random-shuffle": random_shuffle((2, 5), 8, 1, 3),
    }
    with pytest.raises(UsageError, match="unknown partition 'min-cut'"):
        assign("min-cut", (2, 5), 8)


@pytest.mark.parametrize("partition", PARTITIONS[1:])
def test_every_sequence_draws_anew(partition):
    draws = {sequence: [assign(partition, (3, 7), 12, draw, sequence) for draw in range(4)] for sequence in range(6)}
    assert len({str(found) for found in draws.values()}) == 6
    assert draws[2] == [assign(partition, (3, 7), 12, draw, 2) for draw in range(4)]
