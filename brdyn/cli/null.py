"""Untrained twins beside what a command measures: --null."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from brdyn.choices import MOST_TWINS

if TYPE_CHECKING:
    from collections.abc import Callable

    from brdyn.cli.run import Run
    from brdyn.measures.null import BesideTwins
    from brdyn.models import VisionTransformer
    from brdyn.phases import Phases

Null = Annotated[
    int,
    typer.Option(
        "--null",
        help="Measure this many untrained twins besides: networks of the same architecture with random weights, drawn "
        "by the seeds after --seed, on the same images and phases. Each takes as long as the model.",
        min=0,
        max=MOST_TWINS,
        rich_help_panel="Null",
    ),
]


def check_null(model: VisionTransformer, null: int) -> None:
    """Refuse to draw twins of a model that nothing is known to initialise.

    Raises
    ------
    UsageError
    """
    from brdyn.models.twins import check_redraws

    if null:
        check_redraws(model)


def measured(
    run: Run, null: int, measure: Callable[..., BesideTwins], phases: Phases | None, **options: Any
) -> BesideTwins:
    """What a command measures of its model, beside as many twins as were asked for."""
    from brdyn.measures.null import with_null
    from brdyn.models import untrained_twins

    twins = untrained_twins(run.model, null, run.seed)
    return with_null(measure, run.model, run.images, phases, twins=twins, stream=run.stream, seed=run.seed, **options)
