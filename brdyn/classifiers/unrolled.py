"""A ViTRM as a ViT: every application of its shared network is a layer, its three streams are token groups."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from brdyn.classifiers.vitrm import Streams, ViTRM
from brdyn.models.base import ModelInfo, TokenLayout, VisionTransformer
from brdyn.models.preprocessing import Preprocessing

STREAMS = ("x", "y", "z")


class Application(nn.Module):
    """The shared network at one layer, on a state `[x; y; z]`. It does not own the network.

    Parameters
    ----------
    vitrm : ViTRM
    layout : TokenLayout
    answers : bool
        Whether this application updates y, or z.
    """

    def __init__(self, vitrm: ViTRM, layout: TokenLayout, *, answers: bool) -> None:
        super().__init__()
        self._shared = (vitrm,)
        self.layout, self.answers = layout, answers

    def forward(self, state: Tensor) -> Tensor:
        """Update one stream; the others pass unchanged."""
        vitrm = self._shared[0]
        streams = Streams(*(state[:, self.layout[name]] for name in STREAMS))
        return torch.cat(vitrm.update_answer(streams) if self.answers else vitrm.update_latent(streams), dim=1)


class UnrolledViTRM(VisionTransformer):
    """T recursion steps of a ViTRM, layer by layer: n updates of z and one of y in each.

    Parameters
    ----------
    vitrm : ViTRM
    steps : int
        T; there are `T (n + 1)` layers.
    info : ModelInfo
    preprocessing : Preprocessing
    class_names : tuple of str

    Examples
    --------
    >>> from brdyn.classifiers import UnrolledViTRM, ViTRM, ViTRMConfig
    >>> from brdyn.models import ModelInfo, Preprocessing
    >>> vitrm = ViTRM(ViTRMConfig(classes=2, image_size=8, width=12, heads=2, hidden=16))
    >>> unrolled = UnrolledViTRM(vitrm, 2, model.info, Preprocessing((8, 8)), ("cat", "dog"))
    >>> len(unrolled.blocks), unrolled.tokens.sizes()
    (8, {'x': 4, 'y': 1, 'z': 4})
    """

    def __init__(
        self,
        vitrm: ViTRM,
        steps: int,
        info: ModelInfo,
        preprocessing: Preprocessing,
        class_names: tuple[str, ...],
    ) -> None:
        super().__init__()
        config = vitrm.config
        side, count = config.image_size // config.patch, config.patches
        groups = {"x": slice(0, count), "y": slice(count, count + 1), "z": slice(count + 1, 2 * count + 1)}
        self.tokens = TokenLayout(groups, (side, side), answer="y", spatial="z")
        self.vitrm = vitrm
        self.info, self.preprocessing, self.class_names = info, preprocessing, class_names
        one_step = [False] * config.latent_steps + [True]
        self.blocks = nn.ModuleList([Application(vitrm, self.tokens, answers=answers) for answers in one_step * steps])
        self.norm = nn.Identity()

    def embed(self, images: Tensor) -> Tensor:
        """The image's patches, and the learned answer and latents to start from."""
        return torch.cat(self.vitrm.begin(images), dim=1)

    @property
    def block_parameters(self) -> int:
        """Of the shared network."""
        return sum(parameter.numel() for parameter in self.vitrm.network.parameters())

    @property
    def classes(self) -> int:
        """Of the classification head."""
        return self.vitrm.config.classes

    def logits(self, normed: Tensor) -> Tensor:
        """Read from y."""
        return self.vitrm.classifier(normed[:, self.tokens["y"]][:, 0])
