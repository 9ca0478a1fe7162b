"""Which tensors of a file are the ViT asked for, and what they are called in timm.

A file is taken as one flat mapping of dotted names. A ViT in it is found by its patch embedding; what stands before
that name is its prefix, whatever wrappers it is made of (`state_dict.module.base_encoder.`). A file with several is
decided by one rule, :func:`choose`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn

from brdyn.errors import BrdynError, UsageError
from brdyn.models.checkpoints import StateDict

TIMM, TORCHVISION, CLIP, TRANSFORMERS, OTHER = "timm", "torchvision", "clip", "transformers", "other"
PATCH_EMBEDDINGS: tuple[tuple[str, str, str], ...] = (  # name, what of it follows the prefix, layout
    ("patch_embed.proj.weight", "patch_embed.proj.weight", TIMM),
    ("conv_proj.weight", "conv_proj.weight", TORCHVISION),
    ("conv1.weight", "conv1.weight", CLIP),
    ("embeddings.patch_embeddings.projection.weight", "", TRANSFORMERS),
    ("embeddings.patch_embedding.weight", "", TRANSFORMERS),
    ("preprocessor.patchifier.proj.weight", "preprocessor.patchifier.proj.weight", OTHER),  # AIMv2
    (
        "radio_model.model.patch_generator.embedder.weight",
        "radio_model.model.patch_generator.embedder.weight",
        OTHER,
    ),
    ("beit3.vision_embed.proj.weight", "beit3.vision_embed.proj.weight", OTHER),
    ("patch_embed.projection.weight", "patch_embed.projection.weight", OTHER),  # Sapiens2
)
PREFERRED = ("teacher", "model_ema", "state_dict_ema", "ema", "target_encoder", "state_dict", "model", "module",
             "base_encoder")  # fmt: skip
LAST = ("student", "momentum_encoder")
WHOLE = "."  # how the tensors without a prefix are called
SHOWN = 4
OPENAI_CLIP = ("input_resolution", "context_length", "vocab_size")

TRAINING_ONLY = re.compile(
    r"(mask_token|masked_embed)$|(decoder|predictor|lm_head|projectors|local_cls_norm)[._]"
    r"|head\.(?!weight$|bias$)"  # the projector of DINO, iBOT, MoCo v3
)
TRUNK = re.compile(r"(cls_token|pos_embed)$|blocks\.\d+\.")
BETWEEN_POOL_AND_HEAD = re.compile(r"(pre_logits|heads\.pre_logits)\b")
TO_TIMM: dict[str, tuple[tuple[str, str], ...]] = {
    TIMM: (
        (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # training checkpoints of DINOv2 keep blocks in chunks
        (r"^register_tokens$", "reg_token"),
    ),
    TORCHVISION: (
        (r"^class_token$", "cls_token"),
        (r"^conv_proj\.", "patch_embed.proj."),
        (r"^encoder\.pos_embedding$", "pos_embed"),
        (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
        (r"\.self_attention\.out_proj\.", ".attn.proj."),
        (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
        (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
        (r"^encoder\.ln\.", "norm."),
        (r"^heads\.head\.", "head."),
    ),
    CLIP: (
        (r"^class_embedding$", "cls_token"),
        (r"^positional_embedding$", "pos_embed"),
        (r"^conv1\.", "patch_embed.proj."),
        (r"^ln_pre\.", "norm_pre."),
        (r"^ln_post\.", "norm."),
        (r"^transformer\.resblocks\.", "blocks."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.attn\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
        (r"\.attn\.out_proj\.", ".attn.proj."),
        (r"\.mlp\.c_fc\.", ".mlp.fc1."),
        (r"\.mlp\.c_proj\.", ".mlp.fc2."),
        (r"^proj$", "head.weight"),
    ),
}
IN_PLAIN_VITS = (  # timm's ViT and its EVA give these names differently
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"\.gamma_([12])$", r".ls\1.gamma"),  # DeiT-3
)


@dataclass(frozen=True)
class WeightSet:
    """One ViT in a file.

    Attributes
    ----------
    prefix : str
        What stands before its names.
    layout : str
        How its tensors are called.
    width : int
        Output channels of its patch embedding.
    label : str
        What tells it from the others of the file; empty where there are none.
    """

    prefix: str
    layout: str
    width: int
    label: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """The names its prefix is made of."""
        return tuple(part for part in self.prefix.split(".") if part)

    def is_called(self, key: str) -> bool:
        """Whether somebody may mean this one by `key`: its label, its prefix, or a name in that."""
        return key in {self.label, ".".join(self.parts) or WHOLE, *self.parts}

    @property
    def rank(self) -> int:
        """Its place in the rule of :func:`choose`."""
        return min((_rank(part) for part in self.label.split(".")), default=len(PREFERRED))


def _rank(name: str) -> int:
    if name in PREFERRED:
        return PREFERRED.index(name)
    if "ema" in name.split("_"):
        return PREFERRED.index("ema")
    return len(PREFERRED) + 1 + LAST.index(name) if name in LAST else len(PREFERRED)


def weight_sets(tensors: StateDict) -> list[WeightSet]:
    """The ViTs in a file, in its order, with labels where there are several."""
    found = [
        WeightSet(name.removesuffix(own or ending), layout, len(tensor))
        for name, tensor in tensors.items()
        for ending, own, layout in PATCH_EMBEDDINGS
        if (name == ending or name.endswith(f".{ending}")) and tensor.ndim and _is_vit(tensors, name, layout)
    ]
    if len(found) < 2:
        return found
    shared = set.intersection(*(set(one.parts) for one in found))
    own = [[part for part in one.parts if part not in shared] or [WHOLE] for one in found]
    firsts, wholes = [parts[0] for parts in own], [".".join(one.parts) or WHOLE for one in found]
    labels = firsts if len(set(firsts)) == len(firsts) else wholes
    return [replace(one, label=label) for one, label in zip(found, labels, strict=True)]


def _is_vit(tensors: StateDict, name: str, layout: str) -> bool:
    """CLIP's patch embedding has a name that convolutional networks use too."""
    return layout != CLIP or f"{name.removesuffix('conv1.weight')}transformer.resblocks.0.ln_1.weight" in tensors


def check_no_key(key: str | None, path: Path) -> None:
    """Refuse to choose among the sets of weights of a file that has one."""
    if key is not None:
        raise UsageError(
            f"`weights_key={key!r}` is not in {str(path)!r}; it holds one set of weights without a name; drop this"
        )


def choose(tensors: StateDict, path: Path, key: str | None, width: int) -> tuple[WeightSet, list[WeightSet]]:
    """The set of weights of a file to take, and all there are.

    The one that `key` names; else, among those of the architecture's width, an average of the weights before the
    weights themselves (a teacher before its student, `model_ema` before `model`), then what a training script calls
    `state_dict`, `model` or `module`, then others; MoCo's base encoder before its momentum encoder, as in its
    own evaluation.

    Raises
    ------
    UsageError
        If `key` names none of them, or the rule does not tell two apart.
    BrdynError
        If there is none.
    """
    sets = weight_sets(tensors)
    if not sets and any(TRUNK.match(name) for name in tensors):
        sets = [WeightSet("", TIMM, width)]  # a ViT without its patch embedding: what is missing will be named
    if not sets:
        some = ", ".join(list(tensors)[:SHOWN])
        raise BrdynError(
            f"{str(path)!r} holds no ViT: none of its {len(tensors)} tensors is a patch embedding ({some}, …)"
        )
    names = ", ".join(one.label or ".".join(one.parts) or WHOLE for one in sets)
    among = sets if key is None else [one for one in sets if one.is_called(key)]
    if not among:
        if len(sets) == 1:
            check_no_key(key, path)
        raise UsageError(f"`weights_key={key!r}` is not in {str(path)!r}; it holds: {names}")
    among = [one for one in among if one.width == width] or among
    best = min(one.rank for one in among)
    among = [one for one in among if one.rank == best]
    if len(among) > 1:
        raise UsageError(f"{str(path)!r} holds several sets of weights; say which with `weights_key`: {names}")
    if among[0].layout == TRANSFORMERS:
        raise BrdynError(
            f"{str(path)!r} is in transformers' layout; give `model` the folder with its config.json instead"
        )
    return among[0], sets


def to_timm(state: StateDict, layout: str, backbone: nn.Module) -> StateDict:
    """Rename the tensors of one set to timm's names, and fold together what timm keeps in one tensor.

    What only training uses is left out, and so is a head behind a layer that timm's models lack. Shapes are as in the
    file: nothing is resampled. Layouts that timm's own filter translates pass through.
    """
    if layout == CLIP and not isinstance(backbone, TimmViT):
        return {f"visual.{name}": tensor for name, tensor in state.items()}  # Perception Encoder, by timm's filter
    rules = TO_TIMM.get(layout, ()) + (IN_PLAIN_VITS if isinstance(backbone, TimmViT) else ())
    headless = any(BETWEEN_POOL_AND_HEAD.match(name) for name in state)
    renamed: StateDict = {}
    for name, tensor in state.items():
        if TRAINING_ONLY.match(name) or BETWEEN_POOL_AND_HEAD.match(name):
            continue
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if not (headless and new.startswith("head.")):
            renamed[new] = tensor
    if layout == CLIP:
        return _clip_shapes(renamed)
    if "register_tokens" in state and {"cls_token", "pos_embed"} <= renamed.keys():
        _add_position_to_cls(renamed)
    if isinstance(backbone, Eva) and "storage_tokens" in state:
        _split_dinov3_biases(renamed)
    return renamed


def _clip_shapes(state: StateDict) -> StateDict:
    """CLIP multiplies by its projection from the right and has no batch axis in its tokens."""
    for name in ("cls_token", "pos_embed"):
        if name in state:
            state[name] = state[name].reshape(1, -1, state[name].shape[-1])
    if "head.weight" in state:
        state["head.weight"] = state["head.weight"].T
        state["head.bias"] = torch.zeros(len(state["head.weight"]))
    return state


def _add_position_to_cls(state: StateDict) -> None:
    """Facebook adds a position to the cls token at run time; timm's register models keep positions of patches only."""
    table = state["pos_embed"]
    state["cls_token"] = state["cls_token"] + table[:, :1]
    state["pos_embed"] = table[:, 1:]


def _split_dinov3_biases(state: StateDict) -> None:
    """Facebook's DINOv3 has one bias of queries, keys and values and a mask of zeros over the keys'; timm has two.

    Raises
    ------
    BrdynError
        If the keys have a bias, or the mask is another.
    """
    parts: dict[str, Tensor] = {}
    for name in [name for name in state if name.endswith("attn.qkv.bias")]:
        bias, mask = state.pop(name), state.pop(f"{name}_mask", None)
        thirds = bias.detach().chunk(3)
        masks = torch.ones(3).chunk(3) if mask is None else mask.chunk(3)
        if not bool((masks[0] == 1).all() and (masks[2] == 1).all()):
            raise BrdynError(f"{name}_mask is not that of DINOv3: ones over queries and values")
        if bool(((thirds[1] != 0) & (masks[1] != 0)).any()):
            raise BrdynError(f"{name} moves the keys, which no architecture of timm's does")
        width = len(bias) // 3
        parts[name.replace("qkv.bias", "q_bias")] = bias[:width]
        parts[name.replace("qkv.bias", "v_bias")] = bias[2 * width :]
    if any(bool(part.detach().any()) for part in parts.values()):
        state.update(parts)


def says_openai(tensors: StateDict, prefix: str) -> bool:
    """Whether a CLIP file is OpenAI's own, which keeps three numbers beside the weights."""
    outer = prefix.removesuffix("visual.")
    return all(f"{outer}{name}" in tensors for name in OPENAI_CLIP)


def grouped(names: Iterable[str]) -> str:
    """Names by what they begin with, counted: `decoder_blocks (96), mask_token`."""
    counts: dict[str, int] = {}
    for name in names:
        first = name.split(".")[0]
        counts[first] = counts.get(first, 0) + 1
    words: Sequence[str] = [f"{name} ({count})" if count > 1 else name for name, count in sorted(counts.items())]
    rest = f", and {len(words) - 2 * SHOWN} more" if len(words) > 2 * SHOWN else ""
    return ", ".join(words[: 2 * SHOWN]) + rest
