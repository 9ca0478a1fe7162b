"""`brdyn perturb`: does the model forget noise that is added at some depth?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from brdyn.choices import check_eps, separated
from brdyn.cli.checks import check_file
from brdyn.cli.given_phases import NumberOfPhases, PhasesFile, describe, read_phases
from brdyn.cli.options import parse_numbers
from brdyn.cli.run import Run, RunRequest, open_run, run_command
from brdyn.results import OutputFolder, records

if TYPE_CHECKING:
    from brdyn.interventions import Repair
    from brdyn.phases import Phases

PERTURBATION = "Perturbation"


@run_command
def perturb(
    request: RunRequest,
    eps: Annotated[
        str,
        typer.Option(
            help="Norms of the noise over the norm of the token, joined by commas.",
            rich_help_panel=PERTURBATION,
        ),
    ] = "0.02,0.2",
    tokens: Annotated[
        str,
        typer.Option(
            help="What gets the noise, one after another: token groups (joined by + to get it together) and `all`, "
            "joined by commas. Each group and all when `each`.",
            rich_help_panel=PERTURBATION,
        ),
    ] = "each",
    layers: Annotated[
        str,
        typer.Option(
            help="Where: `all`, or layers from 0 (embedding) to L joined by commas.",
            rich_help_panel=PERTURBATION,
        ),
    ] = "all",
    phases: PhasesFile = None,
    k: NumberOfPhases = None,
) -> None:
    """Add noise at every layer and follow the angle to the clean states: is it repaired?

    Writes perturb.json, perturb.parquet (one row per start, eps, target, token group and layer), growth.parquet and
    pictures to --out. Noise is Gaussian, of the given size relative to each token.
    """
    sizes = parse_numbers("--eps", eps, float)
    starts = None if layers == "all" else [int(layer) for layer in parse_numbers("--layers", layers, int)]
    targets = None if tokens == "each" else separated(tokens)
    check_eps(sizes)
    check_file("--phases", phases)
    with open_run(request) as run:
        from brdyn.interventions import perturbation_repair
        from brdyn.interventions.repair import check_request
        from brdyn.measures import similarity_metric
        from brdyn.measures.engine import metric_device
        from brdyn.phases import segment

        check_request(run.model, sizes, targets, starts)
        given = read_phases(phases, run, k)
        similarity = similarity_metric("cosine", run.model, replicates=0, seed=run.seed)
        similarity.to(metric_device(run.model))
        found = perturbation_repair(
            run.model,
            run.images,
            eps=sizes,
            targets=targets,
            starts=starts,
            seed=run.seed,
            observe=similarity.update if given is None else None,
            **run.stream,
        )
        found_phases = segment(similarity.result(), k) if given is None else given
        if run.folder is not None:
            _write(run, run.folder, found, found_phases)
            _summarise(run, run.folder, found, found_phases)


def _write(run: Run, folder: OutputFolder, found: Repair, phases: Phases) -> None:
    from brdyn import plots

    largest = found.angles["eps"].max()
    pictures = (
        {"repair": plots.plot_repair(found, phases, eps=largest, title=run.title)}
        if (found.angles.loc[found.angles["eps"] == largest, "mean"] > 0).any()
        else {}
    )
    pictures["final_angle"] = plots.plot_final_angles(found, phases, title=run.title)
    if len(found.growth):
        pictures["growth"] = plots.plot_growth(found, phases, title=run.title)
    content = {
        **run.header(),
        "angles": records(found.angles),
        "growth": records(found.growth),
        "phases": phases.to_dict(),
        "provenance": run.provenance(),
    }
    files = {
        "perturb.parquet": found.angles.to_parquet(index=False),
        "growth.parquet": found.growth.to_parquet(index=False),
    }
    folder.save("perturb.json", content, pictures, run.formats, files)


def _summarise(run: Run, folder: OutputFolder, found: Repair, phases: Phases) -> None:
    run.summarise(run.watch.seconds)
    typer.echo(describe(phases))
    for (eps, target), rows in found.angles.groupby(["eps", "target"], sort=False):
        typer.echo(f"\nnoise of {eps:g} on {target}: angle at the last layer (radians)")
        last = rows[rows["layer"] == rows["layer"].max()]
        for group, curve in last.groupby("group", sort=False):
            ordered = curve.sort_values("start")
            worst = ordered.loc[ordered["mean"].idxmax()]
            growth = found.growth.query("eps == @eps and target == @target and group == @group")["mean"]
            rate = f"; grows by {growth.mean():+.2f} per layer on average" if len(growth) else ""
            typer.echo(
                f"  {group}: {ordered['mean'].iloc[0]:.4f} from noise at layer {ordered['start'].iloc[0]}, "
                f"{ordered['mean'].iloc[-1]:.4f} from layer {ordered['start'].iloc[-1]}, most "
                f"({worst['mean']:.4f}) from layer {worst['start']}{rate}"
            )
    typer.echo(f"\nwritten to {folder.path}: perturb.json, perturb.parquet, growth.parquet and pictures")
