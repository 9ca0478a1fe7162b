"""The published recipes, in steps."""

from dataclasses import replace
from pathlib import Path

import pytest

from brdyn.classifiers.recipe import BASELINE, VITRM, ClassifierRecipe
from brdyn.cli.train_options import TrainRequest
from brdyn.errors import UsageError


def test_published_schedules():
    settings = VITRM.training(50_000)
    assert settings.steps == 390_625  # 1000 epochs of 50 000 images in batches of 128
    assert settings.warmup == round(30 * 50_000 / 128)
    assert (settings.lr, settings.min_lr, settings.weight_decay, settings.ema) == (3e-4, 1e-6, 0.05, 0.999)
    assert BASELINE.training(50_000).steps == round(300 * 50_000 / 128)
    assert BASELINE.ema == 0


def test_published_augmentation():
    """ViTRM, section 7 of the method notes."""
    published = {"padding": 4, "flip": True, "operations": 2, "magnitude": 9, "mixup": 0.2, "cutmix": 1.0}
    assert {name: getattr(VITRM, name) for name in published} == published
    assert (VITRM.seed, VITRM.clip, VITRM.accumulate, VITRM.training(50_000).batch_size) == (0, 0.0, 1, 128)


def test_a_short_run_is_watched_as_often():
    settings = ClassifierRecipe(epochs=0.5, batch_size=10).training(100)
    assert (settings.steps, settings.log_every, settings.validate_every, settings.warmup) == (5, 1, 1, 0)
    assert ClassifierRecipe(epochs=2, log_every=7).training(1000).log_every == 7


@pytest.mark.parametrize(("epochs", "expected"), [(20, (2.0, 2.0)), (150, (10.0, 15.0)), (1000, (10.0, 30.0))])
def test_a_short_run_warms_up_for_at_most_a_tenth(epochs, expected):
    """By default, of the published 10 and 30 epochs; what is given stays."""
    by_default = ClassifierRecipe(epochs=epochs)
    assert (by_default.warmup_epochs, VITRM.lasting(epochs).warmup_epochs) == expected
    assert by_default == BASELINE.lasting(epochs)
    assert ClassifierRecipe(epochs=epochs, warmup_epochs=12).warmup_epochs == 12


@pytest.mark.parametrize("option", [{}, {"warmup": 7.0}])
def test_the_command_line_warms_up_by_the_same_rule(option):
    request = TrainRequest(model="vitrm", out=Path("out"))
    given = {"epochs": 20.0, "warmup": None, "ema": None, "given": {}, **option}
    found = request.recipe(VITRM, **given)
    assert found == replace(VITRM, epochs=20.0, warmup_epochs=option.get("warmup", 2.0))


@pytest.mark.parametrize(
    "changes", [{"epochs": -1}, {"warmup_epochs": -1}, {"batch_size": 0}, {"lr": -1.0}, {"ema": 1.0}]
)
def test_impossible_recipes(changes):
    with pytest.raises(UsageError):
        ClassifierRecipe(**changes)
