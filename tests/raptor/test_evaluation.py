"""Fidelity against direct computations, cost against counting, and results that come back."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from scipy import stats
from torch.nn import functional

from brdyn import compare
from brdyn.data import Batch, load_images
from brdyn.errors import UsageError
from brdyn.measures.linear_maps import ROUNDING, ridge_maps
from brdyn.measures.moments import r_squared
from brdyn.plots import draw
from brdyn.random_keys import one_in
from brdyn.raptor import evaluation
from brdyn.raptor.baselines import BASELINES, RIDGES, SpanBaselines, fold_of, jackknife
from brdyn.raptor.block import BlockConfig
from brdyn.raptor.copied import CopyConfig
from brdyn.raptor.cost import cost, flops
from brdyn.raptor.evaluation import Evaluation, evaluate, paired_features
from brdyn.raptor.fidelity import Fidelity, FidelityMetric, fidelity
from brdyn.raptor.model import Raptor, untrained
from brdyn.trajectory import Stream, capture
from tests.conftest import scramble, tiny_vit
from tests.interventions.stub import StubViT


def raptor_of(teacher, assignment=(0, 0, 1, 1), **options):
    config = BlockConfig(width=teacher.info.width, heads=2, layer_scale=0.3, **options)
    raptor = untrained(teacher, assignment, config, 0)
    scramble(raptor.shared, 4)
    with torch.no_grad():
        for parameter in raptor.shared.parameters():
            parameter.mul_(2)
    return raptor.eval().requires_grad_(False)


@pytest.fixture
def images(noise_folder, tiny):
    return load_images(noise_folder, tiny)


def direct(raptor, images):
    """Both modes, all images at once, in float64."""
    batch = next(iter(images.batches(40, workers=0)))
    theirs = capture(raptor.teacher, batch).states
    own, forced = [theirs[0]], []
    with torch.no_grad():
        for layer, block in enumerate(raptor.blocks):
            own.append(block(own[-1]))
            forced.append(block(theirs[layer]))
    return theirs, {"autoregressive": own[1:], "one-step": forced}


@pytest.mark.parametrize("batch_size", [7, 40])
def test_fidelity_against_a_direct_computation(tiny, images, batch_size):
    raptor = raptor_of(tiny)
    found = fidelity(raptor, images, stream=Stream(batch_size=batch_size, workers=0))
    theirs, guesses = direct(raptor, images)
    groups = {**tiny.tokens.groups, "all": slice(None)}
    for mode, states in guesses.items():
        for group, part in groups.items():
            for layer in range(1, 5):
                truth, guess = theirs[layer][:, part].double(), states[layer - 1][:, part].double()
                error = (guess - truth).flatten(1).norm(dim=1)
                mean = truth.flatten(0, 1).mean(0)
                expected = {
                    "r2": 1 - error.square().sum() / (truth - mean).square().sum(),
                    "relative_error": (error / truth.flatten(1).norm(dim=1)).mean(),
                    "epsilon": error.mean(),
                    "cosine": functional.cosine_similarity(guess, truth, dim=-1).mean(),
                }
                for statistic, value in expected.items():
                    measured = found.curve(statistic, group, mode).loc[layer]
                    assert measured == pytest.approx(value.item(), rel=1e-4, abs=1e-5), (
                        mode,
                        statistic,
                        group,
                    )
    rows = found.table.query("statistic == 'epsilon'")
    assert (rows["low"] < rows["mean"]).all()
    assert (rows["n_images"] == 40).all()


def test_the_teacher_itself_is_perfect(tiny, images):
    """Blocks of the teacher in the place of shared ones: no error anywhere."""
    raptor = raptor_of(tiny, (0, 1, 2, 3))
    for application, block in zip(raptor.blocks, tiny.blocks, strict=True):
        application.forward = block.forward
    table = fidelity(raptor, images, stream=Stream(workers=0)).table
    assert table.query("statistic == 'r2'")["mean"].to_numpy() == pytest.approx(1, abs=1e-6)
    assert table.query("statistic == 'cosine'")["mean"].to_numpy() == pytest.approx(1, abs=1e-5)
    assert table.query("statistic == 'epsilon'")["mean"].abs().max() < 1e-4


@pytest.mark.parametrize("spread", [0.0, 1e-2, 10.0])
def test_tokens_that_do_not_vary_have_no_r_squared(spread):
    """Their distance to the mean is what rounding leaves of float32, above or below 0."""
    generator = torch.Generator().manual_seed(0)
    tokens = 1000 * torch.rand(7, generator=generator) + spread * torch.randn(50, 7, generator=generator)
    residual = torch.tensor(2.0, dtype=torch.float64)
    squares, sums = tokens.square().sum(-1).double().sum(), tokens.double().sum(0)
    found = r_squared(residual, squares, sums, torch.tensor(50.0, dtype=torch.float64))
    exact = 1 - residual / (tokens.double() - tokens.double().mean(0)).square().sum()
    assert found.isnan() if spread < 1 else found == pytest.approx(exact.item(), rel=1e-6)


def test_the_answer_leaves_out_what_there_is_none_of():
    rows = [
        {"mode": "autoregressive", "statistic": "r2", "group": group, "layer": layer, "mean": value}
        for group, values in {"cls": (0.5, np.nan), "registers": (np.nan, 0.25), "patches": (0.5, 1)}.items()
        for layer, value in enumerate(values, 1)
    ]
    said = Evaluation(Fidelity(pd.DataFrame(rows)), cost=None).answer().split(": ")[1]
    assert said == (
        "registers 0.250 at the last layer, 0.250 at least (layer 2); "
        "patches 1.000 at the last layer, 0.500 at least (layer 1)"
    )


def test_the_head_of_the_teacher(noise_folder):
    teacher = StubViT([lambda state: 1.5 * state - state.roll(1, 2)] * 4, classes=3)
    images = load_images(noise_folder, teacher)
    raptor = raptor_of(teacher)
    found = fidelity(raptor, images, stream=Stream(workers=0))
    batch = next(iter(images.batches(40, workers=0)))
    with torch.no_grad():
        same = teacher.logits(teacher(batch.images)).argmax(1) == raptor.logits(raptor(batch.images)).argmax(1)
    assert found.agreement == pytest.approx(same.double().mean().item())
    assert found.accuracy is None  # no labels


def test_accuracy_of_the_head_with_either_body():
    """Labels are what the teacher says for three images and what the Raptor says for two, of five."""
    teacher = StubViT([lambda state: 1.5 * state - state.roll(1, 2)] * 4, classes=3)
    raptor = raptor_of(teacher)
    pictures = torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs, ours = (model.logits(model(pictures)).argmax(1) for model in (teacher, raptor))
    apart = (theirs != ours).nonzero().flatten()[:5]
    labels = torch.cat([theirs[apart[:3]], ours[apart[3:]]])
    batch = Batch(pictures[apart], torch.arange(5), labels)
    for with_labels, expected in ((True, (0.0, 2 / 5, 3 / 5)), (False, (0.0, None, None))):
        metric = FidelityMetric(raptor, with_labels=with_labels)
        for part in batch.split(3):
            metric.update(capture(teacher, part))
        found = metric.result()
        assert (found.agreement, found.accuracy, found.teacher_accuracy) == expected


def test_cost_is_counted(tiny):
    raptor = raptor_of(tiny)
    found = cost(raptor, batch_size=2, rounds=3)
    width, hidden, tokens = 16, 64, tiny.tokens.count
    per_token = 4 * width * width + 3 * width * hidden + 2 * tokens * width
    patches = 16 * 3 * 8 * 8 * width
    assert found.flops == 2 * (4 * tokens * per_token + patches)
    assert found.block_parameters == sum(p.numel() for p in raptor.shared.parameters())
    assert found.teacher_block_parameters == sum(p.numel() for p in tiny.blocks.parameters())
    assert found.parameters - found.block_parameters == found.teacher_parameters - found.teacher_block_parameters
    low, high = found.speed_ratio_range
    assert 0 < low <= found.speed_ratio <= high
    assert found.teacher_flops == flops(tiny)
    relaxed = Raptor(tiny, (0, 0, 1, 1), CopyConfig(width=width, heads=2, rank=4))
    assert flops(relaxed) == flops(tiny)  # its weights are built once for all images


@pytest.fixture
def labelled(noise_folder):
    for name in ("a", "b"):
        (noise_folder / name).mkdir()
    for path in sorted(noise_folder.glob("*.png")):
        path.rename(noise_folder / ("a" if int(path.stem) % 2 else "b") / path.name)
    return noise_folder


def test_a_fifth_tests_the_probes_where_nothing_else_does(labelled, monkeypatch):
    teacher = tiny_vit()
    images, read = load_images(labelled, teacher), []
    monkeypatch.setattr(evaluation, "probe", lambda *_, **__: None)
    monkeypatch.setattr(
        evaluation,
        "paired_features",
        lambda raptor, part, stream: read.append(part.indices().tolist()),
    )
    evaluate(raptor_of(teacher), images, images, stream=Stream(workers=0))
    assert read == [part.indices().tolist() for part in images.split(8, images.seed)]


@pytest.mark.parametrize("given", [{"test": True}, {"layer_options": {"layers": "all"}}])
def test_probes_need_images_to_be_trained_on(tiny, images, given):
    given = {name: images if value is True else value for name, value in given.items()}
    with pytest.raises(UsageError, match="are of probes; give labelled images to `train`"):
        evaluate(raptor_of(tiny), images, **given)


def test_evaluation_comes_back(labelled, tmp_path):
    teacher = tiny_vit()
    images = load_images(labelled, teacher)
    found = evaluate(raptor_of(teacher), images, *images.split(10, 0), seeds=2, stream=Stream(workers=0))
    found.save(tmp_path / "out")
    again = Evaluation.read(tmp_path / "out")
    assert again == found
    assert again.assignment == found.assignment
    assert again.cost == found.cost
    for ours, theirs in ((again.fidelity, found.fidelity), (again.probing, found.probing)):
        assert_frame_equal(ours.table, theirs.table, check_dtype=False)
    content = json.loads((tmp_path / "out" / "raptor_eval.json").read_text())
    assert content["probing"]["n_test"] == 10
    assert content["probe_images"]["test"]["read"] == 10
    for name, said in (("train", "fitted to"), ("test", "tested on")):
        read = {**found.probing.images, name: {**found.probing.images[name], "digest": "another"}}
        other = replace(found, probing=replace(found.probing, images=read))
        assert compare(found, other).notes() == [
            f"the images that probes were {said} are not the same: differences may be due to them"
        ]


def test_splits_of_the_probes_begin_at_the_seed_of_the_images(labelled, monkeypatch):
    asked = []
    read = evaluation.probe
    monkeypatch.setattr(evaluation, "probe", lambda *sets, **options: asked.append(options) or read(*sets, **options))
    teacher = tiny_vit()
    images = load_images(labelled, teacher, seed=5)
    evaluate(raptor_of(teacher), images, *images.split(10, 0), seeds=2, stream=Stream(workers=0))
    assert [options["seed"] for options in asked] == [5]


def test_features_of_both(labelled):
    teacher = tiny_vit()
    raptor = raptor_of(teacher)
    images = load_images(labelled, teacher)
    found = paired_features(raptor, images, stream=Stream(workers=0))
    batch = next(iter(images.batches(40, workers=0)))
    for name, model in {"teacher": teacher, "raptor": raptor}.items():
        with torch.no_grad():
            tokens = model(batch.images)
        expected = torch.cat([tokens[:, 0], tokens[:, model.tokens["patches"]].mean(1)], dim=1)
        torch.testing.assert_close(found[name].values, expected, atol=1e-4, rtol=1e-4)
    assert isinstance(raptor, Raptor)


def identity(state):
    return state


def shift(state):
    """A mean update, the same for every token."""
    return state + torch.linspace(-1, 2, 12)


def turn(state):
    """An affine map of every token that is no mean update."""
    return 0.5 * state.roll(1, -1) + 1


def bend(state):
    """No affine map of a token."""
    return state + state.roll(1, -1).abs().sqrt()


def raptor_with(teacher, functions, assignment):
    """A Raptor whose applications are these functions, whatever its blocks."""
    raptor = raptor_of(teacher, assignment)
    for application, function in zip(raptor.blocks, functions, strict=True):
        application.forward = function
    return raptor


def seen(teacher, raptor, count=40, sizes=7):
    """Fidelity and baselines of random pictures, in batches."""
    pictures = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    metric, baselines = FidelityMetric(raptor, seed=3), SpanBaselines(raptor, seed=3)
    for part in Batch(pictures, torch.arange(count), torch.full((count,), -1)).split(sizes):
        trajectory = capture(teacher, part)
        metric.update(trajectory)
        baselines.update(trajectory)
    return metric.result(baselines), baselines, capture(teacher, Batch(pictures, torch.arange(count))).states


def test_doing_nothing_has_no_skill_over_the_identity():
    """Of a single span in both modes; from the second span on the baseline enters with the teacher's state."""
    teacher = StubViT([bend] * 4)
    found, _, states = seen(teacher, raptor_with(teacher, [identity] * 4, (0, 0, 0, 0)))
    for mode in ("autoregressive", "one-step"):
        for group in ("cls", "patches", "all"):
            assert found.curve("skill_identity", group, mode).to_numpy() == pytest.approx(0, abs=1e-5)
    found, _, states = seen(teacher, raptor_with(teacher, [identity] * 4, (0, 0, 1, 1)))
    error, base = ((states[4] - states[start]).double().square().sum() for start in (0, 2))
    assert found.curve("skill_identity").loc[4] == pytest.approx(float(1 - error / base), rel=1e-5)
    assert found.curve("skill_identity", mode="one-step").to_numpy() == pytest.approx(0, abs=1e-5)


def test_a_perfect_raptor_has_skill_one_and_its_half_the_error_three_quarters():
    teacher = StubViT([bend] * 2)
    perfect, _, _ = seen(teacher, raptor_with(teacher, [bend] * 2, (0, 0)))
    half, _, _ = seen(teacher, raptor_with(teacher, [lambda state: (state + bend(state)) / 2] * 2, (0, 0)))
    for name in BASELINES:
        assert perfect.curve(f"skill_{name}").to_numpy() == pytest.approx(1, abs=1e-6)
    assert half.curve("skill_identity", mode="one-step").to_numpy() == pytest.approx(0.75, abs=1e-5)


def test_baselines_are_exact_where_the_teacher_is_what_they_are():
    """Identity, mean update and affine map in turn; each is of the next kind too."""
    teacher = StubViT([shift, shift, turn, turn])
    raptor = raptor_with(teacher, [identity] * 4, (0, 0, 1, 1))
    _, baselines, _ = seen(teacher, raptor, count=200, sizes=33)
    found = {name: values.sum(0) for name, values in baselines.compute().items()}
    share = found["errors"] / found["squares"][:, None]
    named = dict(zip(BASELINES, share.unbind(1), strict=True))  # modes, groups, layers
    assert named["identity"].numpy() == pytest.approx(1)
    assert named["mean_update"][..., :2].max() < 1e-9
    assert named["mean_update"][..., 2:].min() > 0.05
    assert named["affine"].max() < 1e-5  # what ridge leaves of it
    assert baselines.compute()["images"].tolist() == [20] * 10


def test_skill_against_a_direct_computation():
    """Each half judged by ridge regression fitted to the other, in NumPy, rows stacked."""
    teacher = StubViT([bend, shift, bend, bend])
    raptor = raptor_with(teacher, [turn, bend, shift, bend], (0, 0, 0, 1))
    found, baselines, states = seen(teacher, raptor, sizes=9)
    first = one_in(2, np.arange(40), seed=3)
    tokens = torch.stack(states)[:, :, teacher.tokens["patches"]].double().numpy()
    for mode, start, layer in (("autoregressive", 0, 3), ("one-step", 2, 3), ("autoregressive", 3, 4)):
        errors, maps = dict.fromkeys(BASELINES, 0.0), np.zeros(4)
        for fit, judge in ((first, ~first), (~first, first)):
            x, y = (tokens[at][fit].reshape(-1, 12) for at in (start, layer))
            entry, target = (tokens[at][judge].reshape(-1, 12) for at in (start, layer))
            about, update = x - x.mean(0), (y - x).mean(0)
            moved = np.concatenate([y - x - update, np.zeros((12, 12))])
            errors["identity"] += ((entry - target) ** 2).sum()
            errors["mean_update"] += ((entry + update - target) ** 2).sum()
            for number, ridge in enumerate((1e-3, 1e-2, 1e-1, 1)):
                penalty = ridge * (about**2).sum() / 12
                rows = np.concatenate([about, penalty**0.5 * np.eye(12)])
                weights = np.linalg.lstsq(rows, moved, rcond=None)[0]
                guess = entry + update + (entry - x.mean(0)) @ weights
                maps[number] += ((guess - target) ** 2).sum()
        errors["affine"] = maps.min()
        place = list(teacher.tokens.groups).index("patches")
        ours = baselines.compute()["errors"].sum(0)[int(mode == "one-step"), :, place, layer - 1]
        np.testing.assert_allclose(ours, list(errors.values()), rtol=1e-5)
        residual = (1 - found.curve("r2", "patches", mode).loc[layer]) * (
            (tokens[layer] - tokens[layer].mean((0, 1))) ** 2
        ).sum()
        for name, error in errors.items():
            measured = found.curve(f"skill_{name}", "patches", mode).loc[layer]
            assert measured == pytest.approx(1 - residual / error, rel=1e-4)


def maps_by_every_ridge(metric):
    """Squared errors of the maps, `(folds, groups, pairs)`: of each ridge in each fold, and then those of the best."""
    found = torch.zeros(len(RIDGES), *metric.squares.shape, dtype=torch.float64)
    sizes = torch.tensor(list(metric.layout.sizes().values()), dtype=torch.float64)
    counts = metric.images[:, None] * sizes

    def of(values, folds, *place):
        return sum(values[(fold, *place)] for fold in folds)

    for half, group, (start, layer) in product((0, 1), range(len(sizes)), metric.pairs):
        pair = metric.pairs[start, layer]
        mine, others = range(half, 10, 2), range(1 - half, 10, 2)
        held = [others, *([fold] for fold in mine)] if metric.in_blocks else [[1 - half], [half]]
        count, total, moved = counts[others, group].sum(), of(metric.inputs, others, group, start), of(
            metric.updates, others, group, pair
        )  # fmt: skip
        second, cross = of(metric.second, held[0], group, start), of(metric.cross, held[0], group, pair)
        entry, update = total / count, moved / count
        for number, ridge in enumerate(RIDGES):
            about = second - torch.outer(total, total) / count
            maps = ridge_maps(about, cross - torch.outer(total, moved) / count, ridge, ROUNDING * second.trace())
            for place, kept in enumerate(held[1:]):
                folds = mine[place : place + 1] if metric.in_blocks else mine
                many, seen = counts[folds, group].sum(), of(metric.inputs, folds, group, start)
                there = of(metric.updates, folds, group, pair)
                spread = of(metric.second, kept, group, start) - torch.outer(seen, entry)
                spread += -torch.outer(entry, seen) + many * torch.outer(entry, entry)
                explained = of(metric.cross, kept, group, pair) - torch.outer(seen, update)
                explained += -torch.outer(entry, there) + many * torch.outer(entry, update)
                left = of(metric.squares, folds, group, pair) - 2 * update @ there + many * update @ update
                found[number, folds[0], group, pair] = (
                    left - 2 * (maps * explained).sum() + (maps * (spread @ maps)).sum()
                )
    best = found.sum(1, keepdim=True).argmin(0, keepdim=True)
    return found.gather(0, best.expand(1, *found.shape[1:]))[0].clamp_min(0)


@pytest.mark.parametrize("in_blocks", [True, False])
def test_the_ridge_is_chosen_by_the_whole_and_its_maps_judged_in_parts(monkeypatch, in_blocks):
    if not in_blocks:
        monkeypatch.setattr("brdyn.raptor.baselines.MOST_BYTES", 8 * 2 * 2 * (4 + 6) * 12**2)
    teacher = StubViT([bend, shift, bend, turn])
    _, baselines, _ = seen(teacher, raptor_of(teacher, (0, 0, 0, 1)))
    assert baselines.in_blocks is in_blocks
    found, expected = baselines._of_maps(), maps_by_every_ridge(baselines)
    assert (expected > 0).any(0).all()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_an_interval_is_of_the_values_without_each_tenth_of_the_images():
    """Of R2 and of the skill over the identity, by hand; a jackknife of a mean is the t interval of ten means."""
    teacher = StubViT([bend, bend])
    found, _, states = seen(teacher, raptor_with(teacher, [turn, identity], (0, 0)))
    part = fold_of(torch.arange(40), seed=3)
    assert np.bincount(part).tolist() == [4] * 10
    assert sorted(part // 2) == sorted(np.arange(40) // 2 % 5)
    start, end = (state.double().numpy() for state in (states[0], states[2]))
    guess = turn(states[0]).double().numpy()
    without = {"r2": [], "skill_identity": []}
    for fold in range(10):
        kept = part != fold
        error = ((guess - end)[kept] ** 2).sum()
        tokens = end[kept].reshape(-1, 12)
        without["skill_identity"].append(1 - error / ((start - end)[kept] ** 2).sum())
        without["r2"].append(1 - error / ((tokens - tokens.mean(0)) ** 2).sum())
    for statistic, values in without.items():
        rows = found.table[found.table["statistic"] == statistic]
        row = rows.query("mode == 'autoregressive' and group == 'all' and layer == 2")
        half = 2.262157 * (0.9 * ((np.array(values) - np.mean(values)) ** 2).sum()) ** 0.5
        assert half > 0.01
        assert (row["high"] - row["mean"]).item() == pytest.approx(half, rel=1e-3)
        assert (row["mean"] - row["low"]).item() == pytest.approx(half, rel=1e-3)
    means = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], dtype=torch.float64)
    low, high = jackknife(means.mean(), (means.sum() - means) / 9)
    assert [low.item(), high.item()] == pytest.approx(stats.t.interval(0.95, 9, 4.5, stats.sem(means.numpy())))


def test_an_interval_is_where_the_skill_of_others_lies():
    """Of twenty sets of images of one kind, it holds the skill of many: in nineteen, or one or two fewer."""
    teacher = StubViT([bend, bend])
    raptor, within = raptor_with(teacher, [turn, identity], (0, 0)), []
    whole = fidelity_of(teacher, raptor, 4000, seed=99).query("statistic == 'skill_identity'")["mean"].iloc[0]
    for seed in range(20):
        row = fidelity_of(teacher, raptor, 60, seed).query("statistic == 'skill_identity'").iloc[0]
        within.append(row["low"] < whole < row["high"])
    assert sum(within) >= 17


def fidelity_of(teacher, raptor, count, seed):
    """All tokens at the last layer, autoregressive, of some random pictures."""
    pictures = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    metric, baselines = FidelityMetric(raptor), SpanBaselines(raptor)
    trajectory = capture(teacher, Batch(pictures, torch.arange(count), torch.full((count,), -1)))
    metric.update(trajectory)
    baselines.update(trajectory)
    return metric.result(baselines).table.query("mode == 'autoregressive' and group == 'all' and layer == 2")


def test_maps_whose_moments_are_too_large_for_parts_have_no_interval(monkeypatch):
    teacher = StubViT([bend, bend])
    raptor = raptor_with(teacher, [turn, identity], (0, 0))
    parts, _, _ = seen(teacher, raptor)
    monkeypatch.setattr("brdyn.raptor.baselines.MOST_BYTES", 8 * 2 * 2 * (2 + 3) * 12**2)
    halves, baselines, _ = seen(teacher, raptor)
    assert (baselines.in_blocks, baselines.left_out) == (False, None)
    of_maps = "statistic == 'skill_affine'"
    assert parts.table.query(of_maps)["low"].notna().all()
    assert halves.table.query(of_maps)["low"].isna().all()
    np.testing.assert_allclose(halves.table["mean"], parts.table["mean"], rtol=1e-9)
    rest = f"not ({of_maps})"
    np.testing.assert_allclose(halves.table.query(rest)["low"], parts.table.query(rest)["low"])


def test_skill_where_nothing_moves_or_nothing_is_fitted():
    still = StubViT([identity, bend])
    found, _, _ = seen(still, raptor_with(still, [identity] * 2, (0, 0)))
    assert np.isnan(found.curve("skill_affine", "cls").loc[1])
    assert found.curve("skill_identity", "cls").loc[2] == pytest.approx(0, abs=1e-5)
    alone, baselines, _ = seen(still, raptor_with(still, [identity] * 2, (0, 0)), count=1)
    assert alone.curve("skill_identity", "cls").loc[2] == pytest.approx(0, abs=1e-5)
    for name in ("mean_update", "affine"):
        assert np.isnan(alone.curve(f"skill_{name}", "cls").loc[2])
    assert baselines.compute()["images"].sum() == 1


def test_how_baselines_were_fitted_is_said(tiny, images, noise_folder, monkeypatch):
    raptor = raptor_of(tiny)
    found = evaluate(raptor, images, stream=Stream(workers=0))
    rows = found.fidelity.baselines.rows
    assert rows == {"cls": 20, "registers": 40, "patches": 320}
    assert found.fidelity.baselines.directions == 16
    assert "underdetermined" not in found.summary()
    skill = found.fidelity.curve("skill_affine", "cls").loc[4]
    assert found.overview()[0]["over one affine map"] == skill
    few = fidelity(raptor, load_images(noise_folder, tiny, n=20), stream=Stream(workers=0))
    assert "underdetermined: cls (10 rows for 16 directions)" in few.baselines.describe()
    monkeypatch.setattr("brdyn.raptor.baselines.MOST_BYTES", 1000)
    without = evaluate(raptor, images, stream=Stream(workers=0))
    assert "no affine map: the moments of 4 layers of width 16 would take" in without.summary()
    assert without.fidelity.curve("skill_affine").isna().all()
    assert without.fidelity.curve("skill_mean_update").equals(found.fidelity.curve("skill_mean_update"))


def test_evaluations_of_earlier_versions_have_no_skill(tiny, images, tmp_path):
    found = evaluate(raptor_of(tiny), images, stream=Stream(workers=0))
    found.save(tmp_path / "out")
    path = tmp_path / "out" / "raptor_eval.json"
    content = json.loads(path.read_text())
    del content["baselines"]
    content["fidelity"] = [row for row in content["fidelity"] if not row["statistic"].startswith("skill")]
    path.write_text(json.dumps(content))
    again = Evaluation.read(tmp_path / "out")
    assert again.fidelity.baselines is None
    assert "skill" not in again.summary()
    assert set(draw(again)) == {"fidelity"}
    assert set(draw(found)) == {"fidelity", "skill"}


@pytest.mark.parametrize(("assignment", "said"), [((0, 0, 0, 0), "1 block for"), ((0, 0, 1, 1), "2 blocks for")])
def test_blocks_are_counted_in_words(tiny, images, assignment, said):
    measured = fidelity(raptor_of(tiny, assignment), images, stream=Stream(workers=0))
    found = Evaluation(measured, None, teacher="a ViT", assignment=assignment)
    assert found.answer().startswith(f"{said} the 4 layers of a ViT, R²")
