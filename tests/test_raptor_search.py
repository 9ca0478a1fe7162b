"""The search behind the fast recipe: its cells, and what they come to, by hand."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from analyses import raptor_search
from analyses.aligned import aligned
from analyses.raptor_search import BASE, CHANGES, SIZES, candidates, read_search, verdict, words
from brdyn.classifiers import packaged
from brdyn.raptor.recipe import FAST, LARGEST_RAISE, PUBLISHED
from tests.conftest import scramble


@pytest.fixture
def study(tmp_path, monkeypatch, capsys, little_cifar):
    def run(*only):
        command = [
            "study",
            "--size",
            "tiny",
            "--train",
            little_cifar["train"],
            "--out",
            tmp_path,
            "--only",
            ",".join(only),
        ]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        raptor_search.main()
        return capsys.readouterr().out

    run.home = tmp_path
    return run


@pytest.mark.parametrize("name", SIZES)
def test_every_change_is_one_and_has_words(name):
    size = SIZES[name]
    changes = candidates(size)
    assert changes[BASE] == {}
    assert CHANGES["stage2-rate-of-stage1"]["stage2"] == LARGEST_RAISE
    assert len({json.dumps(one, sort_keys=True) for one in changes.values()}) == len(changes)
    assert len({words(name, size) for name in changes}) == len(changes)
    assert not set(size.leave_out) & changes.keys()
    assert set(size.leave_out) <= CHANGES.keys()
    for name, change in changes.items():
        assert change.get("rates") != size.rates or len(change) > 1, name  # else it is the base
    assert words("rates-1", size) == "at the usual rates"
    assert words("muon-0.25", size) == "Muon instead of AdamW, at 0.25 times the usual rates"
    assert words(BASE, SIZES["cpu"]).endswith("at 8 times the usual rates")


def test_fits_see_as_many_images_and_images_kept_out_are_others(study):
    changes = ("base", "published-1", "batch-double", "stage1-alone", "relax-4", "mean-aligned", "muon-16")
    cells = [f"{name}_seed0" for name in changes]
    assert [line.split(":")[0] for line in study(*cells).splitlines()] == cells
    assert study("base_seed0") == "base_seed0: already recorded\n"
    study("base_seed1")
    again = json.loads((study.home / packaged.NAME / "tiny" / "base_seed1.json").read_text())
    assert again["asked"]["settings"]["seed"] == 1
    found = {name: json.loads((study.home / packaged.NAME / "tiny" / f"{name}.json").read_text()) for name in cells}
    assert {one["images"] for one in found.values()} == {40}
    settings = {name.split("_")[0]: one["asked"]["settings"] for name, one in found.items()}
    assert (settings["stage1-alone"]["stage1_steps"], settings["stage1-alone"]["stage2_steps"]) == (4, 0)
    assert (settings["batch-double"]["stage1_steps"], settings["batch-double"]["batch_size"]) == (1, 20)
    assert (settings["published-1"]["recipe"], settings["base"]["recipe"]) == (PUBLISHED, FAST)
    assert settings["base"]["lr"] == pytest.approx(8 * 4 * 3e-4)
    assert settings["base"]["stage2_lr"] == pytest.approx(8 * 3e-4)
    assert settings["published-1"]["lr"] == pytest.approx(4 * 3e-4)
    assert settings["mean-aligned"]["start"] == "mean"
    assert found["mean-aligned_seed0"]["asked"]["aligned"] is True
    assert "aligned" not in found["base_seed0"]["asked"]
    assert settings["muon-16"]["optimizer"] == "muon"
    assert settings["muon-16"]["stage2_lr"] == pytest.approx(16 * 3e-4)
    assert "optimizer" not in settings["base"]
    assert found["relax-4_seed0"]["parameters"] > found["base_seed0"]["parameters"]
    learn, kept = (found["base_seed0"]["asked"][name] for name in ("learn", "kept_out"))
    assert (learn["chosen"], kept["chosen"]) == (40, 20)
    assert learn["indices"] != kept["indices"]
    assert read_search("tiny", folder=study.home) is None  # no seed has every change


def recorded(home, r2, kept, head=True):
    """A record of every change at two seeds, where only `rates-2` differs."""
    place = home / packaged.NAME / "tiny"
    place.mkdir(parents=True)
    for name in candidates(SIZES["tiny"]):
        for seed in (0, 1):
            other = name == "rates-2"
            content = {
                "provenance": {"date": "2026-01-01"}, "asked": {"settings": {"seed": seed}}, "candidate": name,
                "images": 40, "cpu_seconds": 2.0 if other else 1.0, "parameters": 0.3, "skill": 0.1, "r2_one_step": 0.9,
                "r2": 0.5 + seed * 0.1 + (r2[seed] if other else 0), "kept": 0.8 + (kept[seed] if other else 0),
            }  # fmt: skip
            if not head:
                content |= {"r2_one_step": content["kept"], "kept": None}
            (place / f"{name}_seed{seed}.json").write_text(json.dumps(content))
    return read_search("tiny", folder=home)


def test_gains_are_paired_and_share_one_variance(tmp_path):
    table = recorded(tmp_path, r2=(0.10, 0.14), kept=(0.05, 0.05)).table
    others = len(table) - 1
    row = table.loc["rates-2"]
    gain = row["r2_gain"]
    # of the two seeds' differences, -.02 and .02 for this change and none for the others, their mean is taken away
    luck = np.array([0.02] + [0.0] * others) - 0.02 / (others + 1)
    variance = 2 * (luck**2).sum() / others
    error = (2 * variance / 2) ** 0.5
    assert gain.value == pytest.approx(0.12)
    assert gain.high - gain.value == pytest.approx(stats.t.ppf(0.975, others) * error)
    assert row["cost"] == 2
    p = 2 * stats.t.sf(0.12 / error, others)
    assert row["r2_p"] == pytest.approx(others * p)  # the smallest, by Holm
    assert {verdict(one) for name, one in table.iterrows() if name not in (BASE, "rates-2")} == {"open"}
    assert verdict(row) == "better"


def test_changes_that_change_nothing_are_rarely_told():
    """Thirty changes of three seeds, of which none does anything: one of them is better or worse in at most a twentieth
    of searches, by one measure. Were the base's luck taken for that of all, it would be in a tenth."""
    rng, names = np.random.default_rng(0), [BASE, *(f"change {number}" for number in range(29))]
    cells = pd.DataFrame([(name, seed) for name in names for seed in range(3)], columns=["candidate", "seed"])
    told = []
    for _ in range(400):
        one = cells.assign(
            r2=rng.standard_normal(90) + cells["seed"], r2_one_step=0.0, kept=None, skill=0.0, parameters=1.0,
            cpu_seconds=1.0,
        )  # fmt: skip
        told.append(raptor_search._table(one, names)["r2_p"].min() <= 0.05)
    assert np.mean(told) < 0.065


@pytest.mark.parametrize(
    ("r2", "kept", "word"),
    [
        (-0.1, -0.1, "worse"),
        (0.1, -0.1, "open"),
        (0.1, 0.0, "open"),
        (0.0, -0.1, "open"),
        (0.1, 0.1, "better"),
    ],
)
def test_a_change_has_to_be_clear_by_both(tmp_path, r2, kept, word):
    gains = {"r2": (r2 - 0.001, r2 + 0.001), "kept": (kept - 0.001, kept + 0.001)}
    assert verdict(recorded(tmp_path / "head", **gains).table.loc["rates-2"]) == word
    without = recorded(tmp_path / "none", **gains, head=False)  # a teacher without a head: one step instead
    assert without.judged == ("r2", "r2_one_step")
    assert verdict(without.table.loc["rates-2"], without.judged) == word
    assert "kept_gain" not in without.table
    assert without.table["kept"].isna().all()


def test_a_change_that_failed_is_told_and_the_others_are_judged(tmp_path):
    recorded(tmp_path, r2=(0.1, 0.1), kept=(0.1, 0.1))
    place = tmp_path / packaged.NAME / "tiny"
    record = json.loads((place / "rates-16_seed1.json").read_text())
    content = {name: record[name] for name in ("provenance", "asked")} | {"failed": "the loss is not finite"}
    (place / "rates-16_seed1.json").write_text(json.dumps(content))
    found = read_search("tiny", folder=tmp_path)
    assert found.failed == {"rates-16": "the loss is not finite"}
    assert "rates-16" not in found.table.index
    assert set(found.fits.seed) == {0, 1}
    assert verdict(found.table.loc["rates-2"]) == "better"


def test_layers_in_the_order_of_another_compute_the_same(tiny):
    """The layers of a block are those of its reference, their heads and hidden units shuffled: they are found back."""
    teacher = tiny
    scramble(teacher)
    heads, width = teacher.info.heads, teacher.info.width
    with torch.no_grad():
        for layer in (1, 2):
            block = teacher.blocks[layer]
            block.load_state_dict(teacher.blocks[0].state_dict())
            torch.manual_seed(layer)
            hidden, head = torch.randperm(block.mlp.fc1.out_features), torch.arange(heads).roll(1)
            rows = torch.arange(width).view(heads, -1)[head].flatten()
            for tensor in (block.mlp.fc1.weight, block.mlp.fc1.bias):
                tensor.copy_(tensor[hidden])
            block.mlp.fc2.weight.copy_(block.mlp.fc2.weight[:, hidden])
            for tensor in (block.attn.qkv.weight, block.attn.qkv.bias):
                tensor.copy_(tensor[torch.cat([part * width + rows for part in range(3)])])
            block.attn.proj.weight.copy_(block.attn.proj.weight[:, rows])
            assert not hidden.equal(hidden.sort().values)
            assert not torch.equal(block.attn.qkv.weight, teacher.blocks[0].attn.qkv.weight)
    ordered = aligned(teacher, [0, 0, 0, 1], [1, 4])
    for layer in (1, 2):
        for name, value in ordered.blocks[layer].state_dict().items():
            assert torch.equal(value, teacher.blocks[0].state_dict()[name]), name
    images = torch.randn(2, 3, *teacher.info.image_size)
    with torch.no_grad():
        torch.testing.assert_close(ordered(images), teacher(images))
    assert torch.equal(ordered.blocks[3].mlp.fc1.weight, teacher.blocks[3].mlp.fc1.weight)
