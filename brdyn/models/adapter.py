"""A module of one's own as a plain ViT: where its embedding, blocks and norm are, and how its tokens lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from itertools import chain
from math import isfinite, prod
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from brdyn.arguments import check
from brdyn.choices import check_heads
from brdyn.errors import UsageError
from brdyn.models import weights
from brdyn.models.base import ModelInfo, Size, TokenLayout, VisionTransformer, check_group, check_image_size
from brdyn.models.own_vit import Apply, Embed, Head, OwnViT, copy_input
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.request import as_size
from brdyn.models.tracing import Watched, computed_from
from brdyn.whole import whole
from brdyn.words import counted, first_line

FAMILY = "own"
GIVEN = "module given by the caller"
HOW = (
    "brdyn.adapt(module, embed=lambda module, images: ..., blocks=module.blocks, norm=module.norm, "
    "tokens={'cls': 1}, image_size=224, patch=16, mean=..., std=...)"
)
CONTRACT = ("embed", "blocks", "norm", "tokens", "image_size", "patch", "mean", "std")
HEAD_ATTRIBUTES = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
HEAD_WIDTH = 64
# How far two passes over arrays of one shape may lie apart: roundings, and times what a random part does anyway.
ROUNDINGS, TIMES = 4, 10


def adapt(
    module: nn.Module,
    *,
    embed: Embed,
    blocks: Sequence[nn.Module],
    norm: nn.Module | None,
    tokens: Mapping[str, int] | TokenLayout,
    image_size: int | Size,
    patch: int,
    mean: Sequence[float],
    std: Sequence[float],
    apply: Apply | None = None,
    head: Head | None = None,
    class_names: Sequence[str] = (),
    heads: int | None = None,
    name: str | None = None,
    **preprocessing: Any,
) -> VisionTransformer:
    """Make a module of your own a model that every function of brdyn takes.

    brdyn works on a copy of the module as it is now, in eval mode and frozen: yours is left as it was, and what you
    train into it later does not show. Functions given here get that copy as their first argument. The copy is tried
    on images of noise, without a change to the random state.

    Parameters
    ----------
    module : nn.Module
    embed : callable
        `embed(module, images)` turns images `(B, 3, H, W)` into the state `(B, N, D)` that enters the first block.
    blocks : sequence of nn.Module
        In order, parts of the module; one that is applied several times is named as often. A block takes a state
        and returns one of the same shape, or a tuple that begins with it.
    norm : nn.Module or None
        The final norm; None where there is none.
    tokens : mapping of str to int, or TokenLayout
        How many tokens come before the patches, in order, as `{"cls": 1, "registers": 4}`, or `{}`. The whole image is
        read out from the group named `cls`, where there is one. A :class:`TokenLayout` says any other order, and with
        `answer` another name.
    image_size : int or (int, int)
        Height and width in pixels.
    patch : int
        Side of a patch in pixels; of patches that are not square any one, and `tokens` is a :class:`TokenLayout`.
    mean, std : sequence of float
        Normalisation of the channels, of values in [0, 1].
    apply : callable, optional
        `apply(module, block, state)`, where a block needs more than the state:
        `lambda module, block, state: block(state, rope=module.rope)`.
    head : callable, optional
        `head(module, normed)` gives class scores `(B, classes)` from normed tokens `(B, N, D)`.
    class_names : sequence of str
        Of the head's classes.
    heads : int, optional
        Attention heads, for the blocks of a Raptor; by default what the first block says, else 64 units each.
    name : str, optional
        By default the module's class.
    **preprocessing
        `crop_pct`, `crop_mode`, `interpolation` of :class:`brdyn.models.Preprocessing`.

    Returns
    -------
    VisionTransformer

    Raises
    ------
    UsageError
        If a part does not do what is said here, mixes the images of a batch, or uses `module` itself.

    Examples
    --------
    >>> class Own(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.patches = torch.nn.Conv2d(3, 8, 16, 16)
    ...         layers = [torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(3)]
    ...         self.layers = torch.nn.ModuleList(layers)
    >>> own = Own()
    >>> model = brdyn.adapt(
    ...     own, embed=lambda own, images: own.patches(images).flatten(2).mT, blocks=own.layers, norm=None,
    ...     tokens={}, image_size=32, patch=16, mean=[0.5] * 3, std=[0.5] * 3,
    ... )
    >>> model.depth, model.tokens.sizes()
    (3, {'patches': 4})
    """
    if not isinstance(module, nn.Module):
        raise UsageError(f"what was given to adapt is {kind(module)}, not a module")
    check("name", name, str | None)
    check("class_names", class_names, Sequence[str])
    check("heads", heads, int | None)
    name = name or type(module).__name__
    size, side = as_size(image_size), whole(patch)
    if size is None:
        raise UsageError(f"{image_size=} of {name!r} is no number of pixels; give one, or (height, width)")
    if side is None or side < 1:
        raise UsageError(
            f"{patch=} of {name!r} is not one whole number of pixels, the side of a square patch; of other patches "
            "give one side, and tokens=brdyn.models.TokenLayout(groups, grid)"
        )
    layout = _layout(name, tokens, size, side)
    prepared = _preprocessing(name, size, mean, std, preprocessing)
    own = [block for block in blocks if isinstance(block, nn.Module)] if isinstance(blocks, Iterable) else []
    if not own or len(own) < len(list(blocks)):
        raise UsageError(
            f"the blocks of {name!r} are not a sequence of modules; give for instance blocks=module.blocks"
        )
    if norm is not None and not isinstance(norm, nn.Module):
        raise UsageError(f"the norm of {name!r} is {kind(norm)}; give a module, or None where there is none")
    with torch.inference_mode(False):  # whose tensors cannot be told to have been changed, or be trained
        copied, copies, copied_norm = _copy(name, (module, own, norm))
        model = OwnViT(copied, copies, copied_norm, layout, prepared, (embed, apply, head))
        model.eval().requires_grad_(False)
        trial = _Trial(name, model, module)
        trunk = trial.run()
    notes = trial.notes
    _check_names(name, class_names, trunk.classes)
    if heads is None:
        heads, guessed = _heads(model.blocks[0], trunk.width)
        notes += ["heads not known: a Raptor of it gets heads of 64 units"] if guessed else []
    check_heads(trunk.width, heads)
    model.info = ModelInfo(
        name, FAMILY, len(own), trunk.width, int(heads), side, size, trunk.parameters,
        "the module's own", GIVEN, weights.digest(copied.state_dict()), tuple(notes),
    )  # fmt: skip
    model._classes, model.class_names = trunk.classes, tuple(class_names)
    return model


def fulfils_contract(module: nn.Module) -> bool:
    """Whether a module has all that :func:`adapt` asks for as attributes of those names."""
    return all(hasattr(module, name) for name in CONTRACT)


def from_contract(module: nn.Module) -> VisionTransformer:
    """Adapt a module that has `embed`, `blocks`, `norm`, `tokens`, `image_size`, `patch`, `mean` and `std`."""
    said = {name: getattr(module, name) for name in CONTRACT if name != "embed"}
    return adapt(module, embed=lambda own, images: own.embed(images), **said)


class _Trunk(NamedTuple):
    """What a trial finds out."""

    width: int
    parameters: int
    classes: int


class _Trial:
    """Runs images of noise through a model, and says which part does not do what it should."""

    def __init__(self, name: str, model: OwnViT, original: nn.Module) -> None:
        self.name, self.model = name, model
        self.original, self.originals = original, set(original.modules()) - set(model.modules())
        self.part = "embed"
        self.notes: list[str] = []

    def run(self) -> _Trunk:
        """Run it twice: the second time to see whether it repeats itself, and by gradients which parameters it uses."""
        parameters = list(self.model.parameters())
        if not parameters or not self.model.dtype.is_floating_point:
            raise UsageError(f"{self.name!r} has no floating-point parameters")
        device = self.model.device
        count = 3 if self.model.tokens.count == 2 else 2  # so that images cannot be taken for tokens
        noise = torch.randn(count, 3, *self.model.preprocessing.image_size, generator=torch.Generator().manual_seed(0))
        images = noise.to(device, self.model.dtype)
        watch = register_module_forward_pre_hook(self._refuse_module)
        theirs, ours = (chain(one.parameters(), one.buffers()) for one in (self.original, self.model))
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                with torch.no_grad():
                    with Watched(theirs, ours, self._refuse_original):
                        first = self._trunk(images)
                        classes = self._classes(first)
                    self._check_apart(images)
                with torch.enable_grad():
                    for parameter in parameters:
                        parameter.requires_grad_(parameter.is_floating_point())
                    second = self._trunk(images)
        finally:
            watch.remove()
            self.model.requires_grad_(False)
        if not torch.allclose(first, second.detach(), rtol=1e-2, atol=1e-3, equal_nan=True):
            self.notes.append("two passes over the same images differ: the module is random in eval mode")
        trunk = {*computed_from(second)[0], *self.model.blocks.parameters(), *self.model.norm.parameters()}
        return _Trunk(first.shape[-1], sum(one.numel() for one in trunk), classes)

    def _trunk(self, images: Tensor) -> Tensor:
        """The normed tokens, every step of the way checked."""
        model, layout = self.model, self.model.tokens
        state = self._kept("embed", model.embed, images.clone(), partial(model.in_place.add, "embed"))
        if state.ndim != 3 or state.shape[:2] != (len(images), layout.count):
            said = ", ".join(f"{size} {group}" for group, size in layout.sizes().items())
            raise UsageError(
                f"embed of {self.name!r} makes {tuple(state.shape)} of {len(images)} images; tokens, image_size and "
                f"patch say ({len(images)}, {layout.count}, D): {said}"
            )
        for number, block in enumerate(model.blocks, 1):
            part, shape = f"block {number}", state.shape
            output = self._kept(part, block, state, partial(setattr, block, "in_place", True))
            state = self._same_shape(part, output, shape)
        shape = state.shape
        normed = self._kept("norm", model.norm, state, partial(model.norm.register_forward_pre_hook, copy_input))
        return self._same_shape("norm", normed, shape)

    def _kept(self, part: str, call: Callable[[Tensor], Any], value: Tensor, copy: Callable[[], object]) -> Tensor:
        """The tensor that a part makes; `copy` has one that changes its input in place get a copy from now on."""
        before, version = value.clone(), value._version
        output = self._call(part, call, value)
        if value._version == version and torch.equal(before.nan_to_num(), value.nan_to_num()):
            return output
        copy()
        return self._call(part, call, before)

    def _same_shape(self, part: str, output: Tensor, shape: torch.Size) -> Tensor:
        if output.shape != shape:
            raise UsageError(
                f"{part} of {self.name!r} makes {tuple(output.shape)} of a state of {tuple(shape)}; the shape "
                "has to stay the same"
            )
        return output

    def _classes(self, normed: Tensor) -> int:
        """How many classes the head has."""
        if self.model._head is None:
            return 0
        scores = self._kept("head", self.model.logits, normed.clone(), partial(self.model.in_place.add, "head"))
        if scores.ndim != 2 or len(scores) != len(normed):
            raise UsageError(
                f"head of {self.name!r} makes {tuple(scores.shape)} of {len(normed)} images, not (B, classes)"
            )
        return scores.shape[1]

    def _check_apart(self, images: Tensor) -> None:
        """Refuse a part that makes something else of the first image when copies of it stand for the others."""
        model, state = self.model, images
        steps: list[tuple[str, Callable[[Tensor], Any]]] = [("embed", model.embed)]
        steps += [(f"block {number}", block) for number, block in enumerate(model.blocks, 1)]
        steps += [("norm", model.norm), *([("head", model.logits)] if model._head is not None else [])]
        for part, call in steps:
            alike = state.clone()
            alike[1:] = state[:1]
            made, other, again = (self._call(part, call, one) for one in (state, alike, state))
            size, apart, anyway = (one[0].float().norm() for one in (made, made - other, made - again))
            if apart > ROUNDINGS * torch.finfo(made.dtype).eps * size + TIMES * anyway:
                raise UsageError(
                    f"{part} of {self.name!r} mixes the images of a batch: what it makes of one changes with the "
                    "others (a layer of torch.nn without batch_first=True?)"
                )
            state = made

    def _call(self, part: str, call: Callable[[Tensor], Any], value: Tensor) -> Tensor:
        """The tensor that a part makes."""
        self.part = part
        try:
            output = call(value)
        except UsageError:
            raise
        except Exception as error:  # somebody else's code can fail in any way
            raise UsageError(
                f"{part} of {self.name!r} fails on a tensor of shape {tuple(value.shape)} ({type(error).__name__}: "
                f"{first_line(error)})"
            ) from error
        if not isinstance(output, Tensor) or not output.is_floating_point():
            raise UsageError(f"what {part} of {self.name!r} gives is {kind(output)} instead of a tensor of floats")
        return output

    def _refuse_module(self, module: nn.Module, _: Any) -> None:
        if module in self.originals:
            self._refuse_original()

    def _refuse_original(self) -> None:
        raise UsageError(
            f"{self.part} of {self.name!r} uses your module itself, and brdyn works on a copy; take it and its "
            "parameters from the first argument: embed=lambda module, images: ..."
        )


def _layout(name: str, tokens: Mapping[str, int] | TokenLayout, size: Size, patch: int) -> TokenLayout:
    """Where the tokens are."""
    if isinstance(tokens, TokenLayout):
        if tokens.sizes().get(tokens.spatial, 0) != prod(tokens.grid):
            raise UsageError(
                f"the token layout of {name!r} has not as many {tokens.spatial} as its grid, "
                f"{tokens.grid[0]}x{tokens.grid[1]} {tokens.spatial}: {tokens.sizes()}; give the grid that they tile"
            )
        return tokens
    if not isinstance(tokens, Mapping):
        raise UsageError(f"the tokens of {name!r} are {kind(tokens)}; give for instance tokens={{'cls': 1}}")
    for group, count in tokens.items():
        check_group(group)
        if group == "patches":
            raise UsageError(
                f"tokens of {name!r} names the patches among what comes before them; leave them out, or say another "
                "order by a brdyn.models.TokenLayout"
            )
        if whole(count) is None or count < 0:
            raise UsageError(f"tokens={{{group!r}: {count!r}}} of {name!r} is not a number of tokens")
    counts = {group: int(count) for group, count in tokens.items()}
    return TokenLayout.with_prefix(check_image_size(name, size, (patch, patch)), counts)


def _preprocessing(
    name: str, size: Size, mean: Sequence[float], std: Sequence[float], others: Mapping[str, Any]
) -> Preprocessing:
    """The preprocessing, tried."""
    try:
        three = len(mean) == len(std) == 3 and all(map(isfinite, mean)) and min(std) > 0
        found = Preprocessing(size, mean=tuple(map(float, mean)), std=tuple(map(float, std)), **others)
        if three:
            found.transform(Image.new("RGB", (2 * size[1], 2 * size[0])))
    except Exception as error:  # of torchvision or timm, for a filter or mode they do not know
        raise UsageError(f"the preprocessing of {name!r} makes no sense ({first_line(error)})") from error
    if not three:
        raise UsageError(f"mean={mean} and std={std} of {name!r} are not three numbers each, those of std above 0")
    return found


def _check_names(name: str, class_names: Sequence[str], classes: int) -> None:
    """Refuse names of classes that are not one for each class of the head."""
    if len(class_names) not in (0, classes):
        has = f"a head of {counted(classes, 'class')}" if classes else "no head"
        raise UsageError(
            f"{counted(len(class_names), 'class name')} for {name!r}, which has {has}; give one name for each class of "
            "its head, or no class_names"
        )


def _copy(name: str, parts: Any) -> Any:
    """A copy of a module and of its parts that belong together as the parts do."""
    try:
        return deepcopy(parts)
    except Exception as error:  # of anything that somebody keeps in a module
        raise UsageError(
            f"{name!r} cannot be copied ({type(error).__name__}: {first_line(error)}); brdyn works on a copy"
        ) from error


def _heads(block: nn.Module, width: int) -> tuple[int, bool]:
    """Attention heads as a block says, or a guess, and whether it is one."""
    for part in block.modules():
        for attribute in HEAD_ATTRIBUTES:
            found = getattr(part, attribute, None)
            if isinstance(found, int) and found > 0 and width % found == 0:
                return found, False
    return (width // HEAD_WIDTH if width % HEAD_WIDTH == 0 else 1), True


def kind(value: Any) -> str:
    """What something is, to come after "is"."""
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"
