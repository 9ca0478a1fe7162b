"""Fitting: a recurrent teacher is recovered, runs resume bit for bit, and what is saved comes back."""

import json
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from brdyn.data import Batch, Skipped, load_images
from brdyn.errors import BrdynError, UsageError
from brdyn.measures import layer_similarity
from brdyn.models import load_model
from brdyn.raptor import FitSettings, Raptor, fit_raptor
from brdyn.raptor.block import BlockConfig
from brdyn.raptor.cache import ActivationCache
from brdyn.raptor.fit import Fit, fit_options
from brdyn.raptor.model import untrained
from brdyn.training import Checkpoints, History, Session
from brdyn.training.settings import differences
from brdyn.trajectory import Stream, capture
from tests.conftest import scramble, tiny_vit

ASSIGNMENT = [0, 0, 1, 1]


def settings(**changes):
    quick = {"stage1_steps": 6, "stage2_steps": 6, "batch_size": 8, "validation_images": 8, "log_every": 2,
             "validate_every": 3, "checkpoint_every": 2, "layer_scale": 0.1, "lr": 1e-3}  # fmt: skip
    return FitSettings(**{**quick, **changes})


@pytest.fixture
def images(noise_folder, tiny):
    return load_images(noise_folder, tiny)


def recurrent_teacher():
    """A ViT that truly is one block applied three times, then another three times."""
    teacher = tiny_vit(depth=6)
    for layer in (1, 2, 4, 5):
        teacher.blocks[layer].load_state_dict(teacher.blocks[layer // 3 * 3].state_dict())
    with torch.no_grad():
        for block in teacher.blocks:
            for parameter in (*block.attn.proj.parameters(), *block.mlp.fc2.parameters()):
                parameter.mul_(0.3)
    return teacher


def test_a_recurrent_teacher_is_recovered(noise_folder):
    """The right cut is learned better than a wrong one, and well above the mean."""
    teacher = recurrent_teacher()
    images = load_images(noise_folder, teacher)
    quick = settings(
        stage1_steps=100,
        stage2_steps=100,
        lr=1e-2,
        mlp="gelu",
        layer_scale=1.0,
        log_every=50,
        validate_every=100,
    )
    ends = {}
    for name, assignment in {"right": [0, 0, 0, 1, 1, 1], "wrong": [0, 1, 0, 1, 0, 1]}.items():
        fit = fit_raptor(teacher, images, assignment, quick, workers=0)
        ends[name] = fit.histories[2].validation[-1]["r2 layer 6"]
        losses = [row["raptor"] for row in fit.histories[2].losses]
        assert losses[-1] < losses[0]
    assert ends["right"] > ends["wrong"]
    assert ends["right"] > 0.4


class Killed(BaseException):
    """A stop that nothing inside catches, like a signal."""


@pytest.mark.parametrize(("stage", "step"), [(1, 1), (1, 5), (1, 6), (2, 3), (2, 6)])
@pytest.mark.parametrize("changes", [{}, {"augment": True}, {"optimizer": "muon", "loss": "nmse"}])
def test_a_killed_fit_resumes_bit_for_bit(tiny, images, tmp_path, stage, step, changes):
    expected = fit_raptor(tiny, images, ASSIGNMENT, settings(ema=0.5, **changes), workers=0)
    asked = fit_options(tiny, images, ASSIGNMENT, settings(ema=0.5, log_every=1, **changes))
    checkpoints = Checkpoints(tmp_path, asked)

    def kill(now, row_step, _):
        if (now, row_step) == (stage, step):
            raise Killed

    with pytest.raises(Killed):
        fit_raptor(
            tiny,
            images,
            ASSIGNMENT,
            settings(ema=0.5, log_every=1, **changes),
            session=Session(checkpoints=checkpoints, report=kill),
            workers=0,
        )
    again = fit_raptor(
        tiny, images, ASSIGNMENT, settings(ema=0.5, log_every=1, **changes),
        session=Session(checkpoints=checkpoints, resume=checkpoints.latest()), workers=0,
    )  # fmt: skip
    for name, value in expected.raptor.shared.state_dict().items():
        assert torch.equal(again.raptor.shared.state_dict()[name], value), name
    for number in (1, 2):
        assert again.histories[number].validation == expected.histories[number].validation
    assert again.options == asked
    assert again.brief() == expected.brief()


def test_crops_are_learned_from_and_whole_images_judged_by(tiny, images):
    plain, crops = (
        fit_raptor(tiny, images, ASSIGNMENT, settings(augment=augment, lr=1e-9, validate_every=6), workers=0)
        for augment in (False, True)
    )
    for stage in (1, 2):  # rates near zero: blocks are the same, and so are the images that judge them
        last, other = (fit.histories[stage].validation[-1] for fit in (plain, crops))
        assert last == pytest.approx(other, rel=1e-3, abs=1e-4)
        assert plain.histories[stage].losses[0] != crops.histories[stage].losses[0]
    assert "augment" not in plain.options["recipe"]
    assert crops.options["recipe"]["augment"] is True


def test_crops_and_a_cache_exclude_each_other(tiny, images, tmp_path):
    cache = ActivationCache(tmp_path, tiny, images)
    with pytest.raises(UsageError, match="`augment` sees each image anew, and a `cache` keeps how it was seen"):
        fit_raptor(tiny, images, ASSIGNMENT, settings(augment=True), cache=cache)


def test_each_stage_has_its_own_learning_rate(tiny, images):
    quick = settings(lr=1e-3, stage2_lr=1e-5, min_lr=0.0, log_every=1)
    fit = fit_raptor(tiny, images, ASSIGNMENT, quick, workers=0)
    first, second = (fit.histories[stage].losses[0]["lr"] for stage in (1, 2))
    assert first == pytest.approx(100 * second)


def test_a_stage_can_be_left_out(tiny, images):
    fit = fit_raptor(tiny, images, ASSIGNMENT, settings(stage2_steps=0), workers=0)
    assert set(fit.histories) == {1}
    assert set(fit.histories[1].losses[0]) == {"step", "lr", "block 1", "block 2"}
    assert not any(p.requires_grad for p in fit.raptor.parameters())


def test_a_fit_without_validation_images(tiny, images):
    """Nothing is watched, in either stage, and the fit is the same as ever."""
    fit = fit_raptor(tiny, images, ASSIGNMENT, settings(validation_images=0), workers=0)
    assert [history.validation for history in fit.histories.values()] == [[], []]
    assert [len(history.losses) > 0 for history in fit.histories.values()] == [True, True]


def test_the_first_stage_can_be_left_out(tiny, images):
    fit = fit_raptor(tiny, images, ASSIGNMENT, settings(stage1_steps=0), workers=0)
    assert set(fit.histories) == {2}
    assert set(fit.histories[2].losses[0]) == {"step", "lr", "raptor"}


@pytest.mark.parametrize("changes", [{}, {"start": "layer", "layer_scale": FitSettings().layer_scale}])
def test_a_teacher_that_its_owner_trains_is_left_to_learn(images, changes):
    teacher = tiny_vit().requires_grad_(True)
    fit = fit_raptor(teacher, images, ASSIGNMENT, settings(**changes))
    assert all(one.requires_grad and one.grad is None for one in teacher.parameters())
    assert not any(one.requires_grad for one in fit.raptor.shared.parameters())


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_a_fit_learns_where_its_caller_has_turned_gradients_off(tiny, images, without):
    expected = fit_raptor(tiny, images, ASSIGNMENT, settings())
    with without():
        found = fit_raptor(tiny, images, ASSIGNMENT, settings())
        assert not torch.is_grad_enabled()
    assert found.histories[2].losses == expected.histories[2].losses


def test_the_same_fit_is_equal_whenever_it_was_made(tiny, images):
    first, again = (fit_raptor(tiny, images, ASSIGNMENT, settings()) for _ in range(2))
    assert first.histories[1].seconds != again.histories[1].seconds
    assert first == again
    assert first != fit_raptor(tiny, images, ASSIGNMENT, settings(seed=1))


def test_what_its_caller_draws_next_is_as_without_it(tiny, images, tmp_path):
    """A fit, a pass over images by loader processes, and a Raptor that is loaded."""
    fit = fit_raptor(tiny, images, ASSIGNMENT, settings())
    fit.save(tmp_path / "raptor")
    calls = {
        "fit": lambda: fit_raptor(tiny, images, ASSIGNMENT, settings(), workers=0),
        "pass": lambda: layer_similarity(tiny, images, stream=Stream(workers=0)),
        "loaders": lambda: layer_similarity(tiny, images, stream=Stream(workers=1)),
        "load": lambda: load_model(str(tmp_path / "raptor"), teacher=tiny),
    }
    for name, call in calls.items():
        torch.manual_seed(0)
        expected = torch.get_rng_state()
        call()
        assert torch.equal(torch.get_rng_state(), expected), name


def test_a_caller_who_uses_accelerate_in_half_precision_keeps_it(tiny, images):
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        own = Accelerator(mixed_precision="bf16", cpu=True)
        expected = fit_raptor(tiny, images, ASSIGNMENT, settings())
        assert own.mixed_precision == "bf16"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert fit_raptor(tiny, images, ASSIGNMENT, settings()) == expected  # nothing of it was in half precision


def test_the_teacher_is_left_alone(tiny, images):
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    fit_raptor(tiny, images, ASSIGNMENT, settings(), workers=0)
    assert all(torch.equal(before[name], value) for name, value in tiny.state_dict().items())
    assert not any(block._forward_hooks for block in tiny.blocks)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage1_steps": 0, "stage2_steps": 0}, "no fit"),
        ({"annealed": 1.5}, "annealed 1.5"),
        ({"sigma": -1.0}, "sigma"),
        ({"loss": "l1"}, "unknown loss"),
        ({"batch_size": 0}, "batch-size 0"),
        ({"validation_images": -1}, "less than none"),
    ],
)
def test_recipes_that_make_no_sense(changes, words):
    with pytest.raises(UsageError, match=words):
        settings(**changes)


def test_a_tenth_is_kept_out_by_default():
    assert [FitSettings().held_out(images) for images in (70, 640, 5000)] == [7, 64, 64]
    assert FitSettings(validation_images=0).held_out(70) == 0


def test_too_few_images(tiny, images):
    with pytest.raises(UsageError, match="32 images are too few for a batch of 64"):
        fit_raptor(tiny, images, ASSIGNMENT, settings(batch_size=64), workers=0)
    with pytest.raises(UsageError, match="cannot be kept out"):
        fit_raptor(tiny, images, ASSIGNMENT, settings(validation_images=40), workers=0)
    with pytest.raises(UsageError, match="5 layers are assigned"):
        fit_raptor(tiny, images, [0, 0, 0, 1, 1], settings(), workers=0)


def test_a_fit_at_another_image_size_is_another(tiny, images, tmp_path):
    """Its teacher's weights are the same ones; checkpoints of before did not note how images were prepared."""
    here = fit_options(tiny, images, ASSIGNMENT, settings())
    path = Checkpoints(tmp_path, here).save(1, 2, {}, {})
    tiny.preprocessing = replace(tiny.preprocessing, image_size=(48, 48))
    there = Checkpoints(tmp_path, fit_options(tiny, images, ASSIGNMENT, settings()))
    with pytest.raises(UsageError, match=r"teacher\.preprocessing\.image_size: \[32, 32\] before, \(48, 48\) now"):
        there.read(path)
    del here["teacher"]["preprocessing"]
    assert there.read(Checkpoints(tmp_path, here).save(1, 2, {}, {})).step == 2


@pytest.mark.parametrize("validation", [0, 8])
@pytest.mark.parametrize("cached", [False, True])
def test_folders_that_were_not_looked_into_are_told(cached, validation, images, tiny, tmp_path):
    """With images kept out and without; they are none of the images that were read."""
    images.source.unlisted = (Skipped("b", "the folder cannot be listed (Permission denied)"),)
    cache = ActivationCache(tmp_path / "cache", tiny, images) if cached else None
    if cache is not None:
        cache.prepare()
        cache.fill(workers=0)
    fit = fit_raptor(tiny, images, ASSIGNMENT, settings(validation_images=validation), workers=0, cache=cache)
    assert [one["name"] for one in fit.provenance.skipped] == ["b"]
    assert fit.provenance.n_images == len(images)


def test_checkpoints_of_another_fit_are_refused(tiny, images, tmp_path):
    """Before anything is trained, by what the fit itself is asked for."""
    mine = fit_options(tiny, images, ASSIGNMENT, settings())
    fewer = {**mine, "images": images.take(slice(16)).identity()}
    saved = Checkpoints(tmp_path / "fewer", fewer)
    saved.save(1, 2, {}, {})
    for session, words in (
        (Session(checkpoints=Checkpoints(tmp_path / "none", {})), "assignment: None before"),
        (Session(checkpoints=saved), r"these are others \(images.chosen: 16 before, 40 now"),
        (Session(resume=saved.latest()), "images.chosen: 16 before, 40 now"),
    ):
        with pytest.raises(UsageError, match=words):
            fit_raptor(tiny, images, ASSIGNMENT, settings(), session=session, workers=0)
    assert not (tmp_path / "none").exists()


def test_checkpoints_know_the_batch_that_the_images_fill(tiny, images, tmp_path):
    by_default = settings(batch_size=None, stage2_steps=0)
    checkpoints = Checkpoints(tmp_path, fit_options(tiny, images, ASSIGNMENT, by_default))
    assert checkpoints.options["recipe"]["batch_size"] == 32
    fit = fit_raptor(tiny, images, ASSIGNMENT, by_default, session=Session(checkpoints=checkpoints), workers=0)
    assert not differences(checkpoints.latest().options, fit.options)


def test_held_out_images_that_cannot_be_read_are_done_without(noise_folder, tiny):
    images = load_images(noise_folder, tiny)
    held_out = images.split(8, 0)[1]
    names = [images.source.name(int(place)) for place in held_out.indices()]
    for name in names:
        (noise_folder / name).write_bytes(b"no picture")
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brdyn.raptor.fit.tell", told.append)
        fit = fit_raptor(tiny, images, ASSIGNMENT, settings(), workers=0)
    assert told == ["none of the 8 images kept out could be read: the fit goes on, and nothing judges it"]
    assert [history.validation for history in fit.histories.values()] == [[], []]
    assert "no image that was kept out judged it" in fit.answer()
    assert sorted(one["name"] for one in fit.provenance.skipped) == sorted(names)
    assert fit.provenance.n_images == len(images) - 8
    strict = load_images(noise_folder, tiny, strict=True)
    with pytest.raises(BrdynError, match="`strict`"):
        fit_raptor(tiny, strict, ASSIGNMENT, settings(), workers=0)


def scrambled(teacher):
    raptor = untrained(teacher, ASSIGNMENT, BlockConfig(width=16, heads=2, mlp="gelu"), seed=0)
    scramble(raptor.shared, seed=1)
    return raptor


def test_saved_and_read_back(tiny, tmp_path):
    raptor = scrambled(tiny)
    raptor.save_pretrained(tmp_path, steps=5)
    back = Raptor.from_pretrained(tmp_path, tiny)
    pictures = torch.randn(2, 3, 32, 32)
    assert torch.equal(back(pictures), raptor(pictures))
    half = Raptor.from_pretrained(tmp_path, tiny_vit().to(torch.bfloat16))
    assert half(pictures.bfloat16()).dtype == torch.bfloat16
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 5
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    assert back.shared[0].norm1.eps == 1e-5
    config = json.loads((tmp_path / "config.json").read_text())
    del config["block"]["norm_eps"]  # as configs were before it could be chosen
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Raptor.from_pretrained(tmp_path, tiny).shared[0].norm2.eps == 1e-6
    other = tiny_vit()
    other.info = other.info.__class__(**{**other.info.to_dict(), "digest": "1" * 64})
    with pytest.raises(UsageError, match="give the same weights"):
        Raptor.from_pretrained(tmp_path, other)
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(BrdynError, match="is the copy complete"):
        Raptor.from_pretrained(tmp_path, tiny)
    (tmp_path / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BrdynError, match="checksum"):
        Raptor.from_pretrained(tmp_path, tiny)


def test_a_raptor_is_a_model_like_any_other(tiny, images):
    raptor = scrambled(tiny)
    assert raptor.depth == 4
    assert raptor.info.notes == (*tiny.info.notes, "2 blocks shared by 4 layers")
    assert sum(p.numel() for p in raptor.shared.parameters()) == 2 * sum(
        p.numel() for p in raptor.shared[0].parameters()
    )
    similarity = layer_similarity(raptor, images, replicates=0, stream=Stream(workers=0))
    assert similarity.matrix.shape == (4, 4)
    inputs = Batch(torch.randn(2, 3, 32, 32), torch.arange(2), None)
    states, clean = capture(raptor, inputs).states, capture(tiny, inputs).states
    assert torch.equal(states[0], clean[0])
    own = states[0]
    for layer, number in enumerate(ASSIGNMENT, 1):
        own = raptor.shared[number](own, layer)
        torch.testing.assert_close(states[layer], own)
    torch.testing.assert_close(raptor(inputs.images), tiny.norm(own))


def test_loads_by_folder_with_its_teacher(tmp_path):
    teacher = load_model("vit_tiny_patch16_224", init="random", seed=3, image_size=32)
    raptor = untrained(teacher, [0] * 6 + [1] * 6, BlockConfig(width=192, heads=3), seed=0)
    scramble(raptor.shared)
    raptor.save_pretrained(tmp_path)
    back = load_model(str(tmp_path))
    pictures = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(back(pictures), raptor(pictures))
    assert back.info.name == str(tmp_path)
    assert back.info.digest
    with pytest.raises(UsageError, match="makes no sense"):
        load_model(str(tmp_path), init="random")


def test_the_weights_of_an_untrained_teacher_are_found_by_its_seed(tmp_path):
    """A file has none of them, nor another seed, and what is said then does help."""
    third, fourth = (load_model("vit_tiny_patch16_224", init="random", seed=seed, image_size=32) for seed in (3, 4))
    raptor = untrained(third, [0] * 6 + [1] * 6, BlockConfig(width=192, heads=3), seed=0)
    raptor.save_pretrained(tmp_path / "raptor")
    torch.save(fourth.backbone.state_dict(), tmp_path / "fourth.pth")
    remedy = "those are untrained: drop `weights`, or load the teacher with `init=random` and `seed=3`"
    with pytest.raises(UsageError, match=remedy):
        load_model(str(tmp_path / "raptor"), weights=tmp_path / "fourth.pth")
    with pytest.raises(UsageError, match=remedy):
        Raptor.from_pretrained(tmp_path / "raptor", fourth)
    assert load_model(str(tmp_path / "raptor")).teacher.info.digest == third.info.digest
    again = load_model("vit_tiny_patch16_224", init="random", seed=3, image_size=32)
    assert Raptor.from_pretrained(tmp_path / "raptor", again).depth == 12


def test_loads_with_the_set_of_weights_that_its_teacher_had(tmp_path):
    states = [load_model("vit_tiny_patch16_224", init="random", seed=seed).backbone.state_dict() for seed in (1, 2)]
    torch.save({"student": states[0], "teacher": states[1]}, tmp_path / "both.pth")
    options = {"weights": tmp_path / "both.pth", "image_size": 32}
    teacher = load_model("vit_tiny_patch16_224", weights_key="student", **options)
    untrained(teacher, [0] * 12, BlockConfig(width=192, heads=3), seed=0).save_pretrained(tmp_path / "raptor")
    back = load_model(str(tmp_path / "raptor"))
    assert torch.equal(back.teacher.backbone.cls_token, states[0]["cls_token"])
    with pytest.raises(UsageError, match="give the same weights"):  # the average, which is taken by default
        load_model(str(tmp_path / "raptor"), weights=tmp_path / "both.pth")


@pytest.mark.parametrize("eps", [0.0, -1e-5, 2.0])
def test_an_epsilon_that_is_none_is_refused(eps):
    for build in (FitSettings, lambda **given: BlockConfig(width=16, heads=2, **given)):
        with pytest.raises(UsageError, match=r"`norm_eps=.*` is not a number above 0, up to 1"):
            build(norm_eps=eps)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.1, 0.2, 0.5, 0.505], ""),
        ([0.1, 0.2, 0.5, 0.52], "from 0.500 to 0.520 in the last quarter of stage 2"),
        ([0.1, 0.2, 0.5, 0.4], ""),
        ([0.1, 0.5], "from 0.100 to 0.500 in the last half of stage 2"),  # as often as by default
        ([0.5, 0.1], ""),
        ([0.9], ""),
        ([], ""),
    ],
)
def test_a_fit_that_was_too_short_says_so(tiny, values, said):
    rows = [{"step": float(step), "r2 layer 4": value, "skill layer 4": 1.0} for step, value in enumerate(values, 1)]
    first, losses = [{"step": 4.0, "r2 block 1": 0.0}] * 2, [{"step": 4.0, "lr": 1e-3, "raptor": 0.5}]
    histories = {1: History(losses, first), 2: History(losses, rows)}
    settings = FitSettings(stage1_steps=2, stage2_steps=2, batch_size=4)
    options = {"assignment": [0] * 4, "recipe": settings.to_dict()}
    fit = Fit(None, histories, options, 16, 5)
    assert said in fit.too_short()
    if rows:
        assert fit.answer().endswith(
            f"on images kept out, R² layer 4 {values[-1]:.3f}, skill over doing nothing, layer 4 1.000"
        )
        assert fit.overview() == [
            {"stage": 1, "of": "raptor", "loss": 0.5, "R²": None, "skill over doing nothing": None},
            {"stage": 1, "of": "block 1", "loss": None, "R²": 0.0, "skill over doing nothing": None},
            {"stage": 2, "of": "raptor", "loss": 0.5, "R²": None, "skill over doing nothing": None},
            {"stage": 2, "of": "layer 4", "loss": None, "R²": values[-1], "skill over doing nothing": 1.0},
        ]
    for row in rows[-1:]:  # a teacher whose tokens became all the same has no R²
        del row["r2 layer 4"]
    assert fit.too_short() == ""
    if rows:
        assert fit.answer().endswith("on images kept out, skill over doing nothing, layer 4 1.000")
        assert fit.overview()[3]["skill over doing nothing"] == 1.0
        del rows[-1]["skill layer 4"]
        assert "no image that was kept out judged it" in fit.answer()
    for row, value in zip(rows[-1:], values[-1:], strict=True):
        row["r2 layer 4"] = value
    assert bool(said) == bool(fit.too_short())
    assert fit.batch_size == 4
    assert [line for line in fit.remarks() if "too short" in line] == ([fit.too_short()] if said else [])
