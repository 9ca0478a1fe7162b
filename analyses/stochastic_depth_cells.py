"""What `analyses.stochastic_depth` recorded, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyses.recording import RESULTS
from brdyn.errors import UsageError
from brdyn.phases import Phases
from brdyn.results import read_json

STUDY = RESULTS / "stochastic_depth"
SIZES = ("gpu", "cpu")


class Recorded(NamedTuple):
    """A recorded study.

    Attributes
    ----------
    models : DataFrame
        A row per network and moment, by name: `p`, `seed`, `stage`, `epoch`, `accuracy` and `train_accuracy`,
        `mean_similarity` over pairs of layers, and for each k described `boundaries_k`, `evenness_k`, `cut_k`
        (share of the dissimilarity), `gain_k` and `z_k`.
    fits : DataFrame
        A row per Raptor: `p`, `seed`, `stage`, `k`, `partition`, `draw`, `accuracy` by its teacher's head,
        `teacher_accuracy`, `kept` (their ratio), `agreement`, R^2 of all tokens, autoregressive: `r2` of the last
        layer, `r2_mean` and `r2_least` over layers; `seconds`.
    curves : DataFrame
        A row per Raptor, token group and layer: R^2, autoregressive, with the columns that name the Raptor.
    similarity : dict of str to ndarray
        By network and moment, (L, L).
    phases : dict of str to Phases
    validation : dict of str to list
        Accuracy on held-out images along training.
    config : dict
    failed : dict of str to str
    provenance : dict
        Of the newest result.
    """

    models: pd.DataFrame
    fits: pd.DataFrame
    curves: pd.DataFrame
    similarity: dict[str, np.ndarray]
    phases: dict[str, Phases]
    validation: dict[str, list[dict[str, float]]]
    config: dict[str, Any]
    failed: dict[str, str]
    provenance: dict[str, Any]


def read_study(size: str | None = None, folder: Path = STUDY) -> Recorded:
    """Everything of a study: the one named, or the largest that is there.

    Raises
    ------
    UsageError
        If there is none.
    """
    home = folder / (size or next((one for one in SIZES if (folder / one).is_dir()), SIZES[-1]))
    config = read_json(home / "config.json", "the configuration of a study")
    models, similarity, phases, validation, failed = [], {}, {}, {}, {}
    newest: dict[str, Any] = {}
    for name, content in _results(home / "models"):
        newest = max(newest, content["provenance"], key=lambda one: one.get("date", ""))
        if "failed" in content:
            failed[name] = content["failed"]
            continue
        similarity[name] = np.array(content["similarity"])
        phases[name] = Phases.from_dict(content["phases"])
        if content["validation"]:
            validation[name] = content["validation"]
        models.append(_model(name, content, phases[name], config["phases"]))
    fits, curves = [], []
    for name, content in _results(home / "fits"):
        newest = max(newest, content["provenance"], key=lambda one: one.get("date", ""))
        if "failed" in content:
            failed[name] = content["failed"]
            continue
        cell = {**content["cell"], **content["cell"]["teacher"]}
        del cell["teacher"]
        found = content["curves"]["autoregressive"]["r2"]
        curves += [
            {**cell, "group": group, "layer": layer, "r2": value}
            for group, values in found.items()
            for layer, value in enumerate(values, 1)
        ]
        whole = found["all"]
        fits.append(
            {
                **cell,
                **{key: content[key] for key in ("accuracy", "teacher_accuracy", "agreement", "seconds")},
                "kept": content["accuracy"] / content["teacher_accuracy"],
                "r2": whole[-1],
                "r2_mean": float(np.mean(whole)),
                "r2_least": min(whole),
            }
        )
    if not models:
        raise UsageError(f"nothing is recorded in {str(home)!r}; run `python -m analyses.stochastic_depth`")
    return Recorded(
        pd.DataFrame(models).set_index("name").sort_values(["stage", "p", "seed"]),
        pd.DataFrame(fits),
        pd.DataFrame(curves),
        similarity,
        phases,
        validation,
        config,
        failed,
        newest,
    )


def _results(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(folder.rglob("*.json")):
        name = str(path.relative_to(folder).with_suffix(""))
        yield name, read_json(path, "a cell of this study", ("cell", "digest", "provenance"))


def _model(name: str, content: dict[str, Any], phases: Phases, ks: list[int]) -> dict[str, Any]:
    row = {
        "name": name,
        **content["cell"],
        **{key: content[key] for key in ("epoch", "accuracy", "train_accuracy", "mean_similarity")},
        "train_seconds": content["train_seconds"],
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
