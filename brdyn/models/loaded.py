"""A trunk that was built, mostly with the weights of a file, and what there is to say of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from brdyn.models import layouts

MOCO_PARTS = {"base_encoder", "momentum_encoder"}
NO_CHOICE = layouts.WeightSet("", layouts.OTHER, 0)
SELF_SUPERVISED = re.compile(r"decoder_|masked_embed$|head\.(mlp|last_layer)\.")


@dataclass(frozen=True)
class Loaded:
    """A trunk, and the weights of a file that it has.

    Attributes
    ----------
    backbone : nn.Module
    digest : str
        Of the weights as in the file, in float32, before positions were resampled; empty of those that are drawn by a
        seed, or not there.
    notes : tuple of str
        What was built otherwise than the name says, what was left out, what was resampled.
    chosen : WeightSet
        The set of weights that was taken of a file.
    unused : tuple of str
        The file's tensors that were left out.
    built : mapping
        What the file changed in the architecture of this name, as options of timm.
    """

    backbone: Any
    digest: str = ""
    notes: tuple[str, ...] = ()
    chosen: layouts.WeightSet = NO_CHOICE
    unused: tuple[str, ...] = ()
    built: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_self_supervised(self) -> bool:
        """Whether parts that only DINO, iBOT, MAE or MoCo v3 train with stand beside the trunk."""
        return bool(MOCO_PARTS & set(self.chosen.parts)) or any(map(SELF_SUPERVISED.match, self.unused))
