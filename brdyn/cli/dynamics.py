"""`brdyn dynamics`: how the tokens of a model move through depth."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from brdyn.choices import MEASURES, separated, some_of
from brdyn.cli.checks import check_file
from brdyn.cli.given_phases import NumberOfPhases, PhasesFile, describe, read_phases
from brdyn.cli.run import Run, RunRequest, open_run, run_command
from brdyn.results import OutputFolder, listed, records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from brdyn.measures.dynamics import Dynamics

DYNAMICS = "Dynamics"
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
    phases: PhasesFile = None,
    k: NumberOfPhases = None,
    measures: Annotated[
        str,
        typer.Option(
            help="`all` that the images allow, or some of norm, convergence, speed, turning, update, estimation, "
            "basins (needs labels), modes; joined by commas.",
            rich_help_panel=DYNAMICS,
        ),
    ] = "all",
    ridge: Annotated[
        float,
        typer.Option(help="Ridge of the modes, over the mean eigenvalue.", rich_help_panel=DYNAMICS),
    ] = 1e-3,
    rank: Annotated[
        int | None, typer.Option(help="Rank of the modes (default: full).", min=1, rich_help_panel=DYNAMICS)
    ] = None,
) -> None:
    """Measure how tokens move through depth: convergence, speed, norms, updates, estimation error, basins, modes.

    Writes dynamics.json, dynamics.parquet (one row per statistic, token group and layer) and pictures to --out.
    """
    chosen = None if measures == "all" else some_of("measure", separated(measures), MEASURES)
    check_file("--phases", phases)
    with open_run(request) as run:
        from brdyn.measures.dynamics import token_dynamics

        given = read_phases(phases, run, k)
        found = token_dynamics(
            run.model,
            run.images,
            given,
            measures=chosen,
            k=k,
            seed=run.seed,
            ridge=ridge,
            rank=rank,
            **run.stream,
        )
        if run.folder is not None:
            _write(run, run.folder, found)
            _summarise(run, run.folder, found)


def _write(run: Run, folder: OutputFolder, found: Dynamics) -> None:
    table = found.table
    content: dict[str, Any] = {
        **run.header(),
        **{
            name: listed(found.curve(name))
            if name in BY_LAYER
            else {group: listed(found.curve(name, group)) for group in found.groups(name)}
            for name in table["statistic"].unique()
        },
        "layers": {name: int(rows["layer"].min()) for name, rows in table.groupby("statistic", sort=False)},
        "phases": found.phases.to_dict(),
        "alignment": {group: asdict(test) if test else None for group, test in found.alignment.items()},
        "left_out": dict(found.left_out),
        "table": records(table),
    }
    files = {"dynamics.parquet": table.to_parquet(index=False)}
    if found.basins is not None:
        content["basins"] = found.basins.summary()
        files["basins.parquet"] = found.basins.projection.to_parquet(index=False)
    if found.modes is not None:
        content["modes"] = {
            **found.modes.summary(),
            "errors": records(found.modes.errors),
            "largest_eigenvalues": records(found.modes.spectrum.query("index < 10")),
        }
        files["modes.parquet"] = found.modes.errors.to_parquet(index=False)
        files["spectrum.parquet"] = found.modes.spectrum.to_parquet(index=False)
    content["provenance"] = run.provenance()
    folder.save("dynamics.json", content, _pictures(run.title, found), run.formats, files)


def _pictures(title: str, found: Dynamics) -> dict[str, Figure]:
    """A picture of every measure that was taken."""
    from brdyn import plots

    table, phases = found.table, found.phases
    panels = {
        "convergence": {"directional convergence": ["convergence"]},
        "speed": {"angular speed": ["speed"], "turning": ["turning"]},
        "norm": {"token norm": ["norm"]},
        "estimation": {"mean": ["estimation_mean"], "variance": ["estimation_variance"]},
        "update_rank": {
            "effective rank": ["effective_rank", "tangent_effective_rank"],
            "stable rank": ["stable_rank", "tangent_stable_rank"],
            "coherence": ["coherence", "cosine_to_mean"],
        },
    }
    pictures = {}
    for name, wanted in panels.items():
        there = {heading: names for heading, names in wanted.items() if found.groups(names[0])}
        if there:
            log = name == "norm"
            pictures[name] = plots.plot_panels(table, there, phases, title=title, log=log)
    if found.basins is not None:
        pictures["basins"] = plots.plot_basins(found.basins, phases, title=title)
        pictures["basins_projection"] = plots.plot_projection(found.basins, title=title)
    if found.modes is not None:
        pictures["modes"] = plots.plot_mode_errors(found.modes, phases, title=title)
        pictures["spectrum"] = plots.plot_spectra(found.modes, phases, title=title)
    return pictures


def _summarise(run: Run, folder: OutputFolder, found: Dynamics) -> None:
    run.summarise(run.watch.seconds)
    typer.echo(describe(found.phases) + "\n")
    for group in run.model.tokens.groups:
        for line in _motion(found, group):
            typer.echo(line)
    if found.groups("effective_rank"):
        typer.echo(_update_field(found))
    if found.basins is not None:
        typer.echo(_basins(found))
    if found.modes is not None:
        for line in _linearity(found):
            typer.echo(line)
    for name, why in found.left_out.items():
        typer.echo(f"left out: {name} ({why})")
    typer.echo(f"written to {folder.path}: dynamics.json, dynamics.parquet and pictures")


def _motion(found: Dynamics, group: str) -> list[str]:
    """Convergence and speed of a token group, in a sentence or two."""
    parts = []
    if group in found.groups("convergence"):
        convergence = found.curve("convergence", group)
        half = max((layer for layer, value in enumerate(convergence) if value < 0.5), default=-1) + 1
        parts.append(f"direction within 60 degrees of its end from layer {half} on")
    if group in found.groups("speed"):
        speed = found.curve("speed", group)
        parts.append(
            f"angular speed {speed.min():.2f} to {speed.max():.2f} radians per layer, "
            f"fastest at update {speed.argmax()}"
        )
    lines = [f"{group}: {'; '.join(parts)}"] if parts else []
    test = found.alignment.get(group)
    if test is not None:
        lines.append(
            f"  change of speed {test.at_boundaries:.3f} at phase boundaries, {test.inside:.3f} inside "
            f"(permutation p = {test.p_value:.3f})"
        )
    return lines


def _update_field(found: Dynamics) -> str:
    """Rank and coherence of the updates, in a sentence. Updates that move nothing have neither."""
    effective, coherence = (found.curve(name) for name in ("effective_rank", "coherence"))
    moving = np.flatnonzero(np.isfinite(effective))
    if not len(moving):
        return "no update moves a token: there is neither rank nor coherence"
    first, most, last = moving[0], np.nanargmax(effective), moving[-1]
    group = found.groups("effective_rank")[-1]
    return (
        f"updates of {group}: effective rank {effective[first]:.0f} at first, "
        f"{effective[most]:.0f} at most (update {most}), {effective[last]:.0f} at last; coherence "
        f"{coherence[first]:.2f} at first, {np.nanmin(coherence):.2f} at least, {coherence[last]:.2f} at last"
    )


def _basins(found: Dynamics) -> str:
    """How near the images of a class end, in a sentence."""
    assert found.basins is not None
    group = found.basins.projected_group
    ratio, purity = found.curve("basin_ratio", group)[-1], found.curve("knn_purity", group)[-1]
    if not np.isfinite(ratio):
        return f"basins of {group} at the end: all images have one direction, so there are neither ratio nor purity"
    return (
        f"basins of {group} at the end: angle within over between classes {ratio:.2f}, purity of "
        f"{found.basins.neighbours} neighbours {purity:.2f} (chance {found.basins.chance:.2f})"
    )


def _linearity(found: Dynamics) -> list[str]:
    """How well one linear operator does over the longest phase of each group."""
    assert found.modes is not None
    rows = found.modes.errors.query("measure == 'cosine'")
    longest = rows.sort_values("steps", ascending=False).iloc[0]
    chosen = rows[(rows["phase"] == longest["phase"]) & (rows["steps"] == longest["steps"])]
    first, last = found.phases.intervals[int(longest["phase"]) - 1]
    return [
        f"modes, layers {first}-{last}, {group}: cosine to the end of the phase {part['operator']:.2f} by one operator "
        f"applied {longest['steps']} times, {part['endpoint']:.2f} by the best linear map, {part['identity']:.2f} by "
        "the identity"
        for group, part in chosen.pivot(index="group", columns="predictor", values="mean").iterrows()
    ]
