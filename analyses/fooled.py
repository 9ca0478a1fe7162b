"""Drifts, noise and true blocks through every statistic of phases that brdyn shows, beside real networks.

Records one network of each kind, drawn as in :mod:`analyses.phase_test` from one seed, so that blocks differ from the
rough drift by their boundary steps alone; and draws the pictures of the guide's page.

    python -m analyses.fooled
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from analyses import phase_test, published_matrix
from analyses.findings import phases as networks
from analyses.phase_test import JUMPS, Kernel, drawn, rough, structureless, with_blocks
from analyses.recording import OFFLINE, RESULTS, ROOT
from analyses.study import Study, read_all, run_study, study_parser
from brdyn import Phases, segment
from brdyn.phases import Evidence
from brdyn.plots import draw_similarity, draw_steps
from brdyn.plots.style import ACCENT, CURVE, INK, QUIET, head, new_figure, paper_style
from brdyn.provenance import images_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = RESULTS / "fooled"
PICTURES = ROOT / "docs" / "images"
LAYERS, K, SEED = 12, 3, 0
SHOWN_K = 8
SHOWN = 3  # of the real networks in the picture: untrained twins are alike
WITHOUT = {name: f"{name} drift" for name in ("steady", "accelerating", "rough")} | {"noise": "pure noise"}
BLOCKS = {f"blocks_{jump}": f"{K} blocks, steps x {jump}" for jump in JUMPS}
TITLES = WITHOUT | BLOCKS
DRAWN = f"simulated networks of {LAYERS} layers, drawn without images"


def kernels() -> dict[str, Kernel]:
    """Covariances between layers of every kind, by the name of its file."""
    blocks = zip(BLOCKS, JUMPS, strict=True)
    families = structureless(LAYERS)
    return {
        **{name: families[name].kernel for name in WITHOUT},
        **{name: partial(with_blocks, LAYERS, K, jump, rough) for name, jump in blocks},
    }


class FooledStudy(Study[str]):
    """One network of each kind."""

    @classmethod
    def planned(cls, size: str) -> list[str]:
        return list(TITLES)

    def asked(self, cell: str) -> Mapping[str, Any]:
        return {"kind": cell, "layers": LAYERS, "k": K, "seed": SEED}

    def run(self, cell: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        random = np.random.default_rng(SEED)
        return {"phases": segment(drawn(kernels()[cell](random), random)).content()}

    def work(self) -> None:
        super().work()
        for name, cases in (("simulated", simulated()), ("networks", real()[:SHOWN])):
            picture(cases).savefig(PICTURES / f"fooled_{name}.png", dpi=110, metadata={"Software": None})


class Case(NamedTuple):
    """A network with the best cuts, its similarity where it may be shown, on which images it was measured, and, of
    simulated ones, how often the test finds phases in their kind."""

    title: str
    phases: Phases
    matrix: np.ndarray | None
    images: str
    found: float | None = None

    @property
    def evidence(self) -> Evidence:
        return networks.evidence_of(self.phases)

    def told(self) -> dict[str, Any]:
        """What each statistic says of it, of the best cut into three."""
        cut, largest = self.phases.with_k(K).chosen, self.evidence.largest
        assert largest is not None
        return {
            "boundaries": cut.boundaries, "cut": cut.cut_share, "excess": 100 * (cut.cut_share - cut.drift_share),
            "z": cut.z, "stability": min(cut.stability) if cut.stability else None, "gain": self.phases.k,
            "k": self.evidence.k, "t": largest.t, "p": largest.p, "layers": self.evidence.layers, "found": self.found,
        }  # fmt: skip


def simulated(folder: Path = FOLDER) -> list[Case]:
    """The recorded ones, first those without phases."""
    read = read_all(folder, TITLES, "phases").done
    found = {row["title"]: row["test"] for row in rates()}
    return [
        Case(TITLES[name], Phases.from_dict(one["phases"]), np.array(one["phases"]["similarity"]["matrix"]), DRAWN,
             found[BLOCKS.get(name, name)])
        for name, one in read.items()
    ]  # fmt: skip


def real() -> list[Case]:
    """A trained network and its untrained twins, and DINOv2, of which a matrix is published but not packaged."""
    recorded = networks.load()
    untrained = enumerate(recorded.untrained.values(), 1)
    cases = {**recorded.trained, **{f"{OFFLINE}, untrained {number}": one for number, one in untrained}}
    return [
        Case(name, one, None if one.similarity is None else one.similarity.matrix, _seen(one))
        for name, one in cases.items()
    ]


def _seen(phases: Phases) -> str:
    """The network and the images of recorded phases; those of DINOv2 are published."""
    if phases.provenance is None:
        return f"{networks.DINOV2}, {images_of(published_matrix.IMAGES, None)}"
    return f"{OFFLINE}, {phases.provenance.caption}"


def picture(cases: list[Case]) -> Figure:
    """A row for each: its similarity with the best cut into three, what the best cut into k takes, and its steps."""
    with paper_style():
        figure = new_figure(7.4, 1.62 * len(cases) + 0.7)
        rows = figure.subplots(len(cases), 3, squeeze=False, width_ratios=(1, 1.25, 1.6))
        for number, (row, case) in enumerate(zip(rows, cases, strict=True), 1):
            for axes, panel in zip(row, (_draw_cut, _draw_gain, _draw_test), strict=True):
                panel(axes, case)
                axes.tick_params(labelsize=7)
                axes.xaxis.label.set(size=8, visible=number == len(cases))
            title = case.title.replace(", ", ",\n").replace(" with", "\nwith")
            row[0].set_ylabel(title, fontweight="bold", fontsize=8)
        head(figure, "\n".join(dict.fromkeys(case.images for case in cases)))
        return figure


def _draw_cut(axes: Axes, case: Case) -> None:
    shown, told = case.phases.with_k(K), case.told()
    empty = np.full((shown.layers,) * 2, np.nan)
    draw_similarity(axes, empty if case.matrix is None else case.matrix, shown)
    if case.matrix is None:
        axes.text(6.5, 6.5, "not packaged", ha="center", va="center", fontsize=7, color=INK)
    ticks = [1, *told["boundaries"], shown.layers]
    axes.set(xticks=ticks, yticks=ticks, xlabel="layer")
    stable = "" if told["stability"] is None else f", stable {told['stability']:.2f}"
    axes.set_title(f"best cut {list(told['boundaries'])}{stable}", fontsize=8)


def _draw_gain(axes: Axes, case: Case) -> None:
    found, numbers = case.phases.segmentations, range(1, SHOWN_K + 1)
    cut, drift = ([100 * getattr(found[k], name) for k in numbers] for name in ("cut_share", "drift_share"))
    axes.plot(numbers, cut, color=CURVE, marker="o", markersize=3, label="best cut")
    axes.plot(numbers, drift, color=QUIET, linestyle="--", label="of a drift")
    axes.axvline(case.phases.k, color=ACCENT, linewidth=1)
    axes.set(xlabel="number of phases k", xticks=numbers, ylim=(0, 105))
    axes.set_ylabel("share cut (%)", fontsize=7)
    axes.legend(frameon=False, fontsize=6.5, loc="lower right")
    told = case.told()
    axes.set_title(f"gain rule: {told['gain']} phases; z = {told['z']:.1f}", fontsize=8)


def _draw_test(axes: Axes, case: Case) -> None:
    draw_steps(axes, case.evidence)
    axes.set_ylabel("step", fontsize=7)
    axes.margins(x=0.08, y=0.3)
    axes.set_title(f"test: {verdict(case)}", fontsize=8, color=ACCENT if case.evidence.k > 1 else "black")


def sizes() -> dict[str, list[dict[str, Any]]]:
    """What each statistic said of many networks without phases: a row for each depth, by family."""
    families: dict[str, list[dict[str, Any]]] = {}
    for row in phase_test.read_rows(phase_test.SIZE):
        families.setdefault(row["family"], []).append(row)
    return families


def rates() -> list[dict[str, Any]]:
    """What each statistic said of many networks of 12 layers: without phases, and of three blocks."""
    rows = phase_test.read_rows(phase_test.SIZE, phase_test.POWER)
    return [
        {"title": row["family"] if "family" in row else BLOCKS[f"blocks_{row['jump']}"], **row}
        for row in rows
        if row["layers"] == LAYERS and row.get("k", K) == K
    ]


def stabilities() -> dict[int, dict[str, tuple[float, float]]]:
    """The least and the largest mean stability of the cut, by depth, of each kind of network, blocks of any k."""
    found: dict[int, dict[str, list[float]]] = {}
    for row in phase_test.read_rows(phase_test.SIZE, phase_test.POWER):
        of_depth = found.setdefault(row["layers"], {})
        of_depth.setdefault(_kind(row.get("family")), []).append(row["mean_stability"])
    return {
        layers: {kind: (min(means), max(means)) for kind, means in kinds.items()} for layers, kinds in found.items()
    }


def _kind(family: str | None) -> str:
    if family is None:
        return "blocks"
    if not family.startswith("noise"):
        return "drifts"
    return "wide noise" if family == "noise" else "narrow noise"


def verdict(case: Case) -> str:
    """`3 phases, after layers 4, 8`, or none."""
    told = case.told()
    if told["k"] == 1:
        return "no phases beyond a drift"
    return f"{told['k']} phases, after layer{'s' * (told['k'] > 2)} {', '.join(map(str, told['layers']))}"


main = run_study(FooledStudy, study_parser(__doc__, FOLDER, labelled=False), __name__)
