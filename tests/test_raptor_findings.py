"""What fits of the Raptor study come to, by hand: seeds, draws, and differences image by image."""

from __future__ import annotations

import json
import re

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


IMAGE = 0.01 / stats.norm.ppf(0.975)  # the standard error over images that a fit's interval says
SEEDS = [
    ("maxcut_k3", 3, MAXCUT, "partition", 0.98, 0.6),
    ("maxcut_k3_seed1", 3, MAXCUT, "seed", 0.96, 0.58),
    ("maxcut_k3_seed2", 3, MAXCUT, "seed", 1.00, 0.62),
]
DRAWS = [(f"c{draw}", 3, CONTIGUOUS, "partition", kept, kept - 0.4) for draw, kept in enumerate((0.8, 0.9, 1.0))]


def half_width(*errors):
    """Of a 95 % interval by Welch: of variances and their degrees of freedom."""
    variance = sum(one for one, _ in errors)
    df = variance**2 / sum(one**2 / df for one, df in errors)
    return stats.t.ppf(0.975, df) * variance**0.5


def test_seeds_are_pooled_over_k():
    fits = study(*SEEDS, ("maxcut_k2", 2, MAXCUT, "partition", 0.9, 0), ("s", 2, MAXCUT, "seed", 0.94, 0))
    variance, df = raptor.between_seeds(fits)
    assert df == 3
    assert variance == pytest.approx((2 * 0.02**2 + (0.04**2) / 2) / 3)
    assert np.isnan(raptor.between_seeds(study(SEEDS[0]))[0])


def test_a_partition_against_another_by_welch():
    """R², of which no error over images is known, is scipy's; what is kept has theirs besides, of both partitions."""
    found = raptor.better_than_contiguous(study(*SEEDS, *DRAWS))
    theirs = stats.ttest_ind([0.6, 0.58, 0.62], [0.4, 0.5, 0.6], equal_var=False).confidence_interval(0.95)
    assert (found["r2"].low, found["r2"].high) == pytest.approx((theirs.low, theirs.high))
    kept = found["kept"]
    assert kept.value == pytest.approx(0.08)
    assert kept.high - 0.08 == pytest.approx(half_width((2 * IMAGE**2, np.inf), (0.02**2 / 3, 2), (0.1**2 / 3, 2)))
    assert found["ks"] == [3]


def test_partitions_are_judged_on_the_same_images():
    """All fits of one name the same half of 100 images right, those of the other half of these: 50 less 25 of 100, of a
    teacher that gets 50."""
    image = np.arange(100)
    right = {name: (image < 50).astype(float) for name, *_ in SEEDS}
    right |= {name: (image < 25).astype(float) for name, *_ in DRAWS}
    found = raptor.better_than_contiguous(study(*SEEDS, *DRAWS, right={"linear": right}))["kept"]
    by_image = ((image >= 25) & (image < 50)) / 0.5
    assert found.value == pytest.approx(0.5)
    seeds = (0.0, 2)  # all fits of a partition name as many right
    assert raptor.between_seeds(study(*SEEDS))[1] == 2
    assert found.high - 0.5 == pytest.approx(half_width((by_image.var(ddof=1) / 100, np.inf), (0.02**2 / 3, 2), seeds))


def test_one_fit_of_a_k_has_the_spread_of_others():
    alone = study(*SEEDS, *DRAWS[:0], *[(n, 2, p, v, kept, r2) for n, _, p, v, kept, r2 in DRAWS], (
        "maxcut_k2", 2, MAXCUT, "partition", 0.9, 0.6,
    ))  # fmt: skip
    found = raptor.better_than_contiguous(alone)["r2"]
    assert found.value == pytest.approx(0.1)
    assert found.high - 0.1 == pytest.approx(half_width((0.02**2, 2), (0.1**2 / 3, 2)))


def test_seeds_count_once_over_several_k():
    """One variance between seeds serves them all, with its own degrees of freedom."""
    two = [(f"two {name}", 2, p, v, kept, r2) for name, _, p, v, kept, r2 in [SEEDS[0], *DRAWS]]
    found = raptor.better_than_contiguous(study(*SEEDS, *DRAWS, *two))["r2"]
    of_draws = (0.1**2 / 3 / 4, 2)
    assert found.value == pytest.approx(0.1)
    assert found.high - found.value == pytest.approx(half_width((0.02**2 * (1 + 1 / 3) / 4, 2), of_draws, of_draws))


def test_other_k_count_once_all_that_were_planned_have_their_draws():
    two, four = ([(f"{k} {name}", k, p, v, kept, r2) for name, _, p, v, kept, r2 in [SEEDS[0], *DRAWS]] for k in (2, 4))
    size = {"draws": {"3": 3, "2": 3, "4": 3}}
    partly, all_of_them = (study(*SEEDS, *DRAWS, *more)._replace(size=size) for more in (two, [*two, *four]))
    assert raptor.better_than_contiguous(partly)["ks"] == [3]
    assert raptor.better_than_contiguous(all_of_them)["ks"] == [2, 3, 4]


@pytest.mark.parametrize("rows", [SEEDS, [*SEEDS, *DRAWS[:2]], [*SEEDS, ("c", 2, CONTIGUOUS, "partition", 1, 1)]])
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
    paired = raptor.gained(study(*rows, right={"linear": {"a": above, "b": below}}), "a", "b")
    image, seeds = (above - below).var(ddof=1) / 1000 / 0.5**2, (2 * 0.02**2, 2)
    assert paired.value == pytest.approx((above - below).mean() / 0.5)
    assert paired.high - paired.value == pytest.approx(half_width((image, np.inf), seeds))
    unpaired = raptor.gained(study(*rows), "a", "b")
    assert unpaired.value == pytest.approx(0.04)
    assert unpaired.high - 0.04 == pytest.approx(half_width((2 * IMAGE**2, np.inf), seeds))


def test_a_fit_against_another_has_the_luck_of_a_fit():
    """Means of all fits of a name: the longer one, of which there is one, has the spread of the seeds of the other."""
    found = raptor.longer(study(*SEEDS, ("maxcut_k3_longer", 3, MAXCUT, "recipe", 1.08, 0.7)))
    assert found["kept"].value == pytest.approx(0.1)
    assert found["kept"].high - 0.1 == pytest.approx(half_width((2 * IMAGE**2, np.inf), (0.02**2 * (1 + 1 / 3), 2)))
    alone = raptor.longer(study(SEEDS[0], ("maxcut_k3_longer", 3, MAXCUT, "recipe", 1.08, 0.7)))["kept"]
    assert alone.against(0) is None


def test_fast_fits_are_apart_from_the_recipe():
    fast = [
        (f"fast_k3{again}", 3, MAXCUT, "fast", 0.9 + seed / 10, 0.7)
        for seed, again in enumerate(("", "_seed1", "_seed2"))
    ]
    fits = study(*SEEDS, *fast)
    assert set(raptor.of_the_recipe(fits).index) == {row[0] for row in SEEDS}
    found = raptor.fast_start(fits)
    assert found["kept"].value == pytest.approx(1.0 - 0.98)
    assert found["kept"].high - 0.02 == pytest.approx(
        half_width((2 * IMAGE**2, np.inf), (0.02**2 / 3, 2), (0.1**2 / 3, 2))
    )
    assert raptor.fast_start(study(*SEEDS, *fast[:2])) is None


def test_lengths_are_of_max_cut_fits_alone():
    found = raptor.lengths(study(*SEEDS, *DRAWS, ("ladder_x", 3, MAXCUT, "recipe", 0.1, 0)))
    assert found == [
        {
            "images_seen": 100,
            "fits": 3,
            "kept": pytest.approx(0.98),
            "r2": pytest.approx(0.6),
            "r2_one_step": 0.9,
        }
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
        name: "recipe" if re.search("ladder|muon", name) else "seed" if "_seed" in name else "partition"
        for name in kept
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
    annealed = (right["ladder_annealed"] + right["ladder_annealed_seed1"]) / 2
    other = [right[name].mean() / 0.5 for name in ("ladder_annealed", "ladder_annealed_seed1")]
    one = (0.5 * annealed - right["ladder_teacher-forcing"]) / 0.5
    seeds = [right[f"maxcut_k3{seed}"].mean() / 0.5 for seed in ("", "_seed1", "_seed2")]
    assert (found["alone"], found["other"]) == (0.3, pytest.approx(0.8))
    assert found["excess"].value == pytest.approx(one.mean())
    pooled = raptor.between_seeds(cells, "kept_head")
    assert pooled == (pytest.approx(0.01**2), 2)
    assert seeds != other
    own = 0.5**2 * np.var(other, ddof=1) / 2, 1
    assert found["excess"].high - one.mean() == pytest.approx(half_width((one.var(ddof=1) / 1000, np.inf), own, pooled))


def test_rungs_by_the_own_head_are_means_over_seeds():
    whole = {f"maxcut_k3{seed}": 0.9 + 0.01 * i for i, seed in enumerate(("", "_seed1", "_seed2"))}
    rungs = {name: 0.5 + 0.1 * i for i, name in enumerate((*raptor.LADDER, raptor.STAGE_1_ALONE))}
    cells = headed(**whole, **rungs, **{f"{raptor.LADDER[1]}_seed1": 0.8})
    found = raptor.head_rungs(cells._replace(right={}))["gained"]
    assert [one.value for one in found.values()] == pytest.approx([0.7 - 0.5, 0.7 - 0.7, 0.1, 0.91 - 0.9])


def test_rungs_wait_for_all_seeds_that_were_planned():
    whole = {f"maxcut_k3{seed}": 0.9 for seed in ("", "_seed1")}
    rungs = {f"{name}{seed}": 0.5 for name in (*raptor.LADDER, raptor.STAGE_1_ALONE) for seed in ("", "_seed1")}
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
    right = {name: hits.mean() / 0.5 for name, hits in cells.right["head"].items()}
    means = [np.mean([right[name] for name, *_ in rows]) for rows in (SEEDS, DRAWS)]
    assert found["kept_head"].value == pytest.approx(means[0] - means[1])
    assert "kept" not in found
    assert raptor.head_over_contiguous(cells._replace(size={"draws": {"3": 4}})) is None  # one is to come


def test_a_raptor_of_photographs_is_told_layer_by_layer():
    found = raptor.photographs()
    rows = found.by_layer
    assert [row["layer"] for row in rows] == list(range(1, 13))
    fidelity = found.evaluation.fidelity
    assert rows[-1]["r2"] == fidelity.curve("r2").iloc[-1]
    assert rows[5]["one_step"] == fidelity.curve("r2", mode="one-step").loc[6]
    assert rows[-1]["skill"] == pytest.approx(
        min(fidelity.curve(f"skill_{name}").iloc[-1] for name in ("identity", "mean_update", "affine"))
    )


def test_a_heading_names_the_teacher_as_its_records_are_named():
    assert raptor.other().heading().startswith(f"Raptors of {raptor.OTHER_TEACHER}, ")
