"""Angular basins on cases with a known answer, and against a direct computation."""

import math

import numpy as np
import pytest
import torch

from brdyn.errors import UsageError
from brdyn.measures.basins import AngularBasins, angles_between, choose, resampled
from brdyn.measures.bootstrap import poisson_weights
from brdyn.models import TokenLayout
from brdyn.trajectory import Trajectory

LAYOUT = TokenLayout.with_prefix((1, 2), {"cls": 1})


def feed(states, labels, *, sizes=None, order=None, width=4, **options):
    metric = AngularBasins(LAYOUT, len(states) - 1, width, replicates=options.pop("replicates", 50), **options)
    order = torch.arange(len(labels)) if order is None else order
    for part in order.split(sizes or len(order)):
        metric.update(Trajectory(states[:, part], LAYOUT, part, torch.as_tensor(labels)[part]))
    return metric


def value(found, statistic, group="cls", layer=1):
    rows = found.table.query("statistic == @statistic and group == @group and layer == @layer")
    assert len(rows) == 1
    return rows["mean"].item()


def circle(angles):
    """Tokens of one image on a circle: cls and both patches alike, `(B, 3, 4)`."""
    angles = torch.as_tensor(angles, dtype=torch.float32)
    points = torch.stack([angles.cos(), angles.sin(), 0 * angles, 0 * angles], -1)
    return points[:, None].expand(-1, 3, -1)


def test_two_basins_by_hand():
    """Classes at 0 and at 1 radian, two images each, 0.2 apart: every pair can be listed."""
    states = torch.stack([circle([0.5] * 4), circle([0.0, 0.2, 1.0, 1.2])])
    found = feed(states, [0, 0, 1, 1]).details()
    assert value(found, "within_class_angle") == pytest.approx(0.2, abs=1e-6)
    assert value(found, "between_class_angle") == pytest.approx((1.0 + 1.2 + 0.8 + 1.0) / 4, abs=1e-6)
    assert value(found, "basin_ratio") == pytest.approx(0.2, abs=1e-6)
    assert value(found, "knn_purity") == 1
    assert found.neighbours == 1
    assert found.chance == pytest.approx(1 / 3)
    assert math.isnan(value(found, "basin_ratio", layer=0))  # all in one place: no ratio
    assert value(found, "between_class_angle", layer=0) == pytest.approx(0, abs=1e-6)


def test_images_alone_in_their_class_are_left_out():
    """The third class has one image, which is no neighbour of anyone."""
    states = torch.stack([circle([0.5] * 5), circle([0.0, 0.2, 1.0, 1.2, 0.6])])
    names = ["cat", "dog", "owl"]
    found = feed(states, [0, 0, 1, 1, 2], label_names=names).details()
    without = feed(states[:, :4], [0, 0, 1, 1]).details()
    assert (found.n_images, found.n_classes) == (4, 2)
    assert found.names == {0: "cat", 1: "dog"}
    assert without.names == {}
    assert value(found, "between_class_angle") == value(without, "between_class_angle")
    assert value(found, "knn_purity") == 1
    assert set(found.projection["position"]) == {0, 1, 2, 3}


def test_neighbours_of_the_other_class():
    states = torch.stack([circle([0.0, 1.0, 0.1, 1.1])] * 2)
    assert value(feed(states, [0, 0, 1, 1]).details(), "knn_purity") == 0


def test_against_a_direct_computation():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 30, 3, 6, generator=generator)
    labels = torch.arange(30) % 3
    found = feed(states, labels, width=6).details()
    for group, part in LAYOUT.groups.items():
        directions = states[2][:, part].double().mean(1)
        directions = directions / directions.norm(dim=1, keepdim=True)
        angles = (directions @ directions.T).clamp(-1, 1).acos()
        within, between, purity = [], [], []
        for i in range(30):
            others = [j for j in range(30) if j != i]
            within += [angles[i, j].item() for j in others if labels[i] == labels[j]]
            between += [angles[i, j].item() for j in others if labels[i] != labels[j]]
            nearest = sorted(others, key=lambda j: angles[i, j].item())[:9]
            purity.append(np.mean([labels[j].item() == labels[i].item() for j in nearest]))
        assert value(found, "within_class_angle", group, 2) == pytest.approx(np.mean(within), abs=1e-5)
        assert value(found, "between_class_angle", group, 2) == pytest.approx(np.mean(between), abs=1e-5)
        assert found.neighbours == 9
        assert value(found, "knn_purity", group, 2) == pytest.approx(np.mean(purity))


def test_interval_covers_what_resampling_gives():
    """The half-width of the bootstrap interval is 1.96 standard deviations of the mean over fresh samples."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(60) % 3

    def sample():
        centres = torch.eye(4)[labels][:, None].expand(-1, 3, -1)
        return torch.stack([centres + 0.3 * torch.randn(60, 3, 4, generator=generator)] * 2)

    means = [value(feed(sample(), labels, replicates=2).details(), "within_class_angle") for _ in range(60)]
    rows = feed(sample(), labels, replicates=400).details().table
    row = rows.query("statistic == 'within_class_angle' and group == 'cls' and layer == 1").iloc[0]
    assert (row["high"] - row["low"]) / 2 == pytest.approx(1.96 * np.std(means), rel=0.35)


def test_the_sample_does_not_depend_on_batches_or_order():
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(2, 300, 3, 4, generator=generator)
    labels = torch.randint(0, 12, (300,), generator=generator)
    limits = {"max_images": 40, "max_classes": 5, "seed": 3}
    whole = feed(states, labels, **limits).sample()
    parts = feed(states, labels, sizes=7, order=torch.randperm(300, generator=generator), **limits).sample()
    for first, second in zip(whole, parts, strict=True):
        torch.testing.assert_close(first, second)
    assert len(whole[1].unique()) == 5
    assert whole[1].unique(return_counts=True)[1].max() <= 8
    assert len(feed(states, labels, sizes=7, **limits).labels) < 40  # lists are thinned as they grow


def test_choice_has_equal_places():
    labels = np.array([0] * 50 + [1] * 4 + [2] * 50)
    chosen = choose(labels, np.arange(104), 30, 3, 0)
    assert np.bincount(labels[chosen]).tolist() == [10, 4, 10]
    assert (np.diff(chosen) > 0).all()


def test_projection_is_the_principal_plane():
    """Points on an ellipse in the plane of axes 1 and 3: x along the long axis, both axes all the variance."""
    turn = torch.arange(40) / 40 * 2 * math.pi
    flat = torch.stack([torch.full((40,), 5.0), 2 * turn.cos(), torch.zeros(40), turn.sin()], -1)
    states = torch.stack([flat[:, None].expand(-1, 3, -1)] * 2)
    found = feed(states, torch.arange(40) % 2).details()
    last = found.projection.query("layer == 1").sort_values("position")
    unit = flat / flat.norm(dim=1, keepdim=True)
    assert abs(np.corrcoef(last["x"], unit[:, 1])[0, 1]) == pytest.approx(1, abs=1e-6)
    assert abs(np.corrcoef(last["y"], unit[:, 3])[0, 1]) == pytest.approx(1, abs=1e-6)
    assert sum(found.explained) > 0.95
    assert set(found.projection["layer"]) == {0, 1}


def test_small_angles_are_exact():
    angles = angles_between(circle([0.0, 1e-3, 1e-3 + 2e-3])[:, 0])
    assert angles[0, 1] == pytest.approx(1e-3, rel=1e-3)
    assert angles[1, 2] == pytest.approx(2e-3, rel=1e-3)


def test_without_labels_or_with_one_image_a_class():
    states = torch.randn(2, 4, 3, 4)
    metric = AngularBasins(LAYOUT, 1, 4)
    metric.update(Trajectory(states, LAYOUT, torch.arange(4)))
    with pytest.raises(UsageError, match="need images with labels"):
        metric.details()
    with pytest.raises(UsageError, match="two classes with two images"):
        feed(states, [0, 1, 2, 3]).details()
    with pytest.raises(UsageError, match="two classes with two images"):
        feed(states, [0, 0, 0, 0]).details()


def test_classes_keep_their_sizes_in_the_bootstrap_where_they_are_balanced():
    positions = torch.arange(12)
    balanced = resampled(torch.arange(12) % 3, positions, 50, 1)
    drawn = poisson_weights(list(range(12)), 50, 1).T
    for label in range(3):
        sizes = balanced[:, label::3].sum(1)
        np.testing.assert_allclose(sizes[drawn[:, label::3].sum(1) > 0], 4)
        assert not sizes[drawn[:, label::3].sum(1) == 0].any()
    assert torch.equal(resampled(torch.arange(12) // 5, positions, 50, 1), drawn)


def test_the_interval_of_the_purity_is_a_bootstrap_of_neighbours():
    """Each sample weighs every image, and each of its neighbours, as often as they were drawn."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(24) % 2
    states = torch.randn(3, 24, 5, 4, generator=generator)
    states[..., 0] += labels[None, :, None]
    found = feed(states, labels, replicates=40).details()
    weights = resampled(labels, torch.arange(24), 40, 0)
    angles = angles_between(states[1, :, 0]).fill_diagonal_(torch.inf)
    near = angles.argsort(1)[:, :10]
    share = []
    for drawn in weights:
        own = drawn[:, None] * drawn[near]
        share.append(float((own * (labels[near] == labels[:, None])).sum() / own.sum()))
    row = found.table.query("statistic == 'knn_purity' and group == 'cls' and layer == 1").iloc[0]
    np.testing.assert_allclose(
        row[["low", "high"]].astype(float), np.percentile(share, [2.5, 97.5]) + row["mean"] - np.mean(share)
    )


def test_an_interval_of_few_images_holds_no_impossible_value():
    """Taking off the bias of the draws would move ends past 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 8, 3, 4, generator=generator)
    rows = feed(states, torch.arange(8) % 2, replicates=200).details().table
    purity = rows[rows["statistic"] == "knn_purity"]
    assert purity[["low", "high"]].to_numpy().min() >= 0
    assert purity["high"].max() == 1
    assert (purity["low"] < purity["mean"]).all()
    assert (rows["low"].dropna() >= 0).all()
    angles = rows[rows["unit"].str.contains("radians")]
    assert (angles["high"] <= np.pi).all()


def test_the_interval_of_the_purity_covers_it():
    """Of samples of one population: neighbours are shared, so that images' own values are not independent."""
    generator = torch.Generator().manual_seed(3)
    centres, labels, found = torch.randn(10, 8, generator=generator), torch.arange(100) % 10, []
    for _ in range(60):
        tokens = centres[labels] + 1.5 * torch.randn(100, 8, generator=generator)
        states = tokens[:, None].expand(-1, 3, -1)
        rows = feed(torch.stack([states, states]), labels, width=8, replicates=100).details().table
        found.append(rows.query("statistic == 'knn_purity' and group == 'cls' and layer == 1").iloc[0])
    purity = np.mean([row["mean"] for row in found])
    assert np.mean([row["low"] < purity < row["high"] for row in found]) >= 0.9
