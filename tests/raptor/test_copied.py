"""Copies of the teacher's blocks: what is shared, what is corrected, and what a fit starts from."""

from contextlib import nullcontext
from copy import deepcopy

import numpy as np
import pytest
import torch

import brdyn
from brdyn.data import load_images
from brdyn.errors import UsageError
from brdyn.models import load_model
from brdyn.raptor import CopyConfig, FitSettings, Raptor, fit_raptor
from brdyn.raptor.copied import layers_of_blocks, relaxed_parameters
from brdyn.raptor.ranks import skill_of
from brdyn.raptor.starts import nearest_layers, tie
from tests.conftest import tiny_vit
from tests.models.own_vit import adapted
from tests.raptor.test_fit import recurrent_teacher, settings

ASSIGNMENT = [0, 0, 1, 1]
CONFIG = {"width": 16, "heads": 2}


@pytest.fixture
def images(noise_folder, tiny):
    return load_images(noise_folder, tiny)


def tied(teacher, images, rank, start="mean", assignment=ASSIGNMENT):
    raptor = Raptor(teacher, assignment, CopyConfig(**CONFIG, rank=rank)).eval()
    tie(raptor, start, images)
    return raptor


@pytest.mark.parametrize("start", ["mean", "layer"])
@pytest.mark.parametrize("assignment", [ASSIGNMENT, [0, 1, 0, 1], [0, 0, 0, 0]])
def test_at_full_rank_it_is_the_teacher(tiny, images, start, assignment):
    batch = next(images.batches(4)).images
    full = tied(tiny, images, 16, start, assignment)
    torch.testing.assert_close(full(batch), tiny(batch), rtol=1e-5, atol=1e-5)
    less = tied(tiny, images, 2, start, assignment)
    assert (less(batch) - tiny(batch)).abs().max() > 1e-2


def test_the_mean_is_shared_and_the_correction_is_the_nearest_of_its_rank(tiny, images):
    """Against NumPy, and the error falls with rank as the singular values left out say."""
    name = "mlp.fc1.weight"
    each = [tiny.blocks[layer].get_parameter(name).double().numpy() for layer in (0, 1)]
    mean = (each[0] + each[1]) / 2
    block = tied(tiny, images, 3).shared[0]
    np.testing.assert_allclose(block.module.get_parameter(name).detach().numpy(), mean, atol=1e-6)
    for layer, own in zip((1, 2), each, strict=True):
        found = block.corrections[str(layer)].added_to(name, block.module.get_parameter(name))
        left, values, right = np.linalg.svd(own - mean, full_matrices=False)
        np.testing.assert_allclose(found.detach().numpy() - mean, left[:, :3] * values[:3] @ right[:3], atol=1e-6)
        bias = block.corrections[str(layer)].added_to("norm1.bias", block.module.get_parameter("norm1.bias"))
        torch.testing.assert_close(bias, tiny.blocks[layer - 1].get_parameter("norm1.bias"))


def test_fewer_directions_of_a_high_rank_are_a_low_rank(tiny, images):
    batch = next(images.batches(4)).images
    high, low = tied(tiny, images, 16), tied(tiny, images, 2)
    for block in high.shared:
        block.most = 2
    torch.testing.assert_close(high(batch), low(batch), rtol=1e-4, atol=1e-4)
    for block in high.shared:
        block.most = 0
    torch.testing.assert_close(high(batch), tied(tiny, images, 0)(batch))


def test_parameters_are_counted(tiny, images):
    for rank in (0, 1, 5, 16):
        raptor = tied(tiny, images, rank)
        assert raptor.block_parameters == relaxed_parameters(tiny, ASSIGNMENT, rank)
        others = tiny.info.parameters - tiny.block_parameters
        assert raptor.info.parameters == others + raptor.block_parameters
    # A block of width 16: 2 blocks; at rank 1 every layer adds rows + columns of its four matrices, and its vectors.
    matrices = (48 + 16) + (16 + 16) + (64 + 16) + (16 + 64)
    vectors = 4 * 16 + 48 + 16 + 64 + 16
    assert relaxed_parameters(tiny, ASSIGNMENT, 1) == tiny.block_parameters // 2 + 4 * (matrices + vectors)


def test_the_layer_that_does_best_at_all_is_chosen(noise_folder):
    """Layers 1 and 2 are the same, layer 3 is another: either of the two makes less error at the three."""
    teacher = tiny_vit()
    teacher.blocks[1].load_state_dict(teacher.blocks[0].state_dict())
    images = load_images(noise_folder, teacher)
    assert nearest_layers(teacher, (0, 0, 0, 1), images) in ([1, 4], [2, 4])
    teacher.blocks[2].load_state_dict(tiny_vit(seed=5).blocks[2].state_dict())
    teacher.blocks[1].load_state_dict(teacher.blocks[2].state_dict())
    assert nearest_layers(teacher, (0, 0, 0, 1), images) in ([2, 4], [3, 4])
    assert layers_of_blocks((0, 1, 0, 1)) == [[1, 3], [2, 4]]


def test_errors_count_against_what_a_layer_does(noise_folder):
    """Layer 1 hardly moves; 2 and 3 are alike, and would do harm there, if little in sum."""
    teacher = tiny_vit()
    teacher.blocks[2].load_state_dict(teacher.blocks[1].state_dict())
    with torch.no_grad():
        for part in (teacher.blocks[0].attn.proj, teacher.blocks[0].mlp.fc2):
            for parameter in part.parameters():
                parameter.mul_(1e-3)
    images = load_images(noise_folder, teacher)
    assert nearest_layers(teacher, (0, 0, 0, 1), images) == [1, 4]


@pytest.mark.parametrize("share", [1e-7, 0.0])
def test_a_layer_that_does_nothing_is_not_beyond_all_measure(noise_folder, share):
    """All others are alike: right at five, one is chosen before the third, which is right where nothing is asked."""
    teacher = tiny_vit(depth=6)
    for layer in (1, 3, 4, 5):
        teacher.blocks[layer].load_state_dict(teacher.blocks[0].state_dict())
    with torch.no_grad():
        for part in (teacher.blocks[2].attn.proj, teacher.blocks[2].mlp.fc2):
            for parameter in part.parameters():
                parameter.mul_(share)
    (chosen,) = nearest_layers(teacher, (0,) * 6, load_images(noise_folder, teacher))
    assert chosen != 3


def test_a_copied_block_of_an_own_module_is_of_that_module():
    """And not of a copy of it all; a copy of the whole is of its own."""
    own = adapted()
    raptor = Raptor(own, [0, 1, 1], CopyConfig(width=8, heads=2))
    for block, layer in zip(raptor.shared, (0, 1), strict=True):
        assert block.module._held[0] is own.module
        assert block.module.block is not own.blocks[layer].block
    twin = deepcopy(own)
    for block, layer in zip(twin.blocks, twin.module.layers, strict=True):
        assert block._held[0] is twin.module is not own.module
        assert block.block is layer
    assert not twin.blocks[0].training


def test_a_start_that_there_is_none_of_is_refused(tiny, images):
    with pytest.raises(UsageError, match="unknown start 'random'; choose one of layer, mean"):
        brdyn.raptor_ranks(tiny, images, {"two": ASSIGNMENT}, [0], start="random")


def test_a_recurrent_teacher_needs_no_fit(noise_folder):
    teacher = recurrent_teacher()
    images = load_images(noise_folder, teacher)
    quick = settings(stage1_steps=1, stage2_steps=1, lr=1e-12, layer_scale=1e-5, start="layer")
    fit = fit_raptor(teacher, images, [0, 0, 0, 1, 1, 1], quick, workers=0)
    assert fit.histories[2].validation[-1]["r2 layer 6"] == pytest.approx(1, abs=1e-4)
    curve = brdyn.raptor_ranks(teacher, images, {"right": [0, 0, 0, 1, 1, 1], "wrong": [0, 1] * 3}, [0, 16])
    skill = curve.table.set_index(["partition", "rank"])["skill"]
    assert skill["right", 0] == pytest.approx(1, abs=1e-4)
    assert skill["wrong", 0] < 0.9
    assert skill["wrong", 16] == pytest.approx(1, abs=1e-4)
    assert curve.least_rank("wrong", 0.99, fitted=False) == 16
    assert curve.least_rank("right", 0.99, fitted=False) == 0


def test_corrections_are_fitted_and_come_back(tiny, images, tmp_path):
    fit = fit_raptor(tiny, images, ASSIGNMENT, settings(layer_scale=1e-5, recipe="fast", relax=2), workers=0)
    unfitted = tied(tiny, images, 2, "layer")
    moved = [
        name
        for (name, now), was in zip(fit.raptor.shared.named_parameters(), unfitted.shared.parameters(), strict=True)
        if not torch.equal(now, was)
    ]
    assert any("left" in name for name in moved)
    assert any("right" in name for name in moved)
    assert any("module" in name for name in moved)
    fit.raptor.save_pretrained(tmp_path / "raptor")
    again = Raptor.from_pretrained(tmp_path / "raptor", tiny)
    batch = next(images.batches(4)).images
    assert torch.equal(again(batch), fit.raptor(batch))
    assert again.config == CopyConfig(**CONFIG, rank=2)


def test_what_a_teacher_does_in_training_alone_is_left_out():
    from timm.layers import DropPath

    teacher = tiny_vit()
    teacher.blocks[0].drop_path1 = DropPath(0.9)
    raptor = Raptor(teacher, [0] * 4, CopyConfig(**CONFIG)).train()
    state = torch.randn(2, 22, 16)
    assert torch.equal(raptor.shared[0](state, 1), raptor.shared[0](state, 1))


def test_layers_built_differently_cannot_share():
    from timm.models.vision_transformer import Block

    teacher = tiny_vit()
    teacher.blocks[1] = Block(16, 2, mlp_ratio=2)
    with pytest.raises(UsageError, match="layers 1 and 2 of 'tiny_vit' are built differently"):
        Raptor(teacher, ASSIGNMENT, CopyConfig(**CONFIG))
    Raptor(teacher, [0, 1, 2, 3], CopyConfig(**CONFIG))


class Scaled(torch.nn.Module):
    """A block that knows its layer, but not as a tensor."""

    def __init__(self, inner, layer):
        super().__init__()
        self.inner, self.layer = inner, layer

    def forward(self, state):
        return self.inner(state) * self.layer


def test_layers_that_compute_otherwise_cannot_share():
    """Shapes alone do not tell: with the other's weights a block has to do what the other does."""
    teacher = tiny_vit()
    for number in range(4):
        teacher.blocks[number] = Scaled(teacher.blocks[number], 1 + number // 2)
    with pytest.raises(UsageError, match="layers 1 and 3 of 'tiny_vit' are built differently"):
        Raptor(teacher, [0, 1, 0, 1], CopyConfig(**CONFIG))
    Raptor(teacher, [0, 0, 1, 1], CopyConfig(**CONFIG))


@pytest.mark.parametrize(("factor", "alike"), [(1 + 1e-6, True), (1 + 1e-4, False)])
def test_rounding_makes_no_layers_different(factor, alike):
    """As another kernel rounds, which a device may choose for the same weights elsewhere."""
    teacher = tiny_vit()
    for number in range(4):
        teacher.blocks[number] = Scaled(teacher.blocks[number], factor if number else 1.0)
    with nullcontext() if alike else pytest.raises(UsageError, match="are built differently"):
        Raptor(teacher, [0] * 4, CopyConfig(**CONFIG))


def test_blocks_that_apply_shared_weights_cannot_be_copied(images):
    """Those of a Raptor, or of a ViTRM, hold none of their own."""
    teacher = Raptor(tiny_vit(), ASSIGNMENT, CopyConfig(**CONFIG))
    with pytest.raises(UsageError, match=r"hold no weights of their own .*\(start='random'\)"):
        brdyn.raptor_ranks(teacher, images, {"one": [0] * 4}, [0, 16])
    with pytest.raises(UsageError, match="hold no weights of their own"):
        fit_raptor(
            teacher,
            images,
            ASSIGNMENT,
            FitSettings(recipe="fast", stage1_steps=1, stage2_steps=0, batch_size=4),
        )


def test_a_teacher_in_half_precision_is_refused(images):
    with pytest.raises(UsageError, match=r"'tiny_vit' is in bfloat16, .* teacher in float32"):
        fit_raptor(tiny_vit().to(torch.bfloat16), images, ASSIGNMENT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relax": 4}, "`relax=4` corrects copies .*, and blocks start at random; use `start=layer`"),
        ({"recipe": "fast", "start": "random"}, "starts from layers of the teacher, and the start is to be"),
        ({"recipe": "fast", "mlp": "gelu"}, "`mlp=gelu` is of blocks that start at random"),
        ({"start": "mean", "depth_scaling": "none"}, "`depth_scaling=none` is of blocks that start at random"),
        ({"start": "layer", "relax": -1}, "`relax=-1` is a negative rank"),
        ({"start": "first"}, "start"),
        ({"recipe": "slow"}, "recipe"),
        ({"stage1_steps": 0, "teacher_forcing_only": True}, "are of stage 1, which has no steps"),
        ({"stage1_steps": 0, "annealed": 0.9}, "are of stage 1, which has no steps"),
    ],
)  # fmt: skip
def test_a_recipe_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        FitSettings(**changes)


def test_a_rank_above_the_width_is_refused(tiny, images):
    with pytest.raises(UsageError, match="rank 17 is larger than the width, 16"):
        fit_raptor(tiny, images, ASSIGNMENT, FitSettings(start="layer", relax=17))


def test_the_interval_of_skill_is_that_of_a_ratio():
    """Against a bootstrap over images."""
    rng = np.random.default_rng(0)
    nothing = rng.gamma(4, 1, 400)
    error = nothing * rng.uniform(0, 0.5, 400)
    skill, half = skill_of(torch.tensor(error), torch.tensor(nothing))
    drawn = rng.integers(0, 400, (4000, 400))
    spread = np.std(1 - error[drawn].sum(1) / nothing[drawn].sum(1))
    assert skill == pytest.approx(1 - error.sum() / nothing.sum())
    assert half == pytest.approx(1.96 * spread, rel=0.05)


def test_a_curve_comes_back_from_its_folder(tiny, images, tmp_path):
    curve = brdyn.raptor_ranks(tiny, images, {"halves": ASSIGNMENT}, [2, 0], settings=settings(layer_scale=1e-5))
    assert curve.table["rank"].tolist() == [0, 2, 0, 2]
    assert curve.table["fitted"].tolist() == [False, False, True, True]
    curve.save(tmp_path / "curve", figures=brdyn.plots.draw(curve))
    again = brdyn.read(tmp_path / "curve")
    assert again == curve
    assert again.table.equals(curve.table)
    assert (tmp_path / "curve" / "ranks.png").is_file()


def test_of_blocks_that_do_nothing_no_skill_is_told(images):
    teacher = tiny_vit()
    for block in teacher.blocks:
        for last in (block.attn.proj, block.mlp.fc2):
            last.requires_grad_(False)
            last.weight.zero_()
            last.bias.zero_()
    curve = brdyn.raptor_ranks(teacher, images, {"halves": ASSIGNMENT}, [0])
    assert curve.answer() == (
        "halves: with corrections of rank 0 the shared blocks have no skill that is known: doing nothing makes no error"
    )


def test_models_of_other_families_relax_too(noise_folder):
    model = load_model("vit_tiny_patch16_224", init="random", image_size=(32, 32))
    images = load_images(noise_folder, model)
    curve = brdyn.raptor_ranks(model, images, {"one": [0] * 12}, [0, 192])
    assert curve.table["skill"].iloc[-1] == pytest.approx(1, abs=1e-4)


def test_a_fit_that_does_not_move_is_what_was_not_fitted(noise_folder):
    """Each rank from its own start: the teacher's layers with corrections of that rank."""
    teacher = tiny_vit()
    images = load_images(noise_folder, teacher)
    still = settings(stage1_steps=1, stage2_steps=1, lr=1e-12, stage2_lr=1e-12, min_lr=1e-13, layer_scale=1e-5,
                     validation_images=0)  # fmt: skip
    table = brdyn.raptor_ranks(teacher, images, {"halves": ASSIGNMENT}, [0, 3], start="mean", settings=still).table
    first, then = (table[table["fitted"] == fitted]["skill"].to_numpy() for fitted in (False, True))
    np.testing.assert_allclose(first, then, atol=1e-5)
    assert first[1] - first[0] > 0.01


def test_what_is_left_at_the_end_is_counted_right():
    """R² against scikit-learn, agreement by hand, skill by hand, on a network with a head."""
    from sklearn.metrics import r2_score

    from brdyn.trajectory import capture

    model = load_model("cifar_vit12")
    images = load_images("samples", model, n=12)
    table = brdyn.raptor_ranks(model, images, {"three": [0] * 4 + [1] * 4 + [2] * 4}, [0, 8, 96], start="mean").table
    raptor = Raptor(model, [0] * 4 + [1] * 4 + [2] * 4, CopyConfig(width=96, heads=model.info.heads, rank=8)).eval()
    tie(raptor, "mean", images)
    batch = next(images.batches(12, workers=0))
    with torch.no_grad():
        states, own = capture(model, batch).states, capture(raptor, batch).states[-1]
        answers = [model.logits(model.norm(state)).argmax(-1) for state in (states[-1], own)]
    truth, guess = (state.flatten(0, 1).double().numpy() for state in (states[-1], own))
    row = table.set_index("rank").loc[8]
    assert row["r2"] == pytest.approx(r2_score(truth, guess, multioutput="variance_weighted"), abs=1e-5)
    assert row["agreement"] == pytest.approx(float((answers[0] == answers[1]).double().mean()))
    nothing = (states[0] - states[-1]).double().square().sum()
    assert row["skill"] == pytest.approx(1 - float(((own - states[-1]).double().square().sum()) / nothing), abs=1e-5)
    assert table["agreement"].tolist()[-1] == 1
    assert 0 < table["agreement"].tolist()[0] < 1 or 0 < row["agreement"] < 1
