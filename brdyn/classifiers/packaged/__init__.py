"""Models that come with the package: `cifar_vit12`, a small ViT with its head, trained here; see its model card."""

from __future__ import annotations

from pathlib import Path

from brdyn.classifiers import family
from brdyn.models.base import VisionTransformer
from brdyn.models.request import ModelRequest

FAMILY = "packaged"
NAME = "cifar_vit12"
HOME = Path(__file__).parent / NAME
NOTES = ("a small ViT trained from scratch on CIFAR-10 by brdyn; its head has the ten classes",)


def names() -> tuple[str, ...]:
    """The one name of this family."""
    return (NAME,)


def matches(name: str) -> bool:
    """Whether this is the packaged model."""
    return name == NAME


def load(request: ModelRequest) -> VisionTransformer:
    """Load it, or its untrained twin.

    Raises
    ------
    UsageError
        If it is asked for at another image size, or with other weights.
    """
    return family.from_folder(request, FAMILY, HOME, "package brdyn", notes=NOTES)
