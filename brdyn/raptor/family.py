"""Fitted Raptors as models: `--model runs/raptor` for every command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from brdyn.blank import on_meta
from brdyn.checked_json import expanded
from brdyn.errors import BrdynError, UsageError
from brdyn.models import adapter, own_family
from brdyn.models.base import VisionTransformer
from brdyn.models.registry import build
from brdyn.models.request import ModelRequest
from brdyn.raptor.model import Raptor, SavedConfig, SavedTeacher, check_saved, is_raptor, read_saved
from brdyn.store.pretrained import WEIGHTS

FAMILY = "raptor"
TAKES_TEACHER = True
MOST_TEACHERS = 8


def names() -> tuple[str, ...]:
    """None: a Raptor is a folder."""
    return ()


def matches(name: str) -> bool:
    """Whether this is a folder with a Raptor."""
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
    folder = expanded(request.name)
    config, _ = read_saved(folder)
    if request.random:
        raise UsageError(f"{request.name!r} is a fitted Raptor; `init=random` makes no sense with it")
    check_ancestry(folder)
    teacher = _teacher(request, config)
    if request.describe_only:
        with on_meta():
            raptor = Raptor(teacher, config.assignment, config.blocks)
        raptor.info = replace(raptor.info, weights=str(folder / WEIGHTS))
    else:
        raptor = Raptor.from_pretrained(folder, teacher)
    raptor.info = replace(raptor.info, name=request.name)
    return raptor


def _teacher(request: ModelRequest, config: SavedConfig) -> VisionTransformer:
    """The teacher that a Raptor's config names, or the one that was given."""
    given = request.teacher
    if isinstance(given, VisionTransformer) and not _is_for_inner(given, config.teacher):
        teacher = given
    else:
        wanted = _wanted(request, config.teacher)
        # A description takes no memory already, and somebody's function makes the whole module either way.
        if not (wanted.describe_only or own_family.matches(wanted.name)):
            # One that cannot be it is refused before it takes memory, or is downloaded.
            _check_fits(request, _loaded(request, replace(wanted, describe_only=True)), config)
        teacher = _loaded(request, wanted)
    _check_fits(request, teacher, config)
    return teacher.eval().requires_grad_(False)


def _loaded(request: ModelRequest, wanted: ModelRequest) -> VisionTransformer:
    try:
        return build(wanted)
    except BrdynError as error:
        raise type(error)(f"the teacher of {request.name!r} cannot be loaded: {error}") from error


def _check_fits(request: ModelRequest, teacher: VisionTransformer, config: SavedConfig) -> None:
    if teacher.depth != config.teacher.layers:
        raise UsageError(
            f"{request.name!r} was fitted to {config.teacher.layers} layers, and its teacher "
            f"{config.teacher.name!r} has {teacher.depth}"
        )
    check_saved(config, teacher, request.name)


def _wanted(request: ModelRequest, saved: SavedTeacher) -> ModelRequest:
    """The request for the teacher."""
    given = request.teacher
    if given is not None and _is_for_inner(given, saved):
        return request.of_teacher(saved.name, request.image_size or saved.image_size, saved.weights)
    assert given is None or isinstance(given, str)
    name = given or saved.name
    if given is None and (
        saved.weights == adapter.GIVEN and not (own_family.matches(name) and own_family.is_there(name))
    ):
        raise UsageError(
            f"the teacher of {request.name!r} is a module of somebody's own, {name!r}; give it again: "
            f"load_model({request.name!r}, teacher=module), or `teacher=file.py:function` `allow_code=True`"
        )
    wanted = request.of_teacher(name, request.image_size or saved.image_size, saved.weights)
    return replace(wanted, teacher=None)


def _is_for_inner(given: VisionTransformer | str, saved: SavedTeacher) -> bool:
    """Whether a teacher that was given is that of the Raptor which is the teacher here, or of one further in."""
    own = isinstance(given, VisionTransformer) and given.info.digest == saved.digest
    return not own and matches(saved.name) and not (isinstance(given, str) and matches(given))


def check_ancestry(folder: Path) -> None:
    """Follow a Raptor's teacher, the teacher's if it is a Raptor, and so on.

    Raises
    ------
    UsageError
        If a Raptor is among its own teachers, or there are more than :data:`MOST_TEACHERS` of them.
    """
    line = [folder]
    while is_raptor(line[-1]):
        line.append(expanded(read_saved(line[-1])[0].teacher.name))
        if line[-1].resolve() in [earlier.resolve() for earlier in line[:-1]]:
            raise UsageError(f"{str(folder)!r} has itself for a teacher: {' of '.join(map(str, line))}")
        if len(line) > MOST_TEACHERS + 1:
            raise UsageError(
                f"{str(folder)!r} is a Raptor of a Raptor, {len(line) - 1} in a row; brdyn follows {MOST_TEACHERS}"
            )
