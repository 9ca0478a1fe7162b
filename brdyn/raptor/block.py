"""The block that a phase shares: pre-norm attention and MLP, scaled by the depth at which it is applied.

BRH (arXiv 2512.19941), method notes section 4. Attention is timm's, which runs fused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from timm.layers import Mlp, SwiGLU
from timm.models.vision_transformer import Attention, LayerScale
from torch import Tensor, nn

from brdyn.arguments import checked
from brdyn.choices import check_block, check_heads, check_norm_eps
from brdyn.errors import UsageError
from brdyn.models import VisionTransformer
from brdyn.models.depth_scaling import DepthScaling


@checked
@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """What a block is made of.

    Attributes
    ----------
    width, heads : int
        D and the number of attention heads, as the teacher's.
    mlp : {"swiglu", "gelu"}
    mlp_ratio : float
        Hidden units of the MLP over D. A SwiGLU has two maps to as many hidden units.
    layer_scale : float
        Initial LayerScale of both branches.
    norm_eps : float
        Of both LayerNorms.
    depth_scaling : {"index", "constant", "none"}
        Factors that depend on the layer's index, the same learned factors at every layer (an autonomous block), or
        no factors.

    Examples
    --------
    >>> from brdyn.raptor import BlockConfig
    >>> BlockConfig(width=384, heads=6).mlp
    'swiglu'
    >>> BlockConfig(width=384, heads=5)
    Traceback (most recent call last):
    ...
    brdyn.errors.UsageError: width 384 cannot be split among 5 heads
    """

    width: int
    heads: int
    mlp: str = "swiglu"
    mlp_ratio: float = 4.0
    layer_scale: float = 1e-5
    norm_eps: float = 1e-5
    depth_scaling: str = "index"

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        check_block(self.mlp, self.mlp_ratio, self.depth_scaling)
        check_norm_eps(self.norm_eps)
        for name in ("width", "heads"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} is not positive")
        check_heads(self.width, self.heads)

    def build(self, teacher: VisionTransformer, assignment: Sequence[int]) -> nn.ModuleList:
        """The shared blocks of an assignment, drawn at random."""
        del teacher  # which blocks of another kind are copied from
        return nn.ModuleList([RaptorBlock(self) for _ in range(max(assignment) + 1)])

    def redrawn(self) -> BlockConfig:
        """As untrained blocks start: LayerScale at 1 instead of where fits start it, at which blocks do nothing."""
        return replace(self, layer_scale=1.0)


class RaptorBlock(nn.Module):
    """One block, applied at several layers.

    Parameters
    ----------
    config : BlockConfig

    Examples
    --------
    >>> from brdyn.raptor import BlockConfig, RaptorBlock
    >>> block = RaptorBlock(BlockConfig(width=8, heads=2))
    >>> state = torch.randn(1, 5, 8)
    >>> block(block(state, layer=1), layer=2).shape  # one block, two layers
    torch.Size([1, 5, 8])
    """

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.config = config
        width, hidden = config.width, int(config.mlp_ratio * config.width)
        self.norm1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.attn = Attention(width, num_heads=config.heads, qkv_bias=True)
        self.scale1 = LayerScale(width, init_values=config.layer_scale)
        self.norm2 = nn.LayerNorm(width, eps=config.norm_eps)
        self.mlp = (SwiGLU if config.mlp == "swiglu" else Mlp)(width, hidden)
        self.scale2 = LayerScale(width, init_values=config.layer_scale)
        self.depth = DepthScaling(width) if config.depth_scaling != "none" else None

    def forward(self, state: Tensor, layer: int) -> Tensor:
        """Apply the block as layer `layer` (from 1): states `(B, N, D)` to `(B, N, D)`."""
        attention: Tensor | float = 1.0
        mlp: Tensor | float = 1.0
        output: Tensor | float = 1.0
        if self.depth is not None:
            attention, mlp, output = self.depth.of_layer(layer if self.config.depth_scaling == "index" else 1)
        state = state + attention * self.scale1(self.attn(self.norm1(state)))
        return output * (state + mlp * self.scale2(self.mlp(self.norm2(state))))
