"""Names of models for a shell that completes them: found in a moment, so without torch or timm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

TIMM_FILES = ("vision_transformer", "vision_transformer_relpos", "deit", "beit", "eva")
REGISTERED = re.compile(r"^@register_model\ndef (\w+)\(", re.MULTILINE)
OTHERS = (
    "imgfocus_vits14", "cifar_vit12",
    "dino_vits16", "dino_vits8", "dino_vitb16", "dino_vitb8",
    *(
        f"dinov2_vit{size}14{registers}{head}"
        for head in ("", "_lc") for size in "sblg" for registers in ("", "_reg")
    ),
    "dinov3_vits16", "dinov3_vits16plus", "dinov3_vitb16", "dinov3_vitl16", "dinov3_vith16plus", "dinov3_vit7b16",
)  # fmt: skip


def complete_model(incomplete: str) -> list[str]:
    """Names that begin as what was typed.

    >>> from brdyn.cli.completion import complete_model
    >>> complete_model("dinov2_vits")
    ['dinov2_vits14', 'dinov2_vits14_reg', 'dinov2_vits14_lc', 'dinov2_vits14_reg_lc']
    """
    return [name for name in (*OTHERS, *_of_timm()) if name.startswith(incomplete)]


def _of_timm() -> Iterator[str]:
    """What timm registers, by its source."""
    found = find_spec("timm")
    if found is None or found.origin is None:
        return
    for name in TIMM_FILES:
        file = Path(found.origin).parent / "models" / f"{name}.py"
        if file.is_file():
            yield from REGISTERED.findall(file.read_text(encoding="utf-8"))
