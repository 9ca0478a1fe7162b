"""`brdyn phases`: from a model name and images to the phases of its depth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brdyn.cli import options as opt

if TYPE_CHECKING:
    from brdyn.data import ReadReport
    from brdyn.measures import LayerSimilarity
    from brdyn.models import VisionTransformer
    from brdyn.phases import Phases

PHASES = "Phases"


def phases(
    model: opt.Model = "imgfocus_vits14",
    images: opt.Images = "samples",
    out: opt.Out = Path("runs/phases"),
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
        int | None,
        typer.Option("--k", help="Number of phases; chosen when not given.", rich_help_panel=PHASES),
    ] = None,
    min_gain: Annotated[
        float,
        typer.Option(
            help="Without --k: add phases while each cuts this share of the dissimilarity.",
            rich_help_panel=PHASES,
        ),
    ] = 0.05,
    min_size: Annotated[int, typer.Option(help="Fewest layers in a phase.", rich_help_panel=PHASES)] = 1,
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
        int, typer.Option(help="Bootstrap samples; 0 for none.", min=0, rich_help_panel=PHASES)
    ] = 200,
    weights: opt.Weights = None,
    init: opt.Init = "pretrained",
    image_size: opt.ImageSize = None,
    allow_pickle: opt.AllowPickle = False,
    split: opt.Split = None,
    n: opt.Number = None,
    strict: opt.Strict = False,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "float32",
    batch_size: opt.BatchSize = "auto",
    workers: opt.Workers = None,
    overwrite: opt.Overwrite = False,
    formats: opt.Formats = "png",
) -> None:
    """Find the phases of a model's depth: layer similarity, max-cut, and how sure.

    Writes phases.json, similarity.png, gain_curve.png and stability.png to --out.
    """
    from brdyn import results, runtime
    from brdyn.data import load_images
    from brdyn.measures import layer_similarity
    from brdyn.models import load_model
    from brdyn.phases import check_k, segment

    kinds = results.check_formats(formats)
    size, batch = opt.parse_image_size(image_size), opt.parse_batch_size(batch_size)
    precision = runtime.resolve_dtype(dtype)
    processes = runtime.start_processes(device)
    folder = results.OutputFolder(out, overwrite) if processes.is_main else None
    with results.stopwatch() as watch:
        network = load_model(
            model,
            weights=weights,
            init=init,
            seed=seed,
            image_size=size,
            device=processes.device,
            dtype=precision,
            allow_pickle=allow_pickle,
        )
        check_k(k, network.depth, min_size, repr(model))
        pictures = load_images(images, network, n=n, seed=seed, split=split, strict=strict)
        measured = layer_similarity(
            network,
            pictures,
            similarity,
            tokens=tokens,
            replicates=bootstrap,
            seed=seed,
            batch_size=batch,
            workers=workers,
            processes=processes,
            progress=True,
        )
    if folder is not None:
        found = segment(measured, k, method=method, min_size=min_size, min_gain=min_gain, eps=eps, seed=seed)
        source = results.provenance(
            network,
            pictures,
            pictures.report,
            processes,
            watch.seconds,
            seed=seed,
            bootstrap={"replicates": bootstrap, "unit": measured.unit},
        )
        _write(folder, network, measured, found, pictures.report, source, kinds)
        _summarise(folder.path, network, measured, found, pictures.report, watch.seconds)
    processes.close()


def _write(
    folder: Any,
    network: VisionTransformer,
    measured: LayerSimilarity,
    found: Phases,
    report: ReadReport,
    source: dict[str, Any],
    kinds: tuple[str, ...],
) -> None:
    from brdyn import plots

    title = network.info.name + (" (random weights)" if network.info.is_random else "")
    pictures = {
        "similarity": plots.plot_similarity(measured.matrix, found, kind=measured.kind, title=title),
        "gain_curve": plots.plot_gain_curve(found, title=title),
        "stability": plots.plot_stability(found, unit=measured.unit, title=title),
    }
    for name, figure in pictures.items():
        folder.write_figure(name, figure, kinds)
    content = {
        "model": network.info.name,
        "weights": network.info.weights,
        "layers": network.depth,
        "n_images": report.count,
        "skipped": [skipped._asdict() for skipped in report.skipped],
        "similarity": {"kind": measured.kind, "tokens": measured.tokens, "matrix": measured.matrix},
        **found.to_dict(),
        "provenance": source,
    }
    folder.write_json("phases.json", content)  # last: its presence says that the run is whole


def _summarise(
    path: Path,
    network: VisionTransformer,
    measured: LayerSimilarity,
    found: Phases,
    report: ReadReport,
    seconds: float,
) -> None:
    info = network.info
    marked = "  ** RANDOM WEIGHTS: an untrained network **" if info.is_random else ""
    typer.echo(f"{info.name}: {info.layers} layers, width {info.width}, weights {info.weights}{marked}")
    typer.echo(f"positions: {info.position_rule}")
    speed = f"{report.count / seconds:.1f} images/s" if seconds else ""
    typer.echo(f"{report.count} images in {seconds:.1f} s, loading included ({speed})")
    for name, reason in report.skipped[:5]:
        typer.echo(f"  skipped {name}: {reason}")
    if report.skipped:
        typer.echo(f"  {len(report.skipped)} images skipped in all; phases.json names them")
    typer.echo(f"similarity: {measured.kind} of {measured.tokens}")
    typer.echo("")
    typer.echo("  k  boundaries (stability)                       cut   gain      z  gap to 2nd")
    for k in range(2, min(max(found.segmentations), max(6, found.k + 1)) + 1):
        typer.echo(_row(found, k))
    typer.echo("")
    ranges = ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in found.intervals)
    typer.echo(f"{found.k} phases: layers {ranges}")
    typer.echo(f"  rule: {found.k_rule}; phases of at least {found.min_size} layer(s)")
    if found.stability is None:
        typer.echo("  no bootstrap: stability is not known")
    if found.recursive is not None:
        typer.echo(f"  recursive bisection: {_clusters(found)}")
    typer.echo(f"written to {path}: phases.json, similarity, gain_curve and stability pictures")


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
