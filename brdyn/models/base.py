"""The contract every model family fulfils: `embed`, `blocks`, `norm`, `tokens`, `transform`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from brdyn.arguments import checked
from brdyn.choices import check_patches
from brdyn.errors import UsageError
from brdyn.models.preprocessing import Preprocessing
from brdyn.whole import whole

Size = tuple[int, int]
RESERVED = ("all", "head")  # what results call every token together, and what a classification head says
NARROWEST = 192  # width of a ViT-Ti, in float32


@checked
@dataclass(frozen=True)
class TokenLayout:
    """Which tokens of a state `(B, N, D)` belong to which group, and how the patches tile the image.

    Attributes
    ----------
    groups : mapping of str to slice
        Group name (`cls`, `distillation`, `registers`, `patches`; `x`, `y`, `z` of a ViTRM) to its slice of the
        token axis. Groups follow each other from token 0 on, none is empty, and they cover all N tokens.
    grid : (int, int)
        Rows and columns of patches; `grid[0] * grid[1]` is the number of spatial tokens.
    answer : str or None
        The group that gathers what the model says of the whole image: `cls` where there is one, or `y`.
    spatial : str
        The group that is computed for every patch: `patches`, or `z`.

    Raises
    ------
    UsageError
        If a group has no name that results can use, or does not begin where the one before it ends; if the grid has
        not two sides; or if the answer is none of the other groups.

    Examples
    --------
    >>> from brdyn.models import TokenLayout
    >>> layout = TokenLayout.with_prefix((2, 3), {"cls": 1, "registers": 4})
    >>> layout.sizes(), layout["patches"], layout.readouts
    ({'cls': 1, 'registers': 4, 'patches': 6}, slice(5, 11, None), ('cls', 'patches'))
    """

    groups: Mapping[str, slice]
    grid: Size
    answer: str | None = None
    spatial: str = "patches"

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", _in_order(self.groups))
        sides = [whole(side) for side in self.grid]
        if any(side is None or side < 1 for side in sides):
            raise UsageError(f"grid={self.grid} of a token layout is not (rows, columns) of patches, each at least 1")
        object.__setattr__(self, "grid", tuple(sides))
        if self.answer is None:
            object.__setattr__(self, "answer", "cls" if "cls" in self.groups else None)
        elif self.answer not in self.groups or self.answer == self.spatial:
            others = [group for group in self.groups if group != self.spatial]
            raise UsageError(
                f"answer={self.answer!r} of a token layout is none of its groups besides the {self.spatial} "
                f"({', '.join(others) or 'it has none'}); give one of them, or no answer"
            )

    @classmethod
    @checked
    def with_prefix(cls, grid: Size, prefix: Mapping[str, int]) -> TokenLayout:
        """Lay out `prefix` tokens (name to count, in order; zero counts are dropped), then the patches."""
        groups: dict[str, slice] = {}
        start = 0
        for name, count in {**prefix, "patches": prod(grid)}.items():
            if count:
                groups[name] = slice(start, start + count)
                start += count
        return cls(groups, grid)

    @property
    def readouts(self) -> tuple[str, ...]:
        """The groups that an image is read out from: the answer, where there is one, and the spatial tokens."""
        return (self.spatial,) if self.answer is None else (self.answer, self.spatial)

    @property
    def count(self) -> int:
        """N, the number of tokens of a state."""
        return max(group.stop for group in self.groups.values())

    def __getitem__(self, name: str) -> slice:
        if name not in self.groups:
            raise UsageError(f"this model has no {name!r} tokens; its token groups are {', '.join(self.groups)}")
        return self.groups[name]

    def __contains__(self, name: object) -> bool:
        return name in self.groups

    def sizes(self) -> dict[str, int]:
        """Number of tokens in each group."""
        return {name: group.stop - group.start for name, group in self.groups.items()}


def _in_order(groups: Mapping[str, slice]) -> dict[str, slice]:
    """The groups of a layout with their first and last token said, where they follow each other from token 0 on."""
    if not groups:
        raise UsageError(
            "a token layout has no groups; give for instance {'cls': slice(0, 1), 'patches': slice(1, 17)}"
        )
    found: dict[str, slice] = {}
    end = 0
    for name, place in groups.items():
        check_group(name)
        start, stop = whole(0 if place.start is None else place.start), whole(place.stop)
        if start != end or stop is None or stop <= start or place.step not in (None, 1):
            raise UsageError(
                f"{name}={place} of a token layout does not hold tokens from {end} on, one after another; give "
                f"slice({end}, {end} + how many there are), the groups in their order"
            )
        found[name], end = slice(start, stop), stop
    return found


def check_group(name: str) -> None:
    """Refuse a name of a token group that results could not tell from others or could not write."""
    if not isinstance(name, str) or not name.isidentifier() or name in RESERVED:
        raise UsageError(f"{name!r} cannot be the name of a token group; use a word such as cls or registers")


@dataclass(frozen=True)
class ModelInfo:
    """What a model is and where its numbers come from; written into every result.

    Attributes
    ----------
    name, family : str
        The name the user typed and the adapter that serves it.
    layers, width, heads, patch : int
        L, D, attention heads, side of a patch in pixels.
    image_size : (int, int)
        Height and width in pixels that the loaded model takes.
    parameters : int
        Parameters of the trunk (embedding, blocks, final norm).
    position_rule : str
        How positions were fitted to `image_size` (see :mod:`brdyn.models.positions`).
    weights : str
        Where the weights come from; starts with ``random`` when untrained.
    digest : str
        SHA-256 of the weights before positions were resampled; empty when not loaded.
    notes : tuple of str
        Anything a reader of the results should know about this model.

    Examples
    --------
    >>> model.info.name, model.info.layers, model.info.width, model.info.is_random
    ('vit_tiny_patch16_224', 12, 192, True)
    """

    name: str
    family: str
    layers: int
    width: int
    heads: int
    patch: int
    image_size: Size
    parameters: int
    position_rule: str
    weights: str
    digest: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def is_random(self) -> bool:
        """Whether the weights are untrained."""
        return self.weights.startswith("random")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


class VisionTransformer(nn.Module, ABC):
    """A plain ViT at one input size: L blocks that map a state `(B, N, D)` to a state `(B, N, D)`.

    Positions are resampled once, when the model is loaded, so that each element of `blocks` is
    callable on the state alone and the token layout is fixed.

    Attributes
    ----------
    info : ModelInfo
    tokens : TokenLayout
    preprocessing : Preprocessing
    blocks : nn.ModuleList
        `blocks[l](a_l) -> a_{l+1}`, states of shape `(B, N, D)`.
    norm : nn.Module
        The final norm (identity where the trunk has none).
    class_names : tuple of str
        Of the classes of the head, where they are known.
    built : mapping
        What a file of weights changed in the architecture of this name: options of timm, or shapes of a head's tensors.
    redraw : callable or None
        `redraw(seed)` builds the same architecture again with untrained weights; None where nothing is known that does.

    Examples
    --------
    >>> pictures = next(images.batches(4)).images
    >>> state = model.embed(pictures)
    >>> for block in model.blocks:
    ...     state = block(state)
    >>> torch.equal(model.norm(state), model(pictures))
    True
    """

    info: ModelInfo
    tokens: TokenLayout
    preprocessing: Preprocessing
    blocks: nn.ModuleList
    norm: nn.Module
    class_names: tuple[str, ...] = ()
    built: Mapping[str, Any] = MappingProxyType({})
    redraw: Callable[[int], VisionTransformer] | None = None

    def __repr__(self) -> str:
        """Short: `model.blocks` prints the modules."""
        info = self.info
        return f"{type(self).__name__}({info.name}: {info.layers} layers, width {info.width}, {info.weights})"

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Turn images `(B, 3, H, W)` into the state `a_0` of shape `(B, N, D)`."""

    @property
    def classes(self) -> int:
        """Number of classes of the classification head; 0 where there is none."""
        return 0

    def logits(self, normed: Tensor) -> Tensor | None:
        """Class scores `(B, classes)` from normed tokens `(B, N, D)`; None where there is no classification head."""
        return None

    def takes_labels(self, names: Sequence[str] | None) -> bool:
        """Whether labels with these class names can be of this model's head: its own names, or as many as its classes.

        Labels without names are taken at their word.
        """
        if names is None:
            return True
        return tuple(names) == self.class_names if self.class_names else len(names) == self.classes

    @property
    def transform(self) -> Callable[[Any], Tensor]:
        """Turn a PIL image into a tensor `(3, H, W)` the way this model was trained to see it."""
        return self.preprocessing.transform

    @property
    def depth(self) -> int:
        """L, the number of blocks."""
        return len(self.blocks)

    @property
    def block_parameters(self) -> int:
        """Parameters of the blocks, shared ones counted once."""
        return sum(parameter.numel() for parameter in self.blocks.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.parameters()).dtype

    @property
    def precision(self) -> str:
        """The precision of the weights, by name: `float32`."""
        return str(self.dtype).removeprefix("torch.")

    def forward(self, images: Tensor) -> Tensor:
        """Run all blocks and the final norm: `(B, 3, H, W)` to `(B, N, D)`."""
        self.check_size(images)
        state = self.embed(images)
        for block in self.blocks:
            state = block(state)
        return self.norm(state)

    def check_not_training(self) -> None:
        """Refuse a model of which a part is in training mode and then does something else than in use."""
        for part in self.modules():
            if part.training and _learns_otherwise(part):
                raise UsageError(
                    f"{self.info.name!r} is in training mode, and what its {type(part).__name__} does in it alone "
                    "would be measured with it; call model.eval() first"
                )

    def check_size(self, images: Tensor) -> None:
        """Refuse images of another size than the model was loaded for."""
        expected = self.info.image_size
        if images.ndim != 4 or tuple(images.shape[-2:]) != tuple(expected):
            raise UsageError(
                f"{self.info.name!r} was loaded for {expected[0]}x{expected[1]} images and got a batch of shape "
                f"{tuple(images.shape)}; load it with image_size=... or use model.transform"
            )


def _learns_otherwise(part: nn.Module) -> bool:
    """Whether a module leaves something out at random in training, or takes statistics of the batch."""
    if isinstance(part, _NormBase):
        return part.track_running_stats
    chances = ("p", "prob") if "drop" in type(part).__name__.lower() else ()
    return any(
        type(value) in (int, float) and value > 0
        for name, value in vars(part).items()
        if "drop" in name or name in chances
    )


def check_memory(size: Size, grid: Size, width: int = NARROWEST, states: int = 1) -> None:
    """Refuse an image size at which the states of one image do not fit in this machine's memory.

    Parameters
    ----------
    size : (int, int)
        Height and width in pixels.
    grid : (int, int)
        Rows and columns of patches.
    width, states : int
        D, and how many states there are, in float32.

    Raises
    ------
    UsageError
        With what they would take.
    """
    import psutil

    needed = prod(grid) * width * states * 4
    if needed > psutil.virtual_memory().total:
        raise UsageError(
            f"an image of {size[0]}x{size[1]} pixels is {prod(grid):,} patches, whose states take at least "
            f"{needed / 2**30:,.0f} GiB, more than this machine has; use a smaller `image_size`"
        )


def check_image_size(name: str, size: Size, patch: Size) -> Size:
    """Return the patch grid of an image size, or say which size to use instead.

    Raises
    ------
    UsageError
        If a side is smaller than a patch or not a multiple of it, or no memory holds so many patches.
    """
    check_memory(size, (size[0] // patch[0], size[1] // patch[1]))
    check_patches(name, size, patch)
    return size[0] // patch[0], size[1] // patch[1]
