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
from scipy import stats

from analyses.findings import Finding, claims_table, not_recorded
from analyses.recording import OFFLINE, RESULTS, write_or_check
from analyses.statistics import mean_difference
from analyses.vitrm_grid import Grid, read_grid
from analyses.vitrm_on_cifar import LINEAR
from brdyn.classifiers.config import ViTRMConfig
from brdyn.classifiers.recipe import BATCH, VITRM
from brdyn.errors import UsageError
from brdyn.phases import Phases
from brdyn.store import read_json
from brdyn.training.settings import differences

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guide" / "vitrm_findings.md"
RECORDED = RESULTS / "vitrm"
BATCH_SIZES = (64, 128, 256, 512, 1024)
NONE = float("nan")
SIZES = ("gpu", "cpu")
AT_PUBLISHED_SIZE = ("published", "gpu")
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


def load(size: str | None = None, folder: Path = RECORDED) -> Results:
    """Read a recorded study: the one named, or the largest that is whole.

    Raises
    ------
    UsageError
        If a file of it is missing.
    """
    whole = [one for one in SIZES if (folder / one / "dynamics" / f"{OFFLINE}.json").is_file()]
    home = folder / (size or (whole or SIZES)[0])
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


def read_at_size(folder: Path = RECORDED) -> dict[str, Any] | None:
    """The longest run of the published ViTRM; None where there is none."""
    places = [folder / size / "vitrm.json" for size in AT_PUBLISHED_SIZE]
    runs = [read_json(path, "a recorded training run", ("evaluation",)) for path in places if path.is_file()]
    return max(runs, key=lambda run: run["options"]["recipe"]["epochs"], default=None)


def published_accuracy(run: dict[str, Any] | None) -> Finding:
    """Does it get as far?"""
    mark = PUBLISHED["CIFAR-10"]["vitrm"][BATCH_SIZES.index(128)]
    claim = f"ViTRM gets {mark:g} % of CIFAR-10 right, trained from scratch at batch 128"
    rule = "its 95 % interval over test images reaches the published accuracy"
    if run is None:
        return not_recorded(claim, rule)
    found, epochs = run["evaluation"], run["options"]["recipe"]["epochs"]
    said = f"{found['accuracy']:.1%} [{found['low']:.1%}, {found['high']:.1%}] after {epochs:g} epochs"
    return Finding(claim, rule, said, bool(100 * found["high"] >= mark))


AT_SIZE = (published_accuracy,)


def at_size_section(run: dict[str, Any] | None) -> list[str]:
    """A line on the longest run of the published size; none where there is none."""
    if run is None:
        return []
    history, device = run["history"], run["provenance"]["device"]
    return [
        f"At the published size: {published_accuracy(run).numbers}, {history['seconds'] / 60:.0f} minutes at "
        f"{history['images_per_second']:.0f} images/s on {device}.",
        "",
    ]


def best_of_grid(grid: Grid | None) -> Finding:
    """Is the published choice the best?"""
    claim = "Three latent updates and one supervised step are best"
    rule = (
        "n = 3, N_sup = 1 is the most accurate cell of the grid (fails: another is above it by more than networks of "
        "one cell differ by over seeds, a t interval of 95 % for all cells together)"
    )
    if grid is None or not {(3, 1)} <= set(zip(grid.cells["n"], grid.cells["n_sup"], strict=True)):
        return not_recorded(claim, rule)
    cells = grid.cells.set_index(["n", "n_sup"])["accuracy"]
    best = max(cells.index, key=lambda cell: cells[cell])
    ours, most, sd, seeds = float(cells[(3, 1)]), float(cells[best]), *seeds_apart(grid)
    numbers = f"{ours:.1%} (sd {sd:.1%} of {seeds} seeds)" if seeds > 1 else f"{ours:.1%} (one seed)"
    numbers += f"; best n = {best[0]}, N_sup = {best[1]}: {most:.1%}"
    if best == (3, 1):
        return Finding(claim, rule, numbers, True)
    by_chance = stats.t.ppf(1 - 0.05 / max(1, len(cells) - 1), max(1, seeds - 1)) * sd * 2**0.5
    return Finding(claim, rule, numbers, False if seeds > 1 and most - ours > by_chance else None)


def sees_image(grid: Grid | None) -> Finding:
    """Published as a question."""
    claim = "The latent gains from seeing the image in every update, f([x; y; z]) over f([y; z])"
    rule = "difference of the means over seeds, with its 95 % t interval, is above 0 (fails: below); n = 3, N_sup = 1"
    if grid is None or len(set(grid.repeats["sees_image"])) < 2:
        return not_recorded(claim, rule)
    by_seed = grid.repeats.pivot_table(index="seed", columns="sees_image", values="accuracy").dropna()
    gain = mean_difference(by_seed[True] - by_seed[False])
    numbers = f"{by_seed[True].mean():.1%} against {by_seed[False].mean():.1%}: {gain.say('+.1%')}"
    return Finding(claim, rule, f"{numbers} ({len(by_seed)} seeds)", gain.positive)


def batch_sizes(grid: Grid | None) -> Finding:
    """From the smallest to the largest batch."""
    claim = "Accuracy holds from small to large batches"
    rule = "the largest batch loses at most 2 points on the best one (published: 1.9); the same learning rate for all"
    if grid is None or len(grid.batches) < 2:
        return not_recorded(claim, rule)
    rows = grid.batches.sort_values("batch_size")
    numbers = ", ".join(
        f"{size} {right:.1%}" for size, right in zip(rows["batch_size"], rows["accuracy"], strict=True)
    )
    lost = rows["accuracy"].max() - rows["accuracy"].iloc[-1]
    return Finding(claim, rule, numbers, bool(lost <= 0.02))


def seeds_apart(grid: Grid) -> tuple[float, int]:
    """Standard deviation of the accuracy over seeds, NaN of one, and how many there are."""
    rows = grid.repeats[grid.repeats["sees_image"].astype(bool)]
    return float(rows["accuracy"].std()), len(rows)


GRID_FINDINGS = (best_of_grid, sees_image, batch_sizes)


def grid_section(grid: Grid) -> list[str]:
    """The grid as a table, and what it says."""
    recipe, table = grid.size.recipe, grid.cells.pivot(index="n", columns="n_sup", values="accuracy")
    images = f"{grid.size.train_images:,}" if grid.size.train_images else "all"
    return [
        "## Ablations",
        "",
        f"Networks trained for {recipe.epochs:g} epochs of {images} images (`python -m analyses.vitrm_grid`, size "
        f"`{grid.name}`, {grid.provenance['device']}),",
        f"width {grid.size.built.get('width', ViTRMConfig.width)}, batch {recipe.batch_size}, tested on "
        f"{grid.testing:,} images. One network a cell; a batch of N_sup supervised steps has as many",
        "optimizer steps, so cells to the right are trained for longer at equal epochs.",
        "",
        "| n \\ N_sup | " + " | ".join(str(number) for number in table.columns) + " |",
        "| --- |" + " --- |" * len(table.columns),
        *(
            f"| {n} | " + " | ".join(f"{value:.1%}" if np.isfinite(value) else "" for value in row) + " |"
            for n, row in zip(table.index, table.to_numpy(), strict=True)
        ),
        "",
        *claims_table((make(grid) for make in GRID_FINDINGS), "claim (Akazan et al.)"),
        "",
        *(f"Failed: {name} ({why})." for name, why in grid.failed.items()),
    ]


def page(results: Results, grid: Grid | None = None) -> str:
    """The page, as Markdown."""
    first = results.runs["vitrm"]
    options, recipe, origin = first["options"], first["options"]["recipe"], first["provenance"]
    network = ViTRMConfig(**options["built"])
    published, supervised = {**VITRM.to_dict(), "batch_size": BATCH}, options["n_sup"]
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
        *(grid_section(grid) if grid is not None else ()),
        *at_size_section(read_at_size()),
        f"Recorded in `analyses/results/vitrm/`, {origin['date'][:10]}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Rewrite, or check."""
    write_or_check(__doc__, lambda: {PAGE: page(load(), read_grid())})


if __name__ == "__main__":
    main()
