"""From a name to a loaded model: which family serves it, and what to say when none does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from brdyn.arguments import checked
from brdyn.checked_json import expanded
from brdyn.choices import INITS, check_source, one_of
from brdyn.errors import UsageError, permitted
from brdyn.models import local_paths, own_family, transformers_family
from brdyn.models.base import Size, VisionTransformer
from brdyn.models.request import ModelRequest, as_device, as_dtype, as_size, in_float32
from brdyn.seeds import check_seed

# By name, and imported when asked for: some live in rooms that this one is a floor of.
FAMILIES = (
    "brdyn.models.own_family",
    "brdyn.raptor.family",
    "brdyn.classifiers.family",
    "brdyn.models.imgfocus",
    "brdyn.classifiers.packaged",
    "brdyn.models.dino",
    "brdyn.models.dinov2",
    "brdyn.models.dinov3",
    "brdyn.models.timm_family",
    "brdyn.models.transformers_family",
)


@permitted()
def load_model(
    name: str | Path | nn.Module,
    *,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    init: str = "pretrained",
    seed: int = 0,
    image_size: int | Size | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    allow_pickle: bool = False,
    allow_code: bool = False,
    teacher: str | nn.Module | None = None,
) -> VisionTransformer:
    """Load a plain ViT, ready to run and frozen.

    Parameters
    ----------
    name : str or nn.Module
        `imgfocus_vits14`, `cifar_vit12`, a torch-hub DINOv2 name, a timm name, a transformers id or folder, the folder
        of a fitted Raptor or of a trained classifier (`runs/vitrm@8` for eight recursion steps); `file.py:function`
        that returns a module; or a module, of :func:`brdyn.adapt` or with the attributes it takes.
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
        Where to put the model, and its precision, as of torch or by name (`float64`): the CPU and float32, or as a
        module given here has them. A module given here stays as it is, and a copy is changed where it has to be.
    allow_pickle : bool
        Read checkpoints that hold pickled Python objects. They can run code: trust their author.
    allow_code : bool
        Run the file of a `file.py:function`.
    teacher : str or nn.Module, optional
        For a Raptor, this teacher instead of the one that its config names: a module of your own has to be given again.
        Of a Raptor of a Raptor it is the innermost teacher, unless it is a Raptor itself. A module is taken as it is,
        without `weights` and `image_size`.

    Returns
    -------
    VisionTransformer

    Raises
    ------
    UsageError
        For an unknown name (with close matches), files that may not be looked at, a model that is not a plain ViT, a
        wrong size, device or precision.
    BrdynError
        For weights that are missing, unreadable or do not fit.

    Examples
    --------
    >>> model = brdyn.load_model("vit_tiny_patch16_224", init="random", image_size=32)
    >>> model.depth, model.tokens.sizes()
    (12, {'cls': 1, 'patches': 4})
    """
    place, precision = as_device(device), as_dtype(dtype)
    if isinstance(name, Path):
        name = str(name)
    if not isinstance(name, str):
        options = {"weights": weights, "image_size": image_size, "teacher": teacher}
        _check_as_it_is({**options, "init": None if init == "pretrained" else init})
        return _of_module(name, "what was given as a model", place, precision)
    place, precision = place or torch.device("cpu"), precision or torch.float32
    one_of("init", init, INITS)
    check_source(init == "random", weights is not None, weights_key)
    if isinstance(teacher, nn.Module):
        _check_as_it_is({"weights": weights, "image_size": image_size})
    request = ModelRequest(
        name=_expanded(name),
        weights=expanded(weights) if weights is not None else None,
        weights_key=weights_key,
        random=init == "random",
        seed=check_seed(seed),
        image_size=as_size(image_size),
        allow_pickle=allow_pickle,
        allow_code=allow_code,
        teacher=_of_module(teacher, "the teacher", place, precision) if isinstance(teacher, nn.Module) else teacher,
    )
    family = family_of(request)
    if teacher is not None and not getattr(family, "TAKES_TEACHER", False):
        raise UsageError(f"{name!r} is no fitted Raptor and has no teacher; drop `teacher`")
    return build(request).eval().requires_grad_(False).to(device=place, dtype=precision)


def _of_module(module: object, what: str, device: torch.device | None, dtype: torch.dtype | None) -> VisionTransformer:
    """A module as a frozen model on a device in a precision: itself where it is one, else a copy of it."""
    model = own_family.of_module(module, what)
    ready = not any(part.training for part in model.modules()) and all(
        not one.requires_grad and one.to(device=device, dtype=dtype if one.is_floating_point() else None) is one
        for one in chain(model.parameters(), model.buffers())
    )
    model = model if ready or model is not module else deepcopy(model)
    return model.eval().requires_grad_(False).to(device=device, dtype=dtype)


def _check_as_it_is(options: Mapping[str, Any]) -> None:
    """Refuse options that would change a module which is given."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UsageError(f"{', '.join(given)}: a module that is given is taken as it is; drop this")


@checked
def describe_model(name: str, image_size: int | Size | None = None, *, allow_code: bool = False) -> VisionTransformer:
    """Build a model to read its `info`, `tokens` and `preprocessing`; most without their weights.

    It is on the meta device, but for that of a `file.py:function`, which is as the function makes it, and for trained
    classifiers, `cifar_vit12` too, which are small and read whole.

    >>> described = brdyn.describe_model("dinov2_vitb14_reg", image_size=224)
    >>> described.info.width, described.tokens.sizes()
    (768, {'cls': 1, 'registers': 4, 'patches': 256})
    """
    request = ModelRequest(
        name=_expanded(name), image_size=as_size(image_size), describe_only=True, allow_code=allow_code
    )
    return build(request)


def build(request: ModelRequest) -> VisionTransformer:
    """The model that its family makes of a request, which can be drawn again untrained where anything knows how."""
    family = family_of(request)
    with in_float32():
        model: VisionTransformer = family.load(request)
    if model.redraw is None and family is not own_family:
        model.redraw = partial(_untrained, request, model.info.image_size, dict(model.built))
    return model


def _untrained(request: ModelRequest, size: Size, built: Mapping[str, Any], seed: int) -> VisionTransformer:
    """The architecture of what a request gave, with the parts that its file had, untrained."""
    folder = request.weights is not None and request.weights.is_dir()
    asked = replace(
        request,
        random=True,
        seed=seed,
        weights=request.weights if folder else None,  # whose config says the architecture
        weights_key=None,
        describe_only=False,
        image_size=size,
        arguments=tuple({**dict(request.arguments), **built}.items()),
    )
    return build(asked)


def list_models() -> Iterator[tuple[str, str]]:
    """All names as (family, name) pairs; any transformers id of a supported class loads besides.

    >>> [name for family, name in brdyn.list_models() if name.startswith("dinov2_vits14")]
    ['dinov2_vits14', 'dinov2_vits14_reg', 'dinov2_vits14_lc', 'dinov2_vits14_reg_lc']
    """
    for family in map(import_module, FAMILIES):
        for name in family.names():
            yield family.FAMILY, name


def family_of(request: ModelRequest) -> ModuleType:
    """The family that serves a request.

    Raises
    ------
    UsageError
        If no family knows the name; the message has close matches.
    """
    for family in map(import_module, FAMILIES):
        if family.matches(request.name):
            _check_weights(request, family)
            return family
    local_paths.refuse(request.name)
    known = [name for _, name in list_models()]
    close = get_close_matches(request.name, known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else "`brdyn models` lists the names"
    raise UsageError(f"unknown model {request.name!r}; {hint}")


def _check_weights(request: ModelRequest, family: ModuleType) -> None:
    if request.weights is None or not request.weights.is_dir():
        return
    if family is not transformers_family:
        raise UsageError(
            f"`weights={str(request.weights)!r}` is a folder, and {request.name!r} takes a file; for a "
            "transformers folder give `model` the folder or its transformers id"
        )
    if request.weights_key is not None:
        raise UsageError(
            f"`weights_key` chooses in a file, and `weights={str(request.weights)!r}` is a folder; drop it"
        )


def _expanded(name: str) -> str:
    return str(expanded(name)) if name.startswith("~") else name
