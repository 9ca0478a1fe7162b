"""Fitted Raptors as models: `--model runs/raptor` for every command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from brdyn.checked_json import expanded
from brdyn.errors import BrdynError, UsageError
from brdyn.models import adapter, own_family
from brdyn.models.base import VisionTransformer
from brdyn.models.request import ModelRequest

if TYPE_CHECKING:
    from brdyn.raptor.model import SavedTeacher

FAMILY = "raptor"
MOST_TEACHERS = 8


def names() -> tuple[str, ...]:
    """None: a Raptor is a folder."""
    return ()


def matches(name: str) -> bool:
    """Whether this is a folder with a Raptor."""
    from brdyn.raptor.model import is_raptor

    return is_raptor(expanded(name))


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
    from brdyn.raptor.model import Raptor, check_saved, read_saved

    folder = expanded(request.name)
    config, _ = read_saved(folder)
    if request.random:
        raise UsageError(f"{request.name!r} is a fitted Raptor; --init random makes no sense with it")
    check_ancestry(folder)
    teacher = _teacher(request, config.teacher)
    if request.describe_only:
        check_saved(config, teacher, folder)
        with torch.device("meta"):
            raptor = Raptor(teacher, config.assignment, config.block)
        raptor.info = replace(raptor.info, weights=str(folder / WEIGHTS))
    else:
        raptor = Raptor.from_pretrained(folder, teacher)
    raptor.info = replace(raptor.info, name=request.name)
    return raptor


def _teacher(request: ModelRequest, saved: SavedTeacher) -> VisionTransformer:
    """The teacher that a Raptor's config names, or the one that was given."""
    from brdyn.models.registry import family_of

    if isinstance(request.teacher, VisionTransformer):
        teacher = request.teacher
    else:
        wanted = _wanted(request, saved)
        try:
            teacher = family_of(wanted).load(wanted)
        except BrdynError as error:
            raise type(error)(f"the teacher of {request.name!r} cannot be loaded: {error}") from error
    if teacher.depth != saved.layers:
        raise UsageError(
            f"{request.name!r} was fitted to {saved.layers} layers, and its teacher {saved.name!r} has {teacher.depth}"
        )
    return teacher.eval().requires_grad_(False)


def _wanted(request: ModelRequest, saved: SavedTeacher) -> ModelRequest:
    """The request for the teacher."""
    name = request.teacher or saved.name
    assert isinstance(name, str)
    if request.teacher is None and (
        saved.weights == adapter.GIVEN and not (own_family.matches(name) and own_family.is_there(name))
    ):
        raise UsageError(
            f"the teacher of {request.name!r} is a module of somebody's own, {name!r}; give it again: "
            f"load_model({request.name!r}, teacher=module), or --teacher file.py:function --allow-code"
        )
    return request.of_teacher(name, request.image_size or saved.image_size, saved.weights)


def check_ancestry(folder: Path) -> None:
    """Follow a Raptor's teacher, the teacher's if it is a Raptor, and so on.

    Raises
    ------
    UsageError
        If a Raptor is among its own teachers, or there are more than :data:`MOST_TEACHERS` of them.
    """
    from brdyn.raptor.model import is_raptor, read_saved

    line = [folder]
    while is_raptor(line[-1]):
        line.append(expanded(read_saved(line[-1])[0].teacher.name))
        if line[-1].resolve() in [earlier.resolve() for earlier in line[:-1]]:
            raise UsageError(f"{str(folder)!r} has itself for a teacher: {' of '.join(map(str, line))}")
        if len(line) > MOST_TEACHERS + 1:
            raise UsageError(
                f"{str(folder)!r} is a Raptor of a Raptor, {len(line) - 1} in a row; brdyn follows {MOST_TEACHERS}"
            )
