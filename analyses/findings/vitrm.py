"""ViTRM: its accuracy beside other networks, its ablations, and its motion as a dynamical system."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from analyses.findings.twins import Finding, with_twins
from analyses.recording import OFFLINE, RESULTS, ROOT
from analyses.rules import Numbers
from analyses.statistics import NORMAL, Estimate, Side, contrast, largest, mean_difference
from analyses.study import is_recorded
from analyses.vitrm_grid import Grid, read_grid
from analyses.vitrm_on_cifar import LINEAR
from brdyn import Phases, UsageError
from brdyn.blank import on_meta
from brdyn.classifiers import ViTRM, ViTRMConfig
from brdyn.provenance import images_of
from brdyn.store import read_json
from brdyn.training.settings import differences

RECORDED = RESULTS / "vitrm"
BATCH_SIZES = (64, 128, 256, 512, 1024)
SIZES = ("gpu", "cpu")
AT_PUBLISHED_SIZE = ("published", "gpu")
PARAMETERS = {10: 3_624_971, 100: 3_659_621}  # published, by number of classes
PUBLISHED: dict[str, dict[str, tuple[float, ...]]] = yaml.safe_load((ROOT / "analyses" / "published.yaml").read_text())
"""Top-1 accuracy (%) by batch size: 1000 epochs for vitrm, 300 for the others. NaN: out of memory."""
AT_128 = BATCH_SIZES.index(128)
NO_LUCK = (0.0, np.inf)  # of what comes out alike each time
BETTER = 1.25  # times as accurate is far better


def heading(*runs: dict[str, Any]) -> str:
    """Of a picture of networks that were trained alike: how, and on which images they are tested."""
    run = runs[0]
    options, side = run["options"], run["options"]["image_size"]
    trained = f"{options['data']['images']:,} images for {options['recipe']['epochs']:g} epochs"
    names = ", ".join(one["network"] for one in runs)
    return f"{names}, trained on {trained}\ntested on {images_of(run['test']['images'], (side, side))}"


def motion_heading(name: str, content: dict[str, Any], noised: bool = False) -> str:
    """Of a picture of a recorded motion, or of what it says of noise: of which model and on which images."""
    count = content["n_repair"] if noised else content["images"]["read"]
    return f"{name}\n{images_of(count, content['model']['image_size'])}"


class Motion(NamedTuple):
    """How the tokens of one model move.

    By read-out: `path`, the share of the angular path made in the first half of the layers, and `repaired`, the angle
    at the last layer over that at the middle, where noise was added to all tokens. `rank`: effective rank of spatial
    updates, first, largest, last. `untrained`: the same of each untrained twin, where there are any.
    """

    layers: int
    boundaries: tuple[int, ...]
    path: dict[str, float]
    repaired: dict[str, float]
    rank: tuple[float, float, float]
    untrained: tuple[Motion, ...] = ()


class Results(NamedTuple):
    """The recorded study: runs by network, the linear classifier, motions by model; and how far networks of one recipe
    are apart over seeds, as recorded with the grid, since of each network here there is one."""

    runs: dict[str, dict[str, Any]]
    linear: dict[str, Any]
    motions: dict[str, Motion]
    apart: tuple[float, int] = (np.nan, 1)


def load(size: str | None = None, folder: Path = RECORDED) -> Results:
    """Read a recorded study: the one named, or the largest that is whole. Raises UsageError if a file of it is
    missing."""
    moving = [f"dynamics/{name}.json" for name in ("vitrm", "vit-small", OFFLINE)]
    whole = [one for one in SIZES if all(is_recorded(folder / one / name) for name in moving)]
    home = folder / (size or (whole or SIZES)[0])
    files = [path for path in home.glob("*.json") if path.stem != LINEAR]
    found = {path.stem: read_json(path, "a recorded training run") for path in files}
    order = [*sorted(set(found) - set(PUBLISHED["CIFAR-10"])), *PUBLISHED["CIFAR-10"]]
    runs = {name: found[name] for name in order if "evaluation" in found.get(name, ())}
    if "vitrm" not in runs:
        raise UsageError(f"no trained ViTRM is recorded in {str(home)!r}; run `python -m analyses.vitrm_on_cifar`")
    check_alike(runs)
    motions = {Path(name).stem: motion(read_json(home / name, "a recorded motion", ("table",))) for name in moving}
    linear, grid = read_json(home / f"{LINEAR}.json", "the linear classifier"), read_grid()
    return Results(runs, linear, motions, seeds_apart(grid) if grid else (np.nan, 1))


def check_alike(runs: dict[str, dict[str, Any]]) -> None:
    """Refuse to compare runs of other images, or of other recipes (but for the average of the weights)."""

    def shared(run: dict[str, Any]) -> dict[str, Any]:
        data, test, recipe = (run["options"][name] for name in ("data", "test", "recipe"))
        return {"data": data, "test": test, "recipe": {**recipe, "ema": None}}

    first, *others = runs.values()
    for run in others:
        if changed := differences(shared(first), shared(run)):
            raise UsageError(f"{first['network']} and {run['network']} were trained apart ({'; '.join(changed)})")


def motion(content: dict[str, Any]) -> Motion:
    """The numbers of a model that verdicts rest on, and those of its untrained twins."""
    twins = content.get("null", {"twins": []})["twins"]
    return _motion(content)._replace(untrained=tuple(_motion({**content, **twin}) for twin in twins))


def _motion(content: dict[str, Any]) -> Motion:
    table, angles = pd.DataFrame(content["table"]), pd.DataFrame(content["repair"]["angles"])
    repaired = angles[angles["start"] == content["repair"]["starts"][1]]
    phases, path, left = Phases.from_dict(content["phases"]), {}, {}
    for group in content["readouts"]:
        speed, angle = _curve(table[table["statistic"] == "speed"], group), _curve(repaired, group)
        path[group] = float(speed[: len(speed) // 2].sum() / speed.sum())
        left[group] = float(angle[-1] / angle[0])
    rank = _curve(table[table["statistic"] == "effective_rank"], content["readouts"][-1])
    rank = rank[np.isfinite(rank)]
    ends = float(rank[0]), float(rank.max()), float(rank[-1])
    return Motion(phases.layers, tuple(phases.boundaries), path, left, ends)


def _curve(rows: pd.DataFrame, group: str) -> np.ndarray:
    return rows[rows["group"] == group].sort_values("layer")["mean"].to_numpy(dtype=float)


def accuracy(run: dict[str, Any]) -> Estimate:
    return Estimate.of(run["evaluation"], "accuracy")


def sizes(_: Any) -> Numbers:
    with on_meta():
        networks = [ViTRM(ViTRMConfig(classes=classes)) for classes in PARAMETERS]
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    return {"counts": counts, "published": PARAMETERS}


def _network(accuracy: Estimate, apart: tuple[float, int], weight: float = 1) -> Side:
    """A network among others, by what its test images leave open and how far networks of one recipe are apart."""
    sd, seeds = apart
    return Side(weight, [accuracy.value], accuracy.standard_error, (sd**2, seeds - 1))


def _lead(one: Estimate, other: Estimate, apart: tuple[float, int]) -> Estimate:
    """Of a network's accuracy on another's, in points."""
    return contrast(_network(one, apart), _network(other, apart, -1)).times(100)


def better_than_linear(results: Results) -> Numbers:
    right, linear = accuracy(results.runs["vitrm"]), results.linear["accuracy"]
    images = of_images(linear, results.runs["vitrm"]["test"]["images"])
    pixels = Side(-BETTER, [linear], images.standard_error, NO_LUCK)
    lead = contrast(_network(right, results.apart), pixels).times(100)
    return {"lead": lead, "right": right, "linear": linear}


def against_vit(results: Results) -> Numbers:
    ours, theirs = (results.runs[name] for name in ("vitrm", "vit-small"))
    here, there = accuracy(ours), accuracy(theirs)
    return {
        "lead": _lead(here, there, results.apart), "right": here, "vit": there.value,
        "parameters": ours["parameters"], "vit_parameters": theirs["parameters"],
    }  # fmt: skip


def more_steps(results: Results) -> Numbers:
    rows = results.runs["vitrm"]["evaluation"]["recursion"]["steps"]
    trained = min(results.runs["vitrm"]["options"]["n_sup"], len(rows))
    right = [Estimate.of(row, "accuracy").times(100) for row in rows]
    return {"gains": [one.less(right[trained - 1]) for one in right[trained:]], "rows": rows}


def _each(numbers: Finding[Motion]) -> Finding[Results]:
    """Numbers of every model, with those of its untrained twins where there are any."""
    return lambda results: {
        "each": {model: with_twins(numbers(one), map(numbers, one.untrained)) for model, one in results.motions.items()}
    }


def _ranks(found: Motion) -> dict[str, float]:
    first, most, last = found.rank
    return {"first": first, "largest": most, "last": last, "share": last / most}


converge = _each(lambda found: {"path": found.path})
repair = _each(lambda found: {"repaired": found.repaired})
rank = _each(_ranks)


def read_at_size(folder: Path = RECORDED) -> dict[str, Any] | None:
    """The longest run of the published ViTRM; None where there is none."""
    places = [folder / size / "vitrm.json" for size in AT_PUBLISHED_SIZE]
    runs = [read_json(path, "a recorded training run", ("evaluation",)) for path in places if path.is_file()]
    return max(runs, key=lambda run: run["options"]["recipe"]["epochs"], default=None)


def published_accuracy(run: dict[str, Any]) -> Numbers:
    right = accuracy(run)
    return {"points": right.times(100), "right": right, "epochs": run["options"]["recipe"]["epochs"]}


def best_of_grid(grid: Grid) -> Numbers | None:
    if (3, 1) not in set(zip(grid.cells["n"], grid.cells["n_sup"], strict=True)):
        return None
    cells, apart = grid.cells.set_index(["n", "n_sup"])["accuracy"], seeds_apart(grid)
    right = {cell: of_images(value, grid.testing) for cell, value in cells.items()}
    ours = right.pop((3, 1))
    lead = {f"n = {n}, N_sup = {steps}": _lead(one, ours, apart) for (n, steps), one in right.items()}
    best = max([(3, 1), *right], key=cells.get)
    return {
        "lead": lead, "most": largest(lead.values()), "right": ours.value, "sd": apart[0], "seeds": apart[1],
        "best": best, "of_best": float(cells[best]),
    }  # fmt: skip


def of_images(share: float, count: int) -> Estimate:
    """A share of so many test images, by the normal interval."""
    half = NORMAL * (share * (1 - share) / count) ** 0.5
    return Estimate(share, share - half, share + half)


def sees_image(grid: Grid) -> Numbers | None:
    if len(set(grid.repeats["sees_image"])) < 2:
        return None
    right = grid.repeats.pivot_table(index="seed", columns="sees_image", values="accuracy").dropna()
    gain, mean = mean_difference(right[True] - right[False]), right.mean()
    return {"gain": gain, "seen": mean[True], "once": mean[False], "seeds": len(right)}


def batch_sizes(grid: Grid) -> Numbers | None:
    if len(grid.batches) < 2:
        return None
    right = grid.batches.sort_values("batch_size").set_index("batch_size")["accuracy"]
    *smaller, last = (of_images(value, grid.testing) for value in right)
    apart = seeds_apart(grid)
    return {"right": right, "lost": largest(_lead(one, last, apart) for one in smaller)}


def seeds_apart(grid: Grid) -> tuple[float, int]:
    """Standard deviation of the accuracy over seeds, NaN of one, and how many there are."""
    rows = grid.repeats[grid.repeats["sees_image"].astype(bool)]
    return float(rows["accuracy"].std()), len(rows)
