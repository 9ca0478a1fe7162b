"""Modules of one's own as models: `--model file.py:function` runs a function that returns one, if code may be run."""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from brdyn.checked_json import expanded
from brdyn.choices import OWN_FILE, check_code
from brdyn.errors import BrdynError, UsageError
from brdyn.models import adapter
from brdyn.models.base import VisionTransformer
from brdyn.models.request import ModelRequest
from brdyn.words import first_line

FAMILY = adapter.FAMILY


def names() -> tuple[str, ...]:
    """None: a module is given, or is made by a file."""
    return ()


def matches(name: str) -> bool:
    """Whether this is a Python file, with or without a function."""
    return OWN_FILE.fullmatch(name) is not None


def load(request: ModelRequest) -> VisionTransformer:
    """Run the function and take what it returns for the model.

    Raises
    ------
    UsageError
        If code may not be run, there is no such file or function, it returns something else, or options are given
        that it does not take.
    BrdynError
        If the file or the function fails.
    """
    path, function = _place(request.name)
    check_code(request.name, request.allow_code)
    if not path.is_file():
        raise UsageError(f"no file {str(path)!r} to take {function!r} from; give `model` file.py:function")
    if request.random:
        raise UsageError(f"{request.name!r} makes its own weights; drop `init=random`")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r} ({error.strerror})") from error
    with _importable(path.parent):
        make = _function(request.name, path, source, function)
        made = _call(request, path, make)
    model = of_module(made, f"what {request.name!r} returns")
    size = request.image_size
    if size not in (None, model.info.image_size):
        height, width = model.info.image_size
        raise UsageError(
            f"{request.name!r} made a model for images of {height}x{width} pixels, not {size[0]}x{size[1]}; let the "
            "function take image_size, or drop `image_size`"
        )
    note = f"made by {function} of {path.name} (SHA-256 {hashlib.sha256(source).hexdigest()})"
    model.info = replace(model.info, name=request.name, notes=(*model.info.notes, note))
    return model


def of_module(module: object, what: str) -> VisionTransformer:
    """A module as a model: as it is where it is one, else by the attributes that it has.

    Raises
    ------
    UsageError
        If it is neither; the message shows how to adapt it.
    """
    if isinstance(module, VisionTransformer):
        return module
    if isinstance(module, nn.Module) and adapter.fulfils_contract(module):
        return adapter.from_contract(module)
    raise UsageError(f"{what} is {adapter.kind(module)}, not a model that brdyn knows; adapt a module: {adapter.HOW}")


def is_there(name: str) -> bool:
    """Whether the file of such a name is here."""
    return _place(name)[0].is_file()


def _place(name: str) -> tuple[Path, str]:
    """File and function."""
    found = OWN_FILE.fullmatch(name)
    if found is None or not found["function"]:
        raise UsageError(f"{name!r} does not say which function makes the model; give file.py:function")
    return expanded(found["file"]), found["function"]


def _function(name: str, path: Path, source: bytes, function: str) -> Callable[..., Any]:
    """Run the file and take the function from it."""
    module = ModuleType(f"brdyn_own_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and pickle look a class up
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        sys.modules.pop(module.__name__, None)
        raise _failed(f"{str(path)!r} fails when it is imported", path, error) from error
    found = getattr(module, function, None)
    if not callable(found):
        defined = [
            one
            for one, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__
        ]
        there = f"it defines {', '.join(defined)}" if defined else "it defines no function"
        raise UsageError(f"{str(path)!r} has no function {function!r} for {name!r}; {there}")
    return found


def _call(request: ModelRequest, path: Path, make: Callable[..., Any]) -> Any:
    """What the function returns; `image_size` and `weights` go to one that takes them."""
    takes: Mapping[str, inspect.Parameter] = {}
    with suppress(TypeError, ValueError):  # of something that is called without a signature
        takes = inspect.signature(make).parameters
    if request.weights is not None and "weights" not in takes:
        raise UsageError(f"{request.name!r} takes no weights; drop `weights`, or let the function take weights")
    if request.weights_key is not None:
        raise UsageError(f"{request.name!r} reads its weights itself; drop `weights_key`, and let the function choose")
    given = {"image_size": request.image_size, "weights": request.weights}
    options = {name: value for name, value in given.items() if value is not None and name in takes}
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    lacking = [
        one.name
        for one in takes.values()
        if one.default is one.empty and one.kind not in variable and one.name not in options
    ]
    if lacking:
        raise UsageError(
            f"{request.name!r} needs {', '.join(lacking)}, and it is called without arguments; give them defaults"
        )
    try:
        return make(**options)
    except BrdynError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(f"{request.name!r} fails", path, error) from error


def _failed(what: str, path: Path, error: BaseException) -> BrdynError:
    """The error of somebody's code, with the line of their file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f" in line {lines[-1]}" if lines else ""
    return BrdynError(f"{what}{where} ({type(error).__name__}: {first_line(error)})")


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a file import its neighbours, while it runs."""
    before = list(sys.path)
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path[:] = before
