"""What of a file reached an architecture unchanged, and what is said about the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from brdyn.errors import BrdynError, UsageError
from brdyn.models import layouts
from brdyn.models.checkpoints import StateDict

BFLOAT16_STEP = 2**-7  # some files keep rotary periods in that precision
REARRANGED = ("View", "UnsafeView", "Reshape", "Permute", "Transpose", "T", "Slice", "Select", "Split", "Cat", "Stack",
              "SplitWithSizes", "Unsqueeze", "Squeeze", "Clone", "Add", "Alias", "Expand", "Unbind")  # fmt: skip


def check_untouched(leaves: StateDict, state: StateDict, path: Path) -> set[str]:
    """Names of the file's tensors that reached the architecture, each rearranged at most.

    The filter ran with gradients on, so that each of its tensors knows what it was made of.

    Raises
    ------
    BrdynError
        If one was computed in any other way, as by resampling, with both shapes.
    """
    names = {id(tensor): key for key, tensor in leaves.items()}
    used: set[str] = set()
    for key, tensor in state.items():
        origins, steps = _made_of(tensor, names)
        used |= origins
        changed = steps - set(REARRANGED)
        if changed:
            source = min(origins, default=key)
            raise BrdynError(
                f"{source} in {str(path)!r} is {tuple(leaves[source].shape)}, the architecture takes {key} as "
                f"{tuple(tensor.shape)}, and weights are not resampled; check `model` against the file"
            )
    return used


def _made_of(tensor: Tensor, names: Mapping[int, str]) -> tuple[set[str], set[str]]:
    if id(tensor) in names:
        return {names[id(tensor)]}, set()
    leaves, steps = computed_from(tensor)
    return {names[id(leaf)] for leaf in leaves}, steps


def computed_from(tensor: Tensor) -> tuple[set[Tensor], set[str]]:
    """The leaves of the graph of gradients that a tensor was computed from, and the names of what was done to them.

    >>> import torch
    >>> from brdyn.models.tracing import computed_from
    >>> leaf = torch.ones(2, requires_grad=True)
    >>> leaves, steps = computed_from(2 * leaf.t())
    >>> leaves == {leaf}, sorted(steps)
    (True, ['Mul', 'T'])
    """
    leaves, steps, seen, pending = set(), set(), set(), [tensor.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            leaves.add(variable)
        else:
            steps.add(node.name().partition("Backward")[0])
        pending.extend(before for before, _ in node.next_functions)
    return leaves, steps


class Watched(TorchDispatchMode):
    """Calls a function when anything is computed inside from the memory of some tensors, or of views of them.

    Parameters
    ----------
    tensors : iterable of Tensor
    others : iterable of Tensor
        What may be used although it shares memory with them.
    used : callable

    Examples
    --------
    >>> import torch
    >>> from brdyn.models.tracing import Watched
    >>> mine, other = torch.ones(2, 2), torch.ones(2)
    >>> row = mine[0]
    >>> with Watched([mine], [], lambda: print("used")):
    ...     apart = other + 1
    ...     both = torch.cat([other, row])
    used
    """

    def __init__(self, tensors: Iterable[Tensor], others: Iterable[Tensor], used: Callable[[], None]) -> None:
        super().__init__()
        self.places = set(map(_place, tensors)) - set(map(_place, others)) - {0}
        self.used = used

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if any(_place(one) in self.places for one in tensors_in((*args, *(kwargs or {}).values()))):
            self.used()
        return func(*args, **(kwargs or {}))


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among arguments, those in lists too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def _place(tensor: Tensor) -> int:
    """Where a tensor's memory begins; 0 of one that has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse ones, and classes of others that stand for tensors
        return 0


def is_derived(key: str, tensor: Tensor, backbone: nn.Module, path: Path) -> bool:
    """Whether a tensor only repeats what the architecture computes itself, as an index of relative positions.

    Raises
    ------
    BrdynError
        If the architecture computes something else.
    """
    if key.endswith("qkv.bias_mask"):
        return True  # looked at where the biases were split
    own = dict(backbone.named_buffers()).get(key.replace("rope_embed.", "rope."))
    if own is None or own.numel() != tensor.numel():
        return False
    if not torch.allclose(own.float().flatten(), tensor.detach().float().flatten(), rtol=BFLOAT16_STEP):
        raise BrdynError(
            f"the values of {key} in {str(path)!r} are not those of the architecture; check `model` against the file"
        )
    return True


def said(
    tensors: StateDict, sets: list[layouts.WeightSet], chosen: layouts.WeightSet, unused: list[str],
    state: StateDict, plain: Any, path: Path,
) -> list[str]:  # fmt: skip
    """Notes on what of the file was taken, and how it was stored."""
    notes = []
    if len(sets) > 1:
        names = ", ".join(one.label for one in sets)
        notes.append(f"{path.name} holds {names}; {chosen.label} was taken (`weights_key` takes another)")
    prefixes = tuple(one.prefix for one in sets)
    outside = [_apart(key, chosen) for key in tensors if not key.startswith(prefixes)]
    if unused or outside:
        notes.append(f"not used from {path.name}: {layouts.grouped([*unused, *outside])}")
    if chosen.layout == layouts.CLIP:
        notes += _activation(tensors, chosen, plain, path)
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in state.values()} - {"float32"}
    if kinds:
        notes.append(f"stored as {', '.join(sorted(kinds))} and read as float32")
    return notes


def _activation(tensors: StateDict, chosen: layouts.WeightSet, plain: Any, path: Path) -> list[str]:
    """A CLIP file does not say its activation, unless it is OpenAI's own.

    Raises
    ------
    UsageError
        For OpenAI's weights in an architecture without QuickGELU.
    """
    quick = any(type(module).__name__ == "QuickGELU" for module in plain.modules())
    if quick:
        return []
    if layouts.says_openai(tensors, chosen.prefix):
        name = plain.pretrained_cfg.get("architecture", "")
        raise UsageError(
            f"{str(path)!r} holds OpenAI's CLIP weights, which need QuickGELU; use `model` "
            f"{name.replace('_clip_', '_clip_quickgelu_') or 'with quickgelu in its name'}"
        )
    return ["CLIP files do not say their activation; this architecture has GELU, OpenAI's needs a quickgelu name"]


def _apart(key: str, chosen: layouts.WeightSet) -> str:
    """A name without what it has in common with the prefix of the set that was taken."""
    parts = key.split(".")
    while len(parts) > 1 and parts[0] in chosen.parts:
        del parts[0]
    return ".".join(parts)
