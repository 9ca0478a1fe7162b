"""Arguments of public functions against the kinds that their signatures declare, before any work."""

from __future__ import annotations

import inspect
import os
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sized
from functools import cache, wraps
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from brdyn.compared import brief
from brdyn.errors import UsageError
from brdyn.whole import whole
from brdyn.words import ADDRESS

F = TypeVar("F", bound=Callable[..., Any])

WORDS = {  # what a kind is called, and what to give
    "int": ("a whole number", "one such as 2"),
    "float": ("a number", "one such as 0.1"),
    "bool": ("True or False", "one of them"),
    "str": ("a text", "one name in quotes"),
    "Path": ("a path", "one such as 'runs/one'"),
    "Callable": ("a function", "one that can be called"),
    **dict.fromkeys(("Sequence", "list", "tuple"), ("a list", "one such as [1, 2]")),
    "Mapping": ("a mapping", "a dict"),
    "slice": ("a slice", "one such as slice(0, 16)"),
    **dict.fromkeys(
        ("HasTransform", "VisionTransformer"),
        ("a loaded model", "what `brdyn.load_model` or `brdyn.adapt` returns"),
    ),
    "ImageSet": ("a set of images", "what `brdyn.load_images` returns"),
    "DenseSet": ("a set of images with targets", "what `brdyn.data.load_dense` returns"),
    "PixelSet": ("a set of pixels", "what `brdyn.classifiers.load_pixels` returns"),
    **dict.fromkeys(("Raptor", "SharedBlocks"), ("a Raptor", "what `brdyn.load_model` returns for its folder")),
    "Twins": ("a collection of models", "what `brdyn.untrained_twins` returns"),
    "Classifier": (
        "a classifier",
        "what `brdyn.classifiers.Classifier.new` or `Classifier.from_pretrained` returns",
    ),
    "Features": ("features", "what `brdyn.probes.extract_features` returns for a name"),
    "Reading": ("a reading", "what `brdyn.probes.read_classes` returns"),
    "LayerSimilarity": (
        "a similarity of layers",
        "what `brdyn.layer_similarity` returns, or a NumPy array (L, L)",
    ),
    "Phases": ("phases", "what `brdyn.segment` returns, or boundaries such as [4, 8]"),
    "ndarray": ("a NumPy array", "one such as `np.eye(3)`"),
    "Tensor": ("a tensor", "one such as `torch.zeros(3)`"),
}


def checked(function: F) -> F:
    """Check the arguments of a function or method, or of a class that is made, against their declared kinds.

    Kinds that are declared by a name known to type checkers alone, or not at all, are not checked.

    Examples
    --------
    >>> from brdyn.arguments import checked
    >>> @checked
    ... def tripled(number: int) -> int:
    ...     return 3 * number
    >>> tripled("2")
    Traceback (most recent call last):
    ...
    brdyn.errors.UsageError: `number='2'` is not a whole number; give one such as 2
    """
    if isinstance(function, type):
        function.__init__ = checked(function.__init__)  # type: ignore[misc]
        return function
    signature = inspect.signature(function)

    @cache
    def kinds() -> dict[str, Any]:
        return {name: _declared(one, function) for name, one in signature.parameters.items()}

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            given = {}  # Python itself tells of one too many or too few
        for name, value in given.items():
            check(name, value, kinds()[name])
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def check(name: str, value: Any, kind: Any) -> None:
    """Refuse a value that is not of a declared kind.

    Parameters
    ----------
    name : str
        Of the argument.
    value : Any
    kind : type
        As it is written in a signature: `int`, `Sequence[str] | None`, a class.

    Raises
    ------
    UsageError
        In one line, with what to give.

    Examples
    --------
    >>> from collections.abc import Sequence
    >>> from brdyn.arguments import check
    >>> check("eps", 0.2, Sequence[float])
    Traceback (most recent call last):
    ...
    brdyn.errors.UsageError: `eps=0.2` is not a list; give [0.2]
    """
    if fits(value, kind):
        return
    kinds = [one for one in _kinds(kind) if one is not type(None)]
    several = next((one for one in kinds if _of_several(one)), None)
    if several is not None and (_listed(value) or len(kinds) == 1):
        _refuse_listed(name, value, several)
    chosen = next((one for one in kinds if one is Path), kinds[0])
    if (get_origin(chosen) or chosen) is Mapping and isinstance(value, Mapping):
        for key, each in value.items():
            check(f"{name}[{key!r}]", each, (get_args(chosen) or (Any, Any))[1])
    called = (get_origin(chosen) or chosen).__name__
    article = "an" if called[0] in "AEIOU" else "a"
    noun, remedy = WORDS.get(called, (f"{article} {called}", f"`{chosen.__module__}.{called}(…)`"))
    if chosen is str and _listed(value) and len(value) == 1:
        remedy = shown(next(iter(value)))
    raise UsageError(f"`{name}={shown(value)}` is not {noun}; give {remedy}")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a declared kind: NumPy's numbers are numbers, True is none, a text is no list.

    >>> from brdyn.arguments import fits
    >>> fits(2.0, int), fits(True, float), fits(np.float32(2), float), fits("cls", list[str])
    (False, False, True, False)
    """
    if (kinds := _kinds(kind)) != (kind,):
        return any(fits(value, one) for one in kinds)
    if kind is int:
        return whole(value) is not None
    if kind is float:
        return (isinstance(value, Real) and not isinstance(value, bool)) or whole(value) is not None
    if kind is Any:
        return True
    if kind is bool:
        return type(value).__name__ in ("bool", "bool_")  # NumPy's, too
    if kind is Path:
        return isinstance(value, os.PathLike)
    if _of_several(kind):
        return _listed(value) and _each_fits(value, kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(fits(each, inner[1]) for each in value.values())
    known = origin or kind
    return not isinstance(known, type) or _for_checkers_alone(known) or isinstance(value, known)


def shown(value: Any) -> str:
    """A value for an error: in one line, an array by its shape, 2.0 told from 2."""
    said = repr(value) if isinstance(value, float) else brief(value)
    return " ".join(ADDRESS.sub("", said).split())


def _kinds(kind: Any) -> tuple[Any, ...]:
    """Those of which one is enough."""
    if get_origin(kind) is Annotated:
        return _kinds(get_args(kind)[0])
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _for_checkers_alone(kind: type) -> bool:
    """Whether it is a protocol that no value can be asked for."""
    return bool(getattr(kind, "_is_protocol", False)) and not getattr(kind, "_is_runtime_protocol", False)


def _of_several(kind: Any) -> bool:
    known = get_origin(kind) or kind
    return (
        isinstance(known, type)
        and known is not str
        and (known in (list, tuple, set, frozenset) or known.__module__ == "collections.abc")
        and issubclass(known, Collection)
        and not issubclass(known, Mapping)
    )


def _listed(value: Any) -> bool:
    if isinstance(value, str | bytes | Mapping) or getattr(value, "ndim", 1) == 0:
        return False
    return isinstance(value, Iterable) and isinstance(value, Sized)


def _entries(value: Any, kind: Any) -> list[Any]:
    """The kind of each entry of a list; that of a tuple with so many entries says each."""
    inner = get_args(kind) or (Any,)
    if get_origin(kind) is tuple and inner[-1] is not Ellipsis:
        return list(inner)
    return [inner[0]] * len(value)


def _each_fits(value: Any, kind: Any) -> bool:
    kinds = _entries(value, kind)
    return len(kinds) == len(value) and all(map(fits, value, kinds))


def _refuse_listed(name: str, value: Any, kind: Any) -> None:
    """Tell that a value is no list, has too many or too few entries, or which entry is wrong."""
    if not _listed(value):
        one = _each_fits([value], kind)
        raise UsageError(f"`{name}={shown(value)}` is not a list; give {f'[{shown(value)}]' if one else 'several'}")
    kinds = _entries(value, kind)
    if len(kinds) != len(value):
        raise UsageError(f"`{name}={shown(value)}` has {len(value)} entries; give {len(kinds)}")
    for number, (each, one) in enumerate(zip(value, kinds, strict=True)):
        check(f"{name}[{number}]", each, one)


def _declared(parameter: inspect.Parameter, function: Callable[..., Any]) -> Any:
    """The kind of a parameter; Any where it has none, or one that is there for type checkers alone."""
    kind = parameter.annotation
    if isinstance(kind, str):
        try:
            kind = eval(kind, inspect.unwrap(function).__globals__)
        except (NameError, AttributeError):
            kind = Any
    if parameter.kind is parameter.VAR_KEYWORD or kind is parameter.empty:
        return Any
    return tuple[kind, ...] if parameter.kind is parameter.VAR_POSITIONAL else kind  # type: ignore[valid-type]
