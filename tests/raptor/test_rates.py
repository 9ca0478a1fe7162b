"""Learning rates that are tried first: the climb, the long fit at what was found, and going on with it."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import brdyn
from brdyn.data import load_images
from brdyn.errors import BrdynError, DivergedError, UsageError
from brdyn.raptor import FitSettings, fit_options, fit_raptor, rates
from brdyn.raptor.rates import best, in_words, tried_rates, with_rates
from brdyn.training import Checkpoints, Session

LONG = FitSettings(stage1_steps=400, stage2_steps=100, lr=1e-3, stage2_lr=3e-4, try_rates=True)


@pytest.fixture
def climbed(monkeypatch):
    """The climb over a made-up R² for each multiple of the usual rates; an error where there is none."""

    def climb(heights, settings=LONG):
        def fit(short):
            times = short.lr / settings.training(1).lr
            assert short.stage2_lr / settings.training(2).lr == pytest.approx(times)
            assert not short.try_rates
            if heights.get(times) is None:
                raise DivergedError("the loss is not finite")
            return heights[times]

        def made_up(height, *_):
            return SimpleNamespace(curve=lambda _: pd.Series([0.0, height]))

        monkeypatch.setattr(rates, "fidelity", made_up)
        return tried_rates(settings, object(), fit)

    return climb


@pytest.mark.parametrize(
    ("heights", "tried", "taken"),
    [
        ({1: 0.1, 4: 0.3, 16: 0.25}, [1, 4, 16], 4),
        ({1: 0.3, 4: 0.2, 0.25: 0.25}, [1, 4, 0.25], 1),
        ({1: 0.3, 4: 0.2, 0.25: 0.4, 0.0625: 0.35}, [1, 4, 0.25, 0.0625], 0.25),
        ({1: 0.3, 4: None, 0.25: 0.1}, [1, 4, 0.25], 1),
        ({0.25: 0.1}, [1, 4, 0.25, 0.0625], 0.25),
        ({0.0625: 0.1}, [1, 4, 0.25, 0.0625], 0.0625),
        ({}, [1, 4, 0.25, 0.0625], None),
        ({1: 0.3, 4: 0.3, 0.25: float("nan")}, [1, 4, 0.25, 0.0625], 1),
        ({4.0**i: i for i in range(-5, 9)}, [1, 4, 16, 64], 64),
        ({4.0**i: -i for i in range(-5, 9)}, [1, 4, 0.25, 0.0625], 0.0625),
    ],
)
def test_the_climb(climbed, heights, tried, taken):
    if taken is None:
        with pytest.raises(DivergedError, match="diverged; give a smaller learning rate"):
            climbed(heights)
        return
    rows = climbed(heights)
    assert [row["times"] for row in rows] == tried
    assert best(rows)["times"] == taken
    long = with_rates(LONG, rows)
    assert (long.lr, long.stage2_lr) == (pytest.approx(taken * 1e-3), pytest.approx(taken * 3e-4))
    assert not long.try_rates


def test_what_diverged_is_said(climbed):
    said = in_words(climbed({1: 0.3, 4: None, 0.25: 0.1}))
    assert said == (
        "learning rates 0.001 and 0.0003, 1 times the usual ones; R² of the short fits: "
        "1 times 0.300, 4 times diverged, 0.25 times 0.100"
    )


@pytest.mark.parametrize(("steps", "short"), [((400, 100), (40, 20)), ((1000, 0), (100, 0)), ((8, 30), (8, 20))])
def test_a_trial_is_a_tenth_as_long(steps, short):
    found = rates.trial(replace(LONG, stage1_steps=steps[0], stage2_steps=steps[1]), 2)
    assert (found.stage1_steps, found.stage2_steps) == short


def test_the_usual_rates_are_those_of_the_long_fit():
    """A short fit would have raised its own."""
    usual = FitSettings(stage1_steps=100_000, stage2_steps=0)
    assert rates.trial(usual, 1).lr == usual.training(1).lr < FitSettings(stage1_steps=10_000).training(1).lr


QUICK = FitSettings(
    stage1_steps=4, stage2_steps=4, batch_size=8, validation_images=8, log_every=2, checkpoint_every=2, mlp_ratio=1.0,
    layer_scale=0.1, try_rates=True,
)  # fmt: skip


@pytest.fixture
def images(noise_folder, tiny):
    return load_images(noise_folder, tiny)


def weights(fit):
    return {name: value.clone() for name, value in fit.raptor.shared.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


def test_the_long_fit_is_that_of_the_rates_that_were_found(tiny, images, tmp_path):
    fit = fit_raptor(tiny, images, [0, 0, 1, 1], QUICK)
    found = best(fit.tried)
    explicit = replace(QUICK, lr=found["lr"], stage2_lr=found["stage2_lr"], try_rates=False)
    assert same(weights(fit), weights(fit_raptor(tiny, images, [0, 0, 1, 1], explicit)))
    assert fit.options["learning_rates"] is None
    assert fit.options["recipe"]["try_rates"]
    assert any("times the usual ones" in remark for remark in fit.remarks())
    fit.save(tmp_path / "fit")
    again = brdyn.read(tmp_path / "fit")
    assert list(again.tried) == list(fit.tried)
    content = json.loads((tmp_path / "fit" / "fit.json").read_text())
    assert [row["times"] for row in content["tried_rates"]] == [row["times"] for row in fit.tried]


def test_a_fit_that_tries_none_is_written_as_before(tiny, images):
    fit = fit_raptor(tiny, images, [0, 0, 1, 1], replace(QUICK, try_rates=False))
    assert "try_rates" not in fit.options["recipe"]
    assert "tried_rates" not in fit.content()


def test_resuming_tries_nothing_again(tiny, images, tmp_path, monkeypatch):
    whole = fit_raptor(tiny, images, [0, 0, 1, 1], QUICK)

    class Killed(Exception):
        pass

    def report(stage, step, row):
        if (stage, step) == (2, 4):
            raise Killed

    checkpoints = Checkpoints(tmp_path, fit_options(tiny, images, [0, 0, 1, 1], QUICK))
    with pytest.raises(Killed):
        fit_raptor(tiny, images, [0, 0, 1, 1], QUICK, session=Session(checkpoints=checkpoints, report=report))
    monkeypatch.setattr("brdyn.raptor.fit.tried_rates", lambda *_: pytest.fail("tried again"))
    later = Session(checkpoints=checkpoints, resume=checkpoints.latest())
    resumed = fit_raptor(tiny, images, [0, 0, 1, 1], QUICK, session=later)
    assert later.resume.stage == 2
    assert list(resumed.tried) == list(whole.tried)
    assert same(weights(resumed), weights(whole))


def test_rates_need_images_kept_out(tiny, images):
    with pytest.raises(UsageError, match="keep some"):
        replace(QUICK, validation_images=0)
    few = replace(QUICK, validation_images=None, batch_size=4)
    with pytest.raises(UsageError, match="of so few none are"):
        fit_raptor(tiny, images.take([0, 1, 2, 3, 4]), [0, 0, 1, 1], few)


def test_several_processes_are_refused(tiny, images):
    session = Session(accelerator=SimpleNamespace(num_processes=2, device=torch.device("cpu")))
    with pytest.raises(UsageError, match="try them in one"):
        fit_raptor(tiny, images, [0, 0, 1, 1], QUICK, session=session)


def test_a_fit_that_runs_away_is_passed_over(tiny, images):
    """Its losses are numbers, and its own states are not."""

    def short(trial):
        raptor = fit_raptor(tiny, images, [0, 0, 1, 1], trial).raptor
        if trial.lr > fine.lr:
            for weight in raptor.shared.parameters():
                weight.data.fill_(1e30)
        return raptor

    settings = replace(QUICK, try_rates=False)
    fine = rates.trial(settings, 1)
    rows = rates.tried_rates(settings, images, short)
    assert [row["r2"] is None for row in rows if row["times"] >= 1] == [False, True]


def test_only_what_diverges_is_passed_over(tiny, images, monkeypatch):
    """Images that cannot be read are no matter of rates."""

    def broken(*_, **__):
        raise BrdynError("the disk is gone")

    monkeypatch.setattr(rates, "fidelity", broken)
    with pytest.raises(BrdynError, match="the disk is gone"):
        fit_raptor(tiny, images, [0, 0, 1, 1], QUICK)
