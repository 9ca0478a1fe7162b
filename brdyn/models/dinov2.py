"""DINOv2 under its torch-hub names, from Facebook's own checkpoints, in a timm trunk.

Facebook's rule for positions (method notes, section 8) is followed: bicubic by scale factor with an
offset of 0.1 and no antialias for the plain models, by size with antialias for those with registers.
"""

from __future__ import annotations

from brdyn.models import positions, torch_hub
from brdyn.models.base import VisionTransformer
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.request import ModelRequest

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


def names() -> tuple[str, ...]:
    """The torch-hub names."""
    return tuple(VARIANTS)


def matches(name: str) -> bool:
    """Whether this is a torch-hub DINOv2 name."""
    return name in VARIANTS


def load(request: ModelRequest) -> VisionTransformer:
    """Load a DINOv2 backbone from Facebook's checkpoint, a file in its layout or timm's, or untrained."""
    return torch_hub.load(request, VARIANTS[request.name], FAMILY)
