"""timm's architectures as trunks: untrained, or built as a file of weights has them, at one image size.

Nothing of a file is adapted on the way in: the architecture is built with the file's own position grid, classes, norms
and biases, takes its tensors as they are, and only then are positions resampled, once. What cannot be built is
refused; what is left out is named in the notes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import isqrt, prod
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import nn

from brdyn.blank import NoValues
from brdyn.errors import BrdynError, UsageError
from brdyn.models import checkpoints, google, layouts, positions, tracing, weights
from brdyn.models.base import Size, check_image_size, check_memory
from brdyn.models.checkpoints import StateDict
from brdyn.models.loaded import MOCO_PARTS, Loaded
from brdyn.models.request import ModelRequest
from brdyn.words import first_line

TOKENS = ("cls_token", "dist_token", "reg_token")
TABLE = "relative_position_bias_table"
MOCO_HEADS = 12  # of MoCo v3's ViT-S, whose width of 384 has six heads everywhere else
MOCO_WIDTH = 384


def create(name: str, **options: Any) -> Any:
    """The architecture with buffers but no memory for parameters, to be filled by `load_state_dict(assign=True)`."""
    from accelerate import init_empty_weights

    try:
        with NoValues(), init_empty_weights(include_buffers=False):
            return timm.create_model(name, pretrained=False, **options)
    except NotImplementedError:  # an architecture that computes buffers from parameters needs them
        return timm.create_model(name, pretrained=False, **options)


def untrained(request: ModelRequest, name: str, **options: Any) -> Any:
    """The architecture untrained, with the request's seed, or on the meta device where it is only described."""
    with request.construction():
        return timm.create_model(name, pretrained=False, **options)


def from_file(
    request: ModelRequest,
    name: str,
    path: Path,
    *,
    size: Size | None = None,
    rule: positions.PositionRule | None = None,
    headless: bool = False,
    **options: Any,
) -> Loaded:
    """Build an architecture with the weights in a file.

    Parameters
    ----------
    request : ModelRequest
    name : str
        timm's name of the architecture.
    path : Path
    size : (int, int), optional
        Height and width in pixels; the architecture's own by default.
    rule : PositionRule, optional
        How to resample positions; timm's by default.
    headless : bool
        Leave a classification head out.
    **options
        Of :func:`timm.create_model`.

    Raises
    ------
    UsageError
        If the file holds several sets of weights and the one to take is unclear, or its positions are of no square
        and no size was given.
    BrdynError
        If it cannot be read or does not fit.
    """
    plain = create(name, **options)
    native = tuple(plain.patch_embed.img_size)
    if size not in (None, native):  # some published models cut the border that does not fill a patch
        check_image_size(request.name, size, tuple(plain.patch_embed.patch_size))
    if checkpoints.kind_of(path) == checkpoints.LIKE_NUMPY and not headless:
        loaded = google.from_npz(request, name, path, plain, options)
    else:
        loaded = _from_tensors(request, name, path, plain, options, headless)
    own, notes = tuple(loaded.backbone.patch_embed.img_size), list(loaded.notes)
    size = size or native
    if size != own and _has_table(loaded.backbone):
        notes.append(
            f"positions are of {_by(loaded.backbone.patch_embed.grid_size)} patches, as for images of {_by(own)} "
            f"pixels, and were resampled for {_by(size)}"
        )
    set_image_size(loaded.backbone, size, rule)
    return replace(loaded, notes=tuple(notes))


def resize(name: str, backbone: Any, size: Size | None, rule: positions.PositionRule | None = None) -> None:
    """Set the image size asked for; None, and the architecture's own even where it cuts a border, change nothing.

    Raises
    ------
    UsageError
        If the size does not fit the patches or memory.
    """
    native = tuple(backbone.patch_embed.img_size)
    if size not in (None, native):
        check_image_size(name, size, tuple(backbone.patch_embed.patch_size))
        set_image_size(backbone, size, rule)


def set_image_size(backbone: Any, size: Size, rule: positions.PositionRule | None) -> None:
    """Resample positions for another image size, by timm's rule or by the one given."""
    if size == tuple(backbone.patch_embed.img_size):
        return
    patch = backbone.patch_embed.patch_size
    grid = (size[0] // patch[0], size[1] // patch[1])
    check_memory(size, grid, backbone.embed_dim, len(backbone.blocks) + 1)
    if rule is None:
        if not hasattr(backbone, "set_input_size"):
            native = "x".join(map(str, backbone.patch_embed.img_size))
            raise UsageError(
                f"timm {timm.__version__} cannot change the input size of {type(backbone).__name__} models; "
                f"use their own ({native}) or upgrade timm"
            )
        backbone.set_input_size(img_size=size)
        return
    prefix = 0 if backbone.no_embed_class else backbone.num_prefix_tokens
    table = backbone.pos_embed.detach()
    backbone.patch_embed.set_input_size(img_size=size)
    resampled = positions.resample_with_prefix(table, grid, rule, prefix)
    backbone.pos_embed = nn.Parameter(resampled)


def _from_tensors(
    request: ModelRequest, name: str, path: Path, plain: Any, options: Mapping[str, Any], headless: bool
) -> Loaded:
    tensors = checkpoints.read(path, request.allow_pickle)
    chosen, sets = layouts.choose(tensors, path, request.weights_key, plain.embed_dim)
    prefix = chosen.prefix
    leaves = {
        key.removeprefix(prefix): tensor.detach().requires_grad_(tensor.is_floating_point())
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }
    with torch.enable_grad():
        state = layouts.to_timm(leaves, chosen.layout, plain)
        if headless:
            state = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
        own, notes = _as_the_file_has_it(state, plain, request, path)
        if MOCO_PARTS & set(chosen.parts) and plain.embed_dim == MOCO_WIDTH:
            own["num_heads"] = MOCO_HEADS
            notes.append(f"built with MoCo v3's {MOCO_HEADS} attention heads")
        backbone = create(name, **{**options, **own}) if own else plain
        state = _by_timms_filter(state, backbone, request.name, path)
    used = tracing.check_untouched(leaves, state, path)
    unused = [key for key in leaves if key not in used and not tracing.is_derived(key, leaves[key], backbone, path)]
    state = {key: tensor.detach() for key, tensor in state.items()}
    weights.check_fit(request.name, backbone.state_dict(), state, str(path))
    weights.check_numbers(state, str(path))
    notes += tracing.said(tensors, sets, chosen, unused, state, plain, path)
    state = {key: tensor.to(torch.float32, copy=True) for key, tensor in state.items()}
    backbone.load_state_dict(state, assign=True)
    return Loaded(backbone, weights.digest(state), tuple(notes), chosen, tuple(unused), own)


def _as_the_file_has_it(
    state: StateDict, plain: Any, request: ModelRequest, path: Path
) -> tuple[dict[str, Any], list[str]]:
    """Options of the architecture, and notes, by which it has the parts that the file has."""
    classes = len(state["head.weight"]) if "head.weight" in state else 0
    own: dict[str, Any] = {} if classes == plain.num_classes else {"num_classes": classes}
    notes: list[str] = []
    pooled = any(key.startswith("attn_pool.") for key in state)
    if getattr(plain, "attn_pool", None) is not None and not pooled and not classes:
        own["global_pool"] = ""
        notes.append("built without attention pooling, which the file lacks")
    after, before = "fc_norm.weight" in state, "norm.weight" in state
    if after and not before and not _has(plain, "fc_norm"):
        own |= {"global_pool": "avg"} if isinstance(plain, TimmViT | Beit) else {}
        own |= {"use_fc_norm": True} if isinstance(plain, Eva) else {}
        own |= {} if isinstance(plain, TimmViT | Beit | Eva) else {"fc_norm": True}
        notes.append("the final norm follows the pooling of patches (fc_norm): single tokens are not normed")
    elif before and not after and _has(plain, "fc_norm"):
        own |= {"use_fc_norm": False} if isinstance(plain, Eva) else {}
        own |= {"global_pool": "token"} if isinstance(plain, Beit | Eva) else {"fc_norm": False}
        notes.append("built with the final norm before the pooling, where the file has it")
    if isinstance(plain, Eva):
        first = plain.blocks[0].attn
        biased = "blocks.0.attn.q_bias" in state
        if getattr(first, "qkv", None) is not None and biased != (getattr(first, "q_bias", None) is not None):
            own["qkv_bias"] = biased
            notes.append(f"built {'with' if biased else 'without'} biases of queries and values, as the file is")
    grid = _own_grid(state, plain, request, path, own, notes)
    if grid is not None and grid != tuple(plain.patch_embed.grid_size):
        patch = plain.patch_embed.patch_size
        own["img_size"] = (grid[0] * patch[0], grid[1] * patch[1])
    return own, notes


def _has(backbone: Any, norm: str) -> bool:
    return not isinstance(getattr(backbone, norm, None), nn.Identity | None)


def _own_grid(
    state: StateDict, plain: Any, request: ModelRequest, path: Path, own: dict[str, Any], notes: list[str]
) -> Size | None:
    """Rows and columns of patches that the positions in a file are of; None where it has no table."""
    native, patch = tuple(plain.patch_embed.grid_size), plain.patch_embed.patch_size
    asked = (
        None
        if request.image_size is None
        else tuple(side // step for side, step in zip(request.image_size, patch, strict=True))
    )
    table = state.get("pos_embed")
    if getattr(plain, "pos_embed", None) is not None and table is not None and table.ndim == 3:
        without = bool(getattr(plain, "no_embed_class", False))
        prefix = 0 if without else plain.num_prefix_tokens
        other = 1 if without else 0
        count = table.shape[1]
        for extra in (prefix, other):
            grid = _grid_of(count - extra, prod, native, asked)
            if grid is not None:
                break
        else:
            _check_tokens(state, plain, request.name, path)
            raise _not_square(path, count - prefix)
        if extra != prefix and without and "cls_token" in state:
            state["cls_token"], state["pos_embed"] = state["cls_token"] + table[:, :1], table[:, 1:]
            notes.append("the position of the cls token was added to it, as the architecture has none")
        elif extra != prefix and isinstance(plain, TimmViT | Eva):
            own["no_embed_class"] = True
            notes.append("built with positions of patches only, as the file has them")
        if asked not in (None, grid) and prod(asked or ()) == prod(grid):
            notes.append(f"its {prod(grid)} positions are taken to be of {_by(grid)} patches")
        return grid
    relative = next((tensor for key, tensor in state.items() if key.endswith(TABLE)), None)
    if relative is None:
        return None
    extra = 3 if plain.num_prefix_tokens else 0  # from the cls token, to it, and to itself
    grid = _grid_of(len(relative) - extra, _offsets, native, asked)
    if grid is None:
        raise _not_square(path, len(relative) - extra)
    if asked not in (None, grid) and _offsets(asked) == _offsets(grid):
        notes.append(f"its {len(relative)} relative positions are taken to be of {_by(grid)} patches")
    elif asked == grid and grid not in (native, grid[::-1]):
        notes.append(f"its relative positions are taken to be of {_by(grid)} patches, not {_by(grid[::-1])}")
    return grid


def _offsets(grid: Any) -> int:
    """How many offsets there are between two patches of a grid."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1)


def _grid_of(count: int, entries: Callable[[Any], int], native: Any, asked: Any) -> Any:
    """The architecture's own grid, a square, or the one asked for: the first whose table has this many entries."""
    side = isqrt(max(count, 0))
    squares: Iterable[Any] = ((side, side), ((side + 1) // 2, (side + 1) // 2))
    candidates = [grid for grid in (native, *squares, asked) if grid is not None]
    return next((grid for grid in candidates if entries(grid) == count and min(grid) > 0), None)


def _check_tokens(state: StateDict, plain: nn.Module, name: str, path: Path) -> None:
    """A table of odd length may be of other tokens than the architecture has: say so."""
    expected = {key: tensor for key, tensor in plain.state_dict().items() if key in TOKENS}
    weights.check_fit(name, expected, {key: tensor for key, tensor in state.items() if key in TOKENS}, str(path))


def _not_square(path: Path, count: int) -> UsageError:
    return UsageError(
        f"the {count} positions in {str(path)!r} are of no square of patches; give the image size they were "
        "trained at as `image_size` HEIGHTxWIDTH"
    )


def _by_timms_filter(state: StateDict, backbone: nn.Module, name: str, path: Path) -> StateDict:
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    try:
        return dict(convert(state, backbone)) if convert else state
    except Exception as error:  # a foreign file can break timm's conversion anywhere
        raise BrdynError(
            f"the weights in {path} do not fit {name!r} ({first_line(error)}); check `model` against the file"
        ) from error


def _has_table(backbone: Any) -> bool:
    return getattr(backbone, "pos_embed", None) is not None or any(
        key.endswith(TABLE) for key, _ in backbone.named_parameters()
    )


def _by(size: Any) -> str:
    return f"{size[0]}x{size[1]}"
