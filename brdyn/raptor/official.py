"""Checkpoints of the papers' own training code (KempnerInstitute/raptor), read as Raptors.

They are modules that were pickled whole, `final_raptor3_…_seed_1101_step_….pt`: blocks 0 to k - 1, and the last layer
of each phase but the last (`thresholds`). A file of the tensors alone (a state dict) has the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from brdyn.arguments import checked
from brdyn.checked_json import expanded
from brdyn.errors import BrdynError, UsageError
from brdyn.models import VisionTransformer, checkpoints
from brdyn.models.module_pickles import read_module
from brdyn.models.weights import check_numbers, digest
from brdyn.phases.given import contiguous
from brdyn.raptor.block import BlockConfig
from brdyn.raptor.model import Raptor

BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
NORM_EPS = 1e-5  # torch's own, which they leave
RENAMED = {
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj.weight": "attn.proj.weight",
    "attn.out_proj.bias": "attn.proj.bias",
    "ls1.gamma": "scale1.gamma",
    "ls2.gamma": "scale2.gamma",
    "mlp.2.weight": "mlp.fc2.weight",
    "mlp.2.bias": "mlp.fc2.bias",
    "t_proj.0.weight": "depth.hidden.weight",
    "t_proj.0.bias": "depth.hidden.bias",
    "t_proj.2.weight": "depth.factors.weight",
    "t_proj.2.bias": "depth.factors.bias",
    **{f"{norm}.{part}": f"{norm}.{part}" for norm in ("norm1", "norm2") for part in ("weight", "bias")},
}
FIRST_MAP = ("mlp.0.weight", "mlp.0.bias")  # of a SwiGLU: gate, then value, in one


@checked
def read_official(path: str | Path, teacher: VisionTransformer, boundaries: Sequence[int] | None = None) -> Raptor:
    """A checkpoint of the papers' code as a Raptor of its teacher. Nothing in the file is run.

    Parameters
    ----------
    path : path
    teacher : VisionTransformer
        The network that it was fitted to, such as `dinov2_vitb14_reg`; the file does not say which.
    boundaries : sequence of int, optional
        Last layer of each phase but the last, where the file holds tensors alone.

    Raises
    ------
    UsageError
        If boundaries are needed, or not those of the file, or the blocks are not of the teacher's width.
    BrdynError
        If the file is no such checkpoint, or its weights are quantised or not all finite.

    Examples
    --------
    >>> from brdyn.raptor import read_official
    >>> read_official("no.pt", model)
    Traceback (most recent call last):
    ...
    brdyn.errors.UsageError: no weights at 'no.pt', which is not there; give `weights` a file or a transformers folder
    """
    file = expanded(path)
    blocks, ends = read_blocks(file, boundaries)
    width = len(blocks[0]["norm1.weight"]) if "norm1.weight" in blocks[0] else 0
    if width != teacher.info.width:
        raise UsageError(
            f"{str(file)!r} has blocks of width {width}, and {teacher.info.name!r} has width {teacher.info.width}; "
            "give the teacher that it was fitted to"
        )
    config = _config(blocks[0], teacher, file)
    raptor = Raptor(teacher, contiguous(ends, teacher.depth), config)
    try:
        for block, found in zip(raptor.shared, blocks, strict=True):
            block.load_state_dict(_renamed(found, config))
    except (RuntimeError, KeyError) as error:
        raise BrdynError(
            f"{str(file)!r} has other tensors than a block of the papers' code ({str(error).splitlines()[-1].strip()})"
        ) from error
    raptor.info = replace(raptor.info, weights=str(file), digest=digest(raptor.shared.state_dict()))
    return raptor.settled()


def read_blocks(file: Path, boundaries: Sequence[int] | None = None) -> tuple[list[dict[str, Tensor]], Sequence[int]]:
    """The tensors of each block, and the last layer of each phase but the last.

    Raises
    ------
    UsageError
        If boundaries are needed, or not those of the file.
    BrdynError
        If the file is no such checkpoint, or its weights are quantised or not all finite.
    """
    tensors, inside = _tensors_and_ends(file)
    blocks = _by_block(tensors, file)
    return blocks, _agreed(inside, boundaries, len(blocks), file)


def _tensors_and_ends(file: Path) -> tuple[Mapping[str, Tensor], list[int] | None]:
    """The tensors, and the boundaries where the file says them."""
    try:
        return checkpoints.read(file), None
    except checkpoints.HoldsObjectsError:
        module = read_module(file)
    ends = module.__dict__.get("thresholds")
    whole = isinstance(ends, list | tuple) and all(type(end) is int for end in ends)
    return module.named_tensors(), list(ends) if whole and ends is not None else None


def _by_block(tensors: Mapping[str, Tensor], file: Path) -> list[dict[str, Tensor]]:
    check_numbers(tensors, str(file))
    found: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = BLOCK.fullmatch(name)
        if match is None:
            raise BrdynError(
                f"{str(file)!r} holds {name!r}, which no Raptor of the papers' code has; a single block is no Raptor"
            )
        found.setdefault(int(match[1]), {})[match[2]] = tensor.detach().float()
    if sorted(found) != list(range(len(found))):
        raise BrdynError(f"{str(file)!r} has blocks {sorted(found)}, of which some are missing")
    return [found[number] for number in range(len(found))]


def _agreed(inside: list[int] | None, given: Sequence[int] | None, blocks: int, file: Path) -> Sequence[int]:
    """The boundaries that the file has, or was given."""
    if inside is not None and given is not None and list(given) != inside:
        raise UsageError(f"{str(file)!r} says itself that its phases end at {inside}; drop `boundaries`")
    ends = inside if inside is not None else given
    if ends is None:
        raise UsageError(
            f"{str(file)!r} holds tensors alone and does not say where its {blocks} phases end; give `boundaries`"
        )
    if len(ends) != blocks - 1:
        raise UsageError(f"{str(file)!r} has {blocks} blocks, which need {blocks - 1} boundaries, not {len(ends)}")
    return ends


def _config(block: Mapping[str, Tensor], teacher: VisionTransformer, file: Path) -> BlockConfig:
    width = teacher.info.width
    if not {"mlp.0.weight", "mlp.2.weight"} <= set(block):
        raise BrdynError(f"the blocks in {str(file)!r} have no MLP as those of the papers' code")
    hidden, rows = block["mlp.2.weight"].shape[1], len(block["mlp.0.weight"])
    return BlockConfig(
        width=width,
        heads=teacher.info.heads,
        mlp="swiglu" if rows == 2 * hidden else "gelu",
        mlp_ratio=hidden / width,
        norm_eps=NORM_EPS,
        depth_scaling="index" if "t_proj.0.weight" in block else "none",
    )


def _renamed(block: Mapping[str, Tensor], config: BlockConfig) -> dict[str, Tensor]:
    """The tensors of a block under the names of :class:`brdyn.raptor.RaptorBlock`."""
    found = {RENAMED[name]: tensor for name, tensor in block.items() if name not in FIRST_MAP}
    for name in FIRST_MAP:
        part = name.rpartition(".")[2]
        if config.mlp == "swiglu":
            found[f"mlp.fc1_g.{part}"], found[f"mlp.fc1_x.{part}"] = block[name].chunk(2)
        else:
            found[f"mlp.fc1.{part}"] = block[name]
    for scale in ("scale1.gamma", "scale2.gamma"):  # left out where a block has none
        found.setdefault(scale, torch.ones(config.width))
    return found
