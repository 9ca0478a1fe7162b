"""DINOv2 under its torch-hub names, from Facebook's own checkpoints, in a timm trunk; `_lc` adds the ImageNet head.

Facebook's rule for positions (method notes, section 8) is followed: bicubic by scale factor with an
offset of 0.1 and no antialias for the plain models, by size with antialias for those with registers.
The head is that of the last layer, on cls beside the mean patch (`layers=1` of Facebook's hub, whose default
is 4).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from brdyn.blank import on_meta
from brdyn.models import checkpoints, positions, torch_hub, weights
from brdyn.models.base import VisionTransformer
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.request import ModelRequest
from brdyn.models.timm_family import TimmPlain

FAMILY = "dinov2 (torch hub)"
DEFAULT_IMAGE_SIZE = (224, 224)
NATIVE_GRID = 37
PATCH = 14
URL = "https://dl.fbaipublicfiles.com/dinov2/{size}/{name}_pretrain.pth"
SIZES = {"vits14": "small", "vitb14": "base", "vitl14": "large", "vitg14": "giant"}


def _variants() -> dict[str, torch_hub.Variant]:
    variants = {}
    for size, word in SIZES.items():
        for registers in (False, True):
            name = f"dinov2_{size}" + ("_reg" if registers else "")
            variants[name] = torch_hub.Variant(
                name=name,
                arch=f"vit_{word}_patch14_{'reg4_' if registers else ''}dinov2",
                url=URL.format(size=f"dinov2_{size}", name=f"dinov2_{size}" + ("_reg4" if registers else "")),
                patch=PATCH,
                native=NATIVE_GRID * PATCH,
                rule=positions.FACEBOOK_DINOV2_REGISTERS if registers else positions.FACEBOOK_DINOV2,
                preprocessing=Preprocessing(DEFAULT_IMAGE_SIZE),
                layer_scale=1.0,
            )
    return variants


VARIANTS = _variants()


CLASSIFIER = "_lc"
CLASSES, SPREAD = 1000, 0.01  # of ImageNet; standard deviation of the weights of an untrained head


def names() -> tuple[str, ...]:
    """The torch-hub names, of backbones and of classifiers."""
    return (*VARIANTS, *(name + CLASSIFIER for name in VARIANTS))


def matches(name: str) -> bool:
    """Whether this is a torch-hub DINOv2 name."""
    return name.removesuffix(CLASSIFIER) in VARIANTS


def load(request: ModelRequest) -> VisionTransformer:
    """Load a DINOv2 backbone from Facebook's checkpoint, a file in its layout or timm's, or untrained.

    The linear head of a classifier is the file `*_linear_head.pth` beside the backbone's, or Facebook's.
    """
    variant = VARIANTS[request.name.removesuffix(CLASSIFIER)]
    model = torch_hub.load(request, variant, FAMILY)
    if request.name == variant.name:
        return model
    return LinearClassifier(cast("TimmPlain", model), *_head(request, variant, model))


class LinearClassifier(TimmPlain):
    """DINOv2 with a linear head on cls beside the mean patch, both after the norm; registers are not read."""

    def __init__(self, model: TimmPlain, head: nn.Linear, note: str) -> None:
        super().__init__(model.backbone, replace(model.info, notes=(*model.info.notes, note)), model.preprocessing)
        self.built, self.head = model.built, head

    @property
    def classes(self) -> int:
        """Of the linear head."""
        return self.head.out_features

    def logits(self, normed: Tensor) -> Tensor:
        """Class scores `(B, classes)` from normed tokens `(B, N, D)`."""
        patches = normed[:, self.tokens["patches"]].mean(1)
        return self.head(torch.cat([normed[:, self.tokens["cls"]].squeeze(1), patches], dim=-1))


def _head(request: ModelRequest, variant: torch_hub.Variant, model: VisionTransformer) -> tuple[nn.Linear, str]:
    """The head of a classifier, and where it is from."""
    with on_meta():
        head = nn.Linear(2 * model.info.width, CLASSES)
    if request.describe_only:
        return head, "a linear head"
    if request.random:
        generator = torch.Generator().manual_seed(request.seed)
        state = {
            "weight": SPREAD * torch.randn(head.weight.shape, generator=generator),
            "bias": torch.zeros(CLASSES),
        }
        note = "an untrained linear head"
    else:
        path = _head_file(request, variant)
        state = checkpoints.read(path, request.allow_pickle)
        weights.check_fit(request.name, head.state_dict(), state, str(path))
        weights.check_numbers(state, str(path))
        note = f"linear head {path.name}, sha256 {weights.digest(state)[:12]}"
    head.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    return head, note


def _head_file(request: ModelRequest, variant: torch_hub.Variant) -> Path:
    url = variant.url.replace("_pretrain", "_linear_head")
    beside = request.weights.parent / url.rsplit("/", 1)[1] if request.weights is not None else None
    return beside if beside is not None and beside.is_file() else torch_hub.cached(request.name, url)
