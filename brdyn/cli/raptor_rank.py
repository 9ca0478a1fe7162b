"""`brdyn raptor-rank`: how far from recurrent a ViT is, by the rank that each layer needs of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from brdyn.choices import one_of
from brdyn.cli.checks import check_serves
from brdyn.cli.given_phases import GivenPhases, NumberOfPhases, PhasesFile
from brdyn.cli.options import WHOLE, parse_batch_size
from brdyn.cli.run import RunRequest, open_run, run_command
from brdyn.errors import UsageError
from brdyn.raptor.partitions import MAXCUT, PARTITIONS, SHUFFLE, assign, draws_of
from brdyn.raptor.partitions import RANDOM as RANDOM_PARTITIONS
from brdyn.raptor.recipe import LAYER, RANDOM, STARTS, FitSettings
from brdyn.words import counted

if TYPE_CHECKING:
    from brdyn.models import VisionTransformer

RANKS = "Ranks"
RESULT = "raptor_rank.json"
FULL = "full"
TESTED = 5  # one in so many images is judged by, where others are fitted to
FITTED_BATCH = 16
DRAWS = 3


@run_command
def raptor_rank(
    request: RunRequest,
    phases: PhasesFile = None,
    k: NumberOfPhases = None,
    ranks: Annotated[
        str, typer.Option(help="Ranks, joined by commas; `full` for the width.", rich_help_panel=RANKS)
    ] = "0,1,4,16,64,full",
    partitions: Annotated[
        str,
        typer.Option(
            help="Which layers share a block: some of maxcut (the phases), random-contiguous, random-shuffle.",
            rich_help_panel=RANKS,
        ),
    ] = ",".join(PARTITIONS),
    draws: Annotated[
        int, typer.Option(help="Of each random partition.", min=1, max=100, rich_help_panel=RANKS)
    ] = DRAWS,
    start: Annotated[
        str,
        typer.Option(help="The shared weights: layer (the teacher's that does best) or mean.", rich_help_panel=RANKS),
    ] = LAYER,
    steps: Annotated[
        int,
        typer.Option(help="Fit each for this many steps, too; 0 for none.", min=0, rich_help_panel=RANKS),
    ] = 0,
    lr: Annotated[float | None, typer.Option(help="Learning rate of these fits.", rich_help_panel=RANKS)] = None,
) -> None:
    """Share a ViT's own blocks among its layers, and see how much each layer needs of its own.

    At rank 0 all layers of a phase use the same weights; at full rank each has those of the teacher. A fifth of the
    images is judged by, the others choose the shared weights and are fitted to. Writes raptor_rank.json and ranks.png.
    """
    one_of("start", start, [one for one in STARTS if one != RANDOM])
    chosen = _partitions(partitions)
    check_serves("--draws", draws != DRAWS, RANDOM_PARTITIONS, chosen, "--partitions")
    wanted = parse_ranks(ranks)
    given = GivenPhases.read(phases, k)
    recipe = _settings(request, steps, lr)
    if request.dtype != "float32":
        raise UsageError("raptor-rank measures and fits in float32; drop --dtype")

    def check(model: VisionTransformer) -> None:
        given.check(model)
        resolved(wanted, model)
        if given.phases is not None:
            check_draws(chosen, draws, given.phases.boundaries, model.depth)
        elif given.k is not None:  # how many shuffles there are depends on where phases end, too
            sure = [name for name in chosen if name != SHUFFLE or given.k in (1, model.depth)]
            check_draws(sure, draws, range(1, given.k), model.depth)

    with open_run(request, RESULT, check=check, float32=True) as run:
        import brdyn
        from brdyn.cli.raptor import PHASE_IMAGES
        from brdyn.measures.found_phases import find_phases

        learning, test = run.images.split(max(1, len(run.images) // TESTED), run.seed)
        assert test is not None
        settings = recipe and _fitted_to(recipe, len(learning))
        found = given.phases
        if found is None:
            some = learning.some(PHASE_IMAGES, run.seed)
            found = find_phases(run.model, some, k=given.k, seed=run.seed, stream=run.stream)
        check_draws(chosen, draws, found.boundaries, run.model.depth)
        assignments = {}
        for name in chosen:
            for draw in range(1 if name == MAXCUT else draws):
                label = name if name == MAXCUT else f"{name} {draw + 1}"
                assignments[label] = assign(name, found.boundaries, run.model.depth, draw)
        run.finish(
            brdyn.raptor_ranks(
                run.model,
                test,
                assignments,
                resolved(wanted, run.model),
                start=start,
                settings=settings,
                fit_images=learning,
                stream=run.stream,
            )
        )


def check_draws(partitions: Sequence[str], draws: int, boundaries: Sequence[int], layers: int) -> None:
    """Refuse more draws of a random partition than there are.

    Raises
    ------
    UsageError
        With how many there are, and what to give instead.
    """
    for name in partitions:
        possible = draws_of(name, boundaries, layers)
        if name != MAXCUT and possible < draws:
            there = f"{'is' if possible == 1 else 'are'} {possible} of {name}"
            less = f"--draws {possible}, or " if possible else ""
            raise UsageError(
                f"--draws {draws}: with {counted(len(boundaries) + 1, 'phase')} of {layers} layers there {there}; "
                f"give {less}--partitions without it"
            )


def _settings(request: RunRequest, steps: int, lr: float | None) -> FitSettings | None:
    """The recipe of the fits, None where nothing is fitted."""
    if not steps:
        if lr is not None:
            raise UsageError("--lr is of fits, and there are none without --steps")
        return None
    batch_size = parse_batch_size(request.batch_size)
    return FitSettings(
        stage1_steps=steps // 2, stage2_steps=steps - steps // 2, lr=lr, seed=request.seed, validation_images=0,
        batch_size=None if isinstance(batch_size, str) else batch_size, start=LAYER,
    )  # fmt: skip


def _fitted_to(settings: FitSettings, images: int) -> FitSettings:
    """With a batch that so many images fill."""
    if settings.batch_size is None:
        return replace(settings, batch_size=min(FITTED_BATCH, images))
    return settings.fitted_to(images)


def _partitions(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        one_of("partition", name, PARTITIONS)
    return list(dict.fromkeys(names))


def parse_ranks(text: str) -> list[int | None]:
    """`0,8,full` as ranks, None for the full one.

    Raises
    ------
    UsageError
        If one is neither a number from 0 on nor `full`.
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if part != FULL and not WHOLE.fullmatch(part):
            raise UsageError(f"--ranks {text!r}: {part!r} is neither a rank from 0 on nor {FULL!r}")
    return [None if part == FULL else int(part) for part in parts]


def resolved(ranks: list[int | None], model: VisionTransformer) -> list[int]:
    """Ranks for a model.

    Raises
    ------
    UsageError
        If one is larger than its width.
    """
    width = model.info.width
    for rank in ranks:
        if rank is not None and rank > width:
            raise UsageError(
                f"--ranks {rank} is more than the width of {model.info.name!r}, {width}; {FULL!r} is the most there is"
            )
    return [width if rank is None else rank for rank in ranks]
