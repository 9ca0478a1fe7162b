"""Options of probes of a task, shared by the commands that fit such probes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brdyn.choices import TASKS, check_layers, one_of
from brdyn.cli.checks import check_file
from brdyn.cli.output import say
from brdyn.cli.run import RunRequest
from brdyn.errors import UsageError

if TYPE_CHECKING:
    from brdyn.data import DenseSet
    from brdyn.data.targets import Targets
    from brdyn.models import VisionTransformer
    from brdyn.probes import Recipe

DENSE = "Probe of masks and depth"
HEADS = "Heads of masks and depth, or of the published protocol"
HELD_OUT, PUBLISHED = "held-out", "published"
CLASSIFICATION, SEGMENTATION, DEPTH = TASKS
LAST = "last"

Task = Annotated[
    str,
    typer.Option(
        "--task",
        help="classification, segmentation (masks) or depth, to be read from each image.",
        rich_help_panel="Probe",
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        "--layers",
        help="Layers to read: last, all, some such as 3,7,12 (0 is the embedding), or choose:4 for the best four "
        "together, beside the last four, four at regular distances and the ends of the phases (default: last).",
        rich_help_panel="Probe",
    ),
]
TargetColumn = Annotated[
    str | None,
    typer.Option(help="Column of masks or depth in a table (default: by name).", rich_help_panel=DENSE),
]
IgnoreIndex = Annotated[
    int | None,
    typer.Option(help="Number of void pixels (default: what the file says of itself).", rich_help_panel=DENSE),
]
Classes = Annotated[
    int | None,
    typer.Option(
        help="Number of classes (default: what the file says, or its masks hold).",
        min=2,
        max=4096,
        rich_help_panel=DENSE,
    ),
]
Palette = Annotated[
    Path | None,
    typer.Option(help="JSON file of red, green and blue by class, for masks in colour.", rich_help_panel=DENSE),
]
DepthUnit = Annotated[
    str | None,
    typer.Option(
        help="m, cm, mm, or how many make a metre, such as 25.5 (default: what the file says).",
        rich_help_panel=DENSE,
    ),
]
MaxDepth = Annotated[
    float,
    typer.Option(help="What is deeper than so many metres counts as not measured.", rich_help_panel=DENSE),
]
EigenCrop = Annotated[
    bool,
    typer.Option(
        "--eigen-crop",
        help="Score depth inside the crop of Eigen et al. alone, as is usual for NYUv2 (test maps of 640 x 480).",
        rich_help_panel=DENSE,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        help="Passes over the training images, of heads that need several (default: by task).",
        min=1,
        max=10_000,
        rich_help_panel=HEADS,
    ),
]
Protocol = Annotated[
    str,
    typer.Option(
        help="held-out: penalty and epoch by a held-out part of the training images; published: the epoch by the test "
        "images, which is optimistic, and of classes a head that begins as the model's own classifier.",
        rich_help_panel=HEADS,
    ),
]
Augment = Annotated[
    bool,
    typer.Option(
        "--augment",
        help="Random crops and flips, with the backbone in the loop: hours.",
        rich_help_panel=HEADS,
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Where features lie until the end of the run (default: a temporary folder).",
        rich_help_panel=DENSE,
    ),
]


@dataclass(frozen=True, kw_only=True)
class DenseRequest(RunRequest):
    """The options of a command that can read masks and depth beside classes, as typed, with their defaults."""

    task: Task = CLASSIFICATION
    layers: Layers = None
    target_column: TargetColumn = None
    ignore_index: IgnoreIndex = None
    classes: Classes = None
    palette: Palette = None
    depth_unit: DepthUnit = None
    max_depth: MaxDepth = 10.0
    eigen_crop: EigenCrop = False
    epochs: Epochs = None
    protocol: Protocol = HELD_OUT
    augment: Augment = False
    cache: Cache = None

    @property
    def dense(self) -> bool:
        """Whether masks or depth are to be read."""
        return self.task != CLASSIFICATION

    @property
    def by_layer(self) -> bool:
        """Whether more is asked for than k-NN and linear probes of the last layer."""
        return self.dense or self.published or self.layers is not None

    @property
    def published(self) -> bool:
        """Whether heads are trained and chosen as published."""
        return self.protocol == PUBLISHED

    def check(self, test: str | None) -> None:
        """Refuse what no task takes, or another one, before anything is loaded; `test` names the test images."""
        one_of("task", self.task, TASKS)
        one_of("protocol", self.protocol, (HELD_OUT, PUBLISHED))
        check_layers(self.layers or LAST)
        check_file("--palette", self.palette)
        masks, depths = {"ignore_index", "classes", "palette"}, {"depth_unit", "max_depth", "eigen_crop"}
        foreign = {
            CLASSIFICATION: masks | depths | {"target_column", "cache"},
            SEGMENTATION: depths,
            DEPTH: masks,
        }
        if given := self._given(foreign[self.task]):
            raise UsageError(f"`{given}` does not go with `task={self.task}`; drop one of them")
        if self.eigen_crop and test is None:
            raise UsageError("`eigen_crop` is of test images, and none were given")
        if not self.dense and not self.published and (given := self._given({"epochs", "augment"})):
            raise UsageError(
                f"`{given}` goes with `task={self.task}` only under `protocol={PUBLISHED}`; drop it, or give both"
            )

    def _given(self, names: set[str]) -> str | None:
        """The first of these options that was given."""
        named = (one for one in fields(self) if one.name in names)
        return next((one.name for one in named if getattr(self, one.name) != one.default), None)

    def targets(self, *, cropped: bool) -> Targets:
        """How masks or depth are read, of depth perhaps inside its crop alone."""
        from brdyn.data import DepthTargets, MaskTargets, read_palette

        if self.task == DEPTH:
            return replace(DepthTargets.of(self.depth_unit, self.max_depth), eigen_crop=cropped)
        palette = () if self.palette is None else read_palette(self.palette)
        return MaskTargets(ignore=self.ignore_index, classes=self.classes, palette=palette)

    def load(
        self,
        images: str,
        model: VisionTransformer,
        n: int | None,
        split: str | None = None,
        *,
        test: bool = False,
    ) -> DenseSet:
        """Images with their masks or depth, of `test` images only what is scored."""
        from brdyn.data import load_dense

        return load_dense(
            images, model, self.task, targets=self.targets(cropped=self.eigen_crop and test), n=n, seed=self.seed,
            split=split, strict=self.strict, image_column=self.image_column, target_column=self.target_column,
        )  # fmt: skip

    def recipe(self) -> Recipe | None:
        """How heads are trained in epochs; None for probes of classes that are not."""
        from brdyn.probes import Recipe

        if not self.dense and not self.published:
            return None
        found = Recipe.of(self.task, self.published)
        return found if self.epochs is None else replace(found, epochs=self.epochs)

    def options(self) -> dict[str, Any]:
        """For :func:`brdyn.probe_layers`."""
        return {
            "layers": self.layers or LAST,
            "recipe": self.recipe(),
            "published": self.published,
            "augment": self.augment,
            "cache": self.cache,
            "seed": self.seed,
            "say": say,
        }
