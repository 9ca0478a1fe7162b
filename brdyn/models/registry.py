"""From a name to a loaded model: which family serves it, and what to say when none does."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

import torch

from brdyn.errors import UsageError
from brdyn.models import (
    classifier_family,
    dinov2,
    imgfocus,
    packaged,
    raptor_family,
    timm_family,
    transformers_family,
)
from brdyn.models.base import Size, VisionTransformer
from brdyn.models.request import ModelRequest

FAMILIES: tuple[ModuleType, ...] = (
    raptor_family,
    classifier_family,
    imgfocus,
    packaged,
    dinov2,
    timm_family,
    transformers_family,
)
INITS = ("pretrained", "random")


def load_model(
    name: str,
    *,
    weights: str | Path | None = None,
    init: str = "pretrained",
    seed: int = 0,
    image_size: int | Size | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    allow_pickle: bool = False,
) -> VisionTransformer:
    """Load a plain ViT, ready to run and frozen.

    Parameters
    ----------
    name : str
        `imgfocus_vits14`, `cifar_vit12`, a torch-hub DINOv2 name, a timm name, a transformers id or folder, the folder
        of a fitted Raptor or of a trained classifier (`runs/vitrm@8` for eight recursion steps).
    weights : path, optional
        A local checkpoint in Facebook's, timm's or transformers' format.
    init : {"pretrained", "random"}
        `random` builds the architecture untrained, with `seed`.
    image_size : int or (int, int), optional
        Height and width in pixels; positions are resampled by the family's rule.
    device, dtype
        Where to put the model, and its precision.
    allow_pickle : bool
        Read checkpoints that hold pickled Python objects. They can run code: trust their author.

    Returns
    -------
    VisionTransformer

    Raises
    ------
    UsageError
        For an unknown name (with close matches), a model that is not a plain ViT, a wrong size.
    BrdynError
        For weights that are missing, unreadable or do not fit.

    Examples
    --------
    >>> model = brdyn.load_model("vit_tiny_patch16_224", init="random", image_size=32)
    >>> model.depth, model.tokens.sizes()
    (12, {'cls': 1, 'patches': 4})
    """
    if init not in INITS:
        raise UsageError(f"init={init!r} is not one of {', '.join(INITS)}")
    if init == "random" and weights is not None:
        raise UsageError("--weights and --init random exclude each other; drop one of them")
    request = ModelRequest(
        name=name,
        weights=Path(weights).expanduser() if weights is not None else None,
        random=init == "random",
        seed=seed,
        image_size=as_size(image_size),
        allow_pickle=allow_pickle,
    )
    model = family_of(request).load(request)
    return model.eval().requires_grad_(False).to(device=device, dtype=dtype)


def describe_model(name: str, image_size: int | Size | None = None) -> VisionTransformer:
    """Build a model on the meta device, without weights, to read its `info`, `tokens` and `preprocessing`.

    >>> described = brdyn.describe_model("dinov2_vitb14_reg", image_size=224)
    >>> described.info.width, described.tokens.sizes()
    (768, {'cls': 1, 'registers': 4, 'patches': 256})
    """
    request = ModelRequest(name=name, image_size=as_size(image_size), describe_only=True)
    return family_of(request).load(request)


def list_models() -> Iterator[tuple[str, str]]:
    """All names as (family, name) pairs; any transformers id of a supported class loads besides.

    >>> [name for family, name in brdyn.list_models() if name.startswith("dinov2_vits14")]
    ['dinov2_vits14', 'dinov2_vits14_reg']
    """
    for family in FAMILIES:
        for name in family.names():
            yield family.FAMILY, name


def family_of(request: ModelRequest) -> ModuleType:
    """The family that serves a request.

    Raises
    ------
    UsageError
        If no family knows the name; the message has close matches.
    """
    for family in FAMILIES:
        if family.matches(request.name):
            if request.weights is not None and request.weights.is_dir() and family is not transformers_family:
                raise UsageError(
                    f"--weights {str(request.weights)!r} is a folder, and {request.name!r} takes a file; for a "
                    "transformers folder give --model the folder or its transformers id"
                )
            return family
    known = [name for _, name in list_models()]
    close = get_close_matches(request.name, known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else "`brdyn models` lists the names"
    raise UsageError(f"unknown model {request.name!r}; {hint}")


def as_size(value: int | Size | None) -> Size | None:
    """A square for one number; None stays None."""
    return (value, value) if isinstance(value, int) else value
