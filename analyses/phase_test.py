"""Size and power of the test for phases, beside the rules it takes the place of.

Drifts of several kinds, pure noise and untrained networks, where there are no phases to find; and blocks whose boundary
steps are 3, 6 or 12 times their neighbours. Everything is drawn by seeds.

    python -m analyses.phase_test
    python -m analyses.phase_test --untrained --images imagenet_samples.parquet
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from analyses.recording import parser, record
from brdyn.phases import phase_evidence, segment

LAYERS = (12, 24, 40)
JUMPS, NUMBERS = (3, 6, 12), (2, 3, 4)
DRAWS = 200
WIDTH, IMAGES, REPLICATES = 384, 8, 20
LENGTH, ROUGH, FASTER = 1.5, 0.3, 1.5  # of the path; sd of log steps; log of the last step over the first
UNTRAINED = [(width, layers) for width in (96, 192, 384) for layers in (12, 24, 40)]
SEEDS = 8

Steps = Callable[[int, np.random.Generator], np.ndarray]


def steady(gaps: int, random: np.random.Generator) -> np.ndarray:
    """Equal steps."""
    return np.ones(gaps)


def accelerating(gaps: int, random: np.random.Generator) -> np.ndarray:
    """Steps that grow exponentially."""
    return np.exp(np.linspace(0, FASTER, gaps))


def rough(gaps: int, random: np.random.Generator) -> np.ndarray:
    """Log-normal steps."""
    return np.exp(random.normal(0, ROUGH, gaps))


def rough_accelerating(gaps: int, random: np.random.Generator) -> np.ndarray:
    """Both."""
    return rough(gaps, random) * accelerating(gaps, random)


DRIFTS: dict[str, Steps] = {
    "steady": steady,
    "accelerating": accelerating,
    "rough": rough,
    "rough and accelerating": rough_accelerating,
}


class Drawn(NamedTuple):
    """A similarity with its bootstrap over images, as a network gives one."""

    matrix: np.ndarray
    replicates: np.ndarray


def places(steps: np.ndarray) -> np.ndarray:
    """Where each layer is on the path, `(L,)`."""
    path = np.concatenate([[0.0], steps.cumsum()])
    return LENGTH * path / path[-1]


def drawn(kernel: np.ndarray, random: np.random.Generator) -> Drawn:
    """States of some images through depth, Gaussian with this covariance between layers, and their mean cosine."""
    values, vectors = np.linalg.eigh(kernel)
    root = vectors * np.sqrt(np.maximum(values, 0))
    states = root @ random.normal(size=(IMAGES, len(kernel), WIDTH))
    states /= np.linalg.norm(states, axis=-1, keepdims=True)
    each = states @ states.swapaxes(1, 2)
    weights = random.poisson(1.0, size=(REPLICATES, IMAGES))
    weights = weights[weights.sum(1) > 0]
    replicates = np.einsum("ri,ilm->rlm", weights / weights.sum(1, keepdims=True), each)
    return Drawn(each.mean(0), replicates)


def forgetting(depth: np.ndarray) -> np.ndarray:
    """Covariance of a path that forgets where it came from."""
    return np.exp(-np.abs(depth[:, None] - depth))


def structureless(layers: int) -> dict[str, Callable[[np.random.Generator], np.ndarray]]:
    """Covariances between layers without phases, by family."""
    families = {
        name: (lambda random, steps=steps: forgetting(places(steps(layers - 1, random))))
        for name, steps in DRIFTS.items()
    }
    quarter = np.linspace(0, np.pi / 2, layers)
    return {
        **families,
        "geodesic": lambda random: np.cos(quarter[:, None] - quarter),
        "noise": lambda random: np.eye(layers),
    }


def even_boundaries(layers: int, k: int) -> list[int]:
    """Of k phases as long as each other."""
    return [round(layers * number / k) for number in range(1, k)]


def with_blocks(layers: int, k: int, jump: float, steps: Steps, random: np.random.Generator) -> np.ndarray:
    """Covariance where the steps between k phases are `jump` times as large as they would be."""
    taken = steps(layers - 1, random)
    taken[[layer - 1 for layer in even_boundaries(layers, k)]] *= jump
    return forgetting(places(taken))


class Judged(NamedTuple):
    """What the test says of a network, by either calibration, and what the older rules say."""

    boundaries: tuple[int, ...]
    boundaries_simulated: tuple[int, ...]
    k_by_gain: int
    excess_over_drift: float
    z: float
    stability: float


def judged(similarity: Any) -> Judged:
    """Boundaries by the test, and what describes the cut into as many as the gain rule finds (at least two)."""
    phases = segment(similarity)
    cut = phases.with_k(max(phases.k, 2)).chosen
    assert phases.evidence is not None
    return Judged(
        phases.evidence.layers,
        phase_evidence(1 - similarity.matrix, calibration="simulated").layers,
        phases.k,
        cut.cut_share - cut.drift_share,
        cut.z or 0.0,
        min(cut.stability or (0.0,)),
    )


def shares(said: list[Judged]) -> dict[str, float]:
    """Of networks that each rule says have phases, and the means of what describes a cut."""
    return {
        "test": float(np.mean([bool(one.boundaries) for one in said])),
        "test_simulated": float(np.mean([bool(one.boundaries_simulated) for one in said])),
        "gain_rule": float(np.mean([one.k_by_gain > 1 for one in said])),
        "excess_over_drift": float(np.mean([one.excess_over_drift > 0 for one in said])),
        "mean_z": float(np.mean([one.z for one in said])),
        "mean_stability": float(np.mean([one.stability for one in said])),
    }


def sizes(draws: int) -> Iterator[dict[str, Any]]:
    """How often a network without phases is said to have some: a row for each family and depth."""
    for layers in LAYERS:
        for name, kernel in structureless(layers).items():
            random = np.random.default_rng([layers, *name.encode()])
            said = [judged(drawn(kernel(random), random)) for _ in range(draws)]
            yield {"layers": layers, "family": name, "draws": draws, **shares(said)}


def powers(draws: int) -> Iterator[dict[str, Any]]:
    """How often blocks are found, over all kinds of drift beneath them: a row for each depth, k and jump."""
    for layers in LAYERS:
        for k in NUMBERS:
            for jump in JUMPS:
                random = np.random.default_rng([layers, k, jump])
                said = []
                for number in range(draws):
                    steps = list(DRIFTS.values())[number % len(DRIFTS)]
                    said.append(judged(drawn(with_blocks(layers, k, jump, steps, random), random)))
                boundaries = tuple(even_boundaries(layers, k))
                yield {
                    "layers": layers, "k": k, "jump": jump, "draws": draws, **shares(said),
                    "exact": float(np.mean([one.boundaries == boundaries for one in said])),
                    "exact_simulated": float(np.mean([one.boundaries_simulated == boundaries for one in said])),
                }  # fmt: skip


def untrained(images: str, n: int) -> Iterator[dict[str, Any]]:
    """What is said of untrained ViTs of several widths and depths: a row for each."""
    from timm.models.vision_transformer import VisionTransformer

    import brdyn
    from brdyn.models import Preprocessing, timm_family
    from brdyn.models.request import ModelRequest

    for width, layers in UNTRAINED:
        for seed in range(SEEDS):
            request = ModelRequest(f"vit_{width}x{layers}", random=True, seed=seed)
            with request.construction():
                backbone = VisionTransformer(
                    img_size=64, patch_size=16, embed_dim=width, depth=layers, num_heads=width // 32, num_classes=0
                )  # fmt: skip
            info = timm_family.backbone_info(request, "timm", backbone, request.source(""), "", "none")
            model = timm_family.adapt(backbone, info, Preprocessing((64, 64))).requires_grad_(False)
            similarity = brdyn.layer_similarity(
                model, brdyn.load_images(images, model, n=n), replicates=REPLICATES
            )
            yield {"width": width, "layers": layers, "seed": seed, **judged(similarity)._asdict()}


def main() -> None:
    """Run and record the study."""
    options = parser(__doc__)
    options.add_argument("--draws", type=int, default=DRAWS)
    options.add_argument("--untrained", action="store_true", help="judge untrained networks instead")
    options.add_argument("--images", default="samples", help="for those, as in `brdyn phases`")
    options.add_argument("--n", type=int, default=16, help="of the images")
    choice = options.parse_args()
    if choice.untrained:
        content: dict[str, Any] = {"networks": list(untrained(choice.images, choice.n))}
        name = "phase_test_untrained"
    else:
        content = {"size": list(sizes(choice.draws)), "power": list(powers(choice.draws))}
        name = "phase_test"
    print("written", record(name, choice.device, content, choice.out))


if __name__ == "__main__":
    main()
