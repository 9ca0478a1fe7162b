"""Raptor: a ViT whose L layers are a few shared blocks, applied again and again. BRH (arXiv 2512.19941)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from torch import Tensor, nn

from brdyn.arguments import checked
from brdyn.checked_json import Range
from brdyn.choices import MOST_LAYERS, MOST_PIXELS
from brdyn.errors import UsageError
from brdyn.models import VisionTransformer
from brdyn.models.request import untrained_seed
from brdyn.raptor.block import BlockConfig
from brdyn.raptor.copied import CopyConfig
from brdyn.store import pretrained
from brdyn.store.shared_tensors import each_once

KIND = "raptor"
EARLIER_NORM_EPS = 1e-6  # of all blocks, before configs said it


@dataclass(frozen=True, kw_only=True)
class SavedTeacher:
    """What a Raptor's config.json says of its teacher; see :class:`brdyn.models.ModelInfo`."""

    name: str
    digest: str
    weights: str
    image_size: tuple[Annotated[int, Range(1, MOST_PIXELS)], Annotated[int, Range(1, MOST_PIXELS)]]
    layers: Annotated[int, Range(1, MOST_LAYERS)]


@dataclass(frozen=True, kw_only=True)
class SavedConfig:
    """The entries of a Raptor's config.json that it takes to build it again: `block` or, of copies, `copies`."""

    digest: str
    teacher: SavedTeacher
    assignment: tuple[Annotated[int, Range(0, MOST_LAYERS)], ...]
    block: BlockConfig | None = None
    copies: CopyConfig | None = None

    def __post_init__(self) -> None:
        """Refuse what says of its blocks nothing, or two things."""
        if (self.block is None) == (self.copies is None):
            raise UsageError("it has to have one of 'block' and 'copies'")

    @property
    def blocks(self) -> BlockConfig | CopyConfig:
        """What the blocks are made of."""
        found = self.copies if self.block is None else self.block
        assert found is not None
        return found


@dataclass(frozen=True)
class Span:
    """Consecutive layers of one block: it is entered by state `start` and makes the states up to `end`.

    >>> from brdyn.raptor.model import spans
    >>> spans([0, 0, 0, 1, 1])
    [Span(block=0, start=0, end=3), Span(block=1, start=3, end=5)]
    """

    block: int
    start: int
    end: int


class Application(nn.Module):
    """A shared block at one layer. It does not own the block, so that weights are counted and saved once."""

    def __init__(self, block: nn.Module, layer: int) -> None:
        super().__init__()
        self._shared = (block,)
        self.layer = layer

    def forward(self, state: Tensor) -> Tensor:
        """Apply the block."""
        return self._shared[0](state, self.layer)


@checked
class Raptor(VisionTransformer):
    """Shared blocks between the frozen embedding and the frozen norm of a teacher, which is kept with it.

    Parameters
    ----------
    teacher : VisionTransformer
    assignment : sequence of int
        For each layer 1..L the number of the block that is applied there, from 0; phases in order are
        `[0, 0, 1, 1, …]`.
    config : BlockConfig or CopyConfig
        Of every block: of a Raptor's own kind, drawn at random, or copies of the teacher's.

    Attributes
    ----------
    shared : nn.ModuleList
        The k blocks, the only trained part.
    blocks : nn.ModuleList
        Their L applications, so that everything that takes a ViT takes a Raptor.

    Examples
    --------
    >>> from brdyn.raptor import BlockConfig, Raptor
    >>> raptor = Raptor(model, [0] * 6 + [1] * 6, BlockConfig(width=192, heads=3))
    >>> raptor.k, raptor.depth, raptor.spans
    (2, 12, [Span(block=0, start=0, end=6), Span(block=1, start=6, end=12)])
    """

    def __init__(self, teacher: VisionTransformer, assignment: Sequence[int], config: BlockConfig | CopyConfig) -> None:
        super().__init__()
        self.assignment = check_assignment(assignment, teacher)
        self.teacher = teacher
        self.norm = teacher.norm
        self.tokens, self.preprocessing = teacher.tokens, teacher.preprocessing
        self.class_names = teacher.class_names
        self.config = config
        with torch.random.fork_rng():  # the caller's is left as it was
            self.shared = config.build(teacher, self.assignment)
        self.blocks = nn.ModuleList(
            [Application(self.shared[number], layer) for layer, number in enumerate(self.assignment, 1)]
        )
        self.redraw = None if teacher.redraw is None else partial(_redrawn, teacher.redraw, self.assignment, config)
        self.info = replace(
            teacher.info,
            name=f"raptor of {teacher.info.name}",
            family="raptor",
            heads=config.heads,
            parameters=teacher.info.parameters - teacher.block_parameters + parameter_count(self.shared),
            weights="random (not fitted)",
            digest="",
            notes=(*teacher.info.notes, f"{len(self.shared)} blocks shared by {teacher.depth} layers"),
        )

    def settled(self) -> Self:
        """This, in eval, whose blocks take no gradients any more; what the teacher's take is its owner's affair."""
        self.shared.requires_grad_(False)
        return self.eval()

    @property
    def block_parameters(self) -> int:
        """Of the k blocks."""
        return parameter_count(self.shared)

    @property
    def k(self) -> int:
        """Number of blocks."""
        return len(self.shared)

    @property
    def spans(self) -> list[Span]:
        """Runs of consecutive layers of one block, in order."""
        return spans(self.assignment)

    def embed(self, images: Tensor) -> Tensor:
        """The teacher's embedding."""
        return self.teacher.embed(images)

    @property
    def classes(self) -> int:
        """Of the teacher's classification head."""
        return self.teacher.classes

    def logits(self, normed: Tensor) -> Tensor | None:
        """The teacher's classification head."""
        return self.teacher.logits(normed)

    def save_pretrained(self, folder: str | Path, **details: Any) -> None:
        """Write the blocks (safetensors) and a config.json, both or neither; takes what :meth:`to_files` takes."""
        pretrained.write(folder, self.to_files(**details))

    def to_files(self, **details: Any) -> dict[str, bytes]:
        """The blocks and a config.json, as the bytes of files.

        Parameters
        ----------
        **details
            Further entries of the config: how it was fitted.
        """
        teacher = self.teacher.info
        config = {
            "teacher": {
                "name": teacher.name,
                "digest": teacher.digest,
                "weights": teacher.weights,
                "image_size": list(teacher.image_size),
                "layers": teacher.layers,
            },
            "assignment": list(self.assignment),
            "block" if isinstance(self.config, BlockConfig) else "copies": asdict(self.config),
            **details,
        }
        return pretrained.to_files(KIND, each_once(self.shared), config)

    @classmethod
    def from_pretrained(cls, folder: str | Path, teacher: VisionTransformer) -> Raptor:
        """Read what :meth:`save_pretrained` wrote, around its teacher, whose device and precision it takes.

        Raises
        ------
        UsageError
            If the folder holds no Raptor, or one of another teacher or of other weights of it.
        BrdynError
            If the weights are damaged or do not fit.
        """
        config, _ = read_saved(folder)
        if config.teacher.digest != teacher.info.digest:
            raise UsageError(
                f"{str(folder)!r} was fitted to {config.teacher.name!r} with weights "
                f"{config.teacher.digest[:12]}…, and the teacher at hand is {teacher.info.name!r} with "
                f"{teacher.info.digest[:12]}…; {_how_to_get(config.teacher.weights)}"
            )
        check_saved(config, teacher, folder)
        make = partial(config.blocks.build, teacher, config.assignment)
        weights = pretrained.read_weights(make, folder, config.digest)
        raptor = cls(teacher, config.assignment, config.blocks)
        raptor.shared.load_state_dict(weights)
        raptor.shared.to(device=teacher.device, dtype=teacher.dtype)
        raptor.info = replace(raptor.info, weights=str(Path(folder) / pretrained.WEIGHTS), digest=config.digest)
        return raptor.settled()


def _how_to_get(weights: str) -> str:
    """What to do for the weights that a teacher had."""
    seed = untrained_seed(weights)
    if seed is not None:
        return f"those are untrained: drop `weights`, or load the teacher with `init=random` and `seed={seed}`"
    return "give the same weights (by `weights`, and `weights_key` where the file holds several sets)"


def check_saved(config: SavedConfig, teacher: VisionTransformer, folder: str | Path) -> None:
    """Refuse a config that is not of a Raptor of this teacher, before anything is built from it.

    Raises
    ------
    UsageError
        If the assignment or the width of the blocks is not of the teacher.
    """
    check_assignment(config.assignment, teacher)
    if config.blocks.width != teacher.info.width:
        raise UsageError(
            f"{str(folder)!r} has blocks of width {config.blocks.width}, and its teacher {teacher.info.name!r} has "
            f"width {teacher.info.width}"
        )


def parameter_count(module: nn.Module) -> int:
    """Parameters of a module, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def spans(assignment: Sequence[int]) -> list[Span]:
    """Runs of consecutive layers of one block, in order."""
    found, start = [], 0
    for block, run in groupby(assignment):
        end = start + len(list(run))
        found.append(Span(block, start, end))
        start = end
    return found


def check_assignment(assignment: Sequence[int], teacher: VisionTransformer) -> tuple[int, ...]:
    """An assignment that has a block for each layer of the teacher and a layer for each block.

    Raises
    ------
    UsageError
        If it does not.
    """
    numbers = tuple(int(number) for number in assignment)
    if len(numbers) != teacher.depth:
        raise UsageError(f"{len(numbers)} layers are assigned, and {teacher.info.name!r} has {teacher.depth}")
    used = sorted(set(numbers))
    if used != list(range(len(used))):
        raise UsageError(
            f"the assignment {list(numbers)} does not number its blocks 0, 1, …: each block from 0 to the largest "
            "needs a layer"
        )
    return numbers


def read_saved(folder: str | Path) -> tuple[SavedConfig, dict[str, Any]]:
    """The config.json of a Raptor: what it takes to build it again, and whole.

    Raises
    ------
    UsageError
        If there is none, or it is of something else, lacks an entry or has one of a wrong type or out of range.
    """
    config, whole = pretrained.read_config(folder, KIND, SavedConfig)
    if config.block is not None and "norm_eps" not in whole["block"]:
        config = replace(config, block=replace(config.block, norm_eps=EARLIER_NORM_EPS))
    return config, whole


def read_config(folder: str | Path) -> dict[str, Any]:
    """The config.json of a Raptor, whole; errors as of :func:`read_saved`."""
    return read_saved(folder)[1]


def is_raptor(folder: str | Path) -> bool:
    """Whether a folder holds a Raptor."""
    return pretrained.holds(folder, KIND)


def untrained(
    teacher: VisionTransformer, assignment: Sequence[int], config: BlockConfig | CopyConfig, seed: int
) -> Raptor:
    """A Raptor before fitting; the blocks are drawn by `seed`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Raptor(teacher, assignment, config)


def _redrawn(
    teacher: Callable[[int], VisionTransformer],
    assignment: tuple[int, ...],
    config: BlockConfig | CopyConfig,
    seed: int,
) -> Raptor:
    """Untrained blocks between the embedding and the norm of an untrained teacher."""
    raptor = untrained(teacher(seed), assignment, config.redrawn(), seed)
    raptor.info = replace(raptor.info, weights=raptor.teacher.info.weights)
    return raptor
