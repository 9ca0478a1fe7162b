"""Networks to train from scratch, an object for each name. Needs no torch, so that a wrong name is told at once.

Method notes, section 7.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from brdyn.checked_json import shown
from brdyn.choices import DEPTH_SCALINGS, check_heads, check_patches, check_share, one_of
from brdyn.classifiers.config import ViTRMConfig, check_sizes
from brdyn.classifiers.recipe import BASELINE, VITRM, VITRM_NAME, ClassifierRecipe
from brdyn.classifiers.sharing import SEQUENCE, assignment_of, share_stages
from brdyn.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from brdyn.classifiers.tasks import Classification

UNSCALED = "none"  # of `DEPTH_SCALINGS`
SIZES = ("width", "depth", "heads", "hidden", "patch")


@dataclass(frozen=True, kw_only=True)
class Architecture(ABC):
    """What there is to know of a network by name. As it stands, of one that maps images to class scores.

    Attributes
    ----------
    name : str
    published : ClassifierRecipe
        How it is trained in the publication.
    is_recursive : bool
        Whether it takes recursion steps: a number T for an answer, N_sup of them supervised.
    is_transformer : bool
        Whether it has tokens to follow, and sizes and dropout to choose.
    """

    name: str
    published: ClassVar[ClassifierRecipe] = BASELINE
    is_recursive: ClassVar[bool] = False
    is_transformer: ClassVar[bool] = True

    @property
    def usual(self) -> dict[str, Any]:
        """Sizes and sharing that it has unless others are asked for."""
        return {}

    def called(self, built: Mapping[str, Any]) -> str:
        """Its name, and what it was built with of other sizes than the usual ones, or of shared blocks.

        >>> from brdyn.classifiers.architectures import ARCHITECTURES
        >>> ARCHITECTURES["vit-tiny12"].called({"depth": 6, "width": 192, "heads": 4})
        'vit-tiny12 with depth 6, heads 4'
        """
        asked = {name: built[name] for name, size in self.usual.items() if built.get(name, size) != size}
        said = [name if value is True else f"{name} {value}" for name, value in asked.items()]
        return f"{self.name} with {', '.join(said).replace('_', ' ')}" if said else self.name

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """What else it may be built with, and of which types."""

    def check(self, image_size: int, **options: Any) -> None:
        """Refuse sizes and options that it cannot be built with, before torch is needed.

        Raises
        ------
        UsageError
            Naming the first of them.
        """
        check_sizes({"image_size": image_size})

    @abstractmethod
    def build(self, classes: int, image_size: int, **options: Any) -> nn.Module:
        """The network; as :func:`build`."""

    def task(self, *given: Any, n_sup: int, steps: int) -> Classification:
        """What it is trained on, of what :class:`brdyn.classifiers.tasks.Classification` is given."""
        from brdyn.classifiers.tasks import Classification

        return Classification(*given)

    def scores(self, network: nn.Module, images: Tensor, steps: int) -> Tensor:
        """Class scores `(B, classes)` of normalised images."""
        return network(images)


@dataclass(frozen=True, kw_only=True)
class SmallViT(Architecture):
    """A ViT of timm with a cls token and learned positions, whose blocks have stochastic depth.

    Attributes
    ----------
    width, depth, heads : int
        D, L, attention heads.
    hidden : int
        Units of the MLP.
    patch : int
        Side of a patch in pixels.
    drop_path, dropout, shared_blocks, partition, depth_scaling
        As of :func:`build`.
    """

    width: int
    depth: int
    heads: int
    hidden: int
    patch: int = 4
    drop_path: float = 0.0
    dropout: float = 0.0
    shared_blocks: int = 0
    partition: str = SEQUENCE
    depth_scaling: str = UNSCALED

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        check_sizes({name: getattr(self, name) for name in SIZES})
        check_heads(self.width, self.heads)
        check_share("drop-path", self.drop_path)
        check_share("dropout", self.dropout)
        assignment_of(self.shared_blocks, self.partition, self.depth)
        one_of("depth scaling", self.depth_scaling, DEPTH_SCALINGS)

    @property
    def usual(self) -> dict[str, Any]:
        """Its sizes, and a block for each layer."""
        return {name: getattr(self, name) for name in (*SIZES, "shared_blocks")}

    def options(self) -> dict[str, Any]:
        """Stochastic depth, dropout, sizes, and which layers share a block."""
        hints = get_type_hints(SmallViT)
        return {one.name: hints[one.name] for one in fields(self) if one.name != "name"}

    def check(self, image_size: int, **options: Any) -> None:
        """Refuse sizes and options that it cannot be built with."""
        asked = replace(self, **options)
        super().check(image_size)
        check_patches(self.name, (image_size,) * 2, (asked.patch,) * 2)

    def build(self, classes: int, image_size: int, **options: Any) -> nn.Module:
        """The network. Layers that share a block are one module, of which the weights count and are saved once."""
        from timm.models.vision_transformer import VisionTransformer

        from brdyn.classifiers.stochastic_depth import ScaledBlock, StochasticDepthBlock
        from brdyn.models.base import check_memory
        from brdyn.models.depth_scaling import DepthScaling

        self.check(image_size, **options)
        asked = replace(self, **options)
        check_memory((image_size,) * 2, (image_size // asked.patch,) * 2)
        network = VisionTransformer(
            img_size=image_size,
            patch_size=asked.patch,
            embed_dim=asked.width,
            depth=asked.depth,
            num_heads=asked.heads,
            mlp_ratio=(asked.hidden + 0.5) / asked.width,  # timm cuts the product off
            num_classes=classes,
            proj_drop_rate=asked.dropout,
            block_fn=StochasticDepthBlock if asked.depth_scaling == UNSCALED else ScaledBlock,
        )
        for block in network.blocks:
            block.drop_path = asked.drop_path
        assignment = assignment_of(asked.shared_blocks, asked.partition, asked.depth)
        firsts = [network.blocks[assignment.index(number)] for number in assignment]
        if asked.depth_scaling == UNSCALED:
            network.blocks = type(network.blocks)(*firsts)
            return network
        for layer, (block, first) in enumerate(zip(network.blocks, firsts, strict=True), 1):
            block.layer = layer if asked.depth_scaling == "index" else 1
            if block is first:
                block.depth = DepthScaling(asked.width)
            else:
                block.share(first)
        return network


@dataclass(frozen=True, kw_only=True)
class ResNet(Architecture):
    """A ResNet of torchvision, in its one size."""

    is_transformer = False

    @property
    def usual(self) -> dict[str, Any]:
        """Each block has convolutions of its own."""
        return {"shared_stages": False}

    def options(self) -> dict[str, Any]:
        """Whether the blocks of a stage share their convolutions."""
        return {"shared_stages": bool}

    def check(self, image_size: int, *, shared_stages: bool = False, **options: Any) -> None:
        """Refuse an image size that no network has, and any other option."""
        super().check(image_size)
        if any(options.values()):
            raise UsageError(f"{self.name} has neither drop-path, dropout nor other sizes")

    def build(self, classes: int, image_size: int, *, shared_stages: bool = False, **options: Any) -> nn.Module:
        """The network; where stages are shared, as :func:`brdyn.classifiers.sharing.share_stages` says."""
        import torchvision

        self.check(image_size, **options)
        network = getattr(torchvision.models, self.name)(num_classes=classes)
        if shared_stages:
            share_stages((network.layer1, network.layer2, network.layer3, network.layer4))
        return network


@dataclass(frozen=True, kw_only=True)
class RecursiveViT(Architecture):
    """ViTRM."""

    published = VITRM
    is_recursive = True

    @property
    def usual(self) -> dict[str, Any]:
        """The published sizes."""
        named = (*SIZES, "latent_steps")
        return {one.name: one.default for one in fields(ViTRMConfig) if one.name in named}

    def options(self) -> dict[str, Any]:
        """Those of its config."""
        hints = get_type_hints(ViTRMConfig)
        return {name: hints[name] for name in hints if name not in ("classes", "image_size")}

    def check(self, image_size: int, **options: Any) -> None:
        """Refuse sizes and options that it cannot be built with."""
        ViTRMConfig(image_size=image_size, **options)

    def build(self, classes: int, image_size: int, **options: Any) -> nn.Module:
        """The network."""
        from brdyn.classifiers.vitrm import ViTRM

        return ViTRM(ViTRMConfig(classes=classes, image_size=image_size, **options))

    def task(self, *given: Any, n_sup: int, steps: int) -> Classification:
        """Deep supervision."""
        from brdyn.classifiers.tasks import DeepSupervision

        return DeepSupervision(*given, n_sup=n_sup, steps=steps)

    def scores(self, network: nn.Module, images: Tensor, steps: int) -> Tensor:
        """Class scores after `steps` recursion steps."""
        return network(images, steps).scores


VITS = {
    vit.name: vit
    for vit in (
        SmallViT(name="vit-small", width=512, depth=8, heads=8, hidden=1024),
        SmallViT(name="vit-base", width=768, depth=12, heads=12, hidden=3072),
        SmallViT(name="vit-large", width=1024, depth=24, heads=16, hidden=4096),
        SmallViT(name="vit-tiny12", width=192, depth=12, heads=3, hidden=768),
    )
}
"""The published baselines, and the small ViT of the stochastic-depth study."""
RESNETS = {name: ResNet(name=name) for name in ("resnet18", "resnet34", "resnet50")}
ARCHITECTURES: dict[str, Architecture] = {VITRM_NAME: RecursiveViT(name=VITRM_NAME), **VITS, **RESNETS}


def called(name: str, built: Mapping[str, Any]) -> str:
    """:meth:`Architecture.called` of a network; of one that is not known here its name."""
    return ARCHITECTURES[name].called(built) if name in ARCHITECTURES else name


def architecture_of(name: str) -> Architecture:
    """What there is to know of a network.

    Raises
    ------
    UsageError
        If there is none of this name.
    """
    if name not in ARCHITECTURES:
        raise UsageError(f"unknown network {shown(name)}; choose one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def build(name: str, classes: int, image_size: int, **options: Any) -> nn.Module:
    """An untrained network, which takes normalised images `(B, 3, H, W)`.

    Parameters
    ----------
    name : str
        One of `ARCHITECTURES`.
    classes, image_size : int
    **options
        Of a ViT, to change: `width`, `depth`, `heads`, `hidden`, `patch`; `drop_path`, the chance that a branch of a
        layer is left out in training, the same at every layer; `dropout`, after attention and MLP; `shared_blocks`, how
        many blocks its layers share, and `partition`, which do, as of
        :func:`brdyn.classifiers.sharing.assignment_of`; `depth_scaling`, factors by which a block knows its layer
        (`index`), or the same ones at each (`constant`), or `none`. Of a ViTRM, those of
        :class:`brdyn.classifiers.ViTRMConfig`. Of a ResNet, `shared_stages`, whether the blocks of a stage share their
        convolutions.

    Raises
    ------
    UsageError
        If there is no such network, or it cannot be built so.

    Examples
    --------
    >>> from brdyn.classifiers.architectures import build
    >>> len(build("vit-tiny12", classes=10, image_size=32, depth=3).blocks)
    3
    """
    return architecture_of(name).build(classes, image_size, **options)
