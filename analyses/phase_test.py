"""Size and power of the test for phases, beside the rules it takes the place of.

Drifts of several kinds, pure noise of wide and of narrow states and untrained networks, where there are no phases to
find; and blocks whose boundary steps are 3, 6 or 12 times their neighbours. Everything is drawn by seeds; untrained
networks are judged where there are images.

    python -m analyses.phase_test
    python -m analyses.phase_test --images imagenet_samples.parquet
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from analyses.recording import RESULTS
from analyses.statistics import Estimate
from analyses.study import Study, chosen, read_all, run_study, study_parser
from brdyn import LayerSimilarity, segment
from brdyn.phases import phase_evidence

FOLDER = RESULTS / "phase_test"
LAYERS = (12, 24, 40)
JUMPS, NUMBERS = (3, 6, 12), (2, 3, 4)
NARROW = (8, 32, 192)  # widths of states that are noise: the fewer, the farther from 0 are their cosines
WIDTH, IMAGES, REPLICATES = 384, 8, 20
LENGTH, ROUGH, FASTER = 1.5, 0.3, 1.5  # of the path; sd of log steps; log of the last step over the first
WIDTHS, SEEDS = (96, 192, 384), 8
SIZE, POWER, UNTRAINED = "size", "power", "untrained"
DRAWS = {SIZE: 1000, POWER: 200}  # a size near the level takes more to be told from it

Steps = Callable[[int, np.random.Generator], np.ndarray]
Kernel = Callable[[np.random.Generator], np.ndarray]


def steady(gaps: int, random: np.random.Generator) -> np.ndarray:
    return np.ones(gaps)


def accelerating(gaps: int, random: np.random.Generator) -> np.ndarray:
    return np.exp(np.linspace(0, FASTER, gaps))


def rough(gaps: int, random: np.random.Generator) -> np.ndarray:
    return np.exp(random.normal(0, ROUGH, gaps))


DRIFTS: dict[str, Steps] = {
    "steady": steady, "accelerating": accelerating, "rough": rough,
    "rough and accelerating": lambda gaps, random: rough(gaps, random) * accelerating(gaps, random),
}  # fmt: skip


def places(steps: np.ndarray) -> np.ndarray:
    """Where each layer is on the path, `(L,)`."""
    path = np.concatenate([[0.0], steps.cumsum()])
    return LENGTH * path / path[-1]


def drawn(kernel: np.ndarray, random: np.random.Generator, width: int = WIDTH) -> LayerSimilarity:
    """Mean cosine, with a bootstrap over images, of states that are Gaussian with this covariance between layers."""
    values, vectors = np.linalg.eigh(kernel)
    root = vectors * np.sqrt(np.maximum(values, 0))
    states = root @ random.normal(size=(IMAGES, len(kernel), width))
    states /= np.linalg.norm(states, axis=-1, keepdims=True)
    each = states @ states.swapaxes(1, 2)
    weights = random.poisson(1.0, size=(REPLICATES, IMAGES))
    weights = weights[weights.sum(1) > 0]
    replicates = np.einsum("ri,ilm->rlm", weights / weights.sum(1, keepdims=True), each)
    return LayerSimilarity("cosine", "cls", each.mean(0), replicates, "image", IMAGES)


def forgetting(depth: np.ndarray) -> np.ndarray:
    """Covariance of a path that forgets where it came from."""
    return np.exp(-np.abs(depth[:, None] - depth))


class Family(NamedTuple):
    """Networks of a kind: their covariance between layers, and the width of their states."""

    kernel: Kernel
    width: int = WIDTH

    def network(self, random: np.random.Generator) -> LayerSimilarity:
        return drawn(self.kernel(random), random, self.width)


def structureless(layers: int, narrow: Sequence[int] = NARROW) -> dict[str, Family]:
    """Families without phases, by name; with noise as wide as all others, and of these widths."""
    drifts = {
        name: Family(partial(lambda steps, random: forgetting(places(steps(layers - 1, random))), steps))
        for name, steps in DRIFTS.items()
    }
    quarter = np.linspace(0, np.pi / 2, layers)
    geodesic, alone = np.cos(quarter[:, None] - quarter), np.eye(layers)
    noise = Family(lambda random: alone)
    widths = {f"noise of width {width}": noise._replace(width=width) for width in narrow}
    return {**drifts, "geodesic": Family(lambda random: geodesic), "noise": noise, **widths}


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


def judged(similarity: LayerSimilarity) -> Judged:
    """Boundaries by the test, and what describes the cut into as many as the gain rule finds (at least two)."""
    phases = segment(similarity)
    cut = phases.with_k(max(phases.k, 2)).chosen
    assert phases.evidence is not None
    simulated = phase_evidence(1 - similarity.matrix, calibration="simulated").layers
    excess, stable = cut.cut_share - cut.drift_share, min(cut.stability or (0.0,))
    return Judged(phases.evidence.layers, simulated, phases.k, excess, cut.z or 0.0, stable)


def shares(said: list[Judged]) -> dict[str, float]:
    """Of networks that each rule says have phases, and the means of what describes a cut."""
    rows = [
        {
            "test": bool(one.boundaries), "test_simulated": bool(one.boundaries_simulated),
            "gain_rule": one.k_by_gain > 1, "excess_over_drift": one.excess_over_drift > 0,
            "mean_z": one.z, "mean_stability": one.stability,
        }
        for one in said
    ]  # fmt: skip
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def size_of_test(layers: int, draws: int, narrow: Sequence[int] = NARROW) -> Iterator[dict[str, Any]]:
    """How often a network without phases is said to have some: a row for each family."""
    for name, family in structureless(layers, narrow).items():
        random = np.random.default_rng([layers, *name.encode()])
        said = [judged(family.network(random)) for _ in range(draws)]
        yield {"layers": layers, "family": name, "draws": draws, **shares(said)}


def power_of_test(layers: int, draws: int) -> Iterator[dict[str, Any]]:
    """How often blocks are found, over all kinds of drift beneath them: a row for each k and jump."""
    kinds = list(DRIFTS.values())
    for k, jump in product(NUMBERS, JUMPS):
        random, said = np.random.default_rng([layers, k, jump]), []
        for number in range(draws):
            blocks = with_blocks(layers, k, jump, kinds[number % len(kinds)], random)
            said.append(judged(drawn(blocks, random)))
        boundaries = tuple(even_boundaries(layers, k))
        yield {
            "layers": layers, "k": k, "jump": jump, "draws": draws, **shares(said),
            "exact": float(np.mean([one.boundaries == boundaries for one in said])),
            "exact_simulated": float(np.mean([one.boundaries_simulated == boundaries for one in said])),
        }  # fmt: skip


def untrained(layers: int, images: str, n: int) -> Iterator[dict[str, Any]]:
    """What is said of untrained ViTs of several widths: a row for each."""
    from timm.models.vision_transformer import VisionTransformer

    import brdyn
    from brdyn.models import Preprocessing, timm_family
    from brdyn.models.loaded import Loaded
    from brdyn.models.request import ModelRequest

    for width, seed in product(WIDTHS, range(SEEDS)):
        request = ModelRequest(f"vit_{width}x{layers}", random=True, seed=seed)
        with request.construction():
            backbone = VisionTransformer(
                img_size=64, patch_size=16, embed_dim=width, depth=layers, num_heads=width // 32, num_classes=0
            )
        model = timm_family.adapt(request, "timm", Loaded(backbone), "", "none", Preprocessing((64, 64)))
        images_of = brdyn.load_images(images, model.requires_grad_(False), n=n)
        similarity = brdyn.layer_similarity(model, images_of, replicates=REPLICATES)
        yield {"width": width, "layers": layers, "seed": seed, **judged(similarity)._asdict()}


class PhaseTestStudy(Study[str]):
    """What is asked of the test at each depth."""

    @classmethod
    def planned(cls, size: str) -> list[str]:
        return [f"{kind}_{layers}" for kind in (SIZE, POWER, UNTRAINED) for layers in LAYERS]

    def cells(self) -> list[str]:
        """Without images, none of untrained networks."""
        planned = self.planned(self.choice.size)
        if not self.choice.images:
            planned = [cell for cell in planned if not cell.startswith(UNTRAINED)]
        return chosen(self.choice.only, planned)

    def asked(self, cell: str) -> Mapping[str, Any]:
        kind, _, layers = cell.partition("_")
        if kind == UNTRAINED:
            return {"layers": int(layers), "images": self.choice.images, "n": self.choice.n}
        narrow = {"narrow": list(NARROW)} if kind == SIZE else {}
        return {"layers": int(layers), "draws": self.choice.draws or DRAWS[kind], **narrow}

    def run(self, cell: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        kinds: dict[str, Any] = {SIZE: size_of_test, POWER: power_of_test, UNTRAINED: untrained}
        return {"rows": list(kinds[cell.partition("_")[0]](**asked))}


def read_rows(*kinds: str) -> list[dict[str, Any]]:
    """What is recorded of kinds, at all depths."""
    cells = [f"{kind}_{layers}" for kind in kinds for layers in LAYERS]
    return [row for content in read_all(FOLDER, cells, "rows").done.values() for row in content["rows"]]


def percentage(row: Mapping[str, Any], rule: str = "test") -> Estimate:
    """Of the networks of a row the percentage that a rule says have phases, with its exact (Clopper-Pearson) interval:
    of none in many it is no point."""
    from scipy import stats

    ends = stats.binomtest(round(row[rule] * row["draws"]), row["draws"]).proportion_ci()
    return Estimate(*(100 * value for value in (row[rule], ends.low, ends.high)))


OPTIONS = study_parser(__doc__, FOLDER, labelled=False)
OPTIONS.add_argument("--draws", type=int, help="of every kind of network; 1000 for size, 200 for power")
OPTIONS.add_argument("--images", help="for untrained networks, as in `brdyn phases`")
OPTIONS.add_argument("--n", type=int, default=16, help="of the images")
main = run_study(PhaseTestStudy, OPTIONS, __name__)
