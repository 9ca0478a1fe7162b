"""The published dissimilarity between the layers of DINOv2 ViT-B/14 with registers: its phases by every method here.

The matrix (of 10 000 ImageNet images, printed with two decimals in the public notebook of Jacobs et al.) is not part of
the project. How much two decimals leave open is tried on matrices drawn evenly from those that round to it.

    python -m analyses.published_matrix --matrix dinov2_vitb14_reg_dissimilarity.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from analyses.recording import RESULTS, Choice, command, parser, record
from brdyn import Phases, segment
from brdyn.phases import best_segmentations, phase_evidence, recursive_bisection
from brdyn.store import read_json

NAME = "published_matrix"
EPS = {2: 0.2, 3: 0.10, 4: 0.09}  # of the published bisection, by the number of phases that it gave
ROUNDED, DRAWS = 0.005, 1000
IMAGES = 10_000  # of ImageNet


def unrounded(matrix: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """Symmetric matrices that round to this one, `(draws, L, L)`."""
    above = np.triu(np.random.default_rng(seed).uniform(-ROUNDED, ROUNDED, (draws, *matrix.shape)), 1)
    return matrix + above + above.swapaxes(1, 2)


def cut_by(dissimilarity: np.ndarray, boundaries: list[int]) -> np.ndarray:
    """Share of the dissimilarity between layers of different phases, of one matrix or several."""
    phase = np.searchsorted(boundaries, np.arange(1, dissimilarity.shape[-1] + 1))
    across = phase[:, None] != phase
    return (dissimilarity * across).sum((-2, -1)) / dissimilarity.sum((-2, -1))


def bisection(dissimilarity: np.ndarray, k: int) -> list[int] | None:
    """Boundaries by the published algorithm; None where its clusters are not contiguous."""
    found = recursive_bisection(dissimilarity, EPS[k]).boundaries
    return None if found is None else list(found)


def share_of(found: list[Any], boundaries: list[int]) -> float:
    return float(np.mean([one == boundaries for one in found]))


def cuts(matrix: np.ndarray, drawn: np.ndarray, k: int, published: list[int]) -> dict[str, Any]:
    """Boundaries of k phases by the published algorithm and by the exact optimum, how often they are the published ones
    for matrices that round to this one, and how much more of the dissimilarity the optimum cuts than those."""
    every = np.stack([matrix, *drawn])
    exact = best_segmentations(every)[1][k - 1].tolist()
    bisected = [bisection(one, k) for one in every]
    best = [cut_by(one, boundaries) for one, boundaries in zip(every, exact, strict=True)]
    behind = np.array(best) - cut_by(every, published)
    return {
        "published": published, "eps": EPS[k],
        "bisection": bisected[0], "bisection_as_published": share_of(bisected[1:], published),
        "exact": exact[0], "exact_as_published": share_of(exact[1:], published),
        "behind": behind[0], "behind_interval_95": np.quantile(behind[1:], [0.025, 0.975]),
    }  # fmt: skip


def tested(drawn: np.ndarray) -> dict[str, Any]:
    """What the test says of matrices that round to the published one."""
    said = [phase_evidence(one) for one in drawn]
    largest = [one.largest for one in said if one.largest is not None]
    return {
        "k": [min(one.k for one in said), max(one.k for one in said)],
        "layers": sorted({one.layer for one in largest}),
        "t": [min(one.t for one in largest), max(one.t for one in largest)],
        "p": [min(one.p for one in largest), max(one.p for one in largest)],
    }


def study(content: dict[str, Any], draws: int) -> dict[str, Any]:
    """Everything that is recorded of the published file."""
    matrix = np.array(content["dissimilarity"], dtype=float)
    drawn = unrounded(matrix, draws)
    published = {int(k): boundaries for k, boundaries in content["published_boundaries"].items()}
    return {
        "what": content["what"], "draws": draws,
        "phases": segment(1 - matrix).to_dict(),
        "cuts": {str(k): cuts(matrix, drawn, k, boundaries) for k, boundaries in published.items()},
        "rounding": tested(drawn),
    }  # fmt: skip


def read(folder: Path = RESULTS) -> dict[str, Any]:
    """What is recorded, with its phases as an object."""
    found = read_json(folder / f"{NAME}.json", "a recorded result", ("phases", "cuts", "rounding", "provenance"))
    return {**found, "phases": Phases.from_dict(found["phases"])}


def work(choice: Choice) -> None:
    content = read_json(choice.matrix, "a published matrix", ("dissimilarity", "published_boundaries", "what"))
    print(record(NAME, choice.device, study(content, choice.draws), choice.out))


OPTIONS = parser(__doc__)
OPTIONS.add_argument("--matrix", type=Path, required=True, help="JSON file of the published matrix")
OPTIONS.add_argument("--draws", type=int, default=DRAWS, help="of matrices that round to it")
main = command(work, OPTIONS, __name__)
