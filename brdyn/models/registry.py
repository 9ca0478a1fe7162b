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
    dino,
    dinov2,
    dinov3,
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
    dino,
    dinov2,
    dinov3,
    timm_family,
    transformers_family,
)
SHOWN = 4
INITS = ("pretrained", "random")


def load_model(
    name: str,
    *,
    weights: str | Path | None = None,
    weights_key: str | None = None,
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
    weights_key : str, optional
        Which of several sets of weights in that file: `student`, `model`. By default an average of the weights (a
        teacher, `model_ema`) before the weights themselves; `info.weights` says which was taken.
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
    """
    if init not in INITS:
        raise UsageError(f"init={init!r} is not one of {', '.join(INITS)}")
    if init == "random" and weights is not None:
        raise UsageError("--weights and --init random exclude each other; drop one of them")
    if weights_key is not None and weights is None:
        raise UsageError(f"--weights-key {weights_key!r} chooses in a file; give that file with --weights")
    request = ModelRequest(
        name=_expanded(name),
        weights=Path(weights).expanduser() if weights is not None else None,
        weights_key=weights_key,
        random=init == "random",
        seed=seed,
        image_size=as_size(image_size),
        allow_pickle=allow_pickle,
    )
    model = family_of(request).load(request)
    return model.eval().requires_grad_(False).to(device=device, dtype=dtype)


def describe_model(name: str, image_size: int | Size | None = None) -> VisionTransformer:
    """Build a model on the meta device, without weights, to read its `info`, `tokens` and `preprocessing`."""
    request = ModelRequest(name=_expanded(name), image_size=as_size(image_size), describe_only=True)
    return family_of(request).load(request)


def list_models() -> Iterator[tuple[str, str]]:
    """All names as (family, name) pairs; any transformers id of a supported class loads besides."""
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
        if family.matches(request.name) and not (family is transformers_family and _is_here(request.name)):
            _check_weights(request, family)
            return family
    if _is_here(request.name):
        raise UsageError(f"{request.name!r} {_what_is_here(Path(request.name))}")
    known = [name for _, name in list_models()]
    close = get_close_matches(request.name, known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else "`brdyn models` lists the names"
    raise UsageError(f"unknown model {request.name!r}; {hint}")


def _check_weights(request: ModelRequest, family: ModuleType) -> None:
    if request.weights is None or not request.weights.is_dir():
        return
    if family is not transformers_family:
        raise UsageError(
            f"--weights {str(request.weights)!r} is a folder, and {request.name!r} takes a file; for a "
            "transformers folder give --model the folder or its transformers id"
        )
    if request.weights_key is not None:
        raise UsageError(
            f"--weights-key chooses in a file, and --weights {str(request.weights)!r} is a folder; drop it"
        )


def _is_here(name: str) -> bool:
    """Whether there is a file or folder of this name that is not a model transformers reads."""
    path = Path(name)
    return path.exists() and not transformers_family.is_folder(path)


def _what_is_here(path: Path) -> str:
    """What a file or folder is that is no model, and what to do."""
    if path.is_dir():
        inside = sorted(item.name for item in path.iterdir())
        some = ", ".join(inside[:SHOWN]) + (", …" if len(inside) > SHOWN else "")
        return (
            f"is a folder without a model: no config.json of a transformers model, a fitted Raptor or a trained "
            f"classifier ({f'it holds {some}' if inside else 'it is empty'})"
        )
    return "is a file; name its architecture with --model and give the file with --weights"


def _expanded(name: str) -> str:
    return str(Path(name).expanduser()) if name.startswith("~") else name


def as_size(value: int | Size | None) -> Size | None:
    """A square for one number; None stays None.

    Raises
    ------
    UsageError
        If it is neither a positive whole number nor two of them.
    """
    if value is None:
        return None
    sides = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(sides) != 2 or any(
        isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides
    ):
        raise UsageError(
            f"image_size={value!r} is neither a number of pixels nor (height, width), each at least 1"
        )
    return sides[0], sides[1]
