"""Folders in timm's layout, of any owner, against timm's own `local-dir:` models."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import resolve_model_data_config
from timm.models import save_for_hf

from brdyn.blank import on_meta
from brdyn.errors import BrdynError, UsageError
from brdyn.models import describe_model, load_model, positions
from brdyn.models.timm_family import position_rule
from tests.conftest import scramble

NAME = "vit_tiny_patch16_224"
SHORT = {"depth": 2, "embed_dim": 32, "num_heads": 2}


def saved(folder, name=NAME, config=None, model_args=None, safe=True, **options):
    model_args = SHORT if model_args is None else model_args
    model = timm.create_model(name, pretrained=False, **model_args, **options).eval()
    scramble(model)
    save_for_hf(model, folder, model_config=config, model_args=model_args, safe_serialization=safe)
    return model


def change(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_folder_equals_timms_own_model_of_it(tmp_path):
    config = {
        "label_names": ["cat", "dog", "eel"],
        "pretrained_cfg": {
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "crop_pct": 0.8,
            "interpolation": "bilinear",
        },
    }
    saved(tmp_path, config=config, num_classes=3)
    content = json.loads((tmp_path / "config.json").read_text())
    change(tmp_path, pretrained_cfg=content["pretrained_cfg"] | config["pretrained_cfg"])
    own = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    model = load_model(str(tmp_path))
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model(images), own.forward_features(images))
        torch.testing.assert_close(model.logits(model(images)), own(images))
    data = resolve_model_data_config(own)
    for entry in ("mean", "std", "crop_pct", "interpolation", "crop_mode"):
        expected = data[entry]
        assert getattr(model.preprocessing, entry) == (tuple(expected) if isinstance(expected, list) else expected)
    assert model.info.name == str(tmp_path)
    assert model.info.weights == f"folder {tmp_path}"
    assert model.class_names == ("cat", "dog", "eel")
    assert f"timm's {NAME}" in model.info.notes


def test_a_folder_trained_at_another_size_keeps_its_positions(tmp_path):
    source = saved(tmp_path, img_size=96, num_classes=0)
    content = json.loads((tmp_path / "config.json").read_text())
    change(tmp_path, pretrained_cfg=content["pretrained_cfg"] | {"input_size": [3, 96, 96]})
    model = load_model(str(tmp_path))
    assert model.info.image_size == (96, 96)
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(model(images), source.forward_features(images))
    assert describe_model(str(tmp_path)).info.image_size == (96, 96)
    assert load_model(str(tmp_path), image_size=128).info.image_size == (128, 128)


def test_arguments_of_the_architecture_are_followed(tmp_path):
    arguments = {**SHORT, "reg_tokens": 2, "class_token": False, "global_pool": "avg", "init_values": 0.1}
    source = saved(tmp_path, model_args=arguments, num_classes=0)
    model = load_model(str(tmp_path))
    assert model.tokens.sizes() == {"registers": 2, "patches": 196}
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model(images), source.forward_features(images))


@pytest.mark.parametrize("legacy", [False, True], ids=["in pretrained_cfg", "in one object"])
def test_older_configs_in_one_object(tmp_path, legacy):
    name = "vit_tiny_patch16_224"
    saved(tmp_path, name, model_args={}, num_classes=3)
    content = json.loads((tmp_path / "config.json").read_text())
    preset = content["pretrained_cfg"] | {"mean": [0.1, 0.2, 0.3]}
    old = {"architecture": name, "num_features": 192, **preset, "labels": ["cat", "dog", "eel"]}
    new = {"architecture": name, "pretrained_cfg": preset, "label_names": ["cat", "dog", "eel"]}
    (tmp_path / "config.json").write_text(json.dumps(old if legacy else new))
    own = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    model = load_model(str(tmp_path))
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model.logits(model(images)), own(images))
    assert model.preprocessing.mean == (0.1, 0.2, 0.3)
    assert model.class_names == ("cat", "dog", "eel")


def test_pickled_weights_follow_the_same_rule(tmp_path):
    source = saved(tmp_path, num_classes=0, safe=False)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(load_model(str(tmp_path))(images), source.forward_features(images))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"architecture": "odd_net"}, "names 'odd_net', which is no architecture of timm"),
        ({"architecture": "resnet18", "model_args": {}}, "'resnet18' is not a plain ViT"),
        ({"architecture": "swin_tiny_patch4_window7_224", "model_args": {}}, "not a plain ViT"),
        (
            {"model_args": {"depth": 10**9}},
            "model_args.depth is 1000000000 instead of a number from 1 to 1000",
        ),
        ({"model_args": {"img_size": 10**9}}, "img_size is 1000000000 instead"),
        (
            {"model_args": {"block_fn": "os.system"}},
            "model_args has an entry 'block_fn' that brdyn does not know",
        ),
        ({"model_args": [1]}, r"model_args is \[1\] instead of an object"),
        ({"pretrained_cfg": 3}, "pretrained_cfg is 3 instead of an object"),
        ({"pretrained_cfg": {"mean": [0.5]}}, "mean has 1 entries instead of 3"),
        ({"pretrained_cfg": {"std": [0, 1, 1]}}, r"std\[0\] is 0 instead of a number"),
        ({"pretrained_cfg": {"crop_pct": 7}}, "crop_pct is 7 instead of a number from 0.01 to 1"),
        ({"pretrained_cfg": {"interpolation": "odd"}}, "interpolation is 'odd'; brdyn has nearest"),
        ({"pretrained_cfg": {"input_size": [1, 224, 224]}}, "its images have 1 channels"),
        (
            {"architecture": "vit_giant_patch14_224", "model_args": {}},
            "numbers, and .* describes [0-9,]+ in the blocks",
        ),
    ],
    ids=str,
)
def test_odd_entries_are_refused_by_name(tmp_path, entries, words):
    saved(tmp_path, num_classes=0)
    change(tmp_path, **entries)
    with pytest.raises(BrdynError, match=words) as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_no_weights_are_fetched_from_where_a_config_points(tmp_path, monkeypatch):
    saved(tmp_path, num_classes=0)
    elsewhere = {
        "url": "http://localhost:1/x.pth",
        "file": "/etc/passwd",
        "hf_hub_id": "o/n",
        "custom_load": True,
    }
    content = json.loads((tmp_path / "config.json").read_text())
    change(tmp_path, pretrained_cfg=content["pretrained_cfg"] | elsewhere)
    expected = load_model(str(tmp_path)).info.digest
    change(tmp_path, pretrained_cfg=content["pretrained_cfg"])
    assert load_model(str(tmp_path)).info.digest == expected
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BrdynError, match=r"has a config\.json and no weights"):
        load_model(str(tmp_path))


def test_a_text_projection_is_no_classification_head(tmp_path):
    name = "vit_base_patch32_clip_224"
    state = saved(tmp_path, name, model_args=SHORT, num_classes=24).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    assert load_model(str(tmp_path)).classes == 0


def test_untrained_and_described(tmp_path):
    saved(tmp_path, num_classes=0)
    assert describe_model(str(tmp_path)).depth == 2
    twin = load_model(str(tmp_path), init="random", seed=1)
    assert twin.info.is_random
    with pytest.raises(UsageError, match="not a multiple"):
        load_model(str(tmp_path), image_size=100)


@pytest.mark.parametrize(
    ("name", "options", "rule"),
    [
        (NAME, {"pos_embed": "none"}, positions.NONE),
        (NAME, {}, positions.TIMM),
        ("beit_base_patch16_224", {}, positions.RELATIVE),
        ("beit_base_patch16_224", {"use_abs_pos_emb": True}, f"{positions.TIMM}; and {positions.RELATIVE}"),
        ("vit_relpos_small_patch16_224", {}, positions.RELATIVE),
        ("vit_relpos_base_patch32_plus_rpn_256", {}, positions.RELATIVE),
        ("vit_small_patch16_dinov3", {}, positions.ROTARY),
        ("eva02_tiny_patch14_224", {}, f"{positions.TIMM}; and {positions.ROTARY}"),
    ],
)
def test_positions_are_named_by_the_modules_there_are(name, options, rule):
    with on_meta():
        backbone = timm.create_model(name, depth=1, **options)
    assert position_rule(backbone, None) == rule
