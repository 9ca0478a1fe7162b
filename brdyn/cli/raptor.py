"""`brdyn raptor-fit`: distil a ViT into a few blocks that are applied again and again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brdyn.choices import one_of
from brdyn.cli import options as opt
from brdyn.cli import output
from brdyn.cli.given_phases import GivenPhases, NumberOfPhases, PhasesFile
from brdyn.cli.options import parse_batch_size, parse_numbers
from brdyn.cli.run import Run, RunRequest, open_run, run_command
from brdyn.cli.training import (
    Previous,
    Resume,
    Tracker,
    check_resume,
    check_tracker,
    checkpoint_to_resume,
    open_tracker,
    say_batch,
    to_go_on_with,
)
from brdyn.errors import UsageError
from brdyn.raptor.partitions import CONTIGUOUS, MAXCUT, PARTITIONS, assign, random_contiguous
from brdyn.raptor.recipe import BATCH, STEPS, FitSettings
from brdyn.store.unfinished import CHECKPOINTS, TRACKER

if TYPE_CHECKING:
    from brdyn.models import VisionTransformer
    from brdyn.phases import Phases
    from brdyn.raptor import ActivationCache

RAPTOR = "Raptor"
PHASE_IMAGES = 1000  # drawn for finding phases, where none are given
RESULT = "fit.json"
HELPS = {
    "lr": "Learning rate (default: 0.0003; in a stage 1 of fewer steps than published up to 0.0012).",
    "stage2_lr": "Learning rate of stage 2 (default: --lr where that is given, else 3e-4).",
    "try_rates": "Try learning rates on short fits first, and take those that serve best.",
    "augment": "A random crop and flip of each image, another one in every epoch: for few images.",
    "min_lr": "Learning rate at the last step.",
    "weight_decay": "Of the optimizer.",
    "optimizer": "adamw, or muon for the weights of linear maps (wants a processor with bfloat16).",
    "warmup": "Share of each stage's steps in which the learning rate rises (published: 10 000 of 312 500).",
    "clip": "Largest gradient norm, of each block in stage 1 and of all together in stage 2; 0 for none.",
    "accumulate": "Pieces that a batch goes through in.",
    "ema": "Decay of an average of the weights, which is then the result; 0 for none.",
    "compile": "Compile the blocks.",
    "annealed": "Share of stage 1 in which teacher forcing gives way to autoregression.",
    "teacher_forcing_only": "Never let teacher forcing give way.",
    "token_weighting": "Weigh cls, registers and patches apart.",
    "loss": "mse, cosine+mse, or nmse (over the variance of each layer).",
    "norm_eps": "Of the LayerNorms of blocks.",
    "sigma": "Noise on the inputs of blocks.",
    "recipe": "published, or fast, which starts from layers of the teacher.",
    "start": "Where blocks start: random, layer (the teacher's that does best) or mean (default: as the recipe says).",
    "relax": "Rank of a correction to the weights at each layer; of copies of the teacher's blocks alone.",
    "mlp": "swiglu or gelu.",
    "mlp_ratio": "Hidden units of the MLP over the width.",
    "layer_scale": "Initial LayerScale.",
    "depth_scaling": "index, constant (an autonomous block) or none.",
    "validation_images": "Images kept out of training for R^2; 0 for none (default: 64, at most a tenth).",
    "log_every": "Steps between losses in fit.json.",
    "validate_every": "Steps between R^2.",
    "checkpoint_every": "Steps between checkpoints.",
}


BatchSize = Annotated[
    str,
    typer.Option(
        help=f"Images of a step, or `auto`: {BATCH}, at most all that are learned from.",
        rich_help_panel=opt.COMPUTE,
    ),
]


@dataclass(frozen=True, kw_only=True)
class FitRequest(RunRequest):
    """With the precisions and batch sizes that something can be trained in."""

    dtype: opt.TrainDtype = "float32"
    batch_size: BatchSize = "auto"


@run_command(request=FitRequest, recipe=FitSettings, helps=HELPS)
def raptor_fit(
    request: FitRequest,
    phases: PhasesFile = None,
    k: NumberOfPhases = None,
    boundaries: Annotated[
        str | None,
        typer.Option(help="Last layer of each phase but the last: 7,10.", rich_help_panel=RAPTOR),
    ] = None,
    partition: Annotated[
        str,
        typer.Option(
            help="Which layers share a block: maxcut (the phases), random-contiguous, random-shuffle.",
            rich_help_panel=RAPTOR,
        ),
    ] = MAXCUT,
    partition_seed: Annotated[
        int,
        typer.Option(
            help="Which random partition; each is another one, and none that of --phases.",
            min=0,
            rich_help_panel=RAPTOR,
        ),
    ] = 0,
    steps: Annotated[int, typer.Option(help="Steps of both stages together.", min=1, rich_help_panel=RAPTOR)] = STEPS,
    stage1_steps: Annotated[
        int | None, typer.Option(help="Steps of stage 1 (default: half).", min=0, rich_help_panel=RAPTOR)
    ] = None,
    stage2_steps: Annotated[
        int | None, typer.Option(help="Steps of stage 2 (default: the rest).", min=0, rich_help_panel=RAPTOR)
    ] = None,
    resume: Resume = False,
    previous: Previous = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Keep the teacher's states here (bfloat16) and read them, instead of running it at every step.",
            rich_help_panel=RAPTOR,
        ),
    ] = None,
    in_memory: Annotated[
        bool,
        typer.Option(
            help="Decode the images once and keep them in memory, for fits that see each many times.",
            rich_help_panel=RAPTOR,
        ),
    ] = False,
    tracker: Tracker = "none",
    **recipe: Any,
) -> None:
    """Fit one shared block to each phase of a ViT: is its computation recurrent?

    Stage 1 trains every block alone on its layers, stage 2 all of them joined. Writes the Raptor (config.json,
    model.safetensors), fit.json and fit.png to --out; `--model OUT` then loads it in every other command.
    """
    settings = _settings(request, steps, stage1_steps, stage2_steps, recipe)
    one_of("partition", partition, PARTITIONS)
    ends = None if boundaries is None else [int(end) for end in parse_numbers("--boundaries", boundaries, int)]
    _check_one_way(boundaries, phases, k, partition, partition_seed)
    given = GivenPhases.read(phases, k)
    if cache is not None and in_memory:
        raise UsageError("--in-memory keeps images, and --cache reads states in their place; drop one")
    if settings.augment and (in_memory or cache is not None):
        raise UsageError(
            f"--augment sees each image anew, and {'--in-memory' if in_memory else '--cache'} keeps how it was seen; "
            "drop one"
        )
    check_resume(resume, previous)
    check_tracker(tracker)

    def check(model: VisionTransformer) -> None:
        given.check(model)
        if ends is not None or given.phases is not None or partition == CONTIGUOUS:
            _assigned(model.depth, given.phases, ends, partition, partition_seed, k)

    go_on_with = to_go_on_with(resume, RESULT)
    with open_run(request, RESULT, float32=True, go_on_with=go_on_with, check=check) as run:
        from brdyn.raptor import fit_raptor
        from brdyn.raptor.fit import fit_options
        from brdyn.training import Checkpoints, Session
        from brdyn.training.session import make_accelerator

        accelerator = make_accelerator(run.model.device)  # before trackers, which log by its state
        is_main = run.processes.is_main
        settings = _fitted_to(run, settings)
        assignment = _assignment(run, given, ends, partition, partition_seed)
        world, cached = run.processes.world, cache is not None
        options = fit_options(run.model, run.images, assignment, settings, world, cached=cached)
        checkpoints = Checkpoints(request.out / CHECKPOINTS, options, anew=not resume, watch=run.watch)
        saved = checkpoint_to_resume(request.out, RESULT, checkpoints, resume, previous, say=is_main)
        if run.folder is not None:
            run.folder.begin(options, [TRACKER])
        before = {1: 0, 2: settings.stage1_steps}
        with open_tracker(tracker, request.out, before, is_main=is_main) as report:
            activations = _cache(run, cache, request.workers) if cache is not None else None
            session = Session(
                checkpoints=checkpoints, resume=saved, accelerator=accelerator, report=report, progress=True
            )
            images = run.images.decoded(request.workers, progress=is_main) if in_memory else run.images
            fit = fit_raptor(
                run.model,
                images,
                assignment,
                settings,
                session=session,
                workers=request.workers,
                cache=activations,
            )

        def end() -> None:
            assert run.folder is not None
            run.folder.end()
            checkpoints.remove()

        run.finish(fit, end)


def _settings(
    request: RunRequest, steps: int, first: int | None, second: int | None, recipe: dict[str, Any]
) -> FitSettings:
    """The recipe from the options."""
    batch_size = parse_batch_size(request.batch_size)
    _check_steps(steps, first, second)
    if first is None:
        first = steps // 2 if second is None else max(0, steps - second)
    return FitSettings(
        stage1_steps=first,
        stage2_steps=max(0, steps - first) if second is None else second,
        batch_size=None if isinstance(batch_size, str) else batch_size,
        precision=request.dtype,
        seed=request.seed,
        **recipe,
    )


def _check_steps(steps: int, first: int | None, second: int | None) -> None:
    """Refuse steps of stages that are not those of both together."""
    given = [count for count in (first, second) if count is not None]
    if len(given) == 2 and any(given) and steps not in (STEPS, sum(given)):  # none at all is refused as no fit
        raise UsageError(f"--stage1-steps and --stage2-steps are {sum(given)}, not --steps {steps}; drop one of them")
    if len(given) == 1 and given[0] > steps:
        name, other = ("1", "2") if second is None else ("2", "1")
        raise UsageError(
            f"--stage{name}-steps {given[0]} are more than --steps {steps} of both stages; give --stage{other}-steps, "
            "too (0 for none), or more --steps"
        )


def _check_one_way(boundaries: str | None, phases: Path | None, k: int | None, partition: str, seed: int) -> None:
    """Refuse --boundaries beside what else says which layers share a block, and a seed where nothing is drawn."""
    others = {"--phases": phases, "--k": k, f"--partition {CONTIGUOUS}": partition == CONTIGUOUS or None}
    given = [name for name, value in others.items() if value is not None]
    if boundaries is not None and given:
        raise UsageError(f"--boundaries already fixes the phases; drop {' and '.join(given)}")
    if seed and partition == MAXCUT:
        raise UsageError(f"--partition-seed {seed} is of random partitions; give --partition, too")
    if partition == CONTIGUOUS and k is None:
        raise UsageError(f"--partition {CONTIGUOUS} needs --k")


def _fitted_to(run: Run, settings: FitSettings) -> FitSettings:
    """With a batch that the images fill, which is said where it is none of the usual size."""
    learning, _ = run.images.split(settings.held_out(len(run.images)), settings.seed)
    found = settings.fitted_to(len(learning))
    if run.processes.is_main:
        say_batch(found.training(1).batch_size, BATCH, settings.batch_size)
    return found


def _assignment(run: Run, given: GivenPhases, ends: list[int] | None, partition: str, seed: int) -> list[int]:
    """The block of each layer, by phases that are found here where nothing else says it."""
    found = given.phases
    if ends is None and found is None and partition != CONTIGUOUS:
        from brdyn.measures.found_phases import find_phases

        some = run.images.some(PHASE_IMAGES, run.seed)
        found = find_phases(run.model, some, k=given.k, seed=run.seed, stream=run.stream)
    return _assigned(run.model.depth, found, ends, partition, seed, given.k)


def _assigned(
    layers: int, found: Phases | None, ends: list[int] | None, partition: str, seed: int, k: int | None
) -> list[int]:
    """The block of each layer."""
    own = found.boundaries if found is not None else ()
    if partition == CONTIGUOUS:
        assert k is not None
        return random_contiguous(k, layers, seed, own)
    return assign(partition, own if ends is None else ends, layers, seed)


def _cache(run: Run, folder: Path, workers: int | None) -> ActivationCache:
    """The teacher's states on disk, those that are missing made first."""
    from brdyn.raptor import ActivationCache

    found = ActivationCache(folder, run.model, run.images)
    if run.processes.is_main:
        found.prepare()
        output.mention(found.describe())
    run.processes.wait()
    found.fill(workers=workers, processes=run.processes, progress=True)
    return found
