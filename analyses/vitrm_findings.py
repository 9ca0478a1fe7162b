"""What was published of ViTRM, and what the recorded runs say: docs/guide/vitrm_findings.md.

python -m analyses.vitrm_findings            # rewrite
python -m analyses.vitrm_findings --check    # fail if it differs from the results

Each verdict follows from the numbers by the rule that is stated with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyses.findings import Finding, claims_table
from analyses.recording import OFFLINE, RESULTS, write_or_check
from analyses.vitrm_on_cifar import LINEAR
from brdyn.classification.recipe import VITRM
from brdyn.errors import UsageError
from brdyn.phases import Phases
from brdyn.results import read_json
from brdyn.training.settings import differences
from brdyn.vitrm.model import ViTRMConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guide" / "vitrm_findings.md"
RECORDED = RESULTS / "vitrm"
BATCH_SIZES = (64, 128, 256, 512, 1024)
NONE = float("nan")
PUBLISHED: dict[str, dict[str, tuple[float, ...]]] = {
    "CIFAR-10": {
        "vitrm": (92.6, 93.1, 92.8, 92.1, 91.2),
        "vit-small": (94.0, 93.9, 93.3, 92.8, 91.1),
        "vit-base": (93.7, 93.8, 94.3, 94.1, 94.0),
        "vit-large": (80.8, 73.4, 82.0, 83.2, NONE),
        "resnet18": (90.5, 89.7, 88.8, 87.8, 86.1),
        "resnet34": (90.8, 90.1, 89.7, 87.9, 86.3),
        "resnet50": (92.0, 90.9, 89.7, 87.9, 84.2),
    },
    "CIFAR-100": {
        "vitrm": (71.8, 72.1, 72.0, 71.3, 69.8),
        "vit-small": (76.1, 75.2, 74.8, 72.7, 71.2),
        "vit-base": (72.4, 74.6, 75.4, 76.4, 75.1),
        "vit-large": (61.1, 58.9, 61.7, 64.7, NONE),
        "resnet18": (64.6, 63.4, 62.1, 60.5, 58.2),
        "resnet34": (65.4, 63.8, 62.0, 58.8, 56.7),
        "resnet50": (63.8, 63.4, 61.5, 58.0, 54.5),
    },
}
"""Top-1 accuracy (%) by batch size: 1000 epochs for vitrm, 300 for the others. NaN: out of memory."""
HALF = 0.5
SHARED_CPU = ("Times are of one thread of a CPU that did other work beside: not to be compared.", "")


class Motion(NamedTuple):
    """How the tokens of one model move.

    Attributes
    ----------
    layers : int
    boundaries : tuple of int
    path : dict of str to float
        By read-out: share of the angular path made in the first half of the layers.
    repaired : dict of str to float
        By read-out: angle at the last layer over that at the middle, where noise was added to all tokens.
    rank : tuple of float
        Effective rank of the spatial updates: first, largest, last.
    """

    layers: int
    boundaries: tuple[int, ...]
    path: dict[str, float]
    repaired: dict[str, float]
    rank: tuple[float, float, float]


class Results(NamedTuple):
    """The recorded study: runs by network, the linear classifier, motions by model."""

    runs: dict[str, dict[str, Any]]
    linear: dict[str, Any]
    motions: dict[str, Motion]


def load(size: str = "cpu", folder: Path = RECORDED) -> Results:
    """Read a recorded study.

    Raises
    ------
    UsageError
        If a file of it is missing.
    """
    home = folder / size
    runs = {
        path.stem: read_json(path, "a recorded training run", ("evaluation",))
        for path in sorted(home.glob("*.json"), key=lambda path: list(PUBLISHED["CIFAR-10"]).index(path.stem)
                           if path.stem in PUBLISHED["CIFAR-10"] else -1)
        if path.stem != LINEAR
    }  # fmt: skip
    for name in ("vitrm", "vit-small"):
        if name not in runs:
            raise UsageError(f"no {name} is recorded in {home}; run python -m analyses.vitrm_on_cifar")
    _check_alike(runs)
    motions = {
        name: motion(read_json(home / "dynamics" / f"{name}.json", "a recorded motion", ("table",)))
        for name in ("vitrm", "vit-small", OFFLINE)
    }
    return Results(runs, read_json(home / f"{LINEAR}.json", "the linear classifier"), motions)


def _check_alike(runs: dict[str, dict[str, Any]]) -> None:
    """Refuse to compare runs of other images, or of other recipes (but for the average of the weights)."""

    def shared(run: dict[str, Any]) -> dict[str, Any]:
        options = run["options"]
        return {
            **{key: options[key] for key in ("data", "test")},
            "recipe": {**options["recipe"], "ema": None},
        }

    first, *others = runs.values()
    for run in others:
        changed = differences(shared(first), shared(run))
        if changed:
            raise UsageError(
                f"{first['network']} and {run['network']} were trained apart ({'; '.join(changed)})"
            )


def motion(content: dict[str, Any]) -> Motion:
    """The numbers of a model that verdicts rest on."""
    table, angles = pd.DataFrame(content["table"]), pd.DataFrame(content["repair"]["angles"])
    phases = Phases.from_dict(content["phases"])
    start = content["repair"]["starts"][1]
    path, repaired = {}, {}
    for group in content["readouts"]:
        speed = curve(table, "speed", group)
        path[group] = float(speed[: len(speed) // 2].sum() / speed.sum())
        rows = (
            angles[(angles["start"] == start) & (angles["group"] == group)]
            .sort_values("layer")["mean"]
            .to_numpy()
        )
        repaired[group] = float(rows[-1] / rows[0])
    rank = curve(table, "effective_rank", content["readouts"][-1])
    rank = rank[np.isfinite(rank)]
    return Motion(
        phases.layers,
        tuple(phases.boundaries),
        path,
        repaired,
        (float(rank[0]), float(rank.max()), float(rank[-1])),
    )


def curve(table: pd.DataFrame, statistic: str, group: str) -> np.ndarray:
    """Mean over images by layer."""
    rows = table[(table["statistic"] == statistic) & (table["group"] == group)]
    return rows.sort_values("layer")["mean"].to_numpy(dtype=float)


def better_than_linear(results: Results) -> Finding:
    """Is it trained at all?"""
    ours, linear = results.runs["vitrm"]["evaluation"], results.linear["accuracy"]
    return Finding(
        "ViTRM is far better than a linear classifier on pixels",
        "the 95 % interval of its accuracy lies above one and a quarter times the linear classifier's",
        f"{ours['accuracy']:.1%} [{ours['low']:.1%}, {ours['high']:.1%}] against {linear:.1%}",
        bool(ours["low"] > 1.25 * linear),
    )


def against_vit(results: Results) -> Finding:
    """Published: a little below ViT-Small with a fifth of its parameters."""
    (ours, theirs) = (results.runs[name] for name in ("vitrm", "vit-small"))
    low, high = ours["evaluation"]["low"], ours["evaluation"]["high"]
    other = theirs["evaluation"]["accuracy"]
    return Finding(
        "Recursion replaces depth: ViTRM keeps up with a ViT of several times its parameters",
        "at equal epochs its accuracy is not below the ViT's by more than its 95 % interval, with fewer parameters",
        f"{ours['evaluation']['accuracy']:.1%} [{low:.1%}, {high:.1%}] with {ours['parameters'] / 1e6:.2f} M against "
        f"{other:.1%} with {theirs['parameters'] / 1e6:.2f} M",
        bool(high >= other and ours["parameters"] < theirs["parameters"]),
    )


def more_steps(results: Results) -> Finding:
    """Does the answer gain from more steps than it was trained for?"""
    rows = results.runs["vitrm"]["evaluation"]["recursion"]["steps"]
    trained = min(results.runs["vitrm"]["options"]["n_sup"], len(rows))
    best = max(rows[trained - 1 :], key=lambda row: row["accuracy"])
    return Finding(
        "More recursion steps than it was trained for do not help",
        f"none of them has its interval above the accuracy after {trained}, as trained",
        ", ".join(f"{row['steps']}: {row['accuracy']:.1%}" for row in rows),
        bool(best["low"] <= rows[trained - 1]["accuracy"]),
    )


def converge(results: Results) -> Finding:
    """Do steps grow smaller?"""
    return _alike(
        results,
        "Steps of the recurrent model converge",
        "more than half of the angular path of both read-outs is made in the first half of the layers",
        lambda motion: ", ".join(f"{group} {share:.0%}" for group, share in motion.path.items()),
        lambda motion: all(share > HALF for share in motion.path.values()),
    )


def repair(results: Results) -> Finding:
    """Is noise at half depth smaller at the end?"""
    return _alike(
        results,
        "They repair perturbations",
        "the angle of both read-outs at the last layer is below that right after noise at half depth",
        lambda motion: ", ".join(f"{group} x {ratio:.2f}" for group, ratio in motion.repaired.items()),
        lambda motion: all(ratio < 1 for ratio in motion.repaired.values()),
    )


def rank(results: Results) -> Finding:
    """Does the rank of the updates fall?"""
    return _alike(
        results,
        "Their updates lose rank",
        "the effective rank of the last spatial update is below half of the largest",
        lambda motion: f"{motion.rank[0]:.0f}, at most {motion.rank[1]:.0f}, {motion.rank[2]:.0f}",
        lambda motion: motion.rank[2] < HALF * motion.rank[1],
    )


def _alike(results: Results, claim: str, rule: str, say: Any, holds: Any) -> Finding:
    """A verdict on ViTRM, with the ViTs beside it."""
    verdicts = {name: bool(holds(found)) for name, found in results.motions.items()}
    numbers = "; ".join(
        f"{name}: {say(found)} ({'yes' if verdicts[name] else 'no'})"
        for name, found in results.motions.items()
    )
    return Finding(claim, rule, numbers, verdicts["vitrm"])


FINDINGS = (better_than_linear, against_vit, more_steps, converge, repair, rank)


def page(results: Results) -> str:
    """The page, as Markdown."""
    first = results.runs["vitrm"]
    options, recipe, origin = first["options"], first["options"]["recipe"], first["provenance"]
    network = ViTRMConfig(**options["built"])
    published, supervised = VITRM.to_dict(), options["n_sup"]
    unrolled = results.motions["vitrm"].layers // (network.latent_steps + 1)
    changed = ", ".join(
        f"{key.replace('_', ' ')} {value} (published {published[key]})"
        for key, value in recipe.items()
        if value != published[key] and not key.endswith("_every")
    )
    lines = [
        "# ViTRM, recorded",
        "",
        "<!-- written by `python -m analyses.vitrm_findings` from the recorded results; do not edit -->",
        "",
        f"Trained on {options['data']['images']:,} images of CIFAR-10 (JPEG-recompressed; published: 50,000), tested",
        f"on {first['test']['images']:,}, on {origin['device']}.",
        f"ViTRM: width {network.width}, {network.depth} shared layers, patch {network.patch}, "
        f"n = {network.latent_steps}, N_sup = {options['n_sup']}, dropout {network.dropout:g} "
        "(published: width 384, 3, patch 4, n = 3, N_sup = 1, 0.1).",
        f"Recipe of all networks: {changed or 'as published'}. Only ViTRM ends with the average of its weights.",
        "",
        "| network | parameters | accuracy | macro F1 | training | images/s | published, batch 128 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    column = BATCH_SIZES.index(128)
    for name, run in results.runs.items():
        found, history = run["evaluation"], run["history"]
        lines.append(
            f"| {name} | {run['parameters'] / 1e6:.2f} M | {found['accuracy']:.1%} "
            f"[{found['low']:.1%}, {found['high']:.1%}] | {found['macro_f1']:.3f} "
            f"| {history['seconds'] / 60:.0f} min | {history['images_per_second']:.0f} "
            f"| {PUBLISHED['CIFAR-10'][name][column]:.1f} % at full size |"
        )
    lines += [
        f"| linear on pixels | | {results.linear['accuracy']:.1%} | | | | |",
        "",
        "Four fifths of the images fit the linear classifier, the rest choose its penalty.",
        "",
        *(SHARED_CPU if "CPU" in origin["device"] else ()),
        "## As a dynamical system",
        "",
        "Tokens that are read out: the answer (y of ViTRM, cls of a ViT) and the spatial ones (z, patches); paths,",
        f"angles and ranks are means over them. ViTRM takes {unrolled} recursion steps (trained for {supervised}). "
        "Phases by max-cut: "
        + "; ".join(
            f"{name} ({found.layers} layers) after {', '.join(map(str, found.boundaries))}"
            for name, found in results.motions.items()
        )
        + ".",
        "",
        *claims_table((make(results) for make in FINDINGS), here="ViTRM here"),
        "",
        f"Recorded in `analyses/results/vitrm/`, {origin['date'][:10]}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Rewrite, or check."""
    write_or_check(__doc__, lambda: {PAGE: page(load())})


if __name__ == "__main__":
    main()
