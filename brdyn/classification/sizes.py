"""Names and sizes of the networks to train from scratch. Needs no torch, so that a wrong name is told at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from brdyn.errors import UsageError

MOST_LAYERS = 1_000
RESNETS = ("resnet18", "resnet34", "resnet50")


@dataclass(frozen=True, kw_only=True)
class ViTSize:
    """Of a ViT with a cls token and learned positions.

    Attributes
    ----------
    width, depth, heads : int
        D, L, attention heads.
    hidden : int
        Units of the MLP.
    patch : int
        Side of a patch in pixels.
    """

    width: int
    depth: int
    heads: int
    hidden: int
    patch: int = 4

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        for name, number in asdict(self).items():
            if number < 1:
                raise UsageError(f"{name} {number} is not positive")
        if self.depth > MOST_LAYERS:
            raise UsageError(f"depth {self.depth} is more than {MOST_LAYERS}")


VITS = {
    "vit-small": ViTSize(width=512, depth=8, heads=8, hidden=1024),
    "vit-base": ViTSize(width=768, depth=12, heads=12, hidden=3072),
    "vit-large": ViTSize(width=1024, depth=24, heads=16, hidden=4096),
    "vit-tiny12": ViTSize(width=192, depth=12, heads=3, hidden=768),
}
"""The published baselines, and the small ViT of the stochastic-depth study."""
