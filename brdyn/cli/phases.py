"""`brdyn phases`: from a model name and images to the phases of its depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from brdyn.choices import METHOD, REPLICATES, SIMILARITIES, SIMILARITY, check_spread, one_of
from brdyn.cli.options import WHOLE
from brdyn.cli.run import RunRequest, open_run, run_command
from brdyn.errors import UsageError
from brdyn.phases.evidence import ALPHA, CALIBRATION, check_test
from brdyn.phases.segmentation import DEFAULT_EPS, METHODS, MIN_GAIN, TEST, check_request, check_shares

if TYPE_CHECKING:
    from brdyn.models import VisionTransformer

PHASES = "Phases"
RESULT = "phases.json"


@run_command
def phases(
    request: RunRequest,
    similarity: Annotated[
        str, typer.Option(help="cosine, token-cosine, cka or procrustes.", rich_help_panel=PHASES)
    ] = SIMILARITY,
    tokens: Annotated[
        str | None,
        typer.Option(
            help="Token groups joined by +, or `all`. `brdyn models NAME` lists them (default: cls, where there is "
            "one, and patches).",
            rich_help_panel=PHASES,
        ),
    ] = None,
    k: Annotated[
        str | None,
        typer.Option(
            "--k",
            help="Number of phases to cut into, or `test`: as many as the evidence supports (default: by --min-gain).",
            rich_help_panel=PHASES,
        ),
    ] = None,
    min_gain: Annotated[
        float,
        typer.Option(
            help="Without --k, by convention: add phases while each cuts this share of the dissimilarity.",
            rich_help_panel=PHASES,
        ),
    ] = MIN_GAIN,
    min_size: Annotated[int, typer.Option(help="Fewest layers in a phase.", min=1, rich_help_panel=PHASES)] = 1,
    method: Annotated[
        str,
        typer.Option(help="contiguous, or recursive to compare with the public notebook.", rich_help_panel=PHASES),
    ] = METHOD,
    eps: Annotated[
        float, typer.Option(help="Smallest gain of a split, for --method recursive.", rich_help_panel=PHASES)
    ] = DEFAULT_EPS,
    bootstrap: Annotated[
        int, typer.Option(help="Bootstrap samples; 0 for none.", min=0, max=100_000, rich_help_panel=PHASES)
    ] = REPLICATES,
    alpha: Annotated[
        float, typer.Option(help="Level of the test whether there are phases.", rich_help_panel=PHASES)
    ] = ALPHA,
    calibration: Annotated[
        str,
        typer.Option(
            help="Of the test: bonferroni, or simulated, which keeps to --alpha for rough drifts too.",
            rich_help_panel=PHASES,
        ),
    ] = CALIBRATION,
) -> None:
    """Find the phases of a model's depth: layer similarity, a test whether there are any, and max-cut.

    Writes phases.json, steps.png, similarity.png, gain_curve.png and stability.png to --out.
    """
    one_of("similarity", similarity, SIMILARITIES)
    one_of("method", method, METHODS)
    number = parse_k(k)
    check_test(alpha, calibration)
    check_shares(min_gain, eps)
    if eps != DEFAULT_EPS and method != "recursive":
        raise UsageError("--eps applies to --method recursive; add that, or drop --eps")
    if min_gain != MIN_GAIN and number is not None:
        raise UsageError("--min-gain chooses the number of phases, which --k gives; drop either")
    check_spread(bootstrap)

    def check(model: VisionTransformer) -> None:
        from brdyn.measures.similarity import select_groups

        check_request(number, model.depth, min_size, method, repr(request.model))
        select_groups(tokens, model.tokens)

    with open_run(request, RESULT, check=check) as run:
        import brdyn
        from brdyn.phases import segment

        measured = brdyn.layer_similarity(
            run.model,
            run.images,
            similarity,
            tokens=tokens,
            replicates=bootstrap,
            seed=run.seed,
            stream=run.stream,
        )
        run.finish(
            segment(
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
        )


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
