"""DINOv3 (Siméoni et al. 2025) under its torch-hub names: registers and rotary positions.

Meta gives the weights out on request, so they come from a file. Images are squeezed to 256 pixels a side, as its
repository does. The files of the satellite data set (`sat493m`) were trained with other means; see its README.
"""

from __future__ import annotations

from brdyn.models import torch_hub
from brdyn.models.base import VisionTransformer
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.request import ModelRequest

FAMILY = "dinov3 (torch hub)"
PATCH = 16
SIDE = 256
ON_REQUEST = (
    "Meta gives DINOv3's weights out on request: https://ai.meta.com/resources/models-and-libraries/dinov3-downloads"
)
ARCHITECTURES = {
    "dinov3_vits16": "vit_small_patch16_dinov3",
    "dinov3_vits16plus": "vit_small_plus_patch16_dinov3",
    "dinov3_vitb16": "vit_base_patch16_dinov3",
    "dinov3_vitl16": "vit_large_patch16_dinov3",
    "dinov3_vith16plus": "vit_huge_plus_patch16_dinov3",
    "dinov3_vit7b16": "vit_7b_patch16_dinov3",
}
VARIANTS = {
    name: torch_hub.Variant(
        name=name,
        arch=arch,
        url="",
        patch=PATCH,
        native=SIDE,
        rule=None,
        preprocessing=Preprocessing((SIDE, SIDE), crop_pct=1.0, crop_mode="squash", interpolation="bilinear"),
        layer_scale=1e-5,
        on_request=ON_REQUEST,
    )
    for name, arch in ARCHITECTURES.items()
}


def names() -> tuple[str, ...]:
    """The torch-hub names of its ViTs."""
    return tuple(VARIANTS)


def matches(name: str) -> bool:
    """Whether this is a torch-hub name of a DINOv3 ViT."""
    return name in VARIANTS


def load(request: ModelRequest) -> VisionTransformer:
    """Load a DINOv3 backbone from a file in Facebook's layout or timm's, or untrained."""
    return torch_hub.load(request, VARIANTS[request.name], FAMILY)
