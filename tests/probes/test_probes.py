"""Probes: right on features with a known answer, alike for both solvers, the same for every model."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from sklearn.neighbors import KNeighborsClassifier

from brdyn.checked_json import parse
from brdyn.data import load_images
from brdyn.errors import UsageError
from brdyn.probes import (
    Features,
    Probing,
    Reading,
    compare,
    extract_features,
    fit_linear,
    nearest_neighbours,
    probe,
    read_classes,
)
from brdyn.probes.linear import PENALTIES, split_rows
from brdyn.store import to_json
from brdyn.trajectory import Stream
from tests.conftest import tiny_vit


def clusters(n=300, width=12, classes=4, noise=1.0, seed=0):
    """Classes around centres far from each other; more noise, more overlap."""
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99)) * 2
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=rng)
    return Features(centres[labels] + noise * torch.randn(n, width, generator=rng), labels)


@pytest.mark.parametrize("classes", [2, 4])
def test_both_solvers_find_the_same_minimum(classes):
    train, held_out = clusters(classes=classes, noise=2.5), clusters(classes=classes, noise=2.5, seed=1)
    first, second = (fit_linear(train, held_out, solver=solver, penalties=(0.1,)) for solver in ("sklearn", "torch"))
    torch.testing.assert_close(first.weight, second.weight, atol=2e-3, rtol=0)
    bias, other = (probe.bias - probe.bias.mean() for probe in (first, second))
    torch.testing.assert_close(bias, other, atol=2e-3, rtol=0)
    assert first.held_out_accuracy == pytest.approx(second.held_out_accuracy, abs=0.01)


def test_the_minimum_is_one():
    """The gradient of the penalised loss, written out, vanishes."""
    train = clusters(noise=2.5)
    found = fit_linear(train, train, solver="torch", penalties=(0.05,))
    weight = found.weight.double().requires_grad_(True)
    values = ((train.values - found.mean) / found.scale).double()
    logits = values @ weight.T + found.bias.double()
    loss = torch.nn.functional.cross_entropy(logits, train.labels, reduction="sum") * 0.05
    (loss + 0.5 * weight.square().sum()).backward()
    assert weight.grad.norm() < 1e-2 * weight.norm()


def test_the_penalty_is_chosen_on_held_out_images():
    train, held_out = clusters(n=40, width=200, noise=6.0), clusters(n=400, width=200, noise=6.0, seed=1)
    every = {penalty: fit_linear(train, held_out, penalties=(penalty,)) for penalty in (1e-4, 1e-2, 1.0)}
    chosen = fit_linear(train, held_out, penalties=(1.0, 1e-2, 1e-4))
    assert chosen.held_out_accuracy == pytest.approx(max(found.held_out_accuracy for found in every.values()), abs=0.01)


def test_a_class_without_training_images_is_never_predicted():
    train = clusters(classes=4)
    rest = train[train.labels != 2]
    for solver in ("sklearn", "torch"):
        found = fit_linear(rest, train, solver=solver)
        assert found.weight.shape[0] == 4
        assert 2 not in found.predict(train.values)


def test_one_class_is_refused():
    train = clusters()
    with pytest.raises(UsageError, match="two classes"):
        fit_linear(train[train.labels == 1], train)
    with pytest.raises(UsageError, match="unknown solver 'svm'"):
        fit_linear(train, train, solver="svm")


def test_neighbours_against_sklearn():
    """With a flat vote (infinite temperature) and one nearest neighbour, scikit-learn says the same."""
    train, test = clusters(noise=2.5), clusters(noise=2.5, seed=1)
    for neighbours, temperature in ((1, 0.07), (7, 1e9)):
        other = KNeighborsClassifier(neighbours, metric="cosine").fit(train.values.numpy(), train.labels.numpy())
        ours = nearest_neighbours(train, test.values, neighbours=neighbours, temperature=temperature)
        votes = other.predict_proba(test.values.numpy())
        clear = np.sort(votes, axis=1)[:, -1] > np.sort(votes, axis=1)[:, -2]  # ties may go either way
        assert (ours.numpy() == other.predict(test.values.numpy()))[clear].all()
        assert clear.mean() > 0.8


def test_votes_are_weighed_by_nearness():
    """One neighbour at cosine 1 against two at cosine 0.6 of another class."""
    train = Features(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]]), torch.tensor([0, 1, 1]))
    test = torch.tensor([[2.0, 0.0]])
    assert nearest_neighbours(train, test, temperature=0.07).tolist() == [0]
    assert nearest_neighbours(train, test, temperature=10.0).tolist() == [1]


def test_more_neighbours_than_features():
    train = clusters(n=5)
    assert len(nearest_neighbours(train, train.values, neighbours=20)) == 5


def test_probing_compares_alike():
    train, test = clusters(), clusters(seed=1)
    rng = torch.Generator().manual_seed(5)
    noise = [6 * torch.randn(part.values.shape, generator=rng) for part in (train, test)]
    blurred = [Features(part.values + more, part.labels) for part, more in zip((train, test), noise, strict=True)]
    found = probe(
        {"teacher": train, "same": train, "blurred": blurred[0]},
        {"teacher": test, "same": test, "blurred": blurred[1]},
    )
    ratios = found.ratios.set_index(["model", "probe"])
    for kind in ("knn", "linear"):
        assert found.accuracy("teacher", kind) > 0.95
        same = ratios.loc[("same", kind)]
        assert (same["ratio"], same["low"]) == (1.0, pytest.approx(1 / same["high"]))
        assert 1 < same["high"] < 1.02
        blurry = ratios.loc[("blurred", kind)]
        assert blurry["low"] < blurry["ratio"] < blurry["high"] < 0.9
        assert blurry["ratio"] == pytest.approx(found.accuracy("blurred", kind) / found.accuracy("teacher", kind))
    assert found.table.groupby(["model", "probe"]).size().tolist() == [1, 3] * 3
    assert found.most_frequent == pytest.approx(test.labels.bincount().max().item() / 300)
    again = Probing.from_dict(found.to_dict())
    assert again.table.equals(found.table)
    assert again.ratios.equals(found.ratios)


def test_a_ratio_is_of_the_first_models_accuracy():
    truth = torch.zeros(8, dtype=torch.long)

    def reading(right):
        hits = torch.arange(8)[None] < right
        return Reading({"knn": hits, "linear": hits}, (1.0,), truth, 20, 2)

    ratios = compare({"teacher": reading(4), "other": reading(1)}).ratios
    assert ratios["ratio"].tolist() == [0.25, 0.25]


def test_readings_of_other_images_are_refused_and_another_number_of_seeds_has_no_spread():
    truth, hits = torch.tensor([0, 1, 0, 1]), torch.tensor([[True, False, True, True]] * 3)
    first = Reading({"linear": hits}, (1.0,) * 3, truth, 8, 2)
    fewer = Reading({"linear": hits[:2], "head": hits[:1]}, (1.0,) * 2, truth, 8, 2)
    ratios = compare({"teacher": first, "other": fewer}).ratios
    assert (ratios["probe"].tolist(), ratios["ratio"].tolist()) == (["linear"], [1])
    assert ratios["sd"].isna().all()
    assert compare({"teacher": first, "other": first}).ratios["sd"].tolist() == [0]
    for other in (truth.flip(0), torch.tensor([0, 1])):
        with pytest.raises(UsageError, match="'other' was tested on other images than 'teacher'"):
            compare({"teacher": first, "other": Reading({"linear": hits}, (1.0,) * 3, other, 8, 2)})


def test_no_share_is_kept_of_an_accuracy_of_zero():
    truth, none = torch.tensor([0, 1, 0, 1]), torch.zeros(1, 4, dtype=torch.bool)
    one = torch.tensor([[True, False, False, False]])
    found = compare(
        {
            name: Reading({"knn": hits, "linear": hits}, (1.0,), truth, 8, 2)
            for name, hits in (("teacher", none), ("other", one))
        }
    )
    assert found.ratios[["ratio", "low", "high", "sd"]].isna().all(axis=None)
    again = Probing.from_dict(parse(to_json(found.to_dict())))
    assert again.ratios.equals(found.ratios)
    assert "other keeps no share of an accuracy of 0 by the k-NN probe" in again.remarks()
    assert "nan" not in " ".join(again.remarks())


@pytest.mark.parametrize("right", [0, 1, 7, 20])
def test_intervals_of_accuracies_are_wilsons(right):
    hits = (torch.arange(20) < right)[None]
    truth = torch.tensor([0, 1] * 10)
    found = compare({"a": Reading({"knn": hits, "linear": hits}, (1.0,), truth, 20, 2)}).means()
    expected = binomtest(right, 20).proportion_ci(method="wilson")
    assert found[["low", "high"]].to_numpy().ravel() == pytest.approx([*expected] * 2, abs=1e-6)
    assert (found["low"] >= 0).all()  # -0.0% would be said


def test_a_penalty_at_the_end_of_the_grid_is_named():
    table = pd.DataFrame(
        [("a", "knn", math.nan), ("a", "linear", 1.0), ("b", "linear", 1.0), ("b", "linear", PENALTIES[0])],
        columns=["model", "probe", "penalty"],
    )
    assert Probing(table, pd.DataFrame(), 10, 10, 2, 0.5).at_the_end() == ["b"]


def test_chance_on_noise():
    rng = torch.Generator().manual_seed(0)
    parts = [Features(torch.randn(600, 10, generator=rng), torch.randint(5, (600,), generator=rng)) for _ in range(2)]
    found = probe({"noise": parts[0]}, {"noise": parts[1]}, seeds=1)
    assert found.accuracy("noise", "knn") == pytest.approx(0.2, abs=0.06)
    assert found.accuracy("noise", "linear") == pytest.approx(0.2, abs=0.06)
    assert found.ratios.empty


def test_splits_begin_at_the_seed():
    train, test = clusters(noise=3.0), clusters(noise=3.0, seed=1)
    readings = {(seed, seeds): read_classes(train, test, seed=seed, seeds=seeds) for seed, seeds in ((0, 3), (1, 2))}
    assert torch.equal(readings[0, 3].hits["linear"][1:], readings[1, 2].hits["linear"])
    assert not torch.equal(*(one.hits["linear"][0] for one in readings.values()))


def test_the_seed_of_a_row_is_the_number_of_its_split():
    train, test = clusters(noise=3.0), clusters(noise=3.0, seed=1)
    rows = probe({"a ViT": train}, {"a ViT": test}, seeds=2, seed=5).table.set_index(["probe", "seed"])
    assert rows.index.tolist() == [("knn", 0), ("linear", 0), ("linear", 1)]
    for number in (0, 1):
        alone = read_classes(train, test, seeds=1, seed=5 + number)
        assert rows.loc[("linear", number), "penalty"] == alone.penalties[0]
        assert rows.loc[("linear", number), "accuracy"] == alone.hits["linear"].double().mean()


def test_splits_are_disjoint_and_stratified():
    labels = torch.tensor([0] * 10 + [1] * 50 + [2])
    fitting, kept = split_rows(labels, seed=0)
    assert sorted([*fitting, *kept]) == list(range(61))
    assert torch.bincount(labels[kept], minlength=3).tolist() == [2, 10, 0]
    assert not np.array_equal(kept, split_rows(labels, seed=1)[1])
    with pytest.raises(UsageError, match="at least three images"):
        split_rows(torch.arange(5), seed=0)


def test_strange_classes_are_refused():
    train, test = clusters(classes=3), clusters(classes=4)
    with pytest.raises(UsageError, match=r"no training image has \(number 3\)"):
        probe({"a": train}, {"a": test})
    with pytest.raises(UsageError, match="0 seeds"):
        probe({"a": train}, {"a": train}, seeds=0)


@pytest.fixture
def classes(noise_folder):
    for name in ("a", "b"):
        (noise_folder / name).mkdir()
    for path in sorted(noise_folder.glob("*.png")):
        path.rename(noise_folder / ("a" if int(path.stem) % 2 else "b") / path.name)
    return noise_folder


@pytest.mark.parametrize("batch_size", [3, 40])
def test_features_are_cls_and_the_mean_patch(classes, batch_size):
    model = tiny_vit()
    images = load_images(classes, model)
    found = extract_features(model, images, stream=Stream(batch_size=batch_size, workers=0))["model"]
    whole = torch.cat([batch.images for batch in images.batches(40, workers=0)])
    with torch.no_grad():
        tokens = model(whole)
    expected = torch.cat([tokens[:, 0], tokens[:, model.tokens["patches"]].mean(1)], dim=1)
    torch.testing.assert_close(found.values, expected, atol=1e-5, rtol=1e-4)
    assert found.labels.tolist() == [0] * 20 + [1] * 20


def test_images_without_labels_are_refused(noise_folder):
    model = tiny_vit()
    with pytest.raises(UsageError, match="images with labels"):
        extract_features(model, load_images(noise_folder, model))
