"""`cifar_vit12`, the model that comes with the package."""

import dataclasses

import pytest
import torch

from brdyn import load_images
from brdyn.classifiers import Classifier, packaged
from brdyn.errors import UsageError
from brdyn.models import describe_model, list_models, load_model
from brdyn.phases.given import contiguous
from brdyn.raptor import FitSettings, fit_raptor
from brdyn.raptor.fidelity import fidelity
from brdyn.raptor.model import Raptor
from brdyn.store import read_json
from brdyn.trajectory import Stream


@pytest.fixture(scope="module")
def model():
    return load_model("cifar_vit12")


def test_it_is_small_and_says_what_it_is(model):
    assert ("packaged", "cifar_vit12") in set(list_models())
    assert (packaged.HOME / "model.safetensors").stat().st_size < 12e6
    assert {path.name for path in packaged.HOME.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    config = read_json(packaged.HOME / "config.json", "it")
    card = (packaged.HOME / "README.md").read_text()
    assert f"{config['measured']['accuracy']:.1%}" in card
    assert f"drop-path {config['options']['drop_path']:g}," in " ".join(card.split())
    assert f"{config['measured']['flops'] / 1e9:.3g} GFLOP an image" in " ".join(card.split())
    assert config["measured"]["flops"] == Classifier.from_pretrained(packaged.HOME).flops()
    assert (model.info.layers, model.classes, len(model.class_names)) == (12, 10, 10)
    assert model.info.weights == "package brdyn"
    assert describe_model("cifar_vit12").info == model.info


def test_steps_give_what_the_network_gives(model):
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.logits(model(images)), model.backbone(images))
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())


def test_its_untrained_twin(model):
    twin, again, other = (load_model("cifar_vit12", init="random", seed=seed) for seed in (1, 1, 2))
    assert twin.info.is_random
    assert twin.info.digest == ""
    first = [one.state_dict()["backbone.blocks.0.attn.qkv.weight"] for one in (twin, again, other, model)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[3])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": packaged.HOME / "model.safetensors"}, "`weights` makes no sense"),
        ({"image_size": 64}, "takes no others; drop `image_size`"),
    ],
)
def test_what_it_cannot_be(options, words):
    with pytest.raises(UsageError, match=words):
        load_model("cifar_vit12", **options)


def test_it_is_as_accurate_as_its_card_says(model, cifar10_test):
    images = load_images(cifar10_test, model, n=1000)
    assert model.takes_labels(images.label_names)
    right = sum(
        int((model.logits(model(batch.images)).argmax(1) == batch.labels).sum())
        for batch in images.batches(250, workers=0)
    )
    said = read_json(packaged.HOME / "config.json", "it")["measured"]["accuracy"]
    assert right / 1000 == pytest.approx(said, abs=0.05)


def test_a_raptor_of_it_has_an_accuracy(model, cifar10_test, tmp_path):
    images = load_images(cifar10_test, model, n=64)
    settings = FitSettings(stage1_steps=2, stage2_steps=2, batch_size=16)
    raptor = fit_raptor(model, images, contiguous([6], 12), settings, workers=0).raptor
    assert not raptor.info.is_random
    found = fidelity(raptor, images, stream=Stream(workers=0))
    assert 0 <= found.accuracy <= 1
    assert 0.2 < found.teacher_accuracy < 1
    raptor.save_pretrained(tmp_path)
    again = load_model(str(tmp_path))
    assert isinstance(again, Raptor)
    assert dataclasses.replace(again.teacher.info, name="") == dataclasses.replace(model.info, name="")
