"""`brdyn raptor-fit`: distil a ViT into a few blocks that are applied again and again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brdyn.choices import one_of
from brdyn.cli import options as opt
from brdyn.cli.checks import at_home, check_file
from brdyn.cli.given_phases import NumberOfPhases, PhasesFile, read_or_find_phases, read_phases
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
from brdyn.raptor.partitions import CONTIGUOUS, PARTITIONS, assign, random_contiguous
from brdyn.raptor.recipe import BATCH, STEPS, FitSettings
from brdyn.results import OutputFolder
from brdyn.training.settings import CHECKPOINTS
from brdyn.training.unfinished import TRACKER

if TYPE_CHECKING:
    from brdyn.raptor import ActivationCache, Fit

RAPTOR = "Raptor"
PHASE_IMAGES = 1000  # drawn for finding phases, where none are given
RESULT = "fit.json"
HELPS = {
    "lr": "Learning rate of AdamW (default: 0.0003; in a stage 1 of fewer steps than published up to 0.0012).",
    "stage2_lr": "Of stage 2, where it is another.",
    "min_lr": "Learning rate at the last step.",
    "weight_decay": "Of AdamW.",
    "warmup": "Share of each stage's steps in which the learning rate rises (published: 10 000 of 312 500).",
    "clip": "Largest gradient norm of each block; 0 for none.",
    "accumulate": "Pieces that a batch goes through in.",
    "ema": "Decay of an average of the weights, which is then the result; 0 for none.",
    "compile": "Compile the blocks.",
    "annealed": "Share of stage 1 in which teacher forcing gives way to autoregression.",
    "teacher_forcing_only": "Never let teacher forcing give way.",
    "token_weighting": "Weigh cls, registers and patches apart.",
    "loss": "mse or cosine+mse.",
    "sigma": "Noise on the inputs of blocks.",
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
    ] = "maxcut",
    partition_seed: Annotated[
        int,
        typer.Option(
            help="Which random partition; each is another one, and none that of --phases.",
            min=0,
            rich_help_panel=RAPTOR,
        ),
    ] = 0,
    steps: Annotated[
        int, typer.Option(help="Steps of both stages together.", min=1, rich_help_panel=RAPTOR)
    ] = STEPS,
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
    tracker: Tracker = "none",
    **recipe: Any,
) -> None:
    """Fit one shared block to each phase of a ViT: is its computation recurrent?

    Stage 1 trains every block alone on its layers, stage 2 all of them joined. Writes the Raptor (config.json,
    model.safetensors), fit.json and fit.png to --out; `--model OUT` then loads it in every other command.
    """
    settings = _settings(request, steps, stage1_steps, stage2_steps, recipe)
    one_of("partition", partition, PARTITIONS)
    ends = (
        None if boundaries is None else [int(end) for end in parse_numbers("--boundaries", boundaries, int)]
    )
    _check_one_way(boundaries, phases, k, partition)
    check_file("--phases", phases)
    states = None if cache is None else at_home(cache, "--cache")
    check_resume(resume, previous)
    check_tracker(tracker)
    with open_run(request, float32=True, go_on_with=to_go_on_with(resume, RESULT)) as run:
        from brdyn.raptor import fit_raptor
        from brdyn.training import Checkpoints
        from brdyn.training.loop import make_accelerator

        accelerator = make_accelerator(run.model.device)  # before trackers, which log by its state
        is_main = run.processes.is_main
        settings = _fitted_to(run, settings)
        assignment = _assignment(run, phases, ends, partition, partition_seed, k)
        options = {
            "teacher": {"name": run.model.info.name, "digest": run.model.info.digest},
            "images": run.images.identity(),
            "assignment": assignment,
            "recipe": settings.to_dict(),
            "learning_rates": [settings.training(stage).lr for stage in (1, 2)],
            "processes": run.processes.world,
        }
        if states is not None:
            options["cached"] = True
        checkpoints = Checkpoints(request.out / CHECKPOINTS, options, anew=not resume, watch=run.watch)
        saved = checkpoint_to_resume(request.out, RESULT, checkpoints, resume, previous, say=is_main)
        if run.folder is not None:
            run.folder.begin(options, [TRACKER])
        before = {1: 0, 2: settings.stage1_steps}
        with open_tracker(tracker, request.out, before, is_main=is_main) as report:
            activations = _cache(run, states, request.workers) if states is not None else None
            fit = fit_raptor(
                run.model,
                run.images,
                assignment,
                settings,
                checkpoints=checkpoints,
                resume=saved,
                accelerator=accelerator,
                workers=request.workers,
                cache=activations,
                report=report,
                progress=True,
            )
        if run.folder is not None:
            _write(run, run.folder, fit, settings, options)
            run.folder.end()
            checkpoints.remove()
            _summarise(run, request.out, fit)


def _settings(
    request: RunRequest, steps: int, first: int | None, second: int | None, recipe: dict[str, Any]
) -> FitSettings:
    """The recipe from the options."""
    batch_size = parse_batch_size(request.batch_size)
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


def _check_one_way(boundaries: str | None, phases: Path | None, k: int | None, partition: str) -> None:
    """Refuse --boundaries beside what else says which layers share a block."""
    others = {"--phases": phases, "--k": k, f"--partition {CONTIGUOUS}": partition == CONTIGUOUS or None}
    given = [name for name, value in others.items() if value is not None]
    if boundaries is not None and given:
        raise UsageError(f"--boundaries says it all; drop {' and '.join(given)}")


def _fitted_to(run: Run, settings: FitSettings) -> FitSettings:
    """With a batch that the images fill, which is said where it is none of the usual size."""
    learning, _ = run.images.split(settings.held_out(len(run.images)), settings.seed)
    found = settings.fitted_to(len(learning))
    if run.processes.is_main:
        say_batch(found.training(1).batch_size, BATCH, settings.batch_size)
    return found


def _assignment(
    run: Run, phases: Path | None, ends: list[int] | None, partition: str, seed: int, k: int | None
) -> list[int]:
    """The block of each layer."""
    layers = run.model.depth
    if partition == CONTIGUOUS:
        if k is None:
            raise UsageError("--partition random-contiguous needs --k")
        given = read_phases(phases, run, k)
        return random_contiguous(k, layers, seed, given.boundaries if given else ())
    if ends is None:
        ends = list(read_or_find_phases(phases, run, k, PHASE_IMAGES).boundaries)
    return assign(partition, ends, layers, seed)


def _cache(run: Run, folder: Path, workers: int | None) -> ActivationCache:
    """The teacher's states on disk, those that are missing made first."""
    from brdyn.raptor import ActivationCache

    found = ActivationCache(folder, run.model, run.images)
    if run.processes.is_main:
        found.prepare()
        typer.echo(found.describe())
    run.processes.wait()
    found.fill(workers=workers, processes=run.processes, progress=True)
    return found


def _write(run: Run, folder: OutputFolder, fit: Fit, settings: FitSettings, options: dict[str, Any]) -> None:
    from dataclasses import asdict

    from brdyn import plots
    from brdyn.pretrained import CONFIG, WEIGHTS

    content = {
        **run.header(),
        "n_images": len(run.images),
        "images_seen": (settings.stage1_steps + settings.stage2_steps) * settings.training(1).batch_size,
        "options": options,
        "raptor": {"config": CONFIG, "weights": WEIGHTS, "parameters": fit.raptor.info.parameters},
        "stages": {str(stage): asdict(history) for stage, history in fit.histories.items()},
        "provenance": run.provenance(),
    }
    pictures = {"fit": plots.plot_fit(fit.histories, title=f"Raptor of {run.title}")}
    folder.save(RESULT, content, pictures, run.formats, fit.raptor.to_files(recipe=settings.to_dict()))


def _summarise(run: Run, out: Path, fit: Fit) -> None:
    run.summarise(sum(history.seconds for history in fit.histories.values()))
    raptor, teacher = fit.raptor.info, run.model.info
    spans = ", ".join(f"{span.start + 1}-{span.end} by block {span.block + 1}" for span in fit.raptor.spans)
    typer.echo(f"{fit.raptor.k} blocks: layers {spans}")
    typer.echo(
        f"{raptor.parameters / 1e6:.1f} M parameters of the teacher's {teacher.parameters / 1e6:.1f} M"
    )
    for stage, history in fit.histories.items():
        losses = {name: value for name, value in history.losses[-1].items() if name not in ("step", "lr")}
        values = history.validation[-1] if history.validation else {}
        r2 = ", ".join(f"{name} {value:.3f}" for name, value in values.items() if name != "step")
        loss = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        typer.echo(f"stage {stage}: loss {loss}" + (f"; {r2}" if r2 else ""))
    typer.echo(f"written to {out}: config.json, model.safetensors, fit.json and fit.png")
