"""Masks and depth: read as they are stored, paired, turned with their image, and refused in one line."""

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from brdyn.data import DepthTargets, MaskTargets, load_dense, read_palette
from brdyn.data.augment import Augmentation, PairTransform
from brdyn.data.decode import decode
from brdyn.data.targets import VOID
from brdyn.errors import UsageError
from tests.conftest import shared, tiny_vit


def encoded(array, mode=None, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(array), mode).save(buffer, kind)
    return buffer.getvalue()


def noise(seed=0, size=(40, 48)):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def table(path, targets, column="mask", images=None, **metadata):
    images = images or [encoded(noise(seed)) for seed in range(len(targets))]
    columns = {
        name: [{"bytes": one, "path": None} for one in values]
        for name, values in (("image", images), (column, targets))
    }
    made = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(made, path)
    return path


def masks(count=3, classes=4, size=(40, 48)):
    return [np.random.default_rng(10 + seed).integers(0, classes, size, dtype=np.uint8) for seed in range(count)]


def depths(count=3, size=(40, 48)):
    return [np.random.default_rng(seed).integers(900, 4000, size, dtype=np.uint16) for seed in range(count)]


@pytest.fixture
def model():
    return tiny_vit()


def test_masks_of_a_table_with_what_it_says_of_itself(tmp_path, model):
    made = masks()
    path = table(
        tmp_path / "a.parquet", [encoded(one) for one in made],
        classes=json.dumps(["sky", "road", "tree", "void"]), ignore_index="3",
    )  # fmt: skip
    pairs = load_dense(path, model, "segmentation")
    assert pairs.targets == MaskTargets(names=("sky", "road", "tree", "void"), ignore=3)
    batch = next(pairs.batches(3, workers=0))
    rows, columns = (np.arange(32) * 2 + 1) * 40 // 64, (np.arange(32) * 2 + 1) * 48 // 64
    expected = np.stack([one[rows[:, None], columns] for one in made]).astype(int)
    expected[expected == 3] = VOID
    np.testing.assert_array_equal(batch.targets.numpy(), expected)
    assert pairs.source.chosen()["target_column"] == "mask"
    # the option is before the file
    assert load_dense(path, model, "segmentation", targets=MaskTargets(ignore=1)).targets.ignore == 1


@pytest.mark.parametrize("kind", ["L", "P", "I;16", "1"])
def test_masks_of_every_mode_are_numbers(kind, tmp_path, model):
    mask = masks(1, classes=2)[0]
    image = {
        "L": lambda: Image.fromarray(mask),
        "I;16": lambda: Image.fromarray(mask.astype(np.uint16)),
        "1": lambda: Image.fromarray(mask.astype(bool)),
        "P": lambda: Image.fromarray(mask, "P"),
    }[kind]()
    if kind == "P":
        image.putpalette([0, 0, 0, 200, 10, 20])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    found = MaskTargets().read(buffer.getvalue(), (48, 40), "x")
    np.testing.assert_array_equal(found, mask)


def test_colours_need_a_palette(tmp_path):
    colours = np.array([[128, 64, 128], [0, 0, 0], [70, 70, 70]], dtype=np.uint8)
    mask = masks(1, classes=3)[0]
    data = encoded(colours[mask])
    with pytest.raises(UsageError, match=r"in colour \(RGB; most often \[.*give `palette`"):
        MaskTargets().read(data, (48, 40), "x")
    (tmp_path / "p.json").write_text(json.dumps(colours.tolist()))
    targets = MaskTargets(palette=read_palette(tmp_path / "p.json"))
    np.testing.assert_array_equal(targets.read(data, (48, 40), "x"), mask)
    with pytest.raises(UsageError, match=r"colour \[70, 70, 70\], which is not in the palette"):
        MaskTargets(palette=tuple(map(tuple, colours[:2].tolist()))).read(data, (48, 40), "x")
    for wrong in ("[[1, 2]]", "[[1, 2, 300]]", "{}", "[[1,1,1],[1,1,1]]"):
        (tmp_path / "p.json").write_text(wrong)
        with pytest.raises(UsageError, match=r"palette"):
            read_palette(tmp_path / "p.json")


@pytest.mark.parametrize(
    ("targets", "highest", "said"),
    [
        (MaskTargets(classes=3), 3, "holds 3, and the classes are 0 to 2"),
        (MaskTargets(), 255, "mostly means void; say so by `ignore_index=255`"),
        (MaskTargets(ignore=9, names=("a", "b")), 255, "holds 255, and the classes are 0 to 1"),
    ],
)
def test_classes_above_the_count_are_refused(targets, highest, said, tmp_path, model):
    mask = masks(1, classes=2)[0]
    mask[0, 0] = highest
    with pytest.raises(UsageError, match=said):
        load_dense(table(tmp_path / "a.parquet", [encoded(mask)]), model, "segmentation", targets=targets)


def test_void_may_be_a_negative_number_and_a_class_may_not():
    mask = np.zeros((40, 48), np.int32)
    mask[0], mask[1] = -1, 2
    data = encoded(mask, kind="TIFF")
    np.testing.assert_array_equal(MaskTargets(ignore=-1).read(data, (48, 40), "x"), mask)
    with pytest.raises(UsageError, match=r"holds -1, and the classes are 0 to 4095; .* `ignore_index=-1` if that is"):
        MaskTargets(ignore=7).read(data, (48, 40), "x")


def test_tasks_that_are_none(tmp_path, model):
    path = table(tmp_path / "a.parquet", [encoded(one) for one in masks()])
    with pytest.raises(UsageError, match=r"unknown task 'segmentaton'; choose one of segmentation, depth"):
        load_dense(path, model, "segmentaton")
    with pytest.raises(UsageError, match=r"the targets given say how a depth is read, and segmentation has a mask"):
        load_dense(path, model, "segmentation", targets=DepthTargets.of("mm"))


def test_counts_that_disagree():
    with pytest.raises(UsageError, match=r"2 and 3 classes are said"):
        MaskTargets(names=("a", "b"), classes=3)


def test_another_size_is_refused(tmp_path, model):
    path = table(tmp_path / "a.parquet", [encoded(masks(1, size=(30, 48))[0])])
    with pytest.raises(UsageError, match=r"48x40 pixels and its target 48x30"):
        load_dense(path, model, "segmentation")


def turned(array, orientation, kind="PNG"):
    """A file that EXIF says to turn."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(array)).save(buffer, kind, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(40, 48), (48, 48)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_and_its_mask_are_turned_alike(orientation, size, tmp_path, model):
    mask = masks(1, size=size)[0]
    image = np.repeat(mask[..., None] * 60, 3, 2)
    upright = decode(turned(image, orientation))
    both = MaskTargets().read(turned(mask, orientation), upright.size, "x")
    np.testing.assert_array_equal(both, np.asarray(upright)[..., 0] // 60)
    lying = np.asarray(upright)[..., 0] // 60  # a mask that was drawn on the upright image
    path = table(tmp_path / "a.parquet", [encoded(lying)], images=[turned(image, orientation)])
    if orientation == 1 or (orientation > 4 and size == (40, 48)):
        batch = next(load_dense(path, model, "segmentation").batches(1, workers=0))
        assert batch.targets.shape == (1, 32, 32)
        return
    said = rf"'a.parquet row 0' is turned by its EXIF orientation \({orientation}\) and its target has none"
    with pytest.raises(UsageError, match=said):
        load_dense(path, model, "segmentation")


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_exif_has_not_turns_nothing(orientation, tmp_path, model):
    path = table(tmp_path / "a.parquet", [encoded(masks(1)[0])], images=[turned(noise(), orientation)])
    batch = next(load_dense(path, model, "segmentation").batches(1, workers=0))
    assert batch.targets.shape == (1, 32, 32)


@pytest.mark.parametrize("task", ["segmentation", "depth"])
def test_a_turned_image_among_many_is_refused_beside_a_target_that_is_not(task, tmp_path, model):
    made = [encoded(one) for one in (masks(9) if task == "segmentation" else depths(9))]
    images = [*(encoded(noise(seed)) for seed in range(8)), turned(noise(8), 3)]
    how = DepthTargets.of("mm") if task == "depth" else MaskTargets()
    column = "depth" if task == "depth" else "mask"
    pairs = load_dense(table(tmp_path / "a.parquet", made, column, images), model, task, targets=how)
    with pytest.raises(UsageError, match=r"row 8' is turned by its EXIF orientation \(3\)"):
        list(pairs.batches(9, workers=0))


def test_depth_is_in_metres(tmp_path, model):
    made = depths()
    made[0][0, 0], made[0][0, 1] = 0, 20_000
    path = table(tmp_path / "a.parquet", [encoded(one) for one in made], "depth")
    pairs = load_dense(path, model, "depth", targets=DepthTargets.of("mm"))
    read = pairs.targets.read(encoded(made[0]), (48, 40), "x")
    expected = made[0] / 1000
    expected[0, :2] = 0  # nothing measured, and beyond 10 m
    np.testing.assert_allclose(read, expected, rtol=1e-6)
    noted = table(tmp_path / "b.parquet", [encoded(one) for one in made], "depth", depth_unit="mm")
    assert load_dense(noted, model, "depth").targets.per_metre == 1000


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        (
            None,
            "no unit in their metadata; their values reach 3.* as mm would: give `depth_unit=mm` if it is that",
        ),
        ("m", r"would have a median of \d+\S* m .*as mm would: give `depth_unit=mm`"),
        ("furlong", "`depth_unit=furlong` is none of m, cm, mm"),
    ],
)
def test_the_unit_of_depth_is_asked_for(unit, said, tmp_path, model):
    path = table(tmp_path / "a.parquet", [encoded(one) for one in depths()], "depth")
    with pytest.raises(UsageError, match=said):
        load_dense(path, model, "depth", targets=DepthTargets.of(unit))


def test_the_crop_of_depth_is_that_of_maps_of_its_size(tmp_path, model):
    (made,) = depths(1, (480, 640))
    targets = replace(DepthTargets.of("mm"), eigen_crop=True)
    found = targets.read(encoded(made), (640, 480), "x")
    rows, columns = np.nonzero(found)  # every pixel of the file has a depth
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (45, 470, 41, 600)
    np.testing.assert_allclose(found[45:471, 41:601], made[45:471, 41:601] / 1000, rtol=1e-6)
    path = table(tmp_path / "a.parquet", [encoded(one) for one in depths()], "depth")
    with pytest.raises(UsageError, match=r"is 48 x 40, and the Eigen crop is of maps of 640 x 480; drop `eigen_crop`"):
        load_dense(path, model, "depth", targets=targets)


def test_a_unit_that_is_right_is_not_asked_for_again(tmp_path, model):
    path = table(tmp_path / "a.parquet", [encoded(one) for one in depths()], "depth")
    with pytest.raises(UsageError, match=r"outside 0.001 to 0.1 m; give another `max_depth`$"):
        load_dense(path, model, "depth", targets=DepthTargets.of("mm", 0.1))


def test_metres_without_a_unit_are_asked_for_too(tmp_path, model):
    metres = (depths(1)[0] / 1000).astype(np.float32)
    path = table(tmp_path / "a.parquet", [encoded(metres, kind="TIFF")], "depth")
    with pytest.raises(UsageError, match=r"as m would: give `depth_unit=m`"):
        load_dense(path, model, "depth")
    pairs = load_dense(path, model, "depth", targets=DepthTargets.of("m"))
    assert next(pairs.batches(1, workers=0)).targets.max() == pytest.approx(metres.max(), abs=0.01)


def test_no_depth_at_all_and_depth_in_colour(tmp_path, model):
    path = table(tmp_path / "a.parquet", [encoded(np.zeros((40, 48), np.uint16))], "depth")
    with pytest.raises(UsageError, match=r"hold no depth: all of the first 1 are 0"):
        load_dense(path, model, "depth", targets=DepthTargets.of("mm"))
    path = table(tmp_path / "b.parquet", [encoded(noise())], "depth")
    with pytest.raises(UsageError, match=r"a picture in RGB, and not one number a pixel"):
        load_dense(path, model, "depth", targets=DepthTargets.of("mm"))


def test_a_table_without_targets(tmp_path, model):
    path = table(tmp_path / "a.parquet", [encoded(noise())], "other")
    with pytest.raises(UsageError, match=r"no column of a mask for each image among image, other; choose one by"):
        load_dense(path, model, "segmentation")
    with pytest.raises(UsageError, match=r"no column 'nope'"):
        load_dense(path, model, "segmentation", target_column="nope")
    with pytest.raises(UsageError, match=r"'samples' holds no mask"):
        load_dense("samples", model, "segmentation")


def laid_out(root, pairs):
    for name, array in pairs.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / name)
    return root


LAYOUTS = {
    "images and masks": ("images/{}.png", "masks/{}.png", "", "mask"),
    "ADE20k": (
        "images/training/ADE_train_{}.jpg",
        "annotations/training/ADE_train_{}.png",
        "@training",
        "mask",
    ),
    "splits above": ("train/images/{}.jpg", "train/labels/{}.png", "@train", "mask"),
    "VOC": ("VOC2012/JPEGImages/{}.jpg", "VOC2012/SegmentationClass/{}.png", "", "mask"),
    "depth folders": ("rgb/{}.png", "depth/{}.png", "", "depth"),
    "NYUv2 official": ("train/kitchen/rgb_{}.jpg", "train/kitchen/sync_depth_{}.png", "@train", "depth"),
    "NYUv2 of the hub": ("nyu2_train/a_out/{}.jpg", "nyu2_train/a_out/{}.png", "", "depth"),
    "NYUv2 test": ("nyu2_test/{}_colors.png", "nyu2_test/{}_depth.png", "", "depth"),
}


def pairs_of(kind):
    return "segmentation" if kind == "mask" else "depth"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_as_people_have_them(layout, tmp_path, model):
    image, target, split, kind = LAYOUTS[layout]
    made = masks(3) if kind == "mask" else depths(3)
    files = {image.format(number): noise(number) for number in range(3)}
    files |= {target.format(number): one for number, one in enumerate(made)}
    if split:  # another split, of which nothing may be seen
        other = {"training": "validation", "train": "test"}[split[1:]]
        files |= {name.replace(split[1:], other): one for name, one in files.items()}
    root = laid_out(tmp_path / "set", files)
    how = MaskTargets() if kind == "mask" else DepthTargets.of("mm")
    pairs = load_dense(f"{root}{split}", model, pairs_of(kind), targets=how)
    assert len(pairs) == 3
    raw = [pairs.source.read(index).target for index in range(3)]
    for data, one in zip(raw, made, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), one)
    before = pairs.source.fingerprint()
    Image.fromarray(made[1] // 2 + 1).save(root / target.format(1))
    assert load_dense(f"{root}{split}", model, pairs_of(kind), targets=how).source.fingerprint() != before


def test_voc_images_without_a_mask_are_none_of_the_set(tmp_path, model):
    files = {f"JPEGImages/{number}.jpg": noise(number) for number in range(4)}
    files |= {f"SegmentationClass/{number}.png": one for number, one in enumerate(masks(3))}
    root = laid_out(tmp_path, files)
    assert len(load_dense(root, model, "segmentation")) == 3
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("1\n2\n")
    pairs = load_dense(root, model, "segmentation", split="val")
    assert [pairs.source.name(index) for index in range(len(pairs))] == [
        "JPEGImages/1.jpg",
        "JPEGImages/2.jpg",
    ]


def test_pairs_that_are_none(tmp_path, model):
    files = {f"images/{number}.jpg": noise(number) for number in range(4)}
    files |= {f"masks/{number}.png": one for number, one in enumerate(masks(3))}
    root = laid_out(tmp_path / "a", files)
    with pytest.raises(UsageError, match=r"4 images and 3 of their targets; 'images/3.jpg' has no mask"):
        load_dense(root, model, "segmentation")
    (root / "images" / "3.jpg").unlink()
    (root / "images" / "2.jpg").unlink()
    with pytest.raises(UsageError, match=r"2 images and 3 of their targets; 'masks/2.png' has no image"):
        load_dense(root, model, "segmentation")
    (root / "masks" / "1.tif").write_bytes((root / "masks" / "1.png").read_bytes())
    with pytest.raises(UsageError, match=r"'masks/1.png' and 'masks/1.tif' are of one stem; give each its own"):
        load_dense(root, model, "segmentation")
    (root / "masks" / "1.tif").rename(root / "images" / "1.jpeg")
    with pytest.raises(UsageError, match=r"'images/1.jpeg' and 'images/1.jpg' are of one stem"):
        load_dense(root, model, "segmentation")
    with pytest.raises(UsageError, match=r"holds no images with a mask each"):
        load_dense(laid_out(tmp_path / "b", {"x/1.png": noise()}), model, "segmentation")


@pytest.mark.parametrize("augmentation", [None, *(Augmentation(seed=seed) for seed in range(8))])
def test_image_and_mask_stay_aligned(augmentation):
    """The mask is painted into the image: after every crop and flip, the image still shows it."""
    blocks = np.kron(np.random.default_rng(3).integers(0, 4, (5, 6)), np.ones((20, 20), int)).astype(np.int16)
    image = Image.fromarray((blocks * 80).astype(np.uint8)).convert("RGB")
    turn = PairTransform((64, 80), (0.0,) * 3, (1.0,) * 3, augmentation)
    pixels, mask = turn(image, blocks, 5)
    seen = (pixels[0] * 255 / 80).round().numpy()
    assert (seen == mask.numpy()).mean() > 0.9  # all but edges between blocks
    edges = np.abs(np.gradient(mask.numpy().astype(float))).sum(0) > 0
    assert (seen == mask.numpy())[~edges].mean() > 0.995
    again = turn(image, blocks, 5)
    assert torch.equal(again[0], pixels)
    if augmentation is not None:
        assert not torch.equal(turn(image, blocks, 6)[0], pixels)


def test_colours_change_and_the_depth_does_not():
    depth = depths(1)[0].astype(np.float32)
    plain, coloured = (
        PairTransform((32, 32), (0.0,) * 3, (1.0,) * 3, Augmentation(jitter=jitter, seed=1))(
            Image.fromarray(noise()), depth, 0
        )
        for jitter in (False, True)
    )
    assert torch.equal(plain[1], coloured[1])
    assert not torch.equal(plain[0], coloured[0])
    assert set(plain[1].unique().tolist()) <= set(np.unique(depth).tolist())  # nothing between two depths


def test_augmented_images_are_read_in_any_order(tmp_path, model):
    path = table(tmp_path / "a.parquet", [encoded(one) for one in masks(5)])
    pairs = load_dense(path, model, "segmentation")
    order = np.array([3, 0, 4, 1, 2])
    changed = pairs.in_memory().augmented(replace(pairs.turn, augmentation=Augmentation(seed=2)))
    first = torch.cat([batch.targets for batch in changed.take(order).batches(2, workers=0)])
    second = torch.cat([batch.targets for batch in changed.batches(5, workers=0)])
    assert torch.equal(first, second[order])


def test_camvid_is_read(model):
    pairs = load_dense(shared("camvid/val.parquet"), model, "segmentation", n=3)
    assert pairs.targets.ignore == 11
    assert pairs.targets.names[3] == "road"
    found = next(pairs.batches(3, workers=0)).targets.unique()
    assert found.min() >= VOID
    assert found.max() <= 10


def test_a_data_set_of_the_hub_library(tmp_path, model):
    """As `scene_parse_150` and `nyu_depth_v2` have them: `annotation`, and `depth_map` as a float picture."""
    import datasets

    mask, metres = masks(2, classes=3), [(one / 1000).astype(np.float32) for one in depths(2)]
    rows = datasets.Dataset.from_dict(
        {
            "image": [Image.fromarray(noise(seed)) for seed in range(2)],
            "annotation": [Image.fromarray(one) for one in mask],
            "depth_map": [{"bytes": encoded(one, kind="TIFF"), "path": None} for one in metres],
            "scene_category": [1, 2],
        },
        features=datasets.Features(
            {name: datasets.Image() for name in ("image", "annotation", "depth_map")}
            | {"scene_category": datasets.Value("int64")}
        ),
    )
    rows.save_to_disk(tmp_path / "saved")
    pairs = load_dense(tmp_path / "saved", model, "segmentation", targets=MaskTargets(ignore=0))
    assert pairs.source.target_column == "annotation"
    found = pairs.targets.read(pairs.source.read(1).target, (48, 40), "x")
    np.testing.assert_array_equal(found, np.where(mask[1] == 0, VOID, mask[1].astype(int)))
    pairs = load_dense(tmp_path / "saved", model, "depth", targets=DepthTargets.of("m"))
    read = pairs.targets.read(pairs.source.read(0).target, (48, 40), "x")
    np.testing.assert_allclose(read, metres[0])
