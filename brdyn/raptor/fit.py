"""Fitting a Raptor to a teacher: two stages, on the fly, from images alone. BRH, method notes section 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Self

from brdyn.arguments import checked
from brdyn.checked_json import take
from brdyn.data import Batch, ImageSet
from brdyn.data.augment import Augmentation, PairTransform
from brdyn.data.shuffled import ShuffledBatches
from brdyn.errors import BrdynError, UsageError
from brdyn.models import VisionTransformer, load_model
from brdyn.phases import Phases, as_assignment
from brdyn.progress import tell
from brdyn.provenance import Provenance, Stopwatch
from brdyn.raptor.cache import ActivationCache
from brdyn.raptor.model import Raptor, spans, untrained
from brdyn.raptor.rates import TRIED, in_words, tried_rates, with_rates
from brdyn.raptor.recipe import RANDOM, SKILL, FitSettings, watched_as
from brdyn.raptor.starts import START_IMAGES, tie
from brdyn.raptor.tasks import cached as from_cache
from brdyn.raptor.tasks import online, stage_task
from brdyn.result import Result
from brdyn.runtime import Processes, with_gradients
from brdyn.store.pretrained import CONFIG, WEIGHTS
from brdyn.training import History, Session, train
from brdyn.words import counted

STAGES = (1, 2)
CROPS = (0.08, 1.0)  # of the area
LATE = {"quarter": 0.75, "half": 0.5}  # a stage's end, from which share on: the first that was watched twice
RISE = 0.01  # how much R² may rise there of a fit that is over


@dataclass(frozen=True, eq=False, repr=False)
class Fit(Result):
    """A fitted Raptor and how it got there.

    Attributes
    ----------
    fitted : Raptor or None
        None where it was read from a folder: :attr:`raptor` loads it from there when asked for.
    histories : dict of int to History
        By stage.
    options : mapping
        What was asked for: teacher, images, assignment, recipe.
    images_seen : int
        In all steps of both stages.
    parameters : int
        Of the Raptor.
    folder : Path or None
        That it was read from.
    tried : sequence of mapping
        Learning rates that were tried first, as :func:`brdyn.raptor.rates.tried_rates` gives them; empty where none
        were.

    Examples
    --------
    >>> from brdyn.raptor import FitSettings
    >>> settings = FitSettings(stage1_steps=2, stage2_steps=0, batch_size=4, mlp_ratio=1.0, log_every=1)
    >>> fit = brdyn.fit_raptor(model, images, [0] * 12, settings)
    >>> [row["step"] for row in fit.histories[1].losses]
    [1.0, 2.0]
    """

    FILE: ClassVar[str] = "fit.json"
    SHAPE: ClassVar[Mapping[str, Any]] = {
        "images_seen": int,
        "options": {"assignment": [int], "recipe": dict},
        "raptor": {"parameters": int},
        "stages": {str: History},
        "tried_rates?": TRIED,
    }
    TIMED: ClassVar[bool] = False
    ROW_OF: ClassVar[tuple[str, ...]] = ("stage",)

    fitted: Raptor | None
    histories: Mapping[int, History]
    options: Mapping[str, Any]
    images_seen: int
    parameters: int
    folder: Path | None = None
    tried: Sequence[Mapping[str, Any]] = ()

    @cached_property
    def raptor(self) -> Raptor:
        """The Raptor, loaded with its teacher where it was read from a folder."""
        if self.fitted is not None:
            return self.fitted
        loaded = load_model(str(self.folder))
        assert isinstance(loaded, Raptor)
        return loaded

    def content(self) -> dict[str, Any]:
        """What was asked for, and losses and validation by stage."""
        return {
            "images_seen": self.images_seen,
            "options": self.options,
            "raptor": {"config": CONFIG, "weights": WEIGHTS, "parameters": self.parameters},
            "stages": {str(stage): asdict(history) for stage, history in self.histories.items()},
            **({"tried_rates": list(self.tried)} if self.tried else {}),
        }

    def others(self) -> Mapping[str, bytes]:
        """The Raptor: its config and weights."""
        return self.raptor.to_files(recipe=self.options["recipe"])

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from a fit.json; the Raptor beside it is loaded when it is asked for."""
        histories = {int(stage): history for stage, history in content["stages"].items()}
        parameters = content["raptor"]["parameters"]
        tried = content.get("tried_rates", ())
        return cls(None, histories, content["options"], content["images_seen"], parameters, folder, tried)

    @property
    def batch_size(self) -> int | None:
        """Images of a step; None where the recipe does not say."""
        found: int | None = self.options["recipe"].get("batch_size")
        return found

    def too_short(self) -> str:
        """That R² on images kept out still rose at the end, in words; empty where it did not, or none were watched."""
        stage = max(self.histories, default=0)
        rows = self.histories[stage].validation if stage else []
        ends = {name: [row for row in rows if row["step"] >= late * rows[-1]["step"]] for name, late in LATE.items()}
        part, last = next(((name, end) for name, end in ends.items() if len(end) > 1), ("", []))
        names = {name for name in (set.intersection(*map(set, last)) if last else ()) if name.startswith("r2")}
        if not names:
            return ""
        before, after = (fmean(row[name] for name in names) for row in (last[0], last[-1]))
        if after - before < RISE:
            return ""
        return (
            f"too short: R² on images kept out still rose from {before:.3f} to {after:.3f} in the last {part} of "
            f"stage {stage}; fit for more `steps`"
        )

    def answer(self) -> str:
        """How near the blocks come to the teacher on images kept out of training."""
        assignment = self.options["assignment"]
        done = f"{counted(len(set(assignment)), 'block')} for {counted(len(assignment), 'layer')}"
        last = max(self.histories, default=0)
        validation = self.histories[last].validation if self.histories else []
        names = [name for name in validation[-1] if name != "step"] if validation else []
        if not names:
            return f"{done}, fitted; no image that was kept out judged it (`brdyn raptor-eval` judges)"
        if last == 2:  # in a row, blocks are as near as the last one is; in stage 1 each stands by itself
            _, _, place = names[-1].partition(" ")
            names = [name for name in names if name.endswith(f" {place}")]
        found = ", ".join(f"{watched_as(name)} {validation[-1][name]:.3f}" for name in names)
        return f"{done}: at the end of stage {last}, on images kept out, {found}"

    def overview(self) -> list[dict[str, Any]]:
        """The last losses and validation of each stage: of every block, and then of the layers where blocks end."""
        rows = []
        for stage, history in self.histories.items():
            losses = {name: value for name, value in history.losses[-1].items() if name not in ("step", "lr")}
            watched = history.validation[-1] if history.validation else {}
            places = [name.partition(" ")[2] for name in watched if name != "step"]
            rows += [
                {
                    "stage": stage, "of": of, "loss": losses.get(of), "R²": watched.get(f"r2 {of}"),
                    "skill over doing nothing": watched.get(f"{SKILL}{of}"),
                }
                for of in dict.fromkeys([*losses, *places])
            ]  # fmt: skip
        return rows

    def remarks(self) -> list[str]:
        """Which layers a block does, size, speed, and whether it was too short."""
        seconds = sum(history.seconds for history in self.histories.values())
        places = ", ".join(
            f"{span.start + 1}-{span.end} by block {span.block + 1}" for span in spans(self.options["assignment"])
        )
        teacher = None if self.provenance is None else self.provenance.details["model"].get("parameters")
        return [
            f"layers {places}",
            f"{self.parameters / 1e6:.1f} M parameters"
            + (f" of the teacher's {teacher / 1e6:.1f} M" if teacher else ""),
            f"{self.images_seen} images in {seconds:.1f} s ({self.images_seen / max(seconds, 1e-9):.1f} images/s)",
            *([in_words(self.tried)] if self.tried else []),
            *([short] if (short := self.too_short()) else []),
        ]

    def brief(self) -> str:
        """Blocks, layers, steps."""
        assignment = self.options["assignment"]
        return f"{len(set(assignment))} blocks for {len(assignment)} layers, {self.images_seen} images seen"


@checked
@with_gradients
def fit_raptor(
    teacher: VisionTransformer,
    images: ImageSet,
    phases: Phases | Sequence[int],
    settings: FitSettings | None = None,
    *,
    session: Session | None = None,
    workers: int | None = None,
    cache: ActivationCache | None = None,
) -> Fit:
    """Distil a teacher into shared blocks.

    The teacher runs beside the student, so no activations are stored, unless a cache of them is given.

    Parameters
    ----------
    teacher : VisionTransformer
    images : ImageSet
        Some are kept out for validation. Its report then says how many were seen, epoch after epoch, by all processes
        and in all sessions.
    phases : Phases, or sequence of int
        Which layers share a block: phases, the last layer of each but the last, or the block of each of the L layers
        (see :func:`brdyn.phases.as_assignment`).
    settings : FitSettings, optional
    session : Session, optional
        Checkpoints, of the :func:`fit_options`; what to go on from, tracker, progress bar; the device, by default the
        teacher's.
    workers : int, optional
        Loader processes.
    cache : ActivationCache, optional
        Of these images, filled: states are read from it instead of running the teacher.

    Returns
    -------
    Fit

    Raises
    ------
    UsageError
        If the images do not fill a batch, or the assignment does not fit the teacher; if checkpoints are of another
        fit; if rates are to be tried, and no images are kept out to judge them by, or several processes share the work.
    BrdynError
        If a loss is not finite.

    Examples
    --------
    >>> from brdyn.raptor import FitSettings
    >>> settings = FitSettings(stage1_steps=1, stage2_steps=1, batch_size=4, mlp_ratio=1.0)
    >>> fit = brdyn.fit_raptor(model, images, [0] * 6 + [1] * 6, settings)
    >>> fit.raptor.k, fit.raptor(next(images.batches(2)).images).shape
    (2, torch.Size([2, 5, 192]))
    """
    if teacher.precision != "float32":
        raise UsageError(
            f"{teacher.info.name!r} is in {teacher.precision}, and a Raptor is fitted to a teacher in float32; load it "
            "so, and let the fit compute in bfloat16 (its settings' precision)"
        )
    settings, session = settings or FitSettings(), session or Session()
    accelerator, checkpoints, resume = session.on(teacher.device), session.checkpoints, session.resume
    watch = Stopwatch() if checkpoints is None else checkpoints.watch
    assignment = as_assignment(phases, teacher.depth, repr(teacher.info.name))
    raptor = untrained(teacher, assignment, settings.block(teacher), settings.seed)
    raptor.shared.requires_grad_(True)
    learning, held_out = images.split(settings.held_out(len(images)), settings.seed)
    settings = settings.fitted_to(len(learning))
    world = accelerator.num_processes
    options = fit_options(teacher, images, assignment, settings, world, cached=cache is not None)
    session.check(options)
    tried: Sequence[Mapping[str, Any]] = ()
    if settings.try_rates:
        if world > 1:
            raise UsageError("`try_rates` is of one process; try them in one, and give `lr` and `stage2_lr` here")
        alone = Session(accelerator=accelerator, progress=session.progress)

        def short(trial: FitSettings) -> Raptor:
            return fit_raptor(teacher, images, assignment, trial, session=alone, workers=workers, cache=cache).raptor

        earlier = resume.state.get("tried_rates") if resume is not None else None
        tried = earlier or tried_rates(settings, held_out, short)
        settings = with_rates(settings, tried)
    if settings.begins != RANDOM and resume is None:
        tie(raptor, settings.begins, learning.some(START_IMAGES, settings.seed))
    learning.report = learning.nothing_read()  # what was read before is not of the fit
    turn = crops(teacher, settings.seed) if settings.augment else None
    batches = ShuffledBatches(learning, settings.training(1).batch_size, settings.seed, workers, turn=turn)
    if cache is not None:
        if turn is not None:
            raise UsageError("`augment` sees each image anew, and a `cache` keeps how it was seen; drop one")
        cache.check(teacher, images)
        batches = replace(batches, reader=cache.reader(learning), item_bytes=cache.image_bytes)
    read = online(teacher) if cache is None else from_cache(teacher)
    validation = [] if held_out is None else _watched(held_out, batches.batch_size)
    raptor.to(accelerator.device)
    histories: dict[int, History] = {}
    if resume is not None:
        earlier = resume.state.get("earlier", {})
        histories = {stage: take(earlier[str(stage)], History) for stage in STAGES if str(stage) in earlier}
    for stage, steps in zip(STAGES, (settings.stage1_steps, settings.stage2_steps), strict=True):
        if not steps or (resume is not None and resume.stage > stage):
            continue
        here = resume if resume is not None and resume.stage == stage else None
        task = stage_task(stage, raptor, teacher, settings, validation, read)
        histories[stage] = train(
            task,
            batches,
            settings.training(stage),
            session=replace(session, accelerator=accelerator, resume=here),
            stage=stage,
            earlier={str(number): asdict(history) for number, history in histories.items()},
            also={"tried_rates": tried} if tried else None,
        )
        last = stage == 2 or not settings.stage2_steps
        if settings.ema and last:
            task.parts.load_state_dict(task.average)
    processes = Processes(accelerator.device, accelerator.process_index, world)
    images.report = processes.gather(batches.images.report)
    if held_out is not None:
        images.report.skipped = sorted({*images.report.skipped, *held_out.report.skipped})
    if cache is not None:
        images.report.digest = cache.digest()
    raptor.settled()
    raptor.info = replace(raptor.info, weights="fitted in this process (not saved)")
    seen = (settings.stage1_steps + settings.stage2_steps) * batches.batch_size
    unread = {one.name for one in images.report.skipped} - {one.name for one in images.source.unlisted}
    origin = Provenance.of(teacher, images, watch, seed=settings.seed)
    origin = replace(origin, n_images=len(images) - len(unread), details={**origin.details, "processes": world})
    return Fit(raptor, histories, options, seen, raptor.info.parameters, tried=tried, provenance=origin)


def _watched(held_out: ImageSet, batch_size: int) -> list[Batch]:
    """The images that the fit is judged by; none, which is told, where none can be read."""
    try:
        return list(held_out.batches(batch_size, workers=0))
    except BrdynError:
        if held_out.strict or held_out.report.count or not held_out.report.skipped:
            raise
    tell(f"none of the {len(held_out)} images kept out could be read: the fit goes on, and nothing judges it")
    return []


def crops(teacher: VisionTransformer, seed: int) -> PairTransform:
    """What `augment` does to an image."""
    seen = teacher.preprocessing
    return PairTransform(seen.image_size, seen.mean, seen.std, Augmentation(CROPS, seed=seed))


@checked
def fit_options(
    teacher: VisionTransformer,
    images: ImageSet,
    assignment: Sequence[int],
    settings: FitSettings,
    processes: int = 1,
    *,
    cached: bool = False,
) -> dict[str, Any]:
    """What a fit is asked for, as its checkpoints and its fit.json keep it: another fit has others.

    >>> from brdyn.raptor import FitSettings, fit_options
    >>> options = fit_options(model, images, [0] * 12, FitSettings())
    >>> options["images"]["chosen"], options["recipe"]["batch_size"]
    (8, 8)
    """
    settings = settings.fitted_to(len(images) - settings.held_out(len(images)))
    options: dict[str, Any] = {
        "teacher": {
            "name": teacher.info.name,
            "digest": teacher.info.digest,
            "preprocessing": teacher.preprocessing.to_dict(),
        },
        "images": images.identity(),
        "assignment": list(assignment),
        "recipe": settings.to_dict(),
        "learning_rates": None if settings.try_rates else [settings.training(stage).lr for stage in STAGES],
        "processes": processes,
    }
    return {**options, "cached": True} if cached else options
