"""The phases a command refers to: read from a phases.json, or found here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brdyn.cli.run import Run
from brdyn.errors import UsageError
from brdyn.results import read_json, reading
from brdyn.words import shortened

if TYPE_CHECKING:
    from brdyn.phases import Phases

PANEL = "Phases"
WHAT = "a phases.json"
SHAPE = {"model": str, "provenance": {"model": {"digest": str}}}  # besides the phases

PhasesFile = Annotated[
    Path | None,
    typer.Option(
        "--phases",
        help="phases.json of this model; phases are found here when not given.",
        rich_help_panel=PANEL,
    ),
]
NumberOfPhases = Annotated[
    int | None,
    typer.Option("--k", help="Number of phases, with or without --phases.", min=1, rich_help_panel=PANEL),
]


def read_phases(path: Path | None, run: Run, k: int | None) -> Phases | None:
    """The phases in a `phases.json` of the very model that is loaded; None without a path.

    Raises
    ------
    UsageError
        If k is impossible, or the file is not a phases.json, or of another model or other weights.
    """
    from brdyn.phases import Phases, check_request

    info = run.model.info
    check_request(k, info.layers, name=repr(info.name))
    if path is None:
        return None
    content = read_json(path, WHAT, SHAPE)
    with reading(path, WHAT):
        found = Phases.from_dict(content)
    if content["model"] != info.name or found.layers != info.layers:
        raise UsageError(
            f"{str(path)!r} is of {shortened(content['model'])!r} with {found.layers} layers, and this is "
            f"{info.name!r} with {info.layers}; give the phases.json of this model, or none"
        )
    if content["provenance"]["model"]["digest"] != info.digest:
        raise UsageError(f"{str(path)!r} is of other weights of {info.name!r}; run `brdyn phases` with these")
    return found if k is None else found.with_k(k)


def read_or_find_phases(path: Path | None, run: Run, k: int | None, at_most: int | None = None) -> Phases:
    """As :func:`read_phases`, or found in a pass over the images of the run, or over `at_most` drawn of them."""
    from brdyn.measures import layer_similarity
    from brdyn.phases import segment

    given = read_phases(path, run, k)
    if given is not None:
        return given
    images = run.images
    if at_most is not None and len(images) > at_most:
        images = images.split(at_most, run.seed)[1] or images
    similarity = layer_similarity(run.model, images, replicates=0, seed=run.seed, **run.stream)
    return segment(similarity, k)


def describe(phases: Phases) -> str:
    """`phases: layers 1-2, 3-6 (rule)`."""
    intervals = ", ".join(
        f"{first}-{last}" if last > first else f"{first}" for first, last in phases.intervals
    )
    return f"phases: layers {intervals} ({phases.k_rule})"
