"""Heads of the published protocol for classes: begun from the model's own classifier, and trained as published."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from brdyn import load_model
from brdyn.data import load_images
from brdyn.data.augment import Augmentation, PairTransform
from brdyn.errors import UsageError
from brdyn.probes import Features, Recipe, probe_layers
from brdyn.probes.class_heads import ClassHead, fit_class_head
from brdyn.probes.classes import ClassRun
from brdyn.probes.features import read_out
from brdyn.probes.layer_choice import LayersAsked
from brdyn.probes.layer_result import AUGMENTED, OPTIMISTIC
from brdyn.probes.stores import Readout
from brdyn.raptor import BlockConfig
from brdyn.raptor.evaluation import paired_readouts
from brdyn.raptor.model import untrained
from brdyn.runtime import Processes
from brdyn.trajectory import Stream
from tests.conftest import tiny_vit
from tests.data.tables import pictures, write

ALONE = Stream(workers=0, batch_size=8)
PUBLISHED = Recipe.of("classification", published=True)
CLASSES = 10


class OfBoth:
    """A classifier of cls beside the mean patch, as DINOv2's."""

    def __init__(self, model):
        self.model, self.head = model, torch.nn.Linear(2 * model.info.width, CLASSES).requires_grad_(False)

    def __call__(self, normed):
        tokens = self.model.tokens
        parts = [normed[:, tokens[group]].mean(1) for group in ("cls", "patches")]
        return self.head(torch.cat(parts, 1))


@pytest.fixture
def headed(monkeypatch):
    """A model whose classifier reads cls and the mean patch."""
    model = tiny_vit(classes=CLASSES)
    monkeypatch.setattr(model, "logits", OfBoth(model))
    return model


@pytest.fixture
def sets(little_cifar):
    def of(model):
        train, test = (load_images(little_cifar[name], model) for name in ("train", "test"))
        return train.take(np.arange(60)), test.take(np.arange(20))

    return of


def test_the_published_recipe():
    assert (PUBLISHED.epochs, PUBLISHED.batch_size, PUBLISHED.lr, PUBLISHED.penalties) == (
        15,
        512,
        1e-4,
        (1e-2,),
    )
    assert (PUBLISHED.fading, PUBLISHED.standard, PUBLISHED.on_test) == (True, False, True)


@pytest.mark.parametrize("pool", ["token", "avg", "both"])
def test_a_linear_classifier_is_found_whatever_it_reads(pool, headed):
    model = headed if pool == "both" else tiny_vit(classes=CLASSES, global_pool=pool, fc_norm=False)
    head = ClassHead.of(model)
    assert head is not None
    state = torch.randn(3, model.tokens.count, 16, generator=torch.Generator().manual_seed(1))
    scores = functional.linear(read_out(model, state), head.weight, head.bias)
    torch.testing.assert_close(scores, model.logits(model.norm(state)), atol=1e-4, rtol=1e-4)
    read = {"token": (True, False), "avg": (False, True), "both": (True, True)}[pool]
    assert tuple(bool(part.abs().max() > 1e-6) for part in head.weight.split(16, 1)) == read


@pytest.mark.parametrize(
    "built",
    [
        {"classes": 0},
        {"classes": CLASSES, "global_pool": "avg", "fc_norm": True},  # a norm of its own
        {"classes": CLASSES, "global_pool": "max", "fc_norm": False},
        {"classes": CLASSES, "global_pool": "avgmax", "fc_norm": False},
    ],
)
def test_a_classifier_that_is_none_such_is_not_taken(built):
    assert ClassHead.of(tiny_vit(**built)) is None


def by_hand(train, start, recipe, epochs, seed=0):
    """The head after some epochs, by torch's own optimiser."""
    weight, bias = (one.clone().requires_grad_(True) for one in (start.weight, start.bias))
    optimizer = torch.optim.AdamW([weight, bias], weight_decay=1e-2)
    generator, step = torch.Generator().manual_seed(seed), 0
    for _ in range(epochs):
        for rows in torch.randperm(len(train), generator=generator).split(recipe.batch_size):
            optimizer.param_groups[0]["lr"] = recipe.rate(step, recipe.epochs * -(-len(train) // recipe.batch_size))
            optimizer.zero_grad()
            scores = train.values[rows] @ weight.T + bias
            functional.cross_entropy(scores, train.labels[rows]).backward()
            optimizer.step()
            step += 1
    return ClassHead(weight.detach(), bias.detach())


def drawn(count, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    return Features(torch.randn(count, 6, generator=generator), torch.randint(classes, (count,), generator=generator))


def test_steps_are_those_of_adamw_and_the_epoch_kept_is_the_best_on_the_test_images():
    train, test, random = drawn(30, 4, 0), drawn(40, 4, 1), drawn(4, 4, 2)
    start = ClassHead(random.values, torch.tensor([0.3, -0.1, 0.0, 0.2]))
    recipe = replace(PUBLISHED, epochs=6, batch_size=8, lr=0.1)
    found = fit_class_head(train, test, start, recipe, seed=1)
    each = [by_hand(train, start, recipe, epochs, seed=1) for epochs in range(1, 7)]
    right = [int((head.predict(test.values) == test.labels).sum()) for head in each]
    assert 1 < found.epoch < 6, right  # neither the first nor the last, so that it is chosen
    assert found.epoch == 1 + int(np.argmax(right))
    torch.testing.assert_close(found.head.weight, each[found.epoch - 1].weight)
    torch.testing.assert_close(found.head.bias, each[found.epoch - 1].bias)


def test_a_head_that_does_not_move_is_the_models_own(headed, sets):
    train, test = sets(headed)
    still = replace(PUBLISHED, lr=0.0, epochs=1)
    found = probe_layers(headed, train, test, layers="2,4", seeds=1, published=True, recipe=still, stream=ALONE)
    batch = next(test.batches(20, workers=0))
    right = (headed.logits(headed(batch.images)).argmax(1) == batch.labels).numpy()
    counted = found.counted[found.counted["place"] == "4"]
    assert counted["right"].tolist() == right.astype(float).tolist()
    assert set(found.probes) == {"linear"}
    usual = probe_layers(headed, train, test, layers="last", seeds=1, stream=ALONE)
    assert not usual.optimistic
    assert "optimistic" not in usual.answer() + usual.caption
    assert found.notes == (OPTIMISTIC, "heads of single layers began as the classifier of tiny_vit")
    assert found.runs["epoch"].tolist() == [1.0, 1.0]
    assert found.runs["penalty"].tolist() == [1e-2, 1e-2]
    assert found.sizes == {"fit": 60, "test": 20}


def test_the_head_of_a_raptor_begins_as_its_teachers(headed, sets):
    train, test = sets(headed)
    raptor = untrained(headed, [0, 0, 1, 1], BlockConfig(width=16, heads=2, layer_scale=0.5), 0)
    still = replace(PUBLISHED, lr=0.0, epochs=1)
    found = probe_layers(
        headed, train, test, layers="last", seeds=1, published=True, recipe=still, stream=ALONE,
        readouts=paired_readouts(raptor),
    )  # fmt: skip
    batch = next(test.batches(20, workers=0))
    for name, model in (("teacher", headed), ("raptor", raptor)):
        right = (headed.logits(model(batch.images)).argmax(1) == batch.labels).double()
        own = found.counted[found.counted["model"] == name]
        assert own["right"].tolist() == right.tolist(), name
    assert found.notes[1] == "heads of single layers began as the classifier of tiny_vit"


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: tiny_vit(), "has no classifier"),
        (lambda: tiny_vit(classes=3), "has one of other classes"),
        (lambda: tiny_vit(classes=CLASSES, global_pool="max", fc_norm=False),
         "has one that is not linear in cls and the mean patch"),
    ],
)  # fmt: skip
def test_why_heads_begin_at_zero_is_said(model, why, sets):
    model = model()
    train, test = sets(model)
    recipe = replace(PUBLISHED, epochs=2, lr=0.05)
    found = probe_layers(model, train, test, layers="last", seeds=2, published=True, recipe=recipe, stream=ALONE)
    assert found.notes == (OPTIMISTIC, f"heads began at zero, as tiny_vit {why}")
    assert found.runs["seed"].tolist() == [0, 1]
    assert OPTIMISTIC in found.summary()
    assert found.answer().startswith("classification (optimistic): tiny_vit at layer 4: accuracy ")
    assert found.caption.endswith("; optimistic: chosen on the test images")


def test_several_layers_side_by_side_begin_at_zero(headed, sets):
    train, test = sets(headed)
    recipe = replace(PUBLISHED, epochs=1, lr=0.0)
    found = probe_layers(headed, train, test, layers="choose:2", seeds=1, published=True, recipe=recipe, stream=ALONE)
    assert "+" in found.sets["regular"]
    zero = found.counted[found.counted["place"] == found.sets["regular"]]  # all say the first class
    labels = next(test.batches(20, workers=0)).labels
    assert zero["right"].sum() == (labels == labels.min()).sum()


def test_crops_have_the_backbone_in_the_loop(headed, sets):
    train, test = sets(headed)
    recipe = replace(PUBLISHED, epochs=2, lr=0.01, batch_size=16)
    found = [
        probe_layers(headed, train, test, layers="last", seeds=1, published=True, recipe=recipe, augment=augment,
                     stream=ALONE)
        for augment in (True, True, False)
    ]  # fmt: skip
    assert found[0].notes[-1] == AUGMENTED
    assert found[0].scores.equals(found[1].scores)
    assert AUGMENTED not in found[2].notes
    assert not found[0].counted.equals(found[2].counted)


def test_crops_are_of_every_image_once_an_epoch_and_other_ones_in_the_next(headed, sets):
    train, _ = sets(headed)
    recipe = replace(PUBLISHED, batch_size=16)
    asked, readouts = LayersAsked.parse("last"), {"model": Readout(headed)}
    run = ClassRun(readouts, train, train, None, asked, recipe, 1, 0, True, None, ALONE)
    run._extract((4,))
    first, second = (list(run._live("model", (4,), None, 0)(number)) for number in (0, 1))
    assert [len(labels) for _, labels in first] == [16, 16, 16, 12]
    totals = [torch.cat([values for values, _ in epoch]).sum(0) for epoch in (first, second)]
    assert not torch.allclose(*totals, atol=1e-3)  # no other order of the same crops
    counts = torch.cat([labels for _, labels in first]).bincount().tolist()
    assert counts == [6] * CLASSES  # every image once


def test_crops_are_of_the_images_with_a_label_alone(headed, tmp_path):
    """So that an epoch has as many steps as the learning rate counts."""
    labels = [None if place % 3 else place // 3 % CLASSES for place in range(60)]
    path = write(tmp_path / "x.parquet", {"image": pictures(60), "label": labels})
    train = load_images(path, headed).take(np.arange(30, 60))
    recipe = replace(PUBLISHED, batch_size=4)
    asked, readouts = LayersAsked.parse("last"), {"model": Readout(headed)}
    run = ClassRun(readouts, train, train, None, asked, recipe, 1, 0, True, None, ALONE)
    run._extract((4,))
    found = [labels for _, labels in run._live("model", (4,), None, 0)(0)]
    assert list(map(len, found)) == [4, 4, 2]
    assert sorted(torch.cat(found).tolist()) == list(range(CLASSES))


def test_an_image_alone_is_cropped_alike_for_its_index(little_cifar):
    model = tiny_vit()
    images = load_images(little_cifar["train"], model)
    seen = model.preprocessing
    turn = PairTransform(seen.image_size, seen.mean, seen.std, Augmentation((0.08, 1.0), seed=4))
    changed = images.augmented(turn)
    order = np.array([5, 2, 9])
    whole = torch.cat([batch.images for batch in changed.batches(16, workers=0)])
    some = next(changed.in_memory().take(order).batches(3, workers=0)).images
    torch.testing.assert_close(some, whole[order])
    other = images.augmented(replace(turn, augmentation=Augmentation((0.08, 1.0), seed=5)))
    assert not torch.equal(next(other.batches(1, workers=0)).images, whole[:1])


def test_what_goes_together_is_said(headed, sets):
    train, test = sets(headed)
    with pytest.raises(UsageError, match="`augment` and `recipe` go with `published`"):
        probe_layers(headed, train, test, augment=True, stream=ALONE)
    with pytest.raises(UsageError, match="`augment` and `recipe` go with `published`"):
        probe_layers(headed, train, test, recipe=PUBLISHED, stream=ALONE)
    with pytest.raises(UsageError, match="the published protocol chooses by the test images"):
        probe_layers(headed, train, test, published=True, val=test, stream=ALONE)
    with pytest.raises(UsageError, match="0 seeds are none"):
        probe_layers(headed, train, test, published=True, seeds=0, stream=ALONE)
    two = Stream(processes=Processes(headed.device, 0, 2), workers=0)
    with pytest.raises(UsageError, match="run in one process"):
        probe_layers(headed, train, test, published=True, augment=True, stream=two)


def test_the_head_of_a_dinov2_classifier_is_found():
    model = load_model("dinov2_vits14_reg_lc", init="random", image_size=28)
    head = ClassHead.of(model)
    assert head is not None
    torch.testing.assert_close(head.weight, model.head.weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(head.bias, model.head.bias)
