"""What a request for a model says: whose weights are whose, and what is drawn."""

import pytest
import torch
from safetensors.torch import save_file

import brdyn
from brdyn.classifiers import Classifier
from brdyn.errors import BrdynError, UsageError
from brdyn.models import load_model
from brdyn.raptor.block import BlockConfig
from brdyn.raptor.model import untrained

TINY = "vit_tiny_patch16_224"


@pytest.fixture
def raptor_folder(tmp_path):
    """A Raptor of an untrained teacher."""
    teacher = load_model(TINY, init="random", image_size=32)
    untrained(teacher, [0] * 12, BlockConfig(width=192, heads=3), seed=0).save_pretrained(tmp_path / "raptor")
    return tmp_path / "raptor"


def test_weights_that_are_given_go_before_those_of_an_untrained_teacher(tmp_path, raptor_folder):
    other = load_model(TINY, init="random", seed=1, image_size=32).backbone.state_dict()
    save_file(other, tmp_path / "other.safetensors")
    assert load_model(raptor_folder).teacher.info.weights == "random (untrained, seed 0)"
    with pytest.raises(UsageError, match="those are untrained: drop `weights`"):
        load_model(raptor_folder, weights=tmp_path / "other.safetensors")
    with pytest.raises(BrdynError, match="no weights at"):
        load_model(raptor_folder, weights=tmp_path / "missing.pth")


def test_a_teacher_that_is_given_is_taken_as_it_is(tmp_path, raptor_folder):
    teacher = load_model(TINY, init="random", image_size=32)
    assert load_model(raptor_folder, teacher=teacher).teacher is teacher
    for options in ({"weights": tmp_path / "missing.pth"}, {"image_size": 64}):
        said = f"{next(iter(options))}: a module that is given is taken as it is"
        with pytest.raises(UsageError, match=said):
            load_model(raptor_folder, teacher=teacher, **options)


def test_drawing_weights_leaves_the_states_of_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("GPUs were seeded"))
    before = torch.get_rng_state()
    first, second = (load_model(TINY, init="random", seed=5, image_size=32) for _ in range(2))
    assert torch.equal(first.backbone.cls_token, second.backbone.cls_token)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def double_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_weights_are_drawn_in_float32_whatever_torchs_default_is(double_by_default):
    """The same seed says the same weights, of twins and networks of one's own too."""
    model = load_model("test_vit", init="random")
    assert model.info.digest.startswith("e825c1d2")
    assert torch.get_default_dtype() == torch.float64
    twin = next(iter(brdyn.untrained_twins(model, 1)))
    options = {"width": 4, "heads": 1, "hidden": 4, "depth": 1}
    drawn = Classifier.new("vit-tiny12", ("a", "b"), 8, (0.5,) * 3, (0.5,) * 3, **options).network.state_dict()
    torch.set_default_dtype(torch.float32)
    again = next(iter(brdyn.untrained_twins(load_model("test_vit", init="random"), 1)))
    assert twin.info == again.info
    plain = Classifier.new("vit-tiny12", ("a", "b"), 8, (0.5,) * 3, (0.5,) * 3, **options).network.state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in drawn.items())


def test_the_default_precision_is_left_as_it_was_after_an_error(double_by_default):
    with pytest.raises(BrdynError):
        load_model("test_vit", weights="missing.pth")
    assert torch.get_default_dtype() == torch.float64
