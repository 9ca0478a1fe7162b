"""`brdyn dynamics`: how the tokens of a model move through depth."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brdyn.cli.run import Run, RunRequest, open_run, run_command
from brdyn.errors import UsageError
from brdyn.results import OutputFolder, read_json

if TYPE_CHECKING:
    from brdyn.measures.dynamics import Dynamics
    from brdyn.phases import Phases

DYNAMICS = "Dynamics"
BY_GROUP = ("convergence", "speed", "norm", "turning", "estimation_mean", "estimation_variance")
BY_LAYER = (
    "stable_rank",
    "effective_rank",
    "coherence",
    "tangent_stable_rank",
    "tangent_effective_rank",
    "cosine_to_mean",
)


@run_command
def dynamics(
    request: RunRequest,
    phases: Annotated[
        Path | None,
        typer.Option(
            help="phases.json of this model; found in the same pass when not given.", rich_help_panel=DYNAMICS
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option("--k", help="Number of phases, with or without --phases.", rich_help_panel=DYNAMICS),
    ] = None,
) -> None:
    """Measure how tokens move through depth: convergence, speed, norms, updates, estimation error.

    Writes dynamics.json, dynamics.parquet (one row per statistic, token group and layer) and pictures to --out.
    """
    from brdyn.phases import check_request

    with open_run(request) as run:
        check_request(k, run.model.depth, name=repr(request.model))
        given = read_phases(phases, run, k) if phases is not None else None

        from brdyn.measures.dynamics import token_dynamics

        found = token_dynamics(run.model, run.images, given, k=k, seed=run.seed, **run.stream)
        if run.folder is not None:
            _write(run, run.folder, found)
            _summarise(run, run.folder, found)


def read_phases(path: Path, run: Run, k: int | None) -> Phases:
    """The phases in a `phases.json` of the very model that is loaded.

    Raises
    ------
    UsageError
        If the file is not one, or of another model or other weights.
    """
    from brdyn.phases import Phases

    content = read_json(path, "a phases.json")
    info = run.model.info
    try:
        digest = content["provenance"]["model"]["digest"]
        found = Phases.from_dict(content)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{str(path)!r} is not a phases.json ({type(error).__name__}: {error})") from error
    if content.get("model") != info.name or found.layers != info.layers:
        raise UsageError(
            f"{str(path)!r} is of {content.get('model')!r} with {found.layers} layers, and this is {info.name!r} with "
            f"{info.layers}; give the phases.json of this model, or none"
        )
    if digest != info.digest:
        raise UsageError(f"{str(path)!r} is of other weights of {info.name!r}; run `brdyn phases` with these")
    return found if k is None else found.with_k(k)


def _write(run: Run, folder: OutputFolder, found: Dynamics) -> None:
    from brdyn import plots

    table, phases = found.table, found.phases
    pictures = {
        "convergence": plots.plot_curves(table, "convergence", phases, title=run.title),
        "speed": plots.plot_panels(
            table, {"angular speed": ["speed"], "turning": ["turning"]}, phases, title=run.title
        ),
        "norm": plots.plot_curves(table, "norm", phases, title=run.title, log=True),
        "estimation": plots.plot_panels(
            table, {"mean": ["estimation_mean"], "variance": ["estimation_variance"]}, phases, title=run.title
        ),
    }
    if "patches" in found.groups("stable_rank"):
        pictures["update_rank"] = plots.plot_panels(
            table,
            {
                "effective rank": ["effective_rank", "tangent_effective_rank"],
                "stable rank": ["stable_rank", "tangent_stable_rank"],
                "coherence": ["coherence", "cosine_to_mean"],
            },
            phases,
            title=run.title,
        )
    content = {
        **run.header(),
        **{name: {group: found.curve(name, group) for group in found.groups(name)} for name in BY_GROUP},
        **{name: found.curve(name) for name in BY_LAYER if found.groups(name)},
        "layers": {name: int(rows["layer"].min()) for name, rows in table.groupby("statistic", sort=False)},
        "phases": phases.to_dict(),
        "alignment": {group: asdict(test) if test else None for group, test in found.alignment.items()},
        "table": table.to_dict(orient="records"),
        "provenance": run.provenance(),
    }
    extra: dict[str, Any] = {"dynamics.parquet": table.to_parquet(index=False)}
    folder.save("dynamics.json", content, pictures, run.formats, extra)


def _summarise(run: Run, folder: OutputFolder, found: Dynamics) -> None:
    run.summarise()
    intervals = ", ".join(
        f"{first}-{last}" if last > first else f"{first}" for first, last in found.phases.intervals
    )
    typer.echo(f"phases: layers {intervals} ({found.phases.k_rule})\n")
    for group in found.groups("speed"):
        convergence, speed = found.curve("convergence", group), found.curve("speed", group)
        half = next(layer for layer, value in enumerate(convergence) if value >= 0.5)
        typer.echo(
            f"{group}: direction within 60 degrees of its end from layer {half} on; angular speed "
            f"{speed.min():.2f} to {speed.max():.2f} radians per layer, fastest at update {speed.argmax()}"
        )
        test = found.alignment[group]
        if test is not None:
            typer.echo(
                f"  change of speed {test.at_boundaries:.3f} at phase boundaries, {test.inside:.3f} inside "
                f"(permutation p = {test.p_value:.3f})"
            )
    if found.groups("effective_rank"):
        effective, coherence = found.curve("effective_rank"), found.curve("coherence")
        typer.echo(
            f"patch updates: effective rank {effective[0]:.0f} at first, {effective.max():.0f} at most "
            f"(update {effective.argmax()}), {effective[-1]:.0f} at last; coherence {coherence[0]:.2f} at first, "
            f"{coherence.min():.2f} at least, {coherence[-1]:.2f} at last"
        )
    typer.echo(f"written to {folder.path}: dynamics.json, dynamics.parquet and pictures")
