"""Options that commands which train a classifier from scratch share, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer

from brdyn.classifiers.architectures import SIZES
from brdyn.classifiers.recipe import ClassifierRecipe
from brdyn.cli import options as opt
from brdyn.errors import UsageError

NETWORK, RECIPE = "Network", "Recipe"
HELPS = {
    "batch_size": "Images of a step (default: 128, at most all training images).",
    "lr": "Learning rate of AdamW.",
    "min_lr": "Learning rate at the last step.",
    "weight_decay": "Of AdamW.",
    "clip": "Largest gradient norm; 0 for none.",
    "accumulate": "Pieces that a batch goes through in.",
    "ema_warmup": "Let --ema's decay rise from 0, for short runs.",
    "compile": "Compile the network.",
    "padding": "Black pixels around an image from which a crop is drawn; 0 for none.",
    "flip": "Mirror half of the images.",
    "operations": "Of RandAugment; 0 for none.",
    "magnitude": "Of RandAugment, up to 30.",
    "mixup": "Alpha of Mixup; 0 for none.",
    "cutmix": "Alpha of CutMix; 0 for none.",
    "log_every": "Steps between losses in train.json (default: a hundred logs).",
    "validate_every": "Steps between accuracies (default: an epoch, or fewer for fifty).",
    "checkpoint_every": "Steps between checkpoints (default: fifty).",
}


def _size(what: str) -> Any:
    return Annotated[
        int | None,
        typer.Option(help=f"{what} (default: the network's own).", min=1, rich_help_panel=NETWORK),
    ]


@dataclass(frozen=True, kw_only=True)
class TrainRequest(opt.ImagesRequest):
    """The options of commands that train a classifier, as typed, with their defaults."""

    model: str
    data: Annotated[
        str,
        typer.Option(
            help="Training images: cifar10, cifar100, a parquet file with labels, or a folder of class folders.",
            rich_help_panel=opt.IMAGES,
        ),
    ] = "cifar10"
    test: Annotated[
        str | None,
        typer.Option(
            help="Test images, as --data (default: the test split of cifar10 and cifar100, else none).",
            rich_help_panel=opt.IMAGES,
        ),
    ] = None
    test_n: Annotated[
        int | None, typer.Option(help="Use this many test images.", min=1, rich_help_panel=opt.IMAGES)
    ] = None
    out: opt.Out
    image_size: Annotated[
        int, typer.Option(help="Side in pixels that images are resized to.", min=1, rich_help_panel=NETWORK)
    ] = 32
    width: _size("Units of a token") = None  # type: ignore[valid-type]
    depth: _size("Layers (of vitrm: of its shared network)") = None  # type: ignore[valid-type]
    heads: _size("Attention heads") = None  # type: ignore[valid-type]
    hidden: _size("Hidden units of the MLP") = None  # type: ignore[valid-type]
    patch: _size("Side of a patch in pixels") = None  # type: ignore[valid-type]
    split: opt.Split = None
    image_column: opt.ImageColumn = None
    label_column: opt.LabelColumn = None
    n: opt.Number = None
    seed: opt.Seed = 0
    device: opt.Device = "auto"
    dtype: opt.TrainDtype = "float32"
    workers: opt.Workers = None
    overwrite: opt.Overwrite = False
    formats: opt.Formats = "png"

    def sizes(self) -> dict[str, int]:
        """Those that were given."""
        return {name: value for name in SIZES if (value := getattr(self, name)) is not None}

    def recipe(
        self,
        published: ClassifierRecipe,
        epochs: float | None,
        warmup: float | None,
        ema: float | None,
        given: dict[str, Any],
    ) -> ClassifierRecipe:
        """The published recipe, changed as asked for."""
        found = published if epochs is None else published.lasting(epochs)
        found = replace(
            found,
            warmup_epochs=found.warmup_epochs if warmup is None else warmup,
            ema=published.ema if ema is None else ema,
            precision=self.dtype,
            seed=self.seed,
            **given,
        )
        if found.ema_warmup and not found.ema:
            raise UsageError("--ema-warmup is of an average of the weights, and there is none without --ema")
        return found
