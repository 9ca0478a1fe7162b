"""The study of shared blocks: sizes that match, a dry run that goes on and is read back, verdicts by hand."""

import json
import shutil
import sys
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analyses import claims, shared_blocks
from analyses.shared_blocks import (
    COLUMNS,
    SHORT,
    SIZES,
    WIDE,
    Shared,
    read_shared,
    run_of,
)


def cost(layers, *, width, hidden, patch, depth, **_):
    """Parameters of so many blocks, and multiplications of all layers, written out: ten classes, 32 pixels."""
    patches, pixels = (32 // patch) ** 2, 3 * patch**2
    tokens, products = patches + 1, 4 * width**2 + 2 * width * hidden
    parameters = layers * (products + 9 * width + hidden) + width * (pixels + 1 + tokens + 1 + 2 + 10) + 10
    return parameters, depth * tokens * (products + 2 * tokens * width) + patches * pixels * width + 10 * width


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_one_wide_block_has_the_parameters_of_a_block_a_layer(size):
    """Heads and MLP as of the narrow ones; no other number of heads comes nearer. Counted on the networks, too."""
    narrow, wide, short = (run_of(size, kind, 1) for kind in (shared_blocks.plain(size), WIDE, SHORT))
    head, units = (size.built["width"] / size.built["heads"], size.built["hidden"] / size.built["width"])
    assert (wide.built["width"] / wide.built["heads"], wide.built["hidden"] / wide.built["width"]) == (
        head,
        units,
    )
    wanted, operations = cost(size.built["depth"], **size.built)

    def apart(heads):
        width = int(heads * head)
        return abs(cost(1, **{**size.built, "width": width, "hidden": int(units * width)})[0] - wanted)

    assert min(range(1, 40), key=apart) == wide.built["heads"]
    assert short.built == wide.built
    assert short.recipe.epochs * cost(1, **wide.built)[1] == pytest.approx(narrow.recipe.epochs * operations, rel=0.01)
    assert (narrow.recipe.seed, wide.recipe) == (1, narrow.recipe)


def test_cells_begin_with_what_tells_most():
    """Whether three blocks from the start do what a Raptor's three do is known of one seed after four cells."""
    planned = list(map(str, shared_blocks.STUDY.planned("cpu")))
    assert planned[:4] == ["k12_seed0", "k1_seed0", "k3_seed0", "raptor3_seed0"]
    assert len(planned) == len(set(planned)) == 3 * (5 + 1 + 2)
    assert {name.split("_")[0] for name in planned[-6:]} == {WIDE, SHORT}


def test_the_study_goes_on_and_is_read_back(tmp_path, monkeypatch, capsys, little_cifar):
    def run(*options):
        files = ["--train", little_cifar["train"], "--test", little_cifar["test"], "--out", tmp_path]
        monkeypatch.setattr(sys, "argv", ["study", "--size", "tiny", *map(str, [*files, *options])])
        shared_blocks.main()
        return capsys.readouterr().out.splitlines()

    chosen = ["k6_seed0", "k1_seed0", "raptor3_seed0", "wide_seed0"]
    chosen_alone = ["--only", ",".join(chosen)]
    assert run("--minutes", 0) == ["out of time; run it again to go on"]
    assert run("--only", "raptor3_seed0") == ["raptor3_seed0: its network, k6_seed0, is not recorded; run that first"]
    assert [line.split(":")[0] for line in run(*chosen_alone)] == chosen
    found = read_shared("tiny", tmp_path)
    assert (list(found.cells.index), found.failed) == (
        ["k6_seed0", "k1_seed0", "raptor3_seed0", "wide_seed0"],
        {},
    )
    for name, row in found.cells.iterrows():
        assert found.right[name].mean() == row["accuracy"]
        assert len(found.right[name]) == 40
    built = SIZES["tiny"].built
    for name, layers, sizes in (
        ("k6_seed0", 6, {}),
        ("k1_seed0", 1, {}),
        ("wide_seed0", 1, SIZES["tiny"].wide),
    ):
        parameters, multiplications = cost(layers, **{**built, **sizes})
        assert tuple(found.cells.loc[name, ["parameters", "flops"]]) == (parameters, 2 * multiplications)
    assert found.cells.loc["raptor3_seed0", "teacher"] == found.cells.loc["k6_seed0", "accuracy"]
    assert set(found.motion.index) == set(found.phases) == set(chosen) - {"raptor3_seed0"}
    assert all(phases.layers == 6 for phases in found.phases.values())
    assert found.heading("accuracy", 40) == "vit-tiny12, width 8, patch 16: accuracy\n40 images of 32 × 32 pixels"
    record = json.loads((tmp_path / "tiny" / "raptor3_seed0.json").read_text())
    assert len(set(record["asked"]["assignment"])) == 3
    shutil.rmtree(tmp_path / "tiny" / "runs" / "k6_seed0")
    assert all("already recorded" in line for line in run(*chosen_alone))
    (tmp_path / "tiny" / "raptor3_seed0.json").unlink()  # a Raptor whose network is gone
    assert "k6_seed0, are not here; run that too" in run("--only", "raptor3_seed0")[0]
    again = dict(line.split(": ") for line in run(*chosen_alone))
    assert [name for name, how in again.items() if how != "already recorded"] == ["k6_seed0", "raptor3_seed0"]
    assert json.loads((tmp_path / "tiny" / "raptor3_seed0.json").read_text())["asked"] == record["asked"]
    assert read_shared(folder=tmp_path / "nothing") is None


def study(**right):
    """A record of networks of which so many of 100 test images are named right, the first ones, by kind and seed."""
    rows, hits = [], {}
    for kind, counts in right.items():
        for seed, count in enumerate(counts):
            name = f"{kind}_seed{seed}"
            hits[name] = np.arange(100) < count
            rows.append({"cell": name, "kind": kind, "seed": seed, "accuracy": count / 100, "r2": 0.5, "skill": 0.1})
    table = pd.DataFrame(rows, columns=["cell", *COLUMNS]).set_index("cell")
    return Shared(table, hits, pd.DataFrame(), {}, SIZES["cpu"], "cpu", {}, {})


def judged(name, found):
    return claims.of(f"shared.{name}").judge(Namespace(shared=found))


def test_without_a_record_nothing_is_tested():
    for name in ("one_block", "one_wide_block", "from_the_start"):
        for found in (None, study(k12=[60, 60])):
            assert (judged(name, found).verdict, judged(name, found).said) == (
                "not tested",
                "not recorded yet",
            )


def test_a_lead_by_hand():
    """Of 100 images 50 are named right by all networks of one kind and none of the other: .5, and a standard error of
    (25 / 99 / 100)^.5, 5.03 points; 1.96 of them are 9.8. Seeds add theirs by Welch."""
    alike = judged("one_block", study(k12=[70, 70, 70], k1=[20, 20, 20]))
    assert alike.holds is True
    assert alike.said == "70.0% against 20.0%: +50.0 [+40.2, +59.8] points (3 seeds each)"
    found = claims.MEASURES["shared"].one_block(study(k12=[60, 70, 80], k1=[20, 20, 20]))["lead"]
    shares = np.array([0.0] * 20 + [1.0] * 40 + [2 / 3] * 10 + [1 / 3] * 10 + [0.0] * 20)
    by_image, by_seed = shares.var(ddof=1) / 100, 0.1**2 / 3
    df = (by_image + by_seed) ** 2 / (by_seed**2 / 2)
    half = 100 * stats.t.ppf(0.975, df) * (by_image + by_seed) ** 0.5
    assert [found.value, found.low, found.high] == pytest.approx([50, 50 - half, 50 + half])


@pytest.mark.parametrize(
    ("name", "right", "holds"),
    [
        ("one_block", {"k12": [70] * 3, "k1": [70] * 3}, False),
        ("one_block", {"k12": [70] * 3, "k1": [67] * 3}, None),
        ("one_block", {"k12": [70], "k1": [20]}, None),
        ("one_wide_block", {"k12": [70] * 3, "wide": [70] * 3}, True),
        ("one_wide_block", {"k12": [70] * 3, "wide": [68] * 3}, None),
        ("one_wide_block", {"k12": [70] * 3, "wide": [40] * 3}, False),
        ("from_the_start", {"k12": [70] * 3, "k3": [60] * 3, "raptor3": [50] * 3}, True),
        ("from_the_start", {"k12": [70] * 3, "k3": [50] * 3, "raptor3": [60] * 3}, False),
        ("from_the_start", {"k12": [70] * 3, "k3": [50, 60, 70], "raptor3": [60] * 3}, None),
        ("from_the_start", {"k12": [70], "k3": [60], "raptor3": [50]}, None),
    ],
)
def test_verdicts(name, right, holds):
    """One seed tells nothing; two networks that name the same images right are as good."""
    assert judged(name, study(**right)).holds is holds


def test_what_is_kept_is_paired_by_seed():
    """Shares of networks that differ: 45 of 60 and 60 of 80 are three quarters, 30 and 40 half; seeds agree, so that
    the interval is of images alone, of which 15 and 20 tell them apart."""
    found = judged("from_the_start", study(k12=[60, 80], k3=[45, 60], raptor3=[30, 40]))
    image = np.arange(100)
    first, second = ((image >= low) & (image < high) for low, high in ((30, 45), (40, 60)))
    half = 100 * 1.959964 * ((first / 0.6 + second / 0.8) / 2).std(ddof=1) / 10
    assert found.said == (
        f"75.0% kept against 50.0%: +25.0 [{25 - half:+.1f}, {25 + half:+.1f}] points (2 seeds; the Raptors' R² 0.50, "
        "skill +0.10)"
    )
