"""What `analyses.stochastic_depth` recorded, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyses.recording import RESULTS
from analyses.stochastic_depth_plan import LAST, Config
from brdyn.classification.recipe import BEST
from brdyn.errors import UsageError
from brdyn.phases import Phases
from brdyn.results import read_json

STUDY = RESULTS / "stochastic_depth"
SIZES = ("gpu", "cpu")
NETWORKS, FITS = "networks", "fits"
FIT_COLUMNS = ["p", "seed", "moment", "k", "partition", "draw"]
VALUES = ["accuracy", "teacher_accuracy", "kept", "agreement", "r2", "r2_mean", "r2_least", "seconds"]


class Recorded(NamedTuple):
    """A recorded study: what its configuration asks for and is there.

    Attributes
    ----------
    networks : DataFrame
        A row per network and moment, by name: `p`, `seed`, `moment`, `epoch`, `accuracy` and `train_accuracy`,
        `train_seconds` and `images_per_second` of its training, `overfitted` (from its best epoch to the last, accuracy
        rose on training and fell on test images), `mean_similarity` over pairs of layers, and for each k described
        `boundaries_k`, `evenness_k`, `cut_k` (share of the dissimilarity), `over_drift_k` (more than of a drift),
        `gain_k` and `z_k`.
    fits : DataFrame
        A row per Raptor: `p`, `seed`, `moment`, `k`, `partition`, `draw`, `accuracy` by its teacher's head,
        `teacher_accuracy`, `kept` (the ratio of both above chance; none where the teacher is at chance), `agreement`,
        R^2 of all tokens, autoregressive: `r2` of the last layer, `r2_mean` and `r2_least` over layers; `seconds`.
    curves : DataFrame
        A row per Raptor, token group and layer: R^2, autoregressive, with the columns that name the Raptor.
    similarity : dict of str to ndarray
        By network and moment, (L, L).
    phases : dict of str to Phases
    validation : dict of str to list
        Accuracy on held-out images along training, by run.
    config : Config
    failed : dict of str to str
    provenance : dict
        Of the newest result.
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
    networks, similarity, phases, validation, failed, digests = [], {}, {}, {}, {}, {}
    newest: dict[str, Any] = {}
    for name, content in _results(home / NETWORKS):
        if name not in planned or not config.asks_for(content["asked"]):
            continue
        newest = max(newest, content["provenance"], key=lambda one: one.get("date", ""))
        if "failed" in content:
            failed[name] = content["failed"]
            continue
        similarity[name] = np.array(content["similarity"])
        phases[name] = Phases.from_dict(content["phases"])
        digests[name] = (content["digest_of_weights"], 1 / content["classes"])
        if content["validation"]:
            validation[name.rpartition("_")[0]] = content["validation"]
        networks.append(_network(name, content, phases[name], config.phases))
    if not networks:
        raise UsageError(f"nothing is recorded in {str(home)!r}; run `python -m analyses.stochastic_depth`")
    fits, curves = [], []
    for name, content in _results(home / FITS):
        teacher = name.split("/")[0]
        if teacher not in digests or content["asked"]["teacher"] != digests[teacher][0]:
            continue
        newest = max(newest, content["provenance"], key=lambda one: one.get("date", ""))
        if "failed" in content:
            failed[name] = content["failed"]
            continue
        fit, rows = _fit(content, chance=digests[teacher][1])
        fits.append(fit)
        curves += rows
    table = pd.DataFrame(networks).set_index("name").sort_values(["moment", "p", "seed"])
    table["overfitted"] = _overfitted(table)
    return Recorded(
        table,
        pd.DataFrame(fits, columns=[*FIT_COLUMNS, *VALUES]),
        pd.DataFrame(curves, columns=[*FIT_COLUMNS, "group", "layer", "r2"]),
        similarity,
        phases,
        validation,
        config,
        failed,
        newest,
    )


def _results(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        yield name, read_json(path, "a cell of this study", ("cell", "digest", "asked", "provenance"))


def _overfitted(table: pd.DataFrame) -> list[bool]:
    """Of every row, whether its network did by the last epoch."""
    by_run = table.set_index(["p", "seed", "moment"])[["accuracy", "train_accuracy"]].sort_index()
    found = {}
    for key in {(p, seed) for p, seed, _ in by_run.index}:
        moments = by_run.loc[key]
        if {BEST, LAST} <= set(moments.index):
            change = moments.loc[LAST] - moments.loc[BEST]
            found[key] = bool(change["accuracy"] < 0 < change["train_accuracy"])
    return [found.get(key, False) for key in zip(table["p"], table["seed"], strict=True)]


def _network(name: str, content: dict[str, Any], phases: Phases, ks: list[int]) -> dict[str, Any]:
    row = {
        "name": name,
        **content["cell"],
        **{key: content[key] for key in ("epoch", "accuracy", "train_accuracy", "mean_similarity")},
        **{key: content[key] for key in ("train_seconds", "images_per_second")},
    }
    for k in ks:
        found = phases.with_k(k)
        row |= {
            f"boundaries_{k}": found.boundaries,
            f"evenness_{k}": found.evenness,
            f"cut_{k}": found.chosen.cut_share,
            f"over_drift_{k}": found.chosen.cut_share - found.chosen.drift_share,
            f"gain_{k}": found.chosen.gain,
            f"z_{k}": found.chosen.z,
        }
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
    fit = {
        **cell,
        **{key: content[key] for key in ("accuracy", "teacher_accuracy", "agreement", "seconds")},
        "kept": (ours - chance) / (theirs - chance) if theirs > chance + 2 * deviation else np.nan,
        "r2": whole[-1],
        "r2_mean": float(np.mean(whole)),
        "r2_least": min(whole),
    }
    return fit, curves
