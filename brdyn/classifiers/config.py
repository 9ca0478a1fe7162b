"""The sizes that a network can have, and those of a ViTRM. Needs no torch, so that a wrong one is told at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from brdyn.arguments import checked
from brdyn.choices import MOST_LAYERS, check_heads, check_patches, check_share
from brdyn.errors import UsageError

MOST = {"depth": MOST_LAYERS, "latent_steps": 1_000, "image_size": 16_384}  # of others a million
MOST_STEPS = 1_000  # of a recursion


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


@checked
@dataclass(frozen=True, kw_only=True)
class ViTRMConfig:
    """Sizes. Defaults are the published ones.

    Attributes
    ----------
    classes : int
    image_size, patch, channels : int
        Side of the (square) image and of a patch in pixels; colour channels.
    width, depth, heads, hidden : int
        Of the shared network: D, pre-norm layers, attention heads, hidden units of the SwiGLU.
    dropout : float
        After attention and MLP.
    latent_steps : int
        n, updates of z in a recursion step.
    sees_image : bool
        Whether updates of z see the image tokens (`[x; y; z]`), or not (`[y; z]`): then z starts from them (as the
        learned start plus x), since a network whose updates never see the image could not tell images apart. The paper
        asks whether the first gains over the second, and its public code has only the first.

    Examples
    --------
    >>> from brdyn.classifiers import ViTRMConfig
    >>> ViTRMConfig(image_size=64, patch=8).patches
    64
    """

    classes: int = 10
    image_size: int = 32
    patch: int = 4
    channels: int = 3
    width: int = 384
    depth: int = 3
    heads: int = 6
    hidden: int = 512
    dropout: float = 0.1
    latent_steps: int = 3
    sees_image: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        check_sizes({name: size for name, size in asdict(self).items() if type(size) is int})
        check_patches("vitrm", (self.image_size,) * 2, (self.patch,) * 2)
        check_heads(self.width, self.heads)
        check_share("dropout", self.dropout)

    @property
    def patches(self) -> int:
        """P, patch tokens of an image; there are as many latent tokens."""
        return (self.image_size // self.patch) ** 2
