"""`brdyn phases`: from a model name and images to the phases of its depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from brdyn.choices import SIMILARITIES, one_of
from brdyn.cli.options import WHOLE
from brdyn.cli.run import Run, RunRequest, open_run, run_command
from brdyn.errors import UsageError
from brdyn.phases.evidence import ALPHA, check_test
from brdyn.phases.segmentation import METHODS, TEST
from brdyn.results import OutputFolder
from brdyn.words import counted

if TYPE_CHECKING:
    from brdyn.measures import LayerSimilarity
    from brdyn.phases import Phases

PHASES = "Phases"


@run_command
def phases(
    request: RunRequest,
    similarity: Annotated[
        str, typer.Option(help="cosine, token-cosine, cka or procrustes.", rich_help_panel=PHASES)
    ] = "cosine",
    tokens: Annotated[
        str,
        typer.Option(
            help="Token groups joined by +, or `all`. `brdyn models NAME` lists them.", rich_help_panel=PHASES
        ),
    ] = "cls+patches",
    k: Annotated[
        str | None,
        typer.Option(
            "--k",
            help="Number of phases to show, or `test`: as many as the evidence supports (default: by --min-gain).",
            rich_help_panel=PHASES,
        ),
    ] = None,
    min_gain: Annotated[
        float,
        typer.Option(
            help="Without --k, by convention: add phases while each cuts this share of the dissimilarity.",
            rich_help_panel=PHASES,
        ),
    ] = 0.05,
    min_size: Annotated[
        int, typer.Option(help="Fewest layers in a phase.", min=1, rich_help_panel=PHASES)
    ] = 1,
    method: Annotated[
        str,
        typer.Option(
            help="contiguous, or recursive to compare with the public notebook.", rich_help_panel=PHASES
        ),
    ] = "contiguous",
    eps: Annotated[
        float, typer.Option(help="Smallest gain of a split, for --method recursive.", rich_help_panel=PHASES)
    ] = 0.1,
    bootstrap: Annotated[
        int, typer.Option(help="Bootstrap samples; 0 for none.", min=0, max=100_000, rich_help_panel=PHASES)
    ] = 200,
    alpha: Annotated[
        float, typer.Option(help="Level of the test whether there are phases.", rich_help_panel=PHASES)
    ] = ALPHA,
    calibration: Annotated[
        str,
        typer.Option(
            help="Of the test: bonferroni, or simulated, which keeps to --alpha for rough drifts too.",
            rich_help_panel=PHASES,
        ),
    ] = "bonferroni",
) -> None:
    """Find the phases of a model's depth: layer similarity, a test whether there are any, and max-cut.

    Writes phases.json, steps.png, similarity.png, gain_curve.png and stability.png to --out.
    """
    one_of("similarity", similarity, SIMILARITIES)
    one_of("method", method, METHODS)
    number = parse_k(k)
    check_test(alpha, calibration)
    with open_run(request) as run:
        import brdyn
        from brdyn.phases import check_request, segment

        check_request(
            number, run.model.depth, min_size, method, repr(request.model), min_gain=min_gain, eps=eps
        )
        measured = brdyn.layer_similarity(
            run.model,
            run.images,
            similarity,
            tokens=tokens,
            replicates=bootstrap,
            seed=run.seed,
            **run.stream,
        )
        if run.folder is not None:
            found = segment(
                measured,
                number,
                method=method,
                min_size=min_size,
                min_gain=min_gain,
                eps=eps,
                seed=run.seed,
                alpha=alpha,
                calibration=calibration,
            )
            _write(run, run.folder, measured, found)
            _summarise(run, run.folder, measured, found)


def parse_k(text: str | None) -> int | str | None:
    """A number of phases, or `test`.

    Raises
    ------
    UsageError
        If it is neither.
    """
    if text is None or text == TEST:
        return text
    if not WHOLE.fullmatch(text) or int(text) < 1:
        raise UsageError(f"--k {text!r} is neither a number of phases, from 1 on, nor {TEST!r}")
    return int(text)


def _write(run: Run, folder: OutputFolder, measured: LayerSimilarity, found: Phases) -> None:
    from brdyn import plots

    assert found.evidence is not None
    pictures = {
        "steps": plots.plot_steps(found.evidence, title=run.title),
        "similarity": plots.plot_similarity(measured.matrix, found, kind=measured.kind, title=run.title),
        "gain_curve": plots.plot_gain_curve(found, title=run.title),
        "stability": plots.plot_stability(found, unit=measured.unit, title=run.title),
    }
    replicates = 0 if measured.replicates is None else len(measured.replicates)
    content = {
        **run.header(),
        "similarity": {"kind": measured.kind, "tokens": measured.tokens, "matrix": measured.matrix},
        **found.to_dict(),
        "provenance": run.provenance(bootstrap={"replicates": replicates, "unit": measured.unit}),
    }
    folder.save("phases.json", content, pictures, run.formats)


def _summarise(run: Run, folder: OutputFolder, measured: LayerSimilarity, found: Phases) -> None:
    typer.echo(f"{found.sentence()}\n")
    run.summarise(run.watch.seconds)
    typer.echo(f"similarity: {measured.kind} of {measured.tokens}\n")
    typer.echo("  k  boundaries (stability)                       cut   gain      z  gap to 2nd")
    for k in range(2, min(max(found.segmentations), max(6, found.k + 1)) + 1):
        typer.echo(_row(found, k))
    ranges = ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in found.intervals)
    typer.echo(f"\n{counted(found.k, 'phase')}: layers {ranges}")
    typer.echo(f"  k: {found.k_rule}; phases of at least {counted(found.min_size, 'layer')}")
    if found.stability is None and measured.replicates is None:
        typer.echo(f"  stability is not known; resampled: {measured.unit}")
    if found.recursive is not None:
        typer.echo(f"  recursive bisection: {_clusters(found)}")
    typer.echo(
        f"written to {folder.path}: phases.json, and pictures of steps, similarity, gain_curve and stability"
    )


def _row(found: Phases, k: int) -> str:
    segmentation = found.segmentations[k]
    stability = segmentation.stability or ()
    boundaries = ", ".join(str(layer) for layer in segmentation.boundaries)
    shares = " ".join(f"{share:.2f}" for share in stability)
    place = f"[{boundaries}]" + (f" ({shares})" if shares else "")
    others = segmentation.alternatives[1:]
    gap = f"{others[0].gap / found.total:.2%}" if others and found.total else "–"
    z = f"{segmentation.z:.1f}" if segmentation.z is not None else "–"
    mark = "*" if k == found.k else " "
    return (
        f"{mark}{k:>2}  {place:<42} {segmentation.cut_share:>5.1%} {segmentation.gain:>6.1%} {z:>6}  {gap:>7}"
    )


def _clusters(found: Phases) -> str:
    assert found.recursive is not None
    clusters = " ".join("{" + ",".join(map(str, cluster)) + "}" for cluster in found.recursive.clusters)
    how = "exhaustive" if found.recursive.exact else "one_exchange"
    scattered = found.recursive.scattered
    warning = f"; {len(scattered)} of them NOT contiguous" if scattered else ""
    return f"{clusters} ({how}, eps {found.recursive.eps:g}{warning})"
