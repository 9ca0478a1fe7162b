"""DINO (Caron et al. 2021) under its torch-hub names. Positions are resampled as Facebook's code does, which is
DINOv2's rule."""

from __future__ import annotations

from brdyn.models import positions, torch_hub
from brdyn.models.base import VisionTransformer
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.request import ModelRequest

FAMILY = "dino (torch hub)"
NATIVE = 224
URL = "https://dl.fbaipublicfiles.com/dino/dino_{file}_pretrain/dino_{file}_pretrain.pth"
FILES = {  # torch-hub name: size in timm's name, patch, Facebook's file
    "dino_vits16": ("small", 16, "deitsmall16"),
    "dino_vits8": ("small", 8, "deitsmall8"),
    "dino_vitb16": ("base", 16, "vitbase16"),
    "dino_vitb8": ("base", 8, "vitbase8"),
}
VARIANTS = {
    name: torch_hub.Variant(
        name=name,
        arch=f"vit_{size}_patch{patch}_224",
        url=URL.format(file=file),
        patch=patch,
        native=NATIVE,
        rule=positions.FACEBOOK_DINO,
        preprocessing=Preprocessing((NATIVE, NATIVE)),
    )
    for name, (size, patch, file) in FILES.items()
}


def names() -> tuple[str, ...]:
    """The torch-hub names of its ViTs."""
    return tuple(VARIANTS)


def matches(name: str) -> bool:
    """Whether this is a torch-hub name of a DINO ViT."""
    return name in VARIANTS


def load(request: ModelRequest) -> VisionTransformer:
    """Load a DINO backbone from Facebook's checkpoint, a file in its layout or timm's, or untrained."""
    return torch_hub.load(request, VARIANTS[request.name], FAMILY)
