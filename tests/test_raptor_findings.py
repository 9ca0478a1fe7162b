"""What fits of the Raptor study come to, by hand: seeds, draws, and differences image by image."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from analyses import raptor_on_vits
from analyses.findings import raptor
from analyses.raptor_cells import Cells, answers, right_of, varies
from analyses.recording import ROOT
from brdyn import load_model
from brdyn.probes import Features, read_classes
from brdyn.raptor import FitSettings
from brdyn.raptor.partitions import CONTIGUOUS, MAXCUT, SHUFFLE


def study(*rows, right=None):
    columns = ["name", "k", "partition", "varies", "kept", "r2"]
    summary = pd.DataFrame(rows, columns=columns).set_index("name")
    ends = {
        "kept_low": summary["kept"] - 0.01,
        "kept_high": summary["kept"] + 0.01,
        "kept_knn": summary["kept"],
    }
    summary = summary.assign(**ends, images_seen=100, parameters=0.3, r2_one_step=0.9)
    return Cells(summary, pd.DataFrame(), None, {"probe_test": 4}, {"linear": 0.5}, {}, {}, right or {})


SEEDS = [
    ("maxcut_k3", 3, MAXCUT, "partition", 0.98, 0.6),
    ("maxcut_k3_seed1", 3, MAXCUT, "seed", 0.96, 0.6),
    ("maxcut_k3_seed2", 3, MAXCUT, "seed", 1.00, 0.6),
]
DRAWS = [(f"c{draw}", 3, CONTIGUOUS, "partition", kept, 0.5) for draw, kept in enumerate((0.8, 0.9, 1.0))]


def test_seeds_are_pooled_over_k():
    fits = study(*SEEDS, ("maxcut_k2", 2, MAXCUT, "partition", 0.9, 0), ("s", 2, MAXCUT, "seed", 0.94, 0))
    variance, df = raptor.between_seeds(fits)
    assert df == 3
    assert variance == pytest.approx((2 * 0.02**2 + (0.04**2) / 2) / 3)
    assert np.isnan(raptor.between_seeds(study(SEEDS[0]))[0])


def test_a_partition_against_another_by_welch():
    found = raptor.better_than_contiguous(study(*SEEDS, *DRAWS))
    theirs = stats.ttest_ind([0.98, 0.96, 1.0], [0.8, 0.9, 1.0], equal_var=False).confidence_interval(0.95)
    assert found["kept"].value == pytest.approx(0.08)
    assert (found["kept"].low, found["kept"].high) == pytest.approx((theirs.low, theirs.high))
    assert found["ks"] == [3]


def test_one_fit_of_a_k_has_the_spread_of_others():
    alone = study(*SEEDS, *DRAWS[:0], *[(n, 2, p, v, kept, r2) for n, _, p, v, kept, r2 in DRAWS], (
        "maxcut_k2", 2, MAXCUT, "partition", 0.9, 0.6,
    ))  # fmt: skip
    found = raptor.better_than_contiguous(alone)["kept"]
    assert found.value == pytest.approx(0.0)
    error = (0.02**2 + 0.1**2 / 3) ** 0.5
    df = error**4 / (0.02**4 / 2 + (0.1**2 / 3) ** 2 / 2)
    assert found.high == pytest.approx(stats.t.ppf(0.975, df) * error)


def test_seeds_count_once_over_several_k():
    """One variance between seeds serves them all, with its own degrees of freedom."""
    two = [(f"two {name}", 2, p, v, kept, r2) for name, _, p, v, kept, r2 in [SEEDS[0], *DRAWS]]
    found = raptor.better_than_contiguous(study(*SEEDS, *DRAWS, *two))["kept"]
    of_seeds, of_draws = 0.02**2 * (1 + 1 / 3) / 4, 0.1**2 / 3 / 4
    variance = of_seeds + 2 * of_draws
    df = variance**2 / (of_seeds**2 / 2 + 2 * of_draws**2 / 2)
    assert found.value == pytest.approx(0.08)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, df) * variance**0.5)


@pytest.mark.parametrize(
    "rows", [SEEDS, [*SEEDS, *DRAWS[:2]], [*SEEDS, ("c", 2, CONTIGUOUS, "partition", 1, 1)]]
)
def test_too_few_draws_tell_nothing(rows):
    assert raptor.better_than_contiguous(study(*rows)) is None
    assert raptor.better_than_shuffled(study(*rows)) is None


def test_shuffled_layers_are_compared_with_contiguous_ones():
    shuffled = [(f"s{draw}", 3, SHUFFLE, "partition", kept, 0.4) for draw, kept in enumerate((0.7, 0.8, 0.6))]
    assert raptor.better_than_shuffled(study(*DRAWS, *shuffled))["kept"].value == pytest.approx(0.2)


def test_gains_are_image_by_image_where_they_can_be():
    rng = np.random.default_rng(0)
    below = (rng.random(1000) < 0.5).astype(float)
    above = np.where(rng.random(1000) < 0.05, 1.0, below)  # right wherever the other is
    rows = [("a", 3, MAXCUT, "recipe", 0.99, 0), ("b", 3, MAXCUT, "recipe", 0.95, 0), *SEEDS]
    paired = raptor.gained(study(*rows, right={"linear": {"a": above, "b": below}}), ["a"], ["b"])
    error = (above - below).std(ddof=1) / 1000**0.5 / 0.5
    seeds = (2 * 0.02**2) ** 0.5
    df = (error**2 + seeds**2) ** 2 / (seeds**4 / 2)
    assert paired.value == pytest.approx(0.04)
    assert paired.high - paired.value == pytest.approx(stats.t.ppf(0.975, df) * np.hypot(error, seeds))
    unpaired = raptor.gained(study(*rows), ["a"], ["b"])
    assert unpaired.high - unpaired.value == pytest.approx(0.01 * 2**0.5)


def test_fast_fits_are_apart_from_the_recipe():
    fast = [(f"fast_k3_{seed}", 3, MAXCUT, "fast", 0.9 + seed / 10, 0.7) for seed in range(3)]
    fits = study(*SEEDS, *fast)
    assert set(raptor.of_the_recipe(fits).index) == {row[0] for row in SEEDS}
    found = raptor.fast_start(fits)
    assert found["kept"].value == pytest.approx(1.0 - 0.98)
    assert raptor.fast_start(study(*SEEDS, *fast[:2])) is None


def test_lengths_are_of_max_cut_fits_alone():
    found = raptor.lengths(study(*SEEDS, *DRAWS, ("ladder_x", 3, MAXCUT, "recipe", 0.1, 0)))
    assert found == [
        {"images_seen": 100, "fits": 3, "kept": pytest.approx(0.98), "r2": 0.6, "r2_one_step": 0.9}
    ]


def test_answers_come_back_as_they_were():
    values = Features(torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3)
    reading = read_classes(values, values[:11], seeds=2)
    kept = answers(reading)
    for kind, hits in reading.hits.items():
        assert np.array_equal(right_of(kept, kind), hits.numpy())


def test_the_second_teacher_is_the_network_that_is_kept():
    home = ROOT / "analyses" / "networks" / raptor.OTHER_TEACHER
    kept = load_model(str(home)).info.digest
    cells = sorted((raptor.RAPTOR / raptor.OTHER_TEACHER / "gpu").glob("*_k*.json"))
    assert cells
    assert {json.loads(cell.read_text())["asked"]["fit"]["teacher"] for cell in cells} == {kept}


def headed(**kept):
    """Fits of k = 3 by what the teacher's own head keeps of each; all fits of one name differ by seed."""
    varies = {
        name: "recipe" if "ladder" in name else "seed" if "_seed" in name else "partition" for name in kept
    }
    rows = [(name, 3, MAXCUT, varies[name], value, 0.6) for name, value in kept.items()]
    rng, images = np.random.default_rng(0), 1000
    right = {name: (rng.random(images) < value / 2).astype(float) for name, value in kept.items()}
    cells = study(*rows, right={"head": right})
    head = cells.summary["kept"]
    return cells._replace(
        summary=cells.summary.assign(kept_head=head, kept_head_low=head - 0.02, kept_head_high=head + 0.02),
        teacher={"linear": 0.5, "head": 0.5},
        size={"ladder_seeds": 1, "draws": {"3": 3}},
    )


def test_fits_of_a_name_are_those_of_all_its_seeds():
    fits = headed(maxcut_k3=0.9, maxcut_k3_seed1=0.8, maxcut_k3_longer=0.9, maxcut_k30=0.9)
    assert raptor.fits_of(fits, "maxcut_k3") == ["maxcut_k3", "maxcut_k3_seed1"]


def test_three_blocks_by_the_own_head_have_the_errors_of_images_and_of_seeds():
    found = raptor.head_kept(headed(maxcut_k3=0.90, maxcut_k3_seed1=0.92, maxcut_k3_seed2=0.94))
    image, seed = 0.02 / stats.norm.ppf(0.975), 0.02 / 3**0.5
    df = (image**2 + seed**2) ** 2 / (seed**4 / 2)
    assert found["fits"] == 3
    assert found["kept"].value == pytest.approx(0.92)
    assert found["kept"].high - 0.92 == pytest.approx(stats.t.ppf(0.975, df) * np.hypot(image, seed))


def test_fits_by_muon_have_the_spread_of_their_own_seeds():
    """And are no fits of the recipe, nor of the fast one, whose spread is another."""
    cells = headed(maxcut_k3=0.90, maxcut_k3_seed1=0.99, maxcut_k3_muon16=0.95, maxcut_k3_muon16_seed1=0.97)
    found = raptor.muon_kept(cells)
    image, seed = 0.02 / stats.norm.ppf(0.975), 0.01
    df = (image**2 + seed**2) ** 2 / seed**4
    assert found["fits"] == 2
    assert found["kept"].value == pytest.approx(0.96)
    assert found["kept"].high - 0.96 == pytest.approx(stats.t.ppf(0.975, df) * np.hypot(image, seed))
    assert raptor.head_kept(cells)["fits"] == 2
    alone = raptor.muon_kept(headed(maxcut_k3_muon16=0.95))["kept"]
    assert not alone.low > 0
    assert raptor.muon_kept(headed(maxcut_k3=0.9)) is None
    by_muon = [cell for cell in raptor_on_vits.cells(raptor_on_vits.SIZES["long"]) if "muon" in cell.name]
    assert [cell.name for cell in by_muon] == raptor.fits_of(
        study(*((cell.name, 3, MAXCUT, "", 1, 1) for cell in by_muon)), raptor.MUON
    )
    assert {varies(set(cell.changes)) for cell in by_muon} == {"recipe"}
    assert [cell.changes.get("seed", 0) for cell in by_muon] == [0, 1, 2]
    first, *_ = by_muon
    settings = FitSettings(stage1_steps=900, stage2_steps=900, **first.changes)
    assert (settings.recipe, settings.optimizer) == ("fast", "muon")
    assert settings.training(1).lr == pytest.approx(16 * 4 * 3e-4)
    assert settings.training(2).lr == pytest.approx(16 * 3e-4)


@pytest.mark.parametrize(
    ("changed", "word"),
    [(set(), "partition"), ({"seed"}, "seed"), ({"recipe", "seed"}, "fast"), ({"recipe", "lr"}, "recipe")],
)
def test_what_a_fit_differs_in(changed, word):
    assert varies(changed) == word


def test_forcing_by_the_own_head_is_against_half_of_what_annealing_keeps():
    whole = {f"maxcut_k3{seed}": 0.9 + 0.01 * i for i, seed in enumerate(("", "_seed1", "_seed2"))}
    rungs = {"ladder_teacher-forcing": 0.3, "ladder_annealed": 0.7, "ladder_annealed_seed1": 0.9}
    cells = headed(**whole, **rungs)
    found = raptor.head_forcing(cells)
    right = cells.right["head"]
    one = (
        0.25 * right["ladder_annealed"]
        + 0.25 * right["ladder_annealed_seed1"]
        - right["ladder_teacher-forcing"]
    )
    image, seed = one.std(ddof=1) / 1000**0.5 / 0.5, 0.01 * (0.25**2 + 0.25**2 + 1) ** 0.5
    df = (image**2 + seed**2) ** 2 / (seed**4 / 2)
    assert (found["alone"], found["other"]) == (0.3, pytest.approx(0.8))
    assert found["excess"].value == pytest.approx(0.4 - 0.3)
    assert found["excess"].high - 0.1 == pytest.approx(stats.t.ppf(0.975, df) * np.hypot(image, seed))


def test_rungs_by_the_own_head_are_means_over_seeds():
    whole = {f"maxcut_k3{seed}": 0.9 + 0.01 * i for i, seed in enumerate(("", "_seed1", "_seed2"))}
    rungs = {name: 0.5 + 0.1 * i for i, name in enumerate((*raptor.LADDER, raptor.STAGE_1_ALONE))}
    found = raptor.head_rungs(headed(**whole, **rungs, **{f"{raptor.LADDER[1]}_seed1": 0.8}))["gained"]
    assert [one.value for one in found.values()] == pytest.approx([0.7 - 0.5, 0.7 - 0.7, 0.1, 0.91 - 0.9])


def test_rungs_wait_for_all_seeds_that_were_planned():
    whole = {f"maxcut_k3{seed}": 0.9 for seed in ("", "_seed1")}
    rungs = {
        f"{name}{seed}": 0.5 for name in (*raptor.LADDER, raptor.STAGE_1_ALONE) for seed in ("", "_seed1")
    }
    cells = headed(**whole, **rungs)._replace(size={"ladder_seeds": 2})
    assert raptor.head_rungs(cells) is not None
    assert raptor.head_forcing(cells) is not None
    less = cells._replace(summary=cells.summary.drop(f"{raptor.ANNEALED}_seed1"))
    assert raptor.head_rungs(less) is None
    assert raptor.head_forcing(less) is None


def test_partitions_by_the_own_head():
    cells = headed(**{name: kept for name, _, _, _, kept, _ in SEEDS}, c0=0.8, c1=0.9, c2=1.0)
    cells.summary.loc[["c0", "c1", "c2"], "partition"] = CONTIGUOUS
    found = raptor.head_over_contiguous(cells)
    assert found["kept_head"].value == pytest.approx(0.08)
    assert "kept" not in found
    assert raptor.head_over_contiguous(cells._replace(size={"draws": {"3": 4}})) is None  # one is to come


def test_a_raptor_of_photographs_is_told_layer_by_layer(tmp_path):
    assert raptor.photographs(tmp_path) is None
    found = raptor.photographs()
    if found is None:
        pytest.skip("it is not recorded")
    rows = found.by_layer
    assert [row["layer"] for row in rows] == list(range(1, 13))
    fidelity = found.evaluation.fidelity
    assert rows[-1]["r2"] == fidelity.curve("r2").iloc[-1]
    assert rows[5]["one_step"] == fidelity.curve("r2", mode="one-step").loc[6]
    assert rows[-1]["skill"] == pytest.approx(
        min(fidelity.curve(f"skill_{name}").iloc[-1] for name in ("identity", "mean_update", "affine"))
    )
