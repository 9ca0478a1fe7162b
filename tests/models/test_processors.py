"""What a processor file says is done as transformers does it, or refused by name."""

import json

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from brdyn.errors import UsageError
from brdyn.models import describe_model
from tests.models.test_towers import TEXT, VISION

PROCESSORS = {
    "squash": hf.ViTImageProcessor(size={"height": 64, "width": 64}),
    "squash and crop": hf.DeiTImageProcessor(
        size={"height": 80, "width": 80}, crop_size={"height": 64, "width": 64}, resample=2
    ),
    "short edge and crop": hf.CLIPImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}),
    "not normalised": hf.ViTImageProcessor(size={"height": 64, "width": 64}, do_normalize=False),
    "not rescaled": hf.ViTImageProcessor(
        size={"height": 64, "width": 64}, do_rescale=False, image_mean=[120, 110, 100], image_std=[60, 50, 40]
    ),
    "to -1 and 1": hf.ViTImageProcessor(
        size={"height": 64, "width": 64}, rescale_factor=1 / 127.5, image_mean=[1, 1, 1], image_std=[1, 1, 1]
    ),
    "neither": hf.ViTImageProcessor(size={"height": 64, "width": 64}, do_rescale=False, do_normalize=False),
}


@pytest.fixture
def folder(tmp_path):
    hf.ViTConfig(**VISION).save_pretrained(tmp_path)
    return tmp_path


def picture():
    rows, columns = np.mgrid[0:90, 0:120]
    pixels = np.stack([rows * 2, columns * 2, 128 + 60 * np.sin(rows / 9) * np.cos(columns / 7)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("name", PROCESSORS)
def test_images_arrive_as_the_checkpoints_own_processor_gives_them(folder, name):
    processor = PROCESSORS[name]
    processor.save_pretrained(folder)
    expected = processor(picture(), return_tensors="pt").pixel_values[0].float()
    seen = describe_model(str(folder)).transform(picture())
    spread = float(expected.max() - expected.min())
    assert seen.shape == expected.shape
    # Both round to bytes after resizing, by PIL and by torch: they may differ by a little more than one of 255.
    assert float((seen - expected).abs().max()) < 0.02 * spread
    assert float((seen - expected).abs().mean()) < 0.002 * spread


def test_a_size_of_one_number_is_what_the_processors_class_takes_it_for(folder):
    for name, mode in (
        ("ViTFeatureExtractor", "squash"),
        ("CLIPFeatureExtractor", "center"),
        ("CLIPImageProcessorFast", "center"),
    ):
        write(folder, feature_extractor_type=name, size=64, crop_size=64)
        assert describe_model(str(folder)).preprocessing.crop_mode == mode
    write(folder, size=64)  # of no class: the model's own
    assert describe_model(str(folder)).preprocessing.crop_mode == "squash"


def test_what_a_file_does_not_say_is_what_its_class_does(folder):
    write(folder, image_processor_type="CLIPImageProcessor", size=80, crop_size=64)
    preprocessing = describe_model(str(folder)).preprocessing
    assert preprocessing.mean == tuple(hf.CLIPImageProcessor.image_mean)
    assert preprocessing.interpolation == "bicubic"
    write(folder, image_processor_type="ViTImageProcessor")
    preprocessing = describe_model(str(folder)).preprocessing
    assert preprocessing.interpolation == "bilinear"
    assert preprocessing.mean == (0.5, 0.5, 0.5)


def test_the_processor_of_a_model_of_images_and_text(tmp_path):
    hf.CLIPConfig(vision_config=VISION, text_config=TEXT).save_pretrained(tmp_path)
    inner = {
        "image_processor_type": "CLIPImageProcessor",
        "image_mean": [0.1, 0.2, 0.3],
        "size": 64,
        "crop_size": 64,
    }
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "A", "image_processor": inner}))
    assert describe_model(str(tmp_path)).preprocessing.mean == (0.1, 0.2, 0.3)


def test_no_processor_file_is_said(folder):
    assert "no preprocessor_config.json" in " ".join(describe_model(str(folder)).info.notes)


def write(folder, **entries):
    (folder / "preprocessor_config.json").write_text(json.dumps(entries))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"image_mean": [0.5, 0.5]}, "image_mean has 2 numbers instead of 3"),
        ({"image_std": []}, "image_std has 0 numbers instead of 3"),
        ({"image_std": [0, 1, 1]}, r"image_std\[0\] is 0 instead of a number from 1e-09"),
        ({"image_mean": ["a", 1, 1]}, r'image_mean\[0\] is "a" instead of a number'),
        ({"image_mean": [float("nan")] * 3}, "NaN"),
        ({"size": "224"}, 'size is "224" instead of'),
        ({"size": {"height": "64", "width": "64"}}, "size is '64' instead of 1 to 8192 pixels"),
        ({"size": {"longest_edge": 64}}, "size has 'longest_edge'; brdyn resizes to"),
        ({"size": {"max_height": 64, "max_width": 64}}, "size has 'max_height', 'max_width'"),
        ({"size": -3}, "size is -3 instead of 1 to 8192 pixels"),
        ({"size": 10**9}, "size is 1000000000 instead of"),
        ({"size": [64]}, "size has 1 numbers instead of two"),
        ({"resample": 99}, "resample is 99, which is no filter of PIL"),
        ({"resample": "bicubic"}, 'resample is "bicubic" instead of a whole number'),
        ({"do_rescale": "no"}, 'do_rescale is "no" instead of true or false'),
        ({"rescale_factor": 0}, "rescale_factor is 0 instead of a number from"),
        ({"do_center_crop": True, "size": 50, "crop_size": 64}, "crops 64x64 pixels of 50x50, which pads"),
        ({"do_center_crop": True, "size": {"height": 64, "width": 80}, "crop_size": 64}, "both sides alike"),
        ({"do_flip_channel_order": True}, "blue and red exchanged"),
        ({"crop_to_patches": True}, "cut to several tiles"),
        ({"image_processor_type": 3}, "is of 3, which is no image processor"),
        ({"image_processor_type": "SwinImageProcessor"}, "which is no image processor that transformers has"),
    ],
    ids=str,
)
def test_odd_values_are_refused_by_name(folder, entries, words):
    write(folder, **entries)
    with pytest.raises(UsageError, match=words) as caught:
        describe_model(str(folder))
    assert "preprocessor_config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00"])
def test_a_processor_file_that_is_none_is_not_passed_over(folder, text):
    (folder / "preprocessor_config.json").write_text(text)
    with pytest.raises(UsageError, match=r"preprocessor_config\.json"):
        describe_model(str(folder))


def test_a_mean_of_one_number_is_of_all_colours(folder):
    write(folder, image_mean=0.4, image_std=[0.2])
    preprocessing = describe_model(str(folder)).preprocessing
    assert preprocessing.mean == (0.4, 0.4, 0.4)
    assert preprocessing.std == (0.2, 0.2, 0.2)
    assert torch.allclose(
        preprocessing.transform(Image.new("RGB", (80, 80), (102, 102, 102))), torch.zeros(1), atol=1e-6
    )
