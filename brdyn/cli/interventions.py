"""`brdyn interventions`: swap, delete, shuffle and replace layers, and see what becomes of the representation."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brdyn.choices import KINDS, separated, some_of
from brdyn.cli.checks import check_file
from brdyn.cli.given_phases import NumberOfPhases, PhasesFile, describe, read_or_find_phases
from brdyn.cli.run import Run, RunRequest, open_run, run_command
from brdyn.results import OutputFolder, listed, records

if TYPE_CHECKING:
    import pandas as pd

    from brdyn.interventions import Surgery, WithinAcross

INTERVENTIONS = "Interventions"
WORDS = {"swap": "swapping two layers", "delete": "deleting a layer", "replace": "replacing a layer"}


@run_command
def interventions(
    request: RunRequest,
    kinds: Annotated[
        str,
        typer.Option(
            help="Some of swap, delete, shuffle, replace, joined by commas. Swaps cost about L^2/3 forward passes an "
            "image, replacements L^2/2.",
            rich_help_panel=INTERVENTIONS,
        ),
    ] = "swap,delete,shuffle",
    draws: Annotated[
        int,
        typer.Option(
            help="Shuffles of each phase, and as many across a boundary.",
            min=1,
            rich_help_panel=INTERVENTIONS,
        ),
    ] = 5,
    phases: PhasesFile = None,
    k: NumberOfPhases = None,
) -> None:
    """Swap, delete, shuffle and replace layers: does it matter less within a phase than across phases?

    Writes interventions.json, interventions.parquet (one row per operation, readout and measure) and pictures to --out.
    """
    chosen = some_of("intervention", separated(kinds), KINDS)
    check_file("--phases", phases)
    with open_run(request) as run:
        from brdyn.interventions import layer_surgery

        given = read_or_find_phases(phases, run, k)
        found = layer_surgery(
            run.model, run.images, given, kinds=chosen, draws=draws, seed=run.seed, **run.stream
        )
        if run.folder is not None:
            _write(run, run.folder, found)
            _summarise(run, run.folder, found)


def _write(run: Run, folder: OutputFolder, found: Surgery) -> None:
    from brdyn import plots

    done = set(found.table["kind"])
    pictures = {kind: plots.plot_matrices(found, kind, title=f"{run.title}: {kind}") for kind in ("swap", "replace")
                if kind in done}  # fmt: skip
    if done - {"swap", "replace"}:
        pictures["layers"] = plots.plot_layers(found, title=run.title)
    measures = found.table[["readout", "measure"]].drop_duplicates().itertuples(index=False)
    shown = [tuple(pair) for pair in measures]
    content: dict[str, Any] = {
        **run.header(),
        **{
            kind: {
                f"{readout} {measure}": [listed(row) for row in found.matrix(kind, readout, measure)]
                for readout, measure in shown
            }
            for kind in ("swap", "replace")
            if kind in done
        },
        "swap_tests": {readout: asdict(test) if test else None for readout, test in found.tests.items()},
        "intact_accuracy": found.intact_accuracy,
        "notes": list(found.notes),
        "phases": found.phases.to_dict(),
        "table": records(found.tidy()),
        "provenance": run.provenance(),
    }
    files = {"interventions.parquet": found.tidy().to_parquet(index=False)}
    folder.save("interventions.json", content, pictures, run.formats, files)


def _summarise(run: Run, folder: OutputFolder, found: Surgery) -> None:
    run.summarise(run.watch.seconds)
    typer.echo(describe(found.phases) + "\n")
    for readout in found.readouts:
        for line in _harm(found, readout):
            typer.echo(line)
    if found.intact_accuracy is not None:
        typer.echo(f"accuracy of the intact model: {found.intact_accuracy:.3f}")
    for note in found.notes:
        typer.echo(note)
    typer.echo(f"written to {folder.path}: interventions.json, interventions.parquet and pictures")


def _harm(found: Surgery, readout: str) -> list[str]:
    """What each kind of operation did to a readout, in a few lines."""
    lines = []
    for kind, words in WORDS.items():
        rows = found.rows(kind, readout).sort_values("mean")
        if len(rows):
            best, worst = rows.iloc[0], rows.iloc[-1]
            lines.append(
                f"{words}, {readout}: relative error {best['mean']:.3f} ({_named(best)}) to {worst['mean']:.3f} "
                f"({_named(worst)})"
            )
        if kind == "swap" and found.tests.get(readout) is not None:
            lines += _compared(found.tests[readout])
    within, across = (found.rows(f"shuffle_{where}", readout)["mean"] for where in ("within", "across"))
    if len(within) and len(across):
        lines.append(
            f"shuffling, {readout}: relative error {within.mean():.3f} within phases, {across.mean():.3f} for as many "
            "layers across a boundary"
        )
    return lines


def _compared(test: WithinAcross | None) -> list[str]:
    """The permutation tests of the swaps."""
    if test is None:
        return []
    lines = [
        f"  within phases {test.within:.3f}, across {test.across:.3f} (p = {test.p_contiguous:.3f} against other "
        f"contiguous phases, {test.p_shuffled:.4f} against shuffled ones)"
    ]
    if test.matched_excess is not None:
        lines.append(
            f"  at equal distance, across minus within {test.matched_excess:+.3f} (p = {test.p_matched:.3f})"
        )
    return lines


def _named(row: pd.Series) -> str:
    layers = row["layers"]
    return f"{layers[0]} by {layers[1]}" if row["kind"] == "replace" else " and ".join(map(str, layers))
