"""Maps and scores of dense probes: against torchmetrics, against plain upsampling, and by hand."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch.nn import functional
from torchmetrics.classification import MulticlassJaccardIndex

from brdyn.measures.intervals import of_paired_shares
from brdyn.probes import ClassScore, Depth, DepthScore, OverlapScore, Segmentation
from brdyn.probes.maps import Heads, Tokens, bilinear, drawn_points
from brdyn.probes.scores import measured, resampled, resamples, spread


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mean_iou_is_that_of_torchmetrics():
    rng = torch.Generator().manual_seed(0)
    truth, said = (torch.randint(0, 4, (6, 50), generator=rng) for _ in range(2))
    truth[0, :20] = -1  # void
    truth[truth == 2] = 1  # a class that is not there, though it is predicted
    task = Segmentation(["a", "b", "c", "d"])
    total = task.count(said, truth).sum(0)
    theirs = MulticlassJaccardIndex(4, average="none", ignore_index=-1)(said, truth).numpy()
    ours = task.score.by_class(total)
    present = [0, 1, 3]
    np.testing.assert_allclose(ours[present], theirs[present], rtol=1e-6)
    assert np.isnan(ours[2])
    assert task.score.values(total)["miou"] == pytest.approx(theirs[present].mean(), rel=1e-6)
    right = (said == truth).sum() / (truth >= 0).sum()
    assert task.score.values(total)["pixel_accuracy"] == pytest.approx(float(right))


def test_void_never_counts():
    task = Segmentation(["a", "b"])
    truth = torch.tensor([0, 1, -1, -1])
    counts = [task.count(torch.tensor([0, 1, *void]), truth) for void in ([0, 0], [1, 1])]
    np.testing.assert_array_equal(*counts)
    assert counts[0].tolist() == [1, 1, 1, 1, 1, 1]
    outputs = random(1, 1, 1, 2, 4)
    other = outputs.clone()
    other[..., 2:] += 5 * random(1, 1, 1, 2, 2, seed=1)
    one = truth[None]
    assert torch.equal(task.loss(outputs, one, one), task.loss(other, one, one))
    by_hand = functional.cross_entropy(outputs[0, 0, 0, :, :2].T, truth[:2])
    torch.testing.assert_close(task.loss(outputs, one, one)[0, 0], by_hand)
    void = torch.full((1, 4), -1)
    assert task.loss(outputs, void, void).item() == 0  # nothing to learn


def test_scores_of_depth_by_hand():
    task = Depth(most=10.0)
    truth = torch.tensor([[1.0, 2.0, 0.0, 4.0]])
    said = torch.tensor([[1.2, 3.0, 7.0, 4.0]])
    values = task.score.values(task.count(said, truth).sum(0))
    assert values["rmse"] == pytest.approx(np.sqrt((0.04 + 1) / 3), rel=1e-6)
    assert values["absrel"] == pytest.approx((0.2 + 0.5) / 3, rel=1e-6)
    assert values["delta1"] == pytest.approx(2 / 3)


def test_the_loss_of_depth_by_hand():
    task = Depth(most=10.0, bins=4)
    outputs, truth = random(2, 1, 1, 4, 3), torch.tensor([[1.0, 0.0, 6.0], [3.0, 9.9, 2.4]])
    bins = torch.tensor([[0, 0, 2], [1, 3, 0]])  # edges at about 2.5, 5, 7.5
    logits = outputs[:, 0, 0]
    known = truth > 0
    entropy = functional.cross_entropy(logits.movedim(1, 2)[known], bins[known])
    centres = 0.001 + (torch.arange(4) + 0.5) * 9.999 / 4
    metres = (logits.softmax(1) * centres[:, None]).sum(1)
    terms = []
    for one, true, there in zip(metres, truth, known, strict=True):
        apart = one[there].log() - true[there].log()
        terms.append((apart**2).mean() - 0.85 * apart.mean() ** 2)
    expected = entropy + 10 * torch.stack(terms).mean()
    torch.testing.assert_close(task.loss(outputs, truth, truth)[0, 0], expected)
    other = outputs.clone()
    other[0, :, :, :, 1] += 3  # where there is no depth
    assert torch.equal(task.loss(other, truth, truth), task.loss(outputs, truth, truth))


@pytest.mark.parametrize("task", [Segmentation(["a", "b", "c", "d"]), Depth(most=10.0, bins=4)])
def test_shares_of_a_batch_sum_to_its_loss(task):
    outputs, generator = random(4, 2, 3, 4, 5), torch.Generator().manual_seed(1)
    truth = torch.randint(-1, 4, (4, 5), generator=generator)
    truth[2] = -1  # an image without truth
    truth = truth if task.name == "segmentation" else truth.float()
    parts = [task.loss(outputs[some], truth[some], truth) for some in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(sum(parts), task.loss(outputs, truth, truth))


def test_points_are_those_of_upsampled_maps():
    grid, size = (3, 4), (12, 20)
    maps = random(2, 5, 12, 6)
    points, pixels = drawn_points(5, 30, size, size, torch.Generator().manual_seed(0))
    found = bilinear(maps, grid, points)
    for head in range(2):
        planes = maps[head].transpose(1, 2).unflatten(2, grid)
        large = functional.interpolate(planes, size, mode="bilinear", align_corners=False).flatten(2)
        expected = large.gather(2, pixels[:, None].expand(-1, 6, -1))
        torch.testing.assert_close(found[:, head], expected, atol=1e-5, rtol=1e-5)
    _, every = drawn_points(2, 10**6, size, size, torch.Generator())
    assert every[0].tolist() == list(range(240))
    # Cells of four to a patch: the pixel in the middle of each.
    _, coarse = drawn_points(1, 10**6, (2, 2), (4, 6), torch.Generator())
    assert coarse[0].tolist() == [1 * 6 + 1, 1 * 6 + 4, 3 * 6 + 1, 3 * 6 + 4]


@pytest.mark.parametrize("answer", [True, False])
def test_whole_maps_are_those_of_all_points(answer):
    grid, size = (2, 3), (8, 12)
    tokens = Tokens(random(2, 3, 6, 5), random(2, 3, 5, seed=1) if answer else None, grid)
    for task in (Segmentation(["a", "b", "c"]), Depth(most=5.0, bins=7)):
        width = task.features(5, answer)
        heads = Heads(random(2, width, 1, task.outputs, seed=2), random(2, 1, task.outputs, seed=3))
        cells = task.cells(size, grid)
        points, _ = drawn_points(3, 10**6, cells, size, torch.Generator())
        at_all = task.answers(task.at(tokens, heads, points))[:, :, 0].unflatten(2, cells)
        whole = task.whole(tokens, heads, size)
        assert cells == size  # 4 cells to a patch of 4 pixels: the same places
        same = (whole == at_all) if task.name == "segmentation" else torch.isclose(whole, at_all, atol=1e-5)
        assert same.float().mean() > 0.99


def test_cls_counts_for_depth():
    task, tokens = Depth(most=5.0, bins=7), Tokens(random(1, 2, 4, 5), random(1, 2, 5, seed=1), (2, 2))
    heads = Heads(random(1, 10, 1, 7, seed=2), random(1, 1, 7, seed=3))
    other = Tokens(tokens.patches, tokens.answer + 1, (2, 2))
    both = torch.cat([tokens.patches, tokens.answer[:, :, None].expand(-1, -1, 4, -1)], -1)
    plain = both[0] @ heads.weight[0, :, 0] + heads.bias[0]  # at the grid's own centres
    points = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]).expand(2, -1, -1)
    torch.testing.assert_close(task.at(tokens, heads, points)[:, 0, 0].transpose(1, 2), plain, atol=1e-5, rtol=1e-5)
    assert not torch.equal(task.at(other, heads, points), task.at(tokens, heads, points))


def test_a_bootstrap_over_images_by_hand():
    counted = np.array([[[1.0, 1], [0, 1], [1, 1]], [[1, 1], [1, 1], [1, 1]]])  # two seeds, three images
    assert measured(ClassScore(), counted)["accuracy"].tolist() == pytest.approx([2 / 3, 1])
    weights = np.array([[3.0, 0, 0], [0, 3, 0], [1, 1, 1]])
    assert resampled(ClassScore(), counted, weights)["accuracy"].tolist() == pytest.approx([1, 0.5, 5 / 6])
    drawn = resamples(7, 500)
    assert drawn.sum(1) == pytest.approx(np.full(500, 7))
    assert drawn.min() > 0
    right = (np.arange(400) < 100).astype(float)
    counted = np.stack([right, np.ones(400)], -1)[None]
    low, high = spread(resampled(ClassScore(), counted, resamples(400, 4000))["accuracy"])
    half = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert (low, high) == pytest.approx((0.25 - half, 0.25 + half), abs=0.006)


def test_a_class_of_one_image_stays_in_every_sample():
    found = OverlapScore(["common", "rare"])
    counted = np.tile([8.0, 0, 8, 0, 8, 0], (1, 20, 1))
    counted[0, 0] = [0, 0, 0, 0, 0, 8]  # the one image of the rare class, which is not seen
    counted[0, 1] = [4, 0, 4, 0, 8, 0]
    low, high = found.ends(counted, resamples(20))["miou"]
    value = float(measured(found, counted)["miou"][0])
    assert value == pytest.approx((4 + 18 * 8) / (19 * 8) / 2)
    assert 0.4 < low < value < high <= 0.5


@pytest.mark.parametrize("right", [0, 2, 19, 20])
def test_intervals_of_accuracies_are_wilsons(right):
    counted = np.stack([np.arange(20) < right, np.ones(20)], -1)[None].astype(float)
    expected = binomtest(right, 20).proportion_ci(method="wilson")
    assert ClassScore().ends(counted, resamples(20))["accuracy"] == pytest.approx([*expected], abs=1e-6)


def test_images_that_are_all_alike_have_no_interval():
    counted = np.tile([4.0, 1.0, 0.4, 3.0], (1, 5, 1))
    weights = resamples(5)
    assert np.isnan([*DepthScore().ends(counted, weights).values()]).all()
    assert np.isnan(DepthScore().paired_ends(counted, counted, weights)).all()


def pair(both, first, second, neither):
    """Of images: right by both, by one alone, by none."""
    table = [(1, 1)] * both + [(1, 0)] * first + [(0, 1)] * second + [(0, 0)] * neither
    return np.array(table, float).T


def test_differences_of_accuracies_are_newcombes():
    """The first table of Newcombe (1998), by his method 10."""
    (low, high), ratio = of_paired_shares(*pair(36, 2, 12, 0))
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    assert ratio[0] < 48 / 38 < ratio[1]


@pytest.mark.parametrize(
    "cells", [(3, 0, 0, 0), (0, 0, 0, 3), (10, 0, 0, 10), (19, 0, 1, 0), (0, 4, 0, 0), (1, 0, 9, 1)]
)
def test_paired_intervals_hold_the_value_have_a_width_and_agree(cells):
    one, other = pair(*cells)
    (low, high), (least, most) = of_paired_shares(one, other)
    value = other.mean() - one.mean()
    assert low <= value <= high
    assert high - low > 0.05
    if not one.any():
        assert np.isnan([least, most]).all()
        return
    assert least <= other.mean() / one.mean() <= most
    assert np.sign([low, high]).tolist() == np.sign([least - 1, most - 1]).tolist()


def test_what_cannot_be_told_is_worst():
    nothing = np.zeros(6)
    assert OverlapScore(["a", "b"]).better(nothing) == -np.inf
    assert DepthScore().better(np.zeros(4)) == -np.inf
    assert DepthScore().better(np.array([1.0, 4, 0, 0])) == -2
