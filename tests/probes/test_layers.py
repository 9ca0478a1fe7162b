"""Probes by layer, from images to a result: perfect where features are the labels, paired, chosen, refused."""

import io
import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

import brdyn
from brdyn.data import DepthTargets, MaskTargets, load_dense, load_images
from brdyn.errors import UsageError
from brdyn.models import ModelInfo, Preprocessing, TokenLayout, VisionTransformer
from brdyn.probes import FeatureMetric, LayersAsked, Recipe, extract_features, fit_linear, probe_layers
from brdyn.probes.baselines import baseline_scores
from brdyn.probes.classes import CHOOSING_PENALTIES
from brdyn.probes.counts import Counts
from brdyn.probes.features import read_out
from brdyn.probes.layer_choice import alternatives, greedy
from brdyn.probes.linear import split
from brdyn.probes.scores import ClassScore, resamples
from brdyn.probes.stores import SPARED, Readout, check_room, extract_stores, image_bytes
from brdyn.trajectory import Stream
from tests.conftest import tiny_vit

ALONE = Stream(workers=0, batch_size=8)
QUICK = Recipe(epochs=40, batch_size=4, lr=0.05, penalties=(0.0,), points=64)


class Painter(VisionTransformer):
    """A model whose features are the colours of its patches, behind noise."""

    def __init__(self, depth=3, noise=0.0):
        super().__init__()
        self.blocks, self.norm = nn.ModuleList(nn.Identity() for _ in range(depth)), nn.Identity()
        self.scale = nn.Parameter(torch.ones(1))
        self.noise = noise
        self.tokens = TokenLayout.with_prefix((4, 4), {"cls": 1})
        self.preprocessing = Preprocessing((32, 32), mean=(0.0,) * 3, std=(1.0,) * 3)
        self.info = ModelInfo("painter", "test", depth, 3, 1, 8, (32, 32), 1, "none", "test weights", "0" * 64)

    def embed(self, images):
        colours = nn.functional.avg_pool2d(images, 8).flatten(2).transpose(1, 2)
        noise = self.noise * torch.randn(colours.shape, generator=torch.Generator().manual_seed(len(images)))
        self.clean, dim = (torch.cat([part.mean(1, keepdim=True), part], 1) for part in (colours, colours + noise))
        return dim


class Clear(nn.Module):
    """A block that knows the colours behind the noise."""

    def __init__(self, model):
        super().__init__()
        self.seen = [model]

    def forward(self, state):
        return self.seen[0].clean


def encoded(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def table(path, images, targets, column="mask", **metadata):
    columns = {
        name: [{"bytes": encoded(one), "path": None} for one in values]
        for name, values in (("image", images), (column, targets))
    }
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


COLOURS = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], dtype=np.uint8)


def painted(count, seed=0):
    """Columns of one class each, painted in its colour; a tenth of the pixels of the mask is void."""
    rng = np.random.default_rng(seed)
    masks = [np.repeat(np.tile(rng.integers(0, 3, 4), (32, 1)), 8, 1).astype(np.uint8) for _ in range(count)]
    images = [COLOURS[mask] for mask in masks]
    for mask in masks:
        mask[rng.random(mask.shape) < 0.1] = 9
    return images, masks


@pytest.fixture
def streets(tmp_path):
    said = {"classes": json.dumps(["red", "green", "blue", "cow"]), "ignore_index": "9"}
    return [table(tmp_path / f"{name}.parquet", *painted(*which), **said) for name, which in
            {"train": (12, 0), "test": (6, 1)}.items()]  # fmt: skip


def loaded(paths, model, task="segmentation", **options):
    return [load_dense(path, model, task, **options) for path in paths]


def test_a_backbone_whose_features_are_the_labels(streets, tmp_path):
    model = Painter(noise=2.0)
    model.blocks[2] = Clear(model)
    found = probe_layers(model, *loaded(streets, model), seeds=2, recipe=QUICK, stream=ALONE)
    assert found.value("miou", "3") == found.value("miou", "3", "ridge") == 1
    assert found.value("miou", "1") < 0.8  # behind the noise
    assert found.sizes == {"fit": 10, "choose": 2, "test": 6}
    assert set(found.scores["seeds"]) == {2}
    held_out = found.runs.groupby(["place", "probe"])["held_out"].mean()
    assert held_out["3", "linear"] == held_out["3", "ridge"] == 1
    assert held_out["1"].lt(0.8).all()
    assert found.caption == "fitted on 12 and tested on 6 images of 32 × 32 pixels"
    assert replace(found, sizes={"fit": 2244, "test": 1056}).caption.startswith("fitted on 2,244 and tested on 1,056 ")
    assert found.notes == (
        "pixels of 9 are void and do not count",
        "no test image holds cow: left out of the mean",
    )
    row = found.scores[(found.scores["place"] == "1") & (found.scores["score"] == "miou")].iloc[0]
    assert row["low"] <= row["value"] <= row["high"]
    cow = found.classes[found.classes["class"] == "cow"]
    assert cow["iou"].isna().all()
    void = sum((mask == 9).sum() for mask in painted(6, 1)[1])
    pixels = found.classes[(found.classes["place"] == "3") & (found.classes["probe"] == "linear")]["pixels"]
    assert pixels.sum() == 6 * 32 * 32 - void
    # what was counted gives the scores again
    rows = found.counted[(found.counted["place"] == "1") & (found.counted["probe"] == "linear")]
    hits, true = (rows[[f"{what} {name}" for name in ("red", "green", "blue")]].to_numpy() for what in ("hits", "true"))
    own = found.scores[(found.scores["place"] == "1") & (found.scores["score"] == "pixel_accuracy")]
    assert own[own["probe"] == "linear"]["value"].item() == pytest.approx(hits.sum() / true.sum(), abs=0.01)

    found.save(tmp_path / "run", figures=brdyn.plots.draw(found))
    again = brdyn.read(tmp_path / "run")
    assert again == found
    assert set(again.examples) == {"image", "truth", "score", "said painter"}
    np.testing.assert_array_equal(again.examples["truth"], found.examples["truth"])
    assert again.examples["score"].tolist() == sorted(again.examples["score"].tolist())
    said = again.summary()
    assert "10 images to fit heads on, 2 to choose penalty and epoch by, 6 test images" in said
    assert "layer 3 by linear: mean IoU 100.0%;" in said  # images that are all alike have no interval
    assert found.beats_baseline("3")
    assert "no test image holds cow" in said


def test_depth_of_a_backbone_that_knows_it(tmp_path):
    rng = np.random.default_rng(0)
    model = Painter()
    paths = []
    for name, count in (("train", 24), ("test", 8)):
        metres = rng.uniform(1, 9, count)
        images = [np.full((32, 32, 3), round(25 * one), np.uint8) for one in metres]
        depths = [np.full((32, 32), round(1000 * one), np.uint16) for one in metres]
        for depth in depths:
            depth[:4] = 0
        paths.append(table(tmp_path / f"{name}.parquet", images, depths, "depth"))
    pairs = loaded(paths, model, "depth", targets=DepthTargets.of("mm"))
    recipe = replace(QUICK, epochs=80, points=16, fading=False)
    found = probe_layers(model, *pairs, layers="3", seeds=1, recipe=recipe, stream=ALONE)
    assert found.task == "depth"
    assert found.value("rmse", "3") < 0.5  # of 8 m; a constant has 2.3
    assert found.value("delta1", "3") > 0.9
    assert 0 < found.runs["held_out"].item() < 0.5  # in metres
    assert found.counted["pixels"].tolist() == [28 * 32] * 8
    assert "RMSE (m)" in found.summary()


def test_the_best_layers_are_chosen_and_set_beside_others(streets):
    model = Painter(depth=4, noise=2.0)
    model.blocks[1] = Clear(model)
    phases = [2]
    found = probe_layers(
        model, *loaded(streets, model), layers="choose:2", phases=phases, seeds=1, recipe=QUICK, stream=ALONE
    )
    assert found.sets["last 2"] == "3+4"
    assert found.sets["regular"] == "2+4"
    assert found.sets["phase ends"] == "2+4"
    assert found.value("miou", found.sets["best single"]) == 1
    assert found.value("miou", found.sets["chosen"]) == 1
    rows = found.pairs[found.pairs["kind"] == "set"]
    held = rows[rows["probe"] == "linear"][["first", "second"]].itertuples(index=False)
    assert list(map(tuple, held)) == [
        ("best single", "chosen"), ("last 2", "chosen"), ("regular", "chosen"), ("phase ends", "chosen"),
        ("regular", "phase ends"),
    ]  # fmt: skip
    assert rows["difference"].eq(0).all()
    assert rows[["low", "high"]].isna().all(axis=None)  # images that are all alike have no interval
    assert found.ends == (2,)
    assert "chosen" in found.summary()
    axes = brdyn.plots.draw(found)["scores"].axes[0]
    lines = {line.get_label() for line in axes.get_lines()}
    assert "regular, phase ends: 2+4" in {name.removeprefix("chosen, ") for name in lines}


def test_two_models_are_paired_on_the_same_images(streets):
    model, worse = Painter(noise=0.0), Painter(noise=0.0)

    def dulled(trajectory):
        return [state * torch.tensor([1.0, 0, 0]) for state in trajectory.states]

    both = {"teacher": Readout(model), "raptor": Readout(worse, dulled)}
    found = probe_layers(model, *loaded(streets, model), layers="3", seeds=1, recipe=QUICK, readouts=both, stream=ALONE)
    assert found.models == ["teacher", "raptor"]
    row = found.pairs[(found.pairs["kind"] == "model") & (found.pairs["probe"] == "linear")].iloc[0]
    assert (row["first"], row["second"]) == ("teacher", "raptor")
    assert row["ratio"] == pytest.approx(found.value("miou", "3", model="raptor") / found.value("miou", "3"))
    assert row["ratio"] < row["ratio_high"] < 1
    assert set(found.examples) == {"image", "truth", "score", "said teacher", "said raptor"}


def test_a_paired_interval_is_narrower_than_the_two_apart():
    rng, counts = np.random.default_rng(0), Counts(ClassScore())
    first = (rng.random(400) < 0.7).astype(float)
    second = np.where(rng.random(400) < 0.02, 0, first)  # wrong a little more often, on the same images
    for name, right in (("teacher", first), ("raptor", second)):
        counts.add(name, "12", "linear", np.stack([right, np.ones(400)], -1))
    weights = counts.weights(0)
    pair = counts.pairs(weights, {}).iloc[0]
    assert pair["difference"] == pytest.approx(second.mean() - first.mean())
    assert pair["ratio"] == pytest.approx(second.mean() / first.mean())
    alone = counts.scores(weights).set_index("model").loc["teacher"]
    assert pair["high"] - pair["low"] < 0.4 * (alone["high"] - alone["low"])
    assert pair["high"] <= 0


def test_shares_need_no_bootstrap(monkeypatch):
    """What weighs images a thousand times is not drawn, and changes nothing."""
    counts, right = Counts(ClassScore()), np.arange(6) % 2.0
    for name, hits in (("teacher", right), ("raptor", 1 - right)):
        counts.add(name, "1", "linear", np.stack([hits, np.ones(6)], -1))
    drawn, none = resamples(6), counts.weights(0)
    assert none.shape == (0, 6)
    pd.testing.assert_frame_equal(counts.scores(none), counts.scores(drawn))
    pd.testing.assert_frame_equal(counts.pairs(none, {}), counts.pairs(drawn, {}))
    counted = counts.of(("teacher", "1", "linear"))[0]
    blind = [baseline_scores(ClassScore(), counted, weights) for weights in (none, drawn)]
    pd.testing.assert_frame_equal(*blind)


def test_no_ratio_is_to_a_score_of_zero(streets, tmp_path):
    counts = Counts(ClassScore())
    for name, hits in (("teacher", [0.0] * 4), ("raptor", [1.0, 0, 0, 0])):
        counts.add(name, "1", "linear", np.stack([hits, np.ones(4)], -1))
    weights, model = counts.weights(0), Painter()
    one = probe_layers(model, *loaded(streets, model), layers="1", seeds=1, recipe=QUICK, stream=ALONE)
    found = replace(
        one, words=dict(ClassScore.words), scores=counts.scores(weights), pairs=counts.pairs(weights, {}),
        counted=counts.table(range(4)), baseline=one.baseline[:0],
    )  # fmt: skip
    assert found.pairs[["ratio", "ratio_low", "ratio_high"]].isna().all(axis=None)
    assert found.pairs["difference"].tolist() == [0.25]
    found.save(tmp_path / "run", figures={})
    again = brdyn.read(tmp_path / "run")
    assert again == found
    assert "raptor at layer 1 (linear): no share of the accuracy of teacher, which is 0" in again.remarks()


def test_the_published_protocol_is_marked(streets):
    model = Painter()
    learning, testing = loaded(streets, model)
    recipe = replace(Recipe.of("segmentation", published=True), epochs=2, batch_size=4)
    found = probe_layers(model, learning, testing, layers="last", seeds=1, recipe=recipe, published=True, stream=ALONE)
    assert found.alike()["protocols"] == "published"
    assert "optimistic" in found.summary()
    assert found.sizes == {"fit": 12, "choose": 0, "test": 6}
    assert found.probes == ["linear"]
    assert found.runs["held_out"].isna().all()  # the test images chose
    with pytest.raises(UsageError, match=r"so `val` goes without it"):
        probe_layers(model, learning, testing, val=testing, published=True, stream=ALONE)


def test_crops_and_flips_with_the_backbone_in_the_loop(streets):
    model = Painter()
    recipe = replace(QUICK, epochs=12)
    found = probe_layers(
        model, *loaded(streets, model), layers="last", seeds=1, recipe=recipe, augment=True, stream=ALONE
    )
    assert found.value("miou", "3") > 0.9
    assert any("crops and flips" in note for note in found.notes)


def test_images_to_choose_by_can_be_given(streets, tmp_path):
    model = Painter()
    learning, testing = loaded(streets, model)
    val = load_dense(table(tmp_path / "val.parquet", *painted(5, 7), ignore_index="9"), model, "segmentation")
    found = probe_layers(
        model,
        learning,
        testing,
        val=val,
        layers="last",
        seeds=2,
        recipe=replace(QUICK, epochs=2),
        stream=ALONE,
    )
    assert found.sizes == {"fit": 12, "choose": 5, "test": 6}
    assert found.runs.groupby("probe")["seed"].apply(list).to_dict() == {"linear": [0, 1], "ridge": [0]}
    spread = found.scores[found.scores["score"] == "miou"].set_index("probe")
    assert spread["seeds"].to_dict() == {"linear": 2, "ridge": 1}
    assert np.isnan(spread.loc["ridge", "sd"])  # there is no chance in it


def test_classes_by_layer(little_cifar):
    model = tiny_vit()
    train, test = (load_images(little_cifar[name], model) for name in ("train", "test"))
    test = test.take(np.arange(20))
    found = probe_layers(model, train.take(np.arange(60)), test, layers="2,4", seeds=2, stream=ALONE)
    assert found.task == "classification"
    assert found.table("accuracy").index.tolist() == ["2", "4"]
    last = brdyn.probe_images(model, train.take(np.arange(60)), test, seeds=2, stream=ALONE)
    for probe in ("knn", "linear"):
        assert found.value("accuracy", "4", probe) == pytest.approx(last.accuracy("model", probe))
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brdyn.probes.probing.split", lambda features, seed: drawn.append(seed) or split(features, seed))
        probe_layers(model, train.take(np.arange(60)), test, layers="4", seeds=2, seed=5, stream=ALONE)
        brdyn.probe_images(model, train.take(np.arange(60)), test, seeds=2, seed=7, stream=ALONE)
        numbered = probe_layers(model, train.take(np.arange(60)), test, layers="4", seeds=2, seed=9, stream=ALONE)
    assert drawn == [5, 6, 7, 8, 9, 10]
    assert numbered.runs.loc[numbered.runs["probe"] == "linear", "seed"].tolist() == [0, 1]
    both = probe_layers(model, train.take(np.arange(60)), test, layers="choose:2", seeds=1, stream=ALONE)
    assert both.sets["regular"] == "2+4"
    assert len(both.sets["chosen"].split("+")) == 2


def test_images_without_a_label_keep_the_others_numbers(little_cifar, tmp_path):
    model = tiny_vit()
    rows = pq.read_table(little_cifar["test"])
    labels = rows["label"].to_pylist()[:20]
    labels[3] = labels[7] = None
    column = next(place for place, name in enumerate(rows.column_names) if name == "label")
    pq.write_table(rows[:20].set_column(column, "label", pa.array(labels)), tmp_path / "test.parquet")
    train, test = (load_images(path, model) for path in (little_cifar["train"], tmp_path / "test.parquet"))
    found = probe_layers(model, train.take(np.arange(60)), test, layers="4", seeds=1, stream=ALONE)
    own = found.counted[found.counted["probe"] == "knn"]
    assert own["image"].tolist() == [place for place in range(20) if place not in (3, 7)]


def test_penalties_of_classes_are_chosen_by_the_images_given_for_it(little_cifar, monkeypatch):
    model = tiny_vit()
    train, test = (load_images(little_cifar[name], model) for name in ("train", "test"))
    parts = train.take(np.arange(50)), test.take(np.arange(20))
    val = train.take(np.arange(50, 70))
    found = probe_layers(model, *parts, val=val, layers="2,4", seeds=3, stream=ALONE)
    assert found.sizes == {"fit": 50, "test": 20, "choose": 20}
    assert found.runs[found.runs["probe"] == "linear"]["seed"].tolist() == [0, 0]  # there is no chance in it
    features = [extract_features(model, part)["model"] for part in (*parts, val)]
    best = fit_linear(features[0], features[2])
    right = (best.predict(features[1].values) == features[1].labels).double().mean()
    assert found.value("accuracy", "4") == pytest.approx(float(right))
    row = found.runs.set_index(["place", "probe"]).loc[("4", "linear")]
    assert (row["penalty"], row["held_out"]) == (best.penalty, best.held_out_accuracy)
    assert found.runs.query("probe == 'knn'")["held_out"].isna().all()  # it chooses nothing
    chosen = probe_layers(model, *parts, val=val, layers="choose:2", seeds=1, stream=ALONE)
    scores = {}
    for layer in range(1, 5):
        metrics = [FeatureMetric(lambda one, layer=layer: read_out(model, one.states[layer]), 32) for _ in "ab"]
        fitting, choosing = (
            extract_features(model, part, {"x": metric})["x"]
            for part, metric in zip((parts[0], val), metrics, strict=True)
        )
        scores[layer] = fit_linear(fitting, choosing, penalties=CHOOSING_PENALTIES).held_out_accuracy
    assert scores[int(chosen.sets["best single"])] == max(scores.values())


def test_images_to_choose_by_are_no_others(little_cifar):
    model = tiny_vit()
    train, test = (load_images(little_cifar[name], model) for name in ("train", "test"))
    first, rest = train.take(np.arange(40)), train.take(np.arange(40, 80))
    with pytest.raises(UsageError, match="5 images are both to fit the probe and to choose by"):
        probe_layers(model, first, test, val=train.take(np.arange(35, 45)), stream=ALONE)
    with pytest.raises(UsageError, match="1 image is both to choose by and to test it"):
        probe_layers(model, first, rest, val=train.take(np.arange(79, 80)), stream=ALONE)
    with pytest.raises(UsageError, match="the validation images are of classes that no training image has"):
        probe_layers(model, first.take(np.arange(5)), test.take(np.arange(4)), val=rest, stream=ALONE)


def test_pairs_to_choose_by_are_no_others(streets):
    painter = Painter()
    learning, testing = loaded(streets, painter)
    with pytest.raises(UsageError, match="12 images are both to fit the probe and to choose by"):
        probe_layers(painter, learning, testing, val=learning, layers="last", stream=ALONE)
    with pytest.raises(UsageError, match="6 images are both to choose by and to test it"):
        probe_layers(painter, learning, testing, val=testing, layers="last", stream=ALONE)


def test_the_last_layer_is_the_normed_output(streets):
    model = tiny_vit()
    pairs = loaded(streets, model)[0]
    batch = next(pairs.batches(4, workers=0))
    trajectory = brdyn.capture(model, batch)
    features = Readout(model).features(trajectory, [4])
    normed = model(batch.images)
    expected = torch.cat([normed[:, :1], normed[:, 3:]], 1)  # without its two registers
    torch.testing.assert_close(features[:, 0].float(), expected, atol=2e-3, rtol=2e-3)


def test_files_lie_in_the_given_folder_whatever_a_model_is_called(streets, tmp_path):
    model, folder = Painter(), tmp_path / "cache"
    plain = probe_layers(model, *loaded(streets, model), layers="last", seeds=1, recipe=QUICK, stream=ALONE)
    model.info = replace(model.info, name=str(tmp_path / "painter"))
    found = probe_layers(
        model, *loaded(streets, model), layers="last", seeds=1, recipe=QUICK, stream=ALONE, cache=folder
    )
    assert set(tmp_path.rglob("*")) == {*streets, folder}  # those of the run are gone with it
    assert found.table("miou").tolist() == plain.table("miou").tolist()


@pytest.mark.parametrize(("task", "column"), [("segmentation", "mask"), ("depth", "depth")])
def test_the_size_that_is_said_is_that_of_the_files(task, column, tmp_path):
    targets = [np.ones((32, 32), np.uint8)] * 5
    path = table(tmp_path / "a.parquet", painted(5)[0], targets, column, depth_unit="m")
    models, layers = [Painter(), tiny_vit()], (1, 3)
    pairs = load_dense(path, models[0], task)
    readouts = {str(number): Readout(model) for number, model in enumerate(models)}
    batch = next(pairs.batches(5, workers=0))
    readouts["1"] = Readout(models[1], lambda _: brdyn.capture(models[1], batch).states)
    extract_stores(readouts, pairs, layers, tmp_path / "features", ALONE)
    written = sum(file.stat().st_size for file in (tmp_path / "features").iterdir())
    assert written == 5 * image_bytes(models, layers, pairs.targets.kind)


def test_several_class_tokens_are_read_as_their_mean(streets, tmp_path):
    one, several = Painter(noise=1.0), Painter(noise=1.0)
    several.tokens = TokenLayout.with_prefix((4, 4), {"cls": 3})

    def three(trajectory):
        cls, patches = trajectory.states[0].split([1, 16], 1)
        spread = torch.tensor([-1.0, 0.0, 1.0])[None, :, None]
        return [torch.cat([cls + spread, patches], 1)] * 4

    pairs = loaded(streets, one)[0]
    trajectory = brdyn.capture(one, next(pairs.batches(4, workers=0)))
    expected = Readout(one).features(trajectory, [0])
    torch.testing.assert_close(Readout(several, three).features(trajectory, [0]), expected)
    found = probe_layers(
        one, *loaded(streets, one), layers="last", seeds=1, recipe=replace(QUICK, epochs=1), stream=ALONE,
        readouts={"one": Readout(one), "three": Readout(several, three)},
    )  # fmt: skip
    assert found.models == ["one", "three"]


def test_images_that_cannot_be_read_are_left_out(streets):
    model = Painter()
    rows = pq.read_table(streets[0])
    images = rows["image"].to_pylist()
    images[3] = {"bytes": b"broken", "path": None}
    broken = rows.set_column(0, "image", pa.array(images, rows["image"].type))
    pq.write_table(broken.replace_schema_metadata(rows.schema.metadata), streets[0])
    found = probe_layers(
        model, *loaded(streets, model), layers="last", seeds=1, recipe=replace(QUICK, epochs=2), stream=ALONE
    )
    assert found.sizes["fit"] + found.sizes["choose"] == 11
    assert found.summary().count("1 unreadable training image skipped in all") == 1
    assert found.summary().count("skipped in all") == 1
    assert "\n11 training images\n" in found.summary()


@pytest.mark.parametrize(
    ("mask", "targets", "said"),
    [
        (lambda one: np.full_like(one, 9), None, "none of the|all pixels of the test images are void"),
        (
            lambda one: np.where(one == 9, 9, 7),
            MaskTargets(ignore=9),
            "test masks hold class 7, and the training masks",
        ),
    ],
)
def test_test_images_that_tell_nothing_are_refused(mask, targets, said, streets, tmp_path):
    model = Painter()
    images, masks = painted(4, 3)
    other = table(tmp_path / "o.parquet", images, [mask(one).astype(np.uint8) for one in masks], ignore_index="9")
    plain = table(tmp_path / "p.parquet", *painted(12, 0), ignore_index="9")
    pairs = loaded([plain, other], model, targets=targets)
    with pytest.raises(UsageError, match=said):
        probe_layers(model, *pairs, layers="last", seeds=1, recipe=replace(QUICK, epochs=1), stream=ALONE)


def test_what_is_refused(streets, monkeypatch):
    model = Painter()
    learning, testing = loaded(streets, model)
    with pytest.raises(UsageError, match=r"has the layers 0 to 3, and not layer 4"):
        probe_layers(model, learning, testing, layers="4", stream=ALONE)
    with pytest.raises(UsageError, match=r"12 images are both to fit the probe and to test it"):
        probe_layers(model, learning, learning, stream=ALONE)
    bare = Painter()
    bare.tokens = TokenLayout({"cls": slice(0, 17)}, (1, 1), "cls")
    with pytest.raises(UsageError, match=r"'painter' has no patches that tile the image"):
        probe_layers(bare, learning, testing, stream=ALONE)
    monkeypatch.setattr("psutil.disk_usage", lambda _: type("Usage", (), {"free": SPARED + 31_000_000}))
    with pytest.raises(UsageError, match=r"features and targets of 10 images take 32 MB, and 31 MB are free in"):
        check_room(streets[0].parent, 10, 3_200_000)


def test_sets_of_other_targets_are_refused(streets, tmp_path):
    model = Painter()
    learning, testing = loaded(streets, model)
    metres = [np.full((32, 32), 1000, np.uint16)] * 4
    depth = load_dense(
        table(tmp_path / "d.parquet", painted(4, 3)[0], metres, "depth", depth_unit="mm"), model, "depth"
    )
    names = json.dumps(["green", "red", "blue", "cow"])
    named, more, void = (
        load_dense(table(tmp_path / f"{seed}.parquet", images, masks, ignore_index="9", **said), model, "segmentation")
        for seed, images, masks, said in [
            (5, *painted(4, 5), {"classes": names}),
            (6, painted(4, 6)[0], [np.full((32, 32), 7, np.uint8)] * 4, {}),
            (8, painted(4, 8)[0], [np.full((32, 32), 9, np.uint8)] * 4, {}),
        ]
    )  # fmt: skip
    for sets, said in (
        ((learning, depth, None), r"`test` has a depth for each image, and the images .* have a mask"),
        ((depth, testing, None), r"`test` has a mask for each image, and the images .* have a depth"),
        ((learning, testing, depth), r"`val` has a depth for each image"),
        ((learning, named, None), r"train.parquet' and '.*5.parquet' name different classes"),
        ((learning, testing, named), r"train.parquet' and '.*5.parquet' name different classes"),
        ((learning, testing, more), r"the validation masks hold class 7, and the training masks only 0 to 3"),
        ((learning, testing, void), r"all pixels of the validation images are void"),
    ):
        images, test, val = sets
        with pytest.raises(UsageError, match=said):
            probe_layers(model, images, test, val=val, layers="last", seeds=1, recipe=QUICK, stream=ALONE)


def test_what_was_done_to_pairs_is_written_down(streets, tmp_path):
    model = Painter()
    quick = replace(QUICK, epochs=1)
    found = probe_layers(model, *loaded(streets, model), layers="last", seeds=1, recipe=quick, stream=ALONE)
    details = found.provenance.details
    assert details["model"]["preprocessing"] == {
        **model.preprocessing.to_dict(), "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bicubic"
    }  # fmt: skip
    names = ("red", "green", "blue", "cow")
    assert details["images"]["targets"] == asdict(MaskTargets(names, ignore=9))
    found.save(tmp_path / "run", figures={})
    assert brdyn.read(tmp_path / "run") == found
    images = load_images("samples", model).take(np.arange(2))
    plain = brdyn.layer_similarity(model, images).provenance.details
    assert plain["model"]["preprocessing"] == model.preprocessing.to_dict()
    assert "targets" not in plain["images"]


def test_layers_as_they_are_asked_for():
    assert LayersAsked.parse("all").of(3) == (1, 2, 3)
    assert LayersAsked.parse("last").of(7) == (7,)
    assert LayersAsked.parse("7,0,3,3").of(9) == (0, 3, 7)
    assert LayersAsked.parse("choose:3") == LayersAsked(None, 3)
    for wrong in ("choose:1", "choose", "1;2", "-1", "", "first"):
        with pytest.raises(UsageError, match=r"layers="):
            LayersAsked.parse(wrong)
    with pytest.raises(UsageError, match=r"not 5 layers to choose"):
        LayersAsked.parse("choose:5").of(4)


def test_the_greedy_choice_by_hand():
    worth = {1: 1.0, 2: 2.0, 3: 2.5, 4: 2.5}
    bonus = {(1, 4): 3.0}  # worse alone, better together
    seen = []

    def scores(places):
        seen.append(places)
        return np.array([sum(worth[layer] for layer in place) + bonus.get(place, 0) for place in places])

    assert greedy([1, 2, 3, 4], 3, scores) == [(4,), (1, 4), (1, 3, 4)]
    assert seen[1] == [(1, 4), (2, 4), (3, 4)]
    assert alternatives(12, 3, None) == {"last 3": (10, 11, 12), "regular": (4, 8, 12)}
