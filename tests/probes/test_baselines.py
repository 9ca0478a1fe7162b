"""What knowing nothing of an image gets, by hand; and that results without it are read."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import brdyn
from brdyn.errors import BrdynError
from brdyn.plots import plot_layer_scores
from brdyn.probes import Depth, LayerProbe, Segmentation, baselines
from brdyn.probes.baselines import baseline_scores, blind_map, count_blind
from brdyn.probes.counts import Counts
from brdyn.probes.layer_choice import KEY
from brdyn.probes.layer_result import CLASSES, RUNS
from brdyn.probes.scores import ClassScore, resamples
from brdyn.probes.stores import FeatureStore


def store(targets):
    """Images of one patch, of which only the targets count; the file has room for one more than could be read."""
    room = np.concatenate([targets, np.ones_like(targets[:1])])
    return FeatureStore(np.zeros((len(room), 1, 1, 1)), room, (1,), (1, 1), False, list(range(len(targets))))


def test_the_mean_depth_at_each_pixel_by_hand():
    training = store(np.array([[[1.0, 2.0, 0.0]], [[3.0, 0.0, 0.0]]], np.float32))
    task = Depth(most=10.0)
    answer = blind_map(task, training)
    assert answer.tolist() == [[2.0, 2.0, 2.0]]  # (1 + 3) / 2, 2 alone, and where there is none (1 + 2 + 3) / 3
    testing = store(np.array([[[2.0, 4.0, 0.0]], [[1.0, 2.0, 2.0]]], np.float32))
    counted = count_blind(task, answer, testing)
    np.testing.assert_allclose(counted, [[2, 4, 0.5, 1], [3, 1, 1, 2]])
    scores = baseline_scores(task.score, counted, resamples(2)).set_index("score")
    assert scores["value"].to_dict() == pytest.approx({"rmse": 1.0, "delta1": 3 / 5, "absrel": 1.5 / 5})
    assert (1 / 3) ** 0.5 < scores.loc["rmse", "low"] < 0.7  # the second image alone
    assert 1.3 < scores.loc["rmse", "high"] < 2**0.5


@pytest.mark.parametrize("most", [1, 10**6])  # rows of pixels one by one, and all at once
def test_the_most_frequent_class_at_each_pixel_by_hand(most, monkeypatch):
    monkeypatch.setattr(baselines, "MOST_COUNTS", most)
    monkeypatch.setattr(baselines, "IMAGES", 2)
    training = store(np.array([[[0, 1], [-1, 2]], [[0, 1], [-1, 2]], [[1, 2], [-1, 1]]], np.int16))
    task = Segmentation(["sky", "road", "car"])
    answer = blind_map(task, training)
    assert answer.tolist() == [[0, 1], [1, 2]]  # where all is void: road, the most frequent of all (4 of 9)
    testing = store(np.array([[[0, 0], [1, -1]]], np.int16))
    counted = count_blind(task, answer, testing)
    assert counted.tolist() == [[1, 1, 0, 1, 2, 0, 2, 1, 0]]
    scores = baseline_scores(task.score, counted, resamples(1)).set_index("score")
    assert scores.loc["miou", "value"] == pytest.approx((1 / 2 + 1 / 2) / 2)  # no car to be seen
    assert scores.loc["pixel_accuracy", "value"] == pytest.approx(2 / 3)
    assert np.isnan(scores.loc["miou", "low"])  # one image does not vary


def test_targets_are_read_some_images_at_a_time(monkeypatch):
    read = []

    class Noted(np.ndarray):
        def __getitem__(self, key):
            read.append(len(range(*key[0].indices(len(self)))))
            return np.asarray(self)[key]

    made = store(np.ones((40, 2, 2), np.float32))
    noted = FeatureStore(made.values, made.targets.view(Noted), (1,), (1, 1), False, made.positions)
    monkeypatch.setattr(baselines, "IMAGES", 16)
    assert blind_map(Depth(10.0), noted).eq(1).all()
    assert read == [16, 16, 8]


def probed(right, frequent):
    """A result of two layers: which of the test images each names right, and the baseline."""
    count = len(frequent)
    counts, ones, weights = Counts(ClassScore()), np.ones(count), resamples(count)
    for place, own in zip(("1", "2"), right, strict=True):
        counts.add("a ViT", place, "linear", np.stack([np.array(own, float), ones], -1))
    return LayerProbe(
        task="classification",
        scores=counts.scores(weights),
        pairs=counts.pairs(weights, {}),
        runs=pd.DataFrame(columns=RUNS),
        classes=pd.DataFrame(columns=CLASSES),
        sets={},
        words=dict(ClassScore.words),
        notes=(),
        sizes={"fit": 8, "test": count},
        counted=counts.table(range(count)),
        baseline=baseline_scores(ClassScore(), np.stack([np.array(frequent, float), ones], -1), weights),
    )


def test_what_is_no_better_than_knowing_nothing_is_said(tmp_path):
    found = probed([[1, 0, 0, 0] * 2, [1, 1, 1, 1] * 2], [1, 0, 1, 0] * 2)
    assert found.answer().endswith(
        "layer 2: accuracy 100.0% (67.6% to 100.0%); the most frequent class alone gets 50.0%"
    )
    said = found.summary()
    assert "the most frequent class, whatever the image: accuracy 50.0% (21.5% to 78.5%)" in said
    assert said.splitlines()[-1] == "not shown to be better than that: a ViT, linear at layer 1"
    assert found.numbers()["the most frequent class alone: accuracy"] == 0.5
    line = plot_layer_scores(found, title="").axes[0].get_lines()[-1]
    assert (line.get_label(), line.get_linestyle(), set(line.get_ydata())) == (
        "most frequent class",
        "--",
        {0.5},
    )
    found.save(tmp_path / "run")
    assert brdyn.read(tmp_path / "run") == found


@pytest.mark.parametrize(("images", "beats"), [(2, False), (5, False), (6, True)])
def test_few_images_beat_nothing(images, beats):
    """All right where one image alone is of the most frequent class: Wilson's interval begins above that already."""
    found = probed([[1] * images, [0] * images], [1] + [0] * (images - 1))
    assert found.scores.loc[0, "low"] > found.baseline.loc[0, "value"] or images == 2
    assert found.beats_baseline("1") == beats
    assert not found.beats_baseline("2")


def test_examples_that_are_damaged_are_said(tmp_path):
    found = replace(probed([[1], [1]], [1]), examples={"image": np.zeros((4, 4))})
    found.save(tmp_path)
    path = tmp_path / "examples.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BrdynError, match=r"examples.safetensors' as safetensors \(truncated: "):
        brdyn.read(tmp_path)


def test_a_result_without_a_baseline_is_read(tmp_path):
    probed([[1, 0, 0, 0], [1, 1, 1, 1]], [1, 0, 1, 0]).save(tmp_path)
    path = tmp_path / "layer_probe.json"
    content = json.loads(path.read_text())
    del content["baseline"]
    path.write_text(json.dumps(content))
    earlier = brdyn.read(tmp_path)
    assert earlier.baseline.empty
    assert earlier.answer().endswith("layer 2: accuracy 100.0% (51.0% to 100.0%)")
    assert len(plot_layer_scores(earlier, title="").axes[0].get_lines()) == 1


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        # Layer 2 is better on the test images, and layer 1 on those that choose.
        ([0.9, 0.8], "chosen on held-out images: a ViT at layer 1: accuracy 25.0% (4.6% to 69.9%); the best on the "
         "test images (optimistic): a ViT at layer 2: accuracy 50.0% (15.0% to 85.0%); the most"),
        ([0.8, 0.9], "chosen on held-out images: a ViT at layer 2: accuracy 50.0% (15.0% to 85.0%); the most"),
        ([0.9, 0.9], "chosen on held-out images: a ViT at layer 2: accuracy 50.0% (15.0% to 85.0%); the most"),
    ],
)  # fmt: skip
def test_the_answer_is_the_place_that_held_out_images_chose(held_out, said, tmp_path):
    found = probed([[1, 0, 0, 0], [1, 1, 0, 0]], [1, 0, 1, 0])
    runs = found.scores[KEY].assign(seed=0, penalty=1.0, epoch=np.nan, held_out=held_out)
    chosen = replace(found, runs=runs)
    assert said in chosen.answer()
    chosen.save(tmp_path)
    assert said in brdyn.read(tmp_path).answer()


def test_of_errors_held_out_images_choose_the_least():
    found = probed([[1, 0, 0, 0], [1, 1, 0, 0]], [1, 0, 1, 0])
    runs = found.scores[KEY].assign(held_out=[0.2, 0.1])
    depth = replace(
        found, task="depth", runs=runs, words={"rmse": "RMSE"}, scores=found.scores.assign(score="rmse"),
        baseline=found.baseline[:0],
    )  # fmt: skip
    assert depth.answer() == (
        "depth, 2 places, chosen on held-out images: a ViT at layer 2: RMSE 0.500 (0.150 to 0.850); the best on the "
        "test images (optimistic): a ViT at layer 1: RMSE 0.250 (0.046 to 0.699)"
    )


def test_the_best_place_on_the_test_images_is_of_all_probes_and_called_optimistic():
    found = probed([[1, 0, 0, 0], [1, 1, 0, 0]], [1, 0, 1, 0])
    rows = found.scores.assign(probe="ridge", value=[0.75, 0.0])
    both = replace(found, scores=pd.concat([found.scores, rows], ignore_index=True))
    assert "the best on the test images (optimistic): a ViT at layer 1 by ridge: accuracy 75.0%" in both.answer()


def test_of_layers_that_were_chosen_together_the_answer_is_these():
    """Whatever single layers had on held-out images; so it is in results that did not keep that."""
    found = probed([[1, 0, 0, 0], [1, 1, 0, 0]], [1, 0, 1, 0])
    together = found.scores.iloc[:1].assign(place="1+2", value=0.4)
    chosen = replace(found, scores=pd.concat([found.scores, together], ignore_index=True), sets={"chosen": "1+2"})
    assert "chosen on held-out images: a ViT at layers 1+2 (chosen): accuracy 40.0%" in chosen.answer()


def test_one_test_image_has_no_interval():
    counts = Counts(ClassScore())
    for place in ("1", "2"):
        counts.add("a ViT", place, "linear", np.ones((1, 2)))
    scores = counts.scores(counts.weights(0))
    assert scores["value"].tolist() == [1, 1]
    assert scores[["low", "high"]].isna().all(axis=None)
    found = replace(probed([[1, 0, 0, 0], [1, 1, 1, 1]], [1, 0, 1, 0]), scores=scores, sizes={"fit": 8, "test": 1})
    assert "layer 1: accuracy 100.0%;" in found.answer()
    assert "too few test images to tell layers apart" in found.summary()
