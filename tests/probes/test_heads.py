"""Dense heads: perfect where features are the labels, the same all at once as one by one, and chosen on
held-out images."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brdyn.errors import UsageError
from brdyn.probes import Depth, Recipe, Segmentation
from brdyn.probes.heads import (
    Chooser,
    count_images,
    fit_heads,
    fit_ridge,
    shares_of_patches,
    split_images,
)
from brdyn.probes.maps import Heads
from brdyn.probes.stores import FeatureStore, Standard

FAST = Recipe(epochs=40, batch_size=8, lr=0.05, penalties=(0.0,), points=64)


def store(values, targets, grid, answer=False, layers=None):
    """Features `(n, layers, T, D)` in memory."""
    layers = layers or tuple(range(1, values.shape[1] + 1))
    return FeatureStore(values.astype(np.float16), targets, layers, grid, answer, list(range(len(values))))


def stripes(images=12, classes=3, grid=(3, 4), patch=4, seed=0, noise=0.0, layers=1):
    """Columns of patches of one class, and features that say which, the better the deeper."""
    rng = np.random.default_rng(seed)
    columns = rng.integers(0, classes, (images, grid[1]))
    patches = np.repeat(columns[:, None], grid[0], 1).reshape(images, -1)
    values = np.stack(
        [
            np.eye(classes)[patches] + noise * (layers - layer) * rng.normal(size=(*patches.shape, classes))
            for layer in range(1, layers + 1)
        ],
        1,
    )
    targets = np.repeat(np.repeat(columns, patch, 1)[:, None], grid[0] * patch, 1).astype(np.int16)
    return store(values, targets, grid)


def rows(made):
    return np.arange(len(made))


def test_features_that_are_the_classes_give_an_iou_of_one():
    made, task = stripes(), Segmentation(["a", "b", "c"])
    for fitted in (
        fit_heads(task, (made, rows(made)), (made, rows(made)), [(1,)], FAST),
        fit_ridge(task, (made, rows(made)), (made, rows(made)), [(1,)]),
    ):
        counted = count_images(task, fitted, made)
        assert counted.shape == (1, 12, 9)
        assert task.score.values(counted.sum(1))["miou"].tolist() == [1.0]


def test_features_that_are_the_depth_give_the_error_of_a_bin():
    rng, bins, grid = np.random.default_rng(0), 20, (2, 3)
    task = Depth(most=10.0, bins=bins)
    metres = rng.uniform(0.5, 9.5, 24).astype(np.float32)
    place = ((metres - 0.001) / 9.999 * bins).astype(int)
    values = np.broadcast_to(np.eye(bins)[place][:, None, None], (24, 1, 6, bins))
    targets = np.broadcast_to(metres[:, None, None], (24, 8, 12)).copy()
    targets[:, :2] = 0  # not measured
    made = store(values, targets, grid)
    recipe = replace(FAST, epochs=60, standard=False, fading=False, lr=0.1)
    fitted = fit_heads(task, (made, rows(made)), (made, rows(made)), [(1,)], recipe)
    counted = count_images(task, fitted, made)
    assert counted[0, :, 0].tolist() == [72.0] * 24
    width = 9.999 / bins
    floor = np.sqrt(np.mean((metres - (0.001 + (place + 0.5) * width)) ** 2))
    found = float(task.score.values(counted.sum(1))["rmse"][0])
    assert floor * 0.5 < found < width / 2  # the widest error of a bin


def test_all_places_at_once_are_as_each_alone():
    made = stripes(noise=0.7, layers=3)
    task, recipe = Segmentation(["a", "b", "c"]), replace(FAST, epochs=2, penalties=(0.0, 1.0), points=10**6)
    halves = (made, rows(made)[:8]), (made, rows(made)[8:])
    together = Chooser(task, made, Standard.of(made, halves[0][1]), [(2,), (3,)], halves[1][1], 99)
    heads = Heads(torch.randn(2, 3, 2, 3), torch.randn(2, 2, 3))
    alone = [
        replace(together, places=[place]).scores(heads[slice(at, at + 1)]) for at, place in enumerate([(2,), (3,)])
    ]
    np.testing.assert_allclose(together.scores(heads), np.concatenate(alone))
    fitted = fit_heads(task, *halves, [(1,), (2,), (3,)], recipe, seed=1)
    assert fitted.heads.weight.shape == (3, 3, 1, 3)
    assert fitted.chosen[2] > fitted.chosen[0]  # the last layer has no noise


@pytest.mark.parametrize("kind", ["segmentation", "depth"])
def test_memory_is_bounded_and_numbers_are_the_same(kind, monkeypatch):
    made = stripes(images=13, noise=0.7, layers=3)
    made.targets[0] = -1  # an image without truth
    task = Segmentation(["a", "b", "c"])
    if kind == "depth":
        made.targets, task = made.targets.astype(np.float32), Depth(most=3.0, bins=6)
    recipe = replace(FAST, epochs=2, penalties=(0.0, 1.0), points=10**6, lr=0.01)
    halves, places = ((made, rows(made)[:9]), (made, rows(made)[9:])), [(1,), (2,), (3,)]
    whole = fit_heads(task, *halves, places, recipe)
    at, largest = task.at, []

    def noted(tokens, heads, points):
        outputs = at(tokens, heads, points)
        largest.append(max(outputs.numel(), tokens.patches.numel()))
        return outputs

    monkeypatch.setattr(task, "at", noted)
    for most in (40_000, 4_000):  # some images at all places; some places of one image
        monkeypatch.setattr("brdyn.probes.heads.MOST_VALUES", most)
        largest.clear()
        parts = fit_heads(task, *halves, places, recipe)
        assert max(largest) <= most
        for name in ("weight", "bias"):
            torch.testing.assert_close(getattr(parts.heads, name), getattr(whole.heads, name), atol=1e-6, rtol=0)
        np.testing.assert_allclose(parts.chosen, whole.chosen, atol=1e-6)
        assert (parts.epoch.tolist(), parts.penalty.tolist()) == (
            whole.epoch.tolist(),
            whole.penalty.tolist(),
        )


def test_the_penalty_and_epoch_kept_are_the_best_on_held_out_images():
    made, task = stripes(images=20, noise=1.0, layers=2), Segmentation(["a", "b", "c"])
    halves = (made, rows(made)[:4]), (made, rows(made)[4:])
    recipe = replace(FAST, epochs=6, penalties=(0.0, 50.0))
    seen = []
    scores = Chooser.scores

    def noted(self, heads):
        seen.append(scores(self, heads))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chooser, "scores", noted)
        fitted = fit_heads(task, *halves, [(1,), (2,)], recipe)
    every = np.stack(seen)  # (epochs, S, K)
    for place in range(2):
        assert fitted.chosen[place] == every[:, place].max()
        first = every[:, place].max(1).argmax()
        assert fitted.epoch[place] == first + 1
        assert fitted.penalty[place] == recipe.penalties[int(every[first, place].argmax())]
    again = Chooser(task, made, fitted.standard, [(1,), (2,)], halves[1][1], 4 * recipe.points).scores(fitted.heads)
    np.testing.assert_allclose(again[:, 0], fitted.chosen)  # and these are the weights kept


def test_decay_is_that_of_adamw():
    made, task = stripes(images=4, noise=1.0, layers=2), Segmentation(["a", "b", "c"])
    recipe = replace(FAST, epochs=1, batch_size=4, penalties=(0.3,), points=10**6, fading=False, standard=False)
    drawn = torch.Generator().manual_seed(5)
    weight = (torch.randn(1, 3, 1, 3, generator=drawn) * 0.01)[0, :, 0].clone().requires_grad_(True)
    bias = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.AdamW([weight, bias], lr=recipe.lr, weight_decay=0.3)
    maps = (torch.from_numpy(made.values[:, 0]).float() @ weight + bias).transpose(1, 2).unflatten(2, (3, 4))
    large = torch.nn.functional.interpolate(maps, (12, 16), mode="bilinear", align_corners=False)
    torch.nn.functional.cross_entropy(large, torch.from_numpy(made.targets).long()).backward()
    optimizer.step()
    fitted = fit_heads(task, (made, rows(made)), (made, rows(made)), [(1,)], recipe, seed=5)
    torch.testing.assert_close(fitted.heads.weight[0, :, 0], weight.detach(), atol=1e-4, rtol=1e-3)


def test_concatenated_layers_are_read_side_by_side():
    made, task = stripes(noise=0.0, layers=2), Segmentation(["a", "b", "c"])
    made.values[:, 0, :, 1:] = 0  # one layer knows class 0, the other class 1
    made.values[:, 1, :, 0] = made.values[:, 1, :, 2] = 0
    fits = {
        places: fit_ridge(task, (made, rows(made)), (made, rows(made)), [places]) for places in ((1,), (2,), (1, 2))
    }
    assert fits[1, 2].chosen[0] == 1
    assert max(fits[1,].chosen[0], fits[2,].chosen[0]) < 0.9


def test_shares_of_patches_by_hand():
    targets = torch.tensor([[[0, 1, -1, -1], [1, 1, -1, 2]]])
    shares, known = shares_of_patches(targets, (1, 2), 3)
    assert shares.tolist() == [[[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]]]
    assert known.tolist() == [[1.0, 0.25]]


def test_what_was_written_is_read_after_its_pages_are_let_go(tmp_path):
    values = np.memmap(tmp_path / "values", np.float16, "w+", shape=(6, 1, 4, 3))
    targets = np.memmap(tmp_path / "targets", np.int16, "w+", shape=(6, 8, 8))
    made = FeatureStore(values, targets, (1,), (2, 2), False)
    first, second = torch.rand(4, 1, 4, 3).half(), torch.randint(0, 3, (4, 8, 8), dtype=torch.int16)
    made.add(first, second, torch.tensor([3, 5, 7, 8]))
    made.add(first[:2] + 1, second[:2] + 1, torch.tensor([9, 10]))
    found = made.read(np.array([3, 4]))
    torch.testing.assert_close(found[0], torch.stack([first[3], first[0] + 1]).float())
    assert torch.equal(found[1], torch.stack([second[3], second[0] + 1]))
    assert made.positions == [3, 5, 7, 8, 9, 10]


def test_nothing_to_learn_is_said():
    made, task = stripes(images=4), Segmentation(["a", "b", "c"])
    made.targets[:] = -1
    with pytest.raises(UsageError, match="no point that was drawn in the 4 training images has a truth"):
        fit_heads(task, (made, rows(made)), (made, rows(made)), [(1,)], replace(FAST, epochs=1))


def test_a_part_is_held_out():
    fitting, held = split_images(10, 0)
    assert sorted([*fitting, *held]) == list(range(10))
    assert len(held) == 2
    assert not np.array_equal(split_images(10, 1)[1], held)
    with pytest.raises(UsageError, match="1 training image is to fit heads on"):
        split_images(1, 0)


def test_rates_by_hand():
    recipe = Recipe(lr=1.0)
    rates = [recipe.rate(step, 100) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1
    assert rates[55] == pytest.approx(0.505)
    assert rates[100] == pytest.approx(0.01)
    assert recipe.rate(150, 100) == recipe.rate(10**6, 100) == rates[100]
    assert replace(recipe, fading=False).rate(7, 100) == 1


def test_features_are_standardised_where_that_is_asked_for():
    made = stripes(noise=1.0, layers=2)
    made.values[:, 0] = made.values[:, 0] * 30 + 5
    standard = Standard.of(made, rows(made))
    values, _ = made.read(rows(made))
    tokens = standard.tokens(values, made.layers, [(1,), (2,)], made.grid, answer=False)
    flat = tokens.patches.flatten(1, 2)
    torch.testing.assert_close(flat.mean(1), torch.zeros(2, 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(flat.std(1, correction=0), torch.ones(2, 3), atol=1e-3, rtol=0)
    assert tokens.answer is None
    plain = Standard.none(made).tokens(values, made.layers, [(2, 1)], made.grid, answer=True)
    torch.testing.assert_close(plain.answer[0], torch.cat([values[:, 1, 0], values[:, 0, 0]], 1))
    torch.testing.assert_close(plain.patches[0], torch.cat([values[:, 1, 1:], values[:, 0, 1:]], 2))
