"""The stochastic-depth study at tiny size: it goes on, survives, and its verdicts follow their rules."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analyses import stochastic_depth, stochastic_depth_findings
from analyses.statistics import mean_difference, rank_correlation, ranks_without, together
from analyses.stochastic_depth_cells import Recorded, read_study
from brdyn.classification.recipe import ClassifierRecipe
from brdyn.errors import UsageError
from brdyn.raptor import FitSettings


def write_config(path, **changes):
    content = {
        "name": "tiny",
        "network": {"model": "vit-tiny12", "width": 8, "depth": 4, "heads": 1, "hidden": 8, "patch": 16},
        "image_size": 32, "train_images": 60, "test_images": 30, "held_out": 20, "drop_path": [0.0, 0.5], "seeds": 2,
        "training": {"epochs": 2, "warmup_epochs": 0, "batch_size": 20, "operations": 0, "mixup": 0.0, "cutmix": 0.0},
        "middle": 1, "similarity": {"images": 20, "replicates": 5}, "phases": [2, 3],
        "raptor": {"k": [1, 2, 3], "partitioned": [3], "draws": 1, "stages_k": [3], "test_images": 20,
                   "settings": {"stage1_steps": 1, "stage2_steps": 1, "batch_size": 10}},
        **changes,
    }  # fmt: skip
    path.write_text(json.dumps(content))  # which is YAML too
    return path


def test_stochastic_depth_study_goes_on_and_is_written_up(monkeypatch, tmp_path, capsys, little_cifar):
    config, out = tmp_path / "config.yaml", tmp_path / "out"
    write_config(config)

    def run(*arguments):
        files = ["--train", little_cifar["train"], "--test", little_cifar["test"], "--out", out]
        monkeypatch.setattr(sys, "argv", ["study", *map(str, ["--config", config, *files, *arguments])])
        stochastic_depth.main()
        return capsys.readouterr().out.splitlines()

    assert "not recorded yet; run `--part models`" in run("--part", "fits")[0]
    assert "out of time" in run("--minutes", 0)[-1]
    said = run("--part", "models", "--share", "0/2")
    assert [line.split(":")[0] for line in said] == ["p0_seed0_best", "p0_seed1_best"]
    fit_raptor = stochastic_depth.fit_raptor

    def broken(teacher, images, assignment, settings, **options):
        if settings.seed == 1 and len(set(assignment)) == 1:
            raise RuntimeError("no memory left")
        return fit_raptor(teacher, images, assignment, settings, **options)

    with monkeypatch.context() as patched:
        patched.setattr(stochastic_depth, "fit_raptor", broken)
        said = run()
    assert said[0] == "p0_seed0_best: already recorded"
    assert sum("RuntimeError: no memory left" in line for line in said) == 2
    kinds = [line.split(":")[0].split(", ") for line in said if ", " in line.split(":")[0]]
    assert len(kinds) == len(set(map(tuple, kinds))) == 4 * (3 + 2) + len({name for name, _ in kinds} - {
        f"p{p}_seed{seed}_best" for p in ("0", "0.5") for seed in (0, 1)
    })  # fmt: skip
    study = read_study("tiny", out)
    assert set(study.models["stage"]) == {"untrained", "middle", "best", "last"}
    assert len(study.failed) == 2
    assert {tuple(row) for row in study.fits.query("stage == 'best'")[["k", "partition"]].to_numpy()} == {
        (1, "maxcut"), (2, "maxcut"), (3, "maxcut"), (3, "random-contiguous"), (3, "random-shuffle")
    }  # fmt: skip
    row = study.fits.iloc[0]
    assert row["kept"] == row["accuracy"] / row["teacher_accuracy"]
    assert study.models.loc["p0_seed0_untrained", "epoch"] == 0
    page = stochastic_depth_findings.page(study)
    for finding in stochastic_depth_findings.FINDINGS:
        assert finding(study).claim in page
    assert "Failed: p0" in page

    assert {line.split(": ")[1] for line in run()[:4]} == {"already recorded"}
    assert read_study("tiny", out).failed == {}
    write_config(config, similarity={"images": 10, "replicates": 5})
    assert not any("already" in line for line in run("--part", "models"))


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [", "cannot read"), ("name: x", "missing or unknown: drop_path"), ("- 1", "missing or unknown")],
)
def test_configs_that_make_no_sense(tmp_path, text, words):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        stochastic_depth.Config.read(path)


def test_both_sizes_of_the_study_can_be_read():
    for name in ("stochastic_depth", "stochastic_depth_cpu"):
        config = stochastic_depth.Config.read(Path(stochastic_depth.__file__).with_name(f"{name}.yaml"))
        FitSettings(**config.raptor["settings"])
        recipe = ClassifierRecipe(**config.training)
        assert config.middle < recipe.epochs


def test_estimates_by_hand():
    assert mean_difference([1.0, 2.0, 3.0]) == pytest.approx(
        (2, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5)
    )
    assert mean_difference([1.0, 2.0, 3.0]).positive is None
    assert mean_difference([2.0, 2.1, 2.2]).positive is True
    assert mean_difference([-2.0, -2.1, -2.2]).positive is False
    assert mean_difference([5.0]) == (5, -np.inf, np.inf)
    rising = rank_correlation(range(10), np.arange(10) ** 3)
    assert rising == pytest.approx((1, 1, 1))
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx((-1, -1, 1))
    assert rank_correlation([1, 1, 1], [3, 2, 1]).positive is None
    mixed = rank_correlation(range(8), [3, 1, 4, 1, 5, 9, 2, 6])
    assert mixed.low < 0 < mixed.value < mixed.high
    left = ranks_without([10, 20, 30, 40], [1, 2, 3, 4])
    np.testing.assert_allclose(left, 0, atol=1e-12)
    assert together([True, None]) is None
    assert together([None, False]) is False
    assert together(iter([True, True])) is True


def test_verdicts_follow_their_rules():
    rng = np.random.default_rng(0)
    fits, models = [], []
    for p in (0.0, 0.2, 0.4, 0.6, 0.8):
        for seed in (0, 1):
            right = 0.5 + 0.4 * p * (p < 0.7) + 1e-3 * seed
            models.append({"name": f"{p}{seed}", "p": p, "seed": seed, "stage": "best", "accuracy": right,
                           "mean_similarity": p + 0.01 * seed, "evenness_3": 1 - p, "z_3": rng.normal(),
                           "cut_3": 0.5, "over_drift_3": 0.0})  # fmt: skip
            for stage, r2 in (("best", 0.5), ("untrained", 0.9), ("last", 0.5)):
                for partition, draw, less in (("maxcut", 0, 0.0), ("random-contiguous", 0, 0.1),
                                              ("random-contiguous", 1, 0.12)):  # fmt: skip
                    value = r2 + 0.1 * p - less + 1e-3 * rng.normal()
                    fits.append({"p": p, "seed": seed, "stage": stage, "k": 3, "partition": partition, "draw": draw,
                                 "accuracy": right * value, "kept": value, "r2": value})  # fmt: skip
    study = Recorded(
        pd.DataFrame(models).set_index("name"),
        pd.DataFrame(fits),
        pd.DataFrame(),
        {},
        {},
        {},
        {"phases": [3]},
        {},
        {},
    )
    found = {make.__name__: make(study) for make in stochastic_depth_findings.FINDINGS}
    verdicts = {name: one.holds for name, one in found.items()}
    assert verdicts == {
        "accuracy_rises": True, "evenness_grows": False, "similarity_grows": True, "fidelity_grows": True,
        "raptor_accuracy_rises": True, "better_than_contiguous": True, "better_than_shuffled": None,
        "more_blocks": None, "structure_predicts": None, "untrained_easier": True, "overfitting_hurts": None,
    }  # fmt: skip
    assert "larger in 10 of 10" in found["better_than_contiguous"].numbers
