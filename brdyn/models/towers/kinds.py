"""Which of transformers' models are plain ViTs, how each is put together, and why others are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from brdyn.models import positions
from brdyn.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD

HALF = (0.5, 0.5, 0.5)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
BY_SIZE = positions.PositionRule(positions.TRANSFORMERS, antialias=False)
RELATIVE = "relative position bias, resampled by transformers (bilinear) to the patch grid"
SINUSOIDAL = "sinusoidal, computed for the patch grid"


@dataclass(frozen=True)
class Kind:
    """How one transformers model type is put together.

    Attributes
    ----------
    model_class : str
        The class in `transformers` that holds the vision trunk.
    norm : tuple of str
        Names its final norm has had; empty where it has none.
    processor : str
        The class in `transformers` that prepares its images, where the checkpoint names none.
    prefix : tuple of str
        Groups of tokens before the patches, registers aside, in order.
    cls, registers : str
        Entries of the config that count class tokens, where there may be several, and registers.
    pre_norm : tuple of str
        Names of the norm between embedding and blocks, if there is one.
    rule : PositionRule
        How its learned positions are resampled.
    rotary : bool
        Whether positions are rotary, handed to each block.
    pool : str
        What its classification head reads (see :mod:`brdyn.models.towers.heads`); empty where it reads what is not
        in the final state.
    mean, std, crop_pct
        Preprocessing where the checkpoint has no processor file.
    note : str
        What a reader of its numbers should know.
    """

    model_class: str
    norm: tuple[str, ...]
    processor: str = "ViTImageProcessor"
    prefix: tuple[str, ...] = ("cls",)
    cls: str = ""
    registers: str = "num_register_tokens"
    pre_norm: tuple[str, ...] = ()
    rule: positions.PositionRule = BY_SIZE
    rotary: bool = False
    pool: str = "cls"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop_pct: float = 1.0
    note: str = ""

    def before(self, config: Any) -> dict[str, int]:
        """How many tokens of each group stand before the patches, by a config of transformers."""
        counts = dict.fromkeys(self.prefix, 1)
        if self.cls:
            counts["cls"] = getattr(config, self.cls)
        return {**counts, "registers": getattr(config, self.registers, 0) or 0}


def _clip(model_class: str) -> Kind:
    return Kind(
        model_class,
        ("post_layernorm",),
        "CLIPImageProcessor",
        pre_norm=("pre_layrnorm", "pre_layernorm"),
        pool="",
        mean=CLIP_MEAN,
        std=CLIP_STD,
    )


def _beit(model_class: str) -> Kind:
    return Kind(model_class, ("layernorm",), "BeitImageProcessor", mean=HALF, std=HALF, crop_pct=0.875)


KINDS: dict[str, Kind] = {
    "vit": Kind("ViTModel", ("layernorm",), mean=HALF, std=HALF),
    "deit": Kind("DeiTModel", ("layernorm",), "DeiTImageProcessor", prefix=("cls", "distillation"), crop_pct=0.875),
    "beit": _beit("BeitModel"),
    "data2vec-vision": _beit("Data2VecVisionModel"),
    "vit_mae": Kind(
        "ViTMAEModel",
        ("layernorm",),
        note="a masked autoencoder's encoder without its masking: it sees every patch, in order",
    ),
    "vit_msn": Kind("ViTMSNModel", ("layernorm",)),
    "ijepa": Kind("IJepaModel", ("layernorm",), prefix=(), pool="patches"),
    "dinov2": Kind(
        "Dinov2Model",
        ("layernorm",),
        "BitImageProcessor",
        rule=positions.FACEBOOK_DINOV2,
        pool="cls and patches",
        crop_pct=0.875,
    ),
    "dinov2_with_registers": Kind(
        "Dinov2WithRegistersModel",
        ("layernorm",),
        "BitImageProcessor",
        rule=positions.FACEBOOK_DINOV2_REGISTERS,
        pool="cls and patches",
        crop_pct=0.875,
    ),
    "dinov3_vit": Kind("DINOv3ViTModel", ("norm",), "DINOv3ViTImageProcessor", rotary=True, pool=""),
    "clip_vision_model": _clip("CLIPVisionModel"),
    "metaclip_2_vision_model": _clip("MetaClip2VisionModel"),
    "altclip_vision_model": _clip("AltCLIPVisionModel"),
    "chinese_clip_vision_model": _clip("ChineseCLIPVisionModel"),
    "clipseg_vision_model": _clip("CLIPSegVisionModel"),
    "tipsv2_vision_model": Kind(
        "Tipsv2VisionModel",
        ("layernorm",),
        "Tipsv2ImageProcessor",
        rule=positions.TIPSV2,
        pool="",
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        note="what stands as registers is trained as a second class token, on synthetic captions",
    ),
    "siglip_vision_model": Kind(
        "SiglipVisionModel",
        ("post_layernorm",),
        "SiglipImageProcessor",
        prefix=(),
        pool="patches",
        mean=HALF,
        std=HALF,
    ),
    "aimv2_vision_model": Kind(
        "Aimv2VisionModel",
        ("rms_norm",),
        "CLIPImageProcessor",
        prefix=(),
        pool="",
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
    "internvl_vision": Kind("InternVLVisionModel", ("layernorm",), "GotOcr2ImageProcessor", pool=""),
    "pixio": Kind("PixioModel", ("layernorm",), "BitImageProcessor", cls="n_cls_tokens", pool=""),
    "radio": Kind(
        "RadioModel",
        (),
        "CLIPImageProcessor",
        cls="num_cls_tokens",
        registers="num_registers",
        rule=positions.RADIO,
        pool="",
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        note="normalises colours itself and has no norm after its last block",
    ),
}

VISION_PARTS = {
    "clip": "clip_vision_model",
    "metaclip_2": "metaclip_2_vision_model",
    "altclip": "altclip_vision_model",
    "chinese_clip": "chinese_clip_vision_model",
    "clipseg": "clipseg_vision_model",
    "tipsv2": "tipsv2_vision_model",
    "siglip": "siglip_vision_model",
    "aimv2": "aimv2_vision_model",
    "internvl": "internvl_vision",
}
"""The vision part of models of images and text, where its own config does not name it."""

WINDOWS = "attention within windows and stages that merge patches: states change shape on the way"
PYRAMID = "stages that shrink the grid: states change shape on the way"
NO_TOKENS = "convolutions: there are no tokens to follow"
VIDEO = "made for videos: its tokens are of space and time"
WORDS = "a model of text: it takes no images"
NOT_PLAIN: dict[str, str] = {
    **dict.fromkeys(("swin", "swinv2", "swin2sr", "maskformer-swin", "donut-swin"), WINDOWS),
    **dict.fromkeys(("sam", "sam2", "sam_hq", "sam_vision_model", "vitdet"), "attention within windows in most blocks"),
    **dict.fromkeys(("hiera", "segformer", "pvt", "pvt_v2", "levit", "mobilevit", "mobilevitv2", "cvt"), PYRAMID),
    **dict.fromkeys(("efficientformer", "glpn", "focalnet", "poolformer", "swiftformer"), PYRAMID),
    **dict.fromkeys(("resnet", "convnext", "convnextv2", "dinov3_convnext", "regnet", "bit"), NO_TOKENS),
    **dict.fromkeys(("efficientnet", "mobilenet_v1", "mobilenet_v2", "vgg"), NO_TOKENS),
    **dict.fromkeys(("videomae", "vivit", "timesformer", "vjepa2", "xclip"), VIDEO),
    **dict.fromkeys(("bert", "roberta", "distilbert", "gpt2", "llama", "qwen2", "t5", "data2vec-text"), WORDS),
    **dict.fromkeys(("clip_text_model", "siglip_text_model", "aimv2_text_model", "metaclip_2_text_model"), WORDS),
    **dict.fromkeys(
        ("siglip2", "siglip2_vision_model"),
        "an embedding that takes patches cut by its processor, with a mask, and images of any shape; the SigLIP 2 "
        "models of one image size load",
    ),
    **dict.fromkeys(
        ("detr", "yolos", "vitpose", "vitmatte"), "made for detection or dense prediction, on top of a trunk"
    ),
    "data2vec-audio": "a model of sound: it takes no images",
}
"""Why a model type is no plain ViT that brdyn follows."""
