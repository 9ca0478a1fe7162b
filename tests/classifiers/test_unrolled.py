"""A trained ViTRM or ViT as a model for the other commands."""

import json

import pytest
import torch

from brdyn import load_model
from brdyn.classifiers.saved import Classifier
from brdyn.data import Batch
from brdyn.errors import UsageError
from brdyn.measures.basins import AngularBasins
from brdyn.measures.similarity import select_groups
from brdyn.models import describe_model
from brdyn.trajectory import capture
from tests.conftest import scramble

NAMES = ("cat", "dog", "eel")
SMALL = {"width": 12, "heads": 2, "hidden": 16, "patch": 4, "depth": 2}


def saved(folder, network="vitrm", trained=None, **options):
    built = {} if network.startswith("resnet") else {**SMALL, **options}
    classifier = Classifier.new(network, NAMES, 8, (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), **built)
    scramble(classifier.network)
    classifier.network.eval()
    classifier.save_pretrained(folder, trained=trained or {})
    return classifier


@pytest.mark.parametrize("sees_image", [True, False])
def test_a_vitrm_layer_by_layer(tmp_path, sees_image):
    classifier = saved(tmp_path, latent_steps=3, sees_image=sees_image)
    model = load_model(f"{tmp_path}@2")
    images = torch.randn(5, 3, 8, 8)
    expected = classifier.network(images, steps=2)
    state = model.embed(images)
    changed = []
    for block in model.blocks:
        after = block(state)
        changed.append(
            [
                name
                for name in model.tokens.groups
                if not torch.equal(*(s[:, model.tokens[name]] for s in (state, after)))
            ]
        )
        state = after
    assert changed == [["z"], ["z"], ["z"], ["y"]] * 2
    torch.testing.assert_close(state[:, model.tokens["z"]], expected.z)
    torch.testing.assert_close(state[:, model.tokens["y"]], expected.y)
    torch.testing.assert_close(model.logits(model(images)), expected.scores)


def test_what_it_says_of_itself(tmp_path):
    classifier = saved(tmp_path, trained={"steps": 1, "n_sup": 3}, latent_steps=2)
    model = load_model(str(tmp_path))
    assert (model.depth, model.info.layers) == (9, 9)  # as many steps as it was trained for
    assert model.tokens.sizes() == {"x": 4, "y": 1, "z": 4}
    assert model.tokens.readouts == ("y", "z")
    assert select_groups(None, model.tokens) == ["y", "z"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert model.info.digest == config["digest"]
    assert sum(parameter.numel() for parameter in model.parameters()) == classifier.parameters
    heads = 12 * 3 + 3 + 12 + 1
    assert model.info.parameters == classifier.parameters - heads
    assert model.classes == 3
    assert model.takes_labels(NAMES)
    assert model.takes_labels(None)
    assert not model.takes_labels(("cat", "dog", "fox"))
    assert describe_model(str(tmp_path)).info == model.info


def test_a_vit(tmp_path):
    folder = tmp_path / "clipped"  # which is no CLIP
    classifier = saved(folder, "vit-small")
    model = load_model(str(folder))
    images = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(model.logits(model(images)), classifier.network(images))
    assert model.tokens.sizes() == {"cls": 1, "patches": 4}
    assert model.tokens.readouts == ("cls", "patches")
    assert model.classes == 3
    assert not model.takes_labels(("cat", "dog", "fox"))


def test_images_arrive_as_in_training(tmp_path):
    from PIL import Image

    classifier = saved(tmp_path)
    pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8)
    seen = load_model(str(tmp_path)).transform(Image.fromarray(pixels.numpy()))
    torch.testing.assert_close(seen, classifier.normalised(pixels.permute(2, 0, 1)[None])[0])


@pytest.mark.parametrize(
    ("network", "suffix", "asked", "words"),
    [
        ("resnet18", "", {}, "it has no tokens to follow"),
        ("vit-small", "@2", {}, "has no recursion steps"),
        ("vitrm", "@0", {}, "takes 1 to 1000 steps"),
        ("vitrm", "", {"init": "random"}, "`init=random` makes no sense"),
        ("vitrm", "", {"weights": "file.pth"}, "`weights` makes no sense"),
        ("vitrm", "", {"image_size": 16}, "drop `image_size`"),
    ],
)
def test_what_a_trained_folder_cannot_be(tmp_path, network, suffix, asked, words):
    saved(tmp_path, network)
    with pytest.raises(UsageError, match=words):
        load_model(f"{tmp_path}{suffix}", **asked)


def test_basins_are_drawn_of_the_answer(tmp_path):
    saved(tmp_path)
    model = load_model(f"{tmp_path}@2")
    directions = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    metric = AngularBasins(model.tokens, model.depth, model.info.width)
    states = capture(model, Batch(directions, torch.arange(12), torch.arange(12) % 2))
    metric.update(states)
    found = metric.details()
    assert found.projected_group == "y"
    moved = found.projection.groupby("layer")[["x", "y"]].std().sum(axis=1)
    assert moved[0] < 1e-5  # the learned answer, the same for every image; x is not
    assert moved[8] > 1e-3
