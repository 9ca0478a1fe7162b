"""Names and sizes of the networks to train from scratch. Needs no torch, so that a wrong name is told at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from brdyn.choices import check_heads, check_patches, check_share
from brdyn.errors import UsageError

MOST = {"depth": 1_000, "latent_steps": 1_000, "image_size": 16_384}  # of others a million
MOST_STEPS = 1_000  # of a recursion
RESNETS = ("resnet18", "resnet34", "resnet50")


def check_sizes(sizes: Mapping[str, int]) -> None:
    """Refuse sizes that no network has, and that could not be read back from its config.

    Raises
    ------
    UsageError
        `depth 5000 is more than 1000`.
    """
    for name, size in sizes.items():
        said, most = f"{name.replace('_', '-')} {size}", MOST.get(name, 1_000_000)
        if size < 1:
            raise UsageError(f"{said} is not positive")
        if size > most:
            raise UsageError(f"{said} is more than {most}")


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
        check_sizes(asdict(self))
        check_heads(self.width, self.heads)


VITS = {
    "vit-small": ViTSize(width=512, depth=8, heads=8, hidden=1024),
    "vit-base": ViTSize(width=768, depth=12, heads=12, hidden=3072),
    "vit-large": ViTSize(width=1024, depth=24, heads=16, hidden=4096),
    "vit-tiny12": ViTSize(width=192, depth=12, heads=3, hidden=768),
}
"""The published baselines, and the small ViT of the stochastic-depth study."""


def check_vit(
    name: str, image_size: int, *, drop_path: float = 0.0, dropout: float = 0.0, **sizes: int
) -> ViTSize:
    """The sizes of a ViT by name, some of them changed, if it can be built so for images of `image_size` pixels.

    Raises
    ------
    UsageError
        If it cannot.
    """
    size = replace(VITS[name], **sizes)
    check_sizes({"image_size": image_size})
    check_patches(name, (image_size,) * 2, (size.patch,) * 2)
    check_share("drop-path", drop_path)
    check_share("dropout", dropout)
    return size
