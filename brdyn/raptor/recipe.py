"""The recipe of a fit, with the published numbers as defaults. Needs no torch, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from brdyn.arguments import checked
from brdyn.choices import Precision, check_batch, check_block, check_norm_eps, dtype_name, one_of
from brdyn.errors import UsageError
from brdyn.seeds import check_seed
from brdyn.training.settings import ADAMW, TrainSettings

if TYPE_CHECKING:
    from brdyn.models import VisionTransformer
    from brdyn.raptor.block import BlockConfig
    from brdyn.raptor.copied import CopyConfig

PUBLISHED_STEPS, PUBLISHED_LR = 312_500, 3e-4
LARGEST_RAISE = 4.0
WARMUP_SHARE = 10_000 / PUBLISHED_STEPS
ANNEALED_SHARE = 0.25
STEPS = 2000
BATCH = 64
VALIDATION_IMAGES = 64
SKILL = "skill "  # begins the name of what is watched so
LOSSES = ("mse", "cosine+mse", "nmse")
RECIPES = PUBLISHED, FAST = "published", "fast"
STARTS = RANDOM, LAYER, MEAN = "random", "layer", "mean"
LATER = ("try_rates", "augment", "optimizer")  # than the first records
OF_RANDOM_BLOCKS = ("mlp", "mlp_ratio", "layer_scale", "norm_eps", "depth_scaling")


@checked
@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """The recipe. Defaults are the published ones, with shares of the steps where those are counted in steps.

    Attributes
    ----------
    stage1_steps, stage2_steps : int
        Published: 312 500 each. 0 leaves a stage out.
    batch_size : int or None
        Images of a step over all processes. By default 64, but at most all that are learned from.
    min_lr, weight_decay, clip, accumulate, precision, ema, compile, seed, optimizer
        As in :class:`brdyn.training.TrainSettings`.
    lr : float or None
        Learning rate. By default the published 3e-4, in stage 1 raised where it is shorter than the published
        one by the fourth root of how much shorter it is, at most fourfold; see :func:`learning_rate`.
    stage2_lr : float or None
        Of stage 2. By default `lr` where that is given, else the published 3e-4: stage 2 tunes blocks that work, and
        its rate is not raised.
    try_rates : bool
        Try rates on short fits first, a tenth as long, and take the pair that serves best: how large it may be is a
        matter of the teacher (:mod:`brdyn.raptor.rates`). Takes three or four tenths as long as the fit besides.
    augment : bool
        A random crop (8 to 100 % of the area) and flip of each image, another one in every epoch of a stage: for few
        images, which a fit would see alike again and again.
    warmup : float
        Share of each stage's steps in which the learning rate rises (published: 10 000 of 312 500).
    annealed : float
        Share of the steps of stage 1 in which teacher forcing gives way (published: 0.25).
    teacher_forcing_only : bool
        Never let it give way.
    token_weighting : bool
        Weigh token groups apart in the last phase and in stage 2; otherwise every token counts the same.
    loss : {"mse", "cosine+mse", "nmse"}
        The last is the mean square error over the variance of the teacher's state: every layer counts alike, however
        large its states.
    sigma : float
        Noise on the inputs of a block. The published runs have none; 0.001 is the default of their code.
    recipe : {"published", "fast"}
        The fast one starts from layers of the teacher.
    start : {"random", "layer", "mean"} or None
        Where a block starts: drawn at random, as published; as a copy of the teacher's layer that does best at all its
        layers; or of the mean of their weights. By default as the recipe says.
    relax : int
        Rank of a correction to the weights at each layer, of copies alone; see :class:`brdyn.raptor.CopyConfig`.
    mlp, mlp_ratio, layer_scale, norm_eps, depth_scaling
        Of blocks that start at random, as in :class:`brdyn.raptor.BlockConfig`.
    validation_images : int or None
        Kept out of the training images for the R^2 of every block; 0 for none. By default 64, but at most a tenth of
        the images.
    log_every, validate_every, checkpoint_every : int
        Steps.

    Examples
    --------
    >>> from brdyn.raptor import FitSettings
    >>> settings = FitSettings(stage1_steps=1000, stage2_steps=500)
    >>> settings.training(2).steps, settings.training(2).lr
    (500, 0.0003)
    """

    stage1_steps: int = STEPS // 2
    stage2_steps: int = STEPS - STEPS // 2
    batch_size: int | None = None
    lr: float | None = None
    stage2_lr: float | None = None
    try_rates: bool = False
    augment: bool = False
    min_lr: float = 1e-6
    weight_decay: float = 1e-4
    warmup: float = WARMUP_SHARE
    clip: float = 1.0
    accumulate: int = 1
    precision: Precision = "float32"
    ema: float = 0.0
    compile: bool = False
    seed: int = 0
    optimizer: str = ADAMW
    annealed: float = ANNEALED_SHARE
    teacher_forcing_only: bool = False
    token_weighting: bool = True
    loss: str = "mse"
    sigma: float = 0.0
    recipe: str = PUBLISHED
    start: str | None = None
    relax: int = 0
    mlp: str = "swiglu"
    mlp_ratio: float = 4.0
    layer_scale: float = 1e-5
    norm_eps: float = 1e-5
    depth_scaling: str = "index"
    validation_images: int | None = None
    log_every: int = 20
    validate_every: int = 500
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        object.__setattr__(self, "seed", check_seed(self.seed))
        object.__setattr__(self, "precision", dtype_name(self.precision))
        if self.stage1_steps < 0 or self.stage2_steps < 0 or not self.stage1_steps + self.stage2_steps:
            raise UsageError(
                f"{self.stage1_steps} and {self.stage2_steps} steps are no fit; at least one stage needs steps"
            )
        for name in ("warmup", "annealed"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} {getattr(self, name)} is not a share of the steps, from 0 to 1")
        if self.teacher_forcing_only and self.annealed != ANNEALED_SHARE:
            raise UsageError(
                f"`annealed={self.annealed}` is of teacher forcing that gives way, and `teacher_forcing_only` never "
                "does; drop one"
            )
        if not self.stage1_steps and (self.teacher_forcing_only or self.annealed != ANNEALED_SHARE):
            raise UsageError(
                "`teacher_forcing_only` and `annealed` are of stage 1, which has no steps (`stage1_steps`); drop them"
            )
        if not self.sigma >= 0:
            raise UsageError(f"sigma {self.sigma} is negative")
        if self.validation_images is not None and self.validation_images < 0:
            raise UsageError(f"{self.validation_images} validation images are less than none")
        if self.try_rates and self.validation_images == 0:
            raise UsageError("`try_rates` judges by images kept out of training; keep some (`validation_images`)")
        one_of("loss", self.loss, LOSSES)
        check_block(self.mlp, self.mlp_ratio, self.depth_scaling)
        check_norm_eps(self.norm_eps)
        self._check_start()
        for stage in (1, 2):
            self.training(stage)

    def _check_start(self) -> None:
        one_of("recipe", self.recipe, RECIPES)
        if self.start is not None:
            one_of("start", self.start, STARTS)
        if self.recipe == FAST and self.start == RANDOM:
            raise UsageError(
                f"the recipe {FAST!r} starts from layers of the teacher, and the start is to be {RANDOM!r}; drop one"
            )
        if self.relax < 0:
            raise UsageError(f"`relax={self.relax}` is a negative rank")
        if self.begins == RANDOM:
            if self.relax:
                raise UsageError(
                    f"`relax={self.relax}` corrects copies of the teacher's blocks, and blocks start at random; "
                    f"use `start={LAYER}`, `start={MEAN}` or `recipe={FAST}`"
                )
            return
        defaults = {field.name: field.default for field in fields(self)}
        own = [name for name in OF_RANDOM_BLOCKS if getattr(self, name) != defaults[name]]
        if own:
            raise UsageError(
                f"`{own[0]}={getattr(self, own[0])}` is of blocks that start at random, and these are copies of the "
                f"teacher's own (start {self.begins!r}); drop one"
            )

    @property
    def begins(self) -> str:
        """Where blocks start: as asked for, or as the recipe says."""
        return self.start or (LAYER if self.recipe == FAST else RANDOM)

    def training(self, stage: int) -> TrainSettings:
        """The settings of stage 1 or 2."""
        steps = max(1, self.stage1_steps if stage == 1 else self.stage2_steps)
        own = {field.name for field in fields(self)} - {"warmup", "lr"}
        shared = {field.name: getattr(self, field.name) for field in fields(TrainSettings) if field.name in own}
        rate = self.lr if stage == 1 or self.stage2_lr is None else self.stage2_lr
        if rate is None:
            rate = learning_rate(steps) if stage == 1 else PUBLISHED_LR
        shared["batch_size"] = BATCH if self.batch_size is None else self.batch_size
        return TrainSettings(steps=steps, lr=rate, warmup=round(self.warmup * steps), ema_warmup=True, **shared)

    def fitted_to(self, images: int) -> FitSettings:
        """With a batch size, for so many images to learn from.

        Raises
        ------
        UsageError
            If they do not fill a batch.
        """
        settings = replace(self, batch_size=min(BATCH, images)) if self.batch_size is None else self
        check_batch(images, settings.training(1).batch_size)
        return settings

    def block(self, teacher: VisionTransformer) -> BlockConfig | CopyConfig:
        """The block for a teacher."""
        from brdyn.raptor.block import BlockConfig
        from brdyn.raptor.copied import CopyConfig

        if self.begins != RANDOM:
            return CopyConfig(width=teacher.info.width, heads=teacher.info.heads, rank=self.relax)
        return BlockConfig(
            width=teacher.info.width,
            heads=teacher.info.heads,
            mlp=self.mlp,
            mlp_ratio=self.mlp_ratio,
            layer_scale=self.layer_scale,
            norm_eps=self.norm_eps,
            depth_scaling=self.depth_scaling,
        )

    def held_out(self, images: int) -> int:
        """How many of so many images are kept out of training."""
        return min(VALIDATION_IMAGES, images // 10) if self.validation_images is None else self.validation_images

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; without what was no option once and is not asked for."""
        later = {field.name: field.default for field in fields(self) if field.name in LATER}
        return {name: value for name, value in asdict(self).items() if later.get(name, MISSING) != value}


def watched_as(name: str) -> str:
    """What a fit watches on images kept out, as it is shown: skill with what it is over.

    >>> from brdyn.raptor.recipe import watched_as
    >>> watched_as("skill layer 12"), watched_as("r2 layer 12")
    ('skill over doing nothing, layer 12', 'R² layer 12')
    """
    if name.startswith(SKILL):
        return f"{SKILL}over doing nothing, {name.removeprefix(SKILL)}"
    return f"R² {name.removeprefix('r2 ')}" if name.startswith("r2 ") else name


def learning_rate(steps: int) -> float:
    """The default for a stage 1 of so many steps: 3e-4 at the published 312 500, up to 1.2e-3 for a short one."""
    return PUBLISHED_LR * min(max((PUBLISHED_STEPS / max(steps, 1)) ** 0.25, 1.0), LARGEST_RAISE)
