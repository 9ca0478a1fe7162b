"""What the user asked for, as every family's loader receives it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch

from brdyn.blank import on_meta
from brdyn.choices import dtype_name, one_of
from brdyn.errors import UsageError
from brdyn.whole import whole

if TYPE_CHECKING:
    from brdyn.models.base import VisionTransformer

Size = tuple[int, int]

PRECISIONS = {name: getattr(torch, name) for name in ("float32", "float64", "bfloat16", "float16")}
DEVICES = "cpu, cuda, cuda:1, mps"


@dataclass(frozen=True)
class ModelRequest:
    """A model by name, with where its weights should come from.

    Attributes
    ----------
    name : str
        What the user typed.
    weights : Path or None
        A local checkpoint; None means the family's own source.
    weights_key : str or None
        Which of the sets of weights in that file; None leaves it to :func:`brdyn.models.layouts.choose`.
    random : bool
        Untrained weights drawn with `seed`.
    seed : int
        Seed of the untrained weights.
    image_size : (int, int) or None
        Height and width in pixels; None means the model's own.
    allow_pickle : bool
        Read checkpoints that hold pickled Python objects.
    allow_code : bool
        Run the file of a `file.py:function`.
    teacher : VisionTransformer or str, optional
        For a Raptor, this teacher instead of the one that its config names.
    describe_only : bool
        Build the architecture on the meta device, without weights.
    arguments : tuple of (str, value)
        What a config, or the file of a model that is drawn again, changes in the architecture (see `built` of
        :class:`brdyn.models.VisionTransformer`).
    """

    name: str
    weights: Path | None = None
    weights_key: str | None = None
    random: bool = False
    seed: int = 0
    image_size: Size | None = None
    allow_pickle: bool = False
    allow_code: bool = False
    teacher: VisionTransformer | str | None = None
    describe_only: bool = False
    arguments: tuple[tuple[str, Any], ...] = ()

    def of_teacher(self, name: str, size: Size, weights: str) -> ModelRequest:
        """The request for the teacher of the model asked for.

        Parameters
        ----------
        name, size
            Its name and image size.
        weights : str
            Where its weights came from, as :meth:`source` says; those of this request go before.
        """
        seed = untrained_seed(weights)
        file, key = _file_and_key(weights)
        return replace(
            self,
            name=name,
            image_size=size,
            weights=self.weights or file,
            weights_key=self.weights_key if self.weights is not None else key,
            random=seed is not None and self.weights is None,
            seed=seed or 0,
        )

    @property
    def needs_weights(self) -> bool:
        """Whether trained weights have to be found."""
        return not (self.random or self.describe_only)

    def source(self, default: str, label: str = "") -> str:
        """The `weights` line of :class:`ModelInfo`: `default` unless the user chose otherwise.

        `label` names the set of weights that was taken of a file with several: `file x.pth [teacher]`.
        """
        if self.random:
            return untrained_source(self.seed)
        if self.weights is None:
            return default
        return f"file {self.weights} [{label}]" if label else f"file {self.weights}"

    @contextmanager
    def construction(self) -> Iterator[None]:
        """Build modules inside: on the meta device when only described, else on the CPU with the seed, leaving the
        global random states as they were."""
        if self.describe_only:
            with on_meta():
                yield
        else:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(self.seed)  # torch's own would seed GPUs as well
                yield


@contextmanager
def in_float32() -> Iterator[None]:
    """Build modules inside in float32, whatever torch's default precision is, which is left as it was."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def untrained_source(seed: int) -> str:
    """What :meth:`ModelRequest.source` says of weights that are drawn by a seed."""
    return f"random (untrained, seed {seed})"


def untrained_seed(weights: str) -> int | None:
    """The seed of such weights; None of others.

    >>> from brdyn.models.request import untrained_seed, untrained_source
    >>> untrained_seed(untrained_source(3)), untrained_seed("file vit.pth")
    (3, None)
    """
    found = re.fullmatch(r"random \(untrained, seed (\d+)\)", weights)
    return None if found is None else int(found[1])


def _file_and_key(weights: str) -> tuple[Path | None, str | None]:
    """What :meth:`ModelRequest.source` said of a file, in its parts."""
    if not weights.startswith("file "):
        return None, None
    path = weights.removeprefix("file ")
    several = re.fullmatch(r"(.+) \[([^\[\]]+)\]", path, flags=re.DOTALL)
    if several is None or Path(path).exists():
        return Path(path), None
    return Path(several[1]), several[2]


def as_size(value: Any) -> Size | None:
    """A square for one number; None stays None.

    Raises
    ------
    UsageError
        If it is neither a positive whole number nor two of them.
    """
    if value is None:
        return None
    sides = [value] * 2 if whole(value) is not None or not isinstance(value, Iterable) else list(value)
    numbers = [number for side in sides if (number := whole(side)) is not None and number > 0]
    if not len(sides) == len(numbers) == 2:
        raise UsageError(f"image_size={value!r} is neither a number of pixels nor (height, width), each at least 1")
    return numbers[0], numbers[1]


def as_dtype(value: torch.dtype | str | None) -> torch.dtype | None:
    """A precision of weights, as of torch or by name; None stays None.

    Raises
    ------
    UsageError
        If it is none.
    """
    if value is None:
        return None
    found: torch.dtype = PRECISIONS[one_of("dtype", dtype_name(value), PRECISIONS)]
    return found


@overload
def as_device(value: torch.device | str) -> torch.device: ...


@overload
def as_device(value: torch.device | str | None) -> torch.device | None: ...


def as_device(value: torch.device | str | None) -> torch.device | None:
    """A device of this machine; None stays None.

    Raises
    ------
    UsageError
        If there is none of that name, or it is not here.
    """
    if value is None:
        return None
    try:
        device = torch.device(value)
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError) as error:  # the last where torch is built without CUDA
        raise UsageError(
            f"device {str(value)!r} is unknown or not on this machine; give one that is there, of {DEVICES}, or none "
            "for the CPU"
        ) from error
    return device
