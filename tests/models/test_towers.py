"""Every kind of transformers tower against the model's own forward, from folders the tests write."""

import json

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from brdyn.errors import BrdynError, UsageError
from brdyn.models import describe_model, load_model, untrained_twins
from tests.conftest import scramble

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
VISION = {**SMALL, "image_size": 64, "patch_size": 16}
TEXT = {**SMALL, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
NO_MLP = {name: value for name, value in VISION.items() if name != "intermediate_size"}
RADIO = {**NO_MLP, "mlp_ratio": 2.0, "max_img_size": 128}
WIDE = {**VISION, "image_size": [32, 128]}  # as many patches as 64x64


def vit(kind, **changes):
    return getattr(hf, f"{kind}Model")(getattr(hf, f"{kind}Config")(**(VISION | changes)))


def beit(kind="Beit", **changes):
    return vit(kind, layer_scale_init_value=0.1, use_mean_pooling=False, **changes)


BUILDERS = {
    "DeiT": lambda: vit("DeiT"),
    "BEiT, shared bias": lambda: beit(use_shared_relative_position_bias=True),
    "BEiT, a bias a layer": lambda: beit(use_relative_position_bias=True),
    "BEiT, absolute positions": lambda: beit(use_absolute_position_embeddings=True, use_mask_token=True),
    "BEiT, mean pooling": lambda: vit("Beit", use_mean_pooling=True, use_relative_position_bias=True),
    "Data2Vec, shared bias": lambda: beit("Data2VecVision", use_shared_relative_position_bias=True),
    "Data2Vec, a bias a layer": lambda: beit("Data2VecVision", use_relative_position_bias=True),
    "MAE": lambda: vit("ViTMAE"),
    "MSN": lambda: vit("ViTMSN"),
    "I-JEPA": lambda: vit("IJepa"),
    "MetaCLIP 2": lambda: hf.MetaClip2VisionModel(hf.MetaClip2VisionConfig(**VISION)),
    "AltCLIP": lambda: hf.AltCLIPVisionModel(hf.AltCLIPVisionConfig(**VISION)),
    "Chinese CLIP": lambda: hf.ChineseCLIPVisionModel(hf.ChineseCLIPVisionConfig(**VISION)),
    "CLIPSeg": lambda: hf.CLIPSegVisionModel(hf.CLIPSegVisionConfig(**VISION)),
    "TIPSv2": lambda: hf.Tipsv2VisionModel(hf.Tipsv2VisionConfig(**VISION)),
    "Pixio": lambda: hf.PixioModel(hf.PixioConfig(**NO_MLP, mlp_ratio=2)),
    "RADIO": lambda: hf.RadioModel(hf.RadioConfig(**RADIO)),
    "RADIO, SwiGLU": lambda: hf.RadioModel(hf.RadioConfig(**RADIO, use_swiglu_ffn=True, num_registers=0)),
    "AIMv2": lambda: hf.Aimv2VisionModel(hf.Aimv2VisionConfig(**VISION)),
    "AIMv2, native": lambda: hf.Aimv2VisionModel(hf.Aimv2VisionConfig(**VISION, is_native=True)),
    "InternVL": lambda: hf.InternVLVisionModel(
        hf.InternVLVisionConfig(**VISION, norm_type="rms_norm", use_qk_norm=True, use_mean_pooling=False)
    ),
    "ViT, native 32x128": lambda: hf.ViTModel(hf.ViTConfig(**WIDE), add_pooling_layer=False),
    "InternVL, mean pooling": lambda: hf.InternVLVisionModel(hf.InternVLVisionConfig(**VISION)),
}
UNNORMED = (
    "MetaCLIP 2",
    "AltCLIP",
    "Chinese CLIP",
    "CLIPSeg",
)  # its last_hidden_state is before the final norm
OTHERS = {
    "DeiT": {"distillation": 1},
    "TIPSv2": {"registers": 1},
    "Pixio": {"cls": 8},
    "RADIO": {"cls": 3, "registers": 7},
    "RADIO, SwiGLU": {"cls": 3},
}
NO_CLS = ("I-JEPA", "AIMv2", "AIMv2, native")
ITS_OWN_RULE = ("BEiT", "Data2Vec", "InternVL", "AIMv2", "TIPSv2", "Pixio", "RADIO")
ONE_SIZE = ("AIMv2", "ViT, native 32x128")


def forward(name, source, images, native):
    """The model's own forward: the states between its blocks, and its last state."""
    extra = {}
    if name == "MAE":
        source.config.mask_ratio = 0.0
        patches = images.shape[-2] // 16 * (images.shape[-1] // 16)
        extra["noise"] = torch.arange(patches).expand(len(images), -1)
    if not native and not name.startswith(ITS_OWN_RULE):
        extra["interpolate_pos_encoding"] = True
    output = source(images, output_hidden_states=True, **extra)
    return output.hidden_states, output.last_hidden_state


def compare(name, source, model, native=True):
    images = torch.randn(2, 3, *model.info.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden, last = forward(name, source, images, native)
        states = [model.embed(images)]
        for block in model.blocks:
            states.append(block(states[-1]))
        # Models whose output is not normed give the same hidden states; others norm only the last.
        for mine, theirs in zip(states[:-1], hidden[:-1], strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
        mine = states[-1] if name in UNNORMED else model.norm(states[-1])
        torch.testing.assert_close(mine, last, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model(images), model.norm(states[-1]))


@pytest.fixture(params=BUILDERS)
def saved(request, tmp_path):
    source = BUILDERS[request.param]().eval()
    scramble(source)
    source.save_pretrained(tmp_path / "model")
    return request.param, source, tmp_path / "model"


def test_stepping_equals_the_models_own_forward(saved):
    name, source, folder = saved
    model = load_model(str(folder))
    prefix = {} if name in NO_CLS else {"cls": 1, **OTHERS.get(name, {})}
    assert model.tokens.sizes() == {**prefix, "patches": 16}
    assert model.info.heads == 4
    compare(name, source, model)
    described = describe_model(str(folder))
    assert described.tokens == model.tokens
    assert described.info.position_rule == model.info.position_rule


@pytest.mark.parametrize(
    ("name", "said"),
    {
        "InternVL, mean pooling": "has no norm after its last block",
        "BEiT, mean pooling": "has no norm after its last block: it norms the mean of its patches instead",
        "BEiT, shared bias": "",
    }.items(),
)
def test_the_norm_of_a_mean_is_said_where_there_is_one(name, said, tmp_path):
    BUILDERS[name]().save_pretrained(tmp_path)
    found = [note for note in load_model(str(tmp_path)).info.notes if "no norm" in note]
    assert found == ([said] if said else [])


def test_another_size_equals_the_models_own_forward(saved):
    name, source, folder = saved
    if name in ONE_SIZE:
        with pytest.raises(UsageError, match="drop `image_size`"):
            load_model(str(folder), image_size=(96, 48))
        return
    model = load_model(str(folder), image_size=(96, 48))
    compare(name, source, model, native=False)


def test_positions_that_fit_are_not_touched(tmp_path):
    """A table of 2x8 patches is not one of 4x4."""
    source = BUILDERS["ViT, native 32x128"]().eval()
    scramble(source)
    source.save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    assert torch.equal(model.backbone.embeddings.resampled_positions, source.embeddings.position_embeddings)


def test_a_masked_autoencoder_sees_every_patch_in_order(tmp_path):
    BUILDERS["MAE"]().save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images), model(images))
        patch = model.backbone.embeddings.patch_embeddings(images)
        table = model.backbone.embeddings.position_embeddings
        torch.testing.assert_close(model.embed(images)[:, 1:], patch + table[:, 1:])
    assert "without its masking" in " ".join(model.info.notes)


def composite(kind):
    if kind == "InternVL":
        text = {"model_type": "qwen2", **TEXT, "num_key_value_heads": 4}
        config = hf.InternVLConfig(vision_config=VISION, text_config=text)
        model = hf.InternVLForConditionalGeneration(config)
        return model, model.model.vision_tower
    config = getattr(hf, f"{kind}Config")(vision_config=VISION, text_config=TEXT)
    model = getattr(hf, f"{kind}Model")(config)
    return model, model.vision_model


@pytest.mark.parametrize(
    "kind",
    ["CLIP", "AltCLIP", "ChineseCLIP", "CLIPSeg", "Siglip", "MetaClip2", "Aimv2", "Tipsv2", "InternVL"],
)
def test_a_model_of_images_and_text_gives_its_vision_part(kind, tmp_path):
    whole, tower = composite(kind)
    whole.eval()
    scramble(whole)
    whole.save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    name = "MetaCLIP 2" if "CLIP" in kind.upper() else kind
    compare(name, tower, model)
    notes = " ".join(model.info.notes)
    assert "the vision part of a" in notes
    text = {"InternVL": "multi_modal_projector", "Tipsv2": "text_encoder"}.get(kind, "text_model")
    assert text in notes


def test_altclip_is_read_as_it_is_published(tmp_path):
    """With CLIP's names of its layers, which transformers changes where it saves the whole model."""
    whole = hf.AltCLIPModel(hf.AltCLIPConfig(vision_config=VISION, text_config={**TEXT, "project_dim": 32})).eval()
    scramble(whole)
    whole.config.save_pretrained(tmp_path)
    state = {name: tensor.contiguous() for name, tensor in whole.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    compare("AltCLIP", whole.vision_model, load_model(str(tmp_path)))


@pytest.mark.parametrize(("kind", "where"), [("Blip", "blip"), ("OwlViT", "owlvit"), ("DPT", "dpt")])
def test_a_trunk_that_is_not_known_is_given_in_python(kind, where, tmp_path):
    getattr(hf, f"{kind}Config")().save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=rf"'{where}.*in Python give its vision trunk to brdyn\.adapt \(docs"):
        load_model(str(tmp_path))


HEADS = {
    "ViT": lambda c: hf.ViTForImageClassification(hf.ViTConfig(**VISION, **c)),
    "DeiT": lambda c: hf.DeiTForImageClassification(hf.DeiTConfig(**VISION, **c)),
    "DeiT with two heads": lambda c: hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**VISION, **c)),
    "BEiT": lambda c: hf.BeitForImageClassification(
        hf.BeitConfig(**VISION, use_mean_pooling=True, use_relative_position_bias=True, **c)
    ),
    "Data2Vec": lambda c: hf.Data2VecVisionForImageClassification(
        hf.Data2VecVisionConfig(**VISION, use_mean_pooling=True, **c)
    ),
    "MSN": lambda c: hf.ViTMSNForImageClassification(hf.ViTMSNConfig(**VISION, **c)),
    "I-JEPA": lambda c: hf.IJepaForImageClassification(hf.IJepaConfig(**VISION, **c)),
    "DINOv2": lambda c: hf.Dinov2ForImageClassification(
        hf.Dinov2Config(**SMALL | {"mlp_ratio": 2, "image_size": 64, "patch_size": 16}, **c)
    ),
    "DINOv2 with registers": lambda c: hf.Dinov2WithRegistersForImageClassification(
        hf.Dinov2WithRegistersConfig(**SMALL | {"mlp_ratio": 2, "image_size": 64, "patch_size": 16}, **c)
    ),
    "SigLIP": lambda c: hf.SiglipForImageClassification(hf.SiglipConfig(vision_config=VISION, text_config=TEXT, **c)),
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_classification_head_is_served(kind, tmp_path):
    names = {0: "cat", 1: "dog", 2: "eel"}
    source = HEADS[kind]({"id2label": names}).eval()
    scramble(source)
    source.save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.logits(model(images)), source(images).logits, atol=1e-5, rtol=1e-5)
    assert model.classes == 3
    assert model.class_names == ("cat", "dog", "eel")
    assert "classifier" not in " ".join(model.info.notes)
    one, other = untrained_twins(model, 2)
    assert one.class_names == model.class_names
    mine, theirs = (twin.logits(twin(images)) for twin in (one, other))
    assert mine.shape == (2, 3)
    assert not torch.equal(mine, theirs)
    again = next(iter(untrained_twins(one, 1)))
    assert torch.equal(again.logits(again(images)), theirs)
    bare = load_model(str(tmp_path), init="random", seed=1)
    assert torch.equal(bare(images), one(images))


def test_a_head_that_is_not_served_is_told(tmp_path):
    config = hf.CLIPConfig(vision_config=VISION, text_config=TEXT)
    hf.CLIPForImageClassification(config).save_pretrained(tmp_path / "clip")
    model = load_model(str(tmp_path / "clip"))
    assert model.classes == 0
    assert "left out of the file, as not of the trunk: classifier" in model.info.notes
    hf.ViTMAEForPreTraining(hf.ViTMAEConfig(**VISION)).save_pretrained(tmp_path / "mae")
    assert "left out of the file, as not of the trunk: decoder" in load_model(str(tmp_path / "mae")).info.notes


def test_grey_images_are_taken_by_their_luma(tmp_path):
    from PIL import Image

    source = hf.ViTModel(hf.ViTConfig(**VISION, num_channels=1), add_pooling_layer=False).eval()
    scramble(source)
    source.save_pretrained(tmp_path)
    processor = hf.ViTImageProcessor(size={"height": 64, "width": 64}, image_mean=[0.4], image_std=[0.2], resample=2)
    processor.save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    grey = Image.fromarray(torch.randint(0, 256, (64, 64), dtype=torch.uint8).numpy())
    seen = model.transform(grey.convert("RGB"))[None]
    expected = (torch.frombuffer(bytearray(grey.tobytes()), dtype=torch.uint8).view(1, 1, 64, 64) / 255 - 0.4) / 0.2
    with torch.no_grad():
        torch.testing.assert_close(model(seen), source(expected).last_hidden_state, atol=1e-5, rtol=1e-5)
    assert "grey" in " ".join(model.info.notes)


@pytest.mark.parametrize("channels", [2, 4, 12])
def test_other_channels_are_refused(tmp_path, channels):
    hf.ViTModel(hf.ViTConfig(**VISION, num_channels=channels)).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=f"takes images of {channels} channels; brdyn's images have three"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Swin", "attention within windows"),
        ("ConvNext", "convolutions"),
        ("Hiera", "shrink the grid"),
        ("Segformer", "shrink the grid"),
        ("VideoMAE", "videos"),
        ("Bert", "a model of text"),
        ("Siglip2", "with a mask"),
        ("Sam", "attention within windows"),
    ],
)
def test_what_is_no_plain_vit_says_which_part_is_not(tmp_path, kind, words):
    getattr(hf, f"{kind}Config")().save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=f"not a plain ViT: .*{words}"):
        load_model(str(tmp_path))


def test_fewer_layers_in_the_config_than_in_the_weights(tmp_path):
    BUILDERS["DeiT"]().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(BrdynError, match=r"16 more than its config\.json describes"):
        load_model(str(tmp_path))


def test_published_radio_has_no_layer_scale(tmp_path):
    """NVIDIA's files have none; transformers' layers then multiply by one."""
    source = BUILDERS["RADIO"]().eval()
    scramble(source)
    source.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    assert "radio_model.model.blocks.0.attn.qkv.weight" in state  # the layout of NVIDIA's own
    scales = [name for name in state if "lambda1" in name]
    assert len(scales) == 2 * VISION["num_hidden_layers"]
    save_file({name: tensor for name, tensor in state.items() if name not in scales}, tmp_path / "model.safetensors")
    for layer in source.encoder.layer:
        layer.layer_scale1.lambda1.data.fill_(1.0)
        layer.layer_scale2.lambda1.data.fill_(1.0)
    compare("RADIO", source, load_model(str(tmp_path)))


@pytest.mark.parametrize(("name", "classes"), [("Pixio", 8), ("RADIO", 3)])
def test_several_class_tokens_are_one_group(name, classes, tmp_path):
    BUILDERS[name]().save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    assert model.tokens.readouts == ("cls", "patches")
    assert model.tokens["cls"] == slice(0, classes)
    assert any(note.startswith(f"has {classes} class tokens") for note in model.info.notes)
