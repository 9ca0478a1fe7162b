"""Fitted Raptors as models: `--model runs/raptor` for every command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from brdyn.errors import UsageError
from brdyn.models import adapter, own_family
from brdyn.models.base import VisionTransformer
from brdyn.models.request import ModelRequest

FAMILY = "raptor"


def names() -> tuple[str, ...]:
    """None: a Raptor is a folder."""
    return ()


def matches(name: str) -> bool:
    """Whether this is a folder with a Raptor."""
    from brdyn.raptor.model import is_raptor

    return is_raptor(Path(name).expanduser())


def load(request: ModelRequest) -> VisionTransformer:
    """Load a Raptor and its teacher. `weights` are the teacher's, where it needs them from a file.

    Raises
    ------
    UsageError
        If the folder holds no Raptor, an untrained one is asked for, the teacher has other weights, or it is somebody's
        module and has to be given again.
    BrdynError
        If the teacher or the weights are not to be had.
    """
    from brdyn.pretrained import WEIGHTS
    from brdyn.raptor.block import BlockConfig
    from brdyn.raptor.model import Raptor, read_config

    folder = Path(request.name).expanduser()
    config = read_config(folder)
    if request.random:
        raise UsageError(f"{request.name!r} is a fitted Raptor; --init random makes no sense with it")
    teacher = _teacher(request, config["teacher"]).eval().requires_grad_(False)
    if request.describe_only:
        with torch.device("meta"):
            raptor = Raptor(teacher, config["assignment"], BlockConfig(**config["block"]))
        raptor.info = replace(raptor.info, weights=str(folder / WEIGHTS))
    else:
        raptor = Raptor.from_pretrained(folder, teacher)
    raptor.info = replace(raptor.info, name=request.name)
    return raptor


def _teacher(request: ModelRequest, config: Mapping[str, Any]) -> VisionTransformer:
    """The teacher that a Raptor's config names, or the one that was given."""
    from brdyn.models.registry import family_of

    if isinstance(request.teacher, VisionTransformer):
        return request.teacher
    name, weights = request.teacher or config["name"], config["weights"]
    if request.teacher is None and (
        weights == adapter.GIVEN and not (own_family.matches(name) and own_family.is_there(name))
    ):
        raise UsageError(
            f"the teacher of {request.name!r} is a module of somebody's own, {name!r}; give it again: "
            f"load_model({request.name!r}, teacher=module), or --teacher file.py:function --allow-code"
        )
    size = request.image_size or tuple(config["image_size"])
    of_teacher = request.of_teacher(name, (size[0], size[1]), weights)
    return family_of(of_teacher).load(of_teacher)
