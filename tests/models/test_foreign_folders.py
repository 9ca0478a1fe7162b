"""Model folders of strangers: no code, no prompt, no memory on their word, one line for whatever is odd in them."""

import builtins
import json
import resource
import sys

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from brdyn.errors import BrdynError, UsageError
from brdyn.models import describe_model, load_model
from tests.conftest import scramble
from tests.models.test_saved_folders import attempt
from tests.models.test_towers import SMALL, VISION

GROWTH = 300 * 2**10  # KiB


@pytest.fixture
def folder(tmp_path):
    source = hf.ViTModel(hf.ViTConfig(**VISION), add_pooling_layer=False)
    scramble(source)
    source.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change(folder, file="config.json", **entries):
    path = folder / file
    content = json.loads(path.read_text()) if path.exists() else {}
    content |= entries
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def refuse(folder, words, kind=BrdynError, **options):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(kind, match=words) as caught:
        load_model(str(folder), **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH


@pytest.fixture
def no_prompt(monkeypatch):
    def asked(*_):
        raise AssertionError("asked on stdin")

    monkeypatch.setattr(builtins, "input", asked)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)


@pytest.mark.parametrize("model_type", ["vit", "my_vit"])
def test_code_in_a_folder_is_not_run(folder, tmp_path, no_prompt, model_type):
    marker = tmp_path / "ran"
    (folder / "code.py").write_text(f"open({str(marker)!r}, 'w')\nclass C: pass\nclass M: pass\nclass P: pass\n")
    change(folder, model_type=model_type, auto_map={"AutoConfig": "code.C", "AutoModel": "code.M"})
    change(folder, "preprocessor_config.json", auto_map={"AutoImageProcessor": "code.P"})
    if model_type == "vit":  # which transformers has itself
        assert load_model(str(folder)).depth == 3
    else:
        refuse(
            folder,
            r"model/config.json' asks for code of its own \(auto_map\), which brdyn does not run",
            UsageError,
        )
    assert not marker.exists()


def test_a_processor_of_the_folders_own_is_refused(folder, no_prompt):
    change(
        folder,
        "preprocessor_config.json",
        image_processor_type="MyProcessor",
        auto_map={"AutoImageProcessor": "a.B"},
    )
    refuse(folder, "is of 'MyProcessor', which is no image processor that transformers has", UsageError)
    change(folder, "preprocessor_config.json", image_processor_type="PreTrainedModel")
    refuse(folder, "no image processor", UsageError)


@pytest.mark.parametrize(
    "entries",
    [
        {"_attn_implementation": "owner/kernel"},
        {"attn_implementation": "owner/kernel:function"},
        {"_attn_implementation": "flash_attention_2"},
        {"_attn_implementation_internal": "flex_attention"},
        {
            "_attn_implementation": 3,
            "use_kernels": True,
            "kernel_config": {"RMSNorm": "owner/kernel:RMSNorm"},
        },
        {
            "fusion_config": {"odd": True},
            "distributed_config": {"tp_plan": "auto"},
            "transformers_weights": "/etc/passwd",
        },
        {"dtype": "float16"},
        {"torch_dtype": "odd"},
        {"dtype": {"odd": 1}},
        {"num_labels": 10**9},
        {"text_config": {"num_labels": 10**9}},
        {"architectures": 3, "pruned_heads": {"0": [0, 1]}, "is_decoder": True, "head_dim": 64},
    ],
    ids=str,
)
def test_what_is_not_of_the_trunk_changes_no_number(folder, entries, monkeypatch):
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = load_model(str(folder))
    change(folder, **entries)
    monkeypatch.setitem(sys.modules, "kernels", None)
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    model = load_model(str(folder))
    with torch.no_grad():
        assert torch.equal(model(images), expected(images))
    assert model.info.digest == expected.info.digest
    assert model.backbone.config._attn_implementation == "sdpa"
    named = entries.get("_attn_implementation", entries.get("attn_implementation"))
    assert ("attention is torch's own" in " ".join(model.info.notes)) == (named is not None)
    for block in model.blocks:
        assert block.layer.attention.config._attn_implementation == "sdpa"


def test_half_precision_in_the_file_is_kept_as_it_is(folder):
    """A config that says less than the weights does not round them, and weights in half give their own values."""
    state = load_file(folder / "model.safetensors")
    save_file({key: value.half() for key, value in state.items()}, folder / "model.safetensors")
    table = load_model(str(folder)).backbone.embeddings.position_embeddings
    key = next(key for key in state if key.endswith("position_embeddings"))
    assert torch.equal(table, state[key].half().float())


def test_quantized_weights_are_refused(folder):
    change(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    refuse(folder, "weights are quantized", UsageError)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda tensor: (tensor * 100).to(torch.int8), "is int8: quantised"),
        (lambda tensor: tensor.to(torch.float8_e4m3fn), "is float8_e4m3fn: quantised"),
        (lambda tensor: tensor.index_fill(0, torch.tensor([0]), torch.nan), "values that are not finite"),
    ],
)
@pytest.mark.parametrize("part", ["0.attention.attention.query.weight", "classifier.bias"])
def test_weights_that_are_no_numbers_are_refused(tmp_path, part, spoil, words):
    """Whatever the config says of them."""
    source = hf.ViTForImageClassification(hf.ViTConfig(**VISION, num_labels=5))
    scramble(source)
    source.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    key = next(key for key in state if key.endswith(part))
    save_file({**state, key: spoil(state[key])}, file)
    refuse(tmp_path, f"{key} in .* {words}")


def test_the_text_beside_a_tower_and_indices_are_not_looked_at(tmp_path):
    source = hf.CLIPModel(hf.CLIPConfig(vision_config={**VISION, "projection_dim": 8}))
    source.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    key = next(key for key in state if key.startswith("text_model.") and key.endswith("weight"))
    state |= {key: state[key].to(torch.int8), "vision_model.embeddings.position_ids": torch.arange(17)[None]}
    save_file(state, file)
    assert load_model(str(tmp_path)).depth == 3


def test_an_adapter_is_not_left_out_silently(folder):
    change(folder, "adapter_config.json", base_model_name_or_path="/elsewhere", peft_type="LORA")
    refuse(folder, "holds an adapter", UsageError)


def test_pickled_weights(folder, tmp_path):
    images = torch.randn(1, 3, 64, 64)
    expected = load_model(str(folder))
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with torch.no_grad():
        assert torch.equal(load_model(str(folder))(images), expected(images))  # tensors alone run no code

    marker = tmp_path / "ran"
    torch.save(state | {"odd": Runs(marker)}, folder / "pytorch_model.bin")
    refuse(folder, "holds pickled Python objects")
    assert not marker.exists()
    with torch.no_grad():
        assert torch.equal(load_model(str(folder), allow_pickle=True)(images), expected(images))


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def shard(folder):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    keys = sorted(state)
    files = {key: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, key in enumerate(keys)}
    for file in set(files.values()):
        save_file({key: state[key] for key in keys if files[key] == file}, folder / file)
    return files


def test_shards(folder):
    expected = load_model(str(folder)).info.digest
    files = shard(folder)
    change(folder, "model.safetensors.index.json", weight_map=files)
    assert load_model(str(folder)).info.digest == expected


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("../../x.safetensors", "names '../../x.safetensors', which is no .safetensors file beside it"),
        ("/etc/passwd", "which is no .safetensors file beside it"),
        ("pytorch_model.bin", "which is no .safetensors file beside it"),
        ("gone.safetensors", "names 'gone.safetensors', which is not there"),
        (3, "names '3', which is no"),
        (None, "names 'None', which is no"),
        (["a"], "names 'a list', which is no"),
    ],
)
def test_an_index_stays_in_its_folder(folder, file, words):
    files = shard(folder)
    files[next(iter(files))] = file
    change(folder, "model.safetensors.index.json", weight_map=files)
    refuse(folder, words)
    change(folder, "model.safetensors.index.json", weight_map=[file])
    refuse(folder, "has no weight_map", UsageError)


SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "image_size",
    "patch_size",
)


@pytest.mark.parametrize("kind", ["ViT", "DINOv3ViT", "Beit", "Aimv2Vision", "Dinov2", "InternVLVision"])
def test_no_entry_of_a_config_gives_a_traceback_or_takes_memory(tmp_path, kind):
    config = getattr(hf, f"{kind}Config")
    sizes = {key: value for key, value in VISION.items() if key in set(config.__dataclass_fields__)}
    getattr(hf, f"{kind}Model")(config(**sizes)).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = set()
    for name in content:
        for value in ("odd", -1, 10**6, 10**400, float("nan"), None, [], [64, 64, 64], {"odd": 1}, True):
            if isinstance(content[name], bool) and value is True:
                continue
            (tmp_path / "config.json").write_text(json.dumps(content | {name: value}))
            for load in (load_model, describe_model) if name in SIZES else (describe_model,):
                model, error = attempt(load, tmp_path)
                if model is None:
                    refused.add(name)
                    assert "\n" not in error, (name, value, error)
    assert set(SIZES) & set(content) <= refused
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (
            {"num_hidden_layers": 100},
            r"hold 50,\d+ numbers, and its config.json describes .* \(layers: 100, width: 32",
        ),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000 instead of a number from 1 to 1000"),
        ({"hidden_size": 65536}, "hold 50,.* describes .*width: 65536"),
        ({"intermediate_size": 10**6}, "hold 50,.* describes"),
        ({"image_size": 8192}, "hold 50,.* describes .*image: 8192"),
        ({"image_size": 10**6}, "image_size is 1000000 instead of a number from 1 to 8192"),
        ({"num_attention_heads": 5}, "width 32 cannot be split among 5 heads"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0 instead of a number from 1"),
        ({"hidden_act": "os.system"}, "hidden_act is 'os.system', which is none that transformers has"),
        ({"patch_size": [16, 8]}, "patches of 16x8 pixels are not square"),
        ({"patch_size": 128}, "an image of 64 pixels is smaller than a patch of 128"),
        (
            {"intermediate_size": 48},
            r"of another shape \(layers.0.mlp.fc1.bias is \(64,\) instead of \(48,\)",
        ),
        ({"num_hidden_layers": 4}, "missing"),
        ({"model_type": ...}, "has no model_type"),
        ({"model_type": "odd"}, "is of a 'odd' model, not a plain ViT that brdyn knows; .* to brdyn.adapt"),
        ({"id2label": {"0": 3}}, "id2label is not a name for each class"),
        ({"id2label": {"1": "cat"}}, "id2label does not number the classes"),
    ],
    ids=str,
)
def test_what_a_config_describes_is_compared_with_the_weights(folder, entries, words):
    change(folder, **entries)
    refuse(folder, words)


def test_untrained_weights_of_an_absurd_size_are_refused(folder):
    change(folder, hidden_size=65536, intermediate_size=10**6, num_hidden_layers=1000)
    refuse(folder, r"describes 1\.\de\+14 parameters", UsageError, init="random")


def test_a_composite_of_a_wrong_type(tmp_path):
    for vision in ("odd", 3, [1]):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": vision}))
        refuse(tmp_path, "vision_config is .* instead of an object", UsageError)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "odd", "vision_config": {"model_type": 3}}))
    refuse(tmp_path, "model_type is 3 instead of a text", UsageError)


def test_an_old_clip_config_says_what_counts_second(tmp_path):
    content = {
        "model_type": "clip",
        "vision_config": {**SMALL, "image_size": 64, "patch_size": 32},
        "vision_config_dict": VISION,
    }
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert hf.CLIPConfig.from_pretrained(tmp_path).vision_config.patch_size == 16
    assert describe_model(str(tmp_path)).info.patch == 16


@pytest.mark.parametrize("content", ["", "[1, 2]", "{", '{"model_type": 3}', "\x00", "null"])
def test_a_config_that_is_no_config(folder, content):
    (folder / "config.json").write_text(content)
    refuse(folder, "config.json", UsageError)


def test_a_folder_without_weights_and_with_a_truncated_file(folder):
    whole = (folder / "model.safetensors").read_bytes()
    for size in (len(whole) - 100, 5000, 100, 5, 0):
        (folder / "model.safetensors").write_bytes(whole[:size])
        short = f"truncated: only {size} bytes" if size else "it is empty; download it again"
        refuse(folder, f"truncated: {size:,} of .* bytes" if size >= 8 else short)
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    refuse(folder, "a Git LFS pointer")
    (folder / "model.safetensors").unlink()
    refuse(folder, "has a config.json and no weights .*`init=random`")
    (folder / "tf_model.h5").write_bytes(b"")
    refuse(folder, "its tf_model.h5 is of a kind that brdyn does not read")
