"""What `analyses.stochastic_depth` recorded, as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyses.recording import RESULTS
from analyses.stochastic_depth_plan import FITS, LAST, NETWORKS, Config
from analyses.study import read_all
from brdyn.classifiers.recipe import BEST
from brdyn.errors import UsageError
from brdyn.phases import Phases
from brdyn.store import read_json

STUDY = RESULTS / "stochastic_depth"
SIZES = ("gpu", "cpu")
MEASURED = ("epoch", "accuracy", "train_accuracy", "mean_similarity", "train_seconds", "images_per_second")
FIT_COLUMNS = ["p", "seed", "moment", "k", "partition", "draw"]
VALUES = ["accuracy", "teacher_accuracy", "kept", "agreement", "r2", "r2_mean", "r2_least", "seconds"]


class Recorded(NamedTuple):
    """A recorded study: what its configuration asks for and is there.

    `networks` has a row per network and moment, by name: `overfitted` says that from its best epoch to the last
    accuracy rose on training and fell on test images; for each k described there are `boundaries_k`, `evenness_k`,
    `cut_k` (share of the dissimilarity), `over_drift_k` (more than of a drift), `gain_k` and `z_k`. `fits` has a row
    per Raptor: `kept` is the ratio of its accuracy by its teacher's head to the teacher's, both above chance (none
    where the teacher is at chance), `r2` that of all tokens at the last layer, autoregressive, and `curves` has it by
    token group and layer. `similarity` and `phases` are by network and moment, `validation` (accuracy on held-out
    images along training) by run; `provenance` is that of the newest result.
    """

    networks: pd.DataFrame
    fits: pd.DataFrame
    curves: pd.DataFrame
    similarity: dict[str, np.ndarray]
    phases: dict[str, Phases]
    validation: dict[str, list[dict[str, float]]]
    config: Config
    failed: dict[str, str]
    provenance: dict[str, Any]


def read_study(size: str | None = None, folder: Path = STUDY) -> Recorded:
    """Everything of a study: the one named, or the largest that has a network.

    Results of other configurations, and Raptors of networks that were trained again since, are left out.

    Raises
    ------
    UsageError
        If there is none.
    """
    there = [one for one in SIZES if any((folder / one / NETWORKS).glob("*.json"))]
    home = folder / (size or (there or SIZES)[0])
    config = Config(**read_json(home / "config.json", "the configuration of a study"))
    planned = {moment.name for one in config.networks() for moment in config.moments(one)}
    found, failed, newest = read_all(
        {name: path for name, path in _files(home / NETWORKS).items() if name in planned}, ("cell", "asked"),
        lambda _, content: config.asks_for(content["asked"]),
    )  # fmt: skip
    if not found:
        raise UsageError(f"nothing is recorded in {str(home)!r}; run `python -m analyses.stochastic_depth`")
    teachers = {name: content["digest_of_weights"] for name, content in found.items()}
    done, unfitted, latest = read_all(
        _files(home / FITS), ("cell", "asked"),
        lambda name, content: content["asked"]["teacher"] == teachers.get(name.split("/")[0]),
    )  # fmt: skip
    phases = {name: Phases.from_dict(content["phases"]) for name, content in found.items()}
    rows = [_network(name, content, phases[name], config.phases) for name, content in found.items()]
    table = pd.DataFrame(rows).set_index("name").sort_values(["moment", "p", "seed"])
    table["overfitted"] = _overfitted(table)
    fits = [_fit(content, 1 / found[name.split("/")[0]]["classes"]) for name, content in done.items()]
    return Recorded(
        table,
        pd.DataFrame([fit for fit, _ in fits], columns=[*FIT_COLUMNS, *VALUES]),
        pd.DataFrame(
            [row for _, curves in fits for row in curves], columns=[*FIT_COLUMNS, "group", "layer", "r2"]
        ),
        {name: np.array(content["similarity"]) for name, content in found.items()},
        phases,
        {name.rpartition("_")[0]: found[name]["validation"] for name in found if found[name]["validation"]},
        config,
        {**failed, **unfitted},
        max(newest, latest, key=lambda one: one.get("date", "")),
    )


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.json"))
    }


def _overfitted(table: pd.DataFrame) -> list[bool]:
    """Of every row, whether its network did by the last epoch."""
    columns = ["accuracy", "train_accuracy"]
    at = {moment: rows.set_index(["p", "seed"])[columns] for moment, rows in table.groupby("moment")}
    if not {BEST, LAST} <= set(at):
        return [False] * len(table)
    change = at[LAST] - at[BEST]
    overfitted = set(change.index[(change["accuracy"] < 0) & (change["train_accuracy"] > 0)])
    return [key in overfitted for key in zip(table["p"], table["seed"], strict=True)]


def _network(name: str, content: dict[str, Any], phases: Phases, ks: list[int]) -> dict[str, Any]:
    row = {"name": name, **content["cell"], **{key: content[key] for key in MEASURED}}
    for k in ks:
        found, cut = phases.with_k(k), phases.with_k(k).chosen
        values = {"boundaries": found.boundaries, "evenness": found.evenness, "cut": cut.cut_share, "gain": cut.gain,
                  "z": cut.z, "over_drift": cut.cut_share - cut.drift_share}  # fmt: skip
        row |= {f"{key}_{k}": value for key, value in values.items()}
    return row


def _fit(content: dict[str, Any], chance: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A Raptor, and its curves."""
    cell = {**content["cell"], **content["cell"]["teacher"]}
    del cell["teacher"]
    found = content["curves"]["autoregressive"]["r2"]
    curves = [
        {**cell, "group": group, "layer": layer, "r2": value}
        for group, values in found.items()
        for layer, value in enumerate(values, 1)
    ]
    theirs, ours, whole = content["teacher_accuracy"], content["accuracy"], found["all"]
    deviation = (chance * (1 - chance) / content["n_images"]) ** 0.5
    kept = (ours - chance) / (theirs - chance) if theirs > chance + 2 * deviation else np.nan
    said = {key: content[key] for key in ("accuracy", "teacher_accuracy", "agreement", "seconds")}
    r2 = {"r2": whole[-1], "r2_mean": float(np.mean(whole)), "r2_least": min(whole)}
    return {**cell, **said, "kept": kept, **r2}, curves
