"""`brdyn probe --task … --layers …` and `raptor-eval --task …` as a user meets them."""

import json

import numpy as np
import pytest
import timm
from safetensors.torch import save_file

import brdyn
from tests.cli.commands import assert_one_line_error
from tests.conftest import scramble
from tests.probes.test_layers import painted, table


@pytest.fixture
def streets(tmp_path):
    said = {"classes": json.dumps(["red", "green", "blue"]), "ignore_index": "9"}
    return [table(tmp_path / f"{name}.parquet", *painted(*which), **said) for name, which in
            {"train": (8, 0), "test": (4, 1)}.items()]  # fmt: skip


@pytest.fixture(scope="session")
def low_weights(tmp_path_factory):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    scramble(model)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.fixture
def options(low_weights, streets, tmp_path):
    return [
        "--model", "vit_tiny_patch16_224", "--weights", low_weights, "--image-size", "32", "--images", streets[0],
        "--test", streets[1], "--workers", "0", "--seeds", "1", "--out", tmp_path / "out",
    ]  # fmt: skip


@pytest.mark.usefixtures("unrendered")
def test_masks_by_layer(run, options, tmp_path):
    dense = ["--task", "segmentation", "--layers", "6,12", "--epochs", "2"]
    done = run("probe", *options, *dense)
    assert done.returncode == 0, done.stderr
    # said before they are made: two layers of cls and four patches of 192 numbers, and a mask, of two bytes each
    assert "12 images x 5.89 kB = 70.7 kB" in done.stdout
    assert "segmentation, 2 places, chosen on held-out images: vit_tiny_patch16_224 at layer " in done.stdout
    assert "layer 12" in done.stdout
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "layer_probe.json",
        "per_image.parquet",
        "examples.safetensors",
        "scores.png",
        "examples.png",
    }
    found = brdyn.read(tmp_path / "out")
    assert found.task == "segmentation"
    assert found.sizes == {"fit": 6, "choose": 2, "test": 4}
    assert found.provenance.model == "vit_tiny_patch16_224"
    assert [found.images[part]["read"] for part in ("train", "test")] == [8, 4]
    assert not list(tmp_path.glob("brdyn-features-*"))
    published = [*options, *dense[:2], "--epochs", "1", "--protocol", "published", "--overwrite"]
    done = run("probe", *published)
    assert done.returncode == 0, done.stderr
    assert "optimistic" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "boxes"], "unknown task 'boxes'; choose one of classification, segmentation, depth"),
        (["--layers", "some"], "--layers some is neither last, all, a list such as 3,7,12, nor choose:4"),
        (["--task", "segmentation", "--layers", "13"], "has the layers 0 to 12, and not layer 13"),
        (
            ["--task", "segmentation", "--depth-unit", "mm"],
            "--depth-unit does not go with --task segmentation",
        ),
        (["--task", "depth", "--ignore-index", "3"], "--ignore-index does not go with --task depth"),
        (["--epochs", "3"], "--epochs goes with --task classification only under --protocol published"),
        (["--augment"], "--augment goes with --task classification only under --protocol published"),
        (["--cache", "here"], "--cache does not go with --task classification"),
        (["--protocol", "published"], "a probe needs images with labels"),
        (["--task", "depth", "--target-column", "mask"], "have no unit in their metadata"),
        (
            ["--task", "depth", "--depth-unit", "mm"],
            "has no column of a depth for each image among image, mask",
        ),
        (["--task", "segmentation", "--eigen-crop"], "--eigen-crop does not go with --task segmentation"),
        (["--task", "segmentation", "--image-size", "33"], "is not a multiple of the 16-pixel patch"),
        (["--task", "segmentation", "--ignore-index", "8"], "its mask holds 9, and the classes are 0 to 2"),
        (["--task", "segmentation", "--palette", "NOWHERE.json"], "--palette 'NOWHERE.json': no such file"),
        (["--task", "segmentation", "--protocol", "loose"], "unknown protocol 'loose'"),
        (["--val", "x.parquet"], "no images at 'x.parquet'"),
        (["--k", "3"], "--k goes with --phases"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(run, options, arguments, said, tmp_path):
    assert_one_line_error(run("probe", *options, *arguments), 2, said)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("undrawn")
def test_raptor_and_teacher_are_paired(run, options, streets, tmp_path):
    fitted = [
        *options[:6], "--images", streets[0], "--workers", "0", "--out", tmp_path / "raptor", "--boundaries", "6",
        "--steps", "2", "--batch-size", "4", "--validation-images", "2",
    ]  # fmt: skip
    done = run("raptor-fit", *fitted)
    assert done.returncode == 0, done.stderr
    over = [
        "raptor-eval",
        tmp_path / "raptor",
        "--images",
        streets[0],
        "--workers",
        "0",
        "--out",
        tmp_path / "eval",
    ]
    assert_one_line_error(run(*over, "--layers", "all"), 2, "--task, --layers and --protocol go with --probe-train")
    probes = ["--probe-train", streets[0], "--probe-test", streets[1], "--seeds", "1", "--epochs", "1"]
    done = run(*over, "--task", "segmentation", "--layers", "6,12", *probes)
    assert done.returncode == 0, done.stderr
    assert "raptor at layer 12 (linear): mean IoU" in done.stdout
    assert "% of that of teacher" in done.stdout
    found = brdyn.read(tmp_path / "eval")
    assert found.layers.models == ["teacher", "raptor"]
    pair = found.layers.pairs[found.layers.pairs["place"] == "6"].iloc[0]
    ratio = found.layers.value("miou", "6", model="raptor") / found.layers.value("miou", "6")
    assert pair["ratio"] == pytest.approx(ratio)
    assert np.isfinite(pair["ratio_low"])


def test_depth_is_scored_inside_the_crop(run, low_weights, tmp_path):
    """The last columns of the test maps, outside the crop, are far off: they count only without it."""
    rng, sets = np.random.default_rng(0), {}
    for name, count in (("train", 4), ("test", 2)):
        images = [rng.integers(0, 255, (480, 640, 3), dtype=np.uint8) for _ in range(count)]
        maps = [np.full((480, 640), 2000, np.uint16) for _ in range(count)]
        for one in maps if name == "test" else []:
            one[:, 601:] = 9000
        sets[name] = table(tmp_path / f"{name}.parquet", images, maps, "depth", depth_unit="mm")
    options = [
        "--model", "vit_tiny_patch16_224", "--weights", low_weights, "--image-size", "32", "--images", sets["train"],
        "--task", "depth", "--epochs", "1", "--seeds", "1", "--workers", "0",
    ]  # fmt: skip
    assert_one_line_error(run("probe", *options, "--eigen-crop"), 2, "--eigen-crop is of test images, and none were")
    tested = [*options, "--test", sets["test"]]
    found = {}
    for name, extra in (("whole", []), ("crop", ["--eigen-crop"])):
        done = run("probe", *tested, *extra, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert ("inside the crop of Eigen" in done.stdout) == bool(extra)
        found[name] = brdyn.read(tmp_path / name)
    pixels = {name: one.counted["pixels"].iloc[0] for name, one in found.items()}
    assert pixels["whole"] == 32 * 32
    assert 0.7 * 32 * 32 < pixels["crop"] < 0.85 * 32 * 32  # 426 x 560 of 480 x 640
    blind = {name: one.baseline.set_index("score").loc["rmse", "value"] for name, one in found.items()}
    assert blind["crop"] == pytest.approx(0, abs=1e-6)
    assert blind["whole"] > 1


def test_classes_by_the_published_protocol(run, low_weights, little_cifar, tmp_path):
    options = [
        "--model", "vit_tiny_patch16_224", "--weights", low_weights, "--image-size", "32", "--workers", "0",
        "--images", little_cifar["train"], "--test", little_cifar["test"], "--seeds", "1", "--out", tmp_path / "out",
    ]  # fmt: skip
    done = run("probe", *options, "--protocol", "published", "--epochs", "2", "--augment")
    assert done.returncode == 0, done.stderr
    assert "classification (optimistic): vit_tiny_patch16_224 at layer 12: accuracy " in done.stdout
    assert "heads began at zero, as vit_tiny_patch16_224 has no classifier" in done.stdout
    found = brdyn.read(tmp_path / "out")
    assert found.optimistic
    assert found.runs["epoch"].between(1, 2).all()
    assert found.probes == ["linear"]
