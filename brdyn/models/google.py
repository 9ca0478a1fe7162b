"""Google's own ViT files (`.npz` of Vision Transformer and Big Vision), read by timm into its architectures."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from math import isqrt, prod
from pathlib import Path
from typing import Any

import numpy as np
import timm

from brdyn.errors import BrdynError
from brdyn.models import layouts, weights
from brdyn.models.loaded import Loaded
from brdyn.models.request import ModelRequest
from brdyn.words import first_line

PREFIXES = ("", "opt/target/", "params/", "params/img/")
BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/")
STACKED = "Transformer/encoderblock/"
TAKEN = ("embedding/", "cls", "pos_embedding", "Transformer/")
Shapes = dict[str, tuple[int, ...]]


def from_npz(request: ModelRequest, name: str, path: Path, plain: Any, options: Mapping[str, Any]) -> Loaded:
    """Build one of timm's ViTs with Google's weights.

    timm copies arrays into a model and resamples those of another size, so the sizes are compared before.

    Raises
    ------
    UsageError
        If one of several sets of weights is asked for.
    BrdynError
        If the file is no ViT of Google's, or not of this architecture.
    """
    layouts.check_no_key(request.weights_key, path)
    shapes, prefix = _shapes(path)
    if not hasattr(plain, "load_pretrained"):
        raise BrdynError(f"{str(path)!r} is a NumPy .npz archive, and {request.name!r} is no ViT of Google's kind")
    headed = "head/bias" in shapes and not any(key.startswith("pre_logits") for key in shapes)
    own: dict[str, Any] = {"num_classes": shapes["head/bias"][-1] if headed else 0}
    grid = _grid(shapes, plain)
    if grid is not None and grid != tuple(plain.patch_embed.grid_size):
        own["img_size"] = tuple(side * step for side, step in zip(grid, plain.patch_embed.patch_size, strict=True))
    backbone = timm.create_model(name, pretrained=False, **{**options, **own})
    _check(request.name, shapes, backbone, path)
    try:
        backbone.load_pretrained(str(path), prefix=prefix)
    except Exception as error:  # timm's reader meets what a foreign archive lacks anywhere
        raise BrdynError(
            f"the weights in {path} do not fit {request.name!r} ({first_line(error)}); check `model` against the file"
        ) from error
    state = backbone.state_dict()
    weights.check_numbers(state, str(path))
    taken = TAKEN + (("head/",) if headed else ()) + (("MAPHead_0/",) if backbone.attn_pool is not None else ())
    unused = [key for key in shapes if not key.startswith(taken)]
    notes = [f"not used from {path.name}: {layouts.grouped(key.replace('/', '.') for key in unused)}"] if unused else []
    return Loaded(
        backbone,
        weights.digest(state),
        tuple(notes),
        layouts.WeightSet(prefix, layouts.OTHER, backbone.embed_dim),
        built=own,
    )


def _shapes(path: Path) -> tuple[Shapes, str]:
    """Names and shapes of the arrays below the prefix that holds the patch embedding, and that prefix."""
    shapes: Shapes = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    version = np.lib.format.read_magic(file)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shapes[member.removesuffix(".npy")] = read(file)[0]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BrdynError(f"cannot read {str(path)!r} as a NumPy archive ({first_line(error)})") from error
    prefix = next((one for one in reversed(PREFIXES) if f"{one}embedding/kernel" in shapes), None)
    if prefix is None:
        raise BrdynError(f"{str(path)!r} is a NumPy archive of no ViT of Google's: it has no embedding/kernel")
    return {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}, prefix


def _positions(shapes: Shapes) -> tuple[int, ...]:
    return shapes.get("pos_embedding") or shapes.get("Transformer/posembed_input/pos_embedding") or ()


def _grid(shapes: Shapes, plain: Any) -> tuple[int, int] | None:
    """The square that the positions are of; None where there is none, which :func:`_check` then names."""
    table = _positions(shapes)
    if len(table) != 3 or getattr(plain, "pos_embed", None) is None:
        return None
    count = table[1] - (0 if plain.no_embed_class else plain.num_prefix_tokens)
    if count == prod(plain.patch_embed.grid_size):
        return None
    side = isqrt(max(count, 0))
    return (side, side) if side * side == count and side else None


def _check(name: str, shapes: Shapes, backbone: Any, path: Path) -> None:
    """Compare what timm would adapt, take a part of, or not notice."""
    width, (height, breadth) = backbone.embed_dim, backbone.patch_embed.patch_size
    attention = next(module for module in backbone.blocks[0].modules() if hasattr(module, "num_heads"))
    first = next((key for key in shapes if key.endswith("query/kernel")), "")
    numbered = {int(found[1]) for key in shapes if (found := BLOCK.match(key))}
    stacked = first.startswith(STACKED)
    depth = shapes[first][0] if stacked else len(numbered)
    heads = shapes[first][2 if stacked else 1] if first else 0
    cls = () if backbone.cls_token is None else tuple(backbone.cls_token.shape)
    expected = {
        "embedding/kernel": ((height, breadth, 3, width), shapes["embedding/kernel"]),
        "cls": (cls, shapes.get("cls", ())),
        "positions": (tuple(backbone.pos_embed.shape), _positions(shapes)),
        "blocks": (len(backbone.blocks), depth),
        "attention heads": (attention.num_heads, heads),
    }
    wrong = [f"{what} {has} instead of {wants}" for what, (wants, has) in expected.items() if wants != has]
    if wrong:
        raise BrdynError(
            f"the weights in {path} do not fit {name!r}: {'; '.join(wrong)}; check `model` against the file"
        )
