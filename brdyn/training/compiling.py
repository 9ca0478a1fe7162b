"""Compiled parts of a task."""

from __future__ import annotations

import torch
from torch import nn

VARIANTS = 64  # of a compiled block


def compile_parts(parts: nn.ModuleDict) -> None:
    """Compile the blocks of every part, which repeat: once for all that are alike. A part without any is compiled
    itself.

    The compiler keeps eight variants of a function, over all networks of a process, and runs the rest as they are: too
    few where a block is called with several shapes, with gradients and without.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    for part in parts.values():
        lists = [module for module in part.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
        rows = [list(one) for one in lists if len(one) > 1 and len({type(block) for block in one}) == 1]
        blocks = [block for row in rows for block in row]
        for module in list(part) if isinstance(part, nn.ModuleList) else blocks or [part]:
            module.compile()
