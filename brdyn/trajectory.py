"""Capturing the state after every block: forward hooks, one batch in memory at a time."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from brdyn.arguments import checked
from brdyn.branches import Branches, run_with_branches
from brdyn.data import NO_LABEL, Batch, ImageSet, ReadReport
from brdyn.data.items import without_labels
from brdyn.errors import BrdynError, UsageError
from brdyn.models import ModelInfo, TokenLayout, VisionTransformer
from brdyn.progress import progress_bar
from brdyn.runtime import Processes, auto_batch_size, fitting_images, is_out_of_memory

Derived = TypeVar("Derived")


class Trajectory:
    """The states of one batch of images through depth.

    Attributes
    ----------
    states : tuple of Tensor
        `a_0` (embedding output) to `a_L` (output of the last block, before the final norm), each `(B, N, D)`.
    tokens : TokenLayout
        Which of the N tokens belong to which group.
    positions : Tensor
        Position of each image in its set, `(B,)`.
    labels : Tensor
        Numbers of classes, `NO_LABEL` for an image that has none, `(B,)`. All have none when they are not given.
    targets : Tensor or None
        Masks or maps of depth, `(B, H, W)`, of a set that has them.
    branches : tuple of Branches or str
        Where they were asked for: what attention and the MLP of blocks 1..L add, or why a block does not show it.

    Examples
    --------
    >>> trajectory = brdyn.capture(model, next(images.batches(4)))
    >>> len(trajectory), trajectory.depth, trajectory.states[0].shape
    (4, 12, torch.Size([4, 5, 192]))
    >>> trajectory.mean("patches").shape
    torch.Size([13, 4, 192])
    """

    def __init__(
        self,
        states: Iterable[Tensor],
        tokens: TokenLayout,
        positions: Tensor,
        labels: Tensor | None = None,
        targets: Tensor | None = None,
        branches: Iterable[Branches | str] = (),
    ) -> None:
        self.states = tuple(states)
        self.branches = tuple(branches)
        self.tokens = tokens
        self.positions = positions
        self.targets = targets
        self.labels = without_labels(positions) if labels is None else labels
        self._derived: dict[str, Any] = {}

    def __len__(self) -> int:
        """Number of images."""
        return len(self.states[0])

    @property
    def depth(self) -> int:
        """L, the number of blocks."""
        return len(self.states) - 1

    @property
    def labelled(self) -> Tensor:
        """Which images have a label, bool `(B,)`."""
        return self.labels != NO_LABEL

    def stack(self) -> Tensor:
        """All states as one tensor `(L + 1, B, N, D)`; this copies them."""
        return torch.stack(self.states)

    def mean(self, group: str) -> Tensor:
        """Mean token of a group in every state, `(L + 1, B, D)`, in float32; computed once.

        `all` is the mean over every token.
        """
        return self.derive(f"mean {group}", lambda: self._mean(group))

    def _mean(self, group: str) -> Tensor:
        if group == "all":
            sizes = self.tokens.sizes()
            total = torch.stack([self.mean(name) * size for name, size in sizes.items()]).sum(0)
            return total / self.tokens.count
        part = self.tokens[group]
        return torch.stack([_mean(state[:, part]) for state in self.states])

    def derive(self, name: str, compute: Callable[[], Derived]) -> Derived:
        """Something that several measures need: computed when first asked for, kept with the batch."""
        if name not in self._derived:
            self._derived[name] = compute()
        return self._derived[name]

    def check_finite(self, model: str) -> None:
        """Raise a `BrdynError` naming the first layer with a value that is not finite.

        A sum is finite only if its terms are, so the group means that measures use anyway are enough.
        """
        finite = torch.stack([self.mean(group).isfinite().flatten(1).all(1) for group in self.tokens.groups])
        bad = (~finite.all(0)).nonzero().flatten().tolist()
        if bad:
            where = "the embedding (layer 0)" if bad[0] == 0 else f"layer {bad[0]}"
            dtype = self.states[0].dtype
            kind = str(dtype).removeprefix("torch.")
            raise BrdynError(f"the output of {where} of {model!r} is not finite in {kind}; {not_finite_remedy(dtype)}")


def not_finite_remedy(dtype: torch.dtype) -> str:
    """What to do about values that are not finite in a precision."""
    return "try `dtype=float32`" if dtype in (torch.float16, torch.bfloat16) else "check the weights"


def check_normed(model: VisionTransformer, normed: Tensor) -> None:
    """Raise a `BrdynError` if what comes out of the final norm, from finite states, is not finite."""
    if not normed.isfinite().all():
        raise BrdynError(
            f"the final norm of {model.info.name!r} gives values that are not finite in {model.precision}; "
            f"{not_finite_remedy(model.dtype)}"
        )


def _mean(tokens: Tensor) -> Tensor:
    return tokens[:, 0].float() if tokens.shape[1] == 1 else tokens.mean(dim=1, dtype=torch.float32)


@contextmanager
def record_states(model: VisionTransformer) -> Iterator[list[Tensor]]:
    """Collect `a_0 … a_L` of every forward pass made inside, by hooks that are always removed.

    Layers can be one module: it has one hook, which is called as often as it is applied.
    """
    states: list[Tensor] = []
    whole = model.depth + 1

    def before_first(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        if len(states) % whole == 0:
            states.append(inputs[0])

    def after(_: nn.Module, __: Any, output: Tensor) -> None:
        states.append(output)

    handles = [model.blocks[0].register_forward_pre_hook(before_first)]
    handles += [block.register_forward_hook(after) for block in dict.fromkeys(model.blocks)]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


@checked
def capture(model: VisionTransformer, batch: Batch, *, branches: bool = False) -> Trajectory:
    """Run one batch and keep every state, on the model's device and in its precision.

    With `branches` also what attention and the MLP of each block add, which takes the memory of 2 L states more.

    >>> trajectory = brdyn.capture(model, next(images.batches(4)))
    >>> torch.equal(model.norm(trajectory.states[-1]), model(next(images.batches(4)).images))
    True
    """
    model.check_not_training()
    images = batch.images.to(model.device, model.dtype, non_blocking=True)
    if branches:
        states, found = _with_branches(model, images)
        return Trajectory(states, model.tokens, batch.positions, batch.labels, batch.targets, found)
    with torch.no_grad(), record_states(model) as states:
        model(images)
    return Trajectory(states, model.tokens, batch.positions, batch.labels, batch.targets)


@torch.no_grad()
def _with_branches(model: VisionTransformer, images: Tensor) -> tuple[list[Tensor], list[Branches | str]]:
    """The states, and the branches of every block."""
    model.check_size(images)
    states, found = [model.embed(images)], []
    for block in model.blocks:
        state, own = run_with_branches(block, states[-1])
        states.append(state)
        found.append(own)
    return states, found


@checked
@dataclass(frozen=True, kw_only=True)
class Stream:
    """How to go through a set of images.

    Attributes
    ----------
    batch_size : int or "auto"
        `auto` starts from what fits in memory and halves when it does not, instead of failing.
    workers : int, optional
        Loader processes.
    processes : Processes, optional
        Under torchrun: this process takes its share of the images.
    progress : bool
        Show a progress bar on a terminal.
    name : str
        What the bar says; the model's name by default, with a word where it is untrained.

    Examples
    --------
    >>> brdyn.layer_similarity(model, images, stream=brdyn.Stream(batch_size=4, workers=0)).n_images
    8
    """

    batch_size: int | str = "auto"
    workers: int | None = None
    processes: Processes | None = None
    progress: bool = False
    name: str = ""

    @property
    def is_main(self) -> bool:
        """Whether this process is the only one, or the one that writes."""
        return self.processes is None or self.processes.is_main

    @property
    def is_alone(self) -> bool:
        """Whether this process reads all of the images."""
        return self.processes is None or self.processes.world == 1


def _named(info: ModelInfo) -> str:
    return f"{info.name}, untrained" if info.is_random else info.name


@checked
def trajectories(
    model: VisionTransformer, images: ImageSet, *, stream: Stream | None = None, branches: bool = False
) -> Iterator[Trajectory]:
    """Stream the trajectories of a set of images, one batch in memory at a time.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet
    stream : Stream, optional
        Batch size, loader processes, share of the images.
    branches : bool
        Keep what attention and the MLP of each block add.

    Yields
    ------
    Trajectory
        Of this process's images, in order. Whether its states are finite is checked when the next is asked
        for. Let go of it before that (`del`) to keep no more than one batch of states.

    Raises
    ------
    BrdynError
        If a state is not finite (the layer is named), if memory is too small for one image (or for a
        batch of the size asked for), or if no image can be read.
    UsageError
        If the model is in training mode, and does something else in it (`model.eval()` ends that).

    Examples
    --------
    >>> for trajectory in brdyn.trajectories(model, images, stream=brdyn.Stream(batch_size=5)):
    ...     print(trajectory.positions.tolist(), trajectory.labels.tolist())
    [0, 1, 2, 3, 4] [0, 0, 0, 0, 1]
    [5, 6, 7] [1, 1, 1]
    """
    stream = stream or Stream()
    processes = stream.processes or Processes(model.device)
    adapts = stream.batch_size == "auto"
    size = _fitting(model, branches) if adapts else _positive(stream.batch_size)
    batches = images.batches(
        size,
        workers=stream.workers,
        rank=processes.rank,
        world=processes.world,
        pin=model.device.type == "cuda",
    )
    take = partial(capture, branches=True) if branches else capture
    run = partial(_capture_or_halve, model, adapt=adapts, take=take)
    with progress_bar(
        f"{stream.name or _named(model.info)}: reading",
        -(-len(images) // processes.world),
        stream.progress and processes.is_main,
    ) as advance:
        for batch in batches:
            waiting = deque(batch.split(size))
            while waiting:
                part = waiting.popleft()
                trajectory = run(part)
                if trajectory is None:
                    size = max(1, len(part) // 2)
                    waiting = deque(piece for whole in (part, *waiting) for piece in whole.split(size))
                    continue
                yield trajectory
                # After the consumer's own kernels were queued: a GPU is not kept waiting for this check.
                trajectory.check_finite(model.info.name)
                advance(len(part))
                del trajectory  # before the next batch is captured


def visit_trajectories(
    model: VisionTransformer,
    images: ImageSet,
    visit: Callable[[Trajectory], None],
    *,
    stream: Stream | None = None,
    branches: bool = False,
) -> ReadReport:
    """Show every trajectory to a function, in one pass over the images.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet
    visit : callable
    stream : Stream, optional
    branches : bool
        Keep what attention and the MLP of each block add.

    Returns
    -------
    ReadReport
        What was read and skipped, over all processes.

    Raises
    ------
    BrdynError
        As of :func:`trajectories`, or if memory is too small for what is done with a batch.
    """
    stream = stream or Stream()
    processes = stream.processes or Processes(model.device)
    try:
        for trajectory in trajectories(model, images, stream=stream, branches=branches):
            _show(trajectory, visit, model.info.name)
            del trajectory  # before the next batch is captured
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise BrdynError(
            f"out of memory on {model.device} while measuring; use a smaller `batch_size`, or measure less at once"
        ) from None
    images.report = processes.gather(images.report)
    images.require_some()
    return images.report


def _show(trajectory: Trajectory, visit: Callable[[Trajectory], None], model: str) -> None:
    """Call a function; where it fails on states that are not finite, that is what is said."""
    try:
        visit(trajectory)
    except Exception as error:
        if not is_out_of_memory(error):
            trajectory.check_finite(model)
        raise


def _fitting(model: VisionTransformer, branches: bool) -> int:
    """A batch size whose trajectories fit in memory."""
    return fitting_images(model, 3 * model.depth + 1) if branches else auto_batch_size(model)


def _positive(batch_size: int | str) -> int:
    if isinstance(batch_size, str) or batch_size < 1:
        raise UsageError(f"batch size {batch_size!r} is neither a positive number nor 'auto'")
    return int(batch_size)


def _capture_or_halve(
    model: VisionTransformer, batch: Batch, adapt: bool, take: Callable[..., Trajectory]
) -> Trajectory | None:
    """The trajectory, or None when memory was too small and a smaller batch may do."""
    try:
        return take(model, batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if not adapt or len(batch) == 1:
            remedy = "a smaller `image_size`, `dtype=bfloat16`" if adapt else "`batch_size=auto`, or a smaller one"
            raise BrdynError(
                f"out of memory on {model.device} with a batch of {len(batch)}; use {remedy} or another `device`"
            ) from None
    gc.collect()
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    return None
